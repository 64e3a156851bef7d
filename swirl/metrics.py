"""What it means for a predicted next state or action to be right, defined once for rewards and for evaluation.

All functions take texts (a state in parts goes through `swirl.types.state_text` first) and a reply that could not be
parsed is the empty string: wrong, never skipped. Predictions may come from a model or from a baseline (copy-input,
majority-action); nothing here knows which.

Headlines are over *changed* transitions. Copying the input scores 1 on every unchanged one, and there the action cannot
be told from the two states at all (every action that does nothing explains them equally well). A metric whose
denominator is empty (no changed rows, say) is left out of a summary: no number is better than a made-up one.
"""

import functools
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from rapidfuzz.distance import LCSseq

from swirl.structure import structure
from swirl.types import Role, State, state_text

HEADLINE: dict[Role, str] = {"forward": "exact_match_changed", "inverse": "action_exact_match_changed"}
"""The metric that checkpoints of each role are compared by."""

Values = dict[str, tuple[np.ndarray, np.ndarray]]
"""Per metric: its value on every row that it is defined on, and the indices of these rows."""

_WORD = re.compile(r"[a-z0-9]+")
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


def changed(state: State, next_state: State) -> bool:
    """Whether the step changed the state; what `exact_match` calls the same is unchanged."""
    return not exact_match(state_text(state), state_text(next_state))


def changed_facts_f1(state: str, truth: str, prediction: str) -> float:
    """How well the prediction tells what the step changes: F1 over the facts it removes and adds.

    With D(y) = {+f: facts that y has more often than the state} ∪ {-f: that it has less often}, as multisets,
    F1 = 2 |D(truth) ∩ D(prediction)| / (|D(truth)| + |D(prediction)|), and 1 where both are empty. Facts that the step
    leaves alone earn nothing, so copying the state scores 0 on every changed transition.

    All three texts are split alike: into sentences where neither state nor truth has a line break, else into lines.
    Facts have no order. Where the truth only *reorders* the state's facts (a piece moving between two rows of a map
    can swap them) or changes nothing, facts cannot tell right from wrong, and numbered lines are compared instead.
    A text that shares no fact with either state is none, and earns nothing for the facts that it takes away; nor does
    an empty one, as a reply that cannot be read.

    Returns:
        A value in [0, 1].
    """
    if not prediction.strip():
        return float(not truth.strip())
    prose = is_prose(state) and is_prose(truth)
    before, after, predicted = (facts(text, prose) for text in (state, truth, prediction))
    if not predicted & (before | after):
        return 0.0
    if before == after:
        before, after, predicted = (_numbered_lines(text) for text in (state, truth, prediction))
    true_change, predicted_change = _difference(before, after), _difference(before, predicted)
    return _multiset_f1(true_change, predicted_change)


def false_change(state: str, truth: str, prediction: str) -> bool | None:
    """On an unchanged transition, whether the prediction is not the state, as "" is not; `None` on a changed one."""
    return None if changed(state, truth) else changed(state, prediction)


def token_f1(prediction: str, truth: str) -> float:
    """F1 of the two multisets of whitespace-separated tokens, in [0, 1]; 1 where both are empty."""
    return _multiset_f1(Counter(prediction.split()), Counter(truth.split()))


def rouge_l(prediction: str, truth: str) -> float:
    """ROUGE-L: F1 of the longest common subsequence of words, in [0, 1].

    With m and n words of which the longest common subsequence has L: F1 = 2 L / (m + n), and 0 where either has none.
    Words are runs of a-z and 0-9 in the lowercased text, as in the package `rouge-score` without its stemmer: no
    punctuation, no line breaks, and none at all in other scripts. So texts that are the same have 1 by themselves,
    with words or without, unless they are empty. Copying most of a long state earns most of it.

    Source: Lin, ROUGE: a package for automatic evaluation of summaries, ACL workshop 2004.
    """
    if exact_match(prediction, truth):
        return float(bool(normalise(truth)))
    one, other = _WORD.findall(prediction.lower()), _WORD.findall(truth.lower())
    return 2 * LCSseq.similarity(one, other) / (len(one) + len(other)) if one and other else 0.0


def bleu(prediction: str, truth: str) -> float:
    """Sentence BLEU, in [0, 1]: sacrebleu's, of orders 1 to 4 or as many as the prediction has (effective order).

    Tokens are those of `13a`, case counts, and orders without a match are smoothed exponentially (`exp`); sacrebleu's
    signature is `nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp`. Both texts go through `normalise`; line breaks count
    as blanks. 0 where either is empty. Rows are averaged: this is not corpus BLEU.

    Source: Post, A call for clarity in reporting BLEU scores, WMT 2018.
    """
    prediction, truth = normalise(prediction), normalise(truth)
    if prediction == truth:
        return float(prediction != "")
    return min(1.0, _sentence_bleu().sentence_score(prediction, [truth]).score / 100)


