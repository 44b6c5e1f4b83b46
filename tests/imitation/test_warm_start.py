"""Behaviour cloning and the warm starts made with it."""

from __future__ import annotations

import asyncio
import functools
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from env_wrappers.alfworld.novice import Novice
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.imitation import BehaviourCloningConfig, WarmStart, warm_start
from proxmo_rllib.imitation.learner import demonstration_columns
from proxmo_rllib.imitation.warm_start import MAKING, CloningProgress, _alone
from proxmo_rllib.learner import columns
from proxmo_rllib.policies.loading import load_causal_lm, load_tokenizer
from proxmo_rllib.policies.tiny import TinySize
from proxmo_rllib.rollouts.agents import ScriptedAgent
from proxmo_rllib.rollouts.conversation import ChatFormat
from proxmo_rllib.training_run.checkpoints import Checkpoints
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
    with_adapters = recipe()
    with_adapters.config.policy(lora={"rank": 4})
    others = [lazier, smaller_room, with_adapters, replace(recipe(), iterations=4), replace(recipe(), seed=1)]
    others.append(replace(recipe(), words_only=True))
    assert len({digest, *(other.digest() for other in others)}) == 7


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
    thoughtless = replace(episode, turns=(replace(turns[0], empty_thought=1), *turns[1:]))
    weights = demonstration_columns([thoughtless], observation_weight=0.25)[columns.LOSS_WEIGHTS][0]
    np.testing.assert_allclose(weights, [0, 0.25, 0, 1, 0.25, 0, 0, 0.25, 1])
    learnt = demonstration_columns([thoughtless], observation_weight=0.25, learn_empty_thoughts=True)
    np.testing.assert_allclose(learnt[columns.LOSS_WEIGHTS], arrays[columns.LOSS_WEIGHTS])
    few = demonstration_columns([episode], observation_weight=0.25, observation_share=0.5)[columns.LOSS_WEIGHTS][0]
    np.testing.assert_allclose(few[[2, 3, 8]], 1)  # actions all
    assert 0 < sum(few == 0.25) < 3


class Thinker:
    """Says what it thinks."""

    def __init__(self, rng: random.Random, thought: str = "") -> None:
        self.thought = thought

    def reset(self, observation: str, info: dict[str, Any]) -> None: ...

    def act(self, observation: str, info: dict[str, Any]) -> str:
        return "look"


@pytest.mark.parametrize(
    ("style", "thought", "said", "empty"),
    [
        ("tagged", "Where am I?", "<think>Where am I?</think><action>look</action>", ""),
        ("tagged", "", "<think></think><action>look</action>", "<think></think"),  # ">" is one piece with "<"
        ("bare", "Where am I?", "<think>Where am I?</think>look", ""),
        ("bare", "", "look", ""),
    ],
)
def test_a_script_says_its_thoughts_and_one_without_words_is_told_apart(
    tiny_policy: Path, style: str, thought: str, said: str, empty: str
):
    chat = ChatFormat.from_tokenizer(load_tokenizer(tiny_policy))
    agent = ScriptedAgent(Thinker(random.Random(0), thought), chat, style)
    completion = asyncio.run(agent.respond([], "You see a mug.", {}))
    assert chat.decode_response(completion.token_ids) == said
    assert chat.tokenizer.decode(completion.token_ids[: completion.empty_thought]) in (empty, f"{empty}>")


def test_a_pretrained_model_is_where_a_warm_start_begins(tiny_policy: Path, tmp_path: Path):
    shown = recipe()
    shown.config.policy(pretrained=tiny_policy)
    assert shown.digest() != recipe().digest()
    begun = shown._start(tmp_path)
    assert begun.pretrained == tiny_policy
    assert not begun.learn_empty_thoughts
    made = recipe()._start(tmp_path)
    assert made.pretrained == tmp_path / "start"
    assert made.learn_empty_thoughts  # who is made from nothing has to learn the tags


