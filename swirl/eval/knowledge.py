"""Knowledge: does a forward model tell the true next state from plausible ones, and does it do what it is told?

*Ranking.* On a changed transition the recorded next state stands among distractors: the state itself (copy-input),
next states recorded nearest in the same trajectory, then those of the same layout; none equals the truth or another.
The rank of the truth is by log P(next state | state, action), and a tie counts against it. MRR is the mean of 1 / rank,
hit@1 the share of rank 1. The rows named `chance` are what a ranking at random gives with as many candidates.

*Action following.* The inverse model reads the action off (state, predicted next state); it is followed where that is
the commanded one. The inverse model errs too: the row named `recorded-next-state` is what it recovers from the truth.
A counterfactual command is another action of the world's list; the metric is over those under which the model predicts
a change, for where nothing changes no action can be told.

Source: ranking of states: OneLife, arXiv 2510.12088 (its distractors are mutated states, ours are recorded ones). That
a prediction should betray its command: RLIR, arXiv 2509.23958.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from swirl import intervals, labelling, metrics, progress, prompts
from swirl.api import ForwardModel, InverseModel
from swirl.eval import held_out, rows
from swirl.rewards.likelihood import score
from swirl.types import state_text

Rows = rows.Rows
DISTRACTORS = 7
CHUNK = 64
"""Transitions per scoring call, so that the progress bar moves."""


class Neighbours:
    """The recorded next states of a recording, by how near they are to a transition."""

    def __init__(self, recording: Rows) -> None:
        self._trajectories: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._layouts: dict[str, dict[str, None]] = defaultdict(dict)  # distinct states, in order
        for row in recording:
            self._trajectories[row["trajectory"]].append(row)
            if row.get("layout") is not None:
                self._layouts[row["layout"]][state_text(row["next_state"])] = None

    def distractors(self, row: dict[str, Any], most: int = DISTRACTORS) -> list[str]:
        """Other next states for a changed transition, the nearest first; at least the state itself."""
        taken, out = {metrics.normalise(state_text(row["next_state"]))}, []
        for text in self._near(row):
            if len(out) == most:
                break
            if metrics.normalise(text) not in taken:
                taken.add(metrics.normalise(text))
                out.append(text)
        return out

    def _near(self, row: dict[str, Any]) -> Iterator[str]:
        own = sorted(self._trajectories[row["trajectory"]], key=lambda other: abs(other["step"] - row["step"]))
        texts = (state_text(other["next_state"]) for other in own)
        return chain([state_text(row["state"])], texts, self._layouts.get(row.get("layout") or "", {}))


def rank(scores: Sequence[float]) -> int:
    """The rank of the first score among all, from 1; equal ones come before it."""
    return 1 + sum(other >= scores[0] for other in scores[1:])


def ranking(forward: ForwardModel, picked: Rows, recording: Rows, most: int = DISTRACTORS) -> rows.Results:
    """MRR and hit@1 of the true next state on changed transitions.

    Args:
        forward: The model.
        picked: Transitions with actions.
        recording: Where distractors are taken from.
        most: Most distractors per transition; what the model cannot read is none.
    """
    near = Neighbours(recording)
    told = [row for row in picked if metrics.changed(row["state"], row["next_state"])]
    groups = [[state_text(row["next_state"]), *_short(forward, row, near.distractors(row, most))] for row in told]
    ranks: list[int] = []
    with progress.bar("rank next states", len(told)) as bar:
        for start in range(0, len(told), CHUNK):
            part = list(zip(told[start : start + CHUNK], groups[start : start + CHUNK], strict=True))
            asked = [
                {"state": row["state"], "given": row["action"], "target": text, "history": row.get("history")}
                for row, group in part
                for text in group
            ]
            flat = iter(
                score(forward.scorer, "forward", asked, forward.spec.prompt, forward.spec.chat_template_kwargs)[0]
            )
            ranks += [rank([next(flat) for _ in group]) for _, group in part]
            bar.advance(len(part))
    return ranked(str(forward.checkpoint), ranks, [len(group) for group in groups], rows.clusters(told))


def _short(forward: ForwardModel, row: dict[str, Any], texts: Sequence[str]) -> list[str]:
    """The next states that the model can write within what it reads."""
    _, room = forward.encode(row)
    style, tokenizer = forward.spec.prompt, forward.scorer.tokenizer
    written = [prompts.written(style, row["state"], text) for text in texts]
    return [
        text
        for text, reply in zip(texts, written, strict=True)
        if len(prompts.encode_completion(tokenizer, reply)) <= room
    ]


def ranked(model: str, ranks: Sequence[int], sizes: Sequence[int], clusters: np.ndarray) -> rows.Results:
    """Results of the ranks of truths among so many candidates each, beside chance."""
    if not ranks:
        return []
    mrr = float(np.mean([sum(1 / k for k in range(1, size + 1)) / size for size in sizes]))
    hit = float(np.mean([1 / size for size in sizes]))
    return [
        *rows.plain("chance", "forward", "ranking_mrr_changed", mrr, len(ranks)),
        *rows.plain("chance", "forward", "ranking_hit1_changed", hit, len(ranks)),
        *rows.mean(model, "forward", "ranking_mrr_changed", [1 / place for place in ranks], clusters, intervals.SHARE),
        *rows.mean(model, "forward", "ranking_hit1_changed", [place == 1 for place in ranks], clusters),
    ]


def following(
    forward: ForwardModel,
    inverse: InverseModel,
    picked: Rows,
    predictions: Sequence[str],
    inferred: Sequence[str],
    limits: tuple[int, int],
    list_actions: labelling.ListActions | None = None,
    seed: int = 0,
) -> rows.Results:
    """Action-following rate, for the recorded commands and, where the world lists its actions, for one other each.

    Args:
        forward: The model that is commanded.
        inverse: The model that reads the command off.
        picked: Transitions with actions.
        predictions: What the forward model predicts for them.
        inferred: What the inverse model infers from their recorded next states.
        limits: Token limits of a prediction and of an action.
        list_actions: The world's actions in a state.
        seed: Of the draw of counterfactual commands.
    """
    differ = [i for i, row in enumerate(picked) if metrics.changed(row["state"], row["next_state"])]
    asked = [{**picked[i], "next_state": predictions[i]} for i in differ]
    model, clusters = str(forward.checkpoint), rows.clusters(asked)
    known = [metrics.action_match(inferred[i], picked[i]["action"]) for i in differ]
    followed = _followed(inverse, asked, limits[1])
    out = rows.mean("recorded-next-state", "forward", "following_changed", known, clusters)
    out += rows.mean(model, "forward", "following_changed", followed, clusters)
    if list_actions is None:
        return out
    commanded = _counterfactual(picked, list_actions, seed)
    actions = [row["action"] for row in commanded]
    told = held_out.predict(forward.scorer, commanded, actions, forward.recipe, limits[0], "counterfactual commands")
    asked = [{**row, "next_state": text} for row, text in zip(commanded, told, strict=True)]
    asked = [row for row in asked if metrics.changed(row["state"], row["next_state"])]
    followed = _followed(inverse, asked, limits[1])
    return out + rows.mean(model, "forward", "following_counterfactual", followed, rows.clusters(asked))


def _counterfactual(picked: Rows, list_actions: labelling.ListActions, seed: int) -> list[dict[str, Any]]:
    """The transitions, each with an action that was not taken; those left out where there is none."""
    rng, out = np.random.default_rng(seed), []
    for row in picked:
        others = [a for a in list_actions(row["state"]) or () if not metrics.action_match(a, row["action"])]
        if others:
            out.append({**row, "action": others[rng.integers(len(others))]})
    return out


def _followed(inverse: InverseModel, asked: Rows, limit: int) -> list[bool]:
    """Whether the inverse model reads the row's action off its state and next state; not where that is unreadable."""
    fits = [i for i, row in enumerate(asked) if row["next_state"] and inverse.reads(row)]
    spec = inverse.spec
    told = labelling.infer(
        inverse.scorer,
        [asked[i] for i in fits],
        max_new_tokens=limit,
        style=spec.prompt,
        template=spec.chat_template_kwargs,
        batch=inverse.recipe.evaluation.batch,
        title="read off commands",
    )
    found = {i: group[0] for i, group in zip(fits, told, strict=True)}
    return [metrics.action_match(found.get(i, ""), row["action"]) for i, row in enumerate(asked)]
