"""A checkpoint's settings are JSON: they say how to play again, and whatever is in them, nothing is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from env_wrappers.panels import Panel
from env_wrappers.prompting import Template
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.config_checks import RULES
from proxmo_rllib.config_records import LoRA
from proxmo_rllib.settings_file import check_same_adapters, read_settings, write_settings

ENV = "env_wrappers/ALFWorld-v0"
PANEL = Panel("mine", 3, ENV, {"seed": 0, "rooms": ["bathroom"]}, ("generated/test/000000", "generated/test/000001"))
TEMPLATE = Template("own", "{goal}\n", "", "", "", "{observation}", "", frozenset({"help", "look"}))


def rich_config() -> ProxMOConfig:
    return (
        ProxMOConfig()
        .environment(ENV, env_config={"rooms": ("bathroom",), "num_tasks": {"train": 8}, "max_receptacles": 6})
        .policy(pretrained="asset:alfworld-tiny", system_message="Sei höflich.", chat_template_kwargs={"think": False})
        .inference(engine="transformers", engine_kwargs={}, num_cpus_per_engine=1.5, max_response_tokens=9)
        .prompting(context="window", history=3, template=TEMPLATE, response_style="tagged")
        .training(group_size=4, lr=1e-3, estimator_options={"a": 1}, max_tokens_per_microbatch=None)
        .evaluation(panel=PANEL, panel_temperature=0.7, panel_repeats=2)
        .debugging(seed=5, run_folder="/home/somebody/runs/1")
    )


def test_what_is_written_is_read_again(tmp_path):
    config = rich_config()
    write_settings(config, tmp_path / "settings.json")
    read = read_settings(tmp_path / "settings.json")
    assert read.withheld == {}
    for key in (RULES.keys() | {"env", "env_config"}) - {"pretrained", "run_folder"}:
        assert getattr(read.config, key) == getattr(config, key), key
    assert isinstance(read.config.env_config["rooms"], tuple)
    assert read.config.panel.digest == PANEL.digest
    # Where the training's machine had its files is nobody else's business.
    assert read.config.pretrained is None
    assert read.config.run_folder is None


def test_the_file_is_plain_json_that_a_person_can_read(tmp_path):
    write_settings(rich_config(), tmp_path / "settings.json")
    content = json.loads((tmp_path / "settings.json").read_text())
    assert content["format"] == 1
    assert content["settings"]["engine"] == "transformers"
    assert "dtype" not in content["settings"]  # as by default


class OwnEnv(gymnasium.Env):
    pass


@pytest.mark.parametrize(
    ("change", "withheld", "says"),
    [
        ({"env": OwnEnv}, "env", "OwnEnv"),
        ({"env": "my_module:MyEnv"}, "env", "my_module:MyEnv"),
        ({"env": lambda: None}, "env", "<lambda>"),
        ({"env_config": {"opponent": OwnEnv}}, "env_config", "a dict"),
        ({"panel": Panel("own", 1, "my_module:MyEnv-v0", {}, ("a",))}, "panel", "my_module:MyEnv-v0"),
        ({"engine_kwargs": {"scheduler_cls": "evil.Scheduler"}}, "engine_kwargs.scheduler_cls", "evil.Scheduler"),
        ({"engine_kwargs": {"logits_processors": ["evil:P"]}}, "engine_kwargs.logits_processors", "evil:P"),
        ({"engine_kwargs": {"kv_transfer_config": {"a": 1}}}, "engine_kwargs.kv_transfer_config", "{'a': 1}"),
        ({"engine_kwargs": {"hf_config_path": "/tmp/evil"}}, "engine_kwargs.hf_config_path", "/tmp/evil"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_names_code_is_withheld_and_said(change, withheld, says, tmp_path):
    config = rich_config()
    vars(config).update(change)
    write_settings(config, tmp_path / "settings.json")
    read = read_settings(tmp_path / "settings.json")
    assert list(read.withheld) == [withheld]
    assert says in read.withheld[withheld]
    name, _, argument = withheld.partition(".")
    left = getattr(read.config, name)
    assert argument not in left if argument else not left


def test_numbers_and_choices_of_the_engine_are_taken(tmp_path):
    arguments = {"gpu_memory_utilization": 0.5, "enforce_eager": True, "kv_cache_dtype": "fp8", "block_size": 32}
    write_settings(rich_config().inference(engine="vllm", engine_kwargs=arguments), tmp_path / "settings.json")
    read = read_settings(tmp_path / "settings.json")
    assert read.config.engine_kwargs == arguments
    assert read.withheld == {}


def test_an_estimator_of_ones_own_is_not_missed(tmp_path):
    write_settings(rich_config().training(advantage_estimator=lambda table: table), tmp_path / "settings.json")
    assert read_settings(tmp_path / "settings.json").withheld == {}


def edited(folder: Path, change: Any) -> Path:
    file = folder / "settings.json"
    write_settings(rich_config(), file)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content.update(format=2), "format 2.*install the version"),
        (lambda content: content.pop("settings"), "damaged"),
        (lambda content: content.update(settings=[1]), "damaged"),
        (lambda content: content["settings"].update(callbacks_class="evil.Callbacks"), "callbacks_class"),
        (lambda content: content["settings"].update(learner_class="evil.Learner"), "learner_class"),
        (lambda content: content["settings"].update(pretrained="/etc"), "pretrained"),
        (lambda content: content["settings"].update(run_folder="/etc"), "run_folder"),
        (lambda content: content["settings"].update(max_turns="many"), "max_turns='many': it is a whole number"),
        (lambda content: content["settings"].update(env=3), "name of an environment"),
        (lambda content: content["settings"].update(env_config=[]), "a dictionary"),
        (lambda content: content["settings"].update(engine_kwargs={"trust_remote_code": True}), "own code is not run"),
        (
            lambda content: content["settings"].update(panel={"$type": "object", "value": "os"}),
            "nothing that a setting",
        ),
        (lambda content: content["settings"]["panel"]["value"]["tasks"].pop(), "digest"),
        (lambda content: content["settings"]["template"]["value"].update(opening=1), "texts"),
    ],
)
def test_a_file_that_is_damaged_or_crafted_is_refused_in_words(change, says, tmp_path):
    with pytest.raises(ValueError, match=f"settings.json.*{says}"):
        read_settings(edited(tmp_path, change))


@pytest.mark.parametrize("lora", [None, {"rank": 4}, {"rank": 4, "target_modules": ("q_proj",)}, LoRA(rank=4)])
def test_a_run_goes_on_with_the_adapters_that_its_checkpoint_holds_and_no_others(lora, tmp_path):
    write_settings(ProxMOConfig().policy(lora=lora), tmp_path / "settings.json")
    assert not read_settings(tmp_path / "settings.json").withheld
    check_same_adapters(tmp_path, ProxMOConfig().policy(lora=lora))
    for other in ({"rank": 8}, None if lora else {"rank": 4}):
        with pytest.raises(ValueError, match=r"lora=.*was trained with lora=.*pretrained='.*policy'"):
            check_same_adapters(tmp_path, ProxMOConfig().policy(lora=other))
    check_same_adapters(tmp_path / "one of before", ProxMOConfig())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["$type", "value", "a", "b"]), inner),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from([*sorted(RULES), "env", "env_config", "unknown"]), value=JSON)
def test_whatever_stands_in_it_is_taken_or_refused_in_words(key, value, tmp_path):
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"format": 1, "settings": {key: value}, "unsaid": {}}))
    refused = ""
    try:
        read = read_settings(file)
    except ValueError as error:
        refused = str(error)
    assert "settings.json" in refused if refused else ":" not in str(read.config.env)
