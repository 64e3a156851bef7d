"""Which action it was, by both models at once: P(z | x, y) ∝ Q(z | x, y)^a P(y | x, z)^b.

With a few hundred labels both models are surer than they are right, and not equally: multiplied as they are, the more
conceited one decides alone. The two weights are fitted on labelled validation transitions, as temperature scaling fits
one (Guo et al., On calibration of modern neural networks, ICML 2017), so that a probability of 0.9 is right about nine
times in ten. How many labels can be trusted then follows from the probabilities themselves.

Where the candidates are samples the truth may be none of them, and the likeliest of poor ones is not a likely action.
So "none of these" is a candidate too, of one weight, fitted with the others; what both models find unlikely loses to
it.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from swirl import metrics
from swirl.labelling import Candidate

GRID = np.linspace(0, 1, 21)
"""Weights tried by `fit`; above 1 a model would be believed more than it believes itself."""
LARGEST = 700.0
"""Nats whose exponential is still a number."""


@dataclass(frozen=True)
class Posterior:
    """P(z | x, y) over the candidates of a pair.

    Attributes:
        inverse: a, the weight of log Q(z | x, y).
        forward: b, the weight of log P(y | x, z).
        absent: What "none of the candidates" weighs where a candidate weighs Q^a P^b; 0 where one always is the truth.
        covered: Share of the labelled pairs whose true action was among their candidates.
    """

    inverse: float = 1.0
    forward: float = 1.0
    absent: float = 0.0
    covered: float = 1.0

    def best(self, group: Sequence[Candidate]) -> tuple[str, float]:
        """The likeliest candidate, the first of equals, and its probability."""
        ranked = self.ranked(group)
        logits = np.array([self._logit(candidate) for candidate in ranked])
        none = math.exp(min(math.log(self.absent) - logits[0], LARGEST)) if self.absent else 0.0
        return ranked[0].action, 1 / float(np.exp(logits - logits[0]).sum() + none)

    def ranked(self, group: Sequence[Candidate]) -> list[Candidate]:
        """The candidates, likeliest first; equals stay in their order."""
        return sorted(group, key=self._logit, reverse=True)

    def _logit(self, candidate: Candidate) -> float:
        return self.inverse * candidate.inverse + self.forward * (candidate.forward or 0.0)

    def least(self, share: float = 0.01) -> float:
        """The probability under Q, relative to the best, below which a candidate's weighted one is under `share`."""
        return share ** (1 / self.inverse) if self.inverse else 0.0


def fit(groups: Sequence[Sequence[Candidate]], actions: Sequence[str]) -> Posterior:
    """The posterior that makes the true actions likeliest, "none of the candidates" where the truth is none of them.

    Args:
        groups: Candidates of labelled transitions, scored by both models.
        actions: Their true actions.

    Raises:
        ValueError: There are no transitions.
    """
    if not groups:
        raise ValueError("got no labelled transitions, expected at least one: the weights are fitted on them")
    weights = np.stack(np.meshgrid(GRID, GRID, indexing="ij"), -1).reshape(-1, 2)  # (W, 2)
    true, totals = np.zeros(len(weights)), []  # log weights: of the true candidates, summed; of all of a pair's
    covered = 0
    for group, action in zip(groups, actions, strict=True):
        if group:  # a pair without candidates is none of them whatever the weights are
            logits = weights @ np.array([(c.inverse, c.forward or 0.0) for c in group]).T  # (W, candidates)
            top = logits.max(1)
            totals.append(top + np.log(np.exp(logits - top[:, None]).sum(1)))
            right = next((i for i, c in enumerate(group) if metrics.action_match(c.action, action)), None)
            if right is not None:
                true, covered = true + logits[:, right], covered + 1
    total = np.stack(totals, 1) if totals else np.zeros((len(weights), 0))  # (W, pairs)
    absent = _absent(total, total.shape[1] - covered)
    nll = np.logaddexp(total, absent[:, None]).sum(1) - true
    if covered < total.shape[1]:
        nll -= (total.shape[1] - covered) * absent
    best = nll.argmin()
    inverse, forward = weights[best]
    return Posterior(float(inverse), float(forward), math.exp(absent[best]), covered / len(groups))


