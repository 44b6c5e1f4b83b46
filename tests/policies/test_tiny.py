"""Tiny policies: a tokenizer that loses nothing, and the asset that ships with the package."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from proxmo_rllib.policies.loading import ASSETS, load_causal_lm, load_tokenizer, max_positions, resolve_pretrained
from proxmo_rllib.policies.tiny import TinySize, build_tiny_policy, train_tokenizer
from proxmo_rllib.rollouts.conversation import ChatFormat

TEXTS = ["You arrive at drawer 1. The drawer 1 is closed.", "go to drawer 1", "On the shelf 2, you see a mug 1."]
EPISODES = [TEXTS] * 5


@pytest.fixture(scope="module")
def chat():
    return ChatFormat.from_tokenizer(train_tokenizer(EPISODES, 500))


def test_a_numbered_name_is_one_token(chat):
    assert [chat.tokenizer.decode([i]) for i in chat.encode_text("go to drawer 1")] == ["go to", " drawer 1"]


def test_what_one_episode_alone_says_is_no_token_however_often_it_says_it():
    episodes = [[f"Task: find item{number} [SEP] Buy Now [SEP] Back"] * 10 for number in range(5)]
    chat = ChatFormat.from_tokenizer(train_tokenizer(episodes, 500))
    tokens = [chat.tokenizer.decode([i]) for i in chat.encode_text(episodes[0][0])]
    assert tokens[-4:] == [" [SEP]", " Buy Now", " [SEP]", " Back"]
    assert tokens[:3] == ["Task", ":", " find"]
    assert "".join(tokens[3:-4]) == " item0"
    assert len(tokens) > 8  # spelt out


def test_where_only_words_are_tokens_what_is_composed_is_read_in_its_parts():
    recipe = "craft 1 red wool using 1 undyed wool, 1 red dye\ncraft 1 red dye using 1 poppy\n"
    tokens = {}
    for words_only in (False, True):
        tokenizer = train_tokenizer([[recipe]] * 3, 500, words_only=words_only)
        ids = tokenizer.encode("craft 1 undyed dye, 1 red wool", add_special_tokens=False)
        tokens[words_only] = [tokenizer.decode([i]) for i in ids]
    assert tokens[True] == ["craft", " 1", " undyed", " dye", ",", " 1", " red", " wool"]
    assert tokens[False][0] == "craft 1"


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40))
def test_no_text_is_lost_or_taken_for_a_special_token(chat, text):
    for data in (text, f"<|end|>{text}<0x41>"):
        ids = chat.encode_text(data)
        assert not set(ids) & set(chat.tokenizer.all_special_ids) - {chat.tokenizer.unk_token_id}
        assert chat.tokenizer.decode(ids) == data


def test_a_seed_makes_the_same_weights_and_another_seed_others(tmp_path):
    size = TinySize(hidden_size=32, num_layers=1, num_heads=1, intermediate_size=64)
    tokenizer = train_tokenizer(EPISODES, 500)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build_tiny_policy(tmp_path / name, tokenizer, size, seed)
    first, same, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert first == same
    assert first != other


@pytest.mark.parametrize("folder", sorted(path.parent for path in ASSETS.glob("*/config.json")), ids=lambda p: p.name)
def test_an_asset_is_small_loads_and_can_converse(folder: Path):
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8 * 2**20
    name = f"asset:{folder.name}"
    model = load_causal_lm(name)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert len(load_tokenizer(name)) <= model.config.vocab_size
    ChatFormat.from_tokenizer(load_tokenizer(name))
    assert (max_positions(name) or 0) >= 512


def test_the_quickstarts_asset_is_there():
    assert Path(resolve_pretrained("asset:alfworld-tiny"), "model.safetensors").is_file()
