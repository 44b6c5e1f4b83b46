"""Recorded episodes as demonstrations: they are played again as they were."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from env_wrappers.prompting import wrap
from proxmo_rllib.evaluation.players import ScriptPlayer, make_script, play_task
from proxmo_rllib.integrations.demonstrations import DemonstratedTasks, Demonstrations
from proxmo_rllib.integrations.text_envs import bare_env
from proxmo_rllib.rollouts.record import episode_record

TEXTCRAFT = "env_wrappers/TextCraft-v0"
SETTINGS: dict[str, Any] = {"num_tasks": {"train": 6}}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Two tasks solved, one not."""
    env = wrap(bare_env(TEXTCRAFT, SETTINGS), style="tagged")
    tasks = env.unwrapped.tasks("train")  # type: ignore[attr-defined]
    lines = []
    for task, player, turns in ((tasks[3], "expert", 30), (tasks[1], "expert", 30), (tasks[0], "random", 2)):
        script = make_script(player, env, random.Random(0))
        episode = play_task(env, ScriptPlayer(script, "tagged"), task=task, seed=0, max_turns=turns, group_id=task)
        lines.append(json.dumps(episode_record(episode, 1)))
    (tmp_path / "episodes.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return tmp_path


def test_the_solved_tasks_are_played_again_as_they_were(record: Path):
    env = wrap(DemonstratedTasks(TEXTCRAFT, record, **SETTINGS), style="tagged")
    bare: Any = env.unwrapped
    tasks = bare.tasks("train")
    assert tasks == ["textcraft/train/000001", "textcraft/train/000003"], "in the environment's order, the solved ones"
    assert bare.tasks("valid") == []
    for task in tasks:
        script = Demonstrations(random.Random(1), record)
        assert play_task(env, ScriptPlayer(script, "tagged"), task=task, seed=5, max_turns=30).success


def test_a_thought_of_the_record_is_said_again(record: Path):
    path = record / "episodes.jsonl"
    path.write_text(path.read_text().replace("<think></think>", "<think> planks first </think>"))
    env = bare_env(TEXTCRAFT, SETTINGS)
    observation, info = env.reset(seed=0, options={"task": "textcraft/train/000001"})
    script = Demonstrations(random.Random(0), record)
    script.reset(observation, info)
    assert script.act(observation, info) in info["admissible_actions"] or script.thought
    assert script.thought == "planks first"


def test_what_cannot_be_played_again_is_said(record: Path, tmp_path: Path):
    env = bare_env(TEXTCRAFT, SETTINGS)
    script = Demonstrations(random.Random(0), record)
    observation, info = env.reset(seed=0, options={"task": "textcraft/train/000000"})
    with pytest.raises(ValueError, match="has no solved episode of task 'textcraft/train/000000'"):
        script.reset(observation, info)
    observation, info = env.reset(seed=0, options={"task": "textcraft/train/000001"})
    script.reset(observation, info)
    with pytest.raises(ValueError, match=r"turn 0: the environment says 'Something else\.'"):
        script.act("Something else.", info)
    lost = tmp_path / "lost.jsonl"
    lost.write_text((record / "episodes.jsonl").read_text().splitlines()[2] + "\n")
    with pytest.raises(ValueError, match="none of its episodes is solved"):
        Demonstrations(random.Random(0), lost)


def test_a_warm_start_takes_them(record: Path):
    from proxmo_rllib.imitation import BehaviourCloningConfig
    from proxmo_rllib.rollouts.environments import make_text_env, split_tasks

    config = (
        BehaviourCloningConfig()
        .environment(DemonstratedTasks, env_config={"env": TEXTCRAFT, "record": str(record), **SETTINGS})
        .imitation(scripts=[(0, partial(Demonstrations, record=str(record)))])
        .policy(pretrained="some/model")
    )
    config.validate()
    env = make_text_env(config)
    assert len(split_tasks(env, config)) == 2
    script = config.script_at(0)(random.Random(0))
    task = split_tasks(env, config)[0]
    assert play_task(env, ScriptPlayer(script, config.response_style), task=task, seed=0, max_turns=30).success
