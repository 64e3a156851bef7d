"""The file that a finished cell leaves: all that tables and the report are made from, a few dozen kilobytes of JSON.

Metrics are kept as sums over each test layout, for every phase that trained: intervals need the layouts, and reading at
equal cost needs the phases. Beside them a few predictions, and what ran where.
"""

import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from swirl import durable, imagetokens, metrics, similarity, toml
from swirl.compare import provenance
from swirl.config import Recipe
from swirl.errors import InputError
from swirl.eval import held_out
from swirl.eval.frames import frame
from swirl.eval.rows import clusters
from swirl.images import data_uri
from swirl.imagetokens import ImageTokenizer
from swirl.recipe import parse_recipe
from swirl.types import ROLES, Role, state_text

VERSION = 1
"""Of what cells measure and hold, beside their recipe: to be raised when a figure gets another meaning."""
SAMPLES = 3
"""Predictions kept of each kind."""
BASELINES = tuple(held_out.BASELINES.values())


@dataclass(frozen=True, eq=False)
class Cell:
    """One run of a comparison.

    Attributes:
        method: Its name in the table.
        recipe: Its resolved recipe.
        name: Of its folder and its file.
    """

    method: str
    recipe: Recipe
    name: str


def path_of(files: Path, cell: Cell) -> Path:
    """Where the file of a cell is, or will be."""
    return files / f"{cell.name}.json"


def find(files: Path, cell: Cell) -> dict[str, Any] | None:
    """What a cell that is done has left.

    Raises:
        InputError: It was done with another recipe or measured by another version, or its file cannot be read.
    """
    path = path_of(files, cell)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not what a comparison keeps ({error}); remove it to run its cell anew") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is not what a comparison keeps; remove it to run its cell anew")
    measured = found.get("version", 1)  # the first had no number
    if measured != VERSION:
        raise InputError(
            f"{path} was measured by version {measured} of a comparison, and this is {VERSION}: their figures are not "
            "the same; remove it to run its cell anew"
        )
    was = parse_recipe(found.get("recipe", {}))  # keys that are newer than the file have their defaults
    differ = toml.differences(*(tomllib.loads(recipe.toml()) for recipe in (was, cell.recipe)))
    if differ:
        raise InputError(f"{path} was made with another recipe: {'; '.join(differ)}; remove it to run its cell anew")
    return found


def keep(cell: Cell, folder: Path, recording: Path, commit: str, files: Path) -> None:
    """Write the file of a cell from its run folder and the recording that it is of."""
    torch.set_num_threads(cell.recipe.threads)  # as its run had: others go on beside it
    rows = pq.read_table(folder / "data" / "test.parquet").to_pylist()
    results = json.loads((folder / "results.json").read_text())
    wrote = _predictions(folder)
    scored = sorted(next(iter(wrote.values())))
    cluster = clusters([rows[i] for i in scored])
    cost, points, counts = _cost(folder), [], {}
    spec = cell.recipe
    encoder = similarity.Encoder(spec.evaluation.encoder, spec.device) if spec.evaluation.encoder else None
    carried = imagetokens.carried(folder / "data")
    images = imagetokens.load(carried) if carried else None
    for (phase, role), texts in wrote.items():
        written = [texts[i] for i in scored]
        sums, counts[role] = _by_cluster(role, [rows[i] for i in scored], written, cluster, encoder, images)
        points.append({"phase": phase, "role": role, **cost.get(phase, {}), "sums": sums})
    found = {
        "version": VERSION,
        "method": cell.method,
        "seed": cell.recipe.seed,
        "recipe": tomllib.loads(cell.recipe.toml()),
        "commit": commit,
        "machine": provenance.machine(spec.device, spec.threads),
        "versions": provenance.versions(),
        "points": points,
        "counts": counts,
        "rewards": _rewards(folder),
        "rows": [row for row in results["rows"] if row["split"] == "test"],
        "validation": _last_validation(results["rows"]),
        "drawn": drawn(spec, recording),
        "tested_on": tested_on([rows[i] for i in scored]),
        "alarms": results["alarms"],
        "samples": [
            _pictured(sample, images) for role in ROLES for sample in _samples(role, wrote, rows, cell.recipe.seed)
        ],
    }
    files.mkdir(parents=True, exist_ok=True)
    durable.atomic_write(path_of(files, cell), json.dumps(found) + "\n")


def _predictions(folder: Path) -> dict[tuple[str, Role], dict[int, str]]:
    """What each checkpoint wrote, by phase and role, in the order of the run; then by row."""
    table = pq.read_table(folder / "test" / "predictions.parquet").to_pydict()
    wrote: dict[tuple[str, Role], dict[int, str]] = {}
    for phase, role, row, text in zip(*(table[name] for name in ("phase", "role", "row", "prediction")), strict=True):
        wrote.setdefault((phase, role), {})[row] = text
    return wrote


