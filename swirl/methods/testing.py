"""The one reading of the test part, at the end of a run.

`test/phase.json` holds the metrics, `test/predictions.parquet` what every checkpoint wrote for every row that was
scored: whoever compares runs needs more than their means. Where states are images there are pictures too (`gallery`).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from swirl import durable, metrics, parallel, similarity
from swirl.eval import gallery, held_out, rollouts
from swirl.methods.phases import Pair
from swirl.methods.runner import Runner
from swirl.scorer import Scorer
from swirl.types import ROLES, Role

Rows = list[dict[str, Any]]

PREDICTIONS = pa.schema(
    [
        ("phase", pa.dictionary(pa.int32(), pa.string())),
        ("role", pa.dictionary(pa.int32(), pa.string())),
        ("row", pa.int32()),  # of test.parquet, from 0
        ("prediction", pa.dictionary(pa.int32(), pa.string())),
    ]
)


def read_test(runner: Runner, stages: Sequence[tuple[str, Pair]], staging: Path) -> None:
    """Measure the baselines and the checkpoints after every method; after every phase, where the recipe says so.

    Args:
        runner: The run.
        stages: The methods, in order, each with the checkpoints that it left.
        staging: Folder for `phase.json` and `predictions.parquet`.
    """
    if not parallel.is_main():
        return
    recipe = runner.recipe
    rows, places = _drawn(runner)
    asked = recipe.evaluation.encoder
    encoder = similarity.Encoder(asked, recipe.device) if asked else None
    found, wrote = of_baselines(runner, rows, encoder), Wrote(places)
    for role, texts in baselines(runner, rows).items():
        wrote.add(held_out.BASELINES[role], role, texts)
    known: dict[tuple[Role, Path], tuple[Rows, list[str]]] = {}

    def measure(name: str, role: Role, checkpoint: Path) -> list[str]:
        if (role, checkpoint) not in known:
            title, limit = f"test {name} {role}", runner.max_new_tokens[role]
            known[role, checkpoint] = held_out.measure(
                role, runner.scorer(checkpoint), rows, recipe, limit, title, encoder
            )
        measured, predictions = known[role, checkpoint]
        found.extend({"phase": name, **row} for row in measured)
        wrote.add(name, role, predictions)
        return predictions

    for name, roles, pair in runner.trained if recipe.evaluation.test_phases else ():
        for role in roles:
            measure(name, role, getattr(pair, role))
    for name, pair in stages:
        inferred = [measure(name, role, getattr(pair, role)) for role in ROLES][ROLES.index("inverse")]
        cycle = held_out.cycle(runner.scorer(pair.forward), rows, inferred, recipe, runner.max_new_tokens["forward"])
        found += [{"phase": name, **row} for row in cycle]
    forward, inverse = (runner.scorer(path) for path in stages[-1][1])
    for n in recipe.evaluation.best_of:
        name, limit = f"best-of-{n}", runner.max_new_tokens["forward"]
        chosen = held_out.best_of(n, forward, inverse, rows, recipe, limit, runner.seed(name))
        found += [
            {"phase": name, **row} for row in held_out.results("forward", rows, chosen, None, encoder, runner.images)
        ]
        wrote.add(name, "forward", chosen)
    if runner.images:
        recording = pq.read_table(runner.data / "test.parquet").to_pylist()
        predictions = known["forward", stages[-1][1].forward][1]
        gallery.write(runner.images, rows, predictions, recording, _predictor(runner, forward), recipe, staging)
    pq.write_table(wrote.table(), staging / "predictions.parquet")
    durable.atomic_write(staging / "phase.json", json.dumps({"phase": "test", "test": found}, indent=1) + "\n")


def _predictor(runner: Runner, forward: Scorer) -> rollouts.Predict:
    """Greedy next states of the rows that are asked about."""

    def predict(asked: rollouts.Rows, title: str) -> list[str]:
        actions = [row["action"] for row in asked]
        return held_out.predict(forward, asked, actions, runner.recipe, runner.max_new_tokens["forward"], title)

    return predict


def baselines(runner: Runner, rows: Rows) -> dict[Role, list[str]]:
    """What the baselines of each role predict for these rows."""
    labels = pq.read_table(runner.labelled)["action"].to_pylist()
    return held_out.baselines(rows, metrics.majority_action(labels) if labels else "")


def of_baselines(runner: Runner, rows: Rows, encoder: similarity.Encoder | None = None) -> Rows:
    """Their metrics, as phases of their own."""
    return [
        {"phase": held_out.BASELINES[role], **row}
        for role, texts in baselines(runner, rows).items()
        for row in held_out.results(role, rows, texts, None, encoder, runner.images, baseline=True)
    ]


def _drawn(runner: Runner) -> tuple[Rows, list[int]]:
    """The test rows that are scored, and their places in `test.parquet`; every run of a recipe draws the same."""
    rows, spec = pq.read_table(runner.data / "test.parquet").to_pylist(), runner.recipe
    places, most = list(range(len(rows))), spec.evaluation.max_rows
    if most and len(rows) > most:
        places = sorted(np.random.default_rng(spec.data.seed).permutation(len(rows))[:most].tolist())
    return [rows[i] for i in places], places


class Wrote:
    """What checkpoints wrote for the rows at some places of the test part."""

    def __init__(self, places: Sequence[int]) -> None:
        self._places, self._tables = places, []

    def add(self, phase: str, role: Role, predictions: Sequence[str]) -> None:
        """A prediction per row."""
        count = len(self._places)
        columns = [[phase] * count, [role] * count, list(self._places), list(predictions)]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, PREDICTIONS, strict=True)]
        self._tables.append(pa.Table.from_arrays(arrays, schema=PREDICTIONS))

    def table(self) -> pa.Table:
        """All of it."""
        return pa.concat_tables(self._tables).unify_dictionaries()
