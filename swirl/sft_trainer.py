"""TRL's SFT trainer with a weight for every token.

The second subclass beside `grpo_trainer.py`, and TRL 1.16's own way: its `compute_loss_func` is not told which rows it
is for, costs a second forward pass, and is deprecated in favour of a subclass. It is used where weights are given only.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from trl.trainer.sft_trainer import SFTTrainer


class WeightedSFTTrainer(SFTTrainer):
    """Cross-entropy weighted by the data set's column `weights`, one for each of `input_ids`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_collator = partial(_collate, self.data_collator)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss and metrics, of log-probabilities that were multiplied by their tokens' weights."""
        weights = inputs.pop("weights")[:, 1:]  # (B, T - 1): no token predicts the first one

        def weigh(**asked: Any) -> Any:
            outputs = model(**asked)
            outputs.log_probs = outputs.log_probs * weights
            return outputs

        weighted: Any = weigh  # all that TRL does with a model there is to call it
        return super().compute_loss(weighted, inputs, *args, **kwargs)


def _collate(collate: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch as TRL makes it, with the weights padded as it pads the tokens."""
    batch = collate(rows)
    batch["weights"] = torch.zeros(batch["input_ids"].shape)
    for i, row in enumerate(rows):
        batch["weights"][i, : len(row["weights"])] = torch.tensor(row["weights"])
    return batch


def per_step(weights: Sequence[Sequence[float]], batch: int) -> list[list[float]]:
    """Weights scaled to a mean of 1 over the tokens of each optimiser step, so that TRL's mean is the weighted mean.

    Args:
        weights: Of each row's completion tokens, in the order of training.
        batch: Rows of a step, over all processes and accumulated micro-batches.
    """
    scaled: list[list[float]] = []
    for start in range(0, len(weights), batch):
        step = weights[start : start + batch]
        mean = sum(map(sum, step)) / sum(map(len, step))
        scaled += [[weight / mean for weight in row] for row in step]
    return scaled
