"""Settings that are records: a word or a dictionary, checked as a whole."""

from __future__ import annotations

from typing import Any

import pytest

from proxmo_rllib import ProxMOConfig
from proxmo_rllib.config_records import LearningRate, LoRA, Sharding, read_record


def config_with(key: str, value: Any) -> ProxMOConfig:
    config = ProxMOConfig().environment("env_wrappers/ALFWorld-v0").policy(pretrained="some/model")
    return config.update_from_dict({key: value})


def test_a_word_and_a_dictionary_say_the_same():
    assert read_record(Sharding, "sharding", "fsdp2") == read_record(Sharding, "sharding", {"strategy": "fsdp2"})
    assert read_record(LoRA, "lora", {"rank": 4, "target_modules": ["q_proj"]}) == LoRA(4, 32.0, ("q_proj",))
    assert read_record(LoRA, "lora", None) is None


@pytest.mark.parametrize(
    ("key", "wrong", "says"),
    [
        ("lora", {"rnk": 4}, "did you mean 'rank'"),
        ("lora", {"rank": 0}, "rank=0 must be a whole number"),
        ("lora", {"rank": True}, "rank=True"),
        ("lora", {"alpha": float("nan")}, "alpha=nan"),
        ("lora", {"target_modules": "q_proj"}, "'all-linear' or a list"),
        ("lora", {"target_modules": []}, "target_modules"),
        ("lora", "all", "a dictionary with entries among rank, alpha, target_modules"),
        ("sharding", "fsdp1", "strategy='fsdp1' must be 'fsdp2'"),
        ("sharding", {"strategy": "fsdp2", "cpu_offload": 1}, "cpu_offload=1"),
        ("lr_schedule", "sine", "'constant', 'cosine' or 'linear'"),
        ("lr_schedule", "cosine", "total_steps=None"),
        ("lr_schedule", {"decay": "linear", "warmup_steps": 5, "total_steps": 5}, "above warmup_steps=5"),
        ("lr_schedule", {"minimum": 2}, "minimum=2"),
    ],
)
def test_a_wrong_entry_is_named(key, wrong, says):
    with pytest.raises(ValueError, match=f"{key}=") as error:
        config_with(key, wrong).validate()
    assert says in str(error.value)


def test_the_learning_rate_rises_and_falls():
    schedule = LearningRate("linear", warmup_steps=4, total_steps=8, minimum=0.5)
    assert [schedule.factor(step) for step in range(10)] == [0.25, 0.5, 0.75, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.5]
    cosine = LearningRate("cosine", total_steps=2)
    assert [cosine.factor(step) for step in range(3)] == pytest.approx([1.0, 0.5, 0.0])


def test_a_model_is_divided_among_learners_only():
    config = config_with("sharding", "fsdp2").learners(num_learners=0)
    with pytest.raises(ValueError, match=r"sharding='fsdp2': num_learners=0 .*set \.learners\(num_learners=2\)"):
        config.validate()
    config.learners(num_learners=1).validate()
    with pytest.raises(ValueError, match=r"sharding='fsdp2': adapters \(lora\)"):
        config.policy(lora={"rank": 4}).validate()
