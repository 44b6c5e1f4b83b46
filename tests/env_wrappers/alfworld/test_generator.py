"""Generated games: solvable, reproducible, as hard as asked, like the real ones, and in one split only."""

from __future__ import annotations

import json
import lzma
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from env_wrappers.alfworld import package, rooms
from env_wrappers.alfworld.engine import State
from env_wrappers.alfworld.generator import GeneratorConfig, generate
from env_wrappers.alfworld.oracle import solution
from env_wrappers.alfworld.problem import TASK_TYPES, Game, parse_game
from env_wrappers.core import SPLITS

SMALL = GeneratorConfig(rooms=("bathroom",), max_receptacles=3, max_objects=2)
CONFIGS = [
    GeneratorConfig(),
    GeneratorConfig(seed=1, rooms=("bathroom", "bedroom"), max_receptacles=5, max_objects=4),
    SMALL,
    GeneratorConfig(rooms=("kitchen",), task_types=TASK_TYPES[2:5], max_receptacles=4),
    GeneratorConfig(task_types=("look_at_obj_in_light",), max_objects=2, max_receptacles=3),
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("split", SPLITS)
def test_every_game_is_won_by_its_solution_and_not_before(config: GeneratorConfig, split: str) -> None:
    for index in range(12):
        generated = generate(config, split, index)
        state = State(generated.game)
        assert not state.won
        for command in generated.solution:
            assert command in state.actions
            assert not state.won
            state.step(command)
        assert state.won


@pytest.mark.slow
def test_thousands_of_games_are_solvable() -> None:
    for index in range(2000):
        assert generate(GeneratorConfig(seed=5), "train", index).solution


def test_difficulty_controls_bound_what_is_in_a_room() -> None:
    config = GeneratorConfig(max_receptacles=4, max_objects=3)
    for index in range(60):
        game = generate(config, "train", index).game
        assert len(game.locations) <= 4
        assert len(game.pickupable) <= 3
        assert len(game.introduction.split()) < 60
    full = [generate(GeneratorConfig(), "train", index).game for index in range(12)]
    assert statistics.mean(len(game.pickupable) for game in full) > 15


def test_task_types_take_turns_and_rooms_are_of_the_kinds_asked_for() -> None:
    config = GeneratorConfig(rooms=("kitchen", "bathroom"))
    games = [generate(config, "train", index) for index in range(40)]
    assert {rooms.room_kind(game.room) for game in games} == {"kitchen", "bathroom"}
    counts = Counter(game.game.goal.task_type for game in games)
    assert set(counts) == set(TASK_TYPES) - {"look_at_obj_in_light"}
    assert set(counts.values()) == {8}


def test_all_six_task_types_come_in_every_split() -> None:
    for split in SPLITS:
        kinds = {generate(GeneratorConfig(max_receptacles=6), split, i).game.goal.task_type for i in range(6)}
        assert kinds == set(TASK_TYPES)


def test_unseen_games_are_in_rooms_that_training_never_sees() -> None:
    unseen = {generate(GeneratorConfig(max_objects=2), "valid_unseen", i).room for i in range(30)}
    assert unseen == {10, 219, 308, 424}
    others = {generate(GeneratorConfig(max_objects=2), s, i).room for s in ("train", "valid_seen") for i in range(60)}
    assert not others & (rooms.UNSEEN_PLANS | rooms.UNUSED_PLANS)
    assert len(rooms.split_rooms("train")) == 108


def reading(game: Game) -> tuple[Any, ...]:
    """All that an agent could ever read in a game."""
    contents = {(game.names[o], game.names[r]) for o, r in game.in_receptacle}
    return (game.goal, frozenset(game.names[r] for r in game.locations), frozenset(contents))


def test_no_split_has_a_game_of_another_even_in_the_smallest_worlds() -> None:
    """Pain 1: goals that leak from training into validation."""
    readings = {split: {reading(generate(SMALL, split, i).game) for i in range(250)} for split in SPLITS}
    assert len(readings["train"]) < 250, "worlds too large for the test to mean anything"
    assert not readings["train"] & readings["valid_seen"]
    assert not readings["train"] & readings["valid_unseen"]
    assert not readings["valid_seen"] & readings["valid_unseen"]


def test_a_game_is_the_same_in_another_process() -> None:
    script = (
        "from env_wrappers.alfworld.generator import *\nimport hashlib\n"
        "games = [generate(GeneratorConfig(seed=3), 'train', i).problem for i in (0, 7, 123)]\n"
        "print(hashlib.sha256(''.join(games).encode()).hexdigest())"
    )
    run = [
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, env={"PYTHONHASHSEED": seed})
        for seed in ("1", "2")
    ]
    assert run[0].stdout == run[1].stdout