@functools.cache
def _sentence_bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU  # here, as it takes a tenth of a second

    return BLEU(effective_order=True)


def structured_f1(prediction: str, truth: str) -> float | None:
    """F1 of the leaves, (path, value) pairs as multisets, of the trees that the two texts hold; see `structure`.

    Returns:
        A value in [0, 1]: 0 where the prediction holds no tree, or one of another kind. `None` where the truth has
        none.
    """
    expected = structure(normalise(truth))
    if expected is None:
        return None
    found = structure(normalise(prediction))
    return _multiset_f1(found.leaves, expected.leaves) if found and found.kind == expected.kind else 0.0


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
    """Next-state metrics row by row, for means and intervals; what they are is in docs/metrics.md.

    Args:
        states: The states before the step.
        truths: The recorded next states, row by row.
        predictions: The predicted next states, row by row.

    Returns:
        Per metric its values, and the rows that it is defined on; a metric over no rows is left out.

    Raises:
        ValueError: The sequences differ in length.
    """
    _check_lengths(states=states, truths=truths, predictions=predictions)
    rows = list(zip(states, truths, predictions, strict=True))
    exact = [exact_match(prediction, truth) for _, truth, prediction in rows]
    is_changed = np.array([changed(state, truth) for state, truth, _ in rows], dtype=bool)
    every, differ, same = np.arange(len(rows)), np.flatnonzero(is_changed), np.flatnonzero(~is_changed)
    in_structure = [structured_f1(prediction, truth) for _, truth, prediction in rows]
    structured = np.flatnonzero([value is not None for value in in_structure])
    return _defined(
        {
            "exact_match_changed": ([exact[i] for i in differ], differ),
            "exact_match": (exact, every),
            "changed_facts_f1": ([changed_facts_f1(*rows[i]) for i in differ], differ),
            "false_change_rate": ([false_change(*rows[i]) for i in same], same),
            "token_f1": ([token_f1(prediction, truth) for _, truth, prediction in rows], every),
            "rouge_l": ([rouge_l(prediction, truth) for _, truth, prediction in rows], every),
            "bleu": ([bleu(prediction, truth) for _, truth, prediction in rows], every),
            "structured_f1": ([in_structure[i] for i in structured], structured),
            "copy_rate": ([exact_match(rows[i][2], rows[i][0]) for i in differ], differ),
            "unreadable_rate": ([not prediction.strip() for prediction in predictions], every),
        }
    )


def inverse_values(
    states: Sequence[str], truths: Sequence[str], actions: Sequence[str], predictions: Sequence[str]
) -> Values:
    """Action metrics row by row, for means and intervals; what they are is in docs/metrics.md.

    Args:
        states: The states before the step.
        truths: The recorded next states, row by row.
        actions: The recorded actions, row by row.
        predictions: The predicted actions, row by row.

    Returns:
        Per metric its values, and the rows that it is defined on; a metric over no rows is left out.

    Raises:
        ValueError: The sequences differ in length.
    """
    _check_lengths(states=states, truths=truths, actions=actions, predictions=predictions)
    match = [action_match(prediction, action) for prediction, action in zip(predictions, actions, strict=True)]
    pairs = [
        (normalise_action(prediction), normalise_action(action))
        for prediction, action in zip(predictions, actions, strict=True)
    ]
    every = np.arange(len(match))
    differ = np.flatnonzero([changed(state, truth) for state, truth in zip(states, truths, strict=True)])
    return _defined(
        {
            "action_exact_match_changed": ([match[i] for i in differ], differ),
            "action_exact_match": (match, every),
            "action_bleu": ([bleu(*pair) for pair in pairs], every),
            "action_rouge_l": ([rouge_l(*pair) for pair in pairs], every),
            "action_length_mean": ([len(prediction.split()) for prediction in predictions], every),
            "action_unreadable_rate": ([not prediction.strip() for prediction in predictions], every),
        }
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


def _defined(metrics: dict[str, tuple[list, np.ndarray]]) -> Values:
    return {name: (np.array(values, dtype=np.float64), rows) for name, (values, rows) in metrics.items() if len(rows)}


def _check_lengths(**columns: Sequence | np.ndarray) -> None:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"got columns of different lengths {lengths}, expected one entry of each per transition")
