"""Measures cases of one part, a line each; `__main__` starts it, and ends it where it takes too long.

    python -m benchmarks.gpu.worker MODULE [--tiny]

Answers are JSON objects on what was the standard output; whatever libraries print there goes to the standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from typing import Any

_LAST = 6000  # characters of a traceback


def main() -> None:
    """Serves cases until there are no more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # a learner needs no Ray: what would start one shall fail
    module, *flags = sys.argv[1:]
    try:
        from benchmarks.gpu import older_torch

        adapted = older_torch.adapt()
        measure = importlib.import_module(f"benchmarks.gpu.{module}").measure
    except Exception as error:  # noqa: BLE001 (the rows say so)
        answers.write(json.dumps(_broken(error)) + "\n")
        return
    answers.write(json.dumps({"adapted": adapted} if adapted else {}) + "\n")
    for line in sys.stdin:
        try:
            answer = measure(line.strip(), "--tiny" in flags)
        except Exception as error:  # noqa: BLE001 (one that does not fit leaves the others their turn)
            answer = _broken(error)
        answers.write(json.dumps(answer, default=str) + "\n")


def _broken(error: Exception) -> dict[str, Any]:
    said = (str(error).strip().splitlines() or [""])[0]
    return {"error": f"{type(error).__name__}: {said}"[:400], "traceback": traceback.format_exc()[-_LAST:]}


if __name__ == "__main__":
    main()
