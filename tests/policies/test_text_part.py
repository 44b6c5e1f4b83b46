"""Models that also see are trained by their text part, which computes what it computed inside."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from proxmo_rllib.cli import main
from proxmo_rllib.model_checks import check_model
from tests.model_families import WITH_TOWERS, save_with_tower


@pytest.mark.parametrize("family", list(WITH_TOWERS))
def test_the_text_part_is_a_model_of_its_own(
    family: str, tiny_policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = json.loads((tiny_policy / "config.json").read_text())["vocab_size"]
    whole = save_with_tower(family, tmp_path / "whole", rows)
    for file in [*tiny_policy.glob("*token*"), *tiny_policy.glob("*.jinja")]:
        shutil.copy(file, tmp_path / "whole")
    with pytest.raises(ValueError, match=r"also sees or hears.*proxmo text-part .* --output FOLDER"):
        check_model(tmp_path / "whole", "vllm")

    assert main(["text-part", str(tmp_path / "whole"), "--output", str(tmp_path / "text")]) == 0
    assert "ForCausalLM" in capsys.readouterr().out
    part = AutoModelForCausalLM.from_pretrained(tmp_path / "text", dtype=torch.float32).eval()
    ids = torch.randint(2, rows, (1, 20))
    with torch.no_grad():
        torch.testing.assert_close(part(input_ids=ids).logits, whole(input_ids=ids).logits)
    if family != "qwen3_5":  # needs torchvision in vLLM
        assert "ForCausalLM" in (check_model(tmp_path / "text", "vllm") or "")


def test_a_model_that_is_all_text_is_left_as_it_is(
    tiny_policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["text-part", str(tiny_policy), "--output", str(tmp_path / "text")]) == 1
    assert "is all text; train it as it is" in capsys.readouterr().err
    assert not (tmp_path / "text").exists()
