"""What tables share that are made of whole runs: the runs, in processes of their own, and cells."""

import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from swirl import progress
from swirl.compare.cells import Processes

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

    Stopped, by Ctrl-C or SIGTERM, it ends what it has called; a run goes on later where it last saved.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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


def spread(values: Sequence[float], scale: float = 100.0) -> str:
    """Mean over seeds and the range of the seeds, per cent by default; of one seed its value alone, "" of none."""
    if len(values) < 2:
        return "".join(f"{scale * value:.1f}" for value in values)
    return f"{scale * np.mean(values):.1f} [{scale * min(values):.1f}, {scale * max(values):.1f}]"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table, its head first."""
    head, *rest = lines
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ["---"] * len(head), *rest))
