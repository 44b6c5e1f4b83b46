"""Adapters in the learner: they alone are trained and kept, the base is the reference, what is exported is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from proxmo_rllib import ProxMOConfig
from proxmo_rllib.config_records import LoRA
from proxmo_rllib.inference.weights import manifest_of_adapters, serialise
from proxmo_rllib.learner import columns
from proxmo_rllib.learner.module import CausalLMModule
from proxmo_rllib.policies.adapters import ADAPTER_CONFIG, save_adapters, target_layers
from proxmo_rllib.policies.loading import load_causal_lm, save_policy
from tests.learner.test_model_families import VOCAB, build_module, each_family, folder, random_batch

__all__ = ["folder"]  # a fixture

LORA = {"rank": 2, "alpha": 6, "target_modules": "all-linear"}


@pytest.fixture
def lora_config(config: ProxMOConfig) -> ProxMOConfig:
    return config.policy(lora={"rank": 4, "alpha": 8})


def move(module: CausalLMModule, seed: int = 3, scale: float = 0.2) -> None:
    """Gives the adapters something to say."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.kept_parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


def logprobs(module: CausalLMModule, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = module.forward_train(batch)[columns.LOGPROBS]
    return found


def test_a_step_moves_the_adapters_and_nothing_else(lora_config: ProxMOConfig, tools: Any) -> None:
    learner = tools.build(lora_config)
    before = tools.weights(learner)
    trained = [name for name, p in learner.policy.lm.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)
    optimizer = learner.get_optimizer()
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == sum(
        before[name].numel() for name in trained
    )
    probe = list(range(5, 40))
    said = learner.policy.score(probe, 4)
    tools.update(learner, tools.groups(2, 3))
    assert tools.gradients(learner).keys() == set(trained)
    after = tools.weights(learner)
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved
    assert moved <= set(trained)
    assert not torch.equal(learner.policy.score(probe, 4), said)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_reference_is_the_base_without_a_second_copy(
    lora_config: ProxMOConfig, tools: Any, tiny_policy: Path, dtype: str
) -> None:
    lora_config.training(kl_coef=0.1).policy(dtype=dtype)
    learner = tools.build(lora_config)
    assert learner.policy.reference is None
    move(learner.policy)
    batch = random_batch()
    reference = learner.policy.reference_logprobs(batch)
    untouched = tools.build(lora_config).policy
    assert torch.equal(reference, logprobs(untouched, batch))
    assert (reference - logprobs(learner.policy, batch)).abs().max() > 0.01
    if dtype == "float32":
        plain = CausalLMModule(
            observation_space=None,
            action_space=None,
            inference_only=False,
            model_config=lora_config.module_settings() | {"lora": None, "with_reference": False},
        )
        assert torch.equal(reference, logprobs(plain, batch))
    metrics = tools.update(learner, tools.groups(2, 3))
    assert metrics["kl_to_reference"] > 0


def test_the_base_is_frozen_in_bfloat16_and_the_adapters_are_float32(lora_config: ProxMOConfig, tools: Any) -> None:
    learner = tools.build(lora_config.policy(dtype="bfloat16"))
    for name, parameter in learner.policy.lm.named_parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16), name
    for name, buffer in learner.policy.lm.named_buffers():
        assert buffer.dtype != torch.bfloat16, f"{name} lost digits"
    tools.update(learner, tools.groups(2, 3))
    assert learner.policy_version == 1


def test_exact_scores_of_a_bfloat16_base_are_computed_in_float32(lora_config: ProxMOConfig, tools: Any) -> None:
    policy = tools.build(lora_config.policy(dtype="bfloat16")).policy
    move(policy)
    ids = list(range(7, 60))
    exact = policy.score(ids, 5, exact=True)
    rounded = policy.score(ids, 5)
    twin = tools.build(lora_config.policy(dtype="float32")).policy
    with torch.no_grad():
        for (name, target), source in zip(twin.lm.named_parameters(), policy.lm.parameters(), strict=True):
            assert source.dtype == (torch.float32 if ".lora_" in name else torch.bfloat16), "it was not put back"
            target.copy_(source)
    torch.testing.assert_close(exact, twin.score(ids, 5), atol=1e-5, rtol=0)
    assert (rounded - exact).abs().max() > 1e-3


