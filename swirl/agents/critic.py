"""The critic of PPO: a copy of the policy's body with one number for every token in place of logits."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn


class Critic(nn.Module):
    """V, the score that an episode is expected to have, before each of its tokens; 0 everywhere at first.

    Args:
        body: A causal LM's body: gives hidden states.
        width: Of those.
    """

    def __init__(self, body: Any, width: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, 1, device=body.device, dtype=body.dtype)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, **read: torch.Tensor) -> torch.Tensor:
        """Values after each token (B, T), of what the body is given."""
        hidden = self.body(**read, use_cache=False).last_hidden_state
        return self.head(hidden)[..., 0].float()

    def save(self, file: Path) -> None:
        """Write the weights."""
        save_file({name: weight.contiguous() for name, weight in self.state_dict().items()}, file)

    def restore(self, file: Path) -> None:
        """Read what `save` wrote."""
        self.load_state_dict(load_file(file))
