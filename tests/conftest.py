"""Settings that every test shares: nothing is sent anywhere, and the recorded data is found or its lack is said."""

from __future__ import annotations

import faulthandler
import importlib.util
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before anything imports ray, vllm, transformers or wandb: they read these once.
os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # else ray.init writes a token file into the user's home
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
        "WANDB_MODE": "offline",
        "WANDB_SILENT": "true",
    }
)

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("PROXMO_SHARED", REPOSITORY.parent / "shared")).absolute()
IN_CI = bool(os.environ.get("CI"))


def needs_shared(item: pytest.Item) -> bool:
    return "shared" in getattr(item, "fixturenames", ()) or item.get_closest_marker("shared") is not None


def needs_textworld(item: pytest.Item) -> bool:
    return item.get_closest_marker("textworld") is not None


def types_a_long_command(item: pytest.Item) -> bool:
    return item.get_closest_marker("commands") is not None


def opens_a_browser(item: pytest.Item) -> bool:
    return item.get_closest_marker("browser") is not None


def needs_another_program(item: pytest.Item) -> bool:
    return item.get_closest_marker("others") is not None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Outside of CI, leave out the tests whose data or engine this machine lacks, and say so; in CI they fail."""
    notes: list[str] = []
    config.stash[NOTES] = notes
    missing = []
    if "commands" not in config.option.markexpr:
        missing.append((types_a_long_command, "type long commands: `make test-commands` runs them"))
    if "browser" not in config.option.markexpr:
        missing.append((opens_a_browser, "open a browser: `make test-browser` runs them"))
    if "others" not in config.option.markexpr:
        missing.append((needs_another_program, "need another program: `make test-others` installs and runs them"))
    if not IN_CI and not SHARED.is_dir():
        missing.append((needs_shared, f"need the recorded data: no folder {SHARED}; set $PROXMO_SHARED"))
    if not IN_CI and importlib.util.find_spec("fast_downward") is None:
        missing.append((needs_textworld, "need the official ALFWorld engine: install g++ and say `make test` again"))
    for needs, why in missing:
        left_out = [item for item in items if needs(item)]
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if not needs(item)]
            notes.append(f"left out {len(left_out)} tests that {why}")


NOTES = pytest.StashKey[list[str]]()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """A test that asks for the recorded data only while it runs was not left out where there is none, and fails."""
    asked = getattr(item, "_request", None)
    if asked is not None and "shared" in asked._fixture_defs and not needs_shared(item):
        pytest.fail(f"{item.nodeid} asks for the fixture `shared` by another's name: mark it with pytest.mark.shared")


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    return config.stash.get(NOTES, [])


def pytest_unconfigure() -> None:
    """A process that does not end after its tests fails, and shows where each thread waits."""
    faulthandler.dump_traceback_later(120, exit=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded data beside the checkout, or $PROXMO_SHARED; fails if it is not there."""
    if not SHARED.is_dir():
        pytest.fail(f"{SHARED}: no such folder; the recorded data lies beside the checkout, or set $PROXMO_SHARED")
    return SHARED


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def reference() -> Any:
    """The script that writes docs/reference.md, as a module."""
    path = REPOSITORY / "docs" / "reference.py"
    spec = importlib.util.spec_from_file_location("docs_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Qwen2, with a tokenizer that was trained on what ALFWorld says."""
    import random

    import gymnasium

    import env_wrappers  # noqa: F401 (registers the environments)
    from proxmo_rllib.policies.tiny import TinySize, build_tiny_policy, train_tokenizer

    env = gymnasium.make("env_wrappers/ALFWorld-v0", rooms=("bathroom",), num_tasks={"train": 8})
    rng = random.Random(0)
    texts = ["yes", "no"]
    for task in env.get_wrapper_attr("tasks")("train"):
        observation, info = env.reset(options={"task": task})
        for _ in range(20):
            texts += [observation, info["goal"], *info["admissible_actions"]]
            observation, _, _, _, info = env.step(rng.choice(info["admissible_actions"]))
    folder = tmp_path_factory.mktemp("tiny_policy")
    tokenizer = train_tokenizer([[text] for text in texts], vocab_size=600)
    size = TinySize(hidden_size=64, num_layers=2, num_heads=2, intermediate_size=128, max_positions=1024)
    build_tiny_policy(folder, tokenizer, size)
    return folder


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray of this test module's own, with eight CPUs to reserve, whatever the machine has."""
    import ray

    folder = tempfile.mkdtemp(prefix="ray_")  # not pytest's: the path of a socket may have 107 characters
    options = {"num_cpus": 8, "include_dashboard": False, "log_to_driver": False, "object_store_memory": 200 * 2**20}
    try:
        ray.init(**options, _temp_dir=folder)
    except Exception:  # Ray gives a busy machine half a minute, and raises no class of its own
        ray.shutdown()
        ray.init(**options, _temp_dir=folder)
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def quickstart_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with a tokenizer of what the quickstart's environment says."""
    import gymnasium

    from proxmo_rllib.policies.tiny import TinySize, build_tiny_policy, train_tokenizer
    from tuned_examples.quickstart_world import ENV, ENV_CONFIG

    env = gymnasium.make(ENV, **ENV_CONFIG)
    texts = []
    for seed in range(20):
        observation, info = env.reset(seed=seed)
        texts += [observation, *info["admissible_actions"]]
    folder = tmp_path_factory.mktemp("policy")
    size = TinySize(hidden_size=64, num_layers=2, num_heads=2, intermediate_size=128)
    build_tiny_policy(folder, train_tokenizer([[text] for text in texts], vocab_size=600), size)
    return folder
