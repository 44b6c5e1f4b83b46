"""Engines that compute another model are found, in bfloat16 too, and rounding alone never ends a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from proxmo_rllib import ProxMOConfig
from proxmo_rllib.learner.agreement import (
    EngineMismatchError,
    ProbeScores,
    WeightTransferError,
    check_on_policy,
    check_transfer,
)
from tests.learner.test_model_families import build_module
from tests.model_families import FAMILIES, save_family

VOCAB = 200
CONTEXT = 8
IDS = torch.randint(VOCAB, (200,), generator=torch.Generator().manual_seed(3)).tolist()


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family(request.param, tmp_path_factory.mktemp(request.param), VOCAB, scale=5.0)


def as_an_engine(folder: Path, dtype: str, attention: str = "eager") -> np.ndarray:
    """Weights, activations and all in the engine's type; float32 [1, tokens]."""
    lm = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation=attention)
    with torch.no_grad():
        logits = lm.eval()(input_ids=torch.tensor([IDS]), use_cache=False).logits[0, CONTEXT - 1 : -1]
    scores = logits.float().log_softmax(-1).gather(1, torch.tensor(IDS)[CONTEXT:, None])
    return np.asarray(scores.T.numpy(), np.float32)


def probe(folder: Path, dtype: str) -> ProbeScores:
    policy = build_module(folder, dtype=dtype)
    return ProbeScores(policy.score(IDS, CONTEXT).numpy(), policy.score(IDS, CONTEXT, exact=True).numpy())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("folder", list(FAMILIES), indirect=True, scope="module")
def test_rounding_passes(folder: Path, dtype: str) -> None:
    check_transfer(as_an_engine(folder, dtype), probe(folder, dtype), dtype, None, 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("folder", ["gemma2"], indirect=True)
def test_a_cap_that_one_of_them_forgets_is_found(folder: Path, dtype: str) -> None:
    """SDPA has none; the difference is a tenth of what bfloat16 was once allowed."""
    forgetful = as_an_engine(folder, dtype, attention="sdpa")
    ours = probe(folder, dtype)
    assert np.abs(forgetful - ours.exact).mean() < 0.5
    with pytest.raises(
        WeightTransferError, match=r"version 7 the logprobs of a fixed prompt differ .*weight_check_tol"
    ):
        check_transfer(forgetful, ours, dtype, None, 7)


@pytest.mark.parametrize("folder", ["qwen3"], indirect=True)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_weights_are_found_in_one_engine_of_several(folder: Path, dtype: str, tmp_path: Path) -> None:
    good = as_an_engine(folder, dtype)
    other = as_an_engine(save_family("qwen3", tmp_path, VOCAB, seed=1, scale=5.0), dtype)
    with pytest.raises(WeightTransferError):
        check_transfer(np.concatenate([good, other]), probe(folder, dtype), dtype, None, 1)


def test_weights_that_left_the_grid_of_bfloat16_pass_and_are_not_lost_sight_of(tmp_path: Path) -> None:
    """As in a long training: float32 weights lie between those that bfloat16 has, and the engine has the rounded ones.

    Here each is moved by less than half a step of the grid, all the same way, and logprobs by more than a nat. The
    learner's own arithmetic rounds the weights too.
    """
    folder = save_family("qwen3", tmp_path / "loaded", VOCAB, scale=10.0)
    policy = build_module(folder, dtype="bfloat16")
    logits = policy.lm(input_ids=torch.tensor([IDS]), use_cache=False).logits[0, CONTEXT - 1 : -1]
    logits.log_softmax(-1).gather(1, torch.tensor(IDS)[CONTEXT:, None]).sum().backward()
    with torch.no_grad():
        for weight in policy.lm.parameters():
            rounded = weight.to(torch.bfloat16).float()
            spacing = torch.exp2(torch.floor(torch.log2(rounded.abs().clamp_min(1e-30))) - 7)
            weight.copy_(rounded + 0.45 * spacing * weight.grad.sign())
    policy.lm.save_pretrained(tmp_path / "moved")
    ours = ProbeScores(policy.score(IDS, CONTEXT).numpy(), policy.score(IDS, CONTEXT, exact=True).numpy())
    engine = as_an_engine(tmp_path / "moved", "bfloat16")
    assert np.abs(engine - ours.exact).max() > 1
    check_transfer(engine, ours, "bfloat16", None, 38)
    other = as_an_engine(save_family("qwen3", tmp_path / "other", VOCAB, seed=1, scale=10.0), "bfloat16")
    with pytest.raises(WeightTransferError):
        check_transfer(other, ours, "bfloat16", None, 38)


@pytest.mark.parametrize("folder", ["qwen3"], indirect=True)
def test_a_tolerance_that_is_set_counts(folder: Path) -> None:
    scores, ours = as_an_engine(folder, "bfloat16"), probe(folder, "bfloat16")
    largest = float(np.abs(scores - ours.exact).max())
    assert check_transfer(scores, ours, "bfloat16", 1.01 * largest, 0) == largest
    with pytest.raises(WeightTransferError, match="maximum over 192 tokens"):
        check_transfer(scores, ours, "bfloat16", 0.99 * largest, 0)


def test_the_on_policy_check_names_both() -> None:
    check_on_policy(0.049, 0.05, "vllm, bfloat16", "LlamaForCausalLM")
    with pytest.raises(EngineMismatchError, match=r"engine \(vllm, bfloat16\) and learner \(Llama.* 4\.6 nats"):
        check_on_policy(4.6, 0.05, "vllm, bfloat16", "LlamaForCausalLM")


def test_a_run_ends_before_its_first_step_if_the_engine_had_another_distribution(
    config: ProxMOConfig, tools: Any
) -> None:
    """The episodes are made up, so no policy sampled them."""
    learner = tools.build(config.inference(max_kl_to_engine=None))
    before = tools.weights(learner)
    with pytest.raises(EngineMismatchError, match=r"engine \(vllm, float32\) and learner \(LlamaForCausalLM, packed"):
        tools.update(learner, tools.groups(2, 3))
    for name, tensor in tools.weights(learner).items():
        assert torch.equal(tensor, before[name])


def test_every_iteration_logs_the_divergence_of_its_first_step(config: ProxMOConfig, tools: Any) -> None:
    learner = tools.build(config.training(num_minibatches=3))
    for _ in range(2):
        logged = tools.update(learner, tools.groups(6, 3))
        assert logged["kl_to_engine"] > 0
