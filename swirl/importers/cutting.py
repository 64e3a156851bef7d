"""States that are too long, cut by a rule that has a name.

Both states of a row are cut by the same rule, so that what was the same text before is the same text after:

    truncate-head        drops the beginning
    truncate-tail        drops the end
    truncate-unchanged   drops lines that are the same in both, those farthest from a change first
"""

from bisect import bisect_right
from difflib import SequenceMatcher

from swirl.errors import InputError
from swirl.importers.rows import Row
from swirl.types import IMAGE

POLICIES = ("error", "skip", "truncate-head", "truncate-tail", "truncate-unchanged")


def shortened(row: Row, longest: int, policy: str) -> bool | None:
    """Cut the states of a row to `longest` characters by a policy.

    Returns:
        Whether any was longer; `None` where the row is to be left out: by `skip`, or since what changes is too long by
        itself.

    Raises:
        InputError: The policy is `error` and a state is longer; or it would cut the path of an image.
    """
    if max(len(row.state), len(row.next_state)) <= longest:
        return False
    if policy == "error":
        name = "state" if len(row.state) > longest else "next_state"
        raise InputError(
            f"{row.where}: {name} has {len(getattr(row, name)):,} characters, --max-state is {longest:,}; raise it, or "
            f"give --too-long {', '.join(POLICIES[1:-1])} or {POLICIES[-1]}"
        )
    if policy == "skip":
        return None
    if IMAGE in row.state or IMAGE in row.next_state:
        raise InputError(f"{row.where}: a state with images cannot be cut; raise --max-state, or give --too-long skip")
    if policy == "truncate-unchanged" and row.state != row.next_state:
        return _near_changes(row, longest)
    # Where nothing changes, no line is near a change: the end is dropped.
    cut = slice(-longest, None) if policy == "truncate-head" else slice(longest)
    row.state, row.next_state = row.state[cut], row.next_state[cut]
    return True


def _near_changes(row: Row, longest: int) -> bool | None:
    """Keep as many unchanged lines around each change as fit; a line in place of the others says how many they were."""
    old, new = row.state.split("\n"), row.next_state.split("\n")
    parts = SequenceMatcher(None, old, new, autojunk=False).get_opcodes()

    def windows(around: int) -> tuple[str, str]:
        kept: tuple[list[str], list[str]] = ([], [])
        for number, (tag, i, j, k, m) in enumerate(parts):
            if tag != "equal":
                kept[0].extend(old[i:j])
                kept[1].extend(new[k:m])
                continue
            first = around if number else 0  # after the change before this part
            last = around if number + 1 < len(parts) else 0
            left_out = j - i - first - last
            same = old[i:j]
            if left_out > 0:
                same = [*same[:first], f"… {left_out} lines", *same[len(same) - last :]]
            for side in kept:
                side.extend(same)
        return "\n".join(kept[0]), "\n".join(kept[1])

    most = bisect_right(range(len(old) + 1), longest, key=lambda around: max(map(len, windows(around)))) - 1
    if most < 0:
        return None
    row.state, row.next_state = windows(most)
    return True
