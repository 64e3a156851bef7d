"""An image tokenizer trained on the user's own frames: a small autoencoder with finite scalar quantisation.

Every patch of a frame becomes one code: the encoder's output at the patch, each of its few channels rounded to one of
`levels` values. There is no codebook that could collapse, and the loss is that of the reconstruction alone, L1 + L2.

The encoder sees nothing but the patch, so a code stands for the same pixels wherever they are, and what does not change
in a frame does not change in its codes: that is what a world model has to predict. The decoder sees the codes around.

Source: Mentzer et al., Finite Scalar Quantization: VQ-VAE Made Simple, arXiv 2309.15505.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from swirl import images, models, progress
from swirl.config import Images
from swirl.errors import InputError, MissingPartError
from swirl.imagetokens import base

WEIGHTS = "autoencoder.safetensors"
INSTALL = "pip install '.[images]'"


class FSQTokenizer:
    """One code per patch of a frame, of the size of the frames it was trained on; what it draws is not exact.

    Frames are encoded one at a time and on the CPU, so that codes do not depend on what is encoded beside them.

    Args:
        network: The trained autoencoder.
        size: Width and height of a frame, pixels.
    """

    kind = "fsq"
    pattern = base.OWN
    first: int | None = None
    marks: tuple[str, ...] = ()

    def __init__(self, network: "Autoencoder", size: tuple[int, int]) -> None:
        self.network = network.cpu().eval().requires_grad_(False)
        self.size = size
        self.side = network.patch
        self.grid = (size[1] // network.patch, size[0] // network.patch)
        self.tokens = base.own_tokens(math.prod(network.levels))

    @torch.inference_mode()
    def encode(self, frames: Sequence[Image.Image]) -> list[np.ndarray]:
        """The codes of RGB images; see `base.ImageTokenizer`.

        Raises:
            InputError: An image is of another size than the frames of the training.
        """
        for frame in frames:
            _check_size(frame, self.size, "an image", "resize it, or train an image tokenizer on frames of its size")
        return [self.network.codes(_pixels([frame]))[0].numpy() for frame in frames]

    @torch.inference_mode()
    def decode(self, codes: np.ndarray) -> Image.Image:
        """The RGB image of a grid of codes (rows, columns)."""
        pixels = self.network.pixels(torch.from_numpy(codes)[None])[0]
        return Image.fromarray((pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())

    def write(self, codes: np.ndarray) -> str:
        """A grid as text, a row to a line."""
        return base.write_rows(self.tokens, codes)

    def parse(self, text: str) -> np.ndarray | None:
        """The grid that a text is; `None` where it is none, or not that of a whole frame."""
        codes = base.parse_rows(text, len(self.tokens))
        return codes if codes is not None and codes.shape == self.grid else None

    def save(self, folder: Path) -> None:
        """The weights, and the card."""
        save_file(self.network.state_dict(), folder / WEIGHTS)
        shape = {"levels": self.network.levels, "patch": self.network.patch, "width": self.network.width}
        base.save_card(folder, {"kind": self.kind, "size": self.size} | shape)

    @classmethod
    def restore(cls, folder: Path, card: dict[str, Any]) -> "FSQTokenizer":
        """What `save` wrote.

        Raises:
            InputError: The weights are missing or damaged.
            MissingPartError: The library that quantises is not installed.
        """
        network = Autoencoder(tuple(card["levels"]), card["patch"], card["width"])
        width, height = card["size"]
        try:
            network.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, RuntimeError, SafetensorError) as error:
            raise InputError(
                f"{folder / WEIGHTS} has no whole image tokenizer ({models.first_line(error)}); copy the folder again"
            ) from None
        return cls(network, (width, height))


class Autoencoder(nn.Module):
    """Pixels to codes and back.

    Args:
        levels: Values per latent channel.
        patch: Side of the square that a code stands for, pixels.
        width: Channels.

    Raises:
        MissingPartError: The library that quantises is not installed.
    """

    def __init__(self, levels: tuple[int, ...], patch: int, width: int) -> None:
        super().__init__()
        try:
            from vector_quantize_pytorch import FSQ
        except ImportError:
            raise MissingPartError(
                f"the image tokenizer fsq needs the package vector-quantize-pytorch; install it: {INSTALL}"
            ) from None
        self.levels, self.patch, self.width = levels, patch, width
        self.encoder = nn.Sequential(
            *(nn.Conv2d(3, width, patch, patch), Residual(width, 1), Residual(width, 1), ChannelNorm(width)),
            nn.Conv2d(width, len(levels), 1),
        )
        # Keeps the patches spread over the levels; without it they all drift into one corner where most are alike.
        self.spread = nn.BatchNorm2d(len(levels), affine=False, momentum=0.05)
        self.quantise = FSQ(levels=list(levels))
        self.decoder = nn.Sequential(
            nn.Conv2d(len(levels), width, 3, padding=1),
            *(Residual(width, 3), Residual(width, 3), ChannelNorm(width)),
            *(nn.Conv2d(width, 3 * patch**2, 1), nn.PixelShuffle(patch)),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Reconstructions (N, 3, H, W) of frames (N, 3, H, W) in [0, 1]; gradients pass the rounding as they are."""
        return self.decoder(self.quantise(self.spread(self.encoder(pixels)))[0])

    def codes(self, pixels: torch.Tensor) -> torch.Tensor:
        """Codes (N, H / patch, W / patch) of frames (N, 3, H, W) in [0, 1]."""
        return self.quantise(self.spread(self.encoder(pixels)))[1].long()

    def pixels(self, codes: torch.Tensor) -> torch.Tensor:
        """Frames (N, 3, H, W) of codes (N, H / patch, W / patch)."""
        return self.decoder(self.quantise.indices_to_codes(codes))


