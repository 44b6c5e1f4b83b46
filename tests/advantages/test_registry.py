"""Estimators by name: own ones, and what is refused before long work starts."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

from proxmo_rllib.advantages import (
    ESTIMATORS,
    Advantages,
    default_options,
    estimate_advantages,
    register_estimator,
    returns_to_go,
    validate_options,
)


@pytest.fixture
def registry():
    """The registry as it was, put back afterwards."""
    before = dict(ESTIMATORS)
    yield ESTIMATORS
    ESTIMATORS.clear()
    ESTIMATORS.update(before)


@pytest.mark.usefixtures("registry")
def test_an_own_estimator_takes_five_lines(small_table):
    @register_estimator("reinforce")
    def reinforce(table, *, gamma=0.9, scale=1.0):
        returns = returns_to_go(table, gamma)
        return Advantages.build(table, episode=0 * table.episode_success, step=scale * returns, returns=returns)

    advantages = estimate_advantages(small_table, "reinforce", scale=2.0)
    assert advantages.total.tolist() == [1.8, 2.0, 0.0, 0.0, 0.0, 0.0]
    assert default_options("reinforce") == {"gamma": 0.9, "scale": 1.0}
    assert np.isfinite(list(advantages.diagnostics().values())).all()
    with pytest.raises(ValueError, match=r"reinforce.* has no such option .*did you mean 'scale'"):
        validate_options("reinforce", {"scales": 1.0})


@pytest.mark.usefixtures("registry")
def test_a_name_is_not_taken_over_by_another_function():
    with pytest.raises(ValueError, match="'grpo': already registered"):

        @register_estimator("grpo")
        def other(table):
            raise AssertionError


@pytest.mark.usefixtures("registry")
def test_an_option_without_a_default_is_refused():
    with pytest.raises(ValueError, match="option 'scale' has no default"):

        @register_estimator("own")
        def own(table, *, scale):
            raise AssertionError


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_the_defaults_of_every_estimator_are_valid(name):
    validate_options(name, default_options(name))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("proxmoo", {}, "'proxmoo' is not known .*did you mean 'proxmo'"),
        ("proxmo", {"psa_temprature": 0.1}, "psa_temprature=0.1: .*did you mean 'psa_temperature'"),
        ("grpo", {"psc_alpha": 4.0}, "psc_alpha=4.0: advantage estimator 'grpo' has no such option"),
        ("proxmo", {"psa_temperature": 0.0}, "psa_temperature=0.0: give a temperature above 0"),
        ("proxmo", {"gamma": 1.5}, "gamma=1.5: give a discount from 0 to 1"),
        ("proxmo", {"gamma": "0.9"}, "gamma='0.9': give"),
        ("proxmo", {"step_weight": float("nan")}, "step_weight=nan: give"),
        ("proxmo", {"psc_alpha": -1}, "psc_alpha=-1: give"),
        ("proxmo", {"psc_beta": 0.1, "psc_range": 0.05}, "give one of them"),
        ("proxmo", {"idf_scope": "grup"}, "idf_scope='grup': give one of 'group', 'batch'"),
        ("proxmo", {"time_pooling": -1}, "time_pooling=-1: give 'all', 'step', or a window"),
        ("proxmo", {"similarity": "cosine"}, "similarity='cosine': give 'tfidf'"),
        ("proxmo", {"similarity": lambda anchors: np.ones(3)}, "one finite vector an anchor"),
        ("proxmo", {"tfidf_token_pattern": "("}, "tfidf_token_pattern='\\(': give"),
        ("proxmo", {"include_self": 1}, "include_self=1: give True or False"),
        ("gigpo", {"normalization": "std"}, "normalization='std': give one of 'mean', 'mean_std'"),
        ("gigpo", {"similarity_threshold": 1.5}, "similarity_threshold=1.5: give"),
        ("grpo", {"episode_mean_over": "tokens"}, "give one of 'episodes', 'turns', 'steps'"),
    ],
)
def test_a_wrong_option_is_refused_with_its_name_value_and_remedy(name, options, words):
    with pytest.raises(ValueError, match=words):
        validate_options(name, options)


def test_a_missing_embedding_is_found_before_long_work(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json in that folder; download"):
        validate_options("proxmo", {"similarity": f"embedding:{tmp_path}"})


def test_numpy_numbers_are_numbers():
    validate_options("proxmo", {"gamma": np.float64(0.9)})


def test_fixed_options_of_a_preset_are_options_no_more():
    assert "psc_beta" not in default_options("proxmo_without_modulation")
    assert default_options("proxmo_without_modulation")["psa_temperature"] == 0.1
    with pytest.raises(ValueError, match="has no such option"):
        validate_options("proxmo_without_modulation", {"psc_beta": 0.2})


def test_an_estimator_may_be_handed_over_itself(small_table):
    """A remote Learner gets the function with the config; it never ran the script that registered it."""

    def halves(table, *, scale=1.0):
        return Advantages.build(table, episode=scale * (table.episode_success - 0.5), returns=table.reward)

    assert estimate_advantages(small_table, halves, scale=2.0).total.tolist() == [1, 1, -1, -1, -1, -1]
    with pytest.raises(ValueError, match="'halves' has no such option"):
        validate_options(halves, {"gamma": 0.9})


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda table: np.zeros(len(table)), "'own': returned ndarray; return Advantages.build"),
        (
            lambda table: Advantages.build(table, episode=table.episode_success / 0, returns=table.reward),
            "are not finite; return one finite number a turn",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in divide")
def test_an_estimator_that_returns_nonsense_is_found_before_long_work(result, words):
    def own(table):
        return result(table)

    with pytest.raises(ValueError, match=words):
        validate_options(own, {})


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_estimators_travel_between_processes(name):
    assert pickle.loads(pickle.dumps(ESTIMATORS[name])) is ESTIMATORS[name]


def test_advantages_need_neither_ray_nor_torch():
    code = "import sys, proxmo_rllib.advantages; print([m for m in ('ray', 'torch', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
