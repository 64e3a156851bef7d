"""The images in the states of a recording: whether each can be opened, and its size.

Each is opened once, one at a time; which have been seen is remembered as 8 bytes.
"""

from collections import Counter
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from swirl import progress
from swirl.data.parts import pc
from swirl.data.report import Images
from swirl.errors import InputError
from swirl.images import open_image
from swirl.types import IMAGE, state_images

FEW = 5  # images named that cannot be used


def check_images(table: pa.Table, names: list[str]) -> tuple[Images | None, list[str]]:
    """What images the states show, and what is wrong with some.

    Args:
        table: A recording, as `read` gives it.
        names: What to call each row.

    Returns:
        What they are, or `None` where there is none; and problems, of which the first are named by their row.
    """
    shows = [pc.match_substring(table[name], IMAGE).to_numpy() for name in ("state", "next_state")]
    rows = np.flatnonzero(shows[0] | shows[1])
    if not len(rows):
        return None, []
    seen: set[bytes] = set()
    shown, broken, sizes, problems = 0, 0, Counter[str](), []
    with progress.bar("images of rows", len(rows)) as bar:
        for row in rows.tolist():
            for where in (x for name in ("state", "next_state") for x in state_images(table[name][row].as_py())):
                shown += 1
                key = blake2b(where.encode(), digest_size=8).digest()
                if key in seen:
                    continue
                seen.add(key)
                try:
                    image = open_image(where)
                    sizes[f"{image.width}x{image.height}"] += 1
                except InputError as error:
                    broken += 1
                    step = f"trajectory {table['trajectory'][row].as_py()!r} step {table['step'][row].as_py()}"
                    problems += [f"{names[row]}, {step}: {error}"] if broken <= FEW else []
            bar.advance()
    if broken > FEW:
        problems.append(f"{broken - FEW:,} more images cannot be used")
    return Images(shown, len(seen), dict(sizes.most_common())) if shown else None, problems
