"""The image tokens in a language model's vocabulary: `ids` finds them, `extend` puts those in that are missing.

They are ordinary added tokens, not special ones: what a model writes is decoded without special tokens, and special
tokens in a state are spelt out, for a log could hold them. `ordinary` makes them so, and the marks around them.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import AddedToken

from swirl.errors import InputError

NOISE = 0.1
"""Spread of new embeddings around the mean of the others, as a share of the others' own spread."""


def ids(tokenizer: Any, tokens: Sequence[str]) -> list[int]:
    """The ids of image tokens.

    Args:
        tokenizer: The language model's.
        tokens: An image tokenizer's `tokens`.

    Raises:
        InputError: The vocabulary does not have them, or they are not read and written as one id each.
    """
    known = tokenizer.get_vocab()
    missing = [token for token in tokens if token not in known]
    if missing:
        raise InputError(
            f"the image tokenizer does not match the checkpoint: {len(missing)} of its {len(tokens)} tokens, "
            f"{missing[0]} for example, are not in the checkpoint's vocabulary; take the image tokenizer that the "
            "checkpoint was trained with"
        )
    found, text = [known[token] for token in tokens], "".join(tokens)
    if tokenizer.encode(text, add_special_tokens=False) != found:
        raise InputError(
            "the image tokenizer does not match the checkpoint, whose tokenizer does not read each image token as one "
            "token; take the image tokenizer that the checkpoint was trained with"
        )
    if tokenizer.decode(found, skip_special_tokens=True) != text:
        raise InputError(
            "the image tokenizer does not match the checkpoint, whose tokenizer does not write image tokens as they "
            "are; they have to be ordinary added tokens, not special ones"
        )
    return found


def ordinary(tokenizer: Any, tokens: Collection[str]) -> Any:
    """The tokenizer, with those of the tokens that it knows made ordinary added ones; their ids stay.

    Where some were special it is another object: the libraries cannot take that back, but the files can.
    """
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}.intersection(tokens)
    if special:
        with TemporaryDirectory() as place:
            folder = Path(place)
            tokenizer.save_pretrained(folder)
            for name in ("tokenizer.json", "tokenizer_config.json"):
                if (file := folder / name).is_file():
                    file.write_text(json.dumps(_ordinary(json.loads(file.read_text(encoding="utf-8")), special)))
            tokenizer = type(tokenizer).from_pretrained(folder)
    vocabulary = tokenizer.get_vocab()
    # Only an added token is found in any text, whatever stands around it.
    known = [token for token in tokens if len(token) > 1 and token in vocabulary]
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in known])
    return tokenizer


def _ordinary(value: Any, tokens: Collection[str]) -> Any:
    """A file of a tokenizer in which tokens are neither called special nor given a part to play."""
    if isinstance(value, list):
        return [_ordinary(item, tokens) for item in value if not (isinstance(item, str) and item in tokens)]
    if not isinstance(value, dict):
        return value
    if "special" in value and value.get("content") in tokens:
        return {**value, "special": False}
    return {k: _ordinary(v, tokens) for k, v in value.items() if not (isinstance(v, str) and v in tokens)}


def extend(model: Any, tokenizer: Any, tokens: Sequence[str], first: int | None = None, seed: int = 0) -> list[int]:
    """Put those image tokens into a model's vocabulary that are missing.

    Embeddings of new tokens are the mean of the others and a little noise, drawn from `seed`.

    Args:
        model: A causal language model; its embeddings grow.
        tokenizer: Its tokenizer; it gets the tokens.
        tokens: An image tokenizer's `tokens`.
        first: The id of the first token where the model was trained with image tokens that its tokenizer has no names
            for, as Liquid was: they are named, and the model stays as it is.
        seed: Of the noise.

    Returns:
        The ids of the tokens.

    Raises:
        InputError: The tokenizer cannot read or write the tokens as one id each, or they are not where `first` says.
    """
    rows = model.get_input_embeddings().num_embeddings
    known = tokenizer.get_vocab()
    # Those that it knows too, see `ordinary`.
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in tokens])
    found = ids(tokenizer, tokens)
    if first is not None:
        if found != list(range(first, first + len(tokens))) or found[-1] >= rows:
            raise InputError(
                f"the image tokenizer does not match the checkpoint: image tokens {first} to {first + len(tokens) - 1} "
                f"expected, but its tokenizer gives {found[0]} to {found[-1]}, and it has {rows} embeddings"
            )
        return found
    new = [number for token, number in zip(tokens, found, strict=True) if token not in known]
    if new:
        if max(new) >= rows:
            model.resize_token_embeddings(max(new) + 1, mean_resizing=False)
        _initialise(model, sorted(new), seed)
    return found


@torch.no_grad()
def _initialise(model: Any, new: Sequence[int], seed: int) -> None:
    """Give the embeddings of new tokens, and their rows in the output layer, values like those of the tokens before."""
    generator = torch.Generator().manual_seed(seed)
    tables = [model.get_input_embeddings().weight]
    if (output := model.get_output_embeddings()) is not None and output.weight is not tables[0]:
        tables.append(output.weight)
    for table in tables:
        others = table[: new[0]].float()
        noise = torch.randn(len(new), table.shape[1], generator=generator).to(table.device)
        table[new] = (others.mean(0) + NOISE * others.std(0) * noise).to(table.dtype)
