"""Rows of states in a file of any layout: Parquet, JSONL, JSON, CSV, or a folder that `datasets` saved.

Columns are found by our names, or by those that `--column` gives. A list of actions between two states is one action,
joined by ` || `; an empty one is none. An object as a state is one line for each entry, `name value`, with dotted names
for what is inside others; as an action it is JSON. An action that a model inferred (`swirl label`) is left out. The
splits of a `datasets` folder are kept where they are named train, validation (or valid, val, dev, eval) and test.
"""

import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from swirl.data.files import JSON_TYPES, OURS, checked
from swirl.data.parts import is_struct
from swirl.data.table import CHUNK, INFERRED, REQUIRED, SCHEMA
from swirl.errors import InputError
from swirl.importers import cells
from swirl.importers.context import Context
from swirl.importers.rows import TOGETHER, Fault, Row
from swirl.importers.sources import JSON, Source, Value, files, values
from swirl.worlds.base import unknown

logger = logging.getLogger(__name__)

PARQUET = (".parquet", ".pq")
SAVED = ("dataset_dict.json", "state.json")  # what `datasets.save_to_disk` writes
SPLIT_NAMES = {
    "train": "train",
    "test": "test",
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
}
Item = Value | Fault


class Unusable(ValueError):
    """A file that has no rows for us."""


def read(paths: list[str], context: Context) -> Iterator[Row | Fault]:
    """The transitions of all files; of each file in its order."""
    for name in context.options.columns:
        if name not in SCHEMA.names:
            raise unknown("column", name, SCHEMA.names)
    given = list({path.resolve(): path for path in map(Path, paths)}.values())
    saved = [path for path in given if any((path / name).is_file() for name in SAVED)]
    others = [str(path) for path in given if path not in saved]
    sources = files(others, (*PARQUET, *JSON, *cells.ENDINGS)) if others else []
    columns = _Columns(context)
    total = len(sources) + len(saved)
    for number, source in enumerate([*sources, *saved]):
        folder = source if isinstance(source, Path) else source.path.parent
        try:
            for item in _items(source, lambda share, n=number: context.reached((n + share) / total), columns):
                yield item if isinstance(item, Fault) else columns.row(item, folder)
        except Unusable as error:
            yield Fault(source.name, str(error))
        context.reached((number + 1) / total)
    columns.tell()


