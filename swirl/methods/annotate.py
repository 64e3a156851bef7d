"""Actions for a recording of the user's own: inferred by a model, or filled in by a person and merged back.

    swirl label recording.parquet --inverse runs/demo --out labelled.parquet
    swirl label recording.parquet --pick 200 --out todo.csv               # a person fills in the column `action`
    swirl label recording.parquet --labels todo.csv --out merged.parquet  # and swirl train --data merged.parquet

What a model inferred is marked (`inferred`) and comes with its certainty, so that it is never mistaken for what was
recorded: `data.read` gives such rows without their action. The file keeps the user's own columns, and is written piece
by piece.
"""

import json
import logging
import math
from collections.abc import Sequence
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from swirl import api, metrics, posterior
from swirl import data as recordings
from swirl.data.files import JSONL
from swirl.data.imaging import FRAMES
from swirl.data.overwriting import check_replaceable
from swirl.data.streaming import own_columns, own_names, own_schema, writing
from swirl.data.table import CHUNK, INFERRED, SCHEMA
from swirl.errors import InputError
from swirl.labelling import Candidate
from swirl.methods import pick
from swirl.posterior import Posterior

logger = logging.getLogger("swirl")

Rows = list[dict[str, Any]]
KNOWN = 100_000
"""Pairs whose candidates are remembered, so that one that occurs again is not asked again."""
ADDED = pa.schema(
    [
        (INFERRED, pa.bool_()),
        ("log_likelihood", pa.float64()),
        ("forward_log_likelihood", pa.float64()),
        ("confidence", pa.float64()),
        ("alternatives", pa.string()),
    ]
)
"""Columns that `label` adds: whether the action was inferred; log Q(action | state, next_state) and, with a forward
model, log P(next_state | state, action) in nats; the probability (0 to 1) of the action by both, calibrated on the
validation labels of the inverse model's run where it has them, and null for a pair that changed nothing where the
inverse model was taught no such pairs (`data.inverse_unchanged = false`); the candidates as JSON, [[action, log Q,
log P or null], ...], likeliest by both first. Where a forward model chooses too, candidates that the inverse model
rules out (`Posterior.least`) are not among them: it never scored them."""


def label(
    data: str | Path,
    out: str | Path,
    inverse: str | Path | None,
    forward: str | Path | None = None,
    actions: Sequence[str] | None = None,
    n: int = 4,
    seed: int = 0,
    device: str = "auto",
) -> dict[str, int]:
    """Write a recording with the actions that it lacks inferred.

    Rows that have a recorded action are kept as they are; one that a model inferred before is inferred anew. Pairs that
    occur twice are labelled once.

    Args:
        data: A recording.
        out: The Parquet or JSONL file to write.
        inverse: Run folder or checkpoint of the inverse model.
        forward: Run folder or checkpoint of a forward model; both then choose, see `posterior`.
        actions: The actions to choose among; by default the greedy one and `n` samples.
        n: Samples per pair.
        seed: Of the sampling.
        device: Where to compute.

    Returns:
        Counts: rows, kept (had an action), inferred, and unreadable (no reply could be read; the action stays null).

    Raises:
        InputError: A file or a model cannot be used, or a row is longer than what a model reads (named by its number
            from 1, before anything is computed for its piece); the file to write is then left as it was.
    """
    if not inverse:
        raise InputError("no inverse model; give --inverse RUN (or --pick N to label by hand)")
    if n < 0:
        raise InputError(f"--samples {n}, expected 0 (the greedy action alone) or more")
    pick.check_ending(out, (".parquet", *JSONL))
    check_replaceable(out, "label --inverse", [data])
    table = recordings.read(data, say_left_out=False)
    added = tuple(ADDED.names)
    _check_names(Path(data), added)
    model = api.load_inverse(inverse, device)
    verifier = api.load_forward(forward, device) if forward else None
    belief = _belief(inverse, model, actions, n, seed, verifier)
    history = model.recipe.data.history
    table = recordings.with_history(table, history) if history else table
    table = recordings.as_read(table, model.scorer.images, data)
    least, taught = (belief or Posterior()).least(), model.recipe.data.inverse_unchanged
    known: dict[bytes, list[Candidate]] = {}
    counts = dict.fromkeys(("rows", "kept", "inferred", "unreadable"), 0)
    with writing(
        out, lambda: pa.schema([*SCHEMA, *own_schema(Path(data), CHUNK, added), *ADDED]), "label --inverse"
    ) as write:
        for start, own in zip(count(0, CHUNK), own_columns(Path(data), CHUNK, added), strict=False):
            rows = pick.named(table.slice(start, len(own)).to_pylist(), data, start)
            if len(known) > KNOWN:
                known.clear()
            pairs = {key: row for row in rows if row["action"] is None and (key := _pair(row)) not in known}
            asked = list(pairs.values())
            groups = api.candidates(model, asked, actions, n, seed + start, verifier, least) if asked else []
            known.update(zip(pairs, groups, strict=True))
            written = [
                _annotated(row, mine, known.get(_pair(row), []), belief, bool(actions), taught)
                for row, mine in zip(rows, own, strict=True)
            ]
            write(written)
            counts["rows"] += len(rows)
            counts["kept"] += sum(row["action"] is not None for row in rows)
            counts["inferred"] += sum(row["inferred"] for row in written)
    return {**counts, "unreadable": counts["rows"] - counts["kept"] - counts["inferred"]}


