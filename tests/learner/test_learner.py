"""The gradient is that of the textbook, whatever the batching; what is not finite changes nothing; state comes back."""

from __future__ import annotations

import dataclasses
import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from proxmo_rllib import ProxMOConfig
from proxmo_rllib.advantages import estimate_advantages
from proxmo_rllib.learner.advantages_connector import turn_table
from proxmo_rllib.types import Episode, Group


def whole_contexts(episode: Episode) -> list[np.ndarray]:
    """The prompt of every turn as the engine saw it."""
    prompts: list[np.ndarray] = []
    so_far = np.zeros(0, np.int64)
    for turn in episode.turns:
        so_far = np.concatenate([so_far, turn.context_ids]) if turn.appended else turn.context_ids.astype(np.int64)
        prompts.append(so_far)
        so_far = np.concatenate([so_far, turn.response_ids])
    return prompts


def plain_objective(
    objective: str | dict[str, Any], new: torch.Tensor, old: torch.Tensor, advantage: float
) -> torch.Tensor:
    """Loss of each token of one turn."""
    given = {"name": objective} if isinstance(objective, str) else objective
    name = given["name"]
    low, high = {"ppo": (0.2, 0.2), "gspo": (3e-4, 4e-4), "cispo": (1.0, 4.0), "reinforce": (0.0, 0.0)}[name]
    low, high = given.get("clip_low", low), given.get("clip_high", high)
    if name == "reinforce":
        return -advantage * new
    ratio = (new - old).exp()
    if name == "cispo":
        return -ratio.detach().clamp(1 - low, 1 + high) * advantage * new
    if name == "gspo":
        ratio = (new - old).mean().exp().expand(len(new))
    loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
    if given.get("dual_clip") and advantage < 0:
        loss = loss.clamp(max=-given["dual_clip"] * advantage)
    return loss


def plain_correction(name: str, old: torch.Tensor, behaviour: torch.Tensor) -> torch.Tensor:
    """Weight of each token of one turn."""
    difference = old - behaviour
    whole = lambda value: value.expand(len(old))  # noqa: E731
    return {
        "none": torch.ones(len(old)),
        "token_tis": difference.exp().clamp(max=2.0),
        "sequence_tis": whole(difference.sum().exp().clamp(max=2.0)),
        "icepop": difference.exp() * ((difference.exp() >= 0.5) & (difference.exp() <= 5.0)),
        "geometric_mask": whole(((difference.mean().exp() - 1.025).abs() <= 0.225).float()),
    }[name]


