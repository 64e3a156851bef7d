"""The rows of a CSV or TSV file, however its quotation marks are damaged.

A quotation mark too many, or one that is missing, makes one cell of all lines up to the next: rows vanish without a
word. So what is not valid CSV (a mark amid a quoted cell, or none to the end of the file) is a fault. So is a record of
lines that are rows by themselves: those with a mark, and nearly all others, have as many delimiters as the header. No
record is mistaken for one whose state and next state have equally many delimiters in their first lines, and in their
last: the first line of the record, the last one, and the one where the two states meet cannot all be rows. Faults are
counted by lines, each of which may have been a row.

Text is UTF-8, or UTF-16 where the file says so by its first bytes, as Excel's does. The delimiter of a CSV file is the
comma; the semicolon or the tab where the header has that and no comma.
"""

import codecs
import csv
import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import IO, cast

from swirl.importers.rows import Fault
from swirl.importers.sources import LONGEST, Source, Value

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
MARK = '"'
NOT_UTF8 = "not valid UTF-8; if it is Latin-1 or Windows-1252, convert it: iconv -f WINDOWS-1252 -t UTF-8"


def rows(
    source: Source, reached: Callable[[int], None], header: Callable[[list[str]], object]
) -> Iterator[Value | Fault]:
    """The rows, each a dict of its cells; an empty one is null.

    Args:
        source: The file; `.gz` is unpacked.
        reached: Called with the bytes of the file that were read.
        header: Called with the names of the columns; raises what it likes where they are of no use.
    """
    csv.field_size_limit(LONGEST)  # states are longer than the 128 KiB that a cell may have by default
    try:
        with source.path.open("rb") as raw:
            packed = gzip.GzipFile(fileobj=raw) if source.name.lower().endswith(".gz") else raw
            wide = packed.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
            encoding, errors = ("utf-16", "strict") if wide else ("utf-8-sig", "surrogateescape")
            text = io.TextIOWrapper(cast(IO[bytes], packed), encoding, errors=errors, newline="")
            first = text.readline()
            delimiter = _delimiter(source.name, first)
            names: list[str] | None = None
            line, broken = 1, False  # whether a cell was cut in two, the second half of which is still to come
            for cells, lines in _records(chain([first] if first else [], text), delimiter):
                where = f"{source.name}:{line}"
                line += len(lines)
                reached(raw.tell())
                if not all(map(_is_text, lines)):
                    yield Fault(where, NOT_UTF8, len(lines))
                    if names is None:
                        return
                elif names is None:
                    header(names := cells if isinstance(cells, list) else [])
                elif isinstance(cells, str):
                    broken = True
                    yield Fault(where, f"not valid CSV ({cells})", len(lines))
                elif broken and sum(map(_marks, lines)) % 2:
                    broken = False
                    yield Fault(where, "the end of a cell that is not valid CSV", len(lines))
                elif cells and len(cells) != len(names):
                    yield Fault(where, f"{len(cells)} cells, but {len(names)} columns", len(lines))
                elif _swallowed(lines, delimiter, len(names)):
                    what = f"a cell over {len(lines)} lines, each of which has {len(names)} cells by itself"
                    yield Fault(where, f"{what}; is a quotation mark missing?", len(lines))
                elif cells:
                    yield Value(where, {name: cell or None for name, cell in zip(names, cells, strict=True)})
            if names is None:
                header([])
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        yield Fault(source.name, f"cannot be read to its end ({error})")


def _delimiter(name: str, header: str) -> str:
    if ".tsv" in name.lower():
        return "\t"
    return next((sign for sign in ";\t" if sign in header and "," not in header), ",")


def _is_text(line: str) -> bool:
    """Whether all its bytes were UTF-8; one that was not is a lone surrogate."""
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True


def _records(text: Iterable[str], delimiter: str) -> Iterator[tuple[list[str] | str, list[str]]]:
    """The cells of each record, or what is wrong with it, and its lines."""
    lines: list[str] = []

    def kept() -> Iterator[str]:
        for line in text:
            lines.append(line)
            yield line

    reader = csv.reader(kept(), delimiter=delimiter, strict=True)
    while True:
        lines.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield str(error), lines.copy()
        else:
            yield cells, lines.copy()


def _marks(line: str) -> int:
    return line.count(MARK)


def _swallowed(lines: list[str], delimiter: str, columns: int) -> bool:
    """Whether the lines of one record seem to be rows themselves."""
    inside = [line for line in lines if not _marks(line)]
    fitting = [line for line in inside if line.count(delimiter) == columns - 1]
    return (
        len(lines) > 2
        and len(fitting) * 10 >= len(inside) * 9 > 0
        and all(line.count(delimiter) == columns - 1 for line in lines if _marks(line))
        and any(f"{delimiter} " not in line for line in fitting)  # prose has it after each comma
    )
