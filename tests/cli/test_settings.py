"""Tuned examples, and what key=value changes in them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from proxmo_rllib import ProxMOConfig, StopCriteria
from proxmo_rllib.cli import examples
from proxmo_rllib.cli.settings import ExampleError, apply_settings, load_example, split_settings


@pytest.fixture
def config():
    return ProxMOConfig().environment(
        "env_wrappers/ALFWorld-v0",
        env_config={"rooms": ("bathroom",), "max_receptacles": 6, "num_tasks": {"train": 10}},
    )


@pytest.mark.parametrize(
    ("setting", "key", "expected"),
    [
        ("lr=1e-5", "lr", 1e-5),
        ("lr=1", "lr", 1.0),
        ("group_size=4", "group_size", 4),
        ("max_tokens_per_microbatch=1e4", "max_tokens_per_microbatch", 10_000),
        ("gradient_checkpointing=true", "gradient_checkpointing", True),
        ("show_admissible=0", "show_admissible", False),
        ("engine=transformers", "engine", "transformers"),
        ("history=2", "history", 2),
        ("history=none", "history", None),
        ("pretrained=some/model", "pretrained", "some/model"),
        ("num_cpus_per_env_runner=0.5", "num_cpus_per_env_runner", 0.5),
        ("system_message=a=b", "system_message", "a=b"),
        ("panel=alfworld-seen-140", "panel", "alfworld-seen-140"),
        ("engine_kwargs.enforce_eager=true", "engine_kwargs", {"enforce_eager": True}),
    ],
)
def test_a_setting_gets_the_type_that_it_has(config, setting, key, expected):
    apply_settings(config, split_settings([setting]))
    value = getattr(config, key)
    assert value == expected
    assert type(value) is type(expected)


def test_dots_reach_into_dictionaries_and_leave_the_rest(config):
    apply_settings(
        config,
        split_settings(
            ["env_config.max_receptacles=8", "env_config.rooms=kitchen,bedroom", "env_config.num_tasks.train=5"]
        ),
    )
    assert dict(config.env_config) == {
        "rooms": ("kitchen", "bedroom"),
        "max_receptacles": 8,
        "num_tasks": {"train": 5},
    }


def test_an_entry_that_a_dictionary_lacks_can_be_added(config):
    apply_settings(config, {"env_config.max_objects": "4", "env_config.games": "/data/games"})
    assert config.env_config["max_objects"] == 4
    assert config.env_config["games"] == "/data/games"


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("psc_bta", "1", "did you mean 'psc_beta'"),
        ("training", "1", "no such setting"),  # a method
        ("_known_keys", "1", "no such setting"),
        ("group_size", "2.5", "whole number"),
        ("lr", "fast", "a number"),
        ("gradient_checkpointing", "perhaps", "true or false"),
        ("env_config", "bathroom", "dictionary"),
        ("lr.x", "1", "no dictionary"),
    ],
)
def test_what_cannot_be_set_is_refused_with_key_and_value(config, key, text, says):
    with pytest.raises(ValueError, match=says) as refused:
        apply_settings(config, {key: text})
    assert key in str(refused.value)
    assert text in str(refused.value)


def test_a_number_that_may_be_a_schedule_takes_one(config):
    apply_settings(config, {"lr": "[[0, 1e-3], [1000, 1e-4]]"})
    assert config.lr == [[0, 1e-3], [1000, 1e-4]]


def test_in_the_place_of_a_schedule_a_number_may_stand_again(config):
    config.training(lr=[[0, 8e-4], [70_000, 1e-4]])
    with pytest.raises(ValueError, match=r"lr='fast': it is a number"):
        apply_settings(config, {"lr": "fast"})
    apply_settings(config, {"lr": "[[0, 1e-3]]"})
    assert config.lr == [[0, 1e-3]]
    apply_settings(config, {"lr": "1e-4"})
    assert config.lr == 1e-4


WITH_ARGUMENTS = """
from proxmo_rllib import ProxMOConfig

