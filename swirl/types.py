"""The nouns of the package: what a state, a transition and a role are.

A state is text, or a list of content parts in the format that `transformers` chat templates read
(`{"type": "text", "text": ...}`, `{"type": "image", "image": ...}`). Plain strings are accepted wherever a state is.
On disk a transition is a row of these columns, states as text (`state_text`); `COLUMNS` is their order.
"""

from collections.abc import Sequence
from typing import Literal, TypedDict

Role = Literal["forward", "inverse"]
ROLES: tuple[Role, Role] = ("forward", "inverse")


class TextPart(TypedDict):
    """A piece of a state that is text."""

    type: Literal["text"]
    text: str


class ImagePart(TypedDict):
    """A piece of a state that is an image.

    Attributes:
        type: "image".
        image: Where it is: a path, or a `data:` URI that holds it.
    """

    type: Literal["image"]
    image: str


Part = TextPart | ImagePart
State = str | Sequence[Part]

IMAGE = "\ufffc"
"""Begins the line that stands for an image in the text of a state: Unicode's object replacement character."""


class Transition(TypedDict):
    """One step of a recording; a row of a Parquet file.

    Attributes:
        state: What the world looked like before the step.
        action: What was done, in words; `None` where it was not recorded.
        next_state: What the world looked like after the step.
        trajectory: Name of the episode that the step belongs to, unique in the file.
        step: Position in the trajectory, from 0.
        terminated: The episode ended here because the world says so.
        truncated: The episode ended here because the recording stopped.
        reward: The world's reward for the step; `None` where there is none.
        split: "train", "validation" or "test".
    """

    state: State
    action: str | None
    next_state: State
    trajectory: str
    step: int
    terminated: bool
    truncated: bool
    reward: float | None
    split: str


COLUMNS = tuple(Transition.__annotations__)
SPLITS = ("train", "validation", "test")

Encoded = tuple[list[int], list[int]]
"""Token ids of a prompt and of its completion."""


def state_text(state: State) -> str:
    """The text of a state: itself, or its parts joined by newlines, each image as `IMAGE` and where it is."""
    if isinstance(state, str):
        return state
    return "\n".join(part["text"] if part["type"] == "text" else IMAGE + part["image"] for part in state)


def state_parts(text: str) -> list[Part]:
    """The parts of a state's text: `state_text` of them is the text again."""
    parts: list[Part] = []
    for line in text.split("\n"):
        if line.startswith(IMAGE):
            parts.append({"type": "image", "image": line[len(IMAGE) :]})
        elif parts and parts[-1]["type"] == "text":
            parts[-1]["text"] += f"\n{line}"
        else:
            parts.append({"type": "text", "text": line})
    return parts


def state_images(state: State) -> list[str]:
    """Where the images of a state are, in their order."""
    return [part["image"] for part in state_parts(state_text(state)) if part["type"] == "image"]
