"""Held-out quality of a checkpoint: one row of results per metric, each with its interval.

Forward: greedy next states against the recorded ones. Inverse: greedy actions against the recorded ones. Both: negative
log-likelihood of the recorded completion. Cycle: does the forward model, given the *inferred* action, reproduce the
recorded next state? It needs no labels. `copy-input` and `majority-action` are the rows that a model must beat.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from swirl import health, image_metrics, intervals, labelling, metrics, models, progress, prompts, similarity
from swirl.config import Recipe
from swirl.eval import frames, latent
from swirl.eval.rows import clusters, result
from swirl.imagetokens import ImageTokenizer
from swirl.rewards.likelihood import score
from swirl.scorer import Scorer
from swirl.types import Role, state_text

Rows = Sequence[dict[str, Any]]
BASELINES: dict[Role, str] = {"forward": "copy-input", "inverse": "majority-action"}
"""What a model of each role must beat."""
CUT_OFF: dict[Role, str] = {"forward": "cut_off_rate", "inverse": "action_cut_off_rate"}
"""The metric that counts replies which the token limit ended; a next state counts as far as it goes, an action not."""
RANGES: dict[str, intervals.Bounds] = {
    **dict.fromkeys(
        ("nll_per_token", "nll", "nll_changed", "image_suppressed_nll", "action_length_mean"), (0.0, np.inf)
    ),
    **dict.fromkeys(("image_psnr", "image_psnr_changed", "image_psnr_ceiling"), (0.0, image_metrics.PSNR_CAP)),
    **dict.fromkeys(("image_ssim", "image_ssim_changed", "image_ssim_ceiling"), (-1.0, 1.0)),
}
"""What a metric's values can be, where that is not 0 to 1."""


def predict(
    forward: Scorer, rows: Rows, actions: Sequence[str], recipe: Recipe, max_new_tokens: int, title: str
) -> list[str]:
    """Greedy next states for (state, action)."""
    return [group[0] for group in _predictions(forward, rows, actions, recipe, max_new_tokens, title)]


def best_of(
    n: int, forward: Scorer, inverse: Scorer, rows: Rows, recipe: Recipe, max_new_tokens: int, seed: int
) -> list[str]:
    """Verification at test time: of n sampled next states, the one that the action is most likely to be read off.

    Source: arXiv 2506.06006, and the baseline of SWIRL, arXiv 2602.06130.

    Returns:
        A next state per row; "" where none of its samples can be read.
    """
    style, template = recipe.model.prompt, recipe.model.chat_template_kwargs
    actions = [row["action"] for row in rows]
    title = f"best of {n}"
    sampled = _predictions(forward, rows, actions, recipe, max_new_tokens, title, n=n, temperature=1.0, seed=seed)
    places = [(i, k) for i, group in enumerate(sampled) for k, text in enumerate(group) if text]
    asked = [
        {
            "state": rows[i]["state"],
            "given": sampled[i][k],
            "target": actions[i],
            "history": rows[i].get("history"),
        }
        for i, k in places
    ]
    best = [("", -np.inf)] * len(rows)
    for (i, k), value in zip(places, score(inverse, "inverse", asked, style, template)[0], strict=True):
        if value > best[i][1]:
            best[i] = (sampled[i][k], value)
    return [text for text, _ in best]


def _predictions(
    forward: Scorer,
    rows: Rows,
    actions: Sequence[str],
    recipe: Recipe,
    max_new_tokens: int,
    title: str,
    **sampling: Any,
) -> list[list[str]]:
    """Next states for (state, action), one per sample; what cannot be read is ""."""
    asked = [{**row, "action": action} for row, action in zip(rows, actions, strict=True)]
    replies = _ask("forward", forward, asked, recipe, max_new_tokens, title, **sampling)
    return [[_next_state_in(reply, row, recipe) for reply in group] for row, group in zip(rows, replies, strict=True)]


def _ask(
    role: Role, scorer: Scorer, rows: Rows, recipe: Recipe, max_new_tokens: int, title: str, **sampling: Any
) -> list[list[models.Reply]]:
    return labelling.ask(
        role,
        scorer,
        rows,
        max_new_tokens=max_new_tokens,
        style=recipe.model.prompt,
        template=recipe.model.chat_template_kwargs,
        batch=recipe.evaluation.batch,
        title=title,
        **sampling,
    )


def _next_state_in(reply: models.Reply, row: dict[str, Any], recipe: Recipe) -> str:
    return prompts.parse_reply("forward", reply.text, recipe.model.prompt, row["state"])


