"""What a world is (`World`), and an executable contract that every world passes (`check_world`).

A world follows Gymnasium's conventions with text, or parts of text and images, in place of arrays: states are
`swirl.types.State`, actions are strings. What a forward model can learn from a recording is bounded by what a state
says, so a world's state should be its *full* description: the next state is a function of the state and the action. A
world that cannot promise this (it rolls dice, or hides rooms) says so: it is not `complete`. `check_world` refuses a
world that breaks its word where that can be seen, after the manner of Gymnasium's `env_checker`:

    check_world(make("minigrid"))
"""

import difflib
import math
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from swirl import images
from swirl.errors import InputError
from swirl.types import State, state_text

FEW = 10
"""Known names in an error, at most."""
SHOWN = 600
"""Characters of a state in an error, at most."""

Step = tuple[State, float, bool, bool, dict[str, Any]]
"""What `World.step` returns: next state, reward, terminated, truncated, info."""


class World(Protocol):
    """Something that can be acted in and that describes itself in words or images.

    Attributes:
        name: The world's key in `swirl.worlds.WORLDS`.
        behaviours: Names of the ways of acting that `act()` knows, e.g. "random".
        complete: Whether a state says everything that the next one depends on, and no two layouts share a state.
        repeatable: Whether the same seed and actions give the same states; a browser cannot promise it.
    """

    name: str
    behaviours: tuple[str, ...]
    complete: bool
    repeatable: bool

    def reset(self, seed: int) -> tuple[State, dict[str, Any]]:
        """Starts an episode that is a function of the seed.

        Returns:
            The first state, and an info that holds `"layout"`: a short string that names everything which no
            episode can change. In a complete world no state occurs in episodes of two layouts, so parts of a recording
            that share no layout share no state. `"split"` ("train", "validation" or "test") may name the part that the
            layout belongs to, where a benchmark has its own.
        """
        ...

    def step(self, action: str) -> Step:
        """Takes an action.

        Returns:
            The next state, the reward, whether the world ended the episode (terminated), whether a limit on its
            length did (truncated), and an info.

        Raises:
            InputError: There is no such action (the message names the nearest; nothing has changed), or the
                episode has not begun or has ended.
            SkippedError: The episode cannot go on, e.g. since a page hangs; `reset` may raise it too.
        """
        ...

    def actions(self, state: State) -> tuple[str, ...] | None:
        """The actions that can be taken in a state; None where they cannot be listed."""
        ...

    def act(self, behaviour: str, rng: np.random.Generator) -> str:
        """The action that a behaviour takes in the current state, drawing its chances from `rng` alone.

        Raises:
            InputError: There is no such behaviour; the message names the nearest.
        """
        ...

    def close(self) -> None:
        """Lets go of the simulator; the world is not used afterwards."""
        ...


@runtime_checkable
class Rules(Protocol):
    """What a world has beside `World` where reward and end can be read off its states."""

    def outcome(self, state: str, next_state: str) -> tuple[float, bool] | None:
        """The reward of a step and whether it ended the episode (terminated), as `step` gives them.

        Read off the two texts alone, whatever episode this world is in: they may be a model's. `None` where a text is
        no state, or where the two differ in what no step can change; nothing is ever raised.
        """
        ...


