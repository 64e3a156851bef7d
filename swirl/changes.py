"""The change form of a next state: only the lines that a step removes and adds, exactly invertible.

    -agent 2 3 right        the lines that go
    +agent 2 4 right        the lines that come in their place
    @5                      where the place cannot be told by what goes: the line's number in the old state, from 0
    +key red 2 2
    =                       alone: nothing changed

A model that writes changes has to say a tenth of what it would copy, and is scored on what matters. Where hardly
anything stays, as behind a door, the change would be longer than the next state: then that is written (`shortest`).

    *                       the next state whole, from the next line on

One that writes whole states can be told instead which of its tokens are of the change (`changed_tokens`).
"""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from rapidfuzz.distance import LCSseq

SAME = "="
WHOLE = "*"


def describe(state: str, next_state: str) -> str:
    """Write the change from one state to the other; applied to the state it gives the other back exactly."""
    old, new = state.split("\n"), next_state.split("\n")
    written: list[str] = []
    cursor, open_ended = 0, False
    for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        gone, come = old[i:j], new[k:m]
        # Said by number: what only comes, what would be found too early, and what would be read as a part of the
        # lines that went before.
        if open_ended or not gone or _find(old, gone, cursor) != i:
            written.append(f"@{i}")
        written += [f"-{line}" for line in gone] + [f"+{line}" for line in come]
        cursor, open_ended = j, not come
    return "\n".join(written) or SAME


def shortest(state: str, next_state: str) -> str:
    """The change from one state to the other, or the whole next state where that is shorter.

    Not one that is empty or ends in white space, which a reply may lose.
    """
    change, whole = describe(state, next_state), f"{WHOLE}\n{next_state}"
    return whole if next_state == next_state.rstrip() != "" and len(whole) < len(change) else change


def apply(state: str, change: str) -> str | None:
    """The next state that a change leads to; `None` where it does not fit the state or is not a change."""
    if change == SAME:
        return state
    first, below, rest = change.partition("\n")
    if below and first.rstrip() == WHOLE:
        return rest
    old, new, cursor = state.split("\n"), [], 0
    for place, gone, come in _hunks(change):
        at = _find(old, gone, cursor) if place is None else place
        if at is None or not cursor <= at <= len(old) or old[at : at + len(gone)] != gone:
            return None
        new += old[cursor:at] + come
        cursor = at + len(gone)
    return "\n".join(new + old[cursor:]) if cursor or new else None


def changed_tokens(before: Sequence[int], after: Sequence[int]) -> list[bool]:
    """Which tokens of a text belong to what changed: where copying on from the text before would go wrong.

    That is every token outside a longest common subsequence of the two, and the token with which copying goes on behind
    something that was taken away.

    Args:
        before: Token ids of the text before.
        after: Token ids of the text (T).

    Returns:
        One mark per token (T).
    """
    marks = [True] * len(after)
    blocks = LCSseq.opcodes(before, after)
    for block in blocks:
        if block.tag == "equal":
            marks[block.dest_start : block.dest_end] = [False] * (block.dest_end - block.dest_start)
    for block in blocks:
        place = block.dest_start
        if block.tag == "delete" and place < len(after):
            # Behind something that came in place of it, the change has been told already.
            marks[place] |= place == 0 or not marks[place - 1]
    return marks


def _hunks(change: str) -> Iterator[tuple[int | None, list[str], list[str]]]:
    """Each part as (place, lines that go, lines that come); one that cannot be read has a place outside any state."""
    place: int | None = None
    gone: list[str] = []
    come: list[str] = []
    for line in change.split("\n"):
        mark, text = line[:1], line[1:]
        if (mark == "@" or (mark == "-" and come)) and (gone or come):
            yield place, gone, come
            place, gone, come = None, [], []
        if mark == "@" and text.isdecimal() and text.isascii() and len(text) < 10:
            place = int(text)
        elif mark == "-" and not come:
            gone.append(text)
        elif mark == "+":
            come.append(text)
        else:
            yield -1, [], []
            return
    yield (place, gone, come) if gone or come else (-1, [], [])


def _find(lines: list[str], block: list[str], start: int) -> int | None:
    """Where a block of lines first stands at or after `start`; an empty block stands nowhere."""
    if not block:
        return None
    return next((i for i in range(start, len(lines) - len(block) + 1) if lines[i : i + len(block)] == block), None)
