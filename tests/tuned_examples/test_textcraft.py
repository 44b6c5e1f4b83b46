"""The example of TextCraft: its limits are those of what is said in it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from env_wrappers.textcraft.experts import HastyCrafter
from env_wrappers.textcraft.recipes import book
from proxmo_rllib.cli import main
from proxmo_rllib.evaluation.players import ScriptPlayer
from proxmo_rllib.policies.tiny import train_tokenizer
from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation
from proxmo_rllib.rollouts.environments import make_text_env
from tuned_examples.textcraft_cpu import MAX_TURNS, PANEL, config, warm_start

EXAMPLE = Path(__file__).resolve().parents[2] / "tuned_examples" / "textcraft_cpu.py"


@pytest.fixture(scope="module")
def chat() -> ChatFormat:
    recipe = replace(warm_start, text_episodes=1000)
    return ChatFormat.from_tokenizer(train_tokenizer(recipe._texts(), recipe.vocab_size, words_only=recipe.words_only))


def test_a_dry_run_finds_nothing_wrong(capsys):
    assert main(["train", str(EXAMPLE), "--dry-run"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "10,000 tasks" in printed
    assert "craft-test-200" in printed


def test_of_the_panel_as_much_can_be_solved_in_time_as_is_said():
    env = PANEL.make().unwrapped
    lengths = []
    for task in PANEL.tasks:
        env.reset(options={"task": task})
        lengths.append(len(env.plan()))
    assert sum(length > MAX_TURNS for length in lengths) == 13
    assert max(lengths) == 24


def test_what_the_scripts_play_fits_the_models_context_twice(chat):
    env = make_text_env(config)
    longest = 0
    for index, task in enumerate(PANEL.tasks):
        conversation = Conversation(chat, append=True)
        message, info = env.reset(seed=0, options={"task": task})
        conversation.say(message)
        player = ScriptPlayer(HastyCrafter(random.Random(index)), config.response_style)
        for _ in range(MAX_TURNS):
            response = player.respond(message, info)
            conversation.reply(chat.demonstrate(response, None)[0])
            message, _, done, _, info = env.step(response)
            if done:
                break
            conversation.say(message)
        longest = max(longest, len(conversation.token_ids))
    assert 2 * longest <= config.max_model_len


def test_every_recipe_can_be_said(chat):
    longest = max(len(chat.encode_text(recipe.command)) for recipes in book().values() for recipe in recipes)
    assert longest + 1 <= config.max_response_tokens


def test_an_item_of_the_test_is_read_as_those_of_training_are(chat):
    env = PANEL.make().unwrapped
    names = set(env.goal_items("test")) - {"jack o'lantern"}
    assert all(len(chat.encode_text(f" {name}.")) == len(name.split()) + 1 for name in names)
