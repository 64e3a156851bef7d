"""How alike two frames are to a pretrained network, where its user has the weights: CLIP and LPIPS.

`similarity = ClipSimilarity("models/clip-vit-base-patch32"); similarity(frame, truth)`

Both look at what a picture shows more than at its pixels, and neither was made for small or synthetic frames: a sprite
on the wrong tile moves them little. Copying the state scores high, so read them beside the row `copy-input`.
"""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import CLIPConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from swirl import models
from swirl.errors import InputError, MissingPartError
from swirl.image_metrics import Frame
from swirl.metrics import Values

INSTALL = "pip install torchvision"
LPIPS_SIDE = 31
"""Pixels; AlexNet cannot read a frame with a shorter side."""


class ClipSimilarity:
    """Cosine of the CLIP image embeddings of two frames, in [-1, 1].

    Frames are resized to what the model reads by its own processor. Frames of two sizes can be compared.

    Source: Radford et al., arXiv 2103.00020.

    Args:
        name: A CLIP model: a local folder, or a name that `transformers` can resolve.
        device: Where to compute; `auto` is CUDA where there is one.

    Raises:
        InputError: There is no whole CLIP model.
    """

    metric, worst = "image_clip_similarity", 0.0

    def __init__(self, name: str | Path, device: str = "auto") -> None:
        path = models.located(name)
        try:
            with models.quiet():
                self._processor = CLIPImageProcessorPil.from_pretrained(path)
                whole: Any = CLIPConfig.from_pretrained(path)
                vision = whole.vision_config
                vision.projection_dim = whole.projection_dim  # it need not say so itself
                load: Any = CLIPVisionModelWithProjection.from_pretrained
                model, report = load(path, config=vision, dtype=torch.float32, output_loading_info=True)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise InputError(f"cannot load a CLIP model from {path}: {models.first_line(error)}") from None
        if report["missing_keys"]:
            raise InputError(f"cannot load a CLIP model from {path}: no weights for {min(report['missing_keys'])}")
        self._model = model.to(models.device_of(device)).eval().requires_grad_(False)

    def __call__(self, frame: Frame, truth: Frame) -> float:
        """The cosine of two frames; 1 for equal ones."""
        if np.array_equal(frame, truth):
            return 1.0
        pixels = self._processor([Image.fromarray(one) for one in (frame, truth)], return_tensors="pt").pixel_values
        with torch.inference_mode():
            one, other = self._model(pixel_values=pixels.to(self._model.device)).image_embeds
        return float(torch.cosine_similarity(one, other, dim=0))


class Lpips:
    """LPIPS of two frames of one size: torchmetrics', of AlexNet; 0 for equal ones, lower is better, seldom above 1.

    torchvision fetches AlexNet's weights, or finds them in its cache (`TORCH_HOME`).

    Source: Zhang et al., arXiv 1801.03924.

    Raises:
        InputError: The weights can neither be found nor fetched.
        MissingPartError: torchvision is not installed.
    """

    metric, worst = "image_lpips", 1.0

    def __init__(self, device: str = "auto") -> None:
        if find_spec("torchvision") is None:
            raise MissingPartError(f"LPIPS needs torchvision; install it: {INSTALL}")
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        try:
            measure = LearnedPerceptualImagePatchSimilarity("alex", normalize=True)
        except (URLError, RuntimeError, OSError) as error:
            raise InputError(f"cannot load AlexNet for LPIPS: {models.first_line(error)}; see TORCH_HOME") from None
        self._device = models.device_of(device)
        self._measure = measure.to(self._device)

    def __call__(self, frame: Frame, truth: Frame) -> float:
        """The distance of two frames.

        Raises:
            InputError: They are too small.
        """
        if min(truth.shape[:2]) < LPIPS_SIDE:
            raise InputError(f"a frame of {truth.shape[1]}x{truth.shape[0]} pixels; LPIPS needs {LPIPS_SIDE} a side")
        one, other = (torch.from_numpy(x).permute(2, 0, 1)[None].to(self._device) / 255 for x in (frame, truth))
        with torch.inference_mode():
            return float(self._measure(one, other))


def forward_values(
    similarity: ClipSimilarity | Lpips,
    truths: Iterable[Frame],
    predictions: Iterable[Frame | None],
    advance: Callable[[int], None] = lambda n: None,
) -> Values:
    """The similarity of predicted next frames row by row, over all rows.

    A prediction that is no frame, or of another size, has the value of two frames that have nothing in common: 0 for
    CLIP, 1 for LPIPS.
    """
    values = []
    for truth, prediction in zip(truths, predictions, strict=True):
        if prediction is None or prediction.shape != truth.shape:
            values.append(similarity.worst)
        else:
            values.append(similarity(prediction, truth))
        advance(1)
    return {similarity.metric: (np.array(values), np.arange(len(values)))} if values else {}
