"""A real step of TRL's GRPOTrainer on the CPU, with this project's environments and advantages in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from proxmo_rllib.integrations import PlayedEpisode, token_advantages
from proxmo_rllib.integrations.trl_rollout import TextEnvRollout
from proxmo_rllib.integrations.trl_trainer import ProxMOTrainer, episode_return

pytestmark = [pytest.mark.slow, pytest.mark.others]

ALFWORLD: dict[str, Any] = {"rooms": ("bathroom",), "num_tasks": {"train": 8}}


def trainer_of(model: Path, folder: Path, rollout: Any, tasks: list[str], **settings: Any) -> ProxMOTrainer:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig

    arguments: dict[str, Any] = {
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 12,
        "max_steps": 1,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "bf16": False,
        "seed": 0,
    }
    tokenizer = AutoTokenizer.from_pretrained(model)
    return ProxMOTrainer(
        AutoModelForCausalLM.from_pretrained(model),
        reward_funcs=episode_return,
        rollout_func=rollout,
        args=GRPOConfig(str(folder), **{**arguments, **settings}),
        train_dataset=Dataset.from_dict({"prompt": tasks}),
        processing_class=tokenizer,
        advantage_estimator="proxmo",
        estimator_options={"gamma": 0.9, "invalid_action_penalty": 0.1},
    )


def test_a_step_trains_on_exactly_this_projects_advantages(
    tiny_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    played: list[PlayedEpisode] = []
    rollout = TextEnvRollout("env_wrappers/ALFWorld-v0", max_turns=3, env_config=ALFWORLD, show_admissible=True)

    def watched(prompts: Any, trainer: Any) -> dict[str, Any]:
        output = rollout(prompts, trainer)
        played.extend(output["played"])
        return output

    seen: list[dict[str, Any]] = []
    real = ProxMOTrainer._compute_loss

    def compute_loss(self: Any, model: Any, inputs: dict[str, Any]) -> Any:
        seen.append({name: tensor.clone() for name, tensor in inputs.items() if isinstance(tensor, torch.Tensor)})
        return real(self, model, inputs)

    monkeypatch.setattr(ProxMOTrainer, "_compute_loss", compute_loss)
    trainer = trainer_of(tiny_policy, tmp_path, watched, rollout.tasks()[:2])
    # TRL shuffles the rows between generation and loss; without that they can be told apart here.
    monkeypatch.setattr("trl.trainer.grpo_trainer.shuffle_sequence_dict", lambda batch: batch)
    before = [weight.detach().clone() for weight in trainer.model.parameters()]
    trainer.train()

    assert len(played) == 8
    assert len({episode.group for episode in played}) == 2
    assert all(len(episode) == 3 for episode in played)
    (inputs,) = seen
    mask = (inputs["completion_mask"] * inputs["tool_mask"]).numpy()
    expected = token_advantages(played, mask, "proxmo", gamma=0.9, invalid_action_penalty=0.1)
    assert np.array_equal(inputs["advantages"].numpy(), expected)
    assert any(len(set(row[said == 1].tolist())) > 1 for row, said in zip(expected, mask, strict=True)), "by turn"
    after = list(trainer.model.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    logged = list(trainer._logs["advantages"])
    assert logged == pytest.approx((expected.sum(1) / mask.sum(1)).tolist(), abs=1e-6)


def test_what_the_policy_read_is_what_this_projects_conversation_says(tiny_policy: Path, tmp_path: Path):
    """The ids of the first prompt, and the places of the responses, are those of its own rollouts."""
    from proxmo_rllib.policies.loading import load_tokenizer
    from proxmo_rllib.rollouts.conversation import ChatFormat, Conversation

    rollout = TextEnvRollout("env_wrappers/ALFWorld-v0", max_turns=2, env_config=ALFWORLD)
    task = rollout.tasks()[0]
    trainer = trainer_of(tiny_policy, tmp_path, rollout, [task])
    output = rollout([task, task], trainer)
    chat = ChatFormat.from_tokenizer(load_tokenizer(tiny_policy))
    for row in range(2):
        prompt, ids, mask = (output[name][row] for name in ("prompt_ids", "completion_ids", "env_mask"))
        assert len(ids) == len(mask)
        conversation = Conversation(chat, append=True)
        conversation.say(chat.tokenizer.decode(prompt).removeprefix("<|user|>").removesuffix("<|assistant|>"))
        assert conversation.token_ids == prompt
        first = mask.index(0)
        conversation.reply(np.asarray(ids[:first]))
        observation = output["played"][row].observations[1]
        said, follows = conversation.say(observation)
        assert follows
        assert ids[first : first + len(said)] == said.tolist()
        assert mask[first : first + len(said)] == [0] * len(said)


def test_it_starts_only_with_what_it_can_use(tiny_policy: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="rollout_func=None: advantages by turn need to know the turns"):
        trainer_of(tiny_policy, tmp_path, None, ["a"])
    with pytest.raises(ValueError, match="history=2: TRL trains on a prompt and what follows it"):
        TextEnvRollout("env_wrappers/ALFWorld-v0", max_turns=2, history=2)
    with pytest.raises(ValueError, match="is not registered with Gymnasium"):
        TextEnvRollout("env_wrappers/Nothing-v0", max_turns=2)

    def silent(prompts: Any, trainer: Any) -> dict[str, Any]:
        rows = len(prompts)
        return {"prompt_ids": [[1]] * rows, "completion_ids": [[2]] * rows, "logprobs": None}

    trainer = trainer_of(tiny_policy, tmp_path, silent, ["a", "b"])
    trainer.reward_funcs[0] = lambda completions, **_: [0.0] * len(completions)
    with pytest.raises(ValueError, match="The rollout function returned played=None"):
        trainer.train()


def test_the_trainer_of_the_docs_trains(tiny_policy: Path, tmp_path: Path):
    """The block of the page, with a tiny model, one short step, and few turns."""
    import re

    page = Path(__file__).parents[2] / "docs" / "other_programs.md"
    block = next(b for b in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) if "GRPOConfig" in b)
    for written, typed in {
        "Qwen/Qwen2.5-1.5B-Instruct": str(tiny_policy),
        'GRPOConfig("out", ': f'GRPOConfig("{tmp_path}", max_steps=1, use_cpu=True, bf16=False, report_to=[], ',
        "max_completion_length=256": "max_completion_length=4",
        "max_turns=30": "max_turns=2",
    }.items():
        assert written in block
        block = block.replace(written, typed)
    names: dict[str, Any] = {"__name__": "other_programs"}
    exec(compile(block, page.name, "exec"), names)
    assert names["trainer"].state.global_step == 1
