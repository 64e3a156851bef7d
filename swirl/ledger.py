"""The run folder: one writer, phases that are committed whole or not at all, and a ledger that vouches for them.

A phase is made in a staging folder; when its work is done every file is fsynced and hashed, the folder is renamed into
place, and only then is `ledger.json` replaced. A process may be killed at any moment; what it leaves is one of these:

- a staging folder: the same command hands it to the phase's work again, which continues from its own checkpoints;
- a folder in place that the ledger does not list (killed between rename and entry): it becomes staging again, so work
  must accept a folder in which everything is already done;
- a ledger that lists the phase: it is skipped once its files are found as listed.

Nothing is deleted here. Where the user deletes a phase's folder, that phase and all later ones are made again; what had
been made from it is set aside as `phases/.NAME.stale-N`, so that no stale checkpoint is continued from.
"""

import hashlib
import itertools
import json
import logging
import re
import time
import tomllib
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Self

from swirl import clock, durable, lock, toml
from swirl.errors import InputError

logger = logging.getLogger("swirl")
VERSION = 1
OWN_FILES = {"ledger.json", "recipe.toml", "lock", "clock.jsonl"}


@dataclass(frozen=True)
class Phase:
    """One committed phase, an entry of the ledger.

    Attributes:
        name: Unique in the run.
        folder: Where it lies, relative to the run folder.
        seconds_cpu: CPU time of this process (the main one) over all attempts, those that were killed included (but
            for the last few seconds of each, see `clock`).
        finished_at: UTC, ISO 8601.
        files: Path relative to `folder` -> (size in bytes, SHA-256).
    """

    name: str
    folder: str
    seconds_cpu: float
    finished_at: str
    files: dict[str, tuple[int, str]]


