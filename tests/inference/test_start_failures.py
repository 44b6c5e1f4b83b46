"""An engine that does not start, or dies, says what vLLM's own process said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proxmo_rllib.inference.engine import EngineConfig, EngineDeadError
from proxmo_rllib.inference.pool import InferencePool

# As vLLM writes them: the cause, then summaries of it by the parents.
_SAID = '''
import sys
from proxmo_rllib.inference.own_log import OwnLog
print("ValueError: of another engine, before this one", file=sys.stderr, flush=True)
log = OwnLog()
print("""(EngineCore pid=7) ERROR 11-27 11:22:36 [core.py:1512] EngineCore failed to start.
(EngineCore pid=7) ERROR 11-27 11:22:36 [core.py:1512] Traceback (most recent call last):
(EngineCore pid=7) ERROR 11-27 11:22:36 [core.py:1512]   File "core.py", line 12, in __init__
(EngineCore pid=7) ERROR 11-27 11:22:36 [core.py:1512]     raise ValueError(message)
(EngineCore pid=7) ERROR 11-27 11:22:36 [core.py:1512] ValueError: no room for the KV cache:
(EngineCore pid=7) ERROR 11-27 11:22:36 [core.py:1512] 3 GiB are needed
Traceback (most recent call last):
  File "process.py", line 1, in run
RuntimeError: Engine core initialization failed. See root cause above.
vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.""", file=sys.stderr, flush=True)
print(log.cause())
'''


def test_the_cause_is_found_among_what_was_written_since(tmp_path: Path, repository: Path) -> None:
    with (tmp_path / "worker.err").open("w") as file:
        done = subprocess.run(
            [sys.executable, "-c", _SAID], cwd=repository, stdout=subprocess.PIPE, stderr=file, text=True, check=True
        )
    assert done.stdout.strip() == (
        f"ValueError: no room for the KV cache: 3 GiB are needed (log: {tmp_path / 'worker.err'})"
    )


def test_a_terminal_is_no_log(repository: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _SAID], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.slow
def test_an_engine_that_does_not_start_says_why(local_ray: None, tiny_policy: Path) -> None:
    config = EngineConfig(str(tiny_policy), max_model_len=64, engine_kwargs={"kv_cache_memory_bytes": 1024})
    with pytest.raises(
        EngineDeadError,
        match=r"Engine 0 did not start: .*ValueError: No available memory for the cache blocks.*\(log: .*\.err\)",
    ):
        InferencePool(config, 1, startup_timeout_s=120)
