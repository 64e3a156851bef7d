"""The files of a source, their names, and the JSON values in them, however damaged.

A file is read as a stream: memory holds one value, and what was read ahead of it. Damage costs the values it touches
and no others: in JSON lines the line, in a JSON array everything up to the next place where a whole record begins.
"""

import codecs
import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from swirl.errors import InputError
from swirl.importers.context import Context
from swirl.importers.rows import Fault

LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
JSON = (*LINES, ".json", ".json.gz")
BLOCK = 1 << 20  # characters read at a time, at first; twice as many each time that a value does not end
LONGEST = 1 << 28  # characters of the longest value; what does not end by then is damage


class Source(NamedTuple):
    """A file to read.

    Attributes:
        path: Where it lies.
        name: What it is called in messages and in the names of trajectories; unique among the files of an import.
    """

    path: Path
    name: str


class Value(NamedTuple):
    """A JSON value, and the line where it begins."""

    where: str
    value: Any


def files(paths: list[str], endings: tuple[str, ...]) -> list[Source]:
    """The files that paths name: themselves, and for a folder all files below it that end so, in order of name.

    A file that several paths lead to is read once.

    Raises:
        InputError: A path does not exist, or names no such file.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        inside = sorted(file for file in path.rglob("*") if file.is_file() and file.name.lower().endswith(endings))
        if path.is_dir() and not inside:
            raise InputError(f"{path}: no file that ends with {', '.join(endings)}")
        if path.is_file() and not path.name.lower().endswith(endings):
            raise InputError(f"{path}: unknown kind of file, expected {', '.join(endings)}")
        found += inside if path.is_dir() else [path]
    once = {path.resolve(): path for path in reversed(found)}  # a link may lead to a file of another ending
    found = [path.parent.resolve() / path.name for path in reversed(once.values())]
    base = os.path.commonpath([path.parent for path in found])
    return [Source(path, path.relative_to(base).as_posix()) for path in found]


def read_all(
    paths: list[str], endings: tuple[str, ...], is_record: Callable[[Any], bool], context: Context
) -> Iterator[tuple[Source, Value | Fault]]:
    """The JSON values of all files that paths name, with the file of each.

    Raises:
        InputError: As `files`.
    """
    sources = files(paths, endings)
    sizes = [source.path.stat().st_size for source in sources]
    total, before = sum(sizes) or 1, 0
    for source, size in zip(sources, sizes, strict=True):
        for item in values(source, is_record, lambda done, before=before: context.reached((before + done) / total)):
            yield source, item
        before += size


def values(source: Source, is_record: Callable[[Any], bool], reached: Callable[[int], None]) -> Iterator[Value | Fault]:
    """The JSON values of a file: of each line, of an array, or one after another.

    Args:
        source: The file; `.gz` is unpacked.
        is_record: Whether a value is one that the format looks for; only such a one ends the search after damage.
        reached: Called with the bytes of the file that were read.
    """
    try:
        with (
            source.path.open("rb") as raw,
            cast(IO[bytes], gzip.GzipFile(fileobj=raw) if source.name.lower().endswith(".gz") else raw) as file,
        ):
            read = _lines if source.name.lower().endswith(LINES) else _stream
            for item in read(file, source.name, is_record):
                reached(raw.tell())
                yield item
    except (OSError, EOFError, zlib.error) as error:
        yield Fault(source.name, f"cannot be read to its end ({error})")


def _lines(file: IO[bytes], name: str, is_record: Callable[[Any], bool]) -> Iterator[Value | Fault]:
    del is_record  # a line ends by itself
    line = 0
    while raw := file.readline(LONGEST):
        line += 1
        where = f"{name}:{line}"
        if len(raw) == LONGEST and not raw.endswith(b"\n"):
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(LONGEST)
            yield Fault(where, f"the line has more than {LONGEST:,} bytes")
        elif raw.strip():
            yield _decoded(raw, where, line == 1)


def _decoded(raw: bytes, where: str, first: bool) -> Value | Fault:
    try:
        text = raw.decode("utf-8-sig" if first else "utf-8")
        return _sound(json.loads(text), text, where)
    except UnicodeDecodeError as error:
        return Fault(where, f"not valid UTF-8 ({error.reason})")
    except (ValueError, RecursionError) as error:
        return Fault(where, f"not valid JSON ({error})")


def _sound(value: Any, text: str, where: str) -> Value | Fault:
    """The value, if all text in it is text: neither bytes that are no UTF-8 nor half of a surrogate pair."""
    try:
        text.encode()
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return Fault(where, "not valid UTF-8")
    return Value(where, value)


_DECODER = json.JSONDecoder()
_BETWEEN = re.compile(r"[\s,]*")
_RECORD = re.compile(r"[\[,\n]\s*(?=\{)")  # before the beginning of a record, which is an object


class _Window:
    """The part of a file that is in memory.

    Attributes:
        text: What was read and not yet forgotten, decoded; a byte that is no UTF-8 is a lone surrogate.
        at: What comes before this place in `text` is done with.
        line: The line of the file that `at` is in, from 1.
        ended: Whether the file has been read to its end.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def more(self) -> None:
        """Read on, the more the longer the text is: a value that does not end is parsed a few times only."""
        raw = self._file.read(max(BLOCK, len(self.text) - self.at))
        self.ended = not raw
        self.text = self.text[self.at :] + self._decoder.decode(raw, not raw)
        self.at = 0

    def advance(self, to: int) -> None:
        """Be done with what comes before a place."""
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def character(self) -> str:
        """The first one that is no space and no comma; empty at the end of the file."""
        while True:
            if match := _BETWEEN.match(self.text, self.at):
                self.advance(match.end())
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more()

    def value(self) -> tuple[Any, int] | str:
        """The value that begins here and the place of its end, or what is wrong; reads on as far as it needs."""
        while True:
            try:
                return _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                cut_off = error.pos >= len(self.text) - 16 or error.msg.startswith("Unterminated string")
                if self.ended or not cut_off or len(self.text) - self.at > LONGEST:
                    return error.msg
            except (ValueError, RecursionError) as error:
                return str(error)
            self.more()

    def seek(self, is_record: Callable[[Any], bool]) -> None:
        """Advance to where the next whole record begins, or to the end of the file."""
        while True:
            match = _RECORD.search(self.text, self.at)
            if match is not None:
                self.advance(match.end())
                found = self.value()
                if not isinstance(found, str) and is_record(found[0]):
                    return
            elif self.ended:
                self.advance(len(self.text))
                return
            else:
                self.advance(max(len(self.text) - 64, self.at))  # a comma and its spaces may straddle two blocks
                self.more()


def _stream(file: IO[bytes], name: str, is_record: Callable[[Any], bool]) -> Iterator[Value | Fault]:
    window = _Window(file)
    if window.character() == "[":
        window.advance(window.at + 1)
    while first := window.character():
        where = f"{name}:{window.line}"
        if first == "]":
            window.advance(window.at + 1)
        elif isinstance(found := window.value(), str):
            yield Fault(where, f"not valid JSON ({found})")
            window.advance(window.at + 1)
            window.seek(is_record)
        else:
            value, end = found
            yield _sound(value, window.text[window.at : end], where)
            window.advance(end)
