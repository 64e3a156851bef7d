"""A recording under way: whole trajectories in whole files, in a hidden folder beside the file that they will be.

A kill at any moment costs what was played since the last piece, and the same command goes on behind it. No trajectory
is in two pieces, and none is in one twice.
"""

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from swirl import durable, images, lock
from swirl.data import frames
from swirl.data.files import prepare, replacing
from swirl.data.table import CHUNK, SCHEMA

logger = logging.getLogger(__name__)

RECORDING = SCHEMA.append(pa.field("behaviour", pa.string()))
SECONDS = 30.0  # most that a kill may cost, beside the episode that is being played
NOTE = b"swirl"  # in a piece's metadata: where the recording stood when it was written


class Pieces:
    """What has been recorded; made by `pieces`.

    Attributes:
        rows: Transitions so far.
        next: Number of the next episode.
        skipped: Episodes that the world broke off.
        images: Folder of the images of what is played, whether it will be part of the recording or not.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.images = folder, folder / "images"
        self._files = sorted(folder.glob("[0-9]*.parquet"))
        self.rows = sum(pq.read_metadata(file).num_rows for file in self._files)
        note = json.loads(pq.read_schema(self._files[-1]).metadata[NOTE]) if self._files else {}
        self.next, self.skipped = note.get("next", 0), note.get("skipped", 0)
        self._waiting: list[dict[str, Any]] = []
        self._since = time.monotonic()

    def add(self, index: int, rows: list[dict[str, Any]], skipped: bool) -> None:
        """Add what was played of an episode."""
        self._waiting += rows
        self.rows += len(rows)
        self.next, self.skipped = index + 1, self.skipped + skipped
        if len(self._waiting) >= CHUNK or time.monotonic() - self._since > SECONDS:
            self.save()

    def save(self) -> None:
        """Put on the disk what is not there yet."""
        if self._waiting:
            if self.images.is_dir():
                os.sync()  # thousands of small files: one by one would take longer than to play them
            file = self._folder / f"{len(self._files):09d}.parquet"
            note = json.dumps({"next": self.next, "skipped": self.skipped})
            with replacing(file) as part:
                table = pa.Table.from_pylist(self._waiting, RECORDING.with_metadata({NOTE: note.encode()}))
                pq.write_table(table, part, compression="zstd")
            self._files.append(file)
        self._waiting, self._since = [], time.monotonic()

    def join(self, path: Path, transitions: int, note: dict[bytes, bytes]) -> dict[str, int]:
        """Write the first `transitions` transitions to their file, and move their images beside it.

        The last trajectory is truncated where it is cut.

        Args:
            path: The file.
            transitions: How many.
            note: Metadata of the file.

        Returns:
            Counts: transitions, trajectories, layouts.

        Raises:
            InputError: The folder of the images cannot be made.
        """
        self.save()
        trajectories = 0
        layouts: set[str] = set()
        schema = RECORDING.with_metadata(note)
        folder = images.beside(path)
        if self.images.is_dir():
            prepare(folder / "*.png")
        with replacing(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
            for table in self._batches(transitions):
                writer.write_table(table.replace_schema_metadata(note), row_group_size=CHUNK)
                trajectories += table["step"].to_pylist().count(0)
                layouts.update(table["layout"].unique().to_pylist())
                for column in ("state", "next_state"):
                    frames.move(table[column].unique().to_pylist(), self.images, folder)
            if self.images.is_dir():
                durable.fsync(folder)
        return {"transitions": transitions, "trajectories": trajectories, "layouts": len(layouts - {None})}

    def _batches(self, transitions: int) -> Iterator[pa.Table]:
        """Row groups of one size, whatever the pieces' own."""
        left, held = transitions, RECORDING.empty_table()
        for file in self._files:
            table = pq.read_table(file).replace_schema_metadata(None)
            held = pa.concat_tables([held, table.slice(0, left - held.num_rows)])
            whole = held.num_rows == left
            while held.num_rows >= CHUNK or (whole and held.num_rows):
                group, held = held.slice(0, CHUNK), held.slice(CHUNK)
                left -= group.num_rows
                yield group if left else _cut(group)
            if whole:
                return


def _cut(table: pa.Table) -> pa.Table:
    """The last rows of a recording: its last trajectory ends here."""
    truncated = table["truncated"].to_pylist()
    truncated[-1] |= not table["terminated"][-1].as_py()
    return table.set_column(table.column_names.index("truncated"), "truncated", pa.array(truncated))


@contextmanager
def pieces(path: Path, key: str | None) -> Iterator[Pieces]:
    """What has been recorded of a file; forgotten where the block ends without an error.

    Args:
        path: The file that it will be.
        key: What the recording is of; what was begun under another key is thrown away, with a warning. `None`: nothing
            is kept of a block that ends with an error.

    Raises:
        InputError: Another process is recording this file, or the folder cannot be made.
    """
    folder = path.with_name(f".{path.name}.pieces")
    held = lock.take(folder)
    try:
        if not _is_of(folder, key):
            shutil.rmtree(folder)
            lock.release(held)
            held = lock.take(folder)
            durable.atomic_write(folder / "key", key or "")
        found = Pieces(folder)
        if found.rows:
            logger.info("%s: goes on behind %d transitions that were recorded before", path, found.rows)
        try:
            yield found
            shutil.rmtree(folder)
        except BaseException:
            # Nothing is saved now: Ctrl-C may have come in the midst of it.
            if key is None or not any(folder.glob("*.parquet")):
                shutil.rmtree(folder)
            raise
    finally:
        lock.release(held)


def _is_of(folder: Path, key: str | None) -> bool:
    """Whether a folder has the pieces of a key; one that has none and never had is nobody's."""
    written = folder / "key"
    if not written.is_file():
        return False
    if key is not None and written.read_text() == key:
        return True
    if any(folder.glob("*.parquet")):
        logger.warning("%s: what was recorded here before is of something else; it begins again", folder)
    return False
