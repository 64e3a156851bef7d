"""Recordings rewritten piece by piece, with the columns that are the user's own.

`read` keeps the columns of the schema and no others; what is written for a user to go on with keeps all of them.
"""

import gzip
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from swirl.data.files import _json_rows, _parquet_errors, replacing
from swirl.data.overwriting import note
from swirl.data.table import SCHEMA
from swirl.errors import InputError

Rows = list[dict[str, Any]]


def own_columns(path: Path, size: int, without: tuple[str, ...] = ()) -> Iterator[Rows]:
    """The columns of a recording that are not of the schema, `size` rows at a time, in the order of the file.

    Args:
        path: A recording that `read` takes.
        size: Rows of a piece.
        without: Columns to leave out as well.
    """
    ours = {*SCHEMA.names, *without}
    if path.name.endswith(".parquet"):
        with _parquet_errors(path), pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name not in ours]
            for batch in file.iter_batches(size, columns=names):
                yield batch.to_pylist() if names else [{}] * batch.num_rows
        return
    rows: Rows = []
    for _, row in _json_rows(path):
        rows.append({name: value for name, value in row.items() if name not in ours})
        if len(rows) == size:
            yield rows
            rows = []
    if rows:
        yield rows


def own_names(path: Path) -> set[str]:
    """The names of the columns of a recording that are not of the schema."""
    if path.name.endswith(".parquet"):
        return set(own_schema(path, 1).names)
    return {name for _, row in _json_rows(path) for name in row}.difference(SCHEMA.names)


def own_schema(path: Path, size: int, without: tuple[str, ...] = ()) -> pa.Schema:
    """The types of `own_columns`; those of JSONL are found by reading it through.

    Raises:
        InputError: A column of JSONL holds values that no one type can.
    """
    ours = {*SCHEMA.names, *without}
    if path.name.endswith(".parquet"):
        with _parquet_errors(path), pq.ParquetFile(path) as file:
            return pa.schema([field for field in file.schema_arrow if field.name not in ours])
    found = pa.schema([])
    for rows in own_columns(path, size, without):
        for name in dict.fromkeys(name for row in rows for name in row):
            try:
                kind = pa.array([row.get(name) for row in rows]).type
                found = pa.unify_schemas([found, pa.schema([(name, kind)])], promote_options="permissive")
            except (pa.ArrowException, OverflowError) as error:
                raise InputError(
                    f"{path}: column {name!r} holds values of several kinds ({str(error).splitlines()[0]}); write to a "
                    ".jsonl file, which keeps them as they are"
                ) from error
    return found


@contextmanager
def writing(path: str | Path, schema: Callable[[], pa.Schema], command: str) -> Iterator[Callable[[Rows], None]]:
    """A function that writes rows to a Parquet (a row group a call) or JSONL file, whole or absent.

    Args:
        path: The file; its ending says which kind.
        schema: Gives the columns; asked for Parquet only.
        command: Whose file it is, see `overwriting`.
    """
    path = Path(path)
    with replacing(path) as part:
        if path.name.endswith(".parquet"):
            columns = schema().with_metadata(note(command))
            with pq.ParquetWriter(part, columns, compression="zstd") as writer:
                yield lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema=columns))
            return
        with part.open("wb") as raw:
            if path.name.endswith(".gz"):
                with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file:
                    yield lambda rows: _write_lines(rows, cast(IO[bytes], file))
            else:
                yield lambda rows: _write_lines(rows, raw)


def _write_lines(rows: Rows, file: IO[bytes]) -> None:
    for row in rows:
        known = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
        file.write(json.dumps(known, ensure_ascii=False, default=str).encode() + b"\n")
