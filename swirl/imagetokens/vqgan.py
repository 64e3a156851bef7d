"""The networks behind `pretrained.py`: codes of pixels, and pixels of codes, with the weights of pretrained models.

Emu3's and Janus' are those of `transformers`. Of Chameleon's VQGAN `transformers` has the encoder alone, and its
checkpoints lack the decoder's weights, so both are read from the original file; the decoder has the layers of Janus'.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from transformers import ChameleonVQVAEConfig, Emu3VQVAE, JanusVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE
from transformers.models.janus.modeling_janus import JanusVQVAE, JanusVQVAEDecoder

from swirl import models
from swirl.errors import InputError

CHAMELEON_SIZE = 512
"""Side of the images that Chameleon and Liquid read, pixels; its weights do not tell."""


@dataclass(frozen=True)
class Network:
    """A pretrained image tokenizer's network.

    Attributes:
        module: Its weights.
        codes: Number of codes.
        patch: Side of the square that a code stands for, pixels.
        size: Side of the square images that it reads, pixels; 0: any multiples of `patch`.
        encode: Normalised pixels (1, 3, H, W) to codes (1, H / patch, W / patch).
        decode: And back.
    """

    module: nn.Module
    codes: int
    patch: int
    size: int
    encode: Callable[[torch.Tensor], torch.Tensor]
    decode: Callable[[torch.Tensor], torch.Tensor]


def load(kind: str, source: str | Path) -> Network:
    """The network of a pretrained image tokenizer.

    Args:
        kind: "chameleon", "emu3" or "janus".
        source: Chameleon's original file; otherwise a folder, or a name that `transformers` can resolve, of the network
            alone or of the whole model.

    Raises:
        InputError: There are no whole weights of that kind.
    """
    return {"chameleon": _chameleon, "emu3": _emu3, "janus": _janus}[kind](source)


def _emu3(source: str | Path) -> Network:
    module = _from_transformers(Emu3VQVAE, source)

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        return module.encode(pixels, torch.tensor([pixels.shape[-2:]])).image_tokens[0][None]

    return Network(module, module.config.codebook_size, module.spatial_scale_factor, 0, encode, module.decode)


def _janus(source: str | Path) -> Network:
    module = _from_transformers(JanusVQVAE, source)
    config = module.config
    patch = 2 ** (len(config.channel_multiplier) - 1)

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        # By angle, as the model was trained and as its decoder reads the codebook; `encode` of transformers 5.23
        # compares by distance, which gives other codes.
        latents = functional.normalize(module.quant_conv(module.encoder(pixels)), dim=1)
        return _most_alike(latents, functional.normalize(module.quantize.embedding.weight, dim=1))

    def decode(codes: torch.Tensor) -> torch.Tensor:
        return module.decode(codes.flatten(1))

    return Network(module, config.num_embeddings, patch, config.num_patches * patch, encode, decode)


def _chameleon(source: str | Path) -> Network:
    tensors = _tensors(Path(source))
    try:
        module = Chameleon(tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"{source} has no VQGAN like Chameleon's ({models.first_line(error)})") from None
    embedding = module.encoder.quantize.embedding.weight
    return Network(module, len(embedding), module.patch, CHAMELEON_SIZE, module.codes, module.pixels)


class Chameleon(nn.Module):
    """Chameleon's VQGAN; its shape is that of its tensors.

    Args:
        tensors: By the names that they have in the original file.
    """

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        base = len(tensors["encoder.conv_in.weight"])
        levels, blocks = (1 + max(_numbers(tensors, prefix)) for prefix in ("encoder.down.", "encoder.down.0.block."))
        widths = [len(tensors[f"encoder.down.{level}.block.0.conv1.weight"]) for level in range(levels)]
        codes, embed = tensors["quantize.embedding.weight"].shape
        shape: dict[str, Any] = {
            "num_embeddings": codes,
            "embed_dim": embed,
            "latent_channels": len(tensors["post_quant_conv.weight"]),
            "base_channels": base,
            "channel_multiplier": [width // base for width in widths],
            "num_res_blocks": blocks,
        }
        self.patch = 2 ** (levels - 1)
        self.encoder = ChameleonVQVAE(ChameleonVQVAEConfig(**shape))
        self.decoder = JanusVQVAEDecoder(JanusVQVAEConfig(**shape))
        for stage in self.decoder.up:
            stage.attn = nn.ModuleList()  # Janus' has attention here, Chameleon's in the middle alone
        named: dict[str, dict[str, torch.Tensor]] = {"encoder": {}, "decoder": {}}
        for name, tensor in tensors.items():
            if name.startswith("decoder."):
                named["decoder"][_reversed(name.removeprefix("decoder."), levels)] = tensor
            elif name.startswith(("encoder.", "quantize.", "quant_conv.", "post_quant_conv.")):
                named["encoder"][name] = tensor
        self.encoder.load_state_dict(named["encoder"])
        self.decoder.load_state_dict(named["decoder"])

    def codes(self, pixels: torch.Tensor) -> torch.Tensor:
        """Codes (1, H / patch, W / patch) of normalised pixels (1, 3, H, W)."""
        rows, columns = (side // self.patch for side in pixels.shape[-2:])
        encoder: Any = self.encoder
        return encoder.encode(pixels).image_tokens.view(1, rows, columns)

    def pixels(self, codes: torch.Tensor) -> torch.Tensor:
        """Normalised pixels (1, 3, H, W) of codes (1, H / patch, W / patch)."""
        latents = self.encoder.quantize.embedding(codes).movedim(-1, 1)
        return self.decoder(self.encoder.post_quant_conv(latents))


def _numbers(tensors: dict[str, torch.Tensor], prefix: str) -> set[int]:
    """The numbers that follow a prefix in names of tensors."""
    return {int(name.removeprefix(prefix).split(".")[0]) for name in tensors if name.startswith(prefix)}


def _reversed(name: str, levels: int) -> str:
    """A name of the decoder's tensors: the original counts its stages from the last, `transformers` from the first."""
    if not name.startswith("up."):
        return name
    _, level, rest = name.split(".", 2)
    return f"up.{levels - 1 - int(level)}.{rest}"


def _most_alike(latents: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """The code (1, h, w) with the greatest product with each latent (1, D, h, w); codebook (codes, D)."""
    return (latents.movedim(1, -1) @ codebook.T).argmax(-1)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file; nothing in it is run."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
        return found.get("state_dict", found)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file of a VQGAN's weights; mend the path") from None
    except (OSError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError, SafetensorError) as error:
        raise InputError(
            f"{path}: no file of tensors that can be read ({models.first_line(error)}); where it holds more than "
            "tensors, save those as safetensors"
        ) from None


@models.quiet()
def _from_transformers(kind: Any, source: str | Path) -> Any:
    """A network of `transformers`, from its own checkpoint or from that of the whole model.

    Raises:
        InputError: There are no whole weights of that kind.
    """
    config = models.load_config(source)
    config = getattr(config, "vq_config", config)
    wanted = kind.config_class.model_type
    if config.model_type != wanted:
        raise InputError(f"{source} is a {config.model_type}, expected a {wanted} or a whole model that has one")
    try:
        module, report = kind.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            key_mapping={r"^(model\.)?vqmodel\.": ""},
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"cannot load an image tokenizer from {source}: {models.first_line(error)}") from None
    if report["missing_keys"]:
        raise InputError(f"cannot load an image tokenizer from {source}: no weights for {min(report['missing_keys'])}")
    return module