class _Columns:
    """From a row of the source to one of ours."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.renamed = {ours: context.options.columns.get(ours, ours) for ours in (*SCHEMA.names, INFERRED)}
        self._found: dict[str, None] = {}  # names, in the order of their finding

    def needed(self, names: list[str]) -> list[str]:
        """The columns to read of those that a file has.

        Raises:
            Unusable: One that has to be there is not, or is there twice.
        """
        self._found.update(dict.fromkeys(names))
        if not names:
            raise Unusable("the file is empty, expected the names of its columns")
        for ours, theirs in self.renamed.items():
            if theirs not in names and (ours in REQUIRED or ours in self._context.options.columns):
                raise Unusable(_unknown(ours, theirs, names))
            if names.count(theirs) > 1:
                raise Unusable(f"{names.count(theirs)} columns {theirs!r}, nobody knows which is meant")
        return [name for name in names if name in self.renamed.values()]

    def is_record(self, value: Any) -> bool:
        """Whether a JSON value is a row."""
        return isinstance(value, dict) and all(self.renamed[name] in value for name in REQUIRED)

    def row(self, item: Value, folder: Path) -> Row | Fault:
        """The row, or what is wrong with it; paths of images are relative to `folder`."""
        if not isinstance(item.value, dict):
            return Fault(
                item.where, f"got a JSON {type(item.value).__name__}, expected an object with state, next_state"
            )
        self._found.update(dict.fromkeys(item.value))
        for name in REQUIRED:
            if self.renamed[name] not in item.value:
                return Fault(item.where, _unknown(name, self.renamed[name], list(item.value)))
            if item.value[self.renamed[name]] is None:
                return Fault(item.where, f"{name} is empty, expected text")
        found = {ours: item.value[theirs] for ours, theirs in self.renamed.items() if theirs in item.value}
        for name in REQUIRED:
            if is_struct(found[name]):
                found[name] = [{"type": "image", "image": found[name]}]
            elif isinstance(found[name], dict):
                found[name] = "\n".join(sorted(_entries(found[name])))
            elif isinstance(found[name], list) and not all(isinstance(part, dict) for part in found[name]):
                what = "is a list, expected text or an object; join it to text, or give its entries names"
                return Fault(item.where, f"{name} {what}")
        actions = found.get("action")
        if isinstance(actions, dict):
            found["action"] = _json(actions)
        if isinstance(actions, list) and all(isinstance(action, str) for action in actions):
            found["action"] = TOGETHER.join(action for action in actions if action.strip())
        try:
            known = checked(found, item.where)
            for name in REQUIRED:
                known[name] = self._context.state(known[name], folder)
        except InputError as error:
            return Fault(item.where, str(error).removeprefix(f"{item.where}: "))
        if known.get("step") is not None and known.get("trajectory") is None:
            return Fault(item.where, "a step without a trajectory")
        if known.pop(INFERRED, False) and known.pop("action", None):
            self._context.counts["inferred actions left out"] += 1
        if known.get("action"):
            known["action"] = self._context.text(known["action"])
        return Row(item.where, **known)

    def tell(self) -> None:
        """Name the columns that were not used.

        Raises:
            InputError: No file has a column that the user named.
        """
        for ours, theirs in self._context.options.columns.items():
            if self._found and theirs not in self._found:
                raise InputError(_unknown(ours, theirs, list(self._found)))
        if names := sorted(self._found.keys() - set(self.renamed.values()) - set(OURS)):
            logger.warning("left out %d columns that are not used: %s", len(names), ", ".join(names))


def _entries(value: dict[str, Any], inside: str = "") -> Iterator[str]:
    """A line for each entry, dotted names where objects are nested; text stays as it is if it is one line."""
    for key, entry in value.items():
        name = f"{inside}{key}"
        if isinstance(entry, dict) and entry:
            yield from _entries(entry, f"{name}.")
        else:
            yield f"{name} {entry if isinstance(entry, str) and entry.splitlines() == [entry] else _json(entry)}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)


def _unknown(ours: str, theirs: str, names: list[str]) -> str:
    return f"{unknown('column', theirs, names)}; name it by --column {ours}=NAME"


def _items(source: Source | Path, reached: Callable[[float], None], columns: _Columns) -> Iterator[Item]:
    """The rows of a file or a folder; `reached` is told which share of it was read."""
    if isinstance(source, Path):
        yield from _datasets(source, columns)
        return
    name, size = source.name.lower(), source.path.stat().st_size or 1
    if name.endswith(PARQUET):
        yield from _parquet(source, reached, columns)
    elif name.endswith(cells.ENDINGS):
        for item in cells.rows(source, lambda done: reached(done / size), columns.needed):
            yield item if isinstance(item, Fault) else _typed(item, columns)
    else:
        yield from values(source, columns.is_record, lambda done: reached(done / size))


def _parquet(source: Source, reached: Callable[[float], None], columns: _Columns) -> Iterator[Item]:
    """The rows; a row group that cannot be read costs the rest of itself and no more."""
    row = 0
    try:
        with pq.ParquetFile(source.path) as file:
            names = columns.needed(file.schema_arrow.names)
            for group in range(file.num_row_groups):
                start = row
                row += file.metadata.row_group(group).num_rows
                try:
                    for batch in file.iter_batches(1000, row_groups=[group], columns=names):
                        yield from _batch(batch, source.name, start)
                        start += batch.num_rows
                        reached(start / max(file.metadata.num_rows, 1))
                except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                    lost = row - start
                    yield Fault(f"{source.name}:{start + 1}", f"{lost:,} rows cannot be read ({_line(error)})", lost)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield Fault(source.name, f"not a whole Parquet file ({_line(error)})")


def _batch(batch: pa.RecordBatch, name: str, start: int) -> Iterator[Item]:
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError as error:
        if batch.num_rows == 1:
            yield Fault(f"{name}:{start + 1}", f"not valid UTF-8 ({error.reason})")
            return
        for number in range(batch.num_rows):
            yield from _batch(batch.slice(number, 1), name, start + number)
        return
    for number, row in enumerate(rows, start=start + 1):
        yield Value(f"{name}:{number}", row)


def _datasets(folder: Path, columns: _Columns) -> Iterator[Item]:
    """The rows of a folder that `datasets` saved, memory-mapped."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever is wrong with the folder, the library has its own error for it
        raise Unusable(f"cannot be read as a folder that `datasets` saved ({_line(error)})") from error
    loaded = loaded if isinstance(loaded, dict) else {None: loaded}
    _check_splits(loaded, folder, columns.renamed["split"])
    for split, part in loaded.items():
        name = folder.name if split is None else f"{folder.name}/{split}"
        kept = SPLIT_NAMES.get(str(split))
        part = part.select_columns(columns.needed(part.column_names)).with_format("arrow")
        start = 0
        for table in part.iter(min(CHUNK, 1000)):
            for batch in cast(pa.Table, table).to_batches():
                for item in _batch(batch, name, start):
                    if isinstance(item, Value) and kept is not None:
                        item.value.setdefault(columns.renamed["split"], kept)
                    yield item
                start += batch.num_rows


def _check_splits(loaded: dict[Any, Any], folder: Path, column: str) -> None:
    """Names of which we know some only would give the split on some rows only, which nothing can be trained from.

    Raises:
        InputError: There are such.
    """
    bare = [split for split, part in loaded.items() if column not in part.column_names]
    strange = [split for split in bare if split not in SPLIT_NAMES]
    if strange and len(strange) < len(bare):
        raise InputError(
            f"{folder}: split {strange[0]!r}, expected one of {', '.join(SPLIT_NAMES)}; rename it, or import "
            "the splits to use by their folders"
        )


def _typed(item: Value, columns: _Columns) -> Item:
    """A row of cells with numbers where we expect numbers."""
    row = item.value
    for ours, theirs in columns.renamed.items():
        cell = row.get(theirs)
        kinds = JSON_TYPES[ours]
        if cell is None or str in kinds:
            continue
        try:
            if kinds == (bool,):
                row[theirs] = {"true": True, "1": True, "false": False, "0": False}[cell.strip().lower()]
            else:
                row[theirs] = int(cell) if re.fullmatch(r"\s*[+-]?\d+\s*", cell) else float(cell)
        except (KeyError, ValueError):
            expected = "true or false" if kinds == (bool,) else "a number"
            return Fault(item.where, f"{ours} is {cell[:60]!r}, expected {expected}")
    return item


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
