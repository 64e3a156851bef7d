"""States that hold images, shown to a person: in words, as a film strip, as an animation."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from swirl import durable, images, sheets
from swirl.errors import InputError
from swirl.types import State, state_images, state_parts, state_text

ENDINGS = (".png", ".gif")


def check_ending(path: Path) -> Path:
    """The path of a file that `draw` can write.

    Raises:
        InputError: It ends otherwise.
    """
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"{path}: expected .png (a film strip) or .gif (an animation)")
    return path


def in_words(state: State) -> str:
    """A state's text, with the size of an image in its place."""
    told = []
    for part in state_parts(state_text(state)):
        if part["type"] == "image":
            image = images.open_image(part["image"])
            told.append(f"[image, {image.width}x{image.height} pixels]")
        else:
            told.append(part["text"])
    return "\n".join(told)


def frame(state: State) -> Image.Image | None:
    """The image of a state that holds one; `None` for any other."""
    held = state_images(state)
    return images.open_image(held[0]) if len(held) == 1 else None


def draw(states: Sequence[State], actions: Sequence[str], path: Path) -> None:
    """Write a rollout: a film strip with its actions, or an animation, by the ending of the file.

    Args:
        states: The state at the start, then one after each action.
        actions: What was done.
        path: The file.

    Raises:
        InputError: The states hold no image, or several each; or the disk is full.
    """
    frames = [frame(state) for state in states]
    if None in frames:
        raise InputError(f"{path}: nothing to draw, for states hold no image, or several each; leave out --out")
    with durable.explain_full_disk(path):
        if path.suffix.lower() == ".gif":
            path.write_bytes(sheets.gif(frames))
        else:
            sheets.film_strip({"imagined": frames}, actions).save(path)
