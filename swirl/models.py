"""Policies: load and save any Hugging Face causal LM, generate."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.utils import logging as advice

from swirl.errors import InputError


@dataclass(frozen=True)
class Reply:
    """One generated completion.

    Attributes:
        text: Decoded without special tokens.
        finished: Whether the model ended it; `False` where the token limit did.
        ids: The tokens as they were generated, with the one that ended it.
    """

    text: str
    finished: bool
    ids: tuple[int, ...] = ()


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save an ordinary `transformers` folder: safetensors, tokenizer, configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def device_of(name: str) -> torch.device:
    """The device a recipe means: `auto` is this process's own GPU where there is one.

    Raises:
        InputError: There is no such device here.
    """
    if name != "auto":
        try:
            torch.empty(0, device=name)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f"device {name!r}, expected auto, cpu or cuda: {first_line(error)}") from None
        return torch.device(name)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    from accelerate import PartialState

    return PartialState().device  # pyright: ignore[reportReturnType]


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice of `transformers`; what its user has set holds again afterwards."""
    verbosity, bars = advice.get_verbosity(), advice.is_progress_bar_enabled()
    advice.set_verbosity_error()
    advice.disable_progress_bar()
    try:
        yield
    finally:
        advice.set_verbosity(verbosity)
        if bars:
            advice.enable_progress_bar()


def located(path: str | Path) -> Path:
    """The path of a model: a folder that is there, or a name that the Hub knows (`name`, `owner/name`).

    Raises:
        InputError: It can only be a folder, and there is none; or the Hub does not know it, or cannot be asked.
    """
    text, path = str(path), Path(path)
    if path.exists():
        return path
    beside = path.parent != Path() and path.parent.is_dir()
    ours = path.parts[:1] == ("runs",)  # where runs lie unless `--out` says otherwise
    if path.is_absolute() or text.startswith((".", "~")) or len(path.parts) > 2 or beside or ours:
        raise InputError(f"{text}: no such folder; give a run folder, a checkpoint, or a name that transformers knows")
    _ask_the_hub(text)
    return path


def _ask_the_hub(name: str) -> None:
    """Refuse a name that cannot be loaded from the Hub; `transformers` would retry for most of a minute before.

    Raises:
        InputError: There is no such model there, or the Hub cannot be reached and there is no copy here.
    """
    import httpx2  # as huggingface_hub does, whose errors of the connection these are
    from huggingface_hub import constants, file_exists, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HFValidationError, OfflineModeIsEnabled

    mend = "give a run folder, a checkpoint, or a name that transformers knows"
    try:
        if isinstance(try_to_load_from_cache(name, constants.CONFIG_NAME), str):
            return
        if not file_exists(name, constants.CONFIG_NAME):
            raise InputError(f"no run or checkpoint at {name}, and no such model on the Hub; {mend}")
    except GatedRepoError:
        return  # transformers says how to be let in
    except HFValidationError:
        raise InputError(f"no run or checkpoint at {name}, and no such model on the Hub; {mend}") from None
    except (httpx2.HTTPError, OfflineModeIsEnabled, OSError) as error:
        raise InputError(
            f"no run or checkpoint at {name}, and the Hub cannot be asked for it ({first_line(error)}); {mend}"
        ) from None


@quiet()
def load_config(path: str | Path, trust_remote_code: bool = False) -> Any:
    """Load a model's configuration.

    Raises:
        InputError: There is no such folder, or none in it.
    """
    path = located(path)
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read the configuration of {path}: {first_line(error)}") from None


@quiet()
def load_tokenizer(path: str | Path, trust_remote_code: bool = False) -> Any:
    """Load a tokenizer and prove that it still reads and writes text.

    Raises:
        InputError: There is no such folder, no tokenizer in it, or it has no chat template or loses text.
    """
    path = located(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise InputError(f"cannot load a tokenizer from {path}: {first_line(error)}") from None
    if tokenizer.chat_template is None:
        raise InputError(f"the tokenizer of {path} has no chat template; use an instruct model, or set one and save it")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    sample = "door 3 4 open"
    ids = tokenizer(sample, add_special_tokens=False)["input_ids"]
    if tokenizer.decode(ids, skip_special_tokens=True).strip() != sample:
        raise InputError(
            f"the tokenizer of {path} does not give back what it reads ({sample!r} -> {ids}); save it anew"
        )
    tokenizer.padding_side = "left"
    return tokenizer


@quiet()
def load(
    path: str | Path, device: torch.device | str = "cpu", dtype: str = "float32", trust_remote_code: bool = False
) -> tuple[Any, Any]:
    """Load a causal LM and its tokenizer, in evaluation mode.

    Raises:
        InputError: The folder is not a whole checkpoint, or the name cannot be resolved.
    """
    from safetensors import SafetensorError

    tokenizer = load_tokenizer(path, trust_remote_code)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code, output_loading_info=True
        )
        model, report = loaded
        if report["missing_keys"]:  # which transformers would fill with random numbers
            raise ValueError(f"it has no weights for {min(report['missing_keys'])}")
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"cannot load a model from {path}: {first_line(error)}; if it is a checkpoint of a run, delete its phase "
            "folder and run the same command again"
        ) from None
    return model.to(device).eval(), tokenizer