def test_every_learner_and_every_run_begins_with_the_same_adapters(lora_config: ProxMOConfig, tools: Any) -> None:
    def first(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(torch.seed())  # whatever was drawn before
        return tools.weights(tools.build(lora_config.debugging(seed=seed)))

    one, same, other = first(1), first(1), first(2)
    assert all(torch.equal(weight, same[name]) for name, weight in one.items())
    assert any(not torch.equal(weight, other[name]) for name, weight in one.items())
    assert all(not weight.any() for name, weight in one.items() if ".lora_B." in name)


def test_a_state_is_as_small_as_the_adapters(lora_config: ProxMOConfig, tools: Any) -> None:
    whole = tools.build(lora_config.copy(copy_frozen=False).policy(lora=None))
    learner = tools.build(lora_config)
    number = sum(p.numel() for p in learner.policy.kept_parameters())
    assert learner.state_size() == 3 * 4 * number
    assert learner.state_size() < whole.state_size() / 10
    state = learner.policy.get_state()
    assert sum(t.numel() for t in state.values() if t.is_floating_point()) == number
    tools.update(learner, tools.groups(2, 3))
    arrays = learner.snapshot()[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]
    assert sum(array.nbytes for array in arrays.values()) < 4 * number + 2000


@pytest.mark.parametrize("way", ["state", "snapshot", "folder"])
def test_a_resumed_learner_goes_on_as_one_that_was_not_stopped(
    lora_config: ProxMOConfig, tools: Any, way: str, tmp_path: Path
) -> None:
    batches = [tools.groups(2, 3, seed=seed) for seed in range(4)]
    whole = tools.build(lora_config)
    for groups in batches:
        tools.update(whole, groups)
    first = tools.build(lora_config)
    for groups in batches[:2]:
        tools.update(first, groups)
    second = tools.build(lora_config)
    if way == "state":
        second.set_state(first.get_state())
    elif way == "snapshot":
        second.take_over(first.snapshot())
    else:
        second.restore_from_path(first.save_to_path(tmp_path))
    for groups in batches[2:]:
        tools.update(second, groups)
    expected = tools.weights(whole)
    assert all(torch.equal(weight, expected[name]) for name, weight in tools.weights(second).items())


def test_a_state_of_something_else_is_refused_with_what_to_do(
    lora_config: ProxMOConfig, tools: Any, tmp_path: Path, tiny_policy: Path
) -> None:
    learner = tools.build(lora_config)
    state = learner.get_state()
    plain = lora_config.copy(copy_frozen=False).policy(lora=None)
    with pytest.raises(ValueError, match=r"lora=None: the checkpoint holds adapters .*\.policy\(lora=\{'rank': 4"):
        tools.build(plain).set_state(state)
    with pytest.raises(ValueError, match=r"rank': 4.*holds all weights of a model.*policy\(lora=None\)"):
        learner.set_state(tools.build(plain).get_state())
    narrower = lora_config.copy(copy_frozen=False).policy(lora={"rank": 2, "alpha": 8})
    with pytest.raises(ValueError, match=r"rank': 2.*adapters are \{'rank': 4"):
        tools.build(narrower).set_state(state)

    lm = load_causal_lm(tiny_policy)
    with torch.no_grad():
        lm.model.layers[1].mlp.up_proj.weight.add_(1e-3)
    save_policy(tiny_policy, [memoryview(serialise(lm.state_dict()))], tmp_path / "other")
    other = lora_config.copy(copy_frozen=False).policy(pretrained=tmp_path / "other")
    with pytest.raises(ValueError, match=r"other'?: the checkpoint's adapters belong to .*tiny_policy.*fingerprint"):
        tools.build(other).set_state(state)
    # The same model elsewhere is the same model.
    save_policy(tiny_policy, [memoryview(serialise(load_causal_lm(tiny_policy).state_dict()))], tmp_path / "moved")
    moved = tools.build(lora_config.copy(copy_frozen=False).policy(pretrained=tmp_path / "moved"))
    moved.set_state(state)


@each_family
def test_merged_and_unmerged_say_the_same_in_every_family(folder: Path, tmp_path: Path) -> None:
    module, batch = build_module(folder, lora=LORA, seed=1), random_batch()
    saved = load_file(folder / "model.safetensors")
    untouched = module.whole_weights()
    assert untouched.keys() == saved.keys()
    assert all(torch.equal(untouched[name], tensor) for name, tensor in saved.items()), "the first adapters say nothing"

    move(module)
    kept = {name: p.detach().clone() for name, p in module.lm.named_parameters()}
    ours = logprobs(module, batch)
    save_policy(folder, [memoryview(serialise(module.whole_weights()))], tmp_path / "merged")
    merged = build_module(tmp_path / "merged")
    torch.testing.assert_close(logprobs(merged, batch), ours, atol=2e-4, rtol=1e-4)
    assert (ours - logprobs(build_module(folder), batch)).abs().max() > 0.05, "the adapters change nothing"
    assert all(torch.equal(p, kept[name]) for name, p in module.lm.named_parameters()), "merging touched the model"


@each_family
def test_the_exported_adapters_are_those_that_engines_expect_and_peft_loads(folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    module, batch = build_module(folder, lora=LORA), random_batch()
    move(module)
    exported = module.exported_weights()
    lora = LoRA(**LORA)
    assert {name: tuple(t.shape) for name, t in exported.items()} == manifest_of_adapters(folder, lora)
    save_adapters(folder, lora, memoryview(serialise(exported)), tmp_path / "adapter")
    assert str(folder) in (tmp_path / "adapter" / ADAPTER_CONFIG).read_text()
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    base.set_attn_implementation(module.lm.config._attn_implementation)
    theirs = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    ids = batch[columns.TOKEN_IDS]
    with torch.no_grad():
        expected = theirs(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(module.lm(input_ids=ids, use_cache=False).logits, expected, atol=0, rtol=0)


def test_only_the_modules_that_were_named_have_adapters(tiny_policy: Path) -> None:
    lm = load_causal_lm(tiny_policy)
    names = target_layers(lm, LoRA(rank=2, target_modules=("q_proj", "layers.1.mlp.up_proj")))
    assert list(names) == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
    ]
    everywhere = target_layers(lm, LoRA(rank=2))
    assert "lm_head" not in everywhere
    assert len(everywhere) == 14


def test_gradient_checkpointing_changes_nothing(tiny_policy: Path) -> None:
    found = []
    for checkpointing in (False, True):
        module = build_module(tiny_policy, lora=LORA, gradient_checkpointing=checkpointing)
        move(module)
        module.forward_train(random_batch())[columns.LOGPROBS].sum().backward()
        found.append([p.grad.clone() for p in module.kept_parameters()])
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(plain, checkpointed, atol=1e-4, rtol=1e-4)
    assert VOCAB < 600
