"""How well an image tokenizer learned from a recording's frames gives back frames that it has not seen.

    swirl collect crafter --option night=false --max-steps 120 --transitions 3000 --out crafter.parquet
    python benchmarks/image_tokenizers.py crafter.parquet --tokenizer vq --patch 8
    python benchmarks/image_tokenizers.py crafter.parquet --tokenizer fsq --patch 4 --width 64 --steps 1600

The last tenth of the trajectories is held out, less the frames that others show too. Prints one line of JSON.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from swirl import data, image_metrics, images
from swirl.config import Images
from swirl.data.imaging import learn, shown
from swirl.data.table import codes
from swirl.imagetokens import ImageTokenizer


def main() -> None:
    """Learn from the recording of the command line and print what was measured."""
    given = arguments(__doc__)
    table = data.read(given.pop("recording"))
    (group,) = codes(table["trajectory"])
    held = group >= (group.max() + 1) * 9 // 10
    train = shown(table.filter(~held))
    new = sorted(set(shown(table.filter(held))) - set(train))
    torch.set_num_threads(1)
    begin = time.process_time()
    tokenizer = learn(train, Images(**given), seed=0, device="cpu")
    assert tokenizer is not None
    seconds = round(time.process_time() - begin)
    print(json.dumps(given | {"train": len(train), "held": len(new), "cpu_s": seconds} | measured(tokenizer, new)))


def arguments(text: str) -> dict[str, Any]:
    """What the command line says: the recording, and settings of `config.Images`."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--tokenizer", choices=("tile", "vq", "fsq"), default="vq")
    for name in ("tile", "codes", "patch", "width", "steps", "batch", "learning-rate"):
        default = getattr(Images(), name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return vars(parser.parse_args())


def measured(tokenizer: ImageTokenizer, frames: list[str]) -> dict[str, float]:
    """Of the reconstructions: mean PSNR in dB, share of pixels within 8 of 255 in each channel, codes in use."""
    psnr, near, used = [], [], set[int]()
    for frame in frames:
        image = images.open_image(frame)
        [grid] = tokenizer.encode([image])
        truth, drawn = np.asarray(image), np.asarray(tokenizer.decode(grid))
        psnr.append(image_metrics.psnr(truth, drawn))
        near.append(image_metrics.cell_match(truth, drawn, 1, tolerance=8))
        used |= set(grid.flatten().tolist())
    return {"psnr": round(np.mean(psnr), 2), "within_8": round(np.mean(near), 4), "codes_used": len(used)}


if __name__ == "__main__":
    main()