def first_line(error: Exception) -> str:
    """What an error says, in a line."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def weights_hash(model: Any) -> str:
    """SHA-256 over all weights and buffers: name, type, shape and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@quiet()
@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    n: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    max_new_tokens: int,
    seed: int = 0,
    batch: int = 128,
    suppress: Sequence[int] = (),
    advance: Any = None,
) -> list[list[Reply]]:
    """Generate `n` completions per prompt.

    Args:
        model: A causal LM.
        tokenizer: Its tokenizer.
        prompts: Token ids, any lengths (P prompts).
        n: Completions per prompt (G).
        temperature: 0 is greedy.
        top_p: Nucleus; 1 keeps everything.
        top_k: 0 keeps everything.
        max_new_tokens: Token limit of a completion.
        seed: Of the sampling; the global generator is left as it was.
        batch: Completions per forward pass.
        suppress: Ids of tokens that no completion may have.
        advance: Called with the number of prompts done.

    Returns:
        P lists of G replies, in the order of the prompts.
    """
    ends = end_ids(model, tokenizer)
    sampling = {"do_sample": False} if temperature == 0 else _sampling(temperature, top_p, top_k)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    replies: list[list[Reply]] = [[] for _ in prompts]
    rows = 1 if reads_padding(model.config) else max(1, batch // n)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), _no_settings_of_its_own(model):
        torch.manual_seed(seed)
        for start in range(0, len(order), rows):
            chosen = order[start : start + rows]
            ids, mask = left_pad([prompts[i] for i in chosen], tokenizer.pad_token_id, model.device)
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                num_return_sequences=n,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=ends,
                suppress_tokens=list(suppress) or None,
                **sampling,
            )[:, ids.shape[1] :]
            for row, completion in enumerate(out.tolist()):
                replies[chosen[row // n]].append(_reply(tokenizer, completion, ends))
            if advance:
                advance(len(chosen))
    return replies


@contextmanager
def _no_settings_of_its_own(model: Any) -> Iterator[None]:
    """A model without the generation settings saved with it: a repetition penalty would sample from another Q."""
    saved, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = saved


def _sampling(temperature: float, top_p: float, top_k: int) -> dict[str, Any]:
    return {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": top_k}


def left_pad(rows: Sequence[list[int]], pad: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T) ids and attention mask of rows padded on the left."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
    return ids, mask


def end_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends a reply: the tokenizer's first, then what else the model's generation settings name."""
    named = model.generation_config.eos_token_id
    others = named if isinstance(named, list) else [] if named is None else [named]
    return list(dict.fromkeys([tokenizer.eos_token_id, *others]))


def check_padding(path: str | Path, trust_remote_code: bool = False) -> None:
    """Refuse a model that cannot read a padded batch, where one is all that it would get (TRL's generation).

    Raises:
        InputError: It cannot, or there is no configuration.
    """
    config = load_config(path, trust_remote_code)
    if reads_padding(config):
        raise InputError(
            f"a {config.get_text_config().model_type} model takes padding for text, and GRPO generates in padded "
            "batches; use the method verified instead of swirl, or another model"
        )


def reads_padding(config: Any) -> bool:
    """Whether a model takes padding for text: transformers (5.23) gives these recurrent layers no attention mask."""
    return config.get_text_config().model_type in ("recurrent_gemma", "rwkv")


def _reply(tokenizer: Any, ids: list[int], ends: Sequence[int]) -> Reply:
    at = next((place for place, token in enumerate(ids) if token in ends), None)
    written = ids if at is None else ids[: at + 1]
    return Reply(tokenizer.decode(ids[:at], skip_special_tokens=True), at is not None, tuple(written))
