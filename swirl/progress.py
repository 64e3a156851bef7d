"""What the user sees while waiting, and the tables at the end.

Progress goes to stderr, results to stdout, so that a pipe gets results only. On a terminal `bar` draws a live bar with
count and time left; in a log file it prints a plain line now and then instead, because redrawing would fill the file.
Tasks under two seconds leave no trace in either. rich is imported inside the functions: `--help` must stay fast.

    with bar("label", total=len(rows)) as progress:
        for row in rows:
            ...
            progress.advance(reward=-0.31)
"""

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

QUIET_VARIABLE = "SWIRL_QUIET"
"""Environment variable that silences progress (not tables) when set to anything but "" and "0"."""

SHOW_AFTER = 2.0
"""Seconds that a task may take before anything is shown of it."""

LINE_EVERY = 10.0
"""Least seconds between two plain lines of one task; its last line is exempt."""


def set_quiet(quiet: bool) -> None:
    """Silence progress, or show it again, in this process and in those that it starts."""
    os.environ[QUIET_VARIABLE] = "1" if quiet else "0"


def is_quiet() -> bool:
    """Whether progress is silenced; tables are results and are printed all the same."""
    return os.environ.get(QUIET_VARIABLE, "") not in ("", "0")


class Bar:
    """The state of one task, and what its owner calls to report.

    Attributes:
        completed: Units done.
        fields: The latest value of each field shown beside the bar, such as `{"reward": -0.31}`.
    """

    def __init__(self, completed: int = 0, report: Callable[[], None] = lambda: None) -> None:
        self.completed = completed
        self.fields: dict[str, object] = {}
        self._report = report

    def advance(self, n: int = 1, **fields: object) -> None:
        """Report n more units done, and new values of the fields named."""
        self.update(self.completed + n, **fields)

    def update(self, completed: int | None = None, **fields: object) -> None:
        """Report how many units are done in all (as before, if not given), and new values of the fields named."""
        self.completed = self.completed if completed is None else completed
        self.fields |= fields
        self._report()


@contextmanager
def bar(
    description: str, total: int | None = None, completed: int = 0, clock: Callable[[], float] = time.monotonic
) -> Iterator[Bar]:
    """Show the progress of the body on stderr.

    Args:
        description: What is going on, in a word or two.
        total: Units to do; `None` where nobody knows, which shows the count alone.
        completed: Units that an earlier run already did; they do not count for the time left.
        clock: Seconds from any origin; tests put their own.

    Yields:
        The task, to report to.
    """
    if is_quiet():
        yield Bar(completed)
    elif sys.stderr.isatty():
        with _live_bar(description, total, completed, clock) as task:
            yield task
    else:
        with _plain_lines(description, total, completed, clock) as task:
            yield task


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table to stdout without cutting any cell.

    On a terminal long cells fold; elsewhere the table is as wide as it needs to be, one line per row. Floats get four
    significant digits, `None` is blank; columns of numbers are flushed right.

    Raises:
        ValueError: A row has not one cell per column.
    """
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        numbers = all(row[i] is None or isinstance(row[i], int | float) for row in rows if len(row) > i)
        # Text, not str: cells are data, and a "[red]" in them is no markup.
        drawn.add_column(Text(column), justify="right" if rows and numbers else "left", overflow="fold")
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"got a row of {len(row)} cells, {list(row)}, expected {len(columns)}: {list(columns)}")
        drawn.add_row(*(Text(_format(cell)) for cell in row))
    console = Console()
    if not sys.stdout.isatty():
        unlimited = console.options.update_width(100_000)
        console = Console(width=max(Measurement.get(console, unlimited, drawn).maximum, 1))
    console.print(Text(title, style="bold"), soft_wrap=True)
    console.print(drawn)


@functools.cache
def _stderr_console() -> "Console":
    """The one console of all live bars, so that rich stacks nested bars instead of overwriting one with the other."""
    from rich.console import Console

    return Console(stderr=True)


@contextmanager
def _live_bar(description: str, total: int | None, completed: int, clock: Callable[[], float]) -> Iterator[Bar]:
    from rich.console import Group
    from rich.live import Live
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=_stderr_console(),
        get_time=clock,
    )
    start = clock()
    row = progress.add_task(description, total=total, completed=completed, note="")
    task = Bar(completed, lambda: progress.update(row, completed=task.completed, note=_fields_text(task.fields)))
    live = Live(
        get_renderable=lambda: progress if clock() - start >= SHOW_AFTER else Group(),
        console=_stderr_console(),
        # What the body prints goes above the bar, but never off to stderr when stdout is a pipe.
        redirect_stdout=sys.stdout.isatty(),
    )
    with live:
        yield task


@contextmanager
def _plain_lines(description: str, total: int | None, completed: int, clock: Callable[[], float]) -> Iterator[Bar]:
    start = last = clock()

    def line(state: str) -> None:
        count = f"{task.completed}" if total is None else f"{task.completed}/{total}"
        parts = [f"{description}: {count}", state, _fields_text(task.fields)]
        print(", ".join(part for part in parts if part), file=sys.stderr, flush=True)

    def report() -> None:
        nonlocal last
        now = clock()
        if now - last >= LINE_EVERY:
            last = now
            done = task.completed - completed
            line(f"{_duration((now - start) / done * (total - task.completed))} left" if total and done > 0 else "")

    task = Bar(completed, report)
    outcome = "stopped after"
    try:
        yield task
        outcome = "done in"
    finally:
        elapsed = clock() - start
        if elapsed >= SHOW_AFTER:
            line(f"{outcome} {_duration(elapsed)}")


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds, as in rich's columns: 0:01:10."""
    minutes, second = divmod(round(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def _fields_text(fields: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {_format(value)}" for name, value in fields.items())


def _format(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
