"""What copying the first image of recorded pairs earns, and how well a learned tokenizer gives the images back.

    swirl import pairs AURORA/test.json --format aurora --out pairs.parquet --size 256x256
    python benchmarks/image_pairs.py pairs.parquet --tokenizer vq --patch 8

A line of JSON for each subset, as trajectories are named: `SUBSET/NUMBER`. Every fifth layout is held out; the
tokenizer learns from the others, and its figures are of those held out.
"""

import json

import numpy as np
import pyarrow as pa
import torch
from image_tokenizers import arguments, measured

from swirl import data, image_metrics, images
from swirl.config import Images
from swirl.data.imaging import learn, shown
from swirl.data.splitting import layouts
from swirl.types import state_images

TOLERANCE = 8
"""Levels of 255 by which JPEG alone may change a pixel."""


def main() -> None:
    """Measure the recording of the command line, subset by subset."""
    given = arguments(__doc__)
    table = data.read(given.pop("recording"))
    held = np.unique(layouts(table), return_inverse=True)[1] % 5 == 0
    torch.set_num_threads(1)
    tokenizer = learn(shown(table.filter(pa.array(~held))), Images(**given), seed=0, device="cpu")
    assert tokenizer is not None
    subset = np.array([name.partition("/")[0] for name in table["trajectory"].to_pylist()])
    for name in np.unique(subset):
        mine = subset == name
        back = {"held_images": len(new := shown(table.filter(pa.array(mine & held))))} | measured(tokenizer, new)
        print(json.dumps({"subset": name, **given, **copied(table.filter(pa.array(mine))), **back}))


def copied(table: pa.Table) -> dict[str, float]:
    """Means of the image metrics of pairs whose first image is the prediction of the second."""
    before, after = ([pixels(state) for state in table[name].to_pylist()] for name in ("state", "next_state"))
    found = image_metrics.forward_values(before, after, before, tolerance=TOLERANCE)
    names = ("image_psnr", "image_ssim", "image_pixel_match", "image_changed_f1")
    return {"pairs": len(before)} | {f"copy_{name}": round(float(found[name][0].mean()), 4) for name in names}


def pixels(state: str) -> np.ndarray:
    """The image of a state, which has one."""
    (where,) = state_images(state)
    return np.asarray(images.open_image(where))


if __name__ == "__main__":
    main()
