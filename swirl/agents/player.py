"""Replies of a policy in many conversations at once, each turn going on from the cache of those before.

`generate` would compute a conversation anew for every turn. Here a turn costs its own tokens alone: new prompts are
padded on the left of their block, so every row's last token is its own, and what is padding or comes after a reply's
end is masked for ever.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from swirl import models


class Sampled(NamedTuple):
    """A reply as it was sampled.

    Attributes:
        ids: Its tokens, the end among them where it came.
        finished: Whether it came within the limit.
    """

    ids: list[int]
    finished: bool


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
        self._cache = DynamicCache(config=model.config)
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=model.device)  # (B, tokens so far)

    @torch.inference_mode()
    def reply(self, prompts: Sequence[list[int]]) -> list[Sampled]:
        """The next reply of every row, after what it is told now.

        Args:
            prompts: New token ids of each row (B), at least one.
        """
        device = self.model.device
        ids, mask = models.left_pad(prompts, self.pad, device)
        if not len(self._mask):
            self._mask = mask[:, :0]
        open_rows = torch.ones(len(ids), dtype=torch.bool, device=device)
        ends = torch.tensor(self.ends, device=device)
        taken = []
        for step in range(self.limit + 1):
            if step == self.limit or not open_rows.any():
                # The last token has been sampled but not read yet.
                self._read(ids, mask)
                break
            token = self._sample(self._read(ids, mask))
            token = torch.where(open_rows, token, self.pad)
            taken.append(torch.where(open_rows, token, -1))
            ids, mask = token[:, None], open_rows.long()[:, None]
            open_rows = open_rows & ~torch.isin(token, ends)
        columns = torch.stack(taken, 1).tolist()
        found = [[token for token in row if token >= 0] for row in columns]
        return [Sampled(row, row[-1] in self.ends) for row in found]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order."""
        chosen = torch.tensor(rows, dtype=torch.long, device=self.model.device)
        self._cache.batch_select_indices(chosen)
        self._mask = self._mask[chosen]

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
