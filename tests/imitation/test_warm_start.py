"""Behaviour cloning and the warm starts made with it."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from env_wrappers.alfworld.novice import Novice
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.imitation import BehaviourCloningConfig, WarmStart
from proxmo_rllib.imitation.learner import demonstration_columns
from proxmo_rllib.learner import columns
from proxmo_rllib.policies.loading import load_causal_lm, load_tokenizer
from proxmo_rllib.policies.tiny import TinySize
from proxmo_rllib.types import Episode, Status, Turn

ENV = "env_wrappers/ALFWorld-v0"
EXPERT = functools.partial(Novice, diligence=1.0)


def recipe() -> WarmStart:
    config = (
        BehaviourCloningConfig()
        .environment(ENV, env_config={"rooms": ("bathroom",), "max_receptacles": 3, "max_objects": 2})
        .inference(engine="transformers", max_model_len=512)
        .env_runners(num_env_runners=1, num_cpus_per_env_runner=0.5, max_turns=8)
        .imitation(scripts=[(0, EXPERT)])
        .training(num_groups=16, num_minibatches=4, lr=3e-3)
        .debugging(record_groups=0)
    )
    size = TinySize(hidden_size=64, num_layers=2, num_heads=2, intermediate_size=128)
    return WarmStart(config, iterations=3, size=size, vocab_size=600, text_episodes=30)


def test_the_digest_tells_recipes_apart_and_is_the_same_for_the_same_one():
    digest = recipe().digest()
    assert recipe().digest() == digest
    lazier = recipe()
    lazier.config.imitation(scripts=[(0, functools.partial(Novice, diligence=0.5))])
    smaller_room = recipe()
    smaller_room.config.environment(env_config={"max_receptacles": 4})
    others = [lazier, smaller_room, replace(recipe(), iterations=4), replace(recipe(), seed=1)]
    assert len({digest, *(other.digest() for other in others)}) == 5


def test_a_policy_for_a_training_is_made_in_the_environment_and_the_prompts_of_that_training():
    training = (
        ProxMOConfig()
        .environment(ENV, env_config={"rooms": ("kitchen",)})
        .prompting(template="instructed", response_style="tagged")
    )
    adapted = recipe().in_world_of(training)
    assert adapted.config.env_config == {"rooms": ("kitchen",)}
    assert adapted.config.template == "instructed"
    assert adapted.config.response_style == "tagged"
    assert adapted.config.script_at(0).func is Novice
    assert adapted.digest() != recipe().digest()


@pytest.mark.parametrize("scripts", [[], [(1, EXPERT)], [(0, EXPERT), (5, EXPERT), (3, Novice)]])
def test_somebody_plays_from_the_first_iteration_on(tiny_policy: Path, scripts):
    config = recipe().config.policy(pretrained=tiny_policy).imitation(scripts=scripts)
    with pytest.raises(ValueError, match="scripts"):
        config.validate()


def test_slips_are_seen_and_not_copied():
    """A slip's tokens weigh nothing, what the environment says a little, what was meant one."""

    def turn(context: list[int], response: list[int], demonstration: bool, appended: bool) -> Turn:
        ids = np.array(response, np.int32)
        return Turn(
            context_ids=np.array(context, np.int32),
            appended=appended,
            response_ids=ids,
            logprobs=np.zeros(len(ids), np.float32),
            policy_version=0,
            anchor="",
            response="",
            action="",
            action_valid=True,
            reward=0.0,
            demonstration=demonstration,
        )

    turns = (turn([1, 2], [3, 4], True, False), turn([5], [6, 7], False, True), turn([8], [9], True, True))
    episode = Episode("e", "g", "task", "kind", 0, turns, Status.SUCCESS)
    arrays = demonstration_columns([episode], observation_weight=0.25)
    np.testing.assert_allclose(arrays[columns.LOSS_WEIGHTS][0], [0, 0.25, 1, 1, 0.25, 0, 0, 0.25, 1])
    np.testing.assert_array_equal(arrays[columns.LOSS_MASK], arrays[columns.LOSS_WEIGHTS] > 0)
    few = demonstration_columns([episode], observation_weight=0.25, observation_share=0.5)[columns.LOSS_WEIGHTS][0]
    np.testing.assert_allclose(few[[2, 3, 8]], 1)  # actions all
    assert 0 < sum(few == 0.25) < 3


@pytest.mark.slow
def test_a_warm_start_is_made_once_and_loads_anywhere(local_ray: None, tmp_path: Path, caplog):
    with caplog.at_level("INFO", "proxmo_rllib.imitation.warm_start"):
        folder = recipe().policy(cache=tmp_path)
    losses = [float(r.getMessage().rsplit(" ", 1)[1]) for r in caplog.records if "loss" in r.getMessage()]
    assert len(losses) == 3
    assert losses[-1] < 0.8 * losses[0]
    assert load_tokenizer(folder).chat_template
    assert load_causal_lm(folder).config.hidden_size == 64
    caplog.clear()
    assert recipe().cached(tmp_path) == folder
    assert recipe().policy(cache=tmp_path) == folder
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]  # and nothing is left of the making
