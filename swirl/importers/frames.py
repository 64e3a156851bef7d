"""Where an import keeps images: a folder beside the recording that takes its place just before the recording does.

Until then they lie in a hidden folder. What a killed import left in it is thrown away by the next one. Images that are
there already stay, since another recording may name them.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from swirl import durable, images
from swirl.errors import InputError


class Frames:
    """The images of an import."""

    def __init__(self, hidden: Path, folder: Path) -> None:
        self._hidden = hidden
        self._folder = folder

    def keep(self, image: Image.Image) -> str:
        """Keep an image; where it lies, relative to the recording."""
        return f"{self._folder.name}/{images.keep(image, self._hidden)}"


@contextmanager
def beside(recording: Path) -> Iterator[Frames]:
    """The images of a recording; they take their place when the block ends without an error, else there are none.

    Raises:
        InputError: A file has the name of their folder.
    """
    folder = images.beside(recording)
    hidden = folder.with_name(f".{folder.name}.part")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected the folder of the images of {recording.name}; move it away")
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        yield Frames(hidden, folder)
        if hidden.is_dir():
            folder.mkdir(exist_ok=True)
            for file in hidden.iterdir():
                os.replace(file, folder / file.name)
            durable.fsync(folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of `64x48`.

    Raises:
        InputError: It is not so written.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) * int(height) <= images.MOST_PIXELS):
        raise InputError(f"--size {text}: expected WIDTHxHEIGHT in pixels, e.g. 64x64")
    return int(width), int(height)


def fitted(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """The image in that size, by Lanczos' filter; as it is where there is none, or it has it.

    The whole image is stretched: what is not in the same ratio of sides is distorted, and nothing is cut off.
    """
    return image if size in (None, image.size) else image.resize(size, Image.Resampling.LANCZOS)
