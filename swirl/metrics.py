"""What it means for a predicted next state or action to be right, defined once for rewards and for evaluation.

All functions take texts (a state in parts goes through `swirl.types.state_text` first) and a reply that could not be
parsed is the empty string: wrong, never skipped. Predictions may come from a model or from a baseline (copy-input,
majority-action); nothing here knows which.

Headlines are over *changed* transitions. Copying the input scores 1 on every unchanged one, and there the action cannot
be told from the two states at all (every action that does nothing explains them equally well). A metric whose
denominator is empty (no changed rows, say) is left out of a summary: no number is better than a made-up one.
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution, for two-sided 95 % intervals."""

Values = dict[str, tuple[np.ndarray, np.ndarray]]
"""Per metric: its value on every row that it is defined on, and the indices of these rows."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def normalise(text: str) -> str:
    """The text with newlines unified, trailing blanks of lines dropped and outer whitespace stripped."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()


def normalise_action(action: str) -> str:
    """The action casefolded, with every run of whitespace made one blank."""
    return " ".join(action.casefold().split())


def is_prose(state: str) -> bool:
    """Whether a state is prose, whose facts are sentences: it is, when it has no line break after `normalise`."""
    return "\n" not in normalise(state)


def facts(state: str, prose: bool | None = None) -> Counter[str]:
    """The facts that a state is made of, as a multiset.

    A fact is a line, stripped; empty lines are none. In prose a fact is a sentence: the text is also split after each
    `.`, `!` or `?` that whitespace follows.

    Args:
        state: The state's text.
        prose: Whether to split sentences; by default `is_prose(state)`. Texts that are compared need one common value.
    """
    lines = normalise(state).split("\n")
    if is_prose(state) if prose is None else prose:
        lines = [sentence for line in lines for sentence in _SENTENCE_END.split(line)]
    return Counter(stripped for line in lines if (stripped := line.strip()))


def exact_match(prediction: str, truth: str) -> bool:
    """Whether the two are the same state after `normalise`."""
    return normalise(prediction) == normalise(truth)


def changed(state: str, next_state: str) -> bool:
    """Whether the step changed the state; what `exact_match` calls the same is unchanged."""
    return not exact_match(state, next_state)


def changed_facts_f1(state: str, truth: str, prediction: str) -> float:
    """How well the prediction tells what the step changes: F1 over the facts it removes and adds.

    With D(y) = {+f: facts that y has more often than the state} ∪ {-f: that it has less often}, as multisets,
    F1 = 2 |D(truth) ∩ D(prediction)| / (|D(truth)| + |D(prediction)|), and 1 where both are empty. Facts that the step
    leaves alone earn nothing, so copying the state scores 0 on every changed transition.

    All three texts are split alike: into sentences where neither state nor truth has a line break, else into lines.
    Facts have no order. Where the truth only *reorders* the state's facts (a piece moving between two rows of a map
    can swap them) or changes nothing, facts cannot tell right from wrong, and numbered lines are compared instead.

    Returns:
        A value in [0, 1].
    """
    prose = is_prose(state) and is_prose(truth)
    before, after, predicted = (facts(text, prose) for text in (state, truth, prediction))
    if before == after:
        before, after, predicted = (_numbered_lines(text) for text in (state, truth, prediction))
    true_change, predicted_change = _difference(before, after), _difference(before, predicted)
    return _multiset_f1(true_change, predicted_change)


def false_change(state: str, truth: str, prediction: str) -> bool | None:
    """On an unchanged transition, whether the prediction changes the state; `None` on a changed one."""
    return None if changed(state, truth) else changed(state, prediction)


def token_f1(prediction: str, truth: str) -> float:
    """F1 of the two multisets of whitespace-separated tokens, in [0, 1]; 1 where both are empty."""
    return _multiset_f1(Counter(prediction.split()), Counter(truth.split()))


def action_match(prediction: str, truth: str) -> bool:
    """Whether the two are the same action, up to case and whitespace."""
    return normalise_action(prediction) == normalise_action(truth)


