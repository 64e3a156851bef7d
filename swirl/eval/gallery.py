"""Pictures of a run's test, where states are images: a contact sheet of predictions, and imagined rollouts.

`forward.png` has some transitions that change the frame; `rollout.png` and `rollout.gif` a stretch of the recording
and what the forward model imagines from its first frame on, never told the truth again. Of the stretches in which most
steps change the frame it is the median one by how many imagined frames are right: neither the best nor the worst.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swirl import durable, metrics, sheets
from swirl.config import Recipe
from swirl.eval import rollouts
from swirl.eval.frames import frame
from swirl.imagetokens import ImageTokenizer

Rows = Sequence[dict[str, Any]]
ROWS = 8
"""Of the contact sheet."""
TURNS = 6
"""Of the rollout."""
STRETCHES = 33
"""Rollouts of which the median is drawn."""


def write(
    images: ImageTokenizer,
    rows: Rows,
    predictions: Sequence[str],
    recording: list[dict[str, Any]],
    predict: rollouts.Predict,
    recipe: Recipe,
    folder: Path,
) -> None:
    """Draw the test.

    Args:
        images: Draws what is written with image tokens.
        rows: The test rows that were scored.
        predictions: Next states of the last forward model.
        recording: All test rows.
        predict: That model.
        recipe: Says what is drawn at random, and how many earlier states the model's prompts show.
        folder: Where to.
    """
    history, seed = recipe.data.history, recipe.data.seed
    order = map(int, np.random.default_rng(seed).permutation(len(rows)))
    picked = [i for i in order if metrics.changed(rows[i]["state"], rows[i]["next_state"])][:ROWS]
    lines = []
    for i in picked:
        state, truth = (frame(images, rows[i][name]) for name in ("state", "next_state"))
        if state and truth:
            lines.append(sheets.Row(state, rows[i]["action"], truth, frame(images, predictions[i])))
    stretches = [one for one in rollouts.stretches(recording, TURNS) if len(one) == TURNS]
    with durable.explain_full_disk(folder):
        if lines:
            sheets.contact_sheet(lines).save(folder / "forward.png")
        if stretches:
            _rollout(images, *median(sorted(stretches, key=_still)[:STRETCHES], predict, history), folder)


def _still(stretch: Rows) -> int:
    return sum(not metrics.changed(row["state"], row["next_state"]) for row in stretch)


def median(stretches: Sequence[Rows], predict: rollouts.Predict, history: int) -> tuple[Rows, Sequence[str]]:
    """Of rollouts the one that is median by how many of its states are right, and what was imagined in it."""
    imagined = rollouts.roll(predict, stretches, history)
    right = [
        sum(metrics.exact_match(text, row["next_state"]) for text, row in zip(texts, stretch, strict=True))
        for texts, stretch in zip(imagined, stretches, strict=True)
    ]
    ranked = sorted(range(len(stretches)), key=right.__getitem__)
    chosen = ranked[len(ranked) // 2]
    return stretches[chosen], imagined[chosen]


def _rollout(images: ImageTokenizer, stretch: Rows, imagined: Sequence[str], folder: Path) -> None:
    real = [stretch[0]["state"], *(row["next_state"] for row in stretch)]
    shown = {
        name: [frame(images, text) for text in texts]
        for name, texts in {"real": real, "imagined": [real[0], *imagined]}.items()
    }
    if None in shown["real"]:
        return
    sheets.film_strip(shown, [row["action"] for row in stretch]).save(folder / "rollout.png")
    (folder / "rollout.gif").write_bytes(sheets.gif(shown["imagined"]))
