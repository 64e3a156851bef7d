"""Seeds of parts, and in which order the rows of a phase are read, drawn from its seed alone."""

from collections.abc import Sequence

import numpy as np


def seed_of(seed: int, *part: int) -> int:
    """The seed of a part of what has a seed: its number, or the bytes of its name."""
    return int(np.random.SeedSequence([seed, *part]).generate_state(1)[0] >> 1)


def batch_order(lengths: Sequence[int], steps: int, batch: int, seed: int) -> list[int]:
    """Row indices for all steps: shuffled epochs, with rows of similar length sharing a batch.

    Within each stretch of eight batches rows are sorted by length and the batches shuffled: padding costs more than
    anything else on short states.
    """
    rng = np.random.default_rng(seed)
    indices = cycle(len(lengths), steps * batch, rng)
    order: list[int] = []
    stretch = 8 * batch
    for start in range(0, len(indices), stretch):
        part = sorted(indices[start : start + stretch], key=lambda i: lengths[i])
        batches = [part[i : i + batch] for i in range(0, len(part), batch)]
        order += [i for b in rng.permutation(len(batches)) for i in batches[b]]
    return order


def cycle(rows: int, count: int, rng: np.random.Generator) -> list[int]:
    """`count` row indices: one permutation after another."""
    epochs = [rng.permutation(rows) for _ in range(-(-count // rows))]
    return np.concatenate(epochs)[:count].tolist()