def majority_action(actions: Sequence[str]) -> str:
    """The most frequent action, normalised; of equally frequent ones the first in the alphabet.

    Raises:
        ValueError: There are no actions.
    """
    if not actions:
        raise ValueError("got no actions, expected at least one: the majority is taken over labelled transitions")
    counts = Counter(map(normalise_action, actions))
    return min(counts, key=lambda action: (-counts[action], action))


def forward_values(states: Sequence[str], truths: Sequence[str], predictions: Sequence[str]) -> Values:
    """Next-state metrics row by row, for intervals; `summarise_forward` is their mean and says what they are."""
    _check_lengths(states=states, truths=truths, predictions=predictions)
    rows = list(zip(states, truths, predictions, strict=True))
    exact = [exact_match(prediction, truth) for _, truth, prediction in rows]
    is_changed = np.array([changed(state, truth) for state, truth, _ in rows], dtype=bool)
    every, differ, same = np.arange(len(rows)), np.flatnonzero(is_changed), np.flatnonzero(~is_changed)
    return _defined(
        {
            "exact_match_changed": ([exact[i] for i in differ], differ),
            "exact_match": (exact, every),
            "changed_facts_f1": ([changed_facts_f1(*rows[i]) for i in differ], differ),
            "false_change_rate": ([false_change(*rows[i]) for i in same], same),
            "token_f1": ([token_f1(prediction, truth) for _, truth, prediction in rows], every),
            "copy_rate": ([exact_match(rows[i][2], rows[i][0]) for i in differ], differ),
        }
    )


def summarise_forward(
    states: Sequence[str], truths: Sequence[str], predictions: Sequence[str]
) -> dict[str, tuple[float, int]]:
    """Next-state metrics over a set of transitions.

    `exact_match_changed` (the headline), `changed_facts_f1` and `copy_rate` (the share of predictions that equal their
    input state) are over changed transitions, `false_change_rate` over unchanged ones, `exact_match` and `token_f1`
    over all.

    Args:
        states: The states before the step.
        truths: The recorded next states, row by row.
        predictions: The predicted next states, row by row.

    Returns:
        Per metric its mean and the number of rows it is over; a metric over no rows is left out.

    Raises:
        ValueError: The sequences differ in length.
    """
    return _means(forward_values(states, truths, predictions))


def inverse_values(
    states: Sequence[str], truths: Sequence[str], actions: Sequence[str], predictions: Sequence[str]
) -> Values:
    """Action metrics row by row, for intervals; `summarise_inverse` is their mean and says what they are."""
    _check_lengths(states=states, truths=truths, actions=actions, predictions=predictions)
    match = [action_match(prediction, action) for prediction, action in zip(predictions, actions, strict=True)]
    every = np.arange(len(match))
    differ = np.flatnonzero([changed(state, truth) for state, truth in zip(states, truths, strict=True)])
    return _defined(
        {
            "action_exact_match_changed": ([match[i] for i in differ], differ),
            "action_exact_match": (match, every),
            "action_length_mean": ([len(prediction.split()) for prediction in predictions], every),
        }
    )


