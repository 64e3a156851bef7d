"""Episodes as tensors, for PPO.

A *row* is what a model reads at once: an episode, or a turn that was read alone. Advantages run along episodes,
whatever the rows are (`along`, `back`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

from swirl.agents.episodes import Episode
from swirl.agents.replies import Context


class Rows(NamedTuple):
    """Rows, padded on the right to the longest of them (R, T).

    Attributes:
        ids: Tokens.
        there: 1 where a token is.
        mask: 1 where the agent wrote it.
    """

    ids: torch.Tensor
    there: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """Episodes (B).

    Attributes:
        all: Their rows, those of an episode in the order of its turns.
        episode: The number of each row's episode (R), from 0 up.
        scores: What each episode is worth (B).
    """

    all: Rows
    episode: torch.Tensor
    scores: torch.Tensor

    def passes(self, episodes: torch.Tensor, most: int) -> tuple[torch.Tensor, ...]:
        """The rows of some episodes, by their numbers, in parts of at most so many; those of like length together."""
        rows = torch.isin(self.episode, episodes).nonzero()[:, 0]
        return rows[self.all.there[rows].sum(1).argsort(stable=True)].split(most)

    def rows(self, chosen: torch.Tensor) -> Rows:
        """Some of the rows."""
        width = int(self.all.there[chosen].sum(1).max())
        return Rows(*(one[chosen, :width] for one in self.all))

    def along(self, values: torch.Tensor) -> torch.Tensor:
        """Values of tokens (R, T) as those of the agent's tokens of each episode, in order (B, N); 0 behind them."""
        return pad_sequence(list(values[self.all.mask.bool()].split(self._own())), batch_first=True)

    def back(self, values: torch.Tensor) -> torch.Tensor:
        """The reverse of `along`, 0 for the tokens of the world."""
        told = torch.cat([row[:count] for row, count in zip(values, self._own(), strict=True)])
        return torch.zeros_like(self.all.mask).masked_scatter(self.all.mask.bool(), told)

    def _own(self) -> list[int]:
        """How many of each episode's tokens the agent wrote."""
        count = torch.zeros(len(self.scores), device=self.episode.device)
        return [int(own) for own in count.index_add(0, self.episode, self.all.mask.sum(1))]


def of_episodes(chosen: Sequence[tuple[Episode, float]], pad: int, device: torch.device, context: Context) -> Batch:
    """Episodes and what each is worth as a batch.

    Args:
        chosen: The episodes, with their scores.
        pad: Id of the token that fills rows up.
        device: Where the tensors are.
        context: What was read in a turn.
    """
    ids, mask, numbers = list[torch.Tensor](), list[torch.Tensor](), list[int]()
    for number, (episode, _) in enumerate(chosen):
        turns = [
            (turn.prompt + turn.reply, [0.0] * len(turn.prompt) + [1.0] * len(turn.reply)) for turn in episode.turns
        ]
        for row in [turns] if context == "episode" else [[turn] for turn in turns]:
            ids.append(torch.tensor([token for tokens, _ in row for token in tokens]))
            mask.append(torch.tensor([own for _, owns in row for own in owns]))
            numbers.append(number)
    rows = Rows(
        pad_sequence(ids, batch_first=True, padding_value=pad).to(device),
        pad_sequence([torch.ones_like(row) for row in ids], batch_first=True).to(device),
        pad_sequence(mask, batch_first=True).to(device),
    )
    scores = torch.tensor([score for _, score in chosen], device=device)
    return Batch(rows, torch.tensor(numbers, device=device), scores)