def _absent(total: np.ndarray, times: int) -> np.ndarray:
    """The log weight of "none of the candidates" that expects it as often as it was so, which is where it is likeliest.

    Args:
        total: Log of the candidates' weights together, by weighting and pair, (W, pairs).
        times: In how many pairs it was none of them.

    Returns:
        (W,); minus infinity where it always was one.
    """
    if not times:
        return np.full(len(total), -math.inf)
    low, high = np.full(len(total), -LARGEST), np.full(len(total), LARGEST)
    for _ in range(60):  # to the last digits
        middle = (low + high) / 2
        expected = np.exp(-np.logaddexp(0, total - middle[:, None])).sum(1)
        low, high = np.where(expected < times, middle, low), np.where(expected < times, high, middle)
    return (low + high) / 2


def certain(
    groups: Sequence[Sequence[Candidate]], posterior: Posterior, precision: float, coverage: float = 0.0
) -> tuple[dict[int, str], dict[str, float]]:
    """The surest labels: as many as are expected to be right often enough, and a least share of every action's.

    By action, or what is kept would hold the easy actions alone, and the models forget the others (Zou et al.,
    Unsupervised domain adaptation for semantic segmentation via class-balanced self-training, ECCV 2018). Actions that
    label so few pairs that their share is none of them have one share together.

    Args:
        groups: Candidates per pair, all of them scored by both models.
        posterior: How to weigh the two models.
        precision: What the mean of the kept labels' probabilities is at least; more than 0; above 1 no mean is enough.
        coverage: Share of the pairs labelled with an action that is kept at least, 0 to 1, rounded down.

    Returns:
        Index of each kept pair and its action, surest first; and for each action the probability of the least sure.
    """
    judged = sorted(((*posterior.best(group), i) for i, group in enumerate(groups) if group), key=lambda one: -one[1])
    names = [metrics.normalise_action(action) for action, *_ in judged]
    times = Counter(names)
    sharing = [name if int(coverage * times[name]) else None for name in names]  # None: with the other rare ones
    share = {name: int(coverage * n) for name, n in Counter(sharing).items()}
    kept: dict[int, str] = {}
    least: dict[str, float] = {}
    expected, precise = 0.0, True
    for n, (name, of, (action, probability, i)) in enumerate(zip(names, sharing, judged, strict=True), 1):
        expected += probability
        precise = precise and expected >= precision * n
        if precise or share[of] > 0:
            kept[i], least[name] = action, probability
        share[of] -= 1
    return kept, least


def check(
    groups: Sequence[Sequence[Candidate]], actions: Sequence[str], posterior: Posterior, least: Mapping[str, float]
) -> dict[str, int]:
    """How labels of at least a probability fare where the truth is known.

    Args:
        groups: Candidates of labelled transitions.
        actions: Their true actions.
        posterior: How to weigh the two models.
        least: Probability of the least sure label that is kept, by action, as `certain` gives it.

    Returns:
        Counts: `validation` transitions, `validation_kept` of them, `validation_right` of those.
    """
    judged = [(posterior.best(group), action) for group, action in zip(groups, actions, strict=True) if group]
    kept = [
        (label, action)
        for (label, sure), action in judged
        if sure >= least.get(metrics.normalise_action(label), math.inf)
    ]
    right = sum(metrics.action_match(label, action) for label, action in kept)
    return {"validation": len(actions), "validation_kept": len(kept), "validation_right": right}


def idle(groups: Sequence[Sequence[Candidate]], taken: Iterable[str], seed: int) -> dict[int, str]:
    """Labels of pairs that changed nothing, drawn from P(z | x, x) ∝ P(z) P(x | x, z).

    Such a pair cannot tell which idle action it was, but the forward model says which may be. Where it is in doubt
    whether an action changes anything, the action is drawn now and then; and only where it never does no other pair
    speaks against that.

    Args:
        groups: Candidates per pair, scored by the forward model.
        taken: Actions of transitions where they are known: their shares are P(z). Every candidate counts once more.
        seed: Of the draw.

    Returns:
        Index of each pair that has candidates, and one of their actions.
    """
    rng = np.random.default_rng(seed)
    times = Counter(map(metrics.normalise_action, taken))
    drawn = {}
    for i, group in enumerate(groups):
        if group:
            logits = np.array(
                [math.log1p(times[metrics.normalise_action(c.action)]) + (c.forward or 0.0) for c in group]
            )
            weights = np.exp(logits - logits.max())
            drawn[i] = group[rng.choice(len(group), p=weights / weights.sum())].action
    return drawn
