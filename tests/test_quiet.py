"""Lines that are known to be harmless are hidden; nothing else is."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from proxmo_rllib import quiet

HARMLESS = [
    "(EngineCore pid=7) WARNING 11-27 11:09:18 [layerwise.py:266] RotaryEmbedding: Failed to load weights",
    "(MainProcess pid=7) WARNING 11-27 11:09:07 [cpu.py:224] Triton is not installed. triton-cpu is expected on x86.",
    "2026-11-27 WARNING deprecation.py:50 -- DeprecationWarning: `RLModule(config=[RLModuleConfig object])` has been",
    "[E 7015] core_worker.cc:2465: Actor with class name: 'TextEnvRunner' and ID: '45' has constructor "
    "arguments in the object store and max_restarts > 0. If",
]
TELLING = [
    "(EngineCore pid=7) WARNING 11-27 11:09:18 [layerwise.py:266] QKVParallelLinear: Failed to load weights",
    "RuntimeError: CUDA out of memory",
    "WARNING proxmo_rllib.rollouts.play: Task 'x': the environment raised",
    "DeprecationWarning: something else has been deprecated",
    '  File "x.py", line 3, in <module>',
]


def test_only_what_is_known_to_be_harmless_is_hidden(monkeypatch):
    monkeypatch.delenv(quiet.VERBOSE, raising=False)
    assert quiet.worth_reading([*HARMLESS, *TELLING]) == TELLING


@pytest.mark.parametrize(("value", "hides"), [("1", False), ("yes", False), ("0", True), ("", True)])
def test_one_switch_shows_everything(monkeypatch, value, hides):
    monkeypatch.setenv(quiet.VERBOSE, value)
    assert quiet.worth_reading(HARMLESS) == ([] if hides else HARMLESS)


def test_the_source_line_below_a_hidden_warning_goes_with_it(monkeypatch):
    monkeypatch.delenv(quiet.VERBOSE, raising=False)
    lines = [
        "/x/vllm/dispatcher.py:138: FutureWarning: `torch.distributed.reduce_op` is deprecated, please use",
        "  if hasattr(value, '__dict__'):",
        "  indented, and of somebody else",
    ]
    assert quiet.worth_reading(lines) == lines[2:]


def test_every_pattern_has_a_reason():
    assert all(reason for reason in quiet.KNOWN.values())


def test_what_other_processes_print_comes_through_the_filter(monkeypatch):
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    monkeypatch.delenv(quiet.VERBOSE, raising=False)
    monkeypatch.setattr(dispatcher, "handlers", [])
    seen = []
    dispatcher.add_handler("test", seen.append)
    quiet.hide_known_noise()
    quiet.hide_known_noise()
    dispatcher.emit({"pid": 1, "lines": [*HARMLESS, ""]})
    dispatcher.emit({"pid": 1, "lines": [*HARMLESS, *TELLING]})
    assert [batch["lines"] for batch in seen] == [TELLING]


def test_a_librarys_logger_is_filtered_and_not_muted(monkeypatch, caplog):
    monkeypatch.delenv(quiet.VERBOSE, raising=False)
    quiet.hide_known_noise()
    logger = logging.getLogger("ray._common.deprecation")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logging.getLogger("ray"), "propagate", True)
    logger.warning("DeprecationWarning: `RLModule(config=[RLModuleConfig object])` has been deprecated")
    logger.warning("DeprecationWarning: `x` has been deprecated")
    assert {record.getMessage() for record in caplog.records} == {"DeprecationWarning: `x` has been deprecated"}


def test_native_code_is_filtered_for_a_while_and_loses_nothing():
    script = (
        "import os, subprocess; from proxmo_rllib.quiet import filtered_stderr\n"
        "with filtered_stderr():\n"
        "    os.write(2, b'lib(tcmalloc)\\nlibtcmalloc is not found in LD_PRELOAD\\nreal\\nwithout an end')\n"
        "    child = subprocess.Popen(['sh', '-c', 'read line; echo child >&2'], stdin=subprocess.PIPE)\n"
        "os.write(2, b'after\\n')\n"
        "child.communicate(b'go\\n')\n"
        "import time; time.sleep(0.2)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != quiet.VERBOSE}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stderr == "lib(tcmalloc)\nreal\nwithout an endafter\nchild\n"
