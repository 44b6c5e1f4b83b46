"""A player that knows the whole state: proves that a game can be won, and is the ceiling of any agent."""

from __future__ import annotations

from env_wrappers.alfworld.engine import State
from env_wrappers.alfworld.problem import Game

_APPLIANCES = {
    "pick_clean_then_place_in_recep": ("clean", "sinkbasintype"),
    "pick_heat_then_place_in_recep": ("heat", "microwavetype"),
    "pick_cool_then_place_in_recep": ("cool", "fridgetype"),
}


def solution(game: Game, max_steps: int = 100) -> list[str] | None:
    """Commands that win a game from its start, or None if this player finds none in `max_steps`."""
    state = State(game)
    commands: list[str] = []
    while not state.won:
        command = next_command(state)
        if command is None or command not in state.actions or len(commands) == max_steps:
            return None
        commands.append(command)
        state.step(command)
    return commands


def next_command(state: State) -> str | None:
    """The next command towards the goal from any state, or None if there is none."""
    if state.game.goal.task_type == "look_at_obj_in_light":
        return _look_in_light(state)
    if state.holding is None:
        return _fetch(state)
    if state.game.object_type.get(state.holding) != state.game.goal.object_type:
        return _put_away(state)
    if not state.prepared(state.holding):
        return _prepare(state)
    receptacle = _destination(state)
    return receptacle and _move(state, state.holding, receptacle)


def _look_in_light(state: State) -> str | None:
    game = state.game
    if state.holding is None:
        return _fetch(state)
    if game.object_type.get(state.holding) != game.goal.object_type:
        return _put_away(state)
    for lamp, receptacle in sorted(state.in_receptacle):
        if (
            lamp in game.toggleable
            and game.object_type.get(lamp) == game.goal.lamp_type
            and receptacle in game.locations
        ):
            return _approach(state, receptacle) or f"use {game.names[lamp]}"
    return None


def _fetch(state: State) -> str | None:
    """Take an object of the goal's type that is not yet where it belongs, one that is prepared first."""
    game = state.game
    done = _finished_receptacles(state)
    found = [
        (not state.prepared(thing), thing, receptacle)
        for thing, receptacle in state.in_receptacle
        if game.object_type.get(thing) == game.goal.object_type
        and thing in game.pickupable
        and receptacle in game.locations
        # An object in the right receptacle stays, unless it has yet to be cleaned, heated or cooled.
        and not (receptacle in done and state.prepared(thing))
    ]
    if not found:
        return None
    _, thing, receptacle = min(found)
    return _reach(state, receptacle) or f"take {game.names[thing]} from {game.names[receptacle]}"


def _finished_receptacles(state: State) -> set[str]:
    game = state.game
    if game.goal.task_type == "pick_two_obj_and_place":
        destination = _destination(state)
        return {destination} if destination else set()
    return {r for r in game.locations if game.receptacle_type.get(r) == game.goal.receptacle_type}


def _destination(state: State) -> str | None:
    """The receptacle to fill: of the goal's type, with the most objects of the goal's type already in it."""
    game = state.game
    candidates = sorted(r for r in game.locations if game.receptacle_type.get(r) == game.goal.receptacle_type)
    if not candidates:
        return None

    def held(receptacle: str) -> int:
        return sum(
            container == receptacle and game.object_type.get(thing) == game.goal.object_type
            for thing, container in state.in_receptacle
        )

    return max(candidates, key=held)


def _prepare(state: State) -> str | None:
    game = state.game
    verb, appliance = _APPLIANCES[game.goal.task_type]
    for receptacle in sorted(game.locations):
        if game.receptacle_type.get(receptacle) == appliance and state.holding:
            name, place = game.names[state.holding], game.names[receptacle]
            return _approach(state, receptacle) or f"{verb} {name} with {place}"
    return None


def _put_away(state: State) -> str | None:
    """Free the hand of something that is not needed."""
    game = state.game
    thing = state.holding or ""
    for receptacle in sorted(game.locations):
        if (game.receptacle_type.get(receptacle), game.object_type.get(thing)) in game.can_contain:
            return _move(state, thing, receptacle)
    return None


def _move(state: State, thing: str, receptacle: str) -> str:
    names = state.game.names
    return _reach(state, receptacle) or f"move {names[thing]} to {names[receptacle]}"


def _approach(state: State, receptacle: str) -> str | None:
    """The command that brings the agent to a receptacle; None where it stands there."""
    if state.location in state.game.locations[receptacle]:
        return None
    return f"go to {state.game.names[receptacle]}"


def _reach(state: State, receptacle: str) -> str | None:
    """The command that makes a receptacle's inside accessible; None where it is."""
    approach = _approach(state, receptacle)
    if approach or state.accessible(receptacle):
        return approach
    return f"open {state.game.names[receptacle]}"
