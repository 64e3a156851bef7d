"""Play a world with a mix of behaviours and stream what happens to one Parquet file.

The same arguments give the same bytes, however many processes play and however often it was interrupted: an episode is
a function of its number, and the behaviours take turns by the largest deficit to their share, so the shares are exact
and not drawn. A shorter recording is the beginning of a longer one.
"""

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from hashlib import blake2b
from itertools import count, islice
from pathlib import Path
from typing import Any

from swirl import images, progress
from swirl.data import frames
from swirl.data.files import prepare
from swirl.data.origin import Origin
from swirl.data.overwriting import check_replaceable, note
from swirl.data.pieces import Pieces, pieces
from swirl.data.playing import Episode, Playable, play_apart, play_here
from swirl.errors import InputError

logger = logging.getLogger(__name__)
REASON = 80  # characters beside the bar
GIVE_UP = 20  # episodes one after the other that gave nothing


def collect(
    make: Callable[[], Playable],
    path: str | Path,
    transitions: int,
    behaviours: dict[str, float] | None = None,
    max_steps: int = 64,
    seed: int = 0,
    workers: int = 1,
    key: str | None = None,
    origin: tuple[str, dict[str, Any]] | None = None,
) -> dict[str, int]:
    """Record exactly `transitions` transitions of a world to a Parquet file, with a progress bar.

    Memory does not grow with their number, and the file takes its name when it is complete; until then finished
    pieces lie in a hidden folder beside it. Images of states are files in another one, see `swirl.data.frames`. The
    last trajectory is truncated where the number is reached. Where a world skips an episode (`SkippedError`), the steps
    before it are kept, truncated, and the next episode is played.

    Args:
        make: Builds the world; with several workers it is pickled, e.g. `functools.partial(worlds.make, "minigrid")`.
        path: The `.parquet` file to write; one that is there is replaced where it is of the same origin.
        transitions: How many.
        behaviours: Share of the trajectories that each behaviour plays; shares are relative to their sum. `None`:
            all that the world has, equally.
        max_steps: Steps after which a trajectory is truncated.
        seed: Seed of everything that is drawn.
        workers: Processes that play.
        key: What the world is, its version and options. With it, an interrupted recording goes on where the same
            arguments are given again (`transitions` and `workers` may differ); without it, it begins again.
        origin: Name and options of the world, to be noted in the file; see `swirl.data.origin`.

    Returns:
        Counts: transitions, trajectories, layouts (0 where the world does not name them), and skipped, the episodes
        that broke off, where there were any.

    Raises:
        InputError: An argument cannot be used, a file is there that would be lost, another process is recording this
            one, a worker died, or the world skipped 20 episodes in a row before their first step.
    """
    path = Path(path)
    for name, value in (("transitions", transitions), ("max_steps", max_steps), ("workers", workers)):
        if value < 1:
            raise InputError(f"{name} = {value}, expected at least 1")
    if seed < 0:
        raise InputError(f"seed = {seed}, expected 0 or more")
    if path.suffix != ".parquet":
        raise InputError(f"{path}: a recording is written as Parquet; end the name with .parquet")
    made_from = Origin(*origin, seed) if origin else None
    check_replaceable(path, "collect", origin=made_from)
    with closing(make()) as world:
        shares = shares_of(world.behaviours, behaviours)
        prepare(path)
        facts = json.dumps([key, shares, max_steps, seed])
        with pieces(path, None if key is None else blake2b(facts.encode()).hexdigest()) as recorded:
            turns = islice(enumerate(turns_of(shares)), recorded.next, None)
            text = partial(frames.kept_text, waiting=recorded.images, name=images.beside(path).name)
            if workers == 1:
                played = play_here(world, turns, max_steps, seed, text)
            else:
                played = play_apart(make, turns, max_steps, seed, text, workers)
            with closing(played):
                _record(played, recorded, transitions)
            counts = recorded.join(path, transitions, note("collect", made_from))
    return counts | ({"skipped": recorded.skipped} if recorded.skipped else {})


@contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """A function that raises a Ctrl-C of the block which Python swallowed, as it does while it destroys an object."""
    pressed = False

    def note(*_: object) -> None:
        nonlocal pressed
        pressed = True
        raise KeyboardInterrupt

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # which alone is told of signals
        yield check
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


def _record(played: Iterator[Episode], recorded: Pieces, transitions: int) -> None:
    before, start, empty, reason = recorded.rows, time.monotonic(), 0, ""
    with _interruptible() as check, progress.bar("collect", transitions, min(before, transitions)) as bar:
        while recorded.rows < transitions:
            check()
            episode = next(played)
            empty = 0 if episode.rows else empty + 1
            if empty == GIVE_UP:
                raise InputError(f"{GIVE_UP} episodes in a row did not begin; the last: {episode.skipped}")
            reason = episode.skipped or reason
            recorded.add(episode.index, episode.rows, bool(episode.skipped))
            rate = (recorded.rows - before) / max(time.monotonic() - start, 1e-3)
            skipped = {"skipped": f"{recorded.skipped} ({reason[:REASON]})"} if reason else {}
            bar.update(min(recorded.rows, transitions), per_second=round(rate, 1), **skipped)
    if reason:
        logger.warning("%d episodes were skipped; the last: %s", recorded.skipped, reason)


def shares_of(known: tuple[str, ...], behaviours: dict[str, float] | None) -> dict[str, float]:
    """The share of each behaviour that acts, with a sum of 1; all known ones equally where none are named.

    Raises:
        InputError: A name is not known, or the shares are none.
    """
    behaviours = dict.fromkeys(known, 1.0) if behaviours is None else behaviours
    names = ", ".join(known)
    for name, share in behaviours.items():
        if name not in known:
            raise InputError(f"behaviour {name!r} is not one of this world's: {names}")
        if not 0 <= share < float("inf"):
            raise InputError(f"behaviour {name!r} has share {share}, expected a number of 0 or more")
    total = sum(behaviours.values())
    if not total > 0:
        raise InputError(f"no behaviour with a share above 0; give a share to at least one of: {names}")
    return {name: share / total for name, share in behaviours.items() if share > 0}


def turns_of(shares: dict[str, float]) -> Iterator[str]:
    """Behaviours in turn, always the one that is furthest below its share; ties go to the first named."""
    played = dict.fromkeys(shares, 0)
    for index in count(1):
        name = max(shares, key=lambda name: shares[name] * index - played[name])
        played[name] += 1
        yield name
