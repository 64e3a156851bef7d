"""Pairs of images with an instruction that leads from the one to the other: the action.

    aurora        JSON files of AURORA: {"input": PATH, "output": PATH, "instruction": TEXT, "task": TEXT}, where
                  without a task it is the name of the file's folder
    pico-banana   JSON lines of Pico-Banana-400K: single turns (`text` is the action, `edit_type` the subset), and
                  sessions of several turns, which are trajectories (subset multi-turn); rejected images are not read
    bytemorph     images of ByteMorph, source on the left and target on the right, each with a JSON file of its name
                  ({"edit": TEXT}), where the subset is the name of the folder; or its Parquet files, where the action
                  is `edit_prompt_rewrite_instruction`, else `edit_prompt`, and the subset `edit_type`, else the name
                  of the file

A trajectory is named SUBSET/NUMBER. Pairs that show an equal image have one layout, named by one of them, so that
no image of the test is met in training. Paths are relative to the folder of the file that names them, or to a folder
above it. Memory holds some 200 bytes for each image.
"""

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from swirl.data.parts import place
from swirl.errors import InputError
from swirl.images import open_image
from swirl.importers.context import Context
from swirl.importers.frames import fitted
from swirl.importers.rows import Fault, Row
from swirl.importers.sources import LINES, Source, files, read_all
from swirl.worlds.base import unknown

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
PARQUET = ".parquet"
BYTEMORPH_ACTIONS = ("edit_prompt_rewrite_instruction", "edit_prompt")
ROWS = 10  # of a Parquet file, with their images, that are in memory


class Malformed(ValueError):
    """A record that is no pair."""


class Edits(NamedTuple):
    """Images that follow one another, and what leads from each to the next.

    Attributes:
        subset: The part of the data set that they are of.
        images: One more than there are actions.
        actions: Instructions.
    """

    subset: str
    images: list[Image.Image]
    actions: list[str]


Load = Callable[[], Edits]


def read(paths: list[str], context: Context) -> Iterator[Row | Fault]:
    """The pairs of all files; a record with a fault in it is left out as a whole.

    Raises:
        InputError: `--format` is none of `FORMATS`, or an image is on the network.
    """
    form = context.options.format
    if form is None:
        raise InputError(f"pairs: give --format {', '.join(FORMATS)}, whichever they are")
    if form not in FORMATS:
        raise unknown("--format", form, FORMATS)
    layouts: dict[str, str] = {}
    for number, item in enumerate(FORMATS[form](paths, context)):
        if isinstance(item, Fault):
            yield item
            continue
        where, load = item
        try:
            edits = load()
        except Malformed as error:
            yield Fault(where, str(error))
            continue
        name = f"{' '.join(edits.subset.split()).replace('/', '-')}/{number}"
        states = [context.image(fitted(image, context.options.size)) for image in edits.images]
        layout = _layout(name, states, layouts, context)
        for step, (state, next_state) in enumerate(pairwise(states)):
            action = context.text(edits.actions[step])
            row = Row(where, state, next_state, action, trajectory=name, step=step, layout=layout)
            row.truncated = step + 2 == len(states)
            yield row


def _layout(name: str, states: list[str], layouts: dict[str, str], context: Context) -> str:
    """The layout of states, which is that of all others that show one of these images; `name` if there are none."""
    known = dict.fromkeys(context.layout(layouts[state]) for state in states if state in layouts)
    layout, *same = known or [name]
    context.same_layout.update(dict.fromkeys(same, layout))
    layouts.update(dict.fromkeys(states, layout))
    return layout


def _aurora(paths: list[str], context: Context) -> Iterator[tuple[str, Load] | Fault]:
    def edits(source: Source, record: Any) -> Edits:
        task = record.get("task") or source.path.parent.name
        if not isinstance(task, str):
            raise Malformed("its task is no text")
        images = [_opened(record, name, source) for name in ("input", "output")]
        return Edits(task, images, [_text(record, "instruction")])

    return _records(paths, (".json", ".jsonl"), "input", edits, context)


def _pico_banana(paths: list[str], context: Context) -> Iterator[tuple[str, Load] | Fault]:
    def edits(source: Source, record: Any) -> Edits:
        original = _original(record, source)
        if "files" not in record:
            images = [original, _opened(record, "output_image", source)]
            return Edits(_text(record, "edit_type"), images, [_text(record, "text")])
        turns, actions = _turns(record), record.get("metadata_edit_turn_prompts")
        if not isinstance(actions, list) or len(actions) != len(turns):
            raise Malformed(f"{len(turns)} images after the original, but not so many metadata_edit_turn_prompts")
        texts = [_text({"a prompt": action}, "a prompt") for action in actions]
        return Edits("multi-turn", [original, *(_opened(turn, "url", source) for turn in turns)], texts)

    return _records(paths, LINES, "local_input_image", edits, context)


