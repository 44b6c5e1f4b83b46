"""ALFWorld's text game, state by state as the official engine (alfworld 0.4.2 domain and grammar) plays it.

A `Game` is shared and read-only; a `State` is a few small sets, so that resets and copies take microseconds and a step
needs no planner, no grammar and no subprocess.
"""

from __future__ import annotations

from env_wrappers.alfworld.problem import Action, Game, enumerate_names

NOTHING_HAPPENS = "Nothing happens."

HELP = """\
Available commands:
  look:                             look around your current location
  inventory:                        check your current inventory
  go to (receptacle):               move to a receptacle
  open (receptacle):                open a receptacle
  close (receptacle):               close a receptacle
  take (object) from (receptacle):  take an object from a receptacle
  move (object) to (receptacle):  place an object in or on a receptacle
  examine (something):              examine a receptacle or an object
  use (object):                     use an object
  heat (object) with (receptacle):  heat an object using a receptacle
  clean (object) with (receptacle): clean an object using a receptacle
  cool (object) with (receptacle):  cool an object using a receptacle
  slice (object) with (object):     slice an object using a sharp object
"""


_ALWAYS = {verb: Action(verb) for verb in ("help", "inventory", "look")}
_READING = frozenset({"help", "inventory", "look", "examine receptacle", "examine object"})
_KNIVES = ("knifetype", "butterknifetype")


