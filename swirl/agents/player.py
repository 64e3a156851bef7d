"""Replies of a policy in many conversations at once, each turn going on from the cache of those before.

`generate` would compute a conversation anew for every turn. Here a turn costs its own tokens alone: new prompts are
padded on the left of their block, so every row's last token is its own, and what is padding or comes after a reply's
end is masked for ever. The cache has room to grow, so that a token does not cost a copy of all before it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from swirl import models


class Sampled(NamedTuple):
    """A reply as it was sampled.

    Attributes:
        ids: Its tokens, the end among them where it came.
        finished: Whether it came within the limit.
    """

    ids: list[int]
    finished: bool


class _Layer(DynamicLayer):
    """A layer's keys and values (B, heads, tokens, width): the beginnings of buffers that are half as long again."""

    _buffers: tuple[torch.Tensor, ...] = ()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds tokens; all that there are."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        have, added = self.get_seq_length(), (key_states, value_states)
        want = have + key_states.shape[-2]
        if not self._buffers or self._buffers[0].shape[-2] < want:
            shape = (*key_states.shape[:-2], want + want // 2)
            buffers = tuple(new.new_empty(*shape, new.shape[-1]) for new in added)
            for buffer, old in zip(buffers, (self.keys, self.values), strict=True):
                if have and old is not None:
                    buffer[..., :have, :] = old
            self._buffers = buffers
        for buffer, new in zip(self._buffers, added, strict=True):
            buffer[..., have:want, :] = new
        self.keys, self.values = (buffer[..., :want, :] for buffer in self._buffers)
        return self.keys, self.values

    def keep(self, rows: torch.Tensor, columns: torch.Tensor) -> None:
        """Go on with these rows, in this order, and with these tokens of them."""
        assert self.keys is not None and self.values is not None  # something has been read
        self.keys, self.values = self.keys[rows][:, :, columns], self.values[rows][:, :, columns]
        self._buffers = ()


class Player:
    """Conversations of one policy, in a batch of rows (B) that can only become fewer.

    Args:
        model: A causal LM; not changed.
        tokenizer: Its tokenizer.
        limit: Tokens of a reply, its end among them.
        temperature: 0 is greedy.
        seed: Of the sampling; a row's draws depend on the rows beside it.
    """

    def __init__(self, model: Any, tokenizer: Any, limit: int, temperature: float = 1.0, seed: int = 0) -> None:
        self.model, self.pad = model, tokenizer.pad_token_id
        self.ends = models.end_ids(model, tokenizer)
        self.limit, self.temperature = limit, temperature
        self._draw = torch.Generator(model.device).manual_seed(seed)
        self.forget()

    def forget(self) -> None:
        """Go on in new conversations."""
        self._cache = DynamicCache(config=self.model.config)
        # Others, such as those of a sliding window, stay as they are.
        self._cache.layers = [_Layer() if type(layer) is DynamicLayer else layer for layer in self._cache.layers]
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=self.model.device)  # (B, tokens read)
        self._unread: tuple[torch.Tensor, torch.Tensor] | None = None  # the last tokens sampled and their mask (B, 1)

    @torch.inference_mode()
    def reply(self, prompts: Sequence[list[int]]) -> list[Sampled]:
        """The next reply of every row, after what it is told now.

        Args:
            prompts: New token ids of each row (B), at least one.
        """
        device = self.model.device
        ids, mask = models.left_pad(prompts, self.pad, device)
        if self._unread is None:
            self._mask = mask[:, :0]
        else:
            ids, mask = (torch.cat(both, 1) for both in zip(self._unread, (ids, mask), strict=True))
        open_rows = torch.ones(len(ids), dtype=torch.bool, device=device)
        ends = torch.tensor(self.ends, device=device)
        taken = []
        while len(taken) < self.limit and open_rows.any():
            token = self._sample(self._read(ids, mask))
            token = torch.where(open_rows, token, self.pad)
            taken.append(torch.where(open_rows, token, -1))
            ids, mask = token[:, None], open_rows.long()[:, None]
            open_rows = open_rows & ~torch.isin(token, ends)
        self._unread = ids, mask
        columns = torch.stack(taken, 1).tolist()
        found = [[token for token in row if token >= 0] for row in columns]
        return [Sampled(row, row[-1] in self.ends) for row in found]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order."""
        chosen = torch.tensor(rows, dtype=torch.long, device=self.model.device)
        self._mask = self._mask[chosen]
        if self._unread:
            self._unread = self._unread[0][chosen], self._unread[1][chosen]
        layers = [layer for layer in self._cache.layers if isinstance(layer, _Layer)]
        if len(layers) < len(self._cache.layers):
            self._cache.batch_select_indices(chosen)
            return
        there = self._mask.any(0)  # the others are padding in every row that is left
        self._mask = self._mask[:, there]
        for layer in layers:
            layer.keep(chosen, there)

    def _read(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits after the last of the new tokens (B, V)."""
        self._mask = torch.cat([self._mask, mask], 1)
        places = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        return self.model(
            input_ids=ids,
            attention_mask=self._mask,
            position_ids=places,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    def _sample(self, logits: torch.Tensor) -> torch.Tensor:
        """A token for each row (B)."""
        if not self.temperature:
            return logits.argmax(-1)
        chances = torch.softmax(logits.float() / self.temperature, -1)
        return torch.multinomial(chances, 1, generator=self._draw)[:, 0]
