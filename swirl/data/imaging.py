"""The four files of a run whose states hold images, written anew with the images as tokens of a vocabulary.

    frames/{labelled,state_only,validation,test}.parquet    images by the place where they are
    data/  the same files, images as grids of tokens        `frame` and `next_frame` keep the states as they were
    data/images/                                            the image tokenizer

The tokenizer is learned from the training frames alone: what validation and test show may be new to it.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from swirl import imagetokens, progress
from swirl.config import Images
from swirl.data.files import write_parquet
from swirl.data.splitting import PARTS
from swirl.data.table import pc
from swirl.errors import InputError
from swirl.imagetokens import ImageTokenizer
from swirl.types import IMAGE, state_images

FRAMES = {"state": "frame", "next_state": "next_frame"}
"""Columns that are written as tokens, and where they are kept as they were."""
ROWS = 1000
"""Rows that are written together."""


def has_images(table: pa.Table) -> bool:
    """Whether any state of a recording holds an image."""
    held = (pc.any(pc.match_substring_regex(table[name], f"(?m)^{IMAGE}")).as_py() for name in FRAMES)
    return any(held)


def as_read(table: pa.Table, tokenizer: ImageTokenizer | None, where: str | Path) -> pa.Table:
    """A recording as a model reads it: with its images written as tokens, where they are not yet.

    Raises:
        InputError: It holds images and the model reads none, or the other way round; or one cannot be read.
    """
    done = FRAMES["state"] in table.column_names
    if (done or has_images(table)) != (tokenizer is not None):
        held, reads = ("images", "none") if tokenizer is None else ("no images", "some")
        raise InputError(
            f"{where}: its states hold {held}, and the model reads {reads}; give another recording or model"
        )
    return with_tokens(table, tokenizer) if tokenizer and not done else table


def write_images(frames: Path, out: Path, spec: Images, seed: int, device: str) -> dict[str, int]:
    """Write the files of a split anew, and the image tokenizer that it takes.

    Args:
        frames: The folder that `split` wrote.
        out: Where to.
        spec: Which tokenizer.
        seed: Of its training.
        device: Where it is trained and run.

    Returns:
        The number of codes, and of distinct training images.

    Raises:
        InputError: An image cannot be read or written, or the tokenizer cannot be learned.
        MissingPartError: It needs a package that is not installed.
    """
    training = [frames / f"{name}.parquet" for name in ("labelled", "state_only")]
    names = shown(pa.concat_tables([pq.read_table(path, columns=list(FRAMES)) for path in training]))
    tokenizer = learn(names, spec, seed, device)
    assert tokenizer is not None
    folder = out / imagetokens.FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # what an attempt that failed left
    folder.mkdir()
    tokenizer.save(folder)
    outside: set[str] = set()
    for name in PARTS:
        table = with_tokens(pq.read_table(frames / f"{name}.parquet"), tokenizer, f"write {name}")
        write_parquet(table, out / f"{name}.parquet", table.schema.metadata)
        if name in ("labelled", "state_only"):
            texts = {text for column in FRAMES for text in table[column].unique().to_pylist()}
            outside.update(*(tokenizer.pattern.sub("", text) for text in texts))
    imagetokens.note_outside(folder, outside)
    return {"codes": len(tokenizer.tokens), "images": len(names)}


def learn(shown: Sequence[str], spec: Images, seed: int, device: str) -> ImageTokenizer | None:
    """The image tokenizer that a recipe names; `None` where it names none.

    Args:
        shown: Where the frames are that it may learn from.
        spec: Which tokenizer.
        seed: Of its training.
        device: Where it is trained.

    Raises:
        InputError: There is none of this name, or it cannot be learned.
        MissingPartError: It needs a package that is not installed.
    """
    if not spec.tokenizer:
        return None
    if spec.tokenizer == "tile":
        from swirl.imagetokens import tile

        return tile.learn(shown, spec)
    if spec.tokenizer == "vq":
        from swirl.imagetokens import vq

        return vq.learn(shown, spec, seed)
    if spec.tokenizer == "fsq":
        from swirl.imagetokens import fsq

        return fsq.learn(shown, spec, seed, device)
    if not Path(spec.tokenizer).is_dir():
        raise InputError(
            f"images.tokenizer = {spec.tokenizer!r}, expected tile, vq, fsq, or the folder of one; mend it"
        )
    return imagetokens.load(Path(spec.tokenizer))


def shown(table: pa.Table) -> list[str]:
    """Where the images of a table's states are, each once, in order."""
    texts = {text for name in FRAMES for text in table[name].unique().to_pylist()}
    return sorted({image for text in texts for image in state_images(text)})


def with_tokens(table: pa.Table, tokenizer: ImageTokenizer, title: str = "write images") -> pa.Table:
    """A table whose states, and those before them, have their images written as tokens.

    Args:
        table: Has `state` and `next_state`, maybe `history`; images with absolute paths or as URIs.
        tokenizer: Writes them.
        title: Shown in the progress bar.

    Returns:
        The table; `frame` and `next_frame` hold the two states as they were.

    Raises:
        InputError: An image cannot be read or written; its trajectory and step are named.
    """
    known: dict[str, str] = {}
    with progress.bar(title, table.num_rows) as bar:
        for start in range(0, table.num_rows, ROWS):
            rows = table.slice(start, ROWS)
            _learn(rows, tokenizer, known)
            bar.advance(rows.num_rows)
    for name, kept in FRAMES.items():
        column = table[name]
        tokens = pa.array([known[text] for text in column.to_pylist()], pa.string())
        table = table.append_column(kept, column).set_column(table.column_names.index(name), name, tokens)
    if "history" in table.column_names:
        pasts = [[known[text] for text in past] for past in table["history"].to_pylist()]
        place = table.column_names.index("history")
        table = table.set_column(place, "history", pa.array(pasts, pa.list_(pa.string())))
    return table


def _learn(rows: pa.Table, tokenizer: ImageTokenizer, known: dict[str, str]) -> None:
    """Write the states of some rows that are not known yet."""
    columns = [rows[name].to_pylist() for name in FRAMES]
    if "history" in rows.column_names:
        columns += rows["history"].to_pylist()
    new = list(dict.fromkeys(text for texts in columns for text in texts if text not in known))
    try:
        known.update(zip(new, imagetokens.written(tokenizer, new), strict=True))
    except InputError:
        for row in rows.to_pylist():  # to name the one that is at fault
            try:
                imagetokens.written(tokenizer, [row["state"], row["next_state"]])
            except InputError as error:
                raise InputError(f"trajectory {row['trajectory']!r} step {row['step']}: {error}") from None
        raise
