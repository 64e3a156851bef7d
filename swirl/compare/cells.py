"""The runs of a comparison: one `swirl train` each, in a process of its own, and one kept file when it is done.

A cell whose file is there is not run again; one that was interrupted goes on where its run folder left off. Cells of
one seed begin from the same warm-up run, so they are paired, and its cost is counted in each of them.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from swirl import durable, metrics, progress
from swirl.compare import kept, provenance
from swirl.compare.kept import Cell
from swirl.compare.variants import shared_part

logger = logging.getLogger("swirl")


@dataclass(frozen=True)
class Place:
    """Where a comparison works.

    Attributes:
        runs: Run folders, their recipes and logs.
        files: What finished cells measured.
        cache: Recordings of worlds.
    """

    runs: Path
    files: Path
    cache: Path


def run(cells: Sequence[Cell], place: Place, processes: int) -> list[str]:
    """Run what has no file yet, in order: what the first cells begin from, those cells, and so on.

    Args:
        cells: The cells.
        place: Where to work.
        processes: How many at once.

    Returns:
        A line per cell that failed; the others are done.

    Raises:
        InputError: A file is there, but of another recipe.
    """
    missing = [cell for cell in cells if kept.find(place.files, cell) is None]
    if not missing:
        return []
    running = Processes()
    tasks = _tasks(missing, place, running)
    with progress.bar("compare", len(tasks)) as bar, ThreadPoolExecutor(processes) as pool:
        try:
            return _do(tasks, pool, processes, bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            running.stop()
            raise


@dataclass(frozen=True)
class _Task:
    """Something to do.

    Attributes:
        work: Does it.
        after: The name of another that has to be over before; empty: none.
        needs: Whether that one has to be done well.
    """

    work: Callable[[], object]
    after: str = ""
    needs: bool = False


def _tasks(cells: Sequence[Cell], place: Place, running: "Processes") -> dict[str, _Task]:
    """The cells and what they begin from, by name, in the order in which they are wanted."""
    from swirl.methods.session import recording_path

    tasks: dict[str, _Task] = {}
    collecting: dict[Path, str] = {}
    for cell in cells:
        base = base_of(cell)
        if base.name not in tasks:
            path = recording_path(base.recipe, place.cache)
            # A recording is collected by the first that wants it; the others find it there.
            first = base.name if path.is_file() else collecting.setdefault(path, base.name)
            tasks[base.name] = _Task(partial(_begin, running, base, place), "" if first == base.name else first)
        tasks[cell.name] = _Task(partial(_make, running, cell, base, place), base.name, needs=True)
    return tasks


def _do(tasks: dict[str, _Task], pool: ThreadPoolExecutor, processes: int, bar: progress.Bar) -> list[str]:
    """Do all of it, always the first that can be done, whatever fails; what failed."""
    waiting, asked, over, failed = dict(tasks), dict[Future, str](), set[str](), dict[str, str]()
    while waiting or asked:
        for name, task in list(waiting.items()):
            if task.needs and task.after in failed:
                del waiting[name]  # for the same reason, which is told once
                bar.advance(last=name)
            elif len(asked) < processes and (not task.after or task.after in over):
                asked[pool.submit(task.work)] = name
                del waiting[name]
        for done in wait(asked, return_when=FIRST_COMPLETED).done if asked else ():
            name = asked.pop(done)
            over.add(name)
            try:
                done.result()
            except Failed as error:
                failed[name] = str(error)
            bar.advance(last=name)
    return list(failed.values())


def _begin(running: "Processes", base: Cell, place: Place) -> None:
    _tell_of_no_change(running.train(base, None, place))


def _tell_of_no_change(folder: Path) -> None:
    """Say so, before methods are trained, where nothing changes in a test part: no role can be judged on it."""
    pairs = pq.read_table(folder / "data" / "test.parquet", columns=["state", "next_state"]).to_pylist()
    if not any(metrics.changed(**pair) for pair in pairs):
        logger.warning(
            "%s: no transition of the test part changes the state: the inverse model has no score there, and the "
            "forward model only its false changes; give a recording with more layouts, or more of it to test",
            folder,
        )


def base_of(cell: Cell) -> Cell:
    """The warm-up run that it begins from."""
    recipe = shared_part(cell.recipe)
    key = blake2b(recipe.toml().encode(), digest_size=4).hexdigest()
    return Cell("warmup", recipe, f"warmup-seed{recipe.seed}-{key}")


def _make(running: "Processes", cell: Cell, base: Cell, place: Place) -> None:
    from swirl.methods.session import recording_path

    commit = provenance.commit()  # before the run: what is committed while it runs is not what ran
    folder = running.train(cell, place.runs / base.name, place)
    kept.keep(cell, folder, recording_path(cell.recipe, place.cache), commit, place.files)


class Failed(Exception):
    """A run ended with an exit code other than 0."""


class Processes:
    """The runs in progress."""

    def __init__(self) -> None:
        self._children: set[subprocess.Popen] = set()
        self._stopped = False

    def train(self, cell: Cell, base: Path | None, place: Place) -> Path:
        """Run a recipe to its end; its run folder.

        Raises:
            Failed: It did not end well; says how, and where its log is.
        """
        folder = place.runs / cell.name
        recipe, log = folder.with_name(f"{folder.name}.toml"), folder.with_name(f"{folder.name}.log")
        place.runs.mkdir(parents=True, exist_ok=True)
        durable.atomic_write(recipe, cell.recipe.toml())
        command = [sys.executable, "-m", "swirl.cli", "train", str(recipe), "--out", str(folder)]
        command += ["--cache", str(place.cache), *(["--begin-from", str(base)] if base else [])]
        environment = {**os.environ, "OMP_NUM_THREADS": str(cell.recipe.threads)}
        with log.open("a") as written:
            code, _, _ = self.call(command, stdin=subprocess.DEVNULL, stdout=written, stderr=written, env=environment)
        if code:
            last = (log.read_text(errors="replace").strip().splitlines() or [""])[-1]
            raise Failed(f"{cell.name} ended with exit code {code}: {last} (see {log})")
        return folder

    def call(self, command: Sequence[str], **streams: Any) -> tuple[int, str, str]:
        """Run a command to its end: its exit code, and what it wrote, as far as that is piped here."""
        child = subprocess.Popen(command, text=True, **streams)
        self._children.add(child)
        if self._stopped:
            child.terminate()
        out, error = child.communicate()
        self._children.discard(child)
        return child.returncode, out, error

    def stop(self) -> None:
        """End them all; each goes on later where it last saved."""
        self._stopped = True
        for child in list(self._children):
            child.terminate()
