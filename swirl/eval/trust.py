"""Trust: does a model know when it is right?

The *confidence* of a greedy reply is its own probability, exp(sum of its tokens' log-probabilities): of the tokens as
they were generated, among those that a reply may have. The end is one of them, but for a reply that the token limit cut
off: its confidence is that of its beginning, and more than that of any whole reply that begins so. Where a world lists
its actions the inverse model's is also taken normalised over the list (`listed`): the probability of the likeliest
action among them.

    ECE         sum over bins of (rows in the bin / rows) * |mean confidence - accuracy|, in 10 bins of equal mass
    selective   accuracy of the surest 50 % or 80 % of the rows
    AURC        area under the risk-coverage curve: mean over k of the error rate among the k surest; lower is better

The ECE has no interval. It is a sum of sizes, so chance only adds to it, and a resample has more chance in it than the
data: the bootstrap's interval would lie above the truth, and never hold the 0 of a calibrated model.

Equal confidences are never told apart: they share a bin, and at a boundary of coverage each counts as the mean of them.
So nothing depends on the order of the rows.

Source: calibration of a world model's predictions: C3, arXiv 2512.05927 (of patches of video; ours is of whole states).
ECE: Naeini et al., AAAI 2015, with the equal-mass bins of Nixon et al., arXiv 1904.01685; AURC: Geifman et al., arXiv
1805.08206.
"""

import math
from collections.abc import Sequence

import numpy as np

from swirl import intervals, labelling, metrics, models, progress, prompts
from swirl.api import ForwardModel, InverseModel
from swirl.eval import rows
from swirl.posterior import Posterior
from swirl.types import Role, state_text

Rows = rows.Rows
BINS = 10
COVERAGES = (0.5, 0.8)


def bins(confidence: np.ndarray, count: int = BINS) -> np.ndarray:
    """The bin of each row, from 0: as many rows in each as equal confidences allow; some bins may be empty."""
    below = np.searchsorted(np.sort(confidence), confidence, side="left")
    return below * count // len(confidence)


def reliability(confidence: np.ndarray, correct: np.ndarray, count: int = BINS) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and number of rows of each bin that has any, the least sure first."""
    of = bins(confidence, count)
    members = [np.flatnonzero(of == b) for b in np.unique(of)]
    return [(float(confidence[rows].mean()), float(correct[rows].mean()), len(rows)) for rows in members]


def ece(confidence: np.ndarray, correct: np.ndarray, count: int = BINS) -> float:
    """Expected calibration error with bins of equal mass, in [0, 1]."""
    gaps = np.bincount(bins(confidence, count), weights=confidence - correct)  # rows of a bin times its gap
    return float(np.abs(gaps).sum() / len(confidence))


def selective_accuracy(confidence: np.ndarray, correct: np.ndarray, coverage: float) -> float:
    """Accuracy of the surest rows, ceil(coverage * rows) of them."""
    kept = math.ceil(round(coverage * len(confidence), 9))  # 0.8 * 15 is a little more than 12
    return float(_surest_first(confidence, correct)[:kept].mean())


def aurc(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Area under the risk-coverage curve, in [0, 1]; lower is better."""
    right = np.cumsum(_surest_first(confidence, correct))
    return float((1 - right / np.arange(1, len(right) + 1)).mean())


