"""The frozen side: a causal LM that only says how likely a completion is.

Three things make it fast without changing a number by more than rounding:
- rows that occur twice are scored once;
- prompts that begin alike (one state with several actions or next states) share one pass over the common part, whose
  key-value cache is then read by every row;
- logits are computed for completion positions only.

Layout of a batch, so that completions begin in one column and `logits_to_keep` cuts all rows at once:

    [ shared prefix, left-padded (P) | rest of the prompt, left-padded (M) | completion, right-padded (C) ]
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import DynamicCache

from swirl import imagetokens, models, prompts
from swirl.types import Role

Row = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a prompt and of a completion."""


LONG = 1024
"""Tokens of a row above which attention is so much of the work that a mask must be worth it (docs/cost.md)."""

PIECE = 2**22
"""Most logits copied to float32 at once (16 MiB, and as much for their softmax), unless one position has more."""


@dataclass(frozen=True)
class _Group:
    """Rows whose prompts begin with the same `shared` tokens."""

    rows: list[Row]
    shared: int

    @property
    def width(self) -> int:
        """Tokens of the longest row."""
        return max(len(prompt) + len(completion) for prompt, completion in self.rows)


class Scorer:
    """A frozen policy that gives log-likelihoods; its weights never change and never hold gradients.

    Args:
        path: A checkpoint; the scorer loads its own copy, so training the policy that was saved there cannot touch it.
        device: Where to compute.
        dtype: Of the weights; log-softmax is always float32 and sums are float64.
        batch_tokens: Most tokens per forward pass, padding included.
        share: Whether prompts that begin alike share a pass.
        images: Folder of the image tokenizer, where states hold images.

    Attributes:
        images: The image tokenizer; `None` where states hold no images.
    """

    def __init__(
        self,
        path: str | Path,
        device: torch.device | str = "cpu",
        dtype: str = "float32",
        batch_tokens: int = 16_384,
        share: bool = True,
        trust_remote_code: bool = False,
        images: Path | None = None,
    ) -> None:
        self.model, self.tokenizer = models.load(path, device, dtype, trust_remote_code)
        self.model.requires_grad_(False)
        self.end_ids = models.end_ids(self.model, self.tokenizer)
        self.batch_tokens = 1 if models.reads_padding(self.model.config) else batch_tokens  # 1: every row by itself
        self.share = share and _full_attention(self.model)
        self.images = imagetokens.load(images) if images else None
        self._outside = imagetokens.outside(images) if images else ""

    def suppressed(self, role: Role, style: str) -> list[int]:
        """Tokens that a reply of the role never has; none where states hold no images."""
        if self.images is None:
            return []
        found = imagetokens.suppressed(
            self.tokenizer, self.images, self._outside, role, prompts.in_change_form(style), self.end_ids
        )
        if role == "inverse" or not found:
            return found
        # A model has more embeddings than its tokenizer has tokens where they were rounded up.
        return [*found, *range(len(self.tokenizer), self.model.get_input_embeddings().num_embeddings)]

    @torch.inference_mode()
    def log_likelihood(
        self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], suppress: Sequence[int] = ()
    ) -> tuple[list[float], list[int]]:
        """Log-likelihood of each completion after its prompt.

        Args:
            prompts: Token ids, at least one each (B rows).
            completions: Token ids, at least one each (B rows).
            suppress: Tokens that cannot be written: the probabilities of the others add up to 1.

        Returns:
            Summed log-likelihood (nats) and token count per row.

        Raises:
            ValueError: A prompt or a completion is empty, or the lists differ in length.
        """
        rows: list[Row] = [(tuple(p), tuple(c)) for p, c in zip(prompts, completions, strict=True)]
        for number, (prompt, completion) in enumerate(rows):
            if not prompt or not completion:
                raise ValueError(f"row {number}: got an empty {'completion' if prompt else 'prompt'}, expected tokens")
        known: dict[Row, float] = {}
        for batch in self._batches(sorted(set(rows))):
            known.update(self._score(batch, list(suppress)))
        return [known[row] for row in rows], [len(completion) for _, completion in rows]

    def _batches(self, rows: list[Row]) -> Iterator[list[_Group]]:
        """Groups of similar width, packed up to `batch_tokens`; one that has more is a batch by itself.

        So is a long one: it fills a pass alone, where with others it would be padded, and attention need a mask.
        """
        groups = list(_groups(rows)) if self.share else [_Group([row], 0) for row in rows]
        batch: list[_Group] = []
        for group in sorted(groups, key=lambda g: (g.width, g.rows[0])):
            count = sum(len(g.rows) for g in batch) + len(group.rows)
            if batch and (count * group.width > self.batch_tokens or group.width > LONG):
                yield batch
                batch = []
            batch.append(group)
        if batch:
            yield batch

    def _score(self, groups: list[_Group], suppress: list[int]) -> dict[Row, float]:
        """Log-likelihoods of a batch's rows, in as many passes as `batch_tokens` demands."""
        layers, mask = self._prefix(groups)
        rows = [(number, row) for number, group in enumerate(groups) for row in group.rows]
        most = max(1, self.batch_tokens // max(group.width for group in groups))
        known: dict[Row, float] = {}
        for start in range(0, len(rows), most):
            numbers, part = zip(*rows[start : start + most], strict=True)
            index = torch.tensor(numbers, device=self.model.device)
            cache = _select(layers, index, self.model.config) if layers else None
            shared = [groups[number].shared for number in numbers]
            known |= self._continue(part, shared, cache, mask[index], suppress)
        return known

    def _continue(
        self,
        rows: Sequence[Row],
        shared: Sequence[int],
        cache: DynamicCache | None,
        prefix_mask: torch.Tensor,
        suppress: list[int],
    ) -> dict[Row, float]:
        """One pass over what of each row is not in the cache."""
        device, pad = self.model.device, self.tokenizer.pad_token_id
        middle = [list(prompt[cut:]) for (prompt, _), cut in zip(rows, shared, strict=True)]
        middle_ids, middle_mask = models.left_pad(middle, pad, device)
        longest = max(len(completion) for _, completion in rows)
        tail_ids = torch.tensor([[*c, *[pad] * (longest - len(c))] for _, c in rows], device=device)
        tail_mask = torch.tensor([[1] * len(c) + [0] * (longest - len(c)) for _, c in rows], device=device)
        mask = torch.cat([prefix_mask, middle_mask, tail_mask], dim=1)  # (B, P + M + C)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, prefix_mask.shape[1] :]
        logits = self.model(
            input_ids=torch.cat([middle_ids, tail_ids], dim=1),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
            logits_to_keep=longest + 1,
        ).logits  # (B, C + 1, V): the position before each completion token, and the last
        sums = _log_probabilities(logits, tail_ids, tail_mask, suppress).double().sum(1)
        return dict(zip(rows, sums.tolist(), strict=True))

    def _prefix(self, groups: list[_Group]) -> tuple[list[Any], torch.Tensor]:
        """One pass over the groups' shared tokens: cache by layer (groups, heads, P, width), mask (groups, P)."""
        if not any(group.shared for group in groups):
            return [], torch.ones(len(groups), 0, dtype=torch.long, device=self.model.device)
        heads = [list(group.rows[0][0][: group.shared]) for group in groups]
        ids, mask = models.left_pad(heads, self.tokenizer.pad_token_id, self.model.device)
        cache = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            past_key_values=DynamicCache(config=self.model.config),
            use_cache=True,
            logits_to_keep=1,
        ).past_key_values
        return cache.layers, mask


