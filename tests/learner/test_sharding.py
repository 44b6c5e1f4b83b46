"""Learners that divide one model compute what one learner computes that has all of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from proxmo_rllib.inference.weight_parts import write_parts
from proxmo_rllib.inference.weights import deserialise, serialise
from proxmo_rllib.learner.packing import split_for_packing
from proxmo_rllib.learner.sharding import blocks_of
from tests.learner import sharded_jobs as jobs
from tests.learner.ranks import Ranks, started
from tests.model_families import save_family

# Processes that start on a busy machine.
pytestmark = pytest.mark.timeout(900)

VOCAB = 700
TIED, UNTIED = "qwen2", "llama"


@pytest.fixture(scope="module")
def two() -> Iterator[Ranks]:
    with started(2) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def one() -> Iterator[Ranks]:
    with started(1) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder of a family's tiny model."""
    folders: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in folders:
            folders[family] = save_family(family, tmp_path_factory.mktemp(family), VOCAB, scale=3.0)
        return folders[family]

    return folder


@pytest.fixture
def shares(tools: Any) -> list[list[Any]]:
    """Groups for two learners: one has fewer and longer episodes, and so fewer micro-batches."""
    return [tools.groups(1, 3, max_turns=12), tools.groups(4, 3, max_turns=2, seed=1)[1:]]


def assert_close(given: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    assert given.keys() == expected.keys()
    scale = max(float(np.abs(array).max()) for array in expected.values())
    for name, array in expected.items():
        np.testing.assert_allclose(given[name], array, rtol=0, atol=tolerance * scale, err_msg=name)


def alone(folder: Path, updates: list[list[Any]], **settings: Any) -> tuple[list[Any], list[dict[str, float]]]:
    """What a learner that has the whole model sees after each update, and what it logs."""
    learner = jobs.build(folder, 0, **settings)
    logged, after = [], []
    for groups in updates:
        logged.append(jobs.train(learner, groups))
        after.append(jobs.seen(learner))
    return after, logged


def num_micro_batches(groups: list[Any]) -> int:
    """Of a learner that has these, with the budget of `jobs.make_config`."""
    rows = [torch.tensor(s.token_ids) for g in groups for episode in g.episodes for s in episode.sequences()]
    lengths = torch.tensor([len(row) for row in rows])
    return len(split_for_packing(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths, 40))


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "tied": (TIED, {}),
    "untied": (UNTIED, {}),
    "passes without a gradient": (TIED, {"old_logprobs": "learner", "kl_coef": 0.1, "entropy_coef": 0.05}),
    "checkpointing": (UNTIED, {"gradient_checkpointing": True}),
    "offloaded": (TIED, {"sharding": {"cpu_offload": True, "reshard_after_forward": False}}),
    "clipped": (UNTIED, {"grad_clip": 0.5}),
}


@pytest.mark.parametrize(("family", "settings"), CASES.values(), ids=CASES)
def test_two_have_the_gradient_and_the_weights_of_one(
    two: Ranks, model: Any, shares: Any, family: str, settings: dict[str, Any]
):
    """Of which each holds half; and their micro-batches are unequal in number, which must not hang."""
    whole = {name: value for name, value in settings.items() if name != "sharding"}
    after, logged = alone(model(family), [shares[0] + shares[1]] * 3, **whole)
    counts = [num_micro_batches(share) for share in shares]
    assert counts[0] != counts[1]
    results = two(jobs.learn, model(family), [shares] * 3, settings)
    total = sum(array.size for array in after[0]["weights"].values())
    for result in results:
        assert result["is_sharded"]
        assert 0 < result["held"] < 0.6 * total
        assert_close(result["first"]["gradients"], after[0]["gradients"], 1e-5)
        assert_close(result["last"]["weights"], after[-1]["weights"], 1e-5)
        assert result["logged"][0]["num_micro_batches"] == max(counts)
        assert result["logged"][0]["gradient_norm"] == pytest.approx(logged[0]["gradient_norm"], rel=1e-4)
        np.testing.assert_array_equal(result["probe"][0], result["probe"][1])


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss", "gemma2", "gemma4"])
def test_every_kind_of_model_can_be_divided(two: Ranks, model: Any, shares: Any, family: str):
    """Experts, sinks, caps, scales; on eager attention where theirs is not SDPA's."""
    after, _ = alone(model(family), [shares[0] + shares[1]])
    attention = jobs.build(model(family), 0).policy.lm.config._attn_implementation
    for result in two(jobs.learn, model(family), [shares], {}):
        assert_close(result["first"]["gradients"], after[0]["gradients"], 1e-5)
        assert result["attention"] == attention


