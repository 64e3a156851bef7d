"""Signs that a reward is being gamed: actions that collapse, and a reward that rises while validation falls.

Inferred actions are held against the recorded ones of the same transitions:

    uniqueness        different actions / actions
    length            mean number of whitespace-separated tokens
    perplexity ratio  perplexity of the inferred actions under the inverse model / that of the recorded ones
    NMI               normalised mutual information of the two: 1 where either tells the other, 0 where independent

A private code, one word of its own per action, has an NMI of 1 and an accuracy of 0. NMI is raised by chance where
nearly every action is different, as in free text.

Source: the paper's health of latent actions over rounds, SWIRL, arXiv 2602.06130 (uniqueness over 94 %, a mean length
of 16.8 tokens against 7.2 recorded, a stable perplexity ratio).
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from swirl.metrics import normalise_action

LIMITS: dict[str, tuple[float, float]] = {
    "unique_ratio": (0.5, math.inf),
    "length_ratio": (0.4, 4.0),
    "perplexity_ratio": (0.1, 2.0),
    "nmi": (0.1, math.inf),
}
"""What `collapse` finds healthy. Conventions: the paper's own healthy run has a length ratio of 2.3; a greedy action is
likelier than the recorded one, so the perplexity ratio of a healthy model is at most about 1."""


def action_nmi(inferred: Sequence[str], recorded: Sequence[str]) -> float:
    """Normalised mutual information of two labellings of the same transitions, in [0, 1].

    2 I(inferred; recorded) / (H(inferred) + H(recorded)), up to case and whitespace; 1 where neither varies. An action
    that could not be read ("") is a label like any other.

    Raises:
        ValueError: There are no actions, or not as many of both.
    """
    if not inferred or len(inferred) != len(recorded):
        raise ValueError(f"got {len(inferred)} inferred and {len(recorded)} actions, expected as many, at least one")
    pairs = list(zip(map(normalise_action, inferred), map(normalise_action, recorded), strict=True))
    ours, theirs = _entropy([a for a, _ in pairs]), _entropy([b for _, b in pairs])
    if ours + theirs == 0:
        return 1.0
    return min(1.0, max(0.0, 2 * (ours + theirs - _entropy(pairs)) / (ours + theirs)))


def perplexity_ratio(
    inferred: tuple[Sequence[float], Sequence[int]], recorded: tuple[Sequence[float], Sequence[int]]
) -> float:
    """Perplexity of the inferred actions under the inverse model over that of the recorded ones.

    Args:
        inferred: Log-likelihoods (nats) and token counts of the inferred actions.
        recorded: Those of the recorded actions.
    """
    (ours, n), (theirs, m) = inferred, recorded
    return math.exp(math.fsum(theirs) / sum(m) - math.fsum(ours) / sum(n))


def collapse(inferred: Sequence[str], recorded: Sequence[str], ratio: float | None = None) -> list[str]:
    """The alarms for inferred actions that are out of `LIMITS`, a line each; none where there are no actions.

    Args:
        inferred: On changed transitions, those that could be read.
        recorded: On the same transitions.
        ratio: Their `perplexity_ratio`, where it is known.
    """
    if not inferred:
        return []
    ours, theirs = action_health(inferred), action_health(recorded)
    found = {
        "unique_ratio": ours["unique_share"] / theirs["unique_share"],
        "length_ratio": ours["length_mean"] / theirs["length_mean"],
        "nmi": action_nmi(inferred, recorded),
    }
    if ratio is not None:
        found["perplexity_ratio"] = ratio
    return [
        f"inferred actions may have collapsed: {name} {value:.3g} (n = {len(inferred)}), expected "
        f"{f'at least {low:g}' if math.isinf(high) else f'{low:g} to {high:g}'}; read samples of them"
        for name, value in found.items()
        for low, high in [LIMITS[name]]
        if not low <= value <= high
    ]


def _entropy(labels: Sequence[Hashable]) -> float:
    """Entropy of the labels' distribution, nats."""
    counts = np.array(list(Counter(labels).values()))
    shares = counts / counts.sum()
    return float((shares * np.log(1 / shares)).sum())


def action_health(actions: Sequence[str]) -> dict[str, float]:
    """Signs of actions collapsing under a reward; empty for no actions.

    `unique_share` is different actions / actions, `length_mean` is in whitespace-separated tokens, `entropy` is that of
    the actions' distribution, in nats, and `top_share` the share of the most frequent one.
    """
    if not actions:
        return {}
    named = [normalise_action(action) for action in actions]
    counts = Counter(named)
    return {
        "unique_share": len(counts) / len(actions),
        "length_mean": sum(len(action.split()) for action in actions) / len(actions),
        "entropy": _entropy(named),
        "top_share": max(counts.values()) / len(actions),
    }


def reward_hacking(
    rewards: Sequence[float], validation: Sequence[float], n: int, metric: str = "the validation metric"
) -> str | None:
    """The alarm for a phase whose reward rises while its validation falls.

    The reward at the start and at the end is the mean of the first and of the last fifth of the steps. Both moves must
    exceed one standard error of the difference: √(s₁²/k + s₂²/k) over the k steps of each window, and
    √(p₁(1-p₁)/n + p₂(1-p₂)/n) for validation, which bounds it for any metric in [0, 1].

    Args:
        rewards: Mean training reward per step, in order; values that are not finite are ignored.
        validation: A metric in [0, 1], higher is better; the first value is the phase's start, the last its end.
        n: Number of validation rows that the metric is over.
        metric: The metric's name, for the message.

    Returns:
        The alarm's text, or `None` where there is nothing to report (or fewer than two values of either).

    Raises:
        ValueError: n is below 1, or a validation value lies outside [0, 1].
    """
    if n < 1 or not all(0 <= value <= 1 for value in validation):
        raise ValueError(f"got n = {n}, validation = {list(validation)}, expected n >= 1 and shares within [0, 1]")
    finite = np.array([reward for reward in rewards if math.isfinite(reward)])
    if len(finite) < 2 or len(validation) < 2:
        return None
    k = max(1, len(finite) // 5)
    first, last = finite[:k], finite[-k:]
    rise, rise_error = last.mean() - first.mean(), math.sqrt((_variance(first) + _variance(last)) / k)
    start, end = validation[0], validation[-1]
    error = math.sqrt((start * (1 - start) + end * (1 - end)) / n)
    if rise <= rise_error or start - end <= error:
        return None
    return (
        f"reward-hacking alarm: reward rose from {first.mean():.3f} to {last.mean():.3f} while {metric} fell from "
        f"{start:.3f} to {end:.3f} (n = {n}, standard error {error:.3f}): compare action_health and samples of the "
        "phase's start and end, and keep an earlier checkpoint"
    )


def _variance(window: np.ndarray) -> float:
    """The sample variance; 0 where a single value does not tell."""
    return float(window.var(ddof=1)) if len(window) > 1 else 0.0
