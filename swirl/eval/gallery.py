"""Pictures of a run's test, where states are images: a contact sheet of predictions, and imagined rollouts.

`forward.png` has some transitions that change the frame; `rollout.png` and `rollout.gif` the stretch of the recording
in which most steps do, and what the forward model imagines from its first frame on, never told the truth again.
"""

from collections.abc import Callable, Sequence
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
            _rollout(images, max(stretches, key=_busy), predict, history, folder)


def _busy(stretch: Rows) -> int:
    return sum(metrics.changed(row["state"], row["next_state"]) for row in stretch)


def _rollout(
    images: ImageTokenizer, stretch: Rows, predict: Callable[..., list[str]], history: int, folder: Path
) -> None:
    [imagined] = rollouts.roll(predict, [stretch], history)
    real = [stretch[0]["state"], *(row["next_state"] for row in stretch)]
    shown = {
        name: [frame(images, text) for text in texts]
        for name, texts in {"real": real, "imagined": [real[0], *imagined]}.items()
    }
    if None in shown["real"]:
        return
    sheets.film_strip(shown, [row["action"] for row in stretch]).save(folder / "rollout.png")
    (folder / "rollout.gif").write_bytes(sheets.gif(shown["imagined"]))
