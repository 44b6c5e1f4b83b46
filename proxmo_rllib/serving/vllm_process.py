"""The process of vLLM's server, with the words of the command line, which ends when its parent does.

Started by `server.py` with a pipe as standard input, of which it reads nothing but the end: that comes however the
parent ends. What is run is what `python -m` runs, written for vLLM 0.32: the command `vllm` of the CPU wheel asks for a
package of that name and ends.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading

#: The module of vLLM's server, for `python -m`.
VLLM_SERVER = "vllm.entrypoints.launchers.api_server.entry"


def end_with_parent() -> None:
    """Waits for the end of standard input, then interrupts this process as Ctrl-C does."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def main() -> None:
    """Serve until interrupted."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    threading.Thread(target=end_with_parent, name="end-with-parent", daemon=True).start()
    vllm = importlib.import_module(VLLM_SERVER)
    vllm.main()


if __name__ == "__main__":  # EngineCore is spawned, and imports this module under another name
    main()