def config(gpus: int = 2, gentle: bool = False, model: str = "a") -> ProxMOConfig:
    if gpus not in (2, 8):
        raise ValueError(f"gpus={gpus}: 2 or 8.")
    made = ProxMOConfig().policy(pretrained=model).inference(num_engines=gpus // 2).learners(num_learners=gpus // 2)
    return made.training(lr=1e-7 if gentle else 1e-6, num_groups=16 // len(model))
"""


@pytest.fixture
def with_arguments(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(WITH_ARGUMENTS)
    return path


def test_a_config_may_be_a_function_whose_arguments_are_words(with_arguments):
    config = load_example(with_arguments).config
    assert (config.num_engines, config.num_learners, config.lr) == (1, 1, 1e-6)
    apply_settings(config, {"num_learners": "3", "gpus": "8", "gentle": "true", "group_size": "4"})
    assert (config.num_engines, config.num_learners, config.lr, config.group_size) == (4, 3, 1e-7, 4)


def test_what_was_set_before_stays_where_the_arguments_do_not_change_it(with_arguments):
    config = load_example(with_arguments).config
    config.policy(pretrained="mine").evaluation(panel_repeats=5)
    apply_settings(config, {"gpus": "8"})
    assert (config.pretrained, config.panel_repeats, config.num_engines) == ("mine", 5, 4)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"gpus": "3"}, "gpus=3: 2 or 8"),
        ({"gpus": "two"}, "gpus='two': it is a number, now 2"),
        ({"gpus": "2.5"}, "gpus=2.5: 2 or 8"),
        ({"gentle": "very"}, "gentle='very': it is true or false"),
        ({"gpu": "8"}, "gpu='8': there is no such setting; did you mean 'gpus'"),
        ({"model": ""}, "model=: config.*ZeroDivisionError"),
    ],
)
def test_a_wrong_argument_is_named(with_arguments, settings, says):
    with pytest.raises(ValueError, match=says):
        apply_settings(load_example(with_arguments).config, settings)


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        ("def config(gpus):\n    return ProxMOConfig()\n", r"config\(gpus\): give the argument a default"),
        ("def config(gpus=2):\n    return gpus\n", "it has int"),
        ("def config(gpus=2):\n    return 1 / 0\n", "ZeroDivisionError"),
    ],
)
def test_a_function_that_makes_no_config_is_refused(tmp_path, definition, says):
    path = tmp_path / "example.py"
    path.write_text(f"from proxmo_rllib import ProxMOConfig\n{definition}")
    with pytest.raises(ExampleError, match=says):
        load_example(path)


def test_only_what_a_function_made_has_arguments(config):
    with pytest.raises(ValueError, match="gpus='8': there is no such setting"):
        apply_settings(config, {"gpus": "8"})


def test_an_installed_example_may_be_a_function():
    assert "alfworld_qwen2_5_7b" in examples.installed_examples()


def test_a_word_that_is_no_setting_is_refused():
    with pytest.raises(ValueError, match="key=value"):
        split_settings(["lr"])


def test_an_example_defines_a_config_and_may_say_when_to_stop(tmp_path):
    path = tmp_path / "example.py"
    path.write_text("from proxmo_rllib import *\nconfig = ProxMOConfig()\nstop = StopCriteria(iterations=2)\n")
    example = load_example(path)
    assert example.stop == StopCriteria(iterations=2)
    path.write_text("from proxmo_rllib import *\nconfig = ProxMOConfig()\n")
    assert load_example(path).stop == StopCriteria()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1", "must define `config`"),
        ("config = {'lr': 1}", "it has dict"),
        ("from proxmo_rllib import *\nconfig = ProxMOConfig()\nstop = 5", "`stop` is a int"),
        ("1 / 0", "ZeroDivisionError"),
        ("config = (", "SyntaxError"),
    ],
)
def test_a_file_that_is_no_example_is_refused_by_name(tmp_path, source, says):
    path = tmp_path / "wrong.py"
    path.write_text(source)
    with pytest.raises(ExampleError, match=says) as refused:
        load_example(path)
    assert "wrong.py" in str(refused.value)


def test_a_misspelt_file_is_answered_with_those_that_are_there(repository):
    with pytest.raises(ExampleError, match=r"quickstart\.py"):
        load_example(repository / "tuned_examples" / "quikstart.py")


def test_an_installed_example_is_run_by_its_name_from_anywhere(tmp_path, monkeypatch, repository):
    monkeypatch.chdir(tmp_path)
    example = load_example(Path("alfworld-sweep"))
    assert example.path == repository / "tuned_examples" / "alfworld_sweep.py"


@pytest.mark.parametrize("word", ["quikstart", "tuned_examples/quikstart.py"])
def test_outside_a_checkout_a_wrong_name_is_answered_with_the_installed_examples(tmp_path, monkeypatch, word):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExampleError, match="quickstart_pbt, smollm2_135m_cpu, textcraft_cpu, webshop_cpu") as refused:
        load_example(Path(word))
    assert "quickstart_world" not in str(refused.value)  # it defines nothing that can be run


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A file in a package, which imports a package beside it and a module of its own package; run from elsewhere."""
    for name in ("project/experiments", "project/experiments/mypkg", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    experiments = tmp_path / "project/experiments"
    for folder in (experiments, experiments / "mypkg"):
        (folder / "__init__.py").touch()
    (experiments / "mypkg" / "env.py").write_text("class Own:\n    answer = 42\n")
    (experiments / "common.py").write_text("SETTINGS = {}\n")
    (experiments / "my.py").write_text(
        "from experiments.common import SETTINGS\nfrom mypkg.env import Own\n"
        "from proxmo_rllib import ProxMOConfig\nconfig = ProxMOConfig().environment(Own, env_config=SETTINGS)\n"
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(examples, "_folders", [])
    yield experiments / "my.py"
    for name in [name for name in sys.modules if name.split(".")[0] in ("mypkg", "experiments")]:
        del sys.modules[name]


def test_what_lies_beside_an_example_can_be_imported_here_and_by_the_processes_of_a_cluster(project):
    from ray import cloudpickle

    sent = cloudpickle.dumps(load_example(project).config.env)
    reader = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).answer)"
    # Of a cluster that is started here all processes inherit the environment; one that runs already gets `runtime_env`.
    given = {"PYTHONPATH": examples.runtime_env()["env_vars"]["PYTHONPATH"].removesuffix("${PYTHONPATH}")}
    for environment in (dict(os.environ), given):
        answer = subprocess.run(
            [sys.executable, "-c", reader], input=sent, env=environment, capture_output=True, check=True
        )
        assert answer.stdout.strip() == b"42"


@pytest.mark.slow
def test_the_workers_of_a_cluster_that_runs_already_import_what_lies_beside_an_example(project):
    """In a process of its own: this one may have a Ray."""
    script = (
        "import sys; from pathlib import Path; import ray; from ray.tune import PlacementGroupFactory; "
        "from proxmo_rllib.cli.session import start_ray; "
        "from proxmo_rllib.cli.settings import load_example; from ray.cluster_utils import Cluster; "
        "cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1}); "
        f"own = load_example(Path({str(project)!r})).config.env; "
        "start_ray(cluster.address, PlacementGroupFactory([{'CPU': 1}])); "
        "print('answer', ray.get(ray.remote(lambda: own().answer).remote())); ray.shutdown(); cluster.shutdown()"
    )
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    # Else the cluster's address would be left where the next `ray.init()` of this machine looks for one.
    environment["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray_")
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "answer 42" in ended.stdout, ended.stderr[-2000:]


def test_what_an_example_defines_travels_to_processes_that_cannot_import_it(tmp_path):
    from ray import cloudpickle

    path = tmp_path / "own_env.py"
    path.write_text(
        "from proxmo_rllib import ProxMOConfig\nclass Own:\n    answer = 42\nconfig = ProxMOConfig().environment(Own)\n"
    )
    sent = cloudpickle.dumps(load_example(path).config.env)
    reader = "import pickle, sys; print(pickle.loads(sys.stdin.buffer.read()).answer)"
    answer = subprocess.run([sys.executable, "-c", reader], input=sent, capture_output=True, check=True)
    assert answer.stdout.strip() == b"42"