def summarise_inverse(
    states: Sequence[str], truths: Sequence[str], actions: Sequence[str], predictions: Sequence[str]
) -> dict[str, tuple[float, int]]:
    """Action metrics over a set of transitions.

    `action_exact_match_changed` is the headline: on unchanged transitions the action is not identifiable from the two
    states, so `action_exact_match` (over all) has a ceiling below 1 that depends on the world. `unique_actions` is the
    number of different predictions, `action_length_mean` their mean length in whitespace-separated tokens.

    Args:
        states: The states before the step.
        truths: The recorded next states, row by row.
        actions: The recorded actions, row by row.
        predictions: The predicted actions, row by row.

    Returns:
        Per metric its value and the number of rows it is over; a metric over no rows is left out.

    Raises:
        ValueError: The sequences differ in length.
    """
    summary = _means(inverse_values(states, truths, actions, predictions))
    if predictions:
        summary["unique_actions"] = (float(len(set(map(normalise_action, predictions)))), len(predictions))
    return summary


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share; unlike the bootstrap's it has a width at 0 and at 1.

    With p = successes / n and z = 1.96: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n).

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).

    Raises:
        ValueError: n is below 1, or successes are not within 0 and n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"got {successes} successes of n = {n}, expected 0 <= successes <= n and n >= 1")
    p, z2 = successes / n, Z_95**2
    middle = p + z2 / (2 * n)
    half = Z_95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    scale = 1 + z2 / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    clusters: Sequence[Hashable] | np.ndarray | None = None,
    seed: int = 0,
    samples: int = 2000,
) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of a mean.

    With clusters, whole clusters are drawn with replacement, K of K, and each sample's mean is (sum of the drawn
    clusters' sums) / (sum of their sizes): steps of one trajectory resemble each other, so drawing them one by one
    would claim too much. A single cluster says nothing of how clusters differ; its rows are then drawn one by one and
    the interval is too narrow. Where all values are equal the width is 0; use `wilson` for a share at 0 or 1.

    Args:
        values: One value per row.
        clusters: One name per row (its trajectory); by default every row is its own cluster.
        seed: Seed of the draws; same arguments, same interval.
        samples: Number of bootstrap samples.

    Raises:
        ValueError: There are no values, or not one cluster name for each.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("got no values, expected at least one: leave out a metric that is over no rows")
    ids = np.arange(len(values))
    if clusters is not None:
        _check_lengths(values=values, clusters=clusters)
        order: dict[Hashable, int] = {}
        named = np.array([order.setdefault(name, len(order)) for name in clusters])
        ids = named if len(order) > 1 else ids
    # Counted from the first value, so that equal values give a width of exactly 0 instead of rounding noise.
    sums, sizes = np.bincount(ids, weights=values - values[0]), np.bincount(ids)
    rng = np.random.default_rng(seed)
    means = np.empty(samples)
    block = max(1, 2_000_000 // len(sums))  # bounds the memory of the draws to about 16 MB
    for start in range(0, samples, block):
        drawn = rng.integers(len(sums), size=(min(block, samples - start), len(sums)))  # (block, K)
        means[start : start + block] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, (2.5, 97.5)) + values[0]
    return float(low), float(high)


def action_health(actions: Sequence[str]) -> dict[str, float]:
    """Signs of actions collapsing under a reward; empty for no actions.

    `unique_share` is different actions / actions, `length_mean` is in whitespace-separated tokens, `entropy` is that of
    the actions' distribution, in nats, and `top_share` the share of the most frequent one.
    """
    if not actions:
        return {}
    counts = np.array(list(Counter(map(normalise_action, actions)).values()))
    shares = counts / counts.sum()
    return {
        "unique_share": len(counts) / len(actions),
        "length_mean": sum(len(action.split()) for action in actions) / len(actions),
        "entropy": float((shares * np.log(1 / shares)).sum()),
        "top_share": float(shares.max()),
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


def _numbered_lines(text: str) -> Counter[tuple[int, str]]:
    """The text's lines with their numbers; two texts have the same ones exactly where `exact_match` holds."""
    return Counter(enumerate(normalise(text).split("\n")))


def _difference(before: Counter, after: Counter) -> Counter:
    """The signed multiset {(+1, fact) added, (-1, fact) removed} that leads from one multiset to the other."""
    added, removed = after - before, before - after
    return Counter({(1, fact): n for fact, n in added.items()} | {(-1, fact): n for fact, n in removed.items()})


def _multiset_f1(one: Counter, other: Counter) -> float:
    total = one.total() + other.total()
    return 2 * (one & other).total() / total if total else 1.0


def _variance(window: np.ndarray) -> float:
    """The sample variance; 0 where a single value does not tell."""
    return float(window.var(ddof=1)) if len(window) > 1 else 0.0


def _defined(metrics: dict[str, tuple[list, np.ndarray]]) -> Values:
    return {name: (np.array(values, dtype=np.float64), rows) for name, (values, rows) in metrics.items() if len(rows)}


def _means(values: Values) -> dict[str, tuple[float, int]]:
    return {name: (float(value.mean()), len(rows)) for name, (value, rows) in values.items()}


def _check_lengths(**columns: Sequence | np.ndarray) -> None:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"got columns of different lengths {lengths}, expected one entry of each per transition")