def _original(record: dict[str, Any], source: Source) -> Image.Image:
    """The source image of a record of Pico-Banana, which names it by its address on the network.

    Raises:
        InputError: No local file is named beside the address.
    """
    if "local_input_image" not in record:
        raise InputError(
            f"{source.name}: names source images by their addresses only; download them, and name each file under "
            "local_input_image, as map_openimage_url_to_local.py of the data set does"
        )
    return _opened(record, "local_input_image", source)


def _turns(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The images of a session after the original, in their order: edit_turn1, edit_turn2, ..., final_image."""
    listed = record["files"]
    if not isinstance(listed, list) or not all(isinstance(file, dict) for file in listed):
        raise Malformed("its files are no list of objects")
    named = {str(file.get("id")): file for file in listed}
    turns = []
    while (turn := named.get(f"edit_turn{len(turns) + 1}")) is not None:
        turns.append(turn)
    return [*turns, *([named["final_image"]] if "final_image" in named else [])]


def _records(
    paths: list[str],
    endings: tuple[str, ...],
    key: str,
    edits: Callable[[Source, Any], Edits],
    context: Context,
) -> Iterator[tuple[str, Load] | Fault]:
    """The records of JSON files; a record is an object that has the key."""
    for source, item in read_all(paths, endings, lambda value: isinstance(value, dict) and key in value, context):
        if isinstance(item, Fault):
            yield item
        elif not isinstance(item.value, dict):
            yield Fault(item.where, f"got a JSON {type(item.value).__name__}, expected an object with {key}")
        else:
            yield item.where, partial(edits, source, item.value)


def _bytemorph(paths: list[str], context: Context) -> Iterator[tuple[str, Load] | Fault]:
    sources = files(paths, (*PICTURES, PARQUET))
    for number, source in enumerate(sources):
        if source.name.lower().endswith(PARQUET):
            yield from _bytemorph_rows(source)
        else:
            yield source.name, partial(_bytemorph_halves, source)
        context.reached((number + 1) / len(sources))


def _bytemorph_halves(source: Source) -> Edits:
    beside = source.path.with_suffix(".json")
    try:
        record = json.loads(beside.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise Malformed(f"no {beside.name} beside it, which holds the instruction") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Malformed(f"{beside.name} cannot be read as JSON ({error})") from None
    action = _text(record if isinstance(record, dict) else {}, "edit")
    both = _open(str(source.path))
    if both.width % 2:
        raise Malformed(f"is {both.width} pixels wide, expected two images of one width side by side")
    half = both.width // 2
    halves = [both.crop((left, 0, left + half, both.height)) for left in (0, half)]
    return Edits(source.path.parent.name, halves, [action])


def _bytemorph_rows(source: Source) -> Iterator[tuple[str, Load] | Fault]:
    def edits(record: dict[str, Any]) -> Edits:
        named = next((name for name in BYTEMORPH_ACTIONS if record.get(name)), BYTEMORPH_ACTIONS[-1])
        try:
            images = [place(record.get(name), source.name, name) for name in ("src_img", "tgt_img")]
        except InputError as error:
            raise Malformed(str(error)) from None
        subset = record.get("edit_type") or source.path.stem
        return Edits(str(subset), [_open(image) for image in images], [_text(record, named)])

    row = 0
    try:
        with pq.ParquetFile(source.path) as file:
            for batch in file.iter_batches(ROWS):
                for record in batch.to_pylist():
                    row += 1
                    yield f"{source.name}:{row}", partial(edits, record)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield Fault(source.name, f"cannot be read beyond row {row} ({str(error).splitlines()[0]})")


FORMATS: dict[str, Callable[[list[str], Context], Iterator[tuple[str, Load] | Fault]]] = {
    "aurora": _aurora,
    "pico-banana": _pico_banana,
    "bytemorph": _bytemorph,
}


def _text(record: dict[str, Any], name: str) -> str:
    text = record.get(name)
    if not isinstance(text, str) or not text.strip():
        raise Malformed(f"{name} is {json.dumps(text)[:60]}, expected text")
    return text.strip()


def _opened(record: dict[str, Any], name: str, source: Source) -> Image.Image:
    """The image that a record names.

    Raises:
        InputError: It is on the network.
    """
    path = _text(record, name)
    if path.lower().startswith(("http://", "https://")):
        raise InputError(f"{source.name}: {name} is {path[:80]}; download it, and give the path of the file")
    found = next((folder / path for folder in source.path.parents if os.path.isfile(folder / path)), None)
    if found is None:
        raise Malformed(f"no image file {path} ({name}), neither beside {source.path.name} nor in a folder above")
    return _open(str(found))


def _open(where: str) -> Image.Image:
    try:
        return open_image(where)
    except InputError as error:
        raise Malformed(str(error)) from None
