"""The image tokenizers of pretrained unified models, each with the tokens and the way to write that its model knows.

| kind | language model | weights of the image tokenizer |
|---|---|---|
| `liquid` | Liquid-7B, a Gemma with 8,192 image tokens appended | Chameleon's `vqgan.ckpt`, or that as safetensors |
| `chameleon` | Chameleon | the same |
| `emu3` | Emu3 | a folder of `Emu3VQVAE`, or of the whole model |
| `janus` | any: Janus keeps its codes outside of its vocabulary | a folder of `JanusVQVAE`, or of the whole model |

    tokenizer = pretrained.adapt("liquid", Path("vqgan.ckpt"))
    tokenizer.save(folder)  # `images.tokenizer` of a recipe

The weights, up to a gigabyte, stay where they are: `save` writes down their place and their hash, and loading refuses
others. Frames are encoded one at a time, so that codes do not depend on what is encoded beside them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from swirl import models
from swirl.errors import InputError
from swirl.imagetokens import base, vqgan


@dataclass(frozen=True)
class Form:
    """How a language model was trained to read images.

    Attributes:
        token: The token of a code.
        pattern: Matches one of them.
        begin: Before an image, with its `{rows}` and `{columns}`.
        between: Between two rows.
        end: After the last row.
        mean: Of the pixels in [0, 1] that the encoder reads, a channel each.
        std: By which they are divided then.
        first: Id of the first token where the model's own tokenizer has no names for them.
    """

    token: Callable[[int], str]
    pattern: re.Pattern[str]
    begin: str = ""
    between: str = "\n"
    end: str = ""
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    first: int | None = None

    def marks(self) -> tuple[str, ...]:
        """The tokens and characters around the codes."""
        around = self.begin + self.between.strip("\n") + self.end
        tokens = re.findall("<[^<>]+>", around)
        rest = re.sub("<[^<>]+>|{[a-z]+}", "", around)
        return tuple(dict.fromkeys([*tokens, *rest, *("0123456789" if "{" in around else "")]))


FORMS = {
    # Gemma's vocabulary has 256,000 tokens; <boi> and <eoi> are two of them. Source: FoundationVision/Liquid,
    # evaluation/inference_i2t.py and evaluation/VQA_Eval/model_vqa_loader.py.
    "liquid": Form("<|i{}|>".format, base.OWN, "<boi>", "", "<eoi>", first=256_000),
    # Digits are letters: code 8191 is IMGIMGIBJBZ. Source: transformers, ChameleonImageVocabularyMapping.
    "chameleon": Form(
        lambda code: f"IMGIMG{str(code).translate(str.maketrans('0123456789', 'ABCDEFGHIJ'))}Z",
        re.compile("IMGIMG[A-J]+Z"),
        *("<racm3:break>", "", "<eoss>"),
    ),
    # Every row ends with a token of its own. Source: transformers, Emu3Processor and Emu3ImageVocabularyMapping.
    "emu3": Form(
        "<|visual token {:06d}|>".format,
        re.compile(r"<\|visual token \d{6}\|>"),
        *("<|image start|>{rows}*{columns}<|image token|>", "<|extra_200|>"),
        "<|extra_200|><|extra_201|><|image end|>",
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    ),
    "janus": Form("<|i{}|>".format, base.OWN),
}


class PretrainedTokenizer:
    """The image tokenizer of a pretrained model.

    Args:
        kind: A key of `FORMS`.
        source: The file, folder or name that its weights are from.
        device: Where to compute; `auto` is CUDA where there is one.

    Attributes:
        first: See `Form`; `vocabulary.extend` wants it.

    Raises:
        InputError: There are no whole weights.
    """

    def __init__(self, kind: str, source: str | Path, device: str = "auto") -> None:
        self.kind, self.source, self.form = kind, source, FORMS[kind]
        self.pattern, self.first = self.form.pattern, self.form.first
        self.model = vqgan.load("chameleon" if kind == "liquid" else kind, source)
        self.side = self.model.patch
        self.device = models.device_of(device)
        self.model.module.to(self.device).eval().requires_grad_(False)
        self.tokens = tuple(map(self.form.token, range(self.model.codes)))
        self.marks = self.form.marks()
        self._codes = {token: code for code, token in enumerate(self.tokens)}

    @torch.inference_mode()
    def encode(self, frames: Sequence[Image.Image]) -> list[np.ndarray]:
        """The codes of RGB images; see `base.ImageTokenizer`.

        Raises:
            InputError: An image is of a size that the model was not made for.
        """
        wanted, patch = self.model.size, self.model.patch
        for frame in frames:
            if wanted and frame.size != (wanted, wanted):
                raise InputError(
                    f"an image of {frame.width}x{frame.height} pixels, expected {wanted}x{wanted}, which is what "
                    f"{self.kind} reads; resize the frames"
                )
            if frame.width % patch or frame.height % patch:
                raise InputError(
                    f"an image of {frame.width}x{frame.height} pixels, expected multiples of {patch} for {self.kind}; "
                    "resize the frames"
                )
        return [self.model.encode(self._read(frame))[0].cpu().numpy() for frame in frames]

    @torch.inference_mode()
    def decode(self, codes: np.ndarray) -> Image.Image:
        """The RGB image of a grid of codes (rows, columns)."""
        pixels = self.model.decode(torch.from_numpy(codes)[None].to(self.device))[0].float().cpu()
        pixels = (pixels * _channels(self.form.std) + _channels(self.form.mean)).clamp(0, 1)
        return Image.fromarray((pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())

    def write(self, codes: np.ndarray) -> str:
        """A grid as text, as the language model was trained to read it."""
        begin = self.form.begin.format(rows=codes.shape[0], columns=codes.shape[1])
        rows = ("".join(self.tokens[code] for code in row) for row in codes.tolist())
        return begin + self.form.between.join(rows) + self.form.end

    def parse(self, text: str) -> np.ndarray | None:
        """The grid that a text is; `None` where it is none, or one that the model was not made for."""
        found = [match[0] for match in self.pattern.finditer(text)]
        side = self.model.size // self.model.patch
        first, *_ = text.removesuffix(self.form.end).split(self.form.between) if self.form.between else [""]
        columns = side or sum(1 for _ in self.pattern.finditer(first))
        if not columns or len(found) % columns or (side and len(found) != side**2):
            return None
        if any(token not in self._codes for token in found):
            return None
        codes = np.array([self._codes[token] for token in found], np.int64).reshape(-1, columns)
        return codes if self.write(codes) == text else None

    def save(self, folder: Path) -> None:
        """Where the weights are, and their hash."""
        card = {"kind": self.kind, "source": str(self.source), "weights": models.weights_hash(self.model.module)}
        base.save_card(folder, card)

    @classmethod
    def restore(cls, folder: Path, card: dict[str, Any]) -> "PretrainedTokenizer":
        """What `save` wrote.

        Raises:
            InputError: The weights are not where they were, or others.
        """
        found = cls(card["kind"], card["source"])
        if models.weights_hash(found.model.module) != card["weights"]:
            raise InputError(
                f"{card['source']} has other weights than those that {folder} was made with; put them back, or make "
                "the image tokenizer anew and train with it"
            )
        return found

    def _read(self, frame: Image.Image) -> torch.Tensor:
        """An RGB image as the encoder reads it, (1, 3, H, W)."""
        pixels = torch.from_numpy(np.array(frame)).permute(2, 0, 1).float() / 255
        return ((pixels - _channels(self.form.mean)) / _channels(self.form.std))[None].to(self.device)


def _channels(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(values)[:, None, None]


def adapt(kind: str, source: str | Path, device: str = "auto") -> PretrainedTokenizer:
    """The image tokenizer of a pretrained model, to be saved where a recipe names it.

    Args:
        kind: "liquid", "chameleon", "emu3" or "janus".
        source: See the table above.
        device: Where to compute; `auto` is CUDA where there is one.

    Raises:
        InputError: There is no such kind, or no whole weights.
    """
    if kind not in FORMS:
        raise InputError(f"no pretrained image tokenizer {kind!r}, expected one of {', '.join(FORMS)}")
    local = Path(source)
    return PretrainedTokenizer(kind, local.resolve() if local.exists() else source, device)
