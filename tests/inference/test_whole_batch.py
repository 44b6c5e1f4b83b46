"""Models whose state is more than keys and values are served without a cache, exactly."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch

from proxmo_rllib.inference.engine import EngineConfig, build_engine
from proxmo_rllib.inference.transformers_engine import TransformersEngine
from proxmo_rllib.inference.weights import serialise
from proxmo_rllib.inference.whole_batch import WholeBatch
from proxmo_rllib.policies.checkpoint_names import checkpoint_tensors
from proxmo_rllib.policies.loading import load_causal_lm
from proxmo_rllib.types import Completion, SamplingParams
from tests.model_families import save_family

VOCAB = 200
PROMPTS = [[5, 6, 7], list(range(20, 60)), [9] * 11, [100, 3]]


def check_logprobs(lm: torch.nn.Module, prompt: list[int], completion: Completion) -> None:
    ids = torch.tensor([prompt + completion.token_ids.tolist()])
    with torch.no_grad():
        log_p = lm(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    expected = log_p.gather(1, ids[0, len(prompt) :, None])[:, 0]
    np.testing.assert_allclose(completion.logprobs, expected, atol=1e-4)


@pytest.mark.parametrize("most_logits", [64 * 2**20, 60 * VOCAB])  # all rows at once, one at a time
def test_responses_have_the_models_own_logprobs_over_an_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_logits: int
) -> None:
    monkeypatch.setattr("proxmo_rllib.inference.whole_batch._MAX_LOGITS", most_logits)
    folder = save_family("qwen3_5", tmp_path / "model", VOCAB, scale=4.0)
    lm = load_causal_lm(folder)

    async def run() -> None:
        engine = build_engine(EngineConfig(str(folder), "transformers", max_model_len=128, max_num_seqs=3))
        assert isinstance(engine, TransformersEngine)
        assert isinstance(engine._batch, WholeBatch)
        for version in range(2):
            if version:
                with torch.no_grad():
                    for parameter in lm.parameters():
                        parameter.add_(0.05 * torch.randn_like(parameter))
                serialise(checkpoint_tensors(lm, torch.float32)).tofile(tmp_path / "new.safetensors")
                await engine.load_weights(tmp_path / "new.safetensors", 1)
            asked = [engine.generate(p, SamplingParams(1.0, 4 + 2 * i, seed=i)) for i, p in enumerate(PROMPTS)]
            for index, completion in enumerate(await asyncio.gather(*asked)):
                assert len(completion.token_ids) == 4 + 2 * index
                assert completion.policy_version == version
                check_logprobs(lm, PROMPTS[index], completion)
        engine.close()

    asyncio.run(run())