class Run:
    """A run folder that is open for work; use it as a context manager.

    Attributes:
        folder: The run folder.
        phases: What is committed, in order.
        skipped: Names of the phases that `phase()` found finished.
        made: Names of the phases that `phase()` made.
    """

    def __init__(self, folder: Path, main: bool, barrier: Callable[[], None]):
        self.folder = folder
        self.phases: list[Phase] = []
        self.skipped: list[str] = []
        self.made: list[str] = []
        self._main = main
        self._barrier = barrier
        self._recipe_sha256 = ""
        self._lock: BinaryIO | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        recipe_text: str,
        main: bool = True,
        barrier: Callable[[], None] = lambda: None,
        disposable: Collection[str] = (),
    ) -> Self:
        """Creates the run folder or reopens it, and takes its lock until `close()`.

        Where several processes train together, all of them open the run, one with `main=True`. The others take no lock
        and write nothing; they read the ledger after the main process is done with it, so all decide alike.

        Args:
            folder: The run folder; new, empty, or made by an earlier call.
            recipe_text: The resolved recipe, TOML.
            main: Whether this is the process that writes.
            barrier: Called wherever all processes must have arrived before any goes on.
            disposable: Phases that cost nothing. A run that has begun no others may be given another recipe: it starts
                again, and what there is is set aside.

        Raises:
            InputError: The folder is in use, belongs to another recipe, is no run folder, or its ledger is damaged.
        """
        run = cls(Path(folder), main, barrier)
        try:
            if main:
                run._prepare(recipe_text, disposable)
            barrier()
            run._recipe_sha256, run.phases = read_ledger(run.folder)
        except BaseException:
            run.close()
            raise
        return run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the lock; nothing can be committed afterwards."""
        if self._lock is not None:
            lock.release(self._lock)
            self._lock = None

    def finished(self, name: str) -> bool:
        """Whether the ledger lists this phase."""
        return any(phase.name == name for phase in self.phases)

    def verify(self) -> None:
        """Compares every committed file with the ledger.

        Raises:
            InputError: A file is missing or differs; the message names it and the folders to delete.
        """
        for phase in self.phases:
            self._verify(phase)

    def phase(
        self, name: str, work: Callable[[Path], None], into: str | None = None, seconds_before: float = 0.0
    ) -> Path:
        """Makes a phase, or skips it where the ledger vouches for it.

        Args:
            name: Unique in the run; letters, digits, "-", "_" and ".".
            work: Fills the folder that it is given. After a kill it is given the same folder as it was left, with
                some, all or none of its files; what it makes must not depend on that.
            into: The phase's folder, relative to the run folder; by default `phases/NN-name`.
            seconds_before: CPU time that was spent elsewhere on what `work` only fetches.

        Returns:
            The phase's committed folder.

        Raises:
            InputError: A committed file was changed, or the disk is full; whatever was committed stays as it was.
            ValueError: The name or folder cannot be used, or the phase was asked for before.
        """
        if not re.fullmatch(r"\w[\w.-]*", name) or name in self.skipped + self.made:
            raise ValueError(f"got phase name {name!r}, expected a plain one not used before in this run")
        if self._main and self._lock is None:
            raise ValueError(f"run folder {self.folder} is closed; open it again first")
        for phase in self.phases:
            if phase.name == name:
                self._verify(phase)
                self.skipped.append(name)
                logger.info("phase %s: finished before, skipped (%s)", name, self.folder / phase.folder)
                return self.folder / phase.folder
        target, staging = self._places(name, into)
        with durable.explain_full_disk(staging):
            resumed = self._main and self._stage(name, target, staging)
            with self._clock(name, resumed) as seconds:
                self._barrier()  # the staging folder is there
                work(staging)
                self._barrier()  # nobody writes to it any more
                files = durable.seal(staging) if self._main else {}
            if self._main:
                self._commit(name, target, staging, files, seconds() + seconds_before)
            self._barrier()  # committed
        if not self._main:
            _, self.phases = read_ledger(self.folder)
        self.made.append(name)
        return target

    def _prepare(self, recipe_text: str, disposable: Collection[str]) -> None:
        names = {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()
        # A kill while the folder was being created leaves no more than these.
        if "ledger.json" not in names and names - {"lock", ".ledger.json.tmp"}:
            raise InputError(f"{self.folder} is not empty and not a run folder (no ledger.json); use another --out")
        self._lock = lock.take(self.folder)
        recipe = recipe_text.encode()
        if not (self.folder / "ledger.json").exists():
            self._recipe_sha256 = hashlib.sha256(recipe).hexdigest()
            self._write_ledger([])
        self._recipe_sha256, self.phases = read_ledger(self.folder)
        self._check_recipe(recipe, disposable)
        self._drop_gone()

    def _check_recipe(self, recipe: bytes, disposable: Collection[str]) -> None:
        path = self.folder / "recipe.toml"
        new = hashlib.sha256(recipe).hexdigest()
        staged = (re.sub(r"^\.(\d+-)?|\.partial$", "", p.name) for p in (self.folder / "phases").glob(".*.partial"))
        if new != self._recipe_sha256 and {*staged, *(phase.name for phase in self.phases)} <= set(disposable):
            path.unlink(missing_ok=True)
            self._recipe_sha256 = new
            self._drop([], self.phases)
        if not path.exists() and new == self._recipe_sha256:
            durable.atomic_write(path, recipe.decode())  # new, or killed between ledger and recipe
        stored = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(stored).hexdigest() != self._recipe_sha256:
            raise InputError(f"{path} was edited or deleted since the run began; restore it, or use another --out")
        differ = toml.differences(*(tomllib.loads(text.decode()) for text in (stored, recipe)))
        if differ:
            mend = f"use another --out, or delete {self.folder} to start again"
            raise InputError(f"{self.folder} was made with another recipe: {differ[0]}; {mend}")

    def _drop_gone(self) -> None:
        gone = [i for i, phase in enumerate(self.phases) if not (self.folder / phase.folder).is_dir()]
        if not gone:
            return
        kept, dropped = self.phases[: gone[0]], self.phases[gone[0] :]
        self._drop(kept, dropped)
        names = ", ".join(phase.name for phase in dropped)
        logger.warning("%s is gone: phases to be made again: %s", self.folder / dropped[0].folder, names)

    def _drop(self, kept: list[Phase], dropped: list[Phase]) -> None:
        """Forgets phases and sets aside what they and later ones left."""
        # Also what the ledger does not list: staging of a phase that was being made from one that is dropped.
        unlisted = set((self.folder / "phases").glob("*")) | {self.folder / phase.folder for phase in dropped}
        for path in sorted(unlisted):
            holds_kept = any((self.folder / phase.folder).is_relative_to(path) for phase in kept)
            if path.is_dir() and not holds_kept and not re.search(r"\.stale-\d+$", path.name):
                self._set_aside(path)
        self._write_ledger(kept)

    def _set_aside(self, path: Path) -> None:
        stem = path.name.removeprefix(".")
        places = (self.folder / "phases" / f".{stem}.stale-{n}" for n in itertools.count(1))
        aside = next(place for place in places if not place.exists())
        aside.parent.mkdir(exist_ok=True)
        path.rename(aside)
        durable.fsync(path.parent)
        durable.fsync(aside.parent)
        logger.warning("%s is of no use any more; set aside as %s, delete it at will", path, aside)

    def _places(self, name: str, into: str | None) -> tuple[Path, Path]:
        number = 1 + sum(phase.folder.startswith("phases/") for phase in self.phases)
        staging = f".{number:02d}-{name}.partial" if into is None else f".{name}.partial"
        into = into or f"phases/{number:02d}-{name}"
        parts, target = Path(into).parts, self.folder / into
        others = [self.folder / phase.folder for phase in self.phases]
        overlaps = any(target.is_relative_to(other) or other.is_relative_to(target) for other in others)
        if not parts or parts[0] in {"/", "..", *OWN_FILES} or ".." in parts or parts == ("phases",) or overlaps:
            raise ValueError(f"got folder {into!r}, expected a relative one apart from the run's other folders")
        return target, self.folder / "phases" / staging

    def _clock(self, name: str, resumed: bool) -> AbstractContextManager[Callable[[], float]]:
        if not self._main:
            return nullcontext(time.process_time)  # the main process alone is counted
        return clock.counting(self.folder / "clock.jsonl", name, resumed)

    def _stage(self, name: str, target: Path, staging: Path) -> bool:
        """Make the staging folder; whether there was one, or a folder in place that is not listed."""
        if target.exists() and staging.exists():
            raise InputError(f"{target} and {staging} both exist, the ledger lists neither; delete the wrong one")
        staging.parent.mkdir(exist_ok=True)
        resumed = target.exists() or staging.exists()
        if target.exists():
            target.rename(staging)
        staging.mkdir(exist_ok=True)
        logger.info("phase %s: %s in %s", name, "continued" if resumed else "started", staging)
        return resumed

    def _commit(
        self, name: str, target: Path, staging: Path, files: dict[str, tuple[int, str]], seconds: float
    ) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(target)
        for parent in {staging.parent, *target.parents}:
            if parent.is_relative_to(self.folder):
                durable.fsync(parent)
        folder = target.relative_to(self.folder).as_posix()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._write_ledger([*self.phases, Phase(name, folder, round(seconds, 3), now, files)])
        logger.info("phase %s: finished, %d files, %.1f CPU-seconds (%s)", name, len(files), seconds, target)

    def _write_ledger(self, phases: list[Phase]) -> None:
        entries = [asdict(phase) for phase in phases]
        body = {"version": VERSION, "recipe_sha256": self._recipe_sha256, "phases": entries}
        text = json.dumps({**body, "sha256": _checksum(body)}, indent=1) + "\n"
        durable.atomic_write(self.folder / "ledger.json", text)
        self.phases = phases  # only now: what could not be written is not counted as committed

    def _verify(self, phase: Phase) -> None:
        for fault in durable.faults(self.folder / phase.folder, phase.files):
            later = [str(self.folder / other.folder) for other in self.phases[self.phases.index(phase) :]]
            raise InputError(f"{fault}; to make it again delete {' and '.join(later)}, and run the same command")


def read_ledger(folder: Path) -> tuple[str, list[Phase]]:
    """Reads a run's ledger, without taking its lock.

    Returns:
        The SHA-256 of the run's recipe, and its committed phases in order.

    Raises:
        InputError: There is no ledger, or it is not as it was written.
    """
    path = folder / "ledger.json"
    try:
        body: dict[str, Any] = json.loads(path.read_bytes())
        intact = body.pop("sha256") == _checksum(body) and body["version"] == VERSION
        if intact:
            for entry in body["phases"]:
                entry["files"] = {name: (size, sha256) for name, (size, sha256) in entry["files"].items()}
            return body["recipe_sha256"], [Phase(**entry) for entry in body["phases"]]
    except FileNotFoundError:
        raise InputError(f"{folder} is not a run folder (no ledger.json)") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError(
        f"{path} is truncated, was edited, or is of another version of swirl; restore it from a backup, "
        "or use another --out to start again"
    )


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
