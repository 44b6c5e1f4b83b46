"""What each word does to what is dealt: nothing without one, the same from a seed, and resumable anywhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from proxmo_rllib import ProxMOConfig
from proxmo_rllib.advantages import ESTIMATORS
from proxmo_rllib.cli.settings import apply_settings
from proxmo_rllib.curriculum import (
    TASK_ORDERS,
    TaskOrder,
    TaskSampler,
    register_task_order,
    task_orders,
)
from proxmo_rllib.settings_file import read_settings, write_settings
from proxmo_rllib.types import Assignment, Group

TASKS = [f"task-{index}" for index in range(30)]
CURRICULA: dict[str, dict[str, Any]] = {
    "none": {},
    "success rate": {"task_order": {"name": "success_rate", "min_episodes": 4}},
    "by iterations": {"horizon": {"name": "by_iterations", "start": 2, "step": 3, "every": 2}},
    "by success": {"horizon": {"name": "by_success", "start": 3, "step": 4, "groups": 5, "success": 0.3}},
    "outcome": {"dynamic_sampling": "outcome"},
    "advantage": {"dynamic_sampling": {"name": "advantage", "at_most": 2}},
    "all": {"task_order": "success_rate", "horizon": "by_success", "dynamic_sampling": "outcome"},
}


def results_of(task: str) -> list[bool]:
    """A third of the tasks is always solved, a third never."""
    number = int(task.split("-")[1])
    return [[True] * 4, [False] * 4, [True, False, False, True]][number % 3]


def play(sampler: TaskSampler, count: int, make_group: Callable[..., Group]) -> list[Assignment]:
    dealt = []
    for _ in range(count):
        dealt.append(sampler.next(4))
        sampler.ended(sampler.judge(dealt[-1], make_group(dealt[-1], results_of(dealt[-1].task))))
    return dealt


@pytest.mark.parametrize("words", CURRICULA.values(), ids=CURRICULA)
def test_a_resumed_curriculum_goes_on_as_if_it_had_not_stopped(config, make_group, words):
    """Wherever it stopped; and its state is JSON."""
    config.curriculum(**words).validate()
    whole = play(TaskSampler.of(config, TASKS), 120, make_group)
    assert play(TaskSampler.of(config, TASKS), 120, make_group) == whole, "a seed is not a run"
    for stop in (1, 17, 64, 119):
        first = TaskSampler.of(config, TASKS)
        begun = play(first, stop, make_group)
        resumed = TaskSampler.of(config, TASKS)
        resumed.set_state(json.loads(json.dumps(first.get_state())))
        assert resumed.metrics() == first.metrics()
        assert begun + play(resumed, 120 - stop, make_group) == whole


@pytest.mark.parametrize("words", CURRICULA.values(), ids=CURRICULA)
def test_seeds_and_names_of_groups_are_those_without_a_curriculum(config, make_group, words):
    plain = play(TaskSampler.of(config, TASKS), 60, make_group)
    dealt = play(TaskSampler.of(config.curriculum(**words), TASKS), 60, make_group)
    assert [(a.group_id, a.seed, a.size) for a in dealt] == [(a.group_id, a.seed, a.size) for a in plain]
    if "task_order" not in words:
        assert [a.task for a in dealt] == [a.task for a in plain]


@pytest.mark.parametrize("words", CURRICULA.values(), ids=CURRICULA)
def test_an_iteration_that_was_cut_is_dealt_again(config, make_group, words):
    """The same sampler goes back to where it was, as after SIGTERM."""
    sampler = TaskSampler.of(config.curriculum(**words), TASKS)
    play(sampler, 33, make_group)
    state, metrics = sampler.get_state(), sampler.metrics()
    cut = play(sampler, 20, make_group)
    sampler.set_state(state)
    assert sampler.metrics() == metrics
    assert play(sampler, 20, make_group) == cut


def test_words_of_the_command_line_and_of_a_checkpoints_settings(config, tmp_path):
    apply_settings(
        config,
        {
            "task_order": "success_rate",
            "task_order.low": "0.2",
            "horizon.name": "by_iterations",
            "horizon.start": "3",
            "dynamic_sampling": '{"name": "outcome", "at_most": 2}',
        },
    )
    config.validate()
    write_settings(config, tmp_path / "settings.json")
    read = read_settings(tmp_path / "settings.json").config
    for known in (config, read):
        assert known.task_order == {"name": "success_rate", "low": 0.2}
        assert known.horizon == {"name": "by_iterations", "start": 3}
        assert known.dynamic_sampling == {"name": "outcome", "at_most": 2}


def test_a_run_that_is_resumed_with_another_curriculum_keeps_its_place(config, make_group):
    before = TaskSampler.of(config.curriculum(**CURRICULA["all"]), TASKS)
    play(before, 40, make_group)
    plain = TaskSampler.of(config.curriculum(task_order="epochs", horizon="full", dynamic_sampling="none"), TASKS)
    plain.set_state(before.get_state())
    assert plain.get_state() == {"position": 40}
    after = TaskSampler.of(config.curriculum(task_order="success_rate"), TASKS)
    after.set_state(plain.get_state())
    assert after.next(4).group_id == "0-40"
    assert after.metrics()["num_tasks_known"] == 0


class TestSuccessRate:
    def test_what_is_always_or_never_solved_is_played_less(self, config, make_group):
        config.curriculum(task_order={"name": "success_rate", "outside": 0.1, "min_episodes": 4})
        sampler = TaskSampler.of(config, TASKS)
        first = play(sampler, len(TASKS), make_group)
        assert sorted(a.task for a in first) == sorted(TASKS), "unknown tasks are played as always"
        later = Counter(int(a.task.split("-")[1]) % 3 for a in play(sampler, 300, make_group))
        # A third within the gate; each of the others is played with a tenth of its frequency.
        assert later[2] / 300 == pytest.approx(1 / 1.2, abs=0.06)
        assert later[0] > 0
        assert later[1] > 0
        metrics = sampler.metrics()
        assert [metrics[f"num_tasks_{name}"] for name in ("known", "too_hard", "too_easy")] == [30, 10, 10]
        assert metrics["num_tasks_passed_over"] > 300

    def test_no_task_comes_twice_in_a_pass(self, config, make_group):
        config.curriculum(task_order={"name": "success_rate", "min_episodes": 4})
        sampler = TaskSampler.of(config, TASKS)
        passes: dict[int, list[str]] = {}
        for position in range(200):
            (assignment,) = play(sampler, 1, make_group)
            place = position + int(sampler.metrics()["num_tasks_passed_over"])
            passes.setdefault(place // len(TASKS), []).append(assignment.task)
        assert len(passes) > 10
        assert all(len(set(tasks)) == len(tasks) for tasks in passes.values())

    def test_a_task_that_has_become_solvable_comes_back(self, config, make_group):
        """Its old failures count less with every group."""
        config.curriculum(task_order={"name": "success_rate", "outside": 0.5, "decay": 0.5, "min_episodes": 4})
        sampler = TaskSampler.of(config, TASKS)
        play(sampler, 60, make_group)
        hard = sampler.metrics()["num_tasks_too_hard"]
        for _ in range(200):
            assignment = sampler.next(4)
            sampler.ended(sampler.judge(assignment, make_group(assignment, [True, False, True, False])))
        assert hard == 10
        assert sampler.metrics()["num_tasks_too_hard"] == 0
        assert sampler.metrics()["num_tasks_too_easy"] == 0

    def test_little_is_not_known(self, config, make_group):
        config.curriculum(task_order={"name": "success_rate", "min_episodes": 5})
        sampler = TaskSampler.of(config, TASKS)
        play(sampler, 30, make_group)
        assert sampler.metrics()["num_tasks_known"] == 0

    def test_where_nothing_is_within_the_gate_it_still_deals(self, config, make_group):
        config.curriculum(task_order={"name": "success_rate", "outside": 1e-9, "min_episodes": 1})
        sampler = TaskSampler.of(config, TASKS[:3][:2])
        assert len(play(sampler, 50, make_group)) == 50

    def test_the_counts_of_a_split_without_end_are_bounded(self, config, make_group, monkeypatch):
        monkeypatch.setattr(task_orders, "_MOST_KNOWN", 10)
        config.curriculum(task_order="success_rate")
        sampler = TaskSampler.of(config, [f"task-{index}" for index in range(500)])
        dealt = play(sampler, 100, make_group)
        assert list(sampler.get_state()["task_order"]["SuccessRate"]["known"]) == [a.task for a in dealt[-10:]]


class TestHorizon:
    def test_it_grows_with_the_groups_that_end(self, config, make_group):
        config.curriculum(horizon={"name": "by_iterations", "start": 2, "step": 10, "every": 2})
        sampler = TaskSampler.of(config, TASKS)
        turns = [a.max_turns for a in play(sampler, 40, make_group)]
        assert turns == [2] * 8 + [12] * 8 + [22] * 8 + [30] * 16, "an iteration is 4 groups; 30 are the whole"
        assert sampler.metrics() == {"horizon": 30.0}

    def test_it_grows_with_success(self, config, make_group):
        config.curriculum(horizon={"name": "by_success", "start": 5, "step": 20, "groups": 3, "success": 0.5})
        sampler = TaskSampler.of(config, TASKS)
        early = sampler.next(4)  # ends last: what is played for 5 turns says nothing of 25

        def end(successes: list[bool], assignment: Assignment | None = None) -> int | None:
            assignment = assignment or sampler.next(4)
            sampler.ended(sampler.judge(assignment, make_group(assignment, successes)))
            return assignment.max_turns

        half, none = [True, True, False, False], [False] * 4
        assert [end(half), end(half), end(none), end(half), end(half), end(half)] == [5] * 6
        end(half, early)
        assert [end(none), end(half), end(half), end(half)] == [25] * 4
        assert sampler.next(4).max_turns == 30

    def test_a_shorter_max_turns_bounds_what_a_checkpoint_had(self, config, make_group):
        config.curriculum(horizon={"name": "by_success", "start": 25, "groups": 1, "success": 0.1})
        sampler = TaskSampler.of(config, TASKS)
        play(sampler, 20, make_group)
        shorter = TaskSampler.of(
            config.env_runners(max_turns=7).curriculum(horizon={"name": "by_success", "start": 2}), TASKS
        )
        shorter.set_state(sampler.get_state())
        assert shorter.next(4).max_turns == 7


ASSIGNMENT = Assignment("g", "task-0", 0, 4)
GROUPS: dict[str, dict[str, Any]] = {
    "mixed": {"successes": [True, False, True, False]},
    "all fail": {"successes": [False] * 4},
    "all fail, one is penalised": {"successes": [False] * 4, "penalty": 0.1},
    "all succeed, some sooner": {"successes": [True] * 4, "lengths": [1, 2, 3, 4]},
    "all succeed in one turn": {"successes": [True] * 4, "lengths": [1] * 4},
}


class TestDynamicSampling:
    @pytest.mark.parametrize("group", GROUPS)
    @pytest.mark.parametrize("estimator", sorted(ESTIMATORS))
    def test_by_advantage_is_whether_the_estimator_has_something_to_say(self, config, make_group, estimator, group):
        config.training(advantage_estimator=estimator).curriculum(dynamic_sampling="advantage")
        outcome = TaskSampler.of(config, TASKS).judge(ASSIGNMENT, make_group(ASSIGNMENT, **GROUPS[group]))
        has_steps = estimator.startswith(("proxmo", "gigpo", "hgpo"))
        expected = {
            "mixed": True,
            "all fail": False,
            "all fail, one is penalised": has_steps,
            "all succeed, some sooner": has_steps or estimator == "graphgpo",
            "all succeed in one turn": False,
        }
        assert outcome.contrast is expected[group]

    @pytest.mark.parametrize("group", GROUPS)
    def test_by_outcome_is_whether_some_succeed_and_some_do_not(self, config, make_group, group):
        config.curriculum(dynamic_sampling="outcome")
        outcome = TaskSampler.of(config, TASKS).judge(ASSIGNMENT, make_group(ASSIGNMENT, **GROUPS[group]))
        assert outcome.contrast is (group == "mixed")

    @pytest.mark.parametrize(
        ("successes", "words"),
        [
            ([True] * 4, "the last 40 groups had nothing to learn from, with 160 of 160 .* tasks are learned: stop"),
            ([False] * 4, "with 0 of 160 episodes solved. Nothing succeeds: begin with a policy that"),
        ],
    )
    def test_a_run_without_anything_to_learn_ends_in_words(self, config, make_group, successes, words):
        config.curriculum(dynamic_sampling={"name": "outcome", "at_most": 2})
        sampler = TaskSampler.of(config, TASKS)

        def end(successes: list[bool]) -> None:
            assignment = sampler.next(4)
            sampler.ended(sampler.judge(assignment, make_group(assignment, successes)))

        for _ in range(39):
            end(successes)
        end([True, False, False, False])  # begins to count anew
        for _ in range(40):
            end(successes)
        resumed = TaskSampler.of(config, TASKS)
        resumed.set_state(sampler.get_state())
        for stuck in (sampler, resumed):
            with pytest.raises(RuntimeError, match=f"dynamic_sampling: .*{words}.*dynamic_sampling='none'"):
                stuck.next(4)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"task_order": "success_rat"}, r"task_order='success_rat': .*did you mean 'success_rate'\?"),
        ({"task_order": {"name": "success_rate", "hi": 1}}, "task_order=.* hi=1: .*no such option"),
        ({"task_order": {"name": "success_rate", "low": 0.9, "high": 0.1}}, "task_order=.*low=0.9: .*high=0.1"),
        ({"task_order": {"name": "success_rate", "outside": 0}}, "outside=0: give a probability above 0"),
        ({"task_order": {"name": "success_rate", "decay": 1.5}}, "decay=1.5: give a factor"),
        ({"task_order": {"name": "success_rate", "min_episodes": 0}}, "min_episodes=0: give"),
        ({"task_order": {"low": 0.1}}, "task_order=.*it is a name in"),
        ({"horizon": {"name": "by_iterations", "start": 31}}, "horizon=.*start=31: max_turns=30 .* start below"),
        ({"horizon": {"name": "by_success", "success": 0}}, "success=0: give a success rate above 0"),
        ({"horizon": {"name": "by_success", "groups": 1.5}}, "groups=1.5: give"),
        ({"horizon": 5}, "horizon=5: it is a name in"),
        ({"dynamic_sampling": {"name": "outcome", "at_most": 0.5}}, "at_most=0.5: give a multiple of num_groups"),
        ({"dynamic_sampling": {"name": "none", "at_most": 2}}, "at_most=2: dynamic sampling 'none' has no such option"),
        ({"dynamic_sampling": "dapo"}, "dynamic_sampling='dapo': .*not known.*outcome"),
        ({"dynamic_sampling": lambda context: None}, "dynamic_sampling=.*derive it from .*DynamicSampling"),
        ({"task_order": dict}, "task_order=.*"),
    ],
)
def test_a_wrong_word_or_option_is_refused_before_anything_starts(config, words, complaint):
    with pytest.raises(ValueError, match=complaint):
        config.curriculum(**words).validate()


def test_behaviour_cloning_has_no_curriculum():
    from proxmo_rllib.imitation import BehaviourCloningConfig
    from proxmo_rllib.rollouts.agents import ScriptedAgent

    config: Any = BehaviourCloningConfig().environment("env_wrappers/ALFWorld-v0").policy(pretrained="some/model")
    config.imitation(scripts=[(0, ScriptedAgent)]).validate()
    with pytest.raises(ValueError, match=r"horizon='by_iterations': .*'full'"):
        config.curriculum(horizon="by_iterations").validate()


class TestOnesOwn:
    @pytest.fixture
    def shortest(self):
        @register_task_order("shortest_first")
        class ShortestFirst(TaskOrder):
            def __init__(self, context: Any, *, longest: int = 80) -> None:
                self._tasks = sorted((task for task in context.tasks if len(task) <= longest), key=len)

            def task(self, position: int) -> str:
                return self._tasks[position % len(self._tasks)]

        yield ShortestFirst
        del TASK_ORDERS["shortest_first"]

    def test_it_is_chosen_by_its_name_and_reaches_other_processes(self, config, shortest, tmp_path):
        config.curriculum(task_order={"name": "shortest_first", "longest": 3})
        config.validate()
        assert config.task_order == {"name": shortest, "longest": 3}, "another process knows no name of a script's"
        write_settings(config, tmp_path / "settings.json")
        assert read_settings(tmp_path / "settings.json").withheld == {}, "who plays a checkpoint misses nothing"
        sampler = TaskSampler.of(config, ["dddd", "ccc", "bb", "a"])
        assert [a.task for a in sampler.deal(4, 2)] == ["a", "bb", "ccc", "a"]

    def test_what_it_may_not_return_is_refused(self, config, shortest):
        shortest.get_state = lambda self: {"when": {1, 2}}
        with pytest.raises(ValueError, match=r"task_order: its state .* is no JSON"):
            config.curriculum(task_order="shortest_first").validate()
        shortest.get_state = lambda self: {"when": {1: 2}}
        with pytest.raises(ValueError, match=r"task_order: its state .* comes back otherwise"):
            config.curriculum(task_order="shortest_first").validate()
        shortest.task = lambda self, position: "mine"
        with pytest.raises(ValueError, match="task_order='shortest_first': 'mine' is none of the tasks"):
            config.curriculum(task_order="shortest_first").validate()


def test_an_environment_that_lists_no_tasks_is_refused_by_name():
    import gymnasium

    from env_wrappers.core import AnyText
    from proxmo_rllib.rollouts.environments import make_text_env, split_tasks

    class Endless(gymnasium.Env[str, str]):
        observation_space = action_space = AnyText()

    config: Any = ProxMOConfig().environment(Endless)
    env = make_text_env(config)
    assert split_tasks(env, config) == [""]
    with pytest.raises(ValueError, match=r"task_order='success_rate': .*Endless lists no tasks .*tasks\(split"):
        split_tasks(env, config.curriculum(task_order="success_rate"))
