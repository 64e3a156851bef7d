"""Which tokens a reply may have, where states are images: the others are not sampled.

    inverse    anything but image tokens and the marks around them
    forward    those, marks of the change form, and what training states have outside their images; anything, where that
               is text of letters or digits

Sampling alone is restricted. Log-likelihoods, in the optimiser as in the scorer, are those of the whole vocabulary, so
a token that is never sampled still costs the others its probability. `image_suppressed_nll` says how much in each run.
"""

from collections.abc import Collection, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from swirl import durable
from swirl.imagetokens import vocabulary
from swirl.imagetokens.base import ImageTokenizer
from swirl.types import Role

OUTSIDE = "outside.txt"
"""Beside a saved tokenizer: the characters that training states have outside their images."""
CHANGE_MARKS = "\n-+@=*0123456789"


def note_outside(folder: Path, characters: Iterable[str]) -> None:
    """Remember what states have outside their images."""
    durable.atomic_write(folder / OUTSIDE, "".join(sorted(characters)))


def outside(folder: Path) -> str:
    """The characters that training states have outside their images, as `note_outside` left them."""
    file = folder / OUTSIDE
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def suppressed(
    tokenizer: Any, images: ImageTokenizer, outside: str, role: Role, changes: bool, ends: Collection[int]
) -> list[int]:
    """Ids of the tokens that a reply never has.

    Args:
        tokenizer: The language model's.
        images: The image tokenizer.
        outside: The characters that states have outside their images.
        role: Who replies.
        changes: Whether next states are written as changes.
        ends: Ids of the tokens that end a reply.
    """
    of_images = set(vocabulary.ids(tokenizer, images.tokens))
    around = {mark: tokenizer.encode(mark, add_special_tokens=False) for mark in images.marks}
    if role == "inverse":  # which may write characters, and what is spelt in several tokens
        return sorted(of_images.union(*(found for mark, found in around.items() if len(mark) > 1 and len(found) == 1)))
    of_images = of_images.union(*around.values())
    if any(letter.isalnum() for letter in outside):
        return []
    allowed = set(outside) | {"\n"} | (set(CHANGE_MARKS) if changes else set())
    spelt = _spelt(tokenizer)
    return [
        number
        for number, text in enumerate(spelt)
        if number not in of_images and number not in ends and not (text and set(text) <= allowed)
    ]


@lru_cache(maxsize=4)
def _spelt(tokenizer: Any) -> list[str]:
    """The text of every token."""
    return [tokenizer.decode([number]) for number in range(len(tokenizer))]
