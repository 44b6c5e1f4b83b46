"""The words of a config that choose objective, correction and estimator: what they may be, and that they travel."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ray import cloudpickle

from proxmo_rllib import ProxMOConfig
from proxmo_rllib.advantages import ESTIMATORS, Advantages, register_estimator
from proxmo_rllib.cli.settings import apply_settings
from proxmo_rllib.learner.corrections import CORRECTIONS, OPTIONS, register_correction
from proxmo_rllib.learner.losses import LossTokens, Surrogate, TokenWeights
from proxmo_rllib.learner.objectives import OBJECTIVES, register_objective
from proxmo_rllib.learner.objectives.registry import OPTIONS as OBJECTIVE_OPTIONS
from proxmo_rllib.settings_file import read_settings, write_settings


def valid() -> ProxMOConfig:
    return ProxMOConfig().environment("env_wrappers/ALFWorld-v0").policy(pretrained="some/model")


@pytest.fixture
def registries() -> Iterator[None]:
    """The registries as they were, put back afterwards."""
    before = [(registry, dict(registry)) for registry in (OBJECTIVES, CORRECTIONS, ESTIMATORS)]
    yield
    for registry, entries in before:
        registry.clear()
        registry.update(entries)


@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize("correction", list(CORRECTIONS))
def test_every_word_is_valid_alone(objective: str, correction: str):
    config = valid().training(objective=objective, correction=correction)
    config.validate()
    assert (config.objective, config.correction) == (objective, correction)
    assert config.old_logprobs_source() == ("engine" if correction == "none" else "learner")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"objective": "gpso"}, r"objective='gpso': objective 'gpso' is not known \(did you mean 'gspo'\?\)"),
        ({"correction": "icepops"}, r"correction='icepops': .*did you mean 'icepop'"),
        ({"objective": {"name": "ppo", "clip_hi": 0.2}}, "clip_hi=0.2: objective 'ppo' has no such option .*clip_high"),
        ({"objective": {"name": "ppo", "clip_low": 1.5}}, "clip_low=1.5: give .*from 0 to 1"),
        ({"objective": {"name": "ppo", "clip_high": -0.1}}, "clip_high=-0.1: give"),
        ({"objective": {"name": "ppo", "dual_clip": 1.0}}, "dual_clip=1.0: give a bound of the ratio above 1, or None"),
        ({"objective": {"name": "ppo", "clip_high": "0.2"}}, "clip_high='0.2': give"),
        ({"objective": {"name": "reinforce", "clip_low": 0.1}}, "objective 'reinforce' has no such option"),
        ({"correction": {"name": "token_tis", "cap": 0.5}}, "cap=0.5: give a largest weight, at least 1"),
        ({"correction": {"name": "icepop", "low": 1.5}}, "low=1.5: give a smallest ratio"),
        ({"correction": {"name": "geometric_mask", "high": float("nan")}}, "high=nan: give a largest ratio"),
        ({"correction": "icepop", "old_logprobs": "engine"}, "old_logprobs='engine': correction='icepop' compares"),
        ({"old_logprobs": "mine"}, "old_logprobs='mine': it is one of 'engine', 'learner', or None"),
    ],
)
def test_a_wrong_word_or_option_is_refused_with_its_name_value_and_remedy(settings: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        valid().training(**settings).validate()


def test_every_option_that_is_shipped_has_a_range():
    for registry, ranges in ((OBJECTIVES, OBJECTIVE_OPTIONS), (CORRECTIONS, OPTIONS)):
        assert {option for name in registry for option in registry.default_options(name)} == set(ranges)


def own_objective(tokens: LossTokens, *, scale: float = 1.0) -> Surrogate:
    return Surrogate(-scale * tokens.advantages * tokens.logprobs)


def own_correction(tokens: LossTokens, *, keep: float = 1.0) -> TokenWeights:
    close = ((tokens.old_logprobs - tokens.behaviour_logprobs).abs() < keep).float()
    return TokenWeights(close, torch.zeros_like(close, dtype=torch.bool))


def test_a_function_of_ones_own_may_be_handed_over_with_options(config: ProxMOConfig, tools: Any):
    """As an objective it is REINFORCE times the scale."""
    groups = tools.groups(2, 3)
    gradients = []
    for objective in ("reinforce", {"name": own_objective, "scale": 3.0}):
        learner = tools.build(config.copy(copy_frozen=False).training(objective=objective))
        tools.update(learner, groups)
        gradients.append(tools.gradients(learner))
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(
            3.0 * gradient, gradients[1][name], rtol=1e-4, atol=1e-5 * float(gradient.abs().max())
        )
    with pytest.raises(ValueError, match=r"'own_objective' has no such option .*did you mean 'scale'"):
        valid().training(objective={"name": own_objective, "scales": 3.0}).validate()


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda tokens: tokens.logprobs, "objective '<lambda>': returned Tensor; return Surrogate"),
        (lambda tokens: Surrogate(tokens.logprobs.sum()), r"losses are \(\); return one number a token"),
        (lambda tokens: Surrogate(tokens.logprobs.detach()), "its losses have no gradient"),
        (lambda tokens: Surrogate(tokens.logprobs / 0), "losses are not all finite"),
        (lambda tokens: Surrogate(tokens.logprobs, {"mine": tokens.logprobs.mean()}), r"part 'mine' are \(\)"),
    ],
)
def test_an_objective_that_returns_nonsense_is_found_before_long_work(result: Any, words: str):
    with pytest.raises(ValueError, match=words):
        valid().training(objective=result).validate()


def test_a_correction_that_returns_nonsense_is_found_before_long_work():
    with pytest.raises(ValueError, match="correction '<lambda>': returned Tensor; return TokenWeights"):
        valid().training(correction=lambda tokens: tokens.logprobs).validate()
    with pytest.raises(ValueError, match="a weight is below 0"):
        valid().training(correction=lambda t: TokenWeights(t.logprobs.detach(), t.turn > 0)).validate()


_ELSEWHERE = """
import sys
from ray import cloudpickle
config = cloudpickle.loads(open(sys.argv[1], "rb").read())
print(config.chosen_objective().options, config.chosen_correction().name, config.estimator().__name__)
"""


@pytest.mark.usefixtures("registries")
def test_what_a_script_registered_is_known_in_another_process(tmp_path: Path):
    """A learner's process never ran the script: it gets the function itself in the place of its name."""

    # Made here, as in a script: no other process can import this function.
    @register_objective("mine")
    def mine(tokens: LossTokens, *, scale: float = 1.0) -> Surrogate:
        return Surrogate(-scale * tokens.advantages * tokens.logprobs)

    @register_correction("mine_too")
    def mine_too(tokens: LossTokens) -> TokenWeights:
        return TokenWeights(tokens.weights, tokens.turn < 0)

    @register_estimator("mine_as_well")
    def mine_as_well(table: Any) -> Advantages:
        return Advantages.build(table, episode=table.episode_success, returns=table.reward)

    config = valid().training(objective={"name": "mine", "scale": 2.0}, correction="mine_too")
    config.training(advantage_estimator="mine_as_well").validate()
    (tmp_path / "config").write_bytes(cloudpickle.dumps(config))
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, str(tmp_path / "config")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "{'scale': 2.0} mine_too mine_as_well"
    # Playing with the policy does not miss them.
    write_settings(config, tmp_path / "settings.json")
    assert read_settings(tmp_path / "settings.json").withheld == {}