def _logged(folder: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Every phase of a run as the ledger has it, and the lines of its log."""
    for phase in json.loads((folder / "ledger.json").read_text())["phases"]:
        log = folder / phase["folder"] / "log.jsonl"
        yield phase, [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def _cost(folder: Path) -> dict[str, dict[str, float]]:
    """CPU seconds, and tokens in optimiser steps, that a run had spent after each phase; data cost no method anything.

    The ledger has the seconds of all attempts at a phase but for the last few of those that were killed, in which its
    trainer may have saved; then its log knows of more.
    """
    spent, seconds, tokens = {}, 0.0, 0.0
    for phase, lines in _logged(folder):
        if phase["name"] not in ("frames", "data"):
            seconds += max(phase["seconds_cpu"], *(line.get("cpu_seconds", 0.0) for line in lines), 0.0)
        tokens += max((line.get("num_tokens", 0.0) for line in lines), default=0.0)
        spent[phase["name"]] = {"cpu_seconds": round(seconds, 1), "tokens": tokens}
    return spent


def _rewards(folder: Path) -> dict[str, dict[str, float]]:
    """The mean reward in the first and in the last tenth of each phase that had one."""
    found = {}
    for phase, lines in _logged(folder):
        rewards = [line["reward"] for line in lines if line.get("reward") is not None]
        if rewards:
            tenth = max(1, len(rewards) // 10)
            ends = {"first": rewards[:tenth], "last": rewards[-tenth:]}
            found[phase["name"]] = {name: round(float(np.mean(part)), 4) for name, part in ends.items()}
    return found


def tested_on(rows: Sequence[dict[str, Any]]) -> str:
    """A hash of test transitions, in their order."""
    told = [(state_text(row["state"]), row["action"], state_text(row["next_state"])) for row in rows]
    return blake2b(json.dumps(told).encode(), digest_size=8).hexdigest()


def drawn(recipe: Recipe, recording: Path) -> bool:
    """Whether the test part is of a recording drawn by `data.seed`: neither of a file nor fixed by the world."""
    if recipe.data.path:
        return False
    column = pq.read_table(recording, columns=["split"])["split"]
    return column.null_count == len(column)


def _last_validation(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Metrics on validation of what the run ended with."""
    validation = [row for row in rows if row["split"] == "validation"]
    return {row["metric"]: row["value"] for row in validation if row["phase"] == validation[-1]["phase"]}


def _by_cluster(
    role: Role,
    rows: list[dict[str, Any]],
    texts: list[str],
    cluster: np.ndarray,
    encoder: similarity.Encoder | None,
    images: ImageTokenizer | None,
) -> tuple[dict[str, list[float]], dict[str, list[int]]]:
    """Each metric's sum over the rows of each cluster, and how many rows that are."""
    values, n = held_out.values(role, rows, texts, encoder, images), int(cluster.max()) + 1
    sums = {
        name: np.bincount(cluster[index], weights=value, minlength=n).round(4).tolist()
        for name, (value, index) in values.items()
    }
    counts = {name: np.bincount(cluster[index], minlength=n).tolist() for name, (_, index) in values.items()}
    return sums, counts


def _samples(
    role: Role, wrote: dict[tuple[str, Role], dict[int, str]], rows: list[dict[str, Any]], seed: int
) -> list[dict[str, Any]]:
    """Predictions of the last checkpoint: on changed transitions some drawn and some of the worst; false changes."""
    texts = [texts for (phase, of), texts in wrote.items() if of == role and phase not in BASELINES][-1]
    pairs = {i: (state_text(rows[i]["state"]), state_text(rows[i]["next_state"])) for i in texts}
    changed = [i for i in texts if metrics.changed(*pairs[i])]
    false = [i for i in texts if role == "forward" and metrics.false_change(*pairs[i], texts[i])]
    if role == "forward":
        score = {i: metrics.changed_facts_f1(*pairs[i], texts[i]) for i in changed} | dict.fromkeys(false, 0.0)
    else:
        score = {i: float(metrics.action_match(texts[i], rows[i]["action"])) for i in changed}
    draw = np.random.default_rng(seed)
    order, false = ([some[i] for i in draw.permutation(len(some))] for some in (changed, false))
    worst = [i for i in sorted(order[SAMPLES:], key=score.__getitem__) if score[i] < 1]
    return [
        {"role": role, "kind": kind, "row": i, "state": pairs[i][0], "action": rows[i]["action"]}
        | {"next_state": pairs[i][1], "prediction": texts[i], "score": round(score[i], 3)}
        for kind, picked in (("drawn", order), ("worst", worst), ("false change", false))
        for i in picked[:SAMPLES]
    ]


def _pictured(sample: dict[str, Any], images: ImageTokenizer | None) -> dict[str, Any]:
    """A sample with its frames as `data:` URIs, where its states have one each; `None` for a text that shows none."""
    if images is None:
        return sample
    shown = ("state", "next_state", *(["prediction"] if sample["role"] == "forward" else []))
    drawn = {name: frame(images, sample[name]) for name in shown}
    if drawn["state"] is None or drawn["next_state"] is None:
        return sample
    return sample | {"frames": {name: one and data_uri(one) for name, one in drawn.items()}}
