"""What is sampled for a request has the same bits in whatever company it is sampled, so that a run can be repeated.

Which requests are computed together depends on when they arrive, and that on the machine's mood.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from proxmo_rllib.inference.decode_batch import DecodeBatch, Request
from proxmo_rllib.inference.engine import EngineConfig, build_engine
from proxmo_rllib.types import Completion, SamplingParams

REQUESTS = 40


def sample(engine: Any, prompts: list[list[int]], order: int) -> list[Completion]:
    """All prompts' completions, asked for in an order and in bursts of its own."""
    draw = random.Random(order)
    places = list(range(len(prompts)))
    draw.shuffle(places)
    found: dict[int, Completion] = {}

    async def ask(place: int) -> None:
        params = SamplingParams(temperature=1.0 if place % 3 else 0.0, max_tokens=2 + place % 9, seed=place)
        found[place] = await engine.generate(prompts[place], params)

    async def run() -> None:
        waiting: list[asyncio.Task[None]] = []
        while places or waiting:
            burst = draw.choice([1, 2, 3, 7, len(prompts)]) if order else len(prompts)
            waiting += [asyncio.ensure_future(ask(places.pop())) for _ in range(min(burst, len(places)))]
            _, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            waiting = list(pending)

    asyncio.run(asyncio.wait_for(run(), 240))
    return [found[place] for place in range(len(prompts))]


def assert_same_bits(one: list[Completion], other: list[Completion]) -> None:
    for place, (left, right) in enumerate(zip(one, other, strict=True)):
        assert left.token_ids.tolist() == right.token_ids.tolist(), place
        assert left.logprobs.tobytes() == right.logprobs.tobytes(), (place, left.logprobs - right.logprobs)


@pytest.mark.parametrize(("threads", "dtype"), [(1, "float32"), (2, "float32"), (2, "bfloat16")])
def test_samples_do_not_depend_on_the_company_they_are_sampled_in(
    make_model: Any, prompts: Any, tmp_path: Path, threads: int, dtype: Any
) -> None:
    make_model(tmp_path, tied=threads == 1)
    asked = [*prompts(REQUESTS - 2), [5], [7, 9]]
    expected = None
    for max_num_seqs, orders in ((64, (0, 1)), (3, (2,)), (1, (3,)), (9, (4, 5))):
        limits: dict[str, Any] = {"max_model_len": 256, "max_num_seqs": max_num_seqs}
        config = EngineConfig(str(tmp_path), "transformers", dtype=dtype, threads=threads, **limits)
        engine = build_engine(config)
        for order in orders:
            completions = sample(engine, asked, order)
            expected = expected or completions
            assert_same_bits(completions, expected)
        engine.close()
    assert expected is not None
    assert len({completion.logprobs.tobytes() for completion in expected}) > REQUESTS / 2


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_row_has_the_same_bits_beside_any_number_of_others(
    make_model: Any, prompts: Any, tmp_path: Path, threads: int
) -> None:
    """An odd number of rows, and of tokens of each, is divided among threads in another way than an even one."""
    make_model(tmp_path, tied=False)
    engine: Any = build_engine(EngineConfig(str(tmp_path), "transformers", threads=threads, max_model_len=256))
    asked = prompts(60)

    def logprobs(places: list[int]) -> dict[int, list[float]]:
        batch = DecodeBatch(engine._model, engine._device)
        requests = [
            Request(asked[place], SamplingParams(0.0, 3), torch.Generator(), lambda completion: None)
            for place in places
        ]
        with torch.inference_mode():
            batch.join(requests, 0)
            while batch.rows:
                batch.step(0)
        return {place: request.logprobs for place, request in zip(places, requests, strict=True)}

    expected = logprobs(list(range(len(asked))))
    draw = random.Random(threads)
    for number in (1, 2, 3, 5, 6, 7, 9, 11, 13, 17, 25, 33):
        for _ in range(3):
            for place, found in logprobs(draw.sample(range(len(asked)), number)).items():
                assert found == expected[place], (number, place)
    engine.close()


def test_padding_changes_nothing_but_the_last_bits(make_model: Any, prompts: Any, tmp_path: Path) -> None:
    """The attention is the model's own, masks of every length included."""

    model = make_model(tmp_path, tied=True)
    engine = build_engine(EngineConfig(str(tmp_path), "transformers", max_model_len=256, max_num_seqs=16))
    completions = sample(engine, prompts(16), order=0)
    engine.close()
    for prompt, completion in zip(prompts(16), completions, strict=True):
        ids = torch.tensor([prompt + completion.token_ids.tolist()])
        with torch.no_grad():
            logprobs = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        mine = logprobs.gather(1, ids[0, len(prompt) :, None])[:, 0].numpy()
        np.testing.assert_allclose(completion.logprobs, mine, atol=1e-5)
