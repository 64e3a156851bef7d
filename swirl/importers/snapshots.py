"""A folder of numbered text or HTML files, each what the world looked like at one time.

`1.txt 2.txt 10.txt` are a trajectory of two transitions without actions; each folder below is a trajectory of its own.
The order is that of the last number in the name, gaps in the numbers mean nothing. A file that cannot be read ends the
trajectory, since nobody knows what happened across it: what follows is another one, named by its first file. Two
snapshots that are the same give a transition that changes nothing. What lies behind a snapshot does not show in it, so
the world is partially observed.
"""

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import PurePosixPath

from swirl.importers import pages
from swirl.importers.context import Context
from swirl.importers.rows import Fault, Row
from swirl.importers.sources import Source, files

HTML = (".html", ".htm")
ENDINGS = (".txt", ".md", *HTML)


def read(paths: list[str], context: Context) -> Iterator[Row | Fault]:
    """Transitions between neighbours in each folder."""
    sources = sorted(files(paths, ENDINGS), key=lambda source: (source.path.parent, source.name))
    done = 0
    for folder, inside in groupby(sources, key=lambda source: source.path.parent):
        group = list(inside)
        name = str(PurePosixPath(group[0].name).parent)
        yield from _folder(group, folder.name if name == "." else name, context)
        done += len(group)
        context.reached(done / len(sources))


def _folder(sources: list[Source], trajectory: str, context: Context) -> Iterator[Row | Fault]:
    numbered: dict[int, Source] = {}
    for source in sources:
        digits = re.findall(r"\d+", source.path.stem)
        if not digits:
            yield Fault(source.name, "no number in the name")
        elif (number := int(digits[-1][:18])) in numbered:
            yield Fault(source.name, f"number {number} is that of {numbered[number].name} as well")
        else:
            numbered[number] = source
    before: str | None = None
    row: Row | None = None
    step = 0
    for _, source in sorted(numbered.items()):
        snapshot = _snapshot(source, context)
        if row is not None:
            row.truncated = isinstance(snapshot, Fault)
            yield row
            row = None
        if isinstance(snapshot, Fault):
            yield snapshot
            before, trajectory = None, ""
        elif before is None:
            before, trajectory, step = snapshot, trajectory or source.name, 0
        else:
            row = Row(source.name, before, snapshot, trajectory=trajectory, step=step, partial=True)
            before, step = snapshot, step + 1
    if row is not None:
        row.truncated = True
        yield row


def _snapshot(source: Source, context: Context) -> str | Fault:
    try:
        text = source.path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return Fault(source.name, f"cannot be read as UTF-8 text ({error})")
    if source.name.lower().endswith(HTML):
        try:
            text = pages.lines(text)
        except ValueError as error:
            return Fault(source.name, str(error))
    return context.text(text.strip("\n")) if text.strip() else Fault(source.name, "the snapshot is empty")