def _check_names(path: Path, added: Sequence[str]) -> None:
    """Refuse to overwrite columns of the user's that have a name of ours; what an earlier `label` wrote is replaced."""
    names = own_names(path)
    taken = sorted(names.intersection(added))
    if taken and INFERRED not in names:
        raise InputError(f"{path}: column {taken[0]!r} has the name of one that label writes; rename it")


def _pair(row: dict[str, Any]) -> bytes:
    """What a pair is known by."""
    return blake2b(json.dumps([row["state"], row["next_state"], row.get("history") or []]).encode()).digest()


def _belief(
    run: str | Path,
    inverse: api.InverseModel,
    actions: Sequence[str] | None,
    n: int,
    seed: int,
    forward: api.ForwardModel | None,
) -> Posterior | None:
    """How far to believe the models, fitted on the validation labels of the inverse model's run.

    Of a run whose inverse model was taught no pairs that changed nothing, on those of pairs that changed: it knows of
    no others.

    Returns:
        `None` where there is nothing to fit on: no run folder, no labels, or other actions than those to choose among.
    """
    path = Path(run) / "data" / "validation.parquet"
    told = pick.named(pq.read_table(path).to_pylist(), path) if path.is_file() else []
    if not inverse.recipe.data.inverse_unchanged:
        told = [row for row in told if metrics.changed(row["state"], row["next_state"])]
    groups = api.candidates(inverse, told, actions, n, seed, forward, 0.0) if told else []
    belief = posterior.fit(groups, [row["action"] for row in told]) if told else Posterior(covered=0.0)
    if belief.covered:
        return belief
    logger.warning("%s has no validation labels of these actions: `confidence` is what the models claim", run)
    return None


def _annotated(
    row: dict[str, Any],
    own: dict[str, Any],
    group: Sequence[Candidate],
    belief: Posterior | None,
    listed: bool,
    taught: bool,
) -> dict[str, Any]:
    """The row with the user's own columns and those of `ADDED`.

    Args:
        row: As the models read it.
        own: The user's own columns.
        group: Candidates; none where the row has an action, or no reply could be read.
        belief: How far to believe the models, where that was fitted.
        listed: Whether the candidates are all the actions that there are.
        taught: Whether the inverse model was taught pairs that changed nothing.
    """
    known = taught or metrics.changed(row["state"], row["next_state"])
    row = {name: row[FRAMES[name] if FRAMES.get(name) in row else name] for name in SCHEMA.names}
    row |= own | dict.fromkeys(ADDED.names)
    if row["action"] is not None or not group:
        return {**row, "inferred": False}
    chooser = belief or Posterior()
    group = chooser.ranked(group)
    best, confidence = group[0], chooser.best(group)[1]
    if not belief and not listed:
        # Sampled candidates cover the probability that the inverse model gives them, or a single sample of a model that
        # is at a loss would look certain. What was fitted knows how often the truth is among them.
        confidence *= min(1.0, sum(math.exp(candidate.inverse) for candidate in group))
    alternatives = [[c.action, round(c.inverse, 4), None if c.forward is None else round(c.forward, 4)] for c in group]
    return {
        **row,
        "action": best.action,
        "inferred": True,
        "log_likelihood": best.inverse,
        "forward_log_likelihood": best.forward,
        "confidence": confidence if known else None,
        "alternatives": json.dumps(alternatives, ensure_ascii=False),
    }


