"""From any source to one Parquet recording, a row at a time.

A format's module has `read(paths, context)`, which gives rows and faults in the order of the source. What all formats
share happens here: numbering, checking, cutting, the label budget, counting, and a file that is whole or absent. Memory
holds a group of rows, whatever the size of the source (and about 100 bytes for each trajectory, 20 for each label).
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from swirl import progress
from swirl.data.files import replacing
from swirl.data.overwriting import check_replaceable, note
from swirl.data.table import CHUNK, SCHEMA
from swirl.errors import InputError
from swirl.importers import frames
from swirl.importers.budget import Labels
from swirl.importers.context import NEXT_STATES, SHOWN, Context, Options
from swirl.importers.cutting import POLICIES, shortened
from swirl.importers.rows import Fault, Places, Row, problem
from swirl.worlds.base import unknown

logger = logging.getLogger(__name__)

FORMATS = {
    "table": "rows of states: Parquet, JSONL, JSON, CSV, or a folder that `datasets` saved",
    "chat": "conversations with tool calls, in the OpenAI messages format",
    "toolbench": "answer files of ToolBench and StableToolBench",
    "mind2web": "task files of Mind2Web",
    "minari": "a Minari dataset",
    "snapshots": "a folder of numbered text or HTML files",
    "video": "video files, without actions",
    "pairs": "pairs of images with an instruction: AURORA, Pico-Banana-400K, ByteMorph",
}
"""Name of a format, which is that of its module -> what it reads."""

REDACTED = frozenset(["chat", "toolbench"])
"""Formats in which secrets are masked unless the user says otherwise."""

ONLY: dict[str, tuple[str, ...]] = {
    "columns": ("table",),
    "format": ("pairs",),
    "size": ("table", "pairs", "video"),
    **dict.fromkeys(("stride", "scene_cut", "min_change", "start", "end"), ("video",)),
}
"""Options that not every format reads, and those that do."""

GROUP = 1 << 26  # characters of a row group: long states must not add up to a large memory


def import_recording(
    form: str,
    sources: list[str],
    out: str | Path,
    options: Options | None = None,
) -> dict[str, int]:
    """Write one Parquet recording from sources of one format.

    Args:
        form: One of `FORMATS`.
        sources: Files or folders.
        out: The `.parquet` file to write; an import of the same format that is there is replaced when the new one is
            whole.
        options: What the user chose.

    Returns:
        Counts: transitions, trajectories, labels, malformed, and others by name where they are not 0.

    Raises:
        InputError: An argument cannot be used, a file is there that would be lost, there is no transition at all, or
            `strict` met a malformed record.
        MissingPartError: The format needs a package that is not installed; names the command.
    """
    out, options = Path(out), options or Options()
    _check(form, out, options)
    command = f"import {form}"
    check_replaceable(out, command, sources)
    schema = SCHEMA.with_metadata(note(command))
    module = import_module(f"swirl.importers.{form}")
    labels = Labels()
    with (
        replacing(out) as part,
        frames.beside(out) as kept_images,
        progress.bar(f"import {form}, %", 100) as bar,
    ):
        context = Context(options, bar, kept_images)
        with _writing(part, schema) as write:
            for row in _admitted(module.read(sources, context), context):
                if row.action is not None and options.labels is not None:
                    labels.add(context.counts["transitions"] - 1, row, options.seed)
                write(row)
        context.reached(1.0)
        context.report()
        if not context.counts["transitions"]:
            raise InputError(_nothing(sources, context))
        if options.labels is not None:
            kept = labels.kept(options.labels)
            _rewrite(part, schema, lambda table, start: _with_labels(table, start, kept))
            context.counts["labels"] = len(kept)
        if context.same_layout:
            _rewrite(part, schema, lambda table, _: _with_layouts(table, context.layout))
    _tell(context)
    return {name: context.counts[name] for name in ("transitions", "trajectories", "labels", "malformed")} | {
        name: count for name, count in context.counts.items() if count
    }


def _check(form: str, out: Path, options: Options) -> None:
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    if out.suffix != ".parquet":
        raise InputError(f"{out}: a recording is written as Parquet; end the name with .parquet")
    if options.too_long not in POLICIES:
        raise unknown("policy of --too-long", options.too_long, POLICIES)
    if options.next_state not in NEXT_STATES:
        raise unknown("--next-state", options.next_state, NEXT_STATES)
    if options.max_state is not None and options.max_state < 1:
        raise InputError(f"--max-state {options.max_state}: expected a number of characters above 0")
    if options.drop_actions and options.labels is not None:
        raise InputError("--drop-actions leaves no label for --labels to choose; give one of them")
    for name, forms in ONLY.items():
        if form not in forms and getattr(options, name) != getattr(Options(), name):
            flag = name.replace("columns", "column").replace("_", "-")
            raise InputError(f"--{flag} is for {', '.join(forms)}; format {form!r} does not read it")


def _admitted(items: Iterable[Row | Fault], context: Context) -> Iterator[Row]:
    """The rows that are written, numbered, checked and cut."""
    options, places = context.options, Places()
    records = 0
    for item in items:
        records += 1
        if records % 256 == 0:
            context.report()
        if isinstance(item, Fault):
            context.fault(item)
            continue
        row = item
        row.action = None if options.drop_actions or not (row.action or "").strip() else row.action
        wrong = problem(row)
        if wrong is not None:
            context.fault(Fault(row.where, wrong))
            continue
        changed = row.state != row.next_state
        cut = options.max_state is not None and shortened(row, options.max_state, options.too_long)
        if cut is None:
            context.counts["left out (too long)"] += 1
            continue
        context.counts["cut"] += cut
        context.counts["cut with the change"] += changed and row.state == row.next_state
        if not places.name(row, context.counts["transitions"]):
            context.fault(Fault(row.where, f"trajectory {row.trajectory!r} step {row.step} is there already"))
            continue
        context.counts["transitions"] += 1
        context.counts["labels"] += row.action is not None
        yield row
    context.counts["trajectories"] = places.trajectories()


@contextmanager
def _writing(path: Path, schema: pa.Schema) -> Iterator[Callable[[Row], None]]:
    """A function that writes rows, gathered to groups that are neither long in rows nor in characters."""
    rows: list[dict] = []
    size = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:

        def flush() -> None:
            nonlocal rows, size
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema), row_group_size=CHUNK)
            rows, size = [], 0

        def write(row: Row) -> None:
            nonlocal size
            rows.append(row.values())
            size += len(row.state) + len(row.next_state)
            if len(rows) == CHUNK or size > GROUP:
                flush()

        yield write
        if rows:
            flush()


def _rewrite(path: Path, schema: pa.Schema, change: Callable[[pa.Table, int], pa.Table]) -> None:
    """Rewrite a recording by groups of rows; `change` is given a group and the number of its first row."""
    other = path.with_name(f"{path.name}.again")
    try:
        with pq.ParquetFile(path) as file, pq.ParquetWriter(other, schema, compression="zstd") as writer:
            start = 0
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                writer.write_table(change(table, start))
                start += table.num_rows
        other.replace(path)
    finally:
        other.unlink(missing_ok=True)


def _with_labels(table: pa.Table, start: int, kept: np.ndarray) -> pa.Table:
    """The rows without the actions of all but the given ones."""
    mask = np.isin(np.arange(start, start + table.num_rows), kept)
    actions = pa.array(table["action"].to_pylist(), pa.string(), mask=~mask)
    return table.set_column(SCHEMA.get_field_index("action"), "action", actions)


def _with_layouts(table: pa.Table, name: Callable[[str], str]) -> pa.Table:
    """The rows with one name for all layouts that are the same."""
    layouts = pa.array([name(layout) for layout in table["layout"].to_pylist()], pa.string())
    return table.set_column(SCHEMA.get_field_index("layout"), "layout", layouts)


def _nothing(sources: list[str], context: Context) -> str:
    more = ", ".join(f"{count:,} {name}" for name, count in context.counts.items() if count)
    more += f"; the first is {context.first.where}: {context.first.reason}" if context.first else ""
    return f"{', '.join(sources)}: no transition found" + (f" ({more})" if more else "") + "; is the format right?"


def _tell(context: Context) -> None:
    if context.faults > SHOWN:
        logger.warning("%d malformed records in all; the first %d are named above", context.counts["malformed"], SHOWN)
