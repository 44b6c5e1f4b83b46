"""Episodes that the compared loops learn from, and models of two sizes with random weights."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from env_wrappers.alfworld.novice import Novice
from proxmo_rllib import ProxMOConfig
from proxmo_rllib.policies.loading import load_tokenizer
from proxmo_rllib.rollouts.env_runner import TextEnvRunner
from proxmo_rllib.types import Assignment, Episode, Group
from tuned_examples.quickstart_world import ENV, ENV_CONFIG

#: Shape of SmolLM2-135M, from its config.json; of the shipped policy, its own.
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "135m": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
}
LAYOUTS = ("append", "window")


@dataclass(frozen=True, slots=True)
class Rows:
    """Plain token sequences, which need none of this package to be read.

    Attributes:
        ids: int64 [tokens] of each sequence.
        spans: start and end of the tokens that were sampled, of each sequence.
        advantages: of each span.
    """

    ids: list[np.ndarray]
    spans: list[list[tuple[int, int]]]
    advantages: list[list[float]]


def base_config(model: Path, layout: str, dtype: str) -> ProxMOConfig:
    """A config whose learner learns from such episodes."""
    config = (
        ProxMOConfig()
        .environment(ENV, env_config=ENV_CONFIG)
        .policy(pretrained=model, dtype=dtype)
        .env_runners(num_env_runners=0, max_turns=30)
        .inference(max_model_len=4096, max_response_tokens=64, max_kl_to_engine=1e6)
        .training(loss_weighting="token", lr=1e-5)
        .debugging(seed=0)
    )
    if layout == "window":
        config.prompting(
            context="window", history=2, template="instructed", response_style="tagged", show_admissible=True
        )
    return config


def save_model(size: str, folder: Path) -> Path:
    """A Llama of a size with random weights, and the shipped policy's tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = load_tokenizer("asset:alfworld-tiny")
    config = AutoConfig.from_pretrained(Path(tokenizer.name_or_path), trust_remote_code=False)
    for key, value in SHAPES[size].items():
        setattr(config, key, value)
    config.max_position_embeddings = max(config.max_position_embeddings, 8192)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, trust_remote_code=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def play(config: ProxMOConfig, num_groups: int, group_size: int) -> list[Group]:
    """Whole groups, played by a script that makes mistakes."""
    config = config.copy(copy_frozen=False)
    runner = TextEnvRunner(config=config)
    tasks = runner.env.unwrapped.tasks("train")  # type: ignore[union-attr]
    assignments = [Assignment(f"g{i}", tasks[i % len(tasks)], i, group_size) for i in range(num_groups)]
    try:
        result = runner.sample(assignments=assignments, script=functools.partial(Novice, diligence=0.5))
    finally:
        runner.stop()
    return [Group(g.group_id, g.task, tuple(_scored(episode) for episode in g.episodes)) for g in result.groups]


def _scored(episode: Episode) -> Episode:
    """With logprobs as of a policy that has learned nothing: near those of the random models."""
    import dataclasses

    rng = random.Random(episode.episode_id)
    turns = tuple(
        dataclasses.replace(
            turn,
            logprobs=np.array([-6.6 + 0.1 * rng.gauss(0, 1) for _ in turn.response_ids], np.float32),
            demonstration=False,
        )
        for turn in episode.turns
    )
    return dataclasses.replace(episode, turns=turns)


def rows_of(groups: list[Group], *, by_turn: bool = False) -> Rows:
    """The episodes as plain sequences, with an advantage of 1 for a success and -1 else.

    Args:
        groups: whose episodes.
        by_turn: one sequence a turn, with the whole conversation before it as its prompt.
    """
    ids, spans, advantages = [], [], []
    for group in groups:
        for episode in group.episodes:
            sign = 1.0 if episode.success else -1.0
            for sequence in episode.sequences():
                if by_turn:
                    for start, stop in sequence.spans:
                        ids.append(sequence.token_ids[:stop].astype(np.int64))
                        spans.append([(start, stop)])
                        advantages.append([sign])
                else:
                    ids.append(sequence.token_ids.astype(np.int64))
                    spans.append(list(sequence.spans))
                    advantages.append([sign] * len(sequence.spans))
    return Rows(ids, spans, advantages)


def write(folder: Path, groups: list[Group]) -> None:
    """For the processes that learn from them."""
    for name, by_turn in (("rows", False), ("turns", True)):
        rows = rows_of(groups, by_turn=by_turn)
        flat = [span for spans in rows.spans for span in spans]
        np.savez(
            folder / f"{name}.npz",
            ids=np.concatenate(rows.ids),
            lengths=np.array([len(row) for row in rows.ids]),
            spans=np.array(flat),
            num_spans=np.array([len(spans) for spans in rows.spans]),
            advantages=np.array([a for row in rows.advantages for a in row], np.float32),
        )