def _surest_first(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Whether each row is right, the surest first; among equals the mean of them."""
    values, of = np.unique(-confidence, return_inverse=True)
    right = np.bincount(of, weights=correct, minlength=len(values)) / np.bincount(of, minlength=len(values))
    return right[np.sort(of)]


def measure(
    model: ForwardModel | InverseModel,
    picked: Rows,
    max_new_tokens: int,
    list_actions: labelling.ListActions | None = None,
) -> rows.Results:
    """Trust metrics of a model on labelled transitions: over all of them, and over those that changed the state.

    Args:
        model: Of either role.
        picked: Transitions with actions.
        max_new_tokens: Token limit of a reply.
        list_actions: The world's actions in a state; for the inverse model.

    Returns:
        Rows `trust_ece`, `trust_selective_50`, `trust_selective_80` and `trust_aurc`, each also with `_changed`, and
        `trust_confidence_b<bin>` and `trust_accuracy_b<bin>` over all; the same with `trust_listed_` for the list.
    """
    predictions, confidence = replies(model, picked, max_new_tokens)
    out = results(str(model.checkpoint), model.role, "trust", picked, predictions, confidence)
    if model.role == "inverse" and list_actions:
        listed = [list(list_actions(row["state"]) or ()) for row in picked]
        known = [i for i, actions in enumerate(listed) if actions]
        part = [picked[i] for i in known]
        spec, actions = model.spec, [listed[i] for i in known]
        groups = labelling.verify(
            model.scorer,
            None,
            part,
            actions,
            style=spec.prompt,
            template=spec.chat_template_kwargs,
            title="trust: list",
        )
        best = [Posterior(forward=0.0).best(group) for group in groups]
        sure = np.array([share for _, share in best])
        out += results(str(model.checkpoint), "inverse", "trust_listed", part, [action for action, _ in best], sure)
    return out


def replies(model: ForwardModel | InverseModel, picked: Rows, max_new_tokens: int) -> tuple[list[str], np.ndarray]:
    """Greedy predictions, "" where unreadable, and the probability of each reply as the model wrote it."""
    role, style = model.role, model.spec.prompt
    asked, suppress = [model.encode(row)[0] for row in picked], model.scorer.suppressed(role, style)
    with progress.bar(f"trust: {role}", len(picked)) as bar:
        groups = models.generate(
            model.scorer.model,
            model.scorer.tokenizer,
            asked,
            max_new_tokens=max_new_tokens,
            batch=model.recipe.evaluation.batch,
            suppress=suppress,
            advance=bar.advance,
        )
    written = [group[0] for group in groups]
    sums, _ = model.scorer.log_likelihood(asked, [reply.ids for reply in written], suppress)
    texts = [
        prompts.parse_reply(role, reply.text, style, row["state"]) if reply.finished or role == "forward" else ""
        for row, reply in zip(picked, written, strict=True)
    ]
    return texts, np.exp(sums)


def results(
    model: str, role: Role, prefix: str, picked: Rows, predictions: Sequence[str], confidence: np.ndarray
) -> rows.Results:
    """Results of predictions and how sure each was; see `measure`."""
    truths = [state_text(row["next_state"]) for row in picked]
    changed = [metrics.changed(row["state"], truth) for row, truth in zip(picked, truths, strict=True)]
    match = metrics.exact_match if role == "forward" else metrics.action_match
    wanted = truths if role == "forward" else [row["action"] for row in picked]
    correct = np.array([match(text, truth) for text, truth in zip(predictions, wanted, strict=True)], float)
    clusters = rows.clusters(picked)
    out: rows.Results = []
    for suffix, index in (("", np.arange(len(picked))), ("_changed", np.flatnonzero(changed))):
        sure, right, names = confidence[index], correct[index], clusters[index]
        if len(index):
            out += rows.plain(model, role, f"{prefix}_ece{suffix}", ece(sure, right), len(index))
        for share in COVERAGES:
            name = f"{prefix}_selective_{share:.0%}{suffix}".replace("%", "")
            accuracy = lambda i, s=sure, r=right, c=share: selective_accuracy(s[i], r[i], c)  # noqa: E731
            out += rows.statistic(model, role, name, accuracy, names, intervals.SHARE)
        area = lambda i, s=sure, r=right: aurc(s[i], r[i])  # noqa: E731
        out += rows.statistic(model, role, f"{prefix}_aurc{suffix}", area, names, intervals.SHARE)
    if len(picked):
        for number, (mean, accuracy, n) in enumerate(reliability(confidence, correct), start=1):
            out += rows.plain(model, role, f"{prefix}_confidence_b{number}", mean, n)
            out += rows.plain(model, role, f"{prefix}_accuracy_b{number}", accuracy, n)
    return out