def plain_penalty(name: str, new: torch.Tensor, old: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Divergence of each token of one turn, with the gradient that the estimator is said to have."""
    difference = new - reference
    if name == "k1":
        gradient = (new - old).exp().detach() * difference.detach()
        return difference.detach() + gradient * new - (gradient * new).detach()
    return difference**2 / 2 if name == "k2" else (-difference).exp() - 1 + difference


def plain_loss(lm: Any, reference: Any, groups: list[Group], config: ProxMOConfig) -> torch.Tensor:
    """Turn by turn, with all logits of all tokens: slow, and nothing to get wrong."""
    episodes = [episode for group in groups for episode in group.episodes]
    settings = config.estimator_settings()
    advantages = iter(estimate_advantages(turn_table(episodes), config.advantage_estimator, **settings).total)
    total, denominator = torch.zeros(()), 0.0
    for episode in episodes:
        tokens = sum(len(turn.response_ids) for turn in episode.turns)
        for turn, prompt in zip(episode.turns, whole_contexts(episode), strict=True):
            advantage = float(next(advantages))
            ids = torch.from_numpy(np.concatenate([prompt, turn.response_ids])).long()[None]
            answers = slice(len(prompt) - 1, -1)
            log_p = (lm(ids).logits[0, answers] / config.temperature).log_softmax(-1)
            chosen = log_p.gather(1, ids[0, len(prompt) :, None])[:, 0]
            behaviour = torch.from_numpy(turn.logprobs)
            recomputed = config.old_logprobs == "learner" or config.correction != "none"
            old = chosen.detach() if recomputed else behaviour
            losses = plain_objective(config.objective, chosen, old, advantage)
            losses = losses * plain_correction(config.correction, old, behaviour)
            losses = losses - config.entropy_coef * -(log_p.exp() * log_p).sum(-1)
            if config.kl_coef:
                with torch.no_grad():
                    ref = (reference(ids).logits[0, answers] / config.temperature).log_softmax(-1)
                    ref = ref.gather(1, ids[0, len(prompt) :, None])[:, 0]
                losses = losses + config.kl_coef * plain_penalty(config.kl_estimator, chosen, old, ref)
            weight = {"sequence": 1 / len(losses), "episode": 1 / tokens}.get(config.loss_weighting, 1.0)
            total = total + weight * losses.sum()
            denominator += weight * len(losses)
    if config.loss_weighting == "dr_grpo":
        denominator = len(episodes) * config.max_turns * config.max_response_tokens
    return total / denominator


def plain_gradients(learner: Any, groups: list[Group], config: ProxMOConfig) -> tuple[float, dict[str, torch.Tensor]]:
    from proxmo_rllib.policies.loading import load_causal_lm

    lm, reference = load_causal_lm(config.pretrained), load_causal_lm(config.pretrained)
    lm.load_state_dict(learner.policy.lm.state_dict())
    loss = plain_loss(lm, reference, groups, config)
    loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in lm.named_parameters() if p.grad is not None}


def assert_equal_gradients(given: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert given.keys() == expected.keys()
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    assert scale > 1e-4  # there is something to compare
    for name, gradient in expected.items():
        torch.testing.assert_close(given[name], gradient, rtol=1e-3, atol=1e-5 * scale, msg=name)


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "temperature": {"temperature": 0.6},
    "penalties": {"kl_coef": 0.3, "entropy_coef": 0.1},
    "tight clip": {"objective": {"name": "ppo", "clip_low": 0.02, "clip_high": 0.1}},
    "dual clip": {"objective": {"name": "ppo", "dual_clip": 1.1}},
    "gspo": {"objective": "gspo"},
    "gspo, wide": {"objective": {"name": "gspo", "clip_low": 0.1, "clip_high": 0.1}},
    "cispo": {"objective": {"name": "cispo", "clip_low": 0.1, "clip_high": 0.1}},
    "reinforce": {"objective": "reinforce"},
    "old from the learner": {"old_logprobs": "learner"},
    "token_tis": {"correction": "token_tis"},
    "sequence_tis": {"correction": "sequence_tis"},
    "icepop": {"correction": "icepop"},
    "geometric_mask": {"correction": "geometric_mask"},
    "k1": {"kl_coef": 0.3, "kl_estimator": "k1"},
    "k2": {"kl_coef": 0.3, "kl_estimator": "k2"},
    "sequence": {"loss_weighting": "sequence"},
    "episode": {"loss_weighting": "episode", "entropy_coef": 0.1},
    "dr_grpo": {"loss_weighting": "dr_grpo"},
    "another estimator": {"advantage_estimator": "grpo"},
}


#: Whose unit is a turn or an episode, which a window lays out in other rows than an append-only context.
OF_SEQUENCES = ("plain", "gspo, wide", "sequence_tis", "geometric_mask", "sequence", "episode", "dr_grpo")
LAYOUTS = [(name, True) for name in SETTINGS] + [(name, False) for name in OF_SEQUENCES]


@pytest.mark.parametrize(("name", "append"), LAYOUTS, ids=lambda value: str(value))
def test_the_gradient_is_that_of_a_plain_implementation(config: ProxMOConfig, tools: Any, name: str, append: bool):
    settings = dict(SETTINGS[name])
    if "temperature" in settings:
        config.inference(temperature=settings.pop("temperature"))
    config.training(max_tokens_per_microbatch=40, **settings)
    learner = tools.build(config)
    tools.perturb(learner)
    groups = tools.groups(2, 3, append=append)
    loss, expected = plain_gradients(learner, groups, config)
    logged = tools.update(learner, groups)
    assert_equal_gradients(tools.gradients(learner), expected)
    assert logged["total_loss"] == pytest.approx(loss, rel=1e-4, abs=1e-6)


def test_every_setting_of_the_loss_changes_the_gradient(config: ProxMOConfig, tools: Any):
    """One word switches each: else the comparisons above would compare the same thing."""
    groups = tools.groups(2, 3)
    seen = []
    for settings in SETTINGS.values():
        if "temperature" in settings or "advantage_estimator" in settings:
            continue
        learner = tools.build(config.copy(copy_frozen=False).training(**settings))
        tools.perturb(learner)
        tools.update(learner, groups)
        seen.append(torch.cat([gradient.flatten() for gradient in tools.gradients(learner).values()]))
    # "old from the learner" without a correction is REINFORCE at the first step: there the ratio is 1.
    same = [
        (i, j) for i in range(len(seen)) for j in range(i) if torch.allclose(seen[i], seen[j], rtol=1e-4, atol=1e-9)
    ]
    names = [name for name in SETTINGS if name not in ("temperature", "another estimator")]
    assert [{names[i], names[j]} for i, j in same] == [{"reinforce", "old from the learner"}]


@pytest.mark.parametrize("max_tokens", [1, 64, 100_000])
@pytest.mark.parametrize("weighting", ["sequence", "dr_grpo"])
def test_the_gradient_does_not_depend_on_the_micro_batches(
    config: ProxMOConfig, tools: Any, max_tokens: int, weighting: str
):
    config.training(kl_coef=0.1, entropy_coef=0.05, correction="geometric_mask", loss_weighting=weighting)
    config.training(objective={"name": "gspo", "clip_low": 0.1, "clip_high": 0.1})
    groups = tools.groups(3, 3)
    learners = {}
    for budget in (200, max_tokens):
        config.training(max_tokens_per_microbatch=budget)
        learners[budget] = tools.build(config)
        tools.perturb(learners[budget])
        logged = tools.update(learners[budget], groups)
        if budget == 1:
            assert logged["num_micro_batches"] == 9
    assert_equal_gradients(tools.gradients(learners[max_tokens]), tools.gradients(learners[200]))


def test_only_response_tokens_count(config: ProxMOConfig, tools: Any):
    """With the head's rows untied from the inputs, only those of predicted positions would move; so ask the loss."""
    groups = tools.groups(2, 3)
    learner = tools.build(config)
    tools.perturb(learner)
    tools.update(learner, groups)
    tokens = sum(episode.num_response_tokens for group in groups for episode in group.episodes)
    seen = []

    class Spy:
        def __init__(self, loss: Any) -> None:
            self.loss = loss

        def __call__(self, batch: Any, outputs: Any) -> Any:
            seen.append(len(outputs["logprobs"]))
            return self.loss(batch, outputs)

    learner.token_loss = Spy(learner.token_loss)
    tools.update(learner, groups)
    assert sum(seen) == tokens


def test_a_group_without_differences_moves_nothing(config: ProxMOConfig, tools: Any):
    """Equal episodes have no advantage; with no penalty there is no gradient."""
    config.training(advantage_estimator="grpo")
    (group,) = tools.groups(1, 1)
    episodes = [dataclasses.replace(group.episodes[0], episode_id=f"g0-{index}") for index in range(3)]
    groups = [Group("g0", "task-0", tuple(episodes))]
    learner = tools.build(config)
    tools.update(learner, groups)
    assert max(float(gradient.abs().max()) for gradient in tools.gradients(learner).values()) == 0.0


def test_the_kl_to_the_frozen_reference_is_zero_at_the_start_and_grows(config: ProxMOConfig, tools: Any):
    config.training(kl_coef=0.1, lr=1e-2)
    learner = tools.build(config)
    reference = {name: p.clone() for name, p in learner.policy.reference.named_parameters()}
    groups = tools.groups(2, 3)
    first = tools.update(learner, groups)
    second = tools.update(learner, groups)
    assert first["kl_to_reference"] == pytest.approx(0.0, abs=1e-7)
    assert second["kl_to_reference"] > 1e-5
    for name, parameter in learner.policy.reference.named_parameters():
        assert torch.equal(parameter, reference[name])
        assert not parameter.requires_grad


def test_no_reference_is_loaded_without_a_penalty(config: ProxMOConfig, tools: Any):
    assert tools.build(config).policy.reference is None


def test_minibatches_are_optimizer_steps_over_all_sequences(config: ProxMOConfig, tools: Any):
    config.training(num_minibatches=3)
    learner = tools.build(config)
    rows = []
    step = learner._update

    def spy(batch: Any, **kwargs: Any) -> Any:
        rows.append(sorted(tuple(row.tolist()) for row in batch["default_policy"]["token_ids"]))
        return step(batch, **kwargs)

    learner._update = spy
    groups = tools.groups(2, 3)
    logged = tools.update(learner, groups, num_epochs=2)
    assert learner.policy_version == len(rows) == logged["policy_version"] == 6
    first, second = [row for step in rows[:3] for row in step], [row for step in rows[3:] for row in step]
    strip = lambda epoch: sorted(tuple(t for t in row if t) for row in epoch)  # noqa: E731 (cut to different lengths)
    assert len(first) == 6
    assert strip(first) == strip(second)
    assert rows[:3] != rows[3:]


@pytest.mark.parametrize("poison", [float("nan"), -float("inf")])
def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(config: ProxMOConfig, tools: Any, poison: float):
    learner = tools.build(config)
    groups = tools.groups(2, 3)
    tools.update(learner, groups)
    before, version = tools.weights(learner), learner.policy_version
    poisoned = poison_logprobs(groups, poison)
    logged = tools.update(learner, poisoned)
    assert logged["num_skipped_steps"] == 1
    assert learner.policy_version == version
    for name, weight in tools.weights(learner).items():
        assert torch.equal(weight, before[name])
    assert tools.update(learner, groups)["num_skipped_steps"] == 0  # and it goes on
    assert learner.policy_version == version + 1
    assert all(bool(weight.isfinite().all()) for weight in tools.weights(learner).values())


def test_the_metrics_of_an_iteration_do_not_depend_on_the_number_of_its_optimizer_steps(
    config: ProxMOConfig, tools: Any
):
    """Minibatches of unequal token counts: their means would count the tokens of the small ones for more."""
    config.training(lr=1e-12, kl_coef=0.1)
    groups = [*tools.groups(1, 3, max_turns=12), *tools.groups(3, 3, max_turns=1, seed=1)[1:]]
    logged = []
    for steps, epochs in ((1, 1), (3, 1), (3, 2), (100, 1)):
        learner = tools.build(config.copy(copy_frozen=False).training(num_minibatches=steps))
        tools.perturb(learner)
        logged.append(tools.update(learner, groups, num_epochs=epochs))
    for name in ("policy_loss", "entropy", "approximate_kl_to_old", "kl_to_reference", "clip_fraction"):
        values = [numbers[name] for numbers in logged]
        assert abs(values[0]) > 1e-6
        assert values == pytest.approx([values[0]] * 4, rel=1e-4), name


def test_gradients_that_stay_infinite_fail_the_run(config: ProxMOConfig, tools: Any):
    learner = tools.build(config)
    groups = poison_logprobs(tools.groups(2, 3), float("nan"))
    for _ in range(4):
        tools.update(learner, groups)
    with pytest.raises(FloatingPointError, match=r"not finite in 5 optimizer steps.*lr=0.001"):
        tools.update(learner, groups)


def poison_logprobs(groups: list[Group], value: float) -> list[Group]:
    first, *others = groups
    turn, *turns = first.episodes[0].turns
    turn = dataclasses.replace(turn, logprobs=np.full_like(turn.logprobs, value))
    episode = dataclasses.replace(first.episodes[0], turns=(turn, *turns))
    return [dataclasses.replace(first, episodes=(episode, *first.episodes[1:])), *others]


def test_the_gradient_is_clipped_to_its_norm(config: ProxMOConfig, tools: Any):
    groups = tools.groups(2, 3)
    free = tools.build(config)
    norm = tools.update(free, groups)["gradient_norm"]
    config.training(grad_clip=norm / 10)
    clipped = tools.build(config)
    assert tools.update(clipped, groups)["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    for name, gradient in tools.gradients(clipped).items():
        torch.testing.assert_close(gradient, tools.gradients(free)[name] / 10, rtol=1e-3, atol=1e-7)


def test_a_learner_comes_back_from_its_state(config: ProxMOConfig, tools: Any):
    """Weights, optimizer and version: the next step is the one that would have been."""
    first, second = tools.groups(2, 3, seed=1), tools.groups(2, 3, seed=2)
    original = tools.build(config)
    tools.update(original, first)
    state = original.get_state()
    copy = tools.build(config)
    copy.set_state(state)
    assert copy.policy_version == original.policy_version == 1
    for learner in (original, copy):
        tools.update(learner, second)
    for name, weight in tools.weights(copy).items():
        torch.testing.assert_close(weight, tools.weights(original)[name], rtol=0, atol=1e-7)


def test_learners_that_took_the_same_state_share_none_of_it(config: ProxMOConfig, tools: Any):
    """What Ray hands out is the same memory in every process: a step of one must not move the others' moments."""
    first = tools.build(config)
    tools.update(first, tools.groups(2, 3))
    copied = deepcopy(first.snapshot())
    second, third = tools.build(config), tools.build(config)
    for learner in (second, third):
        learner.take_over(copied)
        tools.update(learner, tools.groups(2, 3, seed=1))
    tools.update(first, tools.groups(2, 3, seed=1))
    expected = first.snapshot()
    for learner in (second, third):
        found = learner.snapshot()
        assert found["num_optimizer_steps"] == expected["num_optimizer_steps"] == 2
        for part in ("rl_module", "optimizer"):
            pairs = zip(tree_leaves(found[part]), tree_leaves(expected[part]), strict=True)
            assert all(np.array_equal(a, b) for a, b in pairs)


def test_an_error_in_a_learner_reaches_who_called_it(config: ProxMOConfig, tools: Any):
    """RLlib ends the process instead, and all that is known is that it is gone."""
    with pytest.raises(ValueError, match="invalid literal"):
        tools.build(config).apply(lambda _: int("x"))


def test_the_configured_learning_rate_outlives_a_restore(config: ProxMOConfig, tools: Any):
    original = tools.build(config)
    tools.update(original, tools.groups(2, 3))
    config.training(lr=5e-5)
    copy = tools.build(config)
    copy.set_state(original.get_state())
    (optimizer,) = copy._optimizer_parameters
    assert [group["lr"] for group in optimizer.param_groups] == [5e-5]


def test_bfloat16_is_the_arithmetic_and_not_the_weights(config: ProxMOConfig, tools: Any):
    groups = tools.groups(2, 3)
    exact = tools.build(config)
    config.policy(dtype="bfloat16")
    rough = tools.build(config)
    losses = [tools.update(learner, groups)["policy_loss"] for learner in (exact, rough)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05, abs=0.01)
    assert losses[0] != losses[1]
    assert all(p.dtype == torch.float32 for p in rough.policy.lm.parameters())
    assert all(t.dtype == torch.bfloat16 for t in rough.policy.exported_weights().values())
    assert all(t.dtype == torch.float32 for t in exact.policy.exported_weights().values())


def test_gradient_checkpointing_computes_twice_and_changes_nothing(config: ProxMOConfig, tools: Any):
    groups = tools.groups(2, 3)
    passes = {}
    learners = {}
    for checkpointed in (False, True):
        config.policy(gradient_checkpointing=checkpointed)
        learner = learners[checkpointed] = tools.build(config)
        tools.perturb(learner)
        calls: list[int] = []
        learner.policy.lm.model.layers[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        tools.update(learner, groups)
        passes[checkpointed] = len(calls)
    assert passes == {False: 1, True: 2}
    assert_equal_gradients(tools.gradients(learners[True]), tools.gradients(learners[False]))


def test_two_passes_agree_even_if_the_model_has_dropout(config: ProxMOConfig, tools: Any, tmp_path: Path):
    """The ratio compares policies: dropout would make two passes of one policy differ."""
    shutil.copytree(config.pretrained, tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(settings | {"attention_dropout": 0.5}))
    config.policy(pretrained=tmp_path / "model", gradient_checkpointing=True)
    config.training(old_logprobs="learner")
    learner = tools.build(config)
    tools.perturb(learner)
    logged = tools.update(learner, tools.groups(2, 3))
    assert logged["approximate_kl_to_old"] == pytest.approx(0.0, abs=1e-6)


def test_episodes_without_turns_are_left_out(config: ProxMOConfig, tools: Any):
    learner = tools.build(config)
    logged = tools.update(learner, tools.groups(2, 3, empty=1))
    assert logged["num_sequences"] == 5
    with pytest.raises(ValueError, match="no turns"):
        tools.update(learner, tools.groups(1, 3, empty=3))


def test_torn_groups_are_refused(config: ProxMOConfig, tools: Any):
    learner = tools.build(config)
    whole, torn = tools.groups(2, 3)
    torn = dataclasses.replace(torn, episodes=torn.episodes[:2])
    with pytest.raises(ValueError, match=r"whole, with 3 episodes each.*'g1': 2"):
        tools.update(learner, [whole, torn])


def test_groups_of_several_tasks_are_refused(config: ProxMOConfig, tools: Any):
    learner = tools.build(config)
    (group,) = tools.groups(1, 3)
    mixed = (*group.episodes[:2], dataclasses.replace(group.episodes[2], task="another"))
    with pytest.raises(ValueError, match=r"'g0' mixes the tasks 'task-0' and 'another'"):
        tools.update(learner, [dataclasses.replace(group, episodes=mixed)])


def test_a_score_is_what_the_training_pass_computes(config: ProxMOConfig, tools: Any):
    """The figures that are compared with the engines' after a transfer are those of the model that is trained."""
    learner = tools.build(config)
    tools.perturb(learner)
    ids = list(range(5, 25))
    scores = learner.policy.score(ids, 8)
    with torch.no_grad():
        log_p = learner.policy.lm(torch.tensor([ids])).logits[0, 7:-1].log_softmax(-1)
    torch.testing.assert_close(scores, log_p.gather(1, torch.tensor(ids[8:])[:, None])[:, 0])