def test_what_was_begun_is_gone_on_with_by_its_own_recipe_alone(tmp_path: Path):
    begun = tmp_path / f"tiny{MAKING}"
    begun.mkdir()
    (begun / "recipe").write_text(replace(recipe(), seed=1).digest())
    with pytest.raises(ValueError, match=r"tiny\.making: what was begun there is of another recipe; remove it"):
        recipe().make(tmp_path / "tiny")
    assert (begun / "recipe").is_file()


def test_of_two_that_make_the_same_one_waits_and_then_begins_in_a_new_folder(tmp_path: Path, caplog):
    order: list[str] = []

    def second() -> None:
        with _alone(tmp_path / "making"):
            order.append("second")
            assert [path.name for path in (tmp_path / "making").iterdir()] == ["lock"]

    with _alone(tmp_path / "making"):
        waiting = threading.Thread(target=second)
        waiting.start()
        while "waiting for it" not in caplog.text:
            waiting.join(0.01)
        order.append("first")
        shutil.rmtree(tmp_path / "making")
    waiting.join()
    assert order == ["first", "second"]


RECIPE_FILE = """
import functools
from env_wrappers.alfworld.novice import Novice
from proxmo_rllib.imitation import BehaviourCloningConfig, WarmStart

config = (
    BehaviourCloningConfig()
    .environment("env_wrappers/ALFWorld-v0", env_config={"rooms": ("bathroom",), "max_receptacles": 3})
    .inference(engine="transformers", max_model_len=512)
    .env_runners(num_env_runners=1, num_cpus_per_env_runner=0.5, max_turns=4)
    .imitation(scripts=[(0, functools.partial(Novice, diligence=1.0))])
    .training(num_groups=4, num_minibatches=1, lr=1e-3)
    .debugging(record_groups=0)
)
warm_start = WarmStart(config, iterations=500)
"""


@pytest.mark.slow
def test_the_command_shows_a_pretrained_model_how_says_how_far_it_is_and_writes_what_there_is(
    tiny_policy: Path, tmp_path: Path
):
    (tmp_path / "shown.py").write_text(RECIPE_FILE)
    words = ["warm-start", "shown.py", f"pretrained={tiny_policy}", "--output", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "proxmo_rllib.cli", *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("iteration 2/500, loss "):
            process.send_signal(signal.SIGINT)
            break
    lines += process.stdout.readlines()
    assert process.wait(timeout=60) == 130
    printed = "".join(lines)
    assert f"500 iterations from {tiny_policy}" in printed
    assert re.search(r"iteration 1/500, loss [0-9.]+, .* left", printed)
    assert "ended early: interrupted by Ctrl-C" in printed
    made, given = load_causal_lm(tmp_path / "out"), load_causal_lm(tiny_policy)
    assert made.config.hidden_size == given.config.hidden_size
    assert not torch.equal(made.lm_head.weight, given.lm_head.weight)


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


@pytest.mark.slow
def test_one_that_was_interrupted_goes_on_and_becomes_what_it_would_have_been(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = recipe().policy(cache=tmp_path / "whole")
    monkeypatch.setattr(warm_start, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(Checkpoints, "save", saving := _Saving(Checkpoints.save))

    def interrupt(progress: CloningProgress) -> None:
        if progress.iteration == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe().policy(cache=tmp_path / "half", watch=interrupt)
    assert recipe().cached(tmp_path / "half") is None
    assert saving.iterations == [1]
    seen: list[CloningProgress] = []
    again = recipe().policy(cache=tmp_path / "half", watch=seen.append)
    assert [progress.iteration for progress in seen] == [1, 2, 3]
    first, second = load_causal_lm(whole).state_dict(), load_causal_lm(again).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert list((tmp_path / "half").iterdir()) == [again]


class _Saving:
    """`Checkpoints.save`, which notes of which iterations."""

    def __init__(self, save: Any) -> None:
        self.iterations: list[int] = []
        self._save = save

    def __get__(self, checkpoints: Any, kind: Any = None) -> Any:
        def save(iteration: int, *args: Any, **kwargs: Any) -> Path:
            self.iterations.append(iteration)
            return self._save(checkpoints, iteration, *args, **kwargs)

        return save