class ChannelNorm(nn.LayerNorm):
    """Normalises each place of (N, width, h, w) by itself."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, width, h, w) to the same."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class Residual(nn.Module):
    """x + f(x) with two convolutions over squares of a side."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        one, two = (nn.Conv2d(width, width, side, padding=side // 2) for _ in range(2))
        self.branch = nn.Sequential(ChannelNorm(width), one, nn.SiLU(), two)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, width, h, w) to the same."""
        return x + self.branch(x)


def learn(frames: Sequence[str], spec: Images, seed: int, device: str = "auto") -> FSQTokenizer:
    """Train a tokenizer on frames of one size.

    Each step draws its frames at random and opens them then, so memory does not grow with their number. The same seed
    gives the same weights on the same machine.

    Args:
        frames: Paths or `data:` URIs.
        spec: Its levels, patch, width, steps, batch and learning rate.
        seed: Of the first weights, and of what each step draws.
        device: Where to train; `auto` is CUDA where there is one.

    Raises:
        InputError: There are no frames, one cannot be read or is of another size, or a setting cannot be.
        MissingPartError: The library that quantises is not installed.
    """
    if not frames:
        raise InputError("no frames to train an image tokenizer on; check that the states of the recording hold images")
    if not spec.levels or min(spec.levels) < 3:
        raise InputError(f"images.levels is {list(spec.levels)}, expected numbers from 3 up, such as [8, 5, 5, 5]")
    size = images.open_image(frames[0]).size
    if size[0] % spec.patch or size[1] % spec.patch:
        raise InputError(
            f"{images.short(frames[0])} has {size[0]}x{size[1]} pixels, expected multiples of images.patch = "
            f"{spec.patch}; set another images.patch, or resize the frames"
        )
    where = models.device_of(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Autoencoder(spec.levels, spec.patch, spec.width)
    network = network.to(where).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=spec.learning_rate, betas=(0.9, 0.99), weight_decay=0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, spec.steps))
    draws = np.random.default_rng(seed)
    with progress.bar("image tokenizer", total=spec.steps) as task:
        for step in range(spec.steps):
            if step == spec.steps // 2:
                network.spread.eval()  # what the decoder learns from here on are the codes that frames will have
            some = [frames[int(i)] for i in draws.integers(len(frames), size=spec.batch)]
            pixels = _pixels([_sized(frame, size) for frame in some]).to(where)
            error = network(pixels) - pixels
            squared = error.square().mean()
            optimiser.zero_grad()
            (error.abs().mean() + squared).backward()
            optimiser.step()
            schedule.step()
            task.advance(psnr=-10 * math.log10(max(squared.item(), 1e-10)))
    return FSQTokenizer(network, size)


def _rate(step: int, steps: int) -> float:
    """Share of the learning rate: up in 50 steps, and down to nothing over the second half."""
    return min(1.0, (step + 1) / 50, 2 * (1 - step / steps))


def _pixels(frames: Sequence[Image.Image]) -> torch.Tensor:
    """RGB images of one size as (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack([np.asarray(frame) for frame in frames])).permute(0, 3, 1, 2).float() / 255


def _sized(frame: str, size: tuple[int, int]) -> Image.Image:
    image = images.open_image(frame)
    _check_size(image, size, images.short(frame), "frames of a recording have to be of one size for fsq; resize them")
    return image


def _check_size(frame: Image.Image, size: tuple[int, int], name: str, mend: str) -> None:
    if frame.size != size:
        raise InputError(
            f"{name} has {frame.width}x{frame.height} pixels, expected {size[0]}x{size[1]} as the other frames; {mend}"
        )
