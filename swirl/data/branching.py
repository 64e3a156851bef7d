"""What other actions would have led to: fresh episodes, and at some of their states every action that is tried.

A world cannot be set to a state. So each alternative is reached by a replay: the same seed, the same actions, and then
another one. The steps that this takes are counted, for they are what such data cost.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from swirl.data.replay import replay
from swirl.errors import InputError, SkippedError
from swirl.metrics import normalise_action
from swirl.types import State, state_text
from swirl.worlds import World

GIVE_UP = 20
"""Episodes one after the other in which nothing could be tried."""
TRIES = 4
"""How often an action is drawn for each alternative where the world lists none."""


@dataclass
class Tried:
    """What was tried.

    Attributes:
        rows: A transition each, with its layout; `history` holds the states visited before.
        environment_steps: Steps that the world was made to take: played, replayed and tried.
        episodes: Episodes that were played.
        other_layouts: Of them, those that were left at once, since their layout is not to be trained on.
        not_reached: Alternatives that were given up, since the replay did not lead to their state again.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    environment_steps: int = 0
    episodes: int = 0
    other_layouts: int = 0
    not_reached: int = 0


@dataclass
class _Visit:
    """A step of a played episode."""

    state: State
    action: str
    options: list[str]
    result: tuple[Any, ...]


def branch(
    world: World,
    seeds: Sequence[int],
    layouts: set[str],
    turns: Iterator[str],
    *,
    transitions: int,
    states: int,
    alternatives: int,
    max_steps: int,
    seed: int,
    advance: Callable[[int], None] = lambda n: None,
) -> Tried:
    """Play episodes, and try other actions at states drawn from those that they visit.

    Args:
        world: Is not closed.
        seeds: What episodes are reset with, one after another, and again from the first.
        layouts: Names of the layouts that may be trained on; an episode of any other one is left before its first step.
        turns: The behaviour of each episode.
        transitions: How many to try.
        states: States per episode.
        alternatives: Other actions per state, beside the one that was taken.
        max_steps: Longest episode.
        seed: Seed of everything that is drawn; not that of a recording, whose actions would be played again.
        advance: Called with the number of transitions that were added.

    Raises:
        InputError: In 20 episodes in a row nothing could be tried.
    """
    found, empty = Tried(), 0
    while len(found.rows) < transitions:
        before = len(found.rows)
        _episode(
            world,
            seeds[found.episodes % len(seeds)],
            layouts,
            next(turns),
            found,
            states,
            alternatives,
            max_steps,
            seed,
        )
        del found.rows[transitions:]
        advance(len(found.rows) - before)
        empty = 0 if len(found.rows) > before else empty + 1
        if empty == GIVE_UP:
            raise InputError(
                f"nothing could be tried in {GIVE_UP} episodes in a row ({found.other_layouts} of {found.episodes} "
                "were of layouts that are not trained on); is the world that of the recording?"
            )
    return found


def _episode(
    world: World,
    reset: int,
    layouts: set[str],
    behaviour: str,
    found: Tried,
    states: int,
    alternatives: int,
    max_steps: int,
    seed: int,
) -> None:
    rng = np.random.default_rng([seed, found.episodes])
    name = f"b{found.episodes:06d}"
    found.episodes += 1
    state, info = world.reset(reset)
    if info["layout"] not in layouts:
        found.other_layouts += 1
        return
    visits = _play(world, state, behaviour, rng, alternatives, max_steps)
    found.environment_steps += len(visits)
    past = [state_text(visit.state) for visit in visits]
    actions = [visit.action for visit in visits]
    for t in sorted(rng.permutation(len(visits))[:states].tolist()):
        common = {"state": past[t], "history": past[:t], "trajectory": name, "step": t, "layout": info["layout"]}
        common |= {"split": "train", "partial": not world.complete}
        found.rows.append(common | _row(visits[t].action, visits[t].result))
        for option in visits[t].options:
            result = _again(world, reset, actions[:t], past[t], option, found)
            if result is None:
                found.not_reached += 1
            else:
                found.rows.append(common | _row(option, result))


def _play(
    world: World, state: State, behaviour: str, rng: np.random.Generator, alternatives: int, max_steps: int
) -> list[_Visit]:
    """An episode from its first state to its end, or to where the world breaks it off."""
    visits: list[_Visit] = []
    try:
        while len(visits) < max_steps:
            action = world.act(behaviour, rng)
            options = _others(world, state, action, rng, alternatives)
            result = world.step(action)
            visits.append(_Visit(state, action, options, result))
            state, _, terminated, truncated, _ = result
            if terminated or truncated:
                break
    except SkippedError:
        pass  # what was played up to here is as good as any
    return visits


def _others(world: World, state: State, taken: str, rng: np.random.Generator, count: int) -> list[str]:
    """Other actions in the current state: of those that the world lists, or of what its behaviours would do."""
    listed = world.actions(state)
    if listed is None:
        names = world.behaviours
        listed = tuple(world.act(names[rng.integers(len(names))], rng) for _ in range(TRIES * count))
    once = {normalise_action(action): action for action in listed}
    once.pop(normalise_action(taken), None)
    others = list(once.values())
    return [others[i] for i in rng.permutation(len(others))[:count]]


def _again(
    world: World, reset: int, actions: list[str], state: str, option: str, found: Tried
) -> tuple[Any, ...] | None:
    """What another action leads to from a state of an episode; `None` where its replay does not reach that state."""
    try:
        found.environment_steps += len(actions)
        if state_text(replay(world, reset, actions)) != state:
            return None
        found.environment_steps += 1
        return world.step(option)
    except SkippedError:
        return None


def _row(action: str, result: tuple[Any, ...]) -> dict[str, Any]:
    next_state, reward, terminated, truncated, _ = result
    return {
        "action": action,
        "next_state": state_text(next_state),
        "reward": None if reward is None else float(reward),
        "terminated": bool(terminated),
        "truncated": bool(truncated),
    }
