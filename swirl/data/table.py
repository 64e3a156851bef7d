"""The schema of a recording, its validation, and what follows from the order of its rows.

`conform` is the one gate: whatever the source, it gives back the columns of `SCHEMA`, in that order, with plain types,
without metadata, and valid. Metadata is dropped because it can name actions (a pandas index, class labels), and
dictionary-encoded columns are decoded because a filtered column keeps the whole dictionary.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from swirl.data.parts import is_struct, parts_text
from swirl.errors import InputError
from swirl.types import COLUMNS, SPLITS

pc: Any = pyarrow.compute  # its functions are made when it is imported, so a type checker sees none of them

logger = logging.getLogger(__name__)

_TYPES = {
    "state": pa.string(),
    "action": pa.string(),
    "next_state": pa.string(),
    "trajectory": pa.string(),
    "step": pa.int64(),
    "terminated": pa.bool_(),
    "truncated": pa.bool_(),
    "reward": pa.float64(),
    "split": pa.string(),
    "layout": pa.string(),
    "partial": pa.bool_(),
}
SCHEMA = pa.schema([(name, _TYPES[name]) for name in (*COLUMNS, "layout", "partial")])
REQUIRED = ("state", "next_state")
INFERRED = "inferred"  # a column that `swirl label` writes: true where a model wrote the action
PIECE = 100  # rows whose images are in memory twice
CHUNK = 10_000  # rows: of a row group, and of whatever else is done in pieces to bound the memory


def conform(table: pa.Table, source: str, lines: np.ndarray | None = None, allow_empty: bool = False) -> pa.Table:
    """A valid recording with exactly the columns of `SCHEMA`.

    Absent columns are filled: every row its own trajectory, steps in the order of the rows, null or False elsewhere.

    Args:
        table: Any table with at least `state` and `next_state`.
        source: What to call the table in errors.
        lines: Line number of each row in its file; rows are counted from 1 where it is not given.
        allow_empty: Whether a table without rows is fine.

    Raises:
        InputError: The table is not a recording; the message starts with `source:line`.
    """

    def where(row: int) -> str:
        return f"{source}:{row + 1 if lines is None else lines[row]}"

    names = table.column_names
    _check_columns(names, source)
    if INFERRED in names and "action" in names:
        table = _recorded(table, source)
    if not table.num_rows and not allow_empty:
        raise InputError(f"{source}: no rows; expected at least one transition")
    columns = {name: _cast(table.column(name), name, source, where) for name in _TYPES if name in names}
    columns.update(_filled(columns, table.num_rows))
    whole = pa.table([columns[field.name] for field in SCHEMA], schema=SCHEMA)
    _check_rows(whole, where)
    return whole


def _recorded(table: pa.Table, source: str) -> pa.Table:
    """The table without the actions that a model inferred: they are no labels, least of all to be measured against."""
    column, action = table[INFERRED], table["action"]
    if not (pa.types.is_boolean(column.type) or pa.types.is_null(column.type)):
        raise InputError(
            f"{source}: column {INFERRED!r} holds {column.type}, expected true where a model wrote the action; "
            "convert or rename it"
        )
    if pa.types.is_dictionary(action.type):
        action = action.cast(action.type.value_type)
    inferred = pc.fill_null(column.cast(pa.bool_()), False)
    count = pc.sum(pc.and_(inferred, pc.is_valid(action))).as_py()
    if count:
        logger.warning(
            "%s: %d actions were inferred by a model and are not taken for labels: their rows count as state-only",
            source,
            count,
        )
    kept = pc.if_else(inferred, pa.scalar(None, action.type), action)
    return table.set_column(table.column_names.index("action"), "action", kept)


def _check_columns(names: list[str], source: str) -> None:
    for name in REQUIRED:
        if name not in names:
            raise InputError(
                f"{source}: no column {name!r} (columns: {', '.join(names) or 'none'}); "
                "expected at least state and next_state: rename or add it"
            )
    for name in _TYPES:
        if names.count(name) > 1:
            raise InputError(f"{source}: column {name!r} occurs {names.count(name)} times, expected once")
    if "step" in names and "trajectory" not in names:
        raise InputError(f"{source}: a step column without a trajectory column; add trajectory, or leave step out")


def _cast(column: pa.ChunkedArray, name: str, source: str, where: Callable[[int], str]) -> pa.ChunkedArray:
    """The column in the type of the schema; texts are never made from anything but text."""
    kind, target = column.type, _TYPES[name]
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    image = pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}
    if name in REQUIRED and (pa.types.is_list(kind) or pa.types.is_large_list(kind) or image):
        return _of_parts(column, name, where)
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    number = pa.types.is_integer(kind)
    fits = pa.types.is_null(kind) or {
        "trajectory": text or number,
        "layout": text or number,
        "step": number or pa.types.is_floating(kind),
        "reward": number or pa.types.is_floating(kind),
        "terminated": pa.types.is_boolean(kind),
        "truncated": pa.types.is_boolean(kind),
        "partial": pa.types.is_boolean(kind),
    }.get(name, text)
    if not fits:
        raise InputError(f"{source}: column {name!r} holds {column.type}, expected {target}; convert it")
    try:
        cast = column.cast(target)
        cast.validate(full=True)  # a Parquet file can call bytes a string that are not UTF-8
    except pa.ArrowException as error:
        raise InputError(f"{source}: column {name!r} does not convert to {target}: {_first_line(error)}") from error
    if name == "reward":  # pandas writes a missing number as NaN
        return pc.if_else(pc.is_nan(cast), pa.scalar(None, target), cast)
    return pc.fill_null(cast, False) if pa.types.is_boolean(target) else cast


def _of_parts(column: pa.ChunkedArray, name: str, where: Callable[[int], str]) -> pa.ChunkedArray:
    """The texts of states that are content parts, or an image each; a few rows at a time, since images are large."""
    texts = []
    for start in range(0, len(column), PIECE):
        values = column.slice(start, PIECE).to_pylist()
        for row, value in enumerate(values, start):
            if value is not None:
                parts = [{"type": "image", "image": value}] if is_struct(value) else value
                values[row - start] = parts_text(parts, where(row), name)
        texts.append(pa.array(values, pa.string()))
    return pa.chunked_array(texts, pa.string())


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _filled(columns: dict[str, pa.ChunkedArray], rows: int) -> dict[str, pa.ChunkedArray | pa.Array]:
    """Values for the columns that the table lacks."""
    filled = {name: pa.nulls(rows, kind) for name, kind in _TYPES.items() if name not in columns}
    for name in ("terminated", "truncated", "partial"):
        if name in filled:
            filled[name] = pa.repeat(False, rows)
    if "trajectory" in filled:
        filled["trajectory"] = pa.array([f"t{row:06d}" for row in range(rows)], pa.string())
        filled["step"] = pa.array(np.zeros(rows, np.int64))
    elif "step" in filled:
        group = codes(columns["trajectory"])[0]
        order = np.argsort(group, kind="stable")
        steps = np.empty(rows, np.int64)
        steps[order] = _positions(group[order])
        filled["step"] = pa.array(steps)
    return filled


def _check_rows(table: pa.Table, where: Callable[[int], str]) -> None:
    """The rules on single values, then on pairs of rows; the first row that breaks one is named."""
    for name in (*REQUIRED, "trajectory", "step"):
        _refuse(pc.is_null(table[name]), where, f"{name} is missing; every row needs one")
    for name in (*REQUIRED, "action"):
        blank = pc.equal(pc.utf8_ltrim_whitespace(table[name]), "")
        null = "; leave it out (null) where it was not recorded" if name == "action" else ""
        _refuse(blank, where, f"{name} is empty, expected text{null}")
    finite = pc.is_finite(table["reward"])
    _refuse(pc.invert(finite), where, "reward is not finite; give a number or null")
    known = pc.is_in(table["split"], value_set=pa.array([*SPLITS, None], pa.string()))
    _refuse(pc.invert(known), where, f"split is none of {', '.join(SPLITS)}")
    group, order = trajectory_order(table)
    step = table["step"].to_numpy()
    same = (group[order][1:] == group[order][:-1]) & (step[order][1:] == step[order][:-1])
    if same.any():
        pairs = np.stack([order[:-1][same], order[1:][same]], axis=1)
        first, second = pairs[np.argmin(pairs[:, 1])].tolist()
        raise InputError(
            f"{where(second)}: trajectory {table['trajectory'][second].as_py()!r} step {step[second]} is at "
            f"{where(first)} already; number the steps, or name the trajectories apart"
        )


def _refuse(bad: pa.ChunkedArray, where: Callable[[int], str], what: str) -> None:
    rows = np.flatnonzero(pc.fill_null(bad, False).to_numpy())
    if len(rows):
        raise InputError(f"{where(int(rows[0]))}: {what}" + (f" (and {len(rows) - 1} more rows)" * (len(rows) > 1)))


def codes(*columns: pa.ChunkedArray) -> list[np.ndarray]:
    """Columns of text as whole numbers, equal where the values are equal, in any column; null has its own."""
    columns = tuple(column.cast(pa.large_string()) for column in columns)  # plain strings end at 2 GiB of text
    distinct = pc.unique(pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.large_string()))
    return [pc.index_in(column, value_set=distinct).to_numpy().astype(np.int64) for column in columns]


def is_partial(table: pa.Table) -> bool:
    """Whether any row says that its state does not say everything that the next one depends on."""
    return bool(pc.any(table["partial"]).as_py())


def pairs(state: np.ndarray, next_state: np.ndarray) -> np.ndarray:
    """One number for each pair of `codes`."""
    return state * (1 + max(state.max(initial=0), next_state.max(initial=0))) + next_state


def trajectory_order(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """The trajectory of each row as a number, and the row numbers in order of trajectory and step."""
    (group,) = codes(table["trajectory"])
    return group, np.lexsort((table["step"].to_numpy(), group))  # stable: ties keep the order of the file


def _positions(sorted_groups: np.ndarray) -> np.ndarray:
    """Place of each row in its run of equal values: [4, 4, 7] -> [0, 1, 0]."""
    rows = np.arange(len(sorted_groups))
    starts = np.ones(len(rows), bool)
    starts[1:] = sorted_groups[1:] != sorted_groups[:-1]
    return rows - np.maximum.accumulate(np.where(starts, rows, 0))


def with_history(table: pa.Table, k: int) -> pa.Table:
    """The table with a `history` column: up to `k` earlier states of the same trajectory, oldest first.

    It has to be made before the rows are parted, since a row's history may lie in another part.

    Args:
        table: A recording, as `read` gives it.
        k: How many earlier states; 0 gives empty lists.

    Raises:
        InputError: `k` is negative.
    """
    if k < 0:
        raise InputError(f"history = {k}, expected 0 or more")
    group, order = trajectory_order(table)
    inverse = np.empty(len(order), np.int64)
    inverse[order] = np.arange(len(order))
    count = np.minimum(_positions(group[order]), k)[inverse]
    states = table["state"].cast(pa.large_string()).combine_chunks()
    chunks = []
    for start in range(0, len(order), CHUNK):
        counts = count[start : start + CHUNK]
        ends = np.cumsum(counts)
        within = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
        rows = order[np.repeat(inverse[start : start + CHUNK] - counts, counts) + within]
        offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
        chunks.append(pa.ListArray.from_arrays(offsets, states.take(pa.array(rows)).cast(pa.string())))
    return table.append_column("history", pa.chunked_array(chunks, pa.list_(pa.string())))
