"""The images of a recording: in a folder beside it, `rec.images/` for `rec.parquet`, under the hash of their pixels.

In the text of a state an image is its path, relative to the folder of the recording. While a recording is under way
its images wait in the hidden folder of its pieces; those that the finished file names are moved, the others are
forgotten with the pieces. Images of an earlier recording of the same name stay: something else may name them.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from swirl import images
from swirl.types import IMAGE, State, state_images, state_parts, state_text


def kept_text(state: State, waiting: Path, name: str) -> str:
    """The text of a state, with its images put on the disk.

    Args:
        state: Its images are `data:` URIs.
        waiting: The folder that they are put into.
        name: Of the folder that they will be in.

    Raises:
        InputError: An image cannot be opened.
    """
    text = state_text(state)
    if IMAGE not in text:
        return text
    parts = state_parts(text)
    for part in parts:
        if part["type"] == "image":
            part["image"] = f"{name}/{images.keep(images.open_image(part['image']), waiting)}"
    return state_text(parts)


def move(texts: Iterable[str], waiting: Path, folder: Path) -> None:
    """Move the images that texts of states name, as far as they were not moved before."""
    for text in texts:
        for where in state_images(text) if IMAGE in text else ():
            image = folder / Path(where).name
            try:
                os.replace(waiting / image.name, image)
            except FileNotFoundError:
                if not image.is_file():
                    raise
