"""Engines that serve adapters: exact logprobs under the newest, its version on each response, nothing old unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from proxmo_rllib.config_records import LoRA
from proxmo_rllib.inference.engine import EngineConfig, build_engine
from proxmo_rllib.inference.support import lora_room, unadaptable_by_vllm
from proxmo_rllib.inference.weights import WeightsMismatchError, manifest_of_adapters, serialise
from proxmo_rllib.policies.adapters import adapter_manifest, adapter_parameters, inject_adapters
from proxmo_rllib.types import SamplingParams
from tests.inference.conftest import Served, tiny_model
from tests.inference.test_batch_invariance import assert_same_bits, sample

RANK = 4
TOLERANCE = 1e-4


class ServedAdapters(Served):
    """An engine and its twin, both with adapters."""

    @property
    def path(self) -> Path:
        return self.folder / "adapters.safetensors"

    def change_adapters(self, seed: int) -> None:
        """Gives the twin other adapters, and writes them where the engine is to read them."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in adapter_parameters(self.reference).values():
                parameter.copy_(0.25 * torch.randn(parameter.shape, generator=generator))
        serialise(adapter_parameters(self.reference)).tofile(self.path)

    def change_weights(self, seed: int, version: int | None = None) -> None:
        self.change_adapters(seed)
        self.run(self.engine.load_weights(self.path, self.engine.version + 1 if version is None else version))

    def error_of(self, prompt: list[int], completion: Any) -> float:
        return float(np.abs(completion.logprobs - self.expected_logprobs(prompt, completion.token_ids)).max())


@pytest.fixture(scope="module")
def served(kind: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedAdapters]:
    folder = tmp_path_factory.mktemp("base")
    reference = tiny_model(folder, tied=True)
    lora = LoRA(rank=RANK, alpha=8)
    inject_adapters(reference, lora)
    config = EngineConfig(model=str(folder), kind=kind, max_model_len=256, max_num_seqs=8, lora=lora)
    with asyncio.Runner() as runner:
        engine = build_engine(config, version=3)
        yield ServedAdapters(engine, reference, runner, folder, config)
        engine.close()


def test_the_base_is_served_until_adapters_come_and_then_each_version_exactly(served: Any, prompts: Any) -> None:
    prompt = (prompts(5)[4] * 5)[:200]  # several blocks of the prefix cache
    greedy = SamplingParams(0.0, 6)
    before = served.run(served.engine.generate(prompt, greedy))
    assert before.policy_version == 3
    assert served.error_of(prompt, before) < TOLERANCE
    seen = [before.logprobs]
    for version in (4, 5, 6):
        served.change_weights(version)
        for _ in range(2):  # the second finds the first's prefix
            completion = served.run(served.engine.generate(prompt, greedy))
            assert completion.policy_version == served.engine.version == version
            assert served.error_of(prompt, completion) < TOLERANCE
        scores = served.run(served.engine.score(prompt + completion.token_ids.tolist(), len(prompt)))
        assert np.abs(scores - served.expected_logprobs(prompt, completion.token_ids)).max() < TOLERANCE
        seen.append(completion.logprobs)
    assert len({logprobs.tobytes() for logprobs in seen}) == 4, "the adapters change nothing"


def test_a_version_that_is_made_anew_is_not_taken_for_the_one_before(served: Any, prompts: Any) -> None:
    """As after going back to a checkpoint: the same number, other weights."""
    prompt = (prompts(3)[2] * 5)[:200]
    for seed in (21, 22, 23):
        served.change_weights(seed, version=7)
        completion = served.run(served.engine.generate(prompt, SamplingParams(0.0, 4)))
        assert completion.policy_version == 7
        assert served.error_of(prompt, completion) < TOLERANCE


