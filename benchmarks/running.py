"""What tables share that are made of whole runs: the runs, in processes of their own, and cells."""

import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from swirl import progress
from swirl.compare.cells import Processes
from swirl.compare.reading import Reading, difference, estimate

SEEDS = (0, 1, 2)
"""Of the tables."""
NOT_YET = "Not run yet.\n"
"""In the place of a table that nothing is kept of."""
One = TypeVar("One")
CALLED = Processes()
"""What ends with `side_by_side`."""


def swirl(words: Sequence[str], given: Mapping[str, str], out: Path) -> str:
    """A command that makes a run folder, or what remains of it; what went wrong, or "".

    Args:
        words: The command, without `swirl`.
        given: Keys of the recipe and their values.
        out: The run folder; the log is put beside it.
    """
    overrides = [word for key, value in given.items() for word in (f"--{key}", value)]
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.with_suffix(".log").open("a") as log:
        command = [sys.executable, "-m", "swirl.cli", *words, "--out", str(out), *overrides]
        code, _, _ = CALLED.call(command, stdout=log, stderr=log)
    return f"{out.name}: exit code {code}, see {out.with_suffix('.log')}" if code else ""


def finish(main: Callable[[], int]) -> None:
    """Do what a script does and end with its exit code; SIGTERM stops it as Ctrl-C does, with 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it last saved", file=sys.stderr)
        sys.exit(130)


def missing(asked: Mapping[One, tuple[Path, str]]) -> tuple[list[One], list[str]]:
    """Of what is asked for the runs whose files are not there, and what is wrong with files that are.

    Args:
        asked: Of each run its kept file and its recipe, which the file has as "recipe".
    """
    there = {one: (kept, recipe) for one, (kept, recipe) in asked.items() if kept.is_file()}
    wrong = [
        f"{kept} is of another recipe; remove it to have it run again"
        for kept, recipe in there.values()
        if json.loads(kept.read_text())["recipe"] != recipe
    ]
    return [one for one in asked if one not in there], wrong


def side_by_side(work: Callable[[One], str], todo: Sequence[One], processes: int, title: str) -> list[str]:
    """Do some work for each, so many at once; what went wrong.

    Stopped by Ctrl-C it ends what it has called; a run goes on later where it last saved.
    """
    failed = []
    with ThreadPoolExecutor(processes) as pool, progress.bar(title, len(todo)) as bar:
        try:
            for error in pool.map(work, todo):
                failed += [error] if error else []
                bar.advance()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            CALLED.stop()
            raise
    return failed


def kept(files: Mapping[int, tuple[Path, str]]) -> dict[int, dict[str, Any]]:
    """What is kept of a row of a table, by seed; what is of another recipe is left out.

    Args:
        files: Of each seed the kept file and the recipe, as in `missing`.
    """
    found = {seed: json.loads(path.read_text()) for seed, (path, _) in files.items() if path.is_file()}
    return {seed: facts for seed, facts in found.items() if facts["recipe"] == files[seed][1]}


def not_run(rows: Mapping[str, Mapping[int, Any]]) -> str:
    """A line on the rows of a table that have not run, or not in all seeds; "" where nothing is missing.

    Args:
        rows: What is kept of each, by seed.
    """
    lacking = {title: [seed for seed in SEEDS if seed not in by_seed] for title, by_seed in rows.items()}
    return told_missing([of_seeds(title, seeds, SEEDS) for title, seeds in lacking.items() if seeds])


def told_missing(parts: Sequence[str]) -> str:
    """The line on what of a table has not run; "" where that is nothing."""
    return f"{NOT_YET.strip()[:-1]}: {'; '.join(parts)}.\n\n" if parts else ""


def of_seeds(title: str, seeds: Sequence[int], every: Sequence[int]) -> str:
    """A row of a table, and which of its seeds are meant where it is not all of them."""
    some = f" (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})"
    return title + some * (len(seeds) < len(every))


def by_layout(values: Sequence[float], layouts: Sequence[str]) -> Reading:
    """A metric as comparisons read it, of its value for each episode or seed of a world, and of their layouts."""
    _, number = np.unique(layouts, return_inverse=True)
    return Reading(np.bincount(number, values)[None], np.bincount(number)[None], " ".join(sorted(layouts)))


def interval(mine: Mapping[int, Reading], less: Mapping[int, Reading] | None = None) -> str:
    """The mean of a share over seeds, per cent, with its 95 % interval over seeds and layouts; "" of no seed.

    Args:
        mine: By seed.
        less: What is taken off, in pairs of the same seed and layout.
    """
    least, sign = (0.0, "") if less is None else (-1.0, "+")
    found = estimate(*((lambda one: one, [mine]) if less is None else (difference, [mine, less])))
    if found is None:
        return ""
    value, low, high = (100 * share for share in (found.value, max(found.low, least), min(found.high, 1.0)))
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def mean(values: Sequence[float], scale: float = 100.0) -> str:
    """The mean over seeds, per cent by default; "" of none."""
    return f"{scale * np.mean(values):.1f}" if len(values) else ""


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table, its head first."""
    head, *rest = lines
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *rest))
