"""Long horizon: how far a forward model's own predictions carry.

A rollout begins at a recorded state. At each turn the model is given its own last prediction and the recorded action,
and what it predicts is held against what was recorded so many steps after the start. Recorded trajectories are cut into
stretches of at most T steps that share none, so that T turns cost one prediction per recorded step. *Survivors* of turn
t are the rollouts with at least t recorded steps. A prediction that cannot be read ends a rollout: it stays a survivor,
and every later turn of it is wrong.

The *consistency* of turn t is (exact match at turn t) / (exact match at turn 1), both over the survivors of turn t:
the share of one-step quality that is left after t - 1 steps on the model's own predictions. It is this project's, made
for rollouts that follow recorded actions. Word2World's consistency ratio is of tasks (CR = W2R / Real, section 4,
Metrics), and is in `real`.

Source: multi-step rollouts of text world models: Word2World, arXiv 2512.18832; scores by turn, T = 1..6: SWIRL, arXiv
2602.06130.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from swirl import metrics
from swirl.api import ForwardModel
from swirl.eval import frames, held_out, rows
from swirl.imagetokens import ImageTokenizer
from swirl.types import state_text

Rows = rows.Rows
Predict = Callable[[Rows, str], list[str]]
"""Next states of rows with `state`, `action` and `history`, and a title for the progress bar; "" where unreadable."""

TURNS = 6
BY_TURN = ("exact_match_changed", "exact_match", "changed_facts_f1", "token_f1")
"""Of `metrics.forward_values`, with the rollout's first state as the state before."""
OF_IMAGES = ("image_exact_match_changed", "image_changed_f1", "image_psnr")
"""Of `frames.forward_values`, likewise."""


def stretches(recording: Rows, turns: int) -> list[list[dict[str, Any]]]:
    """Recorded trajectories cut into stretches of at most `turns` steps, each row in one stretch at most.

    A stretch also ends where a step is missing, or where the state is not the one that the step before led to. Rows
    without an action are left out.
    """
    out: list[list[dict[str, Any]]] = []
    for row in sorted(recording, key=lambda row: (row["trajectory"], row["step"])):
        if row["action"] is None:
            continue
        last = out[-1][-1] if out else None
        if last is None or len(out[-1]) == turns or not _follows(last, row):
            out.append([])
        out[-1].append(row)
    return out


def _follows(before: dict[str, Any], row: dict[str, Any]) -> bool:
    return (before["trajectory"], before["step"] + 1) == (row["trajectory"], row["step"]) and metrics.exact_match(
        state_text(before["next_state"]), state_text(row["state"])
    )


def roll(predict: Predict, starts: Sequence[Rows], history: int = 0) -> list[list[str]]:
    """Predicted states of each stretch, one per recorded step; "" from where a prediction could not be read.

    Args:
        predict: The model.
        starts: Stretches; only the state (and history) of the first row and the actions of all are looked at.
        history: Earlier states that the model's prompts show: recorded ones before the start, its own after.
    """
    states = [[state_text(stretch[0]["state"])] for stretch in starts]
    for turn in range(max(map(len, starts), default=0)):
        alive = [i for i, stretch in enumerate(starts) if turn < len(stretch) and states[i][-1]]
        asked = [continued({**starts[i][0], "action": starts[i][turn]["action"]}, states[i], history) for i in alive]
        found = dict(zip(alive, predict(asked, f"rollout turn {turn + 1}"), strict=True))
        for i, stretch in enumerate(starts):
            if turn < len(stretch):
                states[i].append(found.get(i, ""))
    return [found[1:] for found in states]


def continued(first: dict[str, Any], states: Sequence[str], history: int) -> dict[str, Any]:
    """What to ask after predicted states: `first` has the action, and the history of where the states begin."""
    past = [*map(state_text, first.get("history") or ()), *states[:-1]]
    return {"state": states[-1], "action": first["action"], "history": past[-history:] if history else []}