def test_requests_of_two_versions_at_once_each_say_theirs(served: Any, prompts: Any) -> None:
    served.change_weights(31)
    before = served.engine.version
    prompt = prompts(1)[0]

    async def load_twice_meanwhile() -> Any:
        long = asyncio.ensure_future(served.engine.generate(prompt, SamplingParams(0.0, 120)))
        short = asyncio.ensure_future(served.engine.generate(prompts(2)[1], SamplingParams(1.0, 2)))
        waiting = [
            asyncio.ensure_future(served.engine.generate(prompt, SamplingParams(0.0, 60)))
            for _ in range(2 * served.config.max_num_seqs)  # some of them have not begun when the adapters change
        ]
        await short
        assert not long.done()
        served.change_adapters(32)
        await served.engine.load_weights(served.path, before + 1)
        after = await served.engine.generate(prompt, SamplingParams(0.0, 5))
        return await long, await asyncio.gather(*waiting), after

    long, waiting, after = served.run(load_twice_meanwhile())
    assert after.policy_version == before + 1
    assert served.error_of(prompt, after) < TOLERANCE
    assert long.policy_version == before
    if served.config.kind == "vllm":
        # The adapters that a request began with are those that end it, and it says so.
        served.change_adapters(31)
        for completion in (long, *waiting):
            assert completion.policy_version == before
            assert served.error_of(prompt, completion) < TOLERANCE
        served.change_adapters(32)


@pytest.mark.parametrize("change", ["shape", "missing", "unknown"])
def test_adapters_that_do_not_fit_are_refused_and_the_engine_goes_on(served: Any, prompts: Any, change: str) -> None:
    served.change_weights(41)
    version = served.engine.version
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
    state: dict[str, Any] = dict(adapter_parameters(served.reference))
    if change == "shape":
        state[name] = torch.zeros(RANK + 1, 64)
    elif change == "missing":
        del state[name]
    else:
        state[name.replace("layers.1", "layers.2")] = torch.zeros(RANK, 64)
    path = served.folder / "wrong.safetensors"
    serialise(state).tofile(path)
    with pytest.raises(WeightsMismatchError, match=r"mlp\.up_proj\.lora_A"):
        served.run(served.engine.load_weights(path, version + 1))
    prompt = prompts(1)[0]
    completion = served.run(served.engine.generate(prompt, SamplingParams(1.0, 4)))
    assert completion.policy_version == version
    assert served.error_of(prompt, completion) < TOLERANCE


def test_nothing_is_left_behind_in_the_folder_of_the_weights(served: Any) -> None:
    served.change_weights(51)
    assert not list(served.folder.glob("adapter_*"))


@pytest.mark.parametrize(("threads", "dtype"), [(1, "float32"), (2, "bfloat16")])
def test_samples_under_adapters_do_not_depend_on_their_company(
    make_model: Any, prompts: Any, tmp_path: Path, threads: int, dtype: Any
) -> None:
    lora = LoRA(rank=RANK)
    model = make_model(tmp_path, tied=True)
    inject_adapters(model, lora)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.normal_(std=0.3)
    path = tmp_path / "adapters.safetensors"
    serialise(adapter_parameters(model), getattr(torch, dtype)).tofile(path)
    asked = [*prompts(20), [5], [7, 9]]
    expected = None
    for max_num_seqs, order in ((64, 0), (3, 2), (1, 3), (9, 4)):
        engine = build_engine(
            EngineConfig(
                str(tmp_path),
                "transformers",
                dtype=dtype,
                threads=threads,
                lora=lora,
                max_model_len=256,
                max_num_seqs=max_num_seqs,
            )
        )
        asyncio.run(engine.load_weights(path, 1))
        completions = sample(engine, asked, order)
        expected = expected or completions
        assert_same_bits(completions, expected)
        engine.close()


def test_what_vllm_cannot_serve_is_known_without_starting_it(served: Any) -> None:
    assert unadaptable_by_vllm(["Qwen2ForCausalLM", "Phi3ForCausalLM", "MistralForCausalLM"], 16) is None
    assert "takes none" in (unadaptable_by_vllm(["BloomForCausalLM"], 16) or "")
    assert "largest rank is 512" in (unadaptable_by_vllm(["Qwen2ForCausalLM"], 513) or "")
    assert [lora_room(rank) for rank in (1, 8, 9, 64, 300, 512)] == [8, 8, 16, 64, 320, 512]


def test_an_adapter_of_another_rank_is_told_by_its_shapes(served: Any) -> None:
    other = manifest_of_adapters(served.folder, replace(served.config.lora, rank=2))
    assert other.keys() == manifest_of_adapters(served.folder, served.config.lora).keys()
    assert other != adapter_manifest(tiny_model_of(served), served.config.lora)


def tiny_model_of(served: Any) -> Any:
    from transformers import AutoConfig

    from proxmo_rllib.policies.checkpoint_names import model_without_weights

    return model_without_weights(AutoConfig.from_pretrained(served.folder))
