"""Vector quantisation of patches: the code of a patch is the nearest of `codes` prototypes, found by k-means.

For frames that are almost made of tiles, as of worlds drawn with sprites: it keeps edges sharp, where a small
autoencoder blurs them, and is learned in seconds. What it gives is a tile tokenizer that knows prototypes in place of
all tiles.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from swirl import images, progress
from swirl.config import Images
from swirl.errors import InputError, MissingPartError
from swirl.imagetokens.tile import TileTokenizer, cut_tiles

MOST = 100_000
"""Distinct patches that prototypes are sought among; of more, as many are drawn."""


def learn(frames: Sequence[str], spec: Images, seed: int) -> TileTokenizer:
    """A tokenizer with a code for each of `spec.codes` prototypes, or for each distinct patch where they are fewer.

    A patch weighs the square root of how often it occurs, or plain ground would take all prototypes.

    Args:
        frames: Paths or `data:` URIs; they are opened one after another.
        spec: Says how large a patch is, and how many prototypes there are.
        seed: Of the draw and of the first prototypes.

    Raises:
        InputError: There are no frames, or one cannot be read or cut into patches.
        MissingPartError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError:
        raise MissingPartError(
            "the image tokenizer vq needs the package scikit-learn; install it: pip install '.[images]'"
        ) from None
    patches, count = _distinct(frames, spec.patch, seed)
    if len(patches) > spec.codes:
        settings: dict[str, Any] = {"batch_size": 4096, "max_iter": 30, "n_init": 1, "init": "random"}
        found: Any = MiniBatchKMeans(spec.codes, **settings, random_state=seed)
        found.fit(patches.astype(np.float32) / 255, sample_weight=np.sqrt(count))
        patches = np.unique((found.cluster_centers_ * 255).round().astype(np.uint8), axis=0)
    return TileTokenizer(patches.reshape(len(patches), spec.patch, spec.patch, 3))


def _distinct(frames: Sequence[str], side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct patches, (N, side * side * 3) of uint8, and how often each occurs."""
    counts: dict[bytes, int] = {}
    rng = np.random.default_rng(seed)
    with progress.bar("patches", total=len(frames)) as bar:
        for number in rng.permutation(len(frames)):
            tiles = cut_tiles(images.open_image(frames[int(number)]), side)
            for patch in tiles.reshape(-1, side * side * 3):
                known = patch.tobytes()
                if known in counts or len(counts) < MOST:
                    counts[known] = counts.get(known, 0) + 1
            bar.advance(patches=len(counts))
    if not counts:
        raise InputError("no frames to learn patches from; check that the states of the recording hold images")
    pixels = np.frombuffer(b"".join(counts), np.uint8).reshape(len(counts), -1)
    return pixels, np.array([*counts.values()])
