"""A transition on its way into a recording, what makes it malformed, and the places that are taken."""

import math
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from swirl.data.table import SCHEMA
from swirl.types import SPLITS

TOGETHER = " || "  # between the actions of one step


class Fault(NamedTuple):
    """A record that cannot be read.

    Attributes:
        where: The file and the line of it, as "file:line".
        reason: What is wrong with it, one line.
        records: How many it stands for.
    """

    where: str
    reason: str
    records: int = 1


@dataclass
class Row:
    """A transition and where it came from; the columns are those of `swirl.data.table.SCHEMA`.

    Attributes:
        where: The file and the line of it, as "file:line".
        trajectory: Its name; `None` makes the row a trajectory of its own.
        step: Its place; `None` is the one after the last.
        kind: The type of the action, by which a label budget is stratified; `None` is the action's first word.
    """

    where: str
    state: str
    next_state: str
    action: str | None = None
    trajectory: str | None = None
    step: int | None = None
    terminated: bool = False
    truncated: bool = False
    reward: float | None = None
    split: str | None = None
    layout: str | None = None
    partial: bool = False
    kind: str | None = None

    def values(self) -> dict[str, Any]:
        """The row as it is written."""
        return {name: getattr(self, name) for name in SCHEMA.names}


def problem(row: Row) -> str | None:
    """What makes a row malformed; `None` if it is fine. `read` takes every row that is fine."""
    for name in ("state", "next_state"):
        if not getattr(row, name).strip():
            return f"{name} is empty, expected text"
    if row.reward is not None and not math.isfinite(row.reward):
        return "reward is not finite"
    if row.split is not None and row.split not in SPLITS:
        return f"split is {row.split!r}, expected one of {', '.join(SPLITS)}"
    for name in ("state", "next_state", "action", "trajectory", "layout"):
        try:
            (getattr(row, name) or "").encode()
        except UnicodeEncodeError:
            return f"{name} is not valid Unicode text"
    return None


class Places:
    """The (trajectory, step) pairs that are taken; small while steps count up, as they nearly always do."""

    _UNNAMED = "\0"  # whose steps are the numbers of the trajectories that have no name of their own

    def __init__(self) -> None:
        self._runs: dict[str, tuple[int, int]] = {}  # first and last of steps that follow one another
        self._others: dict[str, set[int]] = {}

    def name(self, row: Row, number: int) -> bool:
        """Give a row of the recording its trajectory and step where it lacks them; whether its place was free."""
        if row.trajectory is None:
            row.trajectory, row.step = f"t{number:06d}", 0
            return row.trajectory not in self._runs and self._take(self._UNNAMED, number)
        if re.fullmatch(r"t\d{6,18}", row.trajectory) and self._taken(self._UNNAMED, int(row.trajectory[1:])):
            return False
        if row.step is None:
            row.step = self._runs.get(row.trajectory, (0, -1))[1] + 1
        return self._take(row.trajectory, row.step)

    def trajectories(self) -> int:
        """How many there are."""
        first, last = self._runs.get(self._UNNAMED, (0, -1))
        unnamed = last - first + 1 + len(self._others.get(self._UNNAMED, ()))
        return len(self._runs) - (self._UNNAMED in self._runs) + unnamed

    def _taken(self, trajectory: str, step: int) -> bool:
        first, last = self._runs.get(trajectory, (0, -1))
        return first <= step <= last or step in self._others.get(trajectory, ())

    def _take(self, trajectory: str, step: int) -> bool:
        if self._taken(trajectory, step):
            return False
        first, last = self._runs.get(trajectory, (step, step - 1))
        if step == last + 1:
            self._runs[trajectory] = (first, step)
        else:
            self._others.setdefault(trajectory, set()).add(step)
        return True