def test_a_checkpoint_brings_the_words_back(tmp_path: Path):
    given = {"objective": {"name": "ppo", "dual_clip": 3.0}, "correction": "icepop", "kl_estimator": "k2"}
    write_settings(valid().training(**given), tmp_path / "settings.json")
    config = read_settings(tmp_path / "settings.json").config
    assert {key: getattr(config, key) for key in given} == given


@pytest.mark.parametrize(
    ("word", "objective", "correction"),
    [
        ("objective=gspo", "gspo", "none"),
        ("objective.clip_high=0.3", {"name": "ppo", "clip_high": 0.3}, "none"),
        ('objective={"name": "cispo", "clip_high": 2.0}', {"name": "cispo", "clip_high": 2.0}, "none"),
        ("correction=none", "ppo", "none"),
        ("correction=token_tis", "ppo", "token_tis"),
    ],
)
def test_the_command_line_takes_a_word_an_entry_or_a_dictionary(word: str, objective: Any, correction: Any):
    config = valid()
    key, _, text = word.partition("=")
    apply_settings(config, {key: text})
    config.validate()
    assert (config.objective, config.correction) == (objective, correction)


def test_on_the_command_line_a_word_replaces_a_dictionary():
    config = valid().training(objective={"name": "ppo", "clip_high": 0.28})
    apply_settings(config, {"objective": "gspo", "lora.rank": "4", "lr_schedule": "constant"})
    assert (config.objective, config.lora, config.lr_schedule) == ("gspo", {"rank": 4}, "constant")
    apply_settings(config, {"lora": "none", "lr_schedule.warmup_steps": "5"})
    assert (config.lora, config.lr_schedule) == (None, {"decay": "constant", "warmup_steps": 5})