def unknown(what: str, got: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not among the known ones; it names the nearest, or some where none is near.

    Args:
        what: The kind of thing that is named, e.g. "action".
        got: The name that the user gave.
        known: The names that there are.
    """
    names = list(known)
    near = difflib.get_close_matches(got, names, n=1, cutoff=0.5)
    more = f", and {len(names) - FEW} more" if len(names) > FEW else ""
    expected = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(map(repr, names[:FEW]))}{more}"
    return InputError(f"unknown {what} {got!r}: {expected}")


def refuse_outside_episode(running: bool) -> None:
    """Refuse what can only be done while an episode runs.

    Raises:
        InputError: None does.
    """
    if not running:
        raise InputError("there is no episode, or it has ended: call reset(seed) before the next step")


def check_world(world: World, seeds: Iterable[int] = range(3), steps: int = 30) -> None:
    """Runs a world's behaviours for some steps, replays them, and refuses the world if the contract is broken.

    Args:
        world: The world; it is left reset, and open.
        seeds: Seeds of the episodes to run, each once with every behaviour.
        steps: Most steps per episode.

    Raises:
        ValueError: The contract is broken; the message says what was got, what was expected and how to mend it.
    """
    if not world.name or not world.behaviours:
        raise _broken("its name or its behaviours are empty", "a name and at least one behaviour", "set both")
    next_states: dict[tuple[str, str, str], str] = {}
    layouts: dict[str, str] = {}
    for seed in seeds:
        layout = _check_reset(world, seed)
        for number, behaviour in enumerate(world.behaviours):
            actions, record = _play(world, seed, behaviour, np.random.default_rng([seed, number]), steps)
            if isinstance(world, Rules):
                _check_outcome(world, actions, record)
            if world.repeatable:
                # Another one in between: what an episode leaves behind must not reach into the next.
                _play(world, seed + 1, behaviour, np.random.default_rng([seed, number]), steps)
                _check_replay(world, seed, actions, record)
                again, _ = _play(world, seed, behaviour, np.random.default_rng([seed, number]), steps)
                _check_acts(seed, behaviour, actions, again)
            if world.complete:
                _check_function(layout, actions, record, next_states, layouts)
        _check_misuse(world, seed)


def _broken(got: str, expected: str, mend: str) -> ValueError:
    return ValueError(f"the world breaks its contract: {got}; expected {expected}; to mend it, {mend}")


def _text(state: Any, where: str) -> str:
    """The text of a state that has been checked to be one."""
    parts = state if isinstance(state, list) else [{"type": "text", "text": state}]
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "image") or not isinstance(part.get(kind), str):
            raise _broken(
                f"{where} gave {_short(state)}", "a string or a list of text and image parts", "return a State"
            )
        if kind == "image":
            _check_image(part[kind], where)
    text = state_text(state)
    if not text.strip():
        raise _broken(f"{where} gave an empty state", "a description of the world", "describe at least the agent")
    return text


def _check_image(uri: str, where: str) -> None:
    """An image is there wherever the state is, and can be opened."""
    if not uri.startswith(images.URI):
        raise _broken(f"{where} gave the image {_short(uri)}", "a data: URI", "return images.data_uri(image)")
    try:
        images.open_image(uri)
    except InputError as error:
        raise _broken(f"{where} gave an image that cannot be opened: {error}", "a whole one", "draw it anew") from error


def _short(value: Any) -> str:
    """How a value is shown; of a long one, such as an image, the beginning and the end."""
    shown = repr(value)
    return shown if len(shown) <= SHOWN else f"{shown[: SHOWN // 2]}…{shown[-SHOWN // 2 :]}"


def _reset(world: World, seed: int) -> tuple[str, str]:
    state, info = world.reset(seed)
    layout = info.get("layout")
    if not isinstance(layout, str) or not layout:
        raise _broken(
            f"reset({seed}) gave layout {layout!r}", "a non-empty string", "put a hash of what never changes in info"
        )
    return _text(state, f"reset({seed})"), layout


def _check_reset(world: World, seed: int) -> str:
    """Resets twice with one seed, with something else in between; returns the layout."""
    first = _reset(world, seed)
    _reset(world, seed + 1)
    second = _reset(world, seed)
    for what, one, two in zip(("state", "layout"), first, second, strict=True):
        if one != two and (world.repeatable or what == "layout"):
            raise _broken(
                f"reset({seed}) gave the {what} {_short(one)}, then {_short(two)}",
                "the same both times",
                "draw every chance from a generator made of the seed",
            )
    if world.actions(first[0]) == ():
        raise _broken(f"actions() is empty after reset({seed})", "at least one action", "list them or return None")
    return first[1]


def _check_misuse(world: World, seed: int) -> None:
    """An unknown action and an unknown behaviour are refused, naming the nearest."""
    state, _ = world.reset(seed)
    known = {"behaviour": world.behaviours}
    legal = world.actions(state)
    if legal is not None:
        known["action"] = legal
    for what, names in known.items():
        wrong = names[0] + "zz"
        try:
            if what == "action":
                world.step(wrong)
            else:
                world.act(wrong, np.random.default_rng(seed))
        except InputError as error:
            if not any(name in str(error).replace(wrong, "") for name in names):
                raise _broken(
                    f"the {what} {wrong!r} was refused with {error}", "the nearest one named", "use base.unknown()"
                ) from error
        else:
            raise _broken(f"the unknown {what} {wrong!r} was accepted", "an InputError", "raise base.unknown()")
    if legal and world.repeatable:
        after = _text(world.step(legal[0])[0], "step()")
        world.reset(seed)
        if after != _text(world.step(legal[0])[0], "step()"):
            raise _broken("an unknown action changed the state", "nothing changed", "look at the action first")


def _checked_step(world: World, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
    where = f"step({action!r})"
    state, reward, terminated, truncated, info = world.step(action)
    if not isinstance(reward, float) or not math.isfinite(reward):
        raise _broken(f"{where} gave the reward {reward!r}", "a finite float", "convert it with float()")
    for what, flag in (("terminated", terminated), ("truncated", truncated)):
        if type(flag) is not bool:
            raise _broken(f"{where} gave {what} = {flag!r}", "a bool", "convert it with bool()")
    return _text(state, where), reward, terminated, truncated, info


def _play(world: World, seed: int, behaviour: str, rng: np.random.Generator, steps: int) -> tuple[list[str], list]:
    """Runs an episode. The record holds the first state, then a (state, reward, terminated, truncated) per step."""
    state, layout = _reset(world, seed)
    actions: list[str] = []
    record: list = [(state, 0.0, False, False)]
    for _ in range(steps):
        action = world.act(behaviour, rng)
        legal = world.actions(state)
        if not isinstance(action, str) or (legal is not None and action not in legal):
            raise _broken(
                f"the behaviour {behaviour!r} took {action!r}", f"one of {legal}", "choose among actions(state)"
            )
        state, reward, terminated, truncated, info = _checked_step(world, action)
        if info.get("layout", layout) != layout:
            raise _broken(
                f"the layout became {info['layout']!r}", f"{layout!r} as at the reset", "hash only what never changes"
            )
        actions.append(action)
        record.append((state, reward, terminated, truncated))
        if terminated or truncated:
            _check_ended(world, action)
            break
    return actions, record


def _check_ended(world: World, action: str) -> None:
    try:
        world.step(action)
    except InputError:
        return
    raise _broken("a step after the episode's end was accepted", "an InputError", "remember the end until reset()")


def _check_replay(world: World, seed: int, actions: list[str], record: list) -> None:
    """The same actions after the same seed give the same states, rewards and ends."""
    _reset(world, seed)
    for number, (action, expected) in enumerate(zip(actions, record[1:], strict=True)):
        *row, _ = _checked_step(world, action)
        if tuple(row) != expected:
            raise _broken(
                f"step {number} ({action!r}) after reset({seed}) gave {_short(tuple(row))}, before {_short(expected)}",
                "the same both times",
                "draw every chance from a generator made of the seed",
            )


def _check_outcome(world: Rules, actions: list[str], record: list) -> None:
    """What is read off two states is what the step gave."""
    for (state, *_), action, (after, *given, _) in zip(record, actions, record[1:], strict=False):
        told = world.outcome(state, after)
        if told != tuple(given):
            raise _broken(
                f"outcome() gave {told} for {_short(state)} and {_short(after)}, step({action!r}) {tuple(given)}",
                "the same reward and end",
                "leave outcome() out where states do not tell them",
            )


def _check_acts(seed: int, behaviour: str, actions: list[str], again: list[str]) -> None:
    for number, (first, second) in enumerate(zip(actions, again, strict=False)):
        if first != second:
            raise _broken(
                f"the behaviour {behaviour!r} took {first!r} as step {number} after reset({seed}), then {second!r}",
                "the same both times",
                "draw every chance of act() from its rng",
            )


def _check_function(
    layout: str,
    actions: list[str],
    record: list,
    next_states: dict[tuple[str, str, str], str],
    layouts: dict[str, str],
) -> None:
    """Over all that was visited: the state is the full description, and layouts share no state."""
    states = [row[0] for row in record]
    for state in states:
        other = layouts.setdefault(state, layout)
        if other != layout:
            raise _broken(
                f"the layouts {other!r} and {layout!r} share the state {_short(state)}",
                "no state in two layouts",
                "hash only what can be read off every state of the episode",
            )
    for state, action, next_state in zip(states, actions, states[1:], strict=False):
        known = next_states.setdefault((layout, state, action), next_state)
        if known != next_state:
            raise _broken(
                f"{action!r} in the state {_short(state)} gave {_short(known)} once and {_short(next_state)} later",
                "one next state",
                "describe in the state everything that the next one depends on",
            )
