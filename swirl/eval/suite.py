"""The parts of `swirl eval --suite`: what is measured beyond one step.

| part | file | needs |
|---|---|---|
| `rollouts` | `rollouts.py` | a forward model |
| `knowledge` | `knowledge.py` | a forward model; both for action following |
| `trust` | `trust.py` | either model |
| `real` | `real.py`, `planning.py` | either model, and a recording whose episodes can be played again |

Where the recording says which world it is of, its list of actions gives `knowledge` counterfactual commands and `trust`
a posterior over the list.

`swirl eval recording.parquet --forward runs/demo --inverse runs/demo --suite all`
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swirl import metrics, progress
from swirl.api import ForwardModel, InverseModel
from swirl.errors import InputError, MissingPartError
from swirl.eval import held_out, knowledge, planning, real, rollouts, rows, trust
from swirl.imagetokens import ImageTokenizer
from swirl.types import Role
from swirl.worlds.base import unknown

logger = logging.getLogger("swirl")

Rows = rows.Rows
PREFIXES = {
    "rollouts": ("rollout_",),
    "knowledge": ("ranking_", "following_"),
    "trust": ("trust_",),
    "real": ("action_equivalent_", "real_", "wm2real_", "consistency_ratio"),
}
"""How the names of a part's metrics begin."""
NEEDS: dict[str, tuple[Role, ...]] = {"rollouts": ("forward",), "knowledge": ("forward",), "trust": (), "real": ()}
"""The models without which a part has nothing to measure."""


@dataclass(frozen=True)
class Subject:
    """What is measured, and on what.

    Attributes:
        recording: All rows.
        picked: Rows with actions, as many as are to be scored.
        most: That number; 0: all.
        seed: Of every draw.
        models: The models by role.
        limits: Token limit of a reply by role.
        predictions: Their greedy predictions for `picked`, by role.
        turns: Longest rollout.
        replay: The recording's world, where its episodes can be played again.
    """

    recording: Rows
    picked: Rows
    most: int
    seed: int
    models: dict[Role, ForwardModel | InverseModel]
    limits: dict[Role, int]
    predictions: dict[Role, list[str]]
    turns: int = rollouts.TURNS
    replay: real.Replay | None = None


def parse(names: str | None, given: Sequence[Role]) -> tuple[str, ...]:
    """The parts that a comma-separated list names; "all" are those that the given models allow.

    Raises:
        InputError: There is no such part, or it needs a model that is not given.
    """
    if not names:
        return ()
    if names == "all":
        return tuple(part for part, roles in NEEDS.items() if set(roles) <= set(given))
    parts = tuple(dict.fromkeys(name.strip() for name in names.split(",")))
    for part in parts:
        if part not in NEEDS:
            raise unknown("part of the suite", part, [*NEEDS, "all"])
        for role in NEEDS[part]:
            if role not in given:
                raise InputError(f"--suite {part} measures the {role} model; give --{role}")
    return parts


@contextmanager
def replaying(
    path: str | Path, parts: Sequence[str], optional: bool, images: ImageTokenizer | None = None
) -> Iterator[real.Replay | None]:
    """The world of a recording, while it is open; `None` where it is of no use.

    Args:
        path: The recording.
        parts: Parts that are to be measured.
        optional: Whether `real` is left out, with a warning, where the recording does not allow it.
        images: Writes the world's images as the models read them.

    Raises:
        InputError: `real` is measured, and the recording does not allow it.
        MissingPartError: `real` is measured, and the world's simulator is not installed.
    """
    replay = None
    try:
        replay = real.replay_of(Path(path), images) if {"knowledge", "trust", "real"} & set(parts) else None
    except (InputError, MissingPartError) as error:
        if "real" in parts and not optional:
            raise
        if optional:
            logger.warning("nothing is executed in the real world: %s", error)
    try:
        yield replay
    finally:
        if replay:
            replay.world.close()


