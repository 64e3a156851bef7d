"""Reward of the forward model by meaning: 1 where the predicted next state lies close to the recorded one, else 0.

    r_k = 1 if 1 - cos(e(y_k), e(y)) < tau else 0      e: sentence embeddings of a frozen encoder

A step rather than the distance itself, so that there is nothing to gain by creeping closer in words.

Source: RWML, arXiv 2602.05842.
"""

from collections.abc import Callable, Sequence
from typing import Any

from swirl.rewards.likelihood import Likelihood, Reward
from swirl.rewards.verifiable import of_prediction
from swirl.similarity import Encoder
from swirl.types import state_text


def embedding_match(encoder: str, distance: float) -> Callable[[Likelihood], Reward]:
    """Whether predicted next states are closer to the recorded ones than `distance`.

    Args:
        encoder: Name or folder, as `swirl.similarity.Encoder` takes it.
        distance: Cosine distance (tau), in [0, 2].
    """

    def embedding(spec: Likelihood) -> Reward:
        similar = Encoder(encoder, str(spec.scorer.model.device))
        return of_prediction(spec, lambda rows, predicted: list(map(float, close(similar, rows, predicted, distance))))

    return embedding


def close(encoder: Encoder, rows: Sequence[dict[str, Any]], predicted: Sequence[str], distance: float) -> list[bool]:
    """Whether each prediction is closer to its row's `next_state` than `distance`; one that cannot be read is not."""
    distances = encoder.cosine_distance(predicted, [state_text(row["next_state"]) for row in rows])
    return [bool(text) and bool(found < distance) for text, found in zip(predicted, distances, strict=True)]
