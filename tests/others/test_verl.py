"""verl's own registry and `compute_advantage`, with this project's estimators in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from proxmo_rllib.integrations import PlayedEpisode, token_advantages, turn_advantages
from proxmo_rllib.integrations.verl_estimator import episodes_at_hand, register
from tests.integrations.test_credit import some_episodes, some_mask

pytestmark = [pytest.mark.slow, pytest.mark.others]
PAGE = Path(__file__).parents[2] / "docs" / "other_programs.md"


@pytest.fixture
def registered() -> Iterator[str]:
    from verl.trainer.ppo import core_algos

    register("proxmo", gamma=0.9, psa_temperature=0.2)
    yield "proxmo"
    del core_algos.ADV_ESTIMATOR_REGISTRY["proxmo"]


def batch_of(episodes: list[PlayedEpisode], mask: np.ndarray) -> Any:
    """As verl has it when it computes advantages: the group's id is a uid of its own making."""
    from verl import DataProto

    uids = {episode.group: f"uid-{hash(episode.group) % 1000}" for episode in episodes}
    rewards = torch.zeros(mask.shape)
    for row, episode in enumerate(episodes):
        rewards[row, mask[row].nonzero()[0][-1]] = sum(episode.rewards)
    return DataProto.from_dict(
        tensors={"token_level_rewards": rewards, "response_mask": torch.tensor(mask)},
        non_tensors={"uid": np.array([uids[episode.group] for episode in episodes], dtype=object)},
    )


def compute(episodes: list[PlayedEpisode], mask: np.ndarray, name: str) -> Any:
    from verl.trainer.config import AlgoConfig
    from verl.trainer.ppo.ray_trainer import compute_advantage

    with episodes_at_hand(episodes):
        config = AlgoConfig(adv_estimator=name)
        return compute_advantage(batch_of(episodes, mask), adv_estimator=name, num_repeat=4, config=config)


def test_verl_computes_exactly_this_projects_advantages(registered: str):
    episodes = some_episodes()
    mask = some_mask(episodes)
    found = compute(episodes, mask, registered).batch["advantages"]
    expected = token_advantages(episodes, mask, "proxmo", gamma=0.9, psa_temperature=0.2)
    assert np.array_equal(found.numpy(), expected)
    first_turns = [values[0] for values in turn_advantages(episodes, gamma=0.9, psa_temperature=0.2)]
    assert found[torch.arange(len(episodes)), torch.tensor(mask).argmax(1)].tolist() == [
        np.float32(value) for value in first_turns
    ]


def test_rows_in_another_order_than_the_episodes_are_refused(registered: str):
    from verl.trainer.ppo.ray_trainer import compute_advantage

    episodes = some_episodes()
    with (
        episodes_at_hand(episodes[::-1]),
        pytest.raises(ValueError, match="not grouped as the rows of the batch"),
    ):
        compute_advantage(batch_of(episodes, some_mask(episodes)), adv_estimator=registered, num_repeat=4, config=None)


def test_without_episodes_it_says_where_they_belong(registered: str):
    from verl.trainer.ppo.ray_trainer import compute_advantage

    episodes = some_episodes()
    with pytest.raises(ValueError, match="no episodes at hand"):
        compute_advantage(batch_of(episodes, some_mask(episodes)), adv_estimator=registered, num_repeat=4, config=None)


def test_an_estimator_that_verl_has_itself_is_not_replaced():
    with pytest.raises(ValueError, match="grpo has already been registered"):
        register("grpo")
    with pytest.raises(ValueError, match="gama"):
        register("proxmo", gama=1.0)


def test_the_trainer_of_the_docs_gets_the_advantages_into_verls_store(monkeypatch: pytest.MonkeyPatch):
    """The class as the page has it, on verl's trainer. Its store, which needs a cluster, is a dictionary here."""
    from tensordict import TensorDict
    from verl.trainer.config import AlgoConfig
    from verl.trainer.ppo import core_algos
    from verl.trainer.ppo.v1 import get_trainer_cls, trainer_base

    block = next(b for b in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "register_trainer" in b)
    names: dict[str, Any] = {"__name__": "other_programs"}
    exec(compile(block, PAGE.name, "exec"), names)
    try:
        trainer_class = get_trainer_cls("proxmo")
        episodes = some_episodes()
        mask = some_mask(episodes)
        data = batch_of(episodes, mask)
        lengths = [int(row.nonzero()[0][-1]) + 1 for row in mask]

        def nested(tensor: torch.Tensor) -> torch.Tensor:
            return torch.nested.as_nested_tensor(
                [row[:length] for row, length in zip(tensor, lengths, strict=True)], layout=torch.jagged
            )

        stored: dict[str, Any] = {
            "uid": data.non_tensor_batch["uid"].tolist(),
            "response_mask": nested(data.batch["response_mask"]),
            "rm_scores": nested(data.batch["token_level_rewards"]),
            "extra_fields": [{"played": episode} for episode in episodes],
        }

        def get(keys: Any, partition_id: Any, select_fields: list[str]) -> Any:
            from tensordict import NonTensorStack

            there = {name: stored[name] for name in select_fields if name in stored}
            wrapped = {k: NonTensorStack(*v) if isinstance(v, list) else v for k, v in there.items()}
            return TensorDict(wrapped, batch_size=len(episodes))

        def put(keys: Any, partition_id: Any, fields: Any) -> Any:
            stored.update(fields.items())
            return keys

        monkeypatch.setattr(trainer_base.tq, "kv_batch_get", get)
        monkeypatch.setattr(trainer_base.tq, "kv_batch_put", put)
        algorithm: Any = AlgoConfig(adv_estimator="proxmo", use_kl_in_reward=False)
        trainer = trainer_class.__new__(trainer_class)
        trainer.config = SimpleNamespace(
            algorithm=algorithm, actor_rollout_ref=SimpleNamespace(rollout=SimpleNamespace(n=4))
        )
        batch = SimpleNamespace(keys=[f"k_{i}_0" for i in range(len(episodes))], partition_id="train")
        batch_type = type("Batch", (list,), {"keys": batch.keys, "partition_id": "train"})
        trainer._compute_advantage(batch_type(batch.keys), metrics={})
        expected = token_advantages(episodes, mask, "proxmo", gamma=0.95)
        for row, found in enumerate(stored["advantages"].unbind()):
            assert np.array_equal(found.numpy(), expected[row, : lengths[row]])
    finally:
        core_algos.ADV_ESTIMATOR_REGISTRY.pop("proxmo", None)
        trainer_base.TRAINER_REGISTRY.pop("proxmo", None) if hasattr(trainer_base, "TRAINER_REGISTRY") else None
