"""How well an image tokenizer trained on frames gives back frames that it has not seen.

    python benchmarks/image_tokenizers.py FOLDER --patch 4 --width 64 --steps 600

FOLDER holds images of one size. Of their names in order, the last tenth is held out, so frames of one episode stay
together where names begin with the episode. Prints one line of JSON.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

from swirl import images
from swirl.config import Images
from swirl.imagetokens import fsq


def main() -> None:
    """Train on the frames of the command line and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--levels", type=int, nargs="+", default=[8, 5, 5, 5])
    for name, kind in [("patch", int), ("width", int), ("steps", int), ("batch", int), ("learning-rate", float)]:
        parser.add_argument(f"--{name}", type=kind, default=getattr(Images(), name.replace("-", "_")))
    given = vars(parser.parse_args())
    frames = sorted(str(path) for path in given.pop("folder").glob("*.png"))
    train, held = frames[: -len(frames) // 10], frames[-len(frames) // 10 :]
    spec = Images(tokenizer="fsq", **given | {"levels": tuple(given["levels"])})
    torch.set_num_threads(1)
    begin = time.process_time()
    tokenizer = fsq.learn(train, spec, seed=0, device="cpu")
    seconds = time.process_time() - begin
    print(json.dumps(given | {"frames": len(train), "cpu_s": round(seconds)} | measured(tokenizer, held)), flush=True)


def measured(tokenizer: fsq.FSQTokenizer, frames: list[str]) -> dict[str, float]:
    """Of the reconstructions: mean PSNR in dB, share of pixels within 8 of 255 in each channel, codes in use."""
    psnr, near, used = [], [], set[int]()
    for frame in frames:
        image = images.open_image(frame)
        [codes] = tokenizer.encode([image])
        error = np.asarray(tokenizer.decode(codes), float) - np.asarray(image, float)
        psnr.append(10 * math.log10(255**2 / max(np.square(error).mean(), 1e-6)))
        near.append((np.abs(error).max(-1) <= 8).mean())
        used |= set(codes.flatten().tolist())
    return {"psnr": round(np.mean(psnr), 2), "within_8": round(np.mean(near), 4), "codes": len(used)}


if __name__ == "__main__":
    main()