def measure(parts: Sequence[str], subject: Subject) -> rows.Results:
    """The results of the parts, in their order."""
    forward, inverse = subject.models.get("forward"), subject.models.get("inverse")
    list_actions = subject.replay.world.actions if subject.replay else None
    out: rows.Results = []
    for part in parts:
        if part == "rollouts" and isinstance(forward, ForwardModel):
            limit = subject.limits["forward"]
            out += rollouts.measure(forward, subject.recording, limit, subject.turns, subject.most, subject.seed)
        elif part == "knowledge" and isinstance(forward, ForwardModel):
            out += knowledge.ranking(forward, subject.picked, subject.recording)
            if isinstance(inverse, InverseModel):
                out += knowledge.following(
                    forward,
                    inverse,
                    subject.picked,
                    subject.predictions["forward"],
                    subject.predictions["inverse"],
                    (subject.limits["forward"], subject.limits["inverse"]),
                    list_actions,
                    subject.seed,
                )
        elif part == "trust":
            for role, model in subject.models.items():
                out += trust.measure(model, subject.picked, subject.limits[role], list_actions)
        elif part == "real" and subject.replay:
            out += _executed(subject, subject.replay)
    return out


def _executed(subject: Subject, replay: real.Replay) -> rows.Results:
    """The part `real`."""
    forward, inverse = subject.models.get("forward"), subject.models.get("inverse")
    out: rows.Results = []
    pasts = replay.pasts(subject.recording)
    if inverse:
        majority = metrics.majority_action([row["action"] for row in subject.picked])
        named = {held_out.BASELINES["inverse"]: [majority] * len(subject.picked)}
        named[str(inverse.checkpoint)] = subject.predictions["inverse"]
        out += real.equivalence(replay, pasts, subject.picked, named)
    if isinstance(forward, ForwardModel):
        most = min(planning.GOALS, subject.most or planning.GOALS)
        goals = planning.goals_of(subject.recording, pasts, planning.DEPTH, most, subject.seed)
        out += planning.wm2real(forward, replay, goals, subject.limits["forward"], planning.DEPTH)
    return out


def part_of(row: dict[str, Any]) -> str | None:
    """The part that a row of results is of; `None` for the one-step metrics."""
    return next((part for part, prefixes in PREFIXES.items() if row["metric"].startswith(prefixes)), None)


def show(results: Rows) -> None:
    """Print a table for each part, and one for what it counts by turn or by bin."""
    for part in PREFIXES:
        mine = [row for row in results if part_of(row) == part]
        plain = [row for row in mine if not _counted(row)]
        if plain:
            cells = [[_name(row), _short(row), row["value"], rows.interval(row), row["n"]] for row in plain]
            progress.table(part.capitalize(), ["metric", "model", "value", "95 %", "rows"], cells)
        for letter, title in (("t", "by turn"), ("b", "by bin, the least sure first")):
            found = [(row, at) for row in mine if (at := _counted(row)) and at[1] == letter]
            if found:
                numbers = sorted({at[2] for _, at in found})
                values = {(_name(row, at[0]), _short(row), at[2]): row["value"] for row, at in found}
                heads = dict.fromkeys((name, model) for name, model, _ in values)
                cells = [[*head, *(values.get((*head, number)) for number in numbers)] for head in heads]
                progress.table(f"{part.capitalize()}, {title}", ["metric", "model", *map(str, numbers)], cells)


def _name(row: dict[str, Any], metric: str = "") -> str:
    return f"{row['role']} {metric or row['metric']}"


def _short(row: dict[str, Any]) -> str:
    """A checkpoint's folder, whose whole path stands above; or the baseline."""
    return row["model"].rstrip("/").rpartition("/")[2]


def _counted(row: dict[str, Any]) -> tuple[str, str, int] | None:
    """Metric, t or b, and number of a metric by turn or by bin."""
    match = re.fullmatch(r"(.+)_([tb])(\d+)", row["metric"])
    return (match[1], match[2], int(match[3])) if match else None
