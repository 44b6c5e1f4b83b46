"""Makes one game file; run as a script, in a process of its own.

    PYTHONHASHSEED=0 python make_game.py '{"kind": "cooking", "seed": 7, "settings": {...}, "path": "game.z8"}'

In a process of its own, since TextWorld lists some things in the order of sets: with another hash seed, the same seed
would make a game that describes its rooms in another order.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

MAX_ATTEMPTS = 50  # seeds that are tried, one after another


def make(kind: str, seed: int, settings: dict[str, Any], path: str) -> None:
    """Generate and compile a game.

    Args:
        kind: "coin_collector", "cooking", "quest" or "treasure_hunter".
        seed: of all that is random.
        settings: what the generator of the kind takes.
        path: of the game file, which ends in .z8; a .json with the same name is written beside it.
    """
    from textworld import GameOptions
    from textworld.challenges.tw_coin_collector import coin_collector
    from textworld.challenges.tw_cooking import cooking
    from textworld.challenges.tw_treasure_hunter import treasure_hunter
    from textworld.generator import compile_game, make_game
    from textworld.generator.chaining import QuestGenerationError

    makers = {"coin_collector": coin_collector, "cooking": cooking, "treasure_hunter": treasure_hunter}
    for attempt in range(MAX_ATTEMPTS):
        options = GameOptions()
        options.seeds = seed + attempt
        options.path = path
        try:
            if kind == "quest":
                options.nb_rooms, options.nb_objects = settings["rooms"], settings["objects"]
                options.quest_length = settings["steps"]
                game = make_game(options)
            else:
                game = makers[kind].make(settings, options)
        except QuestGenerationError:
            # The map that was drawn has no room for a quest of that length; the next seed is as good.
            if attempt + 1 == MAX_ATTEMPTS:
                raise
        else:
            break
    compile_game(game, options)
    Path(path).with_suffix(".ni").unlink()  # the source, of no more use


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        sys.exit("make_game.py: set PYTHONHASHSEED=0, or the game is not the same everywhere")
    make(**json.loads(sys.argv[1]))