def predictor(forward: ForwardModel, max_new_tokens: int) -> Predict:
    """A model's greedy predictions; "" also where its own earlier ones have outgrown what it reads."""

    def predict(asked: Rows, title: str) -> list[str]:
        fits = [i for i, row in enumerate(asked) if forward.reads(row)]
        part, actions = [asked[i] for i in fits], [asked[i]["action"] for i in fits]
        found = held_out.predict(forward.scorer, part, actions, forward.recipe, max_new_tokens, title) if fits else []
        texts = dict(zip(fits, found, strict=True))
        return [texts.get(i, "") for i in range(len(asked))]

    return predict


def measure(
    forward: ForwardModel, recording: Rows, max_new_tokens: int, turns: int = TURNS, most: int = 0, seed: int = 0
) -> rows.Results:
    """Rollout metrics by turn of a model, and of a model that copies its input.

    Args:
        forward: The model.
        recording: Rows in any order, with `history` where the model wants it.
        max_new_tokens: Token limit of a prediction.
        turns: T, the longest rollout.
        most: Recorded steps to use; stretches are drawn at random until there are so many; 0: all.
        seed: Of that draw.

    Returns:
        Rows `rollout_<metric>_t<turn>` of the metrics of `BY_TURN`, where states are images those of `OF_IMAGES`,
        `rollout_survivors_t<turn>` and `rollout_consistency_t<turn>`.
    """
    starts = stretches(recording, turns)
    order = np.random.default_rng(seed).permutation(len(starts))
    lengths = np.array([len(starts[i]) for i in order])
    starts = [starts[i] for i in sorted(order[np.cumsum(lengths) - lengths < (most or np.inf)])]
    copied = [[state_text(stretch[0]["state"])] * len(stretch) for stretch in starts]
    rolled = roll(predictor(forward, max_new_tokens), starts, forward.recipe.data.history)
    named = {held_out.BASELINES["forward"]: copied, str(forward.checkpoint): rolled}
    return [row for name, states in named.items() for row in by_turn(name, starts, states, forward.scorer.images)]


def by_turn(
    model: str, starts: Sequence[Rows], rolled: Sequence[Sequence[str]], images: ImageTokenizer | None = None
) -> rows.Results:
    """Results of predicted states, turn by turn; see `measure`. Image metrics where `images` wrote the states."""
    out: rows.Results = []
    pairs = zip(starts, rolled, strict=True)
    firsts = np.array(
        [metrics.exact_match(states[0], state_text(stretch[0]["next_state"])) for stretch, states in pairs]
    )
    every, baseline = rows.clusters([stretch[0] for stretch in starts]), model == held_out.BASELINES["forward"]
    for turn in range(1, max(map(len, starts), default=0) + 1):
        alive = [i for i, stretch in enumerate(starts) if len(stretch) >= turn]
        clusters = every[alive]
        # as one step from where the rollout began to where it is
        steps = [{**starts[i][turn - 1], "state": starts[i][0]["state"]} for i in alive]
        predicted = [rolled[i][turn - 1] for i in alive]
        values = metrics.forward_values(
            [state_text(row["state"]) for row in steps], [state_text(row["next_state"]) for row in steps], predicted
        )
        values |= frames.forward_values(images, steps, predicted) if images else {}
        out += rows.plain(model, "forward", f"rollout_survivors_t{turn}", len(alive), len(alive))
        for name in (*BY_TURN, *(OF_IMAGES if images else ())):
            value, index = values.get(name, (np.empty(0), np.empty(0, int)))
            bounds = None if baseline else held_out.bounds(name)
            out += rows.mean(model, "forward", f"rollout_{name}_t{turn}", value, clusters[index], bounds)
        now, first = values["exact_match"][0], firsts[alive]
        ratio = rows.ratio(now, first)
        out += rows.statistic(model, "forward", f"rollout_consistency_t{turn}", ratio, clusters, (0.0, np.inf))
    return out