def _select(layers: list[Any], index: torch.Tensor, config: Any) -> DynamicCache:
    """A cache of rows of another one, which stays as it is; nothing else holds its tensors, so each layer can go."""
    return DynamicCache([(layer.keys[index], layer.values[index]) for layer in layers], config=config)


def _groups(rows: list[Row], least: int = 8) -> Iterator[_Group]:
    """Cut sorted rows into groups that share at least half of the first prompt; if long, most of the first row.

    Attention over a cache needs a mask, and is slower by the token than a whole causal pass; the longer the rows, the
    more of the work is attention. At least one prompt token stays out of the shared part: the position before the first
    completion token must be computed per row.
    """
    start = 0
    while start < len(rows):
        first, completion = rows[start]
        width = len(first) + len(completion)
        enough = max(least, len(first) // 2 if width <= LONG else width * 4 // 5)
        shared, end = len(first) - 1, start + 1
        while end < len(rows):
            common = min(shared, _common(first, rows[end][0]), len(rows[end][0]) - 1)
            if common < enough:
                break
            shared, end = common, end + 1
        yield _Group(rows[start:end], shared if end - start > 1 else 0)
        start = end


def _log_probabilities(
    logits: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor, suppress: list[int]
) -> torch.Tensor:
    """Float32 log-probability of each token (B, C) by its logits (B, >= C, V), 0 where the mask is; piece by piece."""
    out = torch.zeros(tokens.shape, device=logits.device)
    for places in mask.nonzero().split(max(1, PIECE // logits.shape[-1])):
        at = tuple(places.unbind(1))
        some = logits[at].float()
        some[:, suppress] = -torch.inf
        out[at] = -torch.nn.functional.cross_entropy(some, tokens[at], reduction="none")
    return out


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _full_attention(model: Any) -> bool:
    """Whether every layer sees the whole past, each token at the position that it is told.

    A window or a recurrent state cannot read a padded shared prefix; a model that is not told positions counts padding.
    """
    if getattr(model, "_is_stateful", False) or "position_ids" not in inspect.signature(model.forward).parameters:
        return False
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return set(kinds) == {"full_attention"}
    return not getattr(config, "sliding_window", None)