def test_logits_in_parts_are_gathered_for_too(two: Ranks, model: Any, shares: Any):
    """The head is called again in the backward pass, for each part."""
    after, _ = alone(model(TIED), [shares[0] + shares[1]])
    for result in two(jobs.learn_in_parts, model(TIED), [shares], {"gradient_checkpointing": True}):
        assert_close(result["first"]["gradients"], after[0]["gradients"], 1e-5)


def test_bfloat16_computes_in_it_and_keeps_float32(two: Ranks, model: Any, shares: Any):
    folder = model(UNTIED)
    after, _ = alone(folder, [shares[0] + shares[1]], dtype="bfloat16")
    for result in two(jobs.learn, folder, [shares] * 2, {"dtype": "bfloat16", "gradient_checkpointing": True}):
        for name, expected in after[0]["gradients"].items():  # their noise in bfloat16 is about 0.18 of their size
            error = np.linalg.norm(result["first"]["gradients"][name] - expected) / np.linalg.norm(expected)
            assert error < 0.25, name
        assert {array.dtype for array in result["last"]["weights"].values()} == {np.dtype("float32")}
    expected = jobs.scores(0, folder, 0, {})[0]
    for exact, trained, again in two(jobs.scores, folder, 2, {"dtype": "bfloat16"}):
        np.testing.assert_allclose(exact, expected, atol=1e-5)
        np.testing.assert_array_equal(exact, again)
        assert 1e-4 < np.abs(trained - expected).max() < 0.2


def test_a_gradient_that_is_not_finite_is_skipped_by_all(two: Ranks, model: Any, shares: Any):
    """It is in one learner's groups alone."""
    broken = [_impossible(group) for group in shares[1]]
    for result in two(jobs.learn, model(UNTIED), [shares, [shares[0], broken]], {}):
        assert not np.isfinite(result["logged"][1]["gradient_norm"])
        assert [logged["policy_version"] for logged in result["logged"]] == [1, 1]
        assert_close(result["last"]["weights"], result["first"]["weights"], 0.0)


def _impossible(group: Any) -> Any:
    """The group, sampled with probabilities of zero."""
    episodes = [
        replace(e, turns=tuple(replace(t, logprobs=np.full_like(t.logprobs, -1e5)) for t in e.turns))
        for e in group.episodes
    ]
    return replace(group, episodes=tuple(episodes))


@pytest.mark.parametrize(("saves", "loads"), [(2, 1), (1, 2), (2, 2), (2, 0)])
def test_a_checkpoint_is_read_by_any_number(
    two: Ranks, one: Ranks, model: Any, shares: Any, tmp_path: Path, saves: int, loads: int
):
    """And what follows is what would have followed; 0 is a learner that has the whole model."""
    of = {1: ([shares[0] + shares[1]], one), 2: (shares, two), 0: ([shares[0] + shares[1]], None)}
    folder, checkpoint = model(TIED), tmp_path / "shards"
    share, ranks = of[saves]
    expected = ranks(jobs.save_half_way, folder, checkpoint, [share, share], {})
    share, ranks = of[loads]
    arguments = (folder, checkpoint, expected[0]["state"], share, {"sharding": "fsdp2" if loads else None})
    results = [jobs.go_on(0, *arguments)] if ranks is None else ranks(jobs.go_on, *arguments)
    for weights in results:
        assert_close(weights, expected[0]["weights"], 0.0 if saves == loads else 1e-5)