class State:
    """The mutable part of one episode.

    Attributes:
        game: the game that is played.
        location: where the agent stands.
        holding: the object in its hand, or None.
        in_receptacle: {(object, receptacle)}.
        object_at: {(object, location)}.
        taken_from: {(object, receptacle)} of objects that were there once and are not now.
        opened, clean, hot, cool, sliced, toggled: sets of ids.
        actions: {command: Action} that is admissible now.
        won: whether the goal holds now.
    """

    __slots__ = (
        "actions",
        "clean",
        "cool",
        "game",
        "holding",
        "hot",
        "in_receptacle",
        "location",
        "object_at",
        "opened",
        "sliced",
        "taken_from",
        "toggled",
        "won",
    )

    def __init__(self, game: Game) -> None:
        self.game = game
        self.location = game.start
        self.holding: str | None = None
        self.in_receptacle = set(game.in_receptacle)
        self.object_at = set(game.object_at)
        self.taken_from: set[tuple[str, str]] = set()
        self.opened = set(game.opened)
        self.clean = set(game.clean)
        self.hot = set(game.hot)
        self.cool = set(game.cool)
        self.sliced = set(game.sliced)
        self.toggled = set(game.toggled)
        self.refresh()

    def refresh(self) -> None:
        """Recompute what follows from the facts: `actions` and `won`."""
        self.actions = self._actions()
        self.won = self._won()

    def clone(self) -> State:
        """An independent copy, sharing the game."""
        other = object.__new__(State)
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(other, name, set(value) if isinstance(value, set) else value)
        return other

    def accessible(self, receptacle: str) -> bool:
        """Whether things can be put in and taken out: it is open, or nothing that one opens."""
        return receptacle not in self.game.openable or receptacle in self.opened

    def contents(self, receptacle: str) -> list[str]:
        """Ids of the objects in a receptacle, sorted, whether one can see them or not."""
        return sorted(o for o, r in self.in_receptacle if r == receptacle)

    def here(self) -> tuple[str, ...]:
        """Receptacles in reach."""
        return self.game.receptacles_at.get(self.location, ())

    def step(self, command: str) -> str:
        """Do a command, if it is admissible.

        Returns:
            The observation. "Nothing happens." for a command that is not admissible, which changes nothing.
        """
        action = self.actions.get(command.strip())
        if action is None:
            return NOTHING_HAPPENS
        observation = self._apply(action)
        if action.verb not in _READING:
            self.refresh()
        return observation

    # What can be done

    def _actions(self) -> dict[str, Action]:
        game, names, location = self.game, self.game.names, self.location
        actions = {command: action for command, action in game.go_to if action.other != location} | _ALWAYS
        held = self.holding
        reachable = game.receptacles_at.get(location, ())
        for receptacle in reachable:
            name = names[receptacle]
            actions["examine " + name] = Action("examine receptacle", receptacle)
            if receptacle in game.openable:
                verb = "close" if receptacle in self.opened else "open"
                actions[f"{verb} {name}"] = Action(verb, receptacle)
            if held:
                self._add_uses_of(held, receptacle, actions)
            takeable = held is None and self.accessible(receptacle)
            for thing in [thing for thing, container in self.in_receptacle if container == receptacle]:
                if takeable and thing in game.pickupable:
                    actions[f"take {names[thing]} from {name}"] = Action("take", thing, receptacle)
                if thing in game.toggleable:
                    actions["use " + names[thing]] = Action("use", thing)
        if held:
            actions["examine " + names[held]] = Action("examine object", held)
            if game.object_type.get(held) in _KNIVES:
                for thing, place in self.object_at:
                    if place == location and thing in game.sliceable:
                        actions[f"slice {names[thing]} with {names[held]}"] = Action("slice", thing, held)
        return actions

    def _add_uses_of(self, held: str, receptacle: str, actions: dict[str, Action]) -> None:
        """Actions with the held object at a receptacle. Heating, cooling and cleaning need no open door."""
        game = self.game
        thing, place, kind = game.names[held], game.names[receptacle], game.receptacle_type.get(receptacle, "")
        if (kind, game.object_type.get(held)) in game.can_contain and self.accessible(receptacle):
            actions[f"move {thing} to {place}"] = Action("move", held, receptacle)
        if kind == "sinkbasintype" and held in game.cleanable:
            actions[f"clean {thing} with {place}"] = Action("clean", held, receptacle)
        if kind == "microwavetype" and held in game.heatable:
            actions[f"heat {thing} with {place}"] = Action("heat", held, receptacle)
        if kind == "fridgetype" and held in game.coolable:
            actions[f"cool {thing} with {place}"] = Action("cool", held, receptacle)

    def _won(self) -> bool:
        game, goal = self.game, self.game.goal
        if goal.task_type == "look_at_obj_in_light":
            if self.holding not in game.targets:
                return False
            return any(
                lamp in self.toggled
                and lamp in game.toggleable
                and game.object_type.get(lamp) == goal.lamp_type
                and self.location in game.locations.get(receptacle, ())
                for lamp, receptacle in self.in_receptacle
            )
        targets, destinations = game.targets, game.destinations
        right = [
            receptacle
            for thing, receptacle in self.in_receptacle
            if thing in targets and receptacle in destinations and self.prepared(thing)
        ]
        if goal.task_type == "pick_two_obj_and_place":
            return len(set(right)) < len(right)  # two in one receptacle
        return bool(right)

    def prepared(self, thing: str) -> bool:
        """Whether an object is clean, hot or cool as the goal asks; True where it asks nothing."""
        match self.game.goal.task_type:
            case "pick_clean_then_place_in_recep":
                return thing in self.clean and thing in self.game.cleanable
            case "pick_heat_then_place_in_recep":
                return thing in self.hot and thing in self.game.heatable
            case "pick_cool_then_place_in_recep":
                return thing in self.cool and thing in self.game.coolable
        return True

    # What it does, and what one reads of it

    def _apply(self, action: Action) -> str:
        verb, target, other = action
        names = self.game.names
        match verb:
            case "go":
                self.location = other
                return f"You arrive at {names[target]}. {self._describe_receptacle(target)}"
            case "open":
                self.opened.add(target)
                return f"You open the {names[target]}. {self._describe_receptacle(target)}"
            case "close":
                self.opened.discard(target)
                return f"You close the {names[target]}."
            case "examine receptacle":
                return self._describe_receptacle(target)
            case "examine object":
                return self._describe_object(target)
            case "look":
                return self._look()
            case "inventory":
                return (
                    f"You are carrying: a {names[self.holding]}." if self.holding else "You are not carrying anything."
                )
            case "help":
                return HELP
            case "use":
                self.toggled.add(target)
                return f"You turn on the {names[target]}."
            case "slice":
                self.sliced.add(target)
                return f"You sliced the {names[target]} with the {names[other]}."
        return self._handle(verb, target, other)

    def _handle(self, verb: str, thing: str, receptacle: str) -> str:
        """Take, move, clean, heat or cool."""
        name, place = self.game.names[thing], self.game.names[receptacle]
        if verb == "take":
            self.in_receptacle.discard((thing, receptacle))
            self.taken_from.add((thing, receptacle))
            self.object_at.discard((thing, self.location))
            self.holding = thing
            return f"You pick up the {name} from the {place}."
        if verb == "move":
            self.in_receptacle.add((thing, receptacle))
            self.taken_from.discard((thing, receptacle))
            self.object_at.add((thing, self.location))
            self.holding = None
            return f"You move the {name} to the {place}."
        if verb == "clean":
            self.clean.add(thing)
        else:
            gained, lost = (self.hot, self.cool) if verb == "heat" else (self.cool, self.hot)
            gained.add(thing)
            lost.discard(thing)
        return f"You {verb} the {name} using the {place}."

    def _look(self) -> str:
        names, here = self.game.names, self.here()
        if not here:
            return "You are in the middle of a room. Looking quickly around you, you see nothing."
        # The official engine lists here only what was in one of these receptacles, is no more, and still lies at this
        # location: facts that something is not in a receptacle exist only from the moment it is taken out.
        beside = sorted(
            (thing, receptacle)
            for thing, place in self.object_at
            if place == self.location
            for receptacle in here
            if (thing, receptacle) in self.taken_from
        )
        facing = enumerate_names(names[r] for r in here)
        return (
            f"You are facing the {facing}. Next to it, you see {enumerate_names('a ' + names[o] for o, _ in beside)}."
        )

    def _describe_receptacle(self, receptacle: str) -> str:
        names = self.game.names
        name = names[receptacle]
        if not self.accessible(receptacle):
            return f"The {name} is closed."
        contents = enumerate_names("a " + names[o] for o in self.contents(receptacle))
        if receptacle in self.game.openable:
            return f"The {name} is open. In it, you see {contents}."
        return f"On the {name}, you see {contents}."

    def _describe_object(self, thing: str) -> str:
        game, name = self.game, self.game.names[thing]
        if thing in game.containers:
            inside = enumerate_names("a " + game.names[inner] for inner, outer in game.nested if outer == thing)
            return f"This is a normal {name}. In it, you see {inside}."
        words = self._condition(thing)
        if words:
            return f"This is a {words} {name}."
        if thing in game.toggleable and thing in self.toggled:
            return f"This {name} is on."
        if thing in game.sliceable and thing in self.sliced:
            return f"This is a sliced {name}."
        return f"There's nothing special about {name}."

    def _condition(self, thing: str) -> str:
        """Clean, hot, cool and sliced, in the words of the official grammar ("cold" only when nothing else is so)."""
        temperature = "hot" if thing in self.hot else "cool" if thing in self.cool else ""
        clean, sliced = thing in self.clean, thing in self.sliced
        if sliced and (clean or temperature):
            return " and ".join(filter(None, (temperature, "clean" if clean else ""))) + " sliced"
        if clean:
            return f"{temperature} and clean" if temperature else "clean"
        return "cold" if temperature == "cool" else temperature
