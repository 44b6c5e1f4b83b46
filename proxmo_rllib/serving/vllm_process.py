"""The process of vLLM's server: `vllm serve` with the words of the command line, which ends when its parent does.

Started by `server.py` with a pipe as standard input, of which it reads nothing but the end: that comes however the
parent ends. Nothing of vLLM is used but its command line, written for vLLM 0.32.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def end_with_parent() -> None:
    """Waits for the end of standard input, then interrupts this process as Ctrl-C does."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def main() -> None:
    """Serve until interrupted."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    threading.Thread(target=end_with_parent, name="end-with-parent", daemon=True).start()
    from vllm.entrypoints.cli.main import main as vllm

    sys.argv = ["vllm", "serve", *sys.argv[1:]]
    vllm()


if __name__ == "__main__":  # EngineCore is spawned, and imports this module under another name
    main()