def measure(
    role: Role,
    scorer: Scorer,
    rows: Rows,
    recipe: Recipe,
    max_new_tokens: int,
    title: str,
    encoder: similarity.Encoder | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Metrics of one role on labelled rows.

    Args:
        role: Which role the checkpoint plays.
        scorer: The checkpoint.
        rows: Transitions with actions.
        recipe: Prompt style, batch sizes.
        max_new_tokens: Token limit of a completion.
        title: Shown in the progress bar.
        encoder: Also scores next states by their similarity; takes long, so validation has none.

    Returns:
        Rows {"role", "metric", "value", "low", "high", "n"}, and the predictions.
    """
    replies = [group[0] for group in _ask(role, scorer, rows, recipe, max_new_tokens, title)]
    if role == "forward":
        predictions = [_next_state_in(reply, row, recipe) for reply, row in zip(replies, rows, strict=True)]
    else:
        predictions = [labelling.action_in(reply) for reply in replies]
    given = "action" if role == "forward" else "next_state"
    asked = [
        {
            "state": r["state"],
            "given": r[given],
            "target": r["next_state" if role == "forward" else "action"],
            "history": r.get("history"),
        }
        for r in rows
    ]
    sums, counts = score(scorer, role, asked, recipe.model.prompt, recipe.model.chat_template_kwargs)
    nll = -np.array(sums) / np.array(counts)
    every, states, truths = np.arange(len(rows)), *_texts(rows)
    differ = np.flatnonzero([metrics.changed(x, y) for x, y in zip(states, truths, strict=True)])
    extra = {CUT_OFF[role]: (np.array([not reply.finished for reply in replies], float), every)}
    extra |= {"nll_per_token": (nll, every), "nll": (-np.array(sums), every)}
    if suppress := scorer.suppressed(role, recipe.model.prompt):
        free, _ = score(scorer, role, asked, recipe.model.prompt, recipe.model.chat_template_kwargs, suppress)
        extra["image_suppressed_nll"] = (np.maximum(0.0, nll + np.array(free) / np.array(counts)), every)
    if len(differ):
        extra["nll_changed"] = (-np.array(sums)[differ], differ)
    signs = latent.signs(scorer, rows, predictions, (sums, counts), recipe) if role == "inverse" else []
    return results(role, rows, predictions, extra, encoder, scorer.images) + signs, predictions


def results(
    role: Role,
    rows: Rows,
    predictions: Sequence[str],
    extra: dict[str, Any] | None = None,
    encoder: similarity.Encoder | None = None,
    images: ImageTokenizer | None = None,
    baseline: bool = False,
) -> list[dict]:
    """Result rows of predictions, the intervals by bootstrap over `clusters`; next states also by the encoder.

    A baseline is wrong, or right, in every row by definition, not by chance: then its interval has no width.
    """
    out, cluster = [], clusters(rows)
    for name, (value, index) in {**values(role, rows, predictions, encoder, images), **(extra or {})}.items():
        low, high = intervals.bootstrap_interval(value, cluster[index], bounds=None if baseline else bounds(name))
        out.append(result(role, name, float(np.mean(value)), low, high, len(value)))
    if role == "inverse":
        readable = [text for text in predictions if text]
        signs = health.action_health(readable)
        signs.pop("length_mean", None)  # already there, with its interval
        out += [result(role, f"action_{name}", value, None, None, len(readable)) for name, value in signs.items()]
    return out


def bounds(metric: str) -> intervals.Bounds:
    """What the values of a metric of this module can be."""
    return RANGES.get(metric, intervals.SHARE)


def values(
    role: Role,
    rows: Rows,
    predictions: Sequence[str],
    encoder: similarity.Encoder | None = None,
    images: ImageTokenizer | None = None,
) -> metrics.Values:
    """Metrics of predictions row by row; next states also by the encoder, and as frames."""
    states, truths = _texts(rows)
    if role == "inverse":
        return metrics.inverse_values(states, truths, [row["action"] for row in rows], predictions)
    found = metrics.forward_values(states, truths, predictions)
    if images:
        found |= frames.forward_values(images, rows, predictions)
    return found | _similarity(encoder, states, truths, predictions) if encoder else found


def _similarity(
    encoder: similarity.Encoder, states: Sequence[str], truths: Sequence[str], predictions: Sequence[str]
) -> metrics.Values:
    with progress.bar("similarity", len(truths)) as bar:
        return similarity.forward_values(encoder, states, truths, predictions, bar.advance)


def cycle(forward: Scorer, rows: Rows, inferred: Sequence[str], recipe: Recipe, max_new_tokens: int) -> list[dict]:
    """Cycle consistency on changed transitions: P given the inferred action reproduces the recorded next state.

    An action that could not be read ("") is not asked for: it is wrong, or a model that says nothing would close every
    cycle beside one that does not read the action.
    """
    states, truths = _texts(rows)
    index = [i for i, (x, y) in enumerate(zip(states, truths, strict=True)) if metrics.changed(x, y)]
    if not index:
        return []
    read = [i for i in index if inferred[i]]
    asked, actions = [rows[i] for i in read], [inferred[i] for i in read]
    told = predict(forward, asked, actions, recipe, max_new_tokens, "cycle") if read else []
    predictions = dict(zip(read, told, strict=True))
    match = np.array([i in predictions and metrics.exact_match(predictions[i], truths[i]) for i in index])
    low, high = intervals.bootstrap_interval(match, clusters(rows)[index])
    return [result("both", "cycle_exact_match_changed", float(match.mean()), low, high, len(match))]


def baselines(rows: Rows, majority: str) -> dict[Role, list[str]]:
    """What `BASELINES` predict: the input, and always the training labels' most frequent action."""
    states, _ = _texts(rows)
    return {"forward": states, "inverse": [majority] * len(rows)}


def worth(role: Role, rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """What checkpoints are compared by: a score, then the likelihood of what changed.

    The inverse model's score is its headline. The forward model's is the F1 of changed facts, for two models without an
    exact match can differ much, less the false changes: one that always changes something is as bad as one that never
    does. Nothing is said of actions that changed nothing: which of the idle ones was recorded is chance.
    """
    value = {row["metric"]: row["value"] for row in rows}
    score = value.get(metrics.HEADLINE[role], 0.0)
    if role == "forward":
        score = value.get("changed_facts_f1", 0.0) - value.get("false_change_rate", 0.0)
    return score, -value.get("nll_changed", value["nll"])


def _texts(rows: Rows) -> tuple[list[str], list[str]]:
    return [state_text(row["state"]) for row in rows], [state_text(row["next_state"]) for row in rows]
