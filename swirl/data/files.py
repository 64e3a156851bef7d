"""Recordings in and out: Parquet and JSONL (plain or gzipped).

A file is whole or it is absent: it is written beside its place under a hidden name and renamed when it is complete.
Nothing is ever written outside the folder of the file, the user's cache included.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import logging
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from swirl.data.parts import parts_text, with_absolute_images
from swirl.data.table import CHUNK, INFERRED, REQUIRED, SCHEMA, conform
from swirl.errors import InputError

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

JSONL = (".jsonl", ".json", ".jsonl.gz")
TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".pq", ".json.gz", ".ndjson", ".ndjson.gz")
OURS = (
    "behaviour",
    "history",
    "frame",
    "next_frame",
    INFERRED,
)  # columns that we write ourselves and that no reader needs to hear about
JSON_TYPES: dict[str, tuple[type, ...]] = {
    "state": (str, list),
    "action": (str,),
    "next_state": (str, list),
    "trajectory": (str, int),
    "step": (int,),
    "terminated": (bool,),
    "truncated": (bool,),
    "reward": (float, int),
    "split": (str,),
    "layout": (str, int),
    "partial": (bool,),
    INFERRED: (bool,),
}
READ = pa.schema([*SCHEMA, (INFERRED, pa.bool_())])  # what `conform` is given


def prepare(path: Path) -> None:
    """Make the folder of a file that is to be written.

    Raises:
        InputError: It cannot be made, or `path` is a folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot make the folder {path.parent}: {error.strerror}") from error
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected the name of a file to write")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden path beside `path` to write to; it takes the place of `path` when the block ends without an error.

    What a killed process left there is written over.

    Raises:
        InputError: The folder cannot be made, `path` is a folder, or another process is writing it.
    """
    prepare(path)
    part = path.with_name(f".{path.name}.part")
    try:
        held = part.open("ab")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}; give another place") from error
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{path}: another process is writing it; wait for it, or give another name") from None
        try:
            yield part
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def read(path: str | Path, say_left_out: bool = True) -> pa.Table:
    """A recording, validated: the columns of `SCHEMA`, in the order of the file; the paths of images are absolute.

    `state` and `next_state` are required. Without `trajectory` every row is its own; without `step` the rows of a
    trajectory are in order. The other columns are filled with null or False. Columns that are not ours are left out
    and named in a warning.

    Args:
        path: A `.parquet`, `.jsonl`, `.json` (an object a line) or `.jsonl.gz` file.
        say_left_out: Whether to warn so; not where the caller keeps those columns (see `streaming`).

    Raises:
        InputError: The file is missing, unreadable or not a recording; the message names the line.
    """
    return _read(Path(path), allow_empty=False, say_left_out=say_left_out)


def read_part(path: str | Path) -> pa.Table:
    """`read`, for a part of a split, which may rightly have no rows.

    Raises:
        InputError: As `read`.
    """
    return _read(Path(path), allow_empty=True, say_left_out=True)


def _read(path: Path, allow_empty: bool, say_left_out: bool) -> pa.Table:
    if not path.is_file():
        what = "is a folder, expected a file" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {what}; give a Parquet or JSONL recording")
    if path.name.endswith(".parquet"):
        (table, names), lines = _read_parquet(path), None
    elif path.name.endswith(JSONL):
        table, lines, names = _read_jsonl(path)
    else:
        mend = f"; `swirl import table {path} --out ...` makes a recording of it" * path.name.lower().endswith(TABLES)
        raise InputError(f"{path}: unknown kind of file, expected .parquet or {', '.join(JSONL)}{mend}")
    extra = sorted(names.difference(SCHEMA.names, OURS))
    if extra and say_left_out:
        logger.warning("%s: left out %d columns that are not used: %s", path.name, len(extra), ", ".join(extra))
    table = conform(table, path.name, lines, allow_empty)
    for name in REQUIRED:
        column = with_absolute_images(table[name], path.parent)
        table = table.set_column(table.schema.get_field_index(name), SCHEMA.field(name), column)
    return table


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        line = (str(error).splitlines() or ["unreadable"])[0]
        raise InputError(f"{path}: not a whole Parquet file ({line}); write it again") from error


def _read_parquet(path: Path) -> tuple[pa.Table, set[str]]:
    """The columns that are ours, and the names of all."""
    with _parquet_errors(path), pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        return file.read(columns=[name for name in READ.names if name in names]), set(names)


def _read_jsonl(path: Path) -> tuple[pa.Table, np.ndarray, set[str]]:
    """The rows that the file has, the line of each, and the names of all columns; only columns that some row has."""
    names: set[str] = set()
    lines: list[int] = []
    batches: list[pa.RecordBatch] = []
    rows: list[dict] = []
    for line, row in _json_rows(path):
        names.update(row)
        lines.append(line)
        rows.append(checked(row, f"{path.name}:{line}"))
        if len(rows) == CHUNK:
            batches.append(pa.RecordBatch.from_pylist(rows, READ))
            rows = []
    batches.append(pa.RecordBatch.from_pylist(rows, READ))
    table = pa.Table.from_batches(batches, READ)
    present = [name for name in READ.names if name in names or name in REQUIRED]
    return table.select(present), np.array(lines, np.int64), names


def _json_rows(path: Path) -> Iterator[tuple[int, dict]]:
    line = 0
    try:
        with cast(IO[bytes], gzip.open(path) if path.name.endswith(".gz") else path.open("rb")) as file:
            for line, raw in enumerate(file, start=1):
                if not raw.strip():
                    continue
                row = json.loads(raw.decode("utf-8-sig" if line == 1 else "utf-8"))
                if not isinstance(row, dict):
                    kind = type(row).__name__
                    raise InputError(f"{path.name}:{line}: got a JSON {kind}, expected one object a line")
                if b"\\ud" in raw.lower():
                    json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is no text
                yield line, row
    except InputError:
        raise
    except (UnicodeEncodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path.name}:{line}: not valid Unicode text ({error.reason}); write it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name}:{line}: not valid JSON ({error}); expected one object a line") from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path.name}: cannot be read after line {line} ({error}); write it again") from error


def checked(row: dict, where: str) -> dict[str, Any]:
    """The row with the types of the schema."""
    for name in REQUIRED:
        if name not in row:
            raise InputError(f"{where}: no {name!r} (keys: {', '.join(row)}); expected at least state and next_state")
    values: dict[str, Any] = {}
    for name, kinds in JSON_TYPES.items():
        value = row.get(name)
        if value is None:
            continue
        if name == "step" and isinstance(value, float) and value.is_integer():
            value = int(value)  # pandas writes whole numbers so where some are missing
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            expected = "text" if str in kinds else "true or false" if bool in kinds else "a number"
            expected += "" if name in REQUIRED else " or null"
            raise InputError(f"{where}: {name} is {json.dumps(value, default=repr)[:60]}, expected {expected}")
        if isinstance(value, list):
            value = parts_text(value, where, name)
        if name in ("trajectory", "layout"):
            value = str(value)
        try:
            values[name] = float(value) if name == "reward" else int(np.int64(value)) if name == "step" else value
        except OverflowError as error:
            raise InputError(f"{where}: {name} is too large a number") from error
    return values


def export(table: pa.Table, path: str | Path) -> None:
    """Write a table as Parquet or JSONL, by the ending of `path`. What `read` gives comes back the same.

    Raises:
        InputError: The ending is not known, or the file cannot be made.
    """
    path = Path(path)
    if not path.name.endswith((".parquet", *JSONL)):
        raise InputError(f"{path}: unknown kind of file, expected .parquet or {', '.join(JSONL)}")
    with replacing(path) as part:
        if path.name.endswith(".parquet"):
            write_parquet(table, part)
            return
        with part.open("wb") as raw:
            if not path.name.endswith(".gz"):
                _write_jsonl(table, raw)
                return
            # no name and no time in the header: the same table is the same bytes
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
                _write_jsonl(table, cast(IO[bytes], file))


def _write_jsonl(table: pa.Table, file: IO[bytes]) -> None:
    for batch in table.to_batches(max_chunksize=CHUNK):
        for row in batch.to_pylist():
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def write_parquet(table: pa.Table, path: Path, note: dict[bytes, bytes] | None = None) -> None:
    """Write a table as Parquet with this metadata and no other; the same table gives the same bytes."""
    pq.write_table(table.replace_schema_metadata(note), path, row_group_size=CHUNK, compression="zstd")


def load(path: str | Path) -> datasets.Dataset:
    """A Parquet file as a `datasets.Dataset`, every column as it is; held in memory, with no cache on disk.

    Raises:
        InputError: The file is missing or not whole.
    """
    import datasets
    from datasets.table import InMemoryTable

    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected one of the files that split wrote")
    with _parquet_errors(path), pq.ParquetFile(path) as file:
        return datasets.Dataset(InMemoryTable(file.read()))