def test_another_seed_makes_other_games() -> None:
    first, second = (generate(GeneratorConfig(seed=seed), "train", 0).problem for seed in (0, 1))
    assert first != second


@pytest.fixture(scope="module")
def real_games(shared: Path) -> list[tuple[int, Game]]:
    """Floor plan and game of all real games of train and valid_seen."""
    with lzma.open(shared / "data/alfworld/games.jsonl.xz", "rt") as lines:
        records = [json.loads(line) for line in lines]
    return [(int(record["scene"]), parse_game(record["pddl_problem"], "")) for record in records]


def test_floor_plans_have_the_receptacles_of_the_real_games(real_games: list[tuple[int, Game]]) -> None:
    seen = {number: Counter(game.receptacle_type[r] for r in game.locations) for number, game in real_games}
    assert len(seen) == 108
    for number, real in seen.items():
        kinds = map(rooms.receptacle_kind, rooms.load_room(number).receptacles)
        assert Counter(f"{kind.lower()}type" for kind in kinds) == real, number


def test_unseen_floor_plans_have_the_receptacles_of_the_published_observations() -> None:
    numbers = {n: len(rooms.load_room(n).receptacles) for n in rooms.UNSEEN_PLANS}
    assert numbers == {10: 25, 219: 27, 308: 18, 424: 13}


@pytest.mark.parametrize("kind", rooms.ROOM_KINDS)
def test_size_and_difficulty_are_those_of_the_real_games(kind: str, real_games: list[tuple[int, Game]]) -> None:
    """Means of receptacles, portable objects, those of them that one can reach, and expert steps.

    Generated games have each task type equally often, so real ones are weighed to count the same.
    """

    def means(games: list[Game]) -> list[float]:
        frequency = Counter(game.goal.task_type for game in games)
        weights = [1 / frequency[game.goal.task_type] for game in games]
        reachable = [game.pickupable & {thing for thing, _ in game.in_receptacle} for game in games]
        columns = [
            [len(game.locations) for game in games],
            [len(game.pickupable) for game in games],
            [len(things) for things in reachable],
            [len(solution(game) or ()) for game in games],
        ]
        return [statistics.fmean(column, weights) for column in columns]

    generated = means([generate(GeneratorConfig(rooms=(kind,)), "train", index).game for index in range(300)])
    real = means([game for number, game in real_games if rooms.room_kind(number) == kind])
    assert generated == pytest.approx(real, rel=0.05)


def test_objects_start_neither_where_they_belong_nor_in_the_appliance_that_they_are_to_visit() -> None:
    for index in range(300):
        generated = generate(GeneratorConfig(max_objects=4), "train", index)
        game = generated.game
        banned = {game.goal.receptacle_type}
        if appliance := rooms.APPLIANCES.get(game.goal.task_type):
            banned.add(f"{appliance[1].lower()}type")
        assert not {game.receptacle_type[r] for thing, r in game.in_receptacle if thing in game.targets} & banned


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rooms": ("garage",)}, "'garage'.*kitchen"),
        ({"rooms": ()}, r"rooms=\(\)"),
        ({"rooms": "kitchen"}, "tuple of names"),
        ({"rooms": ("kitchen", "kitchen")}, "twice"),
        ({"task_types": ("pick_and_slice",)}, "'pick_and_slice'.*pick_and_place_simple"),
        ({"rooms": ("bathroom",), "task_types": ("pick_heat_then_place_in_recep",)}, "pick_heat.*do not support"),
        ({"max_receptacles": 2}, "max_receptacles=2.*3 at least"),
        ({"max_objects": 1}, "max_objects=1.*2 at least"),
    ],
)
def test_arguments_that_make_no_game_are_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeneratorConfig(**arguments)


def test_a_missing_alfworld_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        package.package_folder.__wrapped__()
