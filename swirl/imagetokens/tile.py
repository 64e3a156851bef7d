"""The exact tokenizer of frames that are made of square tiles, as those of grid worlds are: a code per distinct tile.

A tile that was not among the training frames' becomes the one that is nearest to it, and `unknown` counts such tiles.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from swirl import images, progress
from swirl.config import Images
from swirl.errors import InputError
from swirl.imagetokens import base

TILES = "tiles.png"
"""The tiles of a saved tokenizer, side by side, in the order of their codes."""
DISTANCES = 2**22
"""Distances between tiles that are held at once."""


class TileTokenizer:
    """One code per distinct tile; exact for the tiles that it knows.

    Args:
        tiles: (codes, side, side, 3) of uint8, all different.
    """

    kind = "tile"
    pattern = base.OWN
    first: int | None = None
    marks: tuple[str, ...] = ()

    def __init__(self, tiles: np.ndarray) -> None:
        self.tiles = tiles
        self.side = tiles.shape[1]
        self.tokens = base.own_tokens(len(tiles))
        self._codes = {tile.tobytes(): code for code, tile in enumerate(tiles)}

    def encode(self, frames: Sequence[Image.Image]) -> list[np.ndarray]:
        """The codes of RGB images, each of a size of its own; see `base.ImageTokenizer`.

        Raises:
            InputError: The sides of an image are no multiples of the tile's.
        """
        if not frames:
            return []
        cut = [cut_tiles(frame, self.side) for frame in frames]
        distinct, place = np.unique(np.concatenate([_as_bytes(tiles) for tiles in cut]), return_inverse=True)
        codes = np.array([self._codes.get(tile.tobytes(), -1) for tile in distinct], np.int64)
        new = np.flatnonzero(codes < 0)
        codes[new] = self._nearest(np.frombuffer(distinct[new].tobytes(), np.uint8))
        ends = np.cumsum([tiles.shape[0] * tiles.shape[1] for tiles in cut])[:-1]
        return [part.reshape(tiles.shape[:2]) for part, tiles in zip(np.split(codes[place], ends), cut, strict=True)]

    def unknown(self, frames: Sequence[Image.Image]) -> int:
        """How many tiles of the frames, equal ones counted each, are not in the codebook."""
        cut = [_as_bytes(cut_tiles(frame, self.side)) for frame in frames]
        return sum(tile.tobytes() not in self._codes for tiles in cut for tile in tiles)

    def decode(self, codes: np.ndarray) -> Image.Image:
        """The RGB image of a grid of codes (rows, columns)."""
        rows, columns = codes.shape
        pixels = self.tiles[codes].transpose(0, 2, 1, 3, 4)
        return Image.fromarray(pixels.reshape(rows * self.side, columns * self.side, 3))

    def write(self, codes: np.ndarray) -> str:
        """A grid as text, a row to a line."""
        return base.write_rows(self.tokens, codes)

    def parse(self, text: str) -> np.ndarray | None:
        """The grid that a text is; `None` where it is none."""
        return base.parse_rows(text, len(self.tiles))

    def save(self, folder: Path) -> None:
        """The tiles as a PNG file, and the card."""
        (folder / TILES).write_bytes(images.png(self.decode(np.arange(len(self.tiles))[None])))
        base.save_card(folder, {"kind": self.kind, "tile": self.side})

    @classmethod
    def restore(cls, folder: Path, card: dict[str, Any]) -> "TileTokenizer":
        """What `save` wrote.

        Raises:
            InputError: The file of tiles is missing or damaged.
        """
        strip = images.open_image(TILES, folder)
        if strip.height != card["tile"]:
            raise InputError(f"{folder / TILES} is {strip.height} pixels high, but its card says {card['tile']}")
        return cls(cut_tiles(strip, strip.height)[0])

    def _nearest(self, tiles: np.ndarray) -> np.ndarray:
        """The code of the tile at the least squared distance from each of `tiles`, N of them in one flat array."""
        known = self.tiles.reshape(len(self.tiles), -1).astype(np.float64)  # in which these products are exact
        tiles = tiles.reshape(-1, known.shape[1])
        lengths = (known**2).sum(1)
        step = max(1, DISTANCES // len(known))
        parts = [tiles[start : start + step].astype(np.float64) for start in range(0, len(tiles), step)]
        return np.concatenate([np.empty(0, np.int64), *((lengths - 2 * part @ known.T).argmin(1) for part in parts)])


def learn(frames: Sequence[str], spec: Images) -> TileTokenizer:
    """A tokenizer with a code for every tile of the frames; the order of the frames makes no difference.

    Args:
        frames: Paths or `data:` URIs; they are opened one after another.
        spec: Says how large a tile is, and how many there may be.

    Raises:
        InputError: There are no frames, one cannot be read or cut into tiles, or there are too many distinct tiles.
    """
    tiles: set[bytes] = set()
    with progress.bar("tiles", total=len(frames)) as task:
        for number, frame in enumerate(frames, 1):
            distinct = np.unique(_as_bytes(cut_tiles(images.open_image(frame), spec.tile, images.short(frame))))
            tiles.update(tile.tobytes() for tile in distinct)
            if len(tiles) > spec.codes:
                raise InputError(
                    f"{number} of {len(frames)} frames have {len(tiles)} distinct tiles of {spec.tile}x{spec.tile} "
                    f"pixels already, expected at most images.codes = {spec.codes} in all; set another images.tile or "
                    'a larger images.codes, or images.tokenizer = "fsq" where frames are not made of tiles'
                )
            task.advance(tiles=len(tiles))
    if not tiles:
        raise InputError("no frames to learn tiles from; check that the states of the recording hold images")
    pixels = np.frombuffer(b"".join(sorted(tiles)), np.uint8)
    return TileTokenizer(pixels.reshape(len(tiles), spec.tile, spec.tile, 3))


def cut_tiles(frame: Image.Image, side: int, name: str = "an image") -> np.ndarray:
    """An RGB image as tiles.

    Args:
        frame: The image.
        side: Of a tile, pixels.
        name: What to call the image where it cannot be cut.

    Returns:
        (rows, columns, side, side, 3) of uint8.

    Raises:
        InputError: The image's sides are no multiples of the tile's.
    """
    if frame.width % side or frame.height % side or not frame.width * frame.height:
        raise InputError(
            f"{name} has {frame.width}x{frame.height} pixels, expected multiples of the {side} pixels of a tile; "
            'resize the frames, or set another images.tile or images.tokenizer = "fsq"'
        )
    pixels = np.asarray(frame).reshape(frame.height // side, side, frame.width // side, side, 3)
    return np.ascontiguousarray(pixels.transpose(0, 2, 1, 3, 4))


def _as_bytes(tiles: np.ndarray) -> np.ndarray:
    """Tiles (rows, columns, side, side, 3) as (rows * columns) of one item each, which compare as a whole."""
    return tiles.reshape(-1).view(np.dtype((np.void, tiles[0, 0].size)))
