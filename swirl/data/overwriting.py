"""What a command may write over: nothing that it reads, and no file but one that the same command made.

`swirl collect`, `import` and `label` note in the metadata of their Parquet files which of them it was. JSONL and CSV
have no place for such a note, and people fill them in, so one that is there is never replaced.
"""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from swirl.data.origin import KEY, Origin
from swirl.errors import InputError

BY = b"swirl.by"


def note(command: str, origin: Origin | None = None) -> dict[bytes, bytes]:
    """Metadata of a Parquet file that a command makes."""
    return {BY: command.encode(), **(origin.metadata() if origin else {})}


def check_replaceable(
    out: str | Path, command: str, sources: Iterable[str | Path] = (), origin: Origin | None = None
) -> None:
    """Refuse to write over what cannot be had again.

    Args:
        out: The file that a command is about to write.
        command: The command as a user would name it, e.g. "import chat".
        sources: What it reads.
        origin: The world that it records, where it records one.

    Raises:
        InputError: `out` is one of the sources, or is there and was not made by this command, of this origin.
    """
    out = Path(out)
    check_not_read(out, sources)
    if not out.is_file():
        return
    mend = "delete it, or give --out another name"
    if out.suffix != ".parquet":
        raise InputError(f"{out}: there is such a file already; {mend}")
    try:
        found = pq.read_schema(out).metadata or {}
    except (pa.ArrowException, OSError):
        found = {}
    if found.get(BY) != command.encode():
        made = f"`swirl {found[BY].decode()}`" if BY in found else "something else"
        raise InputError(f"{out}: there is such a file already, made by {made}; {mend}")
    if found.get(KEY) != note(command, origin).get(KEY):
        raise InputError(f"{out}: there is a recording of another world, other options or another seed; {mend}")


def check_not_read(out: Path, sources: Iterable[str | Path]) -> None:
    """Refuse to write over a source.

    Raises:
        InputError: `out` is one of the sources, by whatever name.
    """
    if out.exists() and any(Path(source).exists() and out.samefile(source) for source in sources):
        raise InputError(f"{out}: is read by this command, which cannot write over it; give --out another name")
