"""What an image tokenizer is, and states written with its tokens.

A state that holds images is written as text in which every image is a grid of tokens, a row of the grid to a line:

    <|i12|><|i12|><|i7|>
    <|i12|><|i3|><|i7|>

From there on it is a text like any other: prompts, the change form, scoring, generation and text metrics need to know
nothing of images. The language model's tokenizer has a token for each of these strings. Pretrained models bring names
of their own (`tokens`), and some a way of their own to write a grid (`write`, `parse`).
"""

import hashlib
import importlib
import json
import re
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from swirl import images
from swirl.errors import InputError
from swirl.types import Part, State, state_images, state_parts, state_text

KINDS = {
    # kind: the module that has its class, and the class
    "tile": ("swirl.imagetokens.tile", "TileTokenizer"),
    "fsq": ("swirl.imagetokens.fsq", "FSQTokenizer"),
    "liquid": ("swirl.imagetokens.pretrained", "PretrainedTokenizer"),
    "chameleon": ("swirl.imagetokens.pretrained", "PretrainedTokenizer"),
    "emu3": ("swirl.imagetokens.pretrained", "PretrainedTokenizer"),
    "janus": ("swirl.imagetokens.pretrained", "PretrainedTokenizer"),
}
FOLDER = "images"
"""Of a saved tokenizer, in the data of a run and in its checkpoints."""
CARD = "image_tokenizer.json"
"""In the folder of a saved tokenizer: its kind, and what it needs beside its other files."""
BATCH = 256
"""Images that are opened and encoded together."""
OWN = re.compile(r"<\|i(\d{1,6})\|>")
"""Matches one of `own_tokens`."""


class ImageTokenizer(Protocol):
    """A way to write images as grids of codes.

    Attributes:
        kind: A key of `KINDS`.
        tokens: The token of each code in the language model's vocabulary; code k is written as `tokens[k]`.
        marks: What a grid's text has beside them, but line breaks: tokens of the language model, or characters.
        pattern: Matches one of `tokens`, and nothing that a text has by itself.
        side: Of the square that a code stands for, pixels.
        first: Id of the first token in a language model whose tokenizer has no names for them; `None` elsewhere.
    """

    kind: str
    tokens: tuple[str, ...]
    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    side: int
    first: int | None

    def encode(self, frames: Sequence[Image.Image]) -> list[np.ndarray]:
        """The codes of RGB images: int64 (rows, columns) each.

        Raises:
            InputError: An image has a size that the tokenizer cannot read.
        """
        ...

    def decode(self, codes: np.ndarray) -> Image.Image:
        """The RGB image of a grid of codes (rows, columns); exact only where the tokenizer is."""
        ...

    def write(self, codes: np.ndarray) -> str:
        """A grid of codes as text."""
        ...

    def parse(self, text: str) -> np.ndarray | None:
        """The grid that a text is; `None` where it is none."""
        ...

    def save(self, folder: Path) -> None:
        """Write all that `load` needs to a folder, `CARD` among it."""
        ...

    @classmethod
    def restore(cls, folder: Path, card: dict[str, Any]) -> "ImageTokenizer":
        """What `save` wrote, as it was."""
        ...


def load(folder: Path) -> ImageTokenizer:
    """A saved image tokenizer.

    Raises:
        InputError: The folder has none, or it is damaged.
    """
    try:
        card = json.loads((folder / CARD).read_text())
        module, name = KINDS[card["kind"]]
        return getattr(importlib.import_module(module), name).restore(folder, card)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} has no whole image tokenizer ({type(error).__name__}: {error})") from None


def save_card(folder: Path, card: dict[str, Any]) -> None:
    """Write the card of a tokenizer, its kind among what it says."""
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n")


def carried(checkpoint: Path) -> Path | None:
    """The folder of the image tokenizer that a checkpoint or the data of a run carries; `None` where it has none."""
    folder = checkpoint / FOLDER
    return folder if (folder / CARD).is_file() else None


def fingerprint(folder: Path) -> str:
    """A hash of a saved tokenizer, by which a checkpoint knows the one that it was trained with."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def own_tokens(count: int) -> tuple[str, ...]:
    """Names for the codes of a tokenizer that comes with no language model."""
    return tuple(f"<|i{code}|>" for code in range(count))


def write_rows(tokens: tuple[str, ...], codes: np.ndarray) -> str:
    """A grid as text, a row to a line."""
    return "\n".join("".join(tokens[code] for code in row) for row in codes.tolist())


def parse_rows(text: str, count: int) -> np.ndarray | None:
    """The grid that lines of `own_tokens(count)` are; `None` where they are none, or not all of one length."""
    rows = []
    for line in text.split("\n"):
        if not line or OWN.sub("", line):
            return None
        rows.append([int(number) for number in OWN.findall(line)])
    if len({len(row) for row in rows}) != 1 or max(map(max, rows)) >= count:
        return None
    return np.array(rows, np.int64)


def written(tokenizer: ImageTokenizer, states: Sequence[State], base: Path = Path()) -> list[str]:
    """States with their images written as tokens; each image is encoded once.

    Args:
        tokenizer: Writes them.
        states: Texts, or parts.
        base: What relative paths of images are relative to.

    Raises:
        InputError: An image cannot be read, two follow each other without text between them, or a text has an image
            token in it.
    """
    parts = [state_parts(state_text(state)) for state in states]
    names = list(dict.fromkeys(image for state in states for image in state_images(state)))
    known: dict[str, str] = {}
    for start in range(0, len(names), BATCH):
        some = names[start : start + BATCH]
        grids = tokenizer.encode([images.open_image(name, base) for name in some])
        known |= {name: tokenizer.write(grid) for name, grid in zip(some, grids, strict=True)}
    return [_joined(tokenizer, state, known) for state in parts]


def _joined(tokenizer: ImageTokenizer, parts: Sequence[Part], known: dict[str, str]) -> str:
    kinds = [part["type"] for part in parts]
    if any(one == two == "image" for one, two in pairwise(kinds)):
        raise InputError("a state has two images next to each other; put text between them")
    texts = []
    for part in parts:
        if part["type"] == "image":
            texts.append(known[part["image"]])
            continue
        texts.append(part["text"])
        if found := tokenizer.pattern.search(part["text"]):
            raise InputError(f"a state has {found[0]!r} in its text, which stands for a piece of an image; take it out")
    return "\n".join(texts)


def pieces(tokenizer: ImageTokenizer, text: str) -> list[tuple[bool, str]]:
    """A text cut into grids of tokens and what is between them, each with whether it is a grid."""
    cut = groupby(text.split("\n"), lambda line: bool(tokenizer.pattern.search(line)))
    return [(is_grid, "\n".join(lines)) for is_grid, lines in cut]


def drawn(tokenizer: ImageTokenizer, text: str) -> list[Part] | None:
    """The parts of a text that `written` gave or a model wrote, images as `data:` URIs; `None` for a broken grid."""
    parts: list[Part] = []
    for is_grid, piece in pieces(tokenizer, text):
        if not is_grid:
            parts.append({"type": "text", "text": piece})
            continue
        codes = tokenizer.parse(piece)
        if codes is None:
            return None
        parts.append({"type": "image", "image": images.data_uri(tokenizer.decode(codes))})
    return parts