def merge(data: str | Path, labels: str | Path, out: str | Path) -> dict[str, int]:
    """Write a recording with the actions that a person filled in, by trajectory and step.

    Args:
        data: The recording that `pick` was given.
        labels: The file that `pick` wrote, filled in; rows whose action is empty are left alone.
        out: The Parquet or JSONL file to write.

    Returns:
        Counts: rows, labels (merged), empty (rows of `labels` without an action).

    Raises:
        InputError: A row of `labels` is not in the recording, has other states there, or contradicts its action.
    """
    pick.check_ending(out, (".parquet", *JSONL))
    check_replaceable(out, "label --labels", [data, labels])
    table = recordings.read(data, say_left_out=False)
    filled = pick.read(labels)
    wanted = _wanted(filled, labels)
    found: dict[tuple[str, int], str] = {}
    added = tuple(ADDED.names)  # of an earlier `label`, whose actions are not taken along
    with writing(out, lambda: pa.schema([*SCHEMA, *own_schema(Path(data), CHUNK, added)]), "label --labels") as write:
        for start, own in zip(count(0, CHUNK), own_columns(Path(data), CHUNK, added), strict=False):
            rows = table.slice(start, len(own)).to_pylist()
            for known in rows:
                key = known["trajectory"], known["step"]
                for where, row in wanted.get(key, ()):
                    found[key] = known["action"] = _label(known, row, where, data)
            write([row | mine for row, mine in zip(rows, own, strict=True)])
        missing = next((rows[0][0] for key, rows in wanted.items() if key not in found), None)
        if missing:
            raise InputError(f"{missing} is not a transition of {data}; give the recording that it was picked from")
    merged = sum(map(len, wanted.values()))
    return {"rows": table.num_rows, "labels": merged, "empty": len(filled) - merged}


def _wanted(filled: Rows, labels: str | Path) -> dict[tuple[str, int], list[tuple[str, dict[str, Any]]]]:
    """The rows with an action, each with its place in the file, by trajectory and step."""
    wanted: dict[tuple[str, int], list[tuple[str, dict[str, Any]]]] = {}
    for number, row in enumerate(filled, start=1):
        where = f"{labels}: row {number}"
        if (row.get("action") or "").strip():
            wanted.setdefault((str(row.get("trajectory")), _step(row, where)), []).append((where, row))
    return wanted


def _label(known: dict[str, Any], row: dict[str, Any], where: str, data: str | Path) -> str:
    """The action of a filled-in row for a transition of the recording."""
    action = row["action"].strip()
    if any(_flat(known[name]) != _flat(row.get(name)) for name in ("state", "next_state")):
        raise InputError(f"{where} is not a transition of {data}; give the recording that it was picked from")
    if known["action"] not in (None, action):
        raise InputError(f"{where}: action {action!r}, but the recording has {known['action']!r} there already")
    return action


def _flat(text: Any) -> str:
    """A state without the differences that editors and spreadsheets make."""
    return "\n".join(line.rstrip() for line in str(text).splitlines()).strip()


def _step(row: dict[str, Any], where: str) -> int:
    try:
        return int(float(row["step"]))
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{where}: step is {row.get('step')!r}, expected the number that was written there") from None
