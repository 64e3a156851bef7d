"""Episodes of a world, one after the other, played in this process or in several.

Episode i is a function of (seed, i) and the behaviour whose turn it is, so who plays it changes nothing, and a
recording goes on at any episode.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import count
from multiprocessing.util import Finalize
from threading import Thread
from typing import Any, NamedTuple, Protocol

import numpy as np

from swirl.errors import InputError, SkippedError
from swirl.types import State

AHEAD = 4  # episodes per worker that are under way or wait for an earlier one

Text = Callable[[State], str]
"""What a recording says of a state; keeps its images. Several processes pickle it."""


class Playable(Protocol):
    """What recording needs of a world."""

    @property
    def behaviours(self) -> tuple[str, ...]:
        """Names that `act` knows."""
        ...

    @property
    def complete(self) -> bool:
        """Whether a state says everything that the next one depends on; if not, the rows are marked `partial`."""
        ...

    def reset(self, seed: int) -> tuple[State, dict[str, Any]]:
        """Begin a trajectory; `info["layout"]` names the layout, `info["split"]` its part."""
        ...

    def act(self, behaviour: str, rng: np.random.Generator) -> str:
        """The behaviour's next action."""
        ...

    def step(self, action: str) -> tuple[State, float | None, bool, bool, dict[str, Any]]:
        """Next state, reward, terminated, truncated, info."""
        ...

    def close(self) -> None:
        """Let go of the simulator."""
        ...


def begin(seed: int, index: int) -> tuple[int, np.random.Generator]:
    """The seed that the world is reset with for an episode, and what its behaviour draws its chances from.

    The seed is drawn: with counted ones a world of n layouts and n behaviours would bind one to the other.
    """
    rng = np.random.default_rng([seed, index])
    return int(rng.integers(2**31)), rng


class Episode(NamedTuple):
    """What was played of an episode.

    Attributes:
        index: Its number.
        rows: A transition each; the last one is terminated or truncated.
        skipped: Why the world broke it off; empty where it did not.
    """

    index: int
    rows: list[dict[str, Any]]
    skipped: str


Turn = tuple[int, str]
"""The number of an episode, and its behaviour."""


def play_here(
    world: Playable, turns: Iterable[Turn], max_steps: int, seed: int, text: Text
) -> Generator[Episode, None, None]:
    """Play the turns in this process.

    Args:
        world: Is not closed.
        turns: May be endless.
        max_steps: Steps after which an episode is truncated.
        seed: Seed of everything that is drawn.
        text: Of a state.
    """
    for turn in turns:
        yield _play(world, text, turn, max_steps, seed)


def play_apart(
    make: Callable[[], Playable], turns: Iterable[Turn], max_steps: int, seed: int, text: Text, workers: int
) -> Generator[Episode, None, None]:
    """Play the turns in so many processes, and give the episodes in the order of the turns.

    Each process builds a world of its own; the other arguments are as in `play_here`, a few turns are begun before they
    are asked for.

    Raises:
        InputError: A process died.
    """
    # Spawned: a forked copy of a process that has threads, as ours has by now, can hang.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, (make, text))
    waiting: deque[Future[Episode]] = deque()
    try:
        for turn in turns:
            waiting.append(pool.submit(_play_here, turn, max_steps, seed))
            if len(waiting) == AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise InputError("a worker died, perhaps for lack of memory; run the same command with fewer") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _play(world: Playable, text: Text, turn: Turn, max_steps: int, seed: int) -> Episode:
    index, behaviour = turn
    rows: list[dict[str, Any]] = []
    skipped = ""
    try:
        for row in _steps(world, text, index, behaviour, seed):
            rows.append(row)
            if len(rows) == max_steps:
                break
    except SkippedError as error:
        skipped = str(error)
    if rows:
        rows[-1]["truncated"] |= not rows[-1]["terminated"]
    return Episode(index, rows, skipped)


def _steps(world: Playable, text: Text, index: int, behaviour: str, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of one trajectory, to its end."""
    start, rng = begin(seed, index)
    state, info = world.reset(start)
    before = text(state)
    for step in count():
        action = world.act(behaviour, rng)
        next_state, reward, terminated, truncated, _ = world.step(action)
        after = before if next_state == state else text(next_state)
        yield {
            "state": before,
            "action": action,
            "next_state": after,
            "trajectory": trajectory_name(index),
            "step": step,
            "terminated": bool(terminated),
            "truncated": bool(truncated),
            "reward": None if reward is None else float(reward),
            "layout": info.get("layout"),
            "split": info.get("split"),
            "partial": not world.complete,
            "behaviour": behaviour,
        }
        if terminated or truncated:
            return
        state, before = next_state, after


def trajectory_name(index: int) -> str:
    """The name of an episode's trajectory."""
    return f"t{index:06d}"


# In a worker

_player: Callable[..., Episode]


def _begin(make: Callable[[], Playable], text: Text) -> None:
    global _player
    world = make()
    _player = partial(_play, world, text)
    Finalize(None, world.close, exitpriority=0)  # a worker's ordinary exit; `atexit` is not run there
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """A worker whose parent was killed would wait for work for ever, and its simulator with it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _play_here(turn: Turn, max_steps: int, seed: int) -> Episode:
    # Ctrl-C reaches every process of the group: it breaks off an episode, and leaves an idle worker alone.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _player(turn, max_steps, seed)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
