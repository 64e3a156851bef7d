"""A recording for a person to read: each state with the lines that the step removes and adds.

`swirl look recording.parquet --rows 3 --changed`
"""

from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from swirl import images
from swirl.data.files import read_part
from swirl.data.parts import pc
from swirl.errors import InputError
from swirl.types import state_parts

AROUND = 6
"""Lines that are shown of the beginning and the end of what stays between two changes; the others are counted."""
STYLES = {"-": "red", "+": "green", " ": ""}


def look(path: str | Path, count: int, changed: bool = False) -> list[dict[str, Any]]:
    """The first rows of a recording, each with its number in the file from 1.

    Args:
        path: A recording, or a part of a split.
        count: How many.
        changed: Only those whose next state is another state.

    Raises:
        InputError: The file is not a recording, has no such row, or `count` is not positive.
    """
    if count < 1:
        raise InputError(f"--rows {count}, expected at least 1")
    table = read_part(path)
    numbers = range(table.num_rows)
    if changed:
        different = pc.not_equal(table["state"], table["next_state"])
        numbers = [number for number in numbers if different[number].as_py()]
    if not numbers:
        raise InputError(f"{path}: no row" + " whose state changes" * changed)
    names = ("trajectory", "step", "state", "action", "next_state")
    return [{"row": number + 1, **{name: table[name][number].as_py() for name in names}} for number in numbers[:count]]


def show(rows: list[dict[str, Any]]) -> None:
    """Print rows, coloured on a terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for row in rows:
        action = "no action" if row["action"] is None else f"action: {row['action']}"
        title = f"row {row['row']}, trajectory {row['trajectory']}, step {row['step']}, {action}"
        console.print(Text(title, style="bold"), soft_wrap=True)
        for mark, line in change(in_words(row["state"]), in_words(row["next_state"])):
            console.print(Text(f"{mark} {line}", style=STYLES[mark]), soft_wrap=True)
        console.print()


def change(state: str, next_state: str) -> Iterator[tuple[str, str]]:
    """The lines of both states with what becomes of each: "-" it goes, "+" it comes, " " it stays."""
    old, new = state.split("\n"), next_state.split("\n")
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            yield from (("-", line) for line in old[i:j])
            yield from (("+", line) for line in new[k:m])
            continue
        after = AROUND if j < len(old) else 0
        left_out = j - i - AROUND - after
        if left_out <= 1:
            yield from ((" ", line) for line in old[i:j])
            continue
        yield from ((" ", line) for line in old[i : i + AROUND])
        yield " ", f"… {left_out:,} lines"
        yield from ((" ", line) for line in old[j - after : j])


def in_words(state: str) -> str:
    """A state's text, with the place of an image where it shows one."""
    parts = state_parts(state)
    return "\n".join(f"[image {images.short(p['image'])}]" if p["type"] == "image" else p["text"] for p in parts)
