"""The built-in model, `tiny`: from scratch, for demonstrations, tests and worlds of few words.

A Llama of about a million parameters with a byte-level BPE tokenizer trained on the recording's own text: it can write
any text, and a world with few words gets about one token per word. With `tokens = "lines"` one whose states repeat
their lines gets about one per line; with `tokens = "phrases"` the cells of a grid and the digits of coordinates stay
tokens of their own, and the words around them are few. Llama, because a custom tokenizer saved beside some other
configurations (qwen2) is replaced on loading by that model's own class.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from swirl import models
from swirl.config import Model
from swirl.imagetokens import ImageTokenizer
from swirl.prompts import ACTION, NEXT

CUTS = {"lines": r"\n", "phrases": r"\n|\d|(?:^| |(?<=\n))\S(?=\s|$)"}
"""What stands alone before tokens are learned: line breaks; digits, and words of one character with their space."""
_BOS, _END, _PAD, _REPLY = "<|bos|>", "<|end|>", "<|pad|>", "<|reply|>"
_TEMPLATE = (
    f"{_BOS}{{% for message in messages %}}"
    f"{{% if message.role == 'assistant' %}}{_REPLY}{{{{ message.content }}}}{_END}"
    "{% else %}{{ message.content }}{% endif %}{% endfor %}"
    f"{{% if add_generation_prompt %}}{_REPLY}{{% endif %}}"
)


def build(texts: Iterable[str], folder: Path, spec: Model, seed: int, images: ImageTokenizer | None = None) -> None:
    """Train a tokenizer on `texts` and save it with a randomly initialised Llama to `folder`."""
    tokenizer = train_tokenizer(texts, spec, images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(configure(tokenizer, spec))
    models.save(model, tokenizer, folder)


def train_tokenizer(texts: Iterable[str], spec: Model, images: ImageTokenizer | None = None) -> Any:
    """Train the byte-level tokenizer of a `tiny` model; where states hold images, it has their tokens too."""
    from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE

    core = Tokenizer(BPE())
    inside = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=spec.tokens == "words")
    cuts = pre_tokenizers.Split(Regex(CUTS[spec.tokens]), "isolated") if spec.tokens in CUTS else None
    cut = pre_tokenizers.Sequence([cuts, inside]) if cuts else inside
    core.pre_tokenizer = cut  # pyright: ignore[reportAttributeAccessIssue]
    core.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    if images:
        texts = (images.pattern.sub("", text) for text in texts)
    special = [_PAD, _BOS, _END, _REPLY, ACTION, NEXT]
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=max(spec.vocabulary, 256 + len(special)),
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=_PAD,
        bos_token=_BOS,
        eos_token=_END,
        extra_special_tokens=[_REPLY, ACTION, NEXT],
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=spec.max_length,
    )
    tokenizer.add_tokens(list(images.tokens) if images else [])
    return tokenizer


def configure(tokenizer: Any, spec: Model) -> LlamaConfig:
    """The shape of a `tiny` model."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.hidden,
        intermediate_size=spec.hidden * 3,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads,
        max_position_embeddings=spec.max_length,
        tie_word_embeddings=True,
        # Llama's 0.02 suits widths of thousands; at 96 it makes learning to copy take several times as long.
        initializer_range=0.8 * spec.hidden**-0.5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