def test_weights_that_are_gathered_are_not_taken_for_activations(two: Ranks, model: Any):
    """The size of micro-batches is measured: by a pass that no backward pass follows, of all learners together."""
    expected, nothing = jobs.measured(0, model(UNTIED), 0, {})
    assert nothing == 0
    weights = sum(array.nbytes for array in jobs.seen(jobs.build(model(UNTIED), 0))["weights"].values())
    for activations, gathered in two(jobs.measured, model(UNTIED), 2, {}):
        assert activations == pytest.approx(expected, rel=0.02)
        assert gathered == 2 * weights  # it has two layers: all weights, and their gradients


def test_what_travels_with_the_algorithms_state_is_small(two: Ranks, model: Any, shares: Any):
    state = two(jobs.learn, model(UNTIED), [shares], {})[0]["state"]
    assert state["rl_module"] == {"default_policy": {}}
    assert state["optimizer"] == {}


def test_a_checkpoint_of_another_model_is_refused(two: Ranks, one: Ranks, model: Any, shares: Any, tmp_path: Path):
    two(jobs.save_half_way, model(UNTIED), tmp_path / "shards", [shares, shares], {})
    for said in one(jobs.load, model("qwen3"), tmp_path / "shards", 1):
        assert "is of another model" in said
        assert "pretrained" in said
    for said in one(jobs.load, model(UNTIED), tmp_path / "none", 1):
        assert "cannot be read" in said


def test_a_copy_of_each_share_is_gone_on_from_bit_for_bit(two: Ranks, one: Ranks, model: Any, shares: Any):
    results = two(jobs.copy_and_go_on, model(TIED), [shares, shares], {})
    for result in results:
        assert_close(result["again"], result["first"], 0.0)
    whole = 3 * sum(array.nbytes for array in results[0]["first"].values())
    assert sum(result["size"] for result in results) == whole
    (said,) = one(jobs.take, model(TIED), results[0]["copied"], 1)
    assert "divided among 2, and there are 1" in said


@pytest.mark.parametrize(
    ("family", "dtype"), [(TIED, "float32"), ("qwen3_moe", "bfloat16"), ("gpt_oss", "float32"), ("gemma4", "bfloat16")]
)
def test_the_parts_that_are_exported_make_the_whole(two: Ranks, model: Any, tmp_path: Path, family: str, dtype: str):
    """Bit for bit, as the file that an engine reads; and neither has it all. Streamed, the first gets it all."""
    whole = serialise(jobs.build(model(family), 0, dtype=dtype).policy.exported_weights())
    parts = two(jobs.export, model(family), 2, dtype)
    write_parts(parts, tmp_path / "joined.safetensors")
    assert (tmp_path / "joined.safetensors").read_bytes() == whole.tobytes()
    assert max(part.nbytes for part in parts) < 0.75 * whole.nbytes
    assert not deserialise(parts[0]).keys() & deserialise(parts[1]).keys()
    first, second = two(jobs.stream, model(family), 2, dtype)
    assert first.tobytes() == whole.tobytes()
    assert second is None


def test_a_model_without_layers_is_not_divided():
    with pytest.raises(ValueError, match=r"Linear cannot be divided .* Set \.learners\(sharding=None\)"):
        blocks_of(torch.nn.Linear(2, 2))


def test_no_process_holds_more_than_its_share_while_it_loads(model: Any, tmp_path: Path):
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8, "vocab_size": 8000}
    with torch.random.fork_rng():
        lm = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=8, num_key_value_heads=8))
    total = sum(p.nbytes for p in lm.parameters())
    lm.save_pretrained(tmp_path, max_shard_size="100MB")
    del lm
    assert total > 450e6
    with started(2) as new:  # in which no other learners have left a heap with holes
        loaded = new(jobs.peak_of_loading, tmp_path, model(UNTIED))
    for share, peak in loaded:
        assert share == pytest.approx(total / 2, rel=0.01)
        # The share, the rows of a tensor as they are read, and what the allocator keeps of those before.
        assert peak < 0.5 * total + 60e6, f"{peak / 1e6:.0f} of {total / 1e6:.0f} MB"
