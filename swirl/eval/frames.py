"""Image metrics of predictions that are written with image tokens.

*Where* something changed, and whether it is right, is asked of frames as the tokenizer draws them, state, recorded next
state and prediction alike: a code that is right is right, however well it is drawn. How much of a frame arrives
(PSNR, SSIM) is asked against the recorded frame itself, with the tokenizer's own drawing of it beside, `..._ceiling`,
which no model can exceed by much.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from swirl import image_metrics, images, imagetokens
from swirl.data.imaging import FRAMES
from swirl.imagetokens import ImageTokenizer
from swirl.metrics import Values
from swirl.types import state_images

logger = logging.getLogger("swirl")

Rows = Sequence[dict[str, Any]]


def forward_values(tokenizer: ImageTokenizer, rows: Rows, predictions: Sequence[str]) -> Values:
    """Image metrics row by row; of transitions whose two states hold one image each, else none, with a warning.

    Args:
        tokenizer: Drew the images of the rows, and reads the predictions.
        rows: Transitions with `state`, `next_state`, `frame` and `next_frame`.
        predictions: Next states as models wrote them; "" where one cannot be read.
    """
    if any(len(_grids(tokenizer, row[name])) != 1 for row in rows for name in FRAMES):
        logger.warning("states have no image or several: image metrics are for one image in each, and are left out")
        return {}
    found = image_metrics.forward_values(
        (_drawn(tokenizer, row["state"]) for row in rows),
        (_drawn(tokenizer, row["next_state"]) for row in rows),
        (_pixels(tokenizer, text) for text in predictions),
        tokenizer.side,
        recorded=map(_recorded, rows),
    )
    ceilings: dict[str, list[float | None]] = {"psnr": [], "ssim": []}
    for row in rows:
        recorded, drawn = _recorded(row), _drawn(tokenizer, row["next_state"])
        ceilings["psnr"].append(image_metrics.psnr(recorded, drawn))
        ceilings["ssim"].append(image_metrics.ssim(recorded, drawn))
    for name, values in ceilings.items():
        index = np.flatnonzero([value is not None for value in values])  # a small frame has no SSIM
        found |= {f"image_{name}_ceiling": (np.array(values, float)[index], index)} if len(index) else {}
    return found


def _recorded(row: dict[str, Any]) -> np.ndarray:
    """The recorded next frame itself."""
    (where,) = state_images(row[FRAMES["next_state"]])
    return np.asarray(images.open_image(where))


def frame(tokenizer: ImageTokenizer, text: str) -> Image.Image | None:
    """The frame that a text with image tokens shows; `None` where it shows none, or several."""
    found = _grids(tokenizer, text)
    codes = tokenizer.parse(found[0]) if len(found) == 1 else None
    return None if codes is None else tokenizer.decode(codes)


def _pixels(tokenizer: ImageTokenizer, text: str) -> np.ndarray | None:
    found = frame(tokenizer, text)
    return None if found is None else np.asarray(found)


def _drawn(tokenizer: ImageTokenizer, text: str) -> np.ndarray:
    """The frame of a recorded state, which shows one, as the tokenizer draws it."""
    found = _pixels(tokenizer, text)
    assert found is not None
    return found


def _grids(tokenizer: ImageTokenizer, text: str) -> list[str]:
    return [piece for is_grid, piece in imagetokens.pieces(tokenizer, text) if is_grid]
