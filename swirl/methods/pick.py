"""Which transitions should a person label first? Those that show every *kind* of change, the rare ones too.

Random picks repeat what is frequent: half of them show nothing at all, and a rare event (a door opened, an error page)
may not be met in hundreds. Here a kind is what a step changes, with names kept and numbers reduced to the way they
moved ("agent # #+ left" is one kind wherever it happens). Kinds are taken farthest first (each next one shares least
with those taken), one transition of each per sweep, then a second of each. Transitions that change nothing come last:
their action cannot be told from the states. With an inverse model, kinds and transitions that it is unsure of go first.

`swirl label recording.parquet --pick 200 --out todo.csv`
"""

import csv
import json
import math
import re
from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from swirl import api, metrics
from swirl import data as recordings
from swirl.data.files import replacing
from swirl.data.overwriting import check_replaceable, note
from swirl.errors import InputError

ENDINGS = (".csv", ".jsonl", ".parquet")
"""Files to fill in."""
COLUMNS = ("trajectory", "step", "state", "next_state", "action")
POOL = 8
"""Transitions per pick that an inverse model is asked about, at most."""
SAMPLES = 8
"""Actions sampled per transition to tell how sure the inverse model is."""

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_WORD = re.compile(r"#[+=-]|\w+|[^\w\s]")
_BITS = 1024  # of a kind's hashed words


def pick(
    data: str | Path,
    out: str | Path,
    count: int,
    inverse: str | Path | None = None,
    seed: int = 0,
    device: str = "auto",
) -> dict[str, int]:
    """Write the transitions most worth labelling by hand, with an empty `action` to fill in.

    Args:
        data: A recording; its rows that have an action are never picked.
        out: The CSV, JSONL or Parquet file to write.
        count: How many.
        inverse: Run folder or checkpoint of an inverse model; prefers what it is unsure of.
        seed: Decides among equals.
        device: Where to compute.

    Returns:
        Counts: picked, kinds (of change, among the picked), all_kinds (in the recording).

    Raises:
        InputError: A file or the model cannot be used, nothing is left to label, or the model cannot read a row (named
            by its number from 1).
    """
    if count < 1:
        raise InputError(f"--pick {count}, expected at least 1")
    check_ending(out, ENDINGS)
    check_replaceable(out, "label --pick", [data])
    model = api.load_inverse(inverse, device) if inverse else None
    table = recordings.with_history(recordings.read(data), model.recipe.data.history if model else 0)
    rows = named(table.to_pylist(), data)
    kinds = by_kind(rows, seed)
    if not kinds:
        raise InputError(f"{data}: every transition has an action already; nothing to pick")
    doubt = None
    if model:
        pool = [row for kind, row in take(kinds, count * POOL) if kind]
        doubt = _doubt(model, pool, seed)
        kinds = {kind: [row for row in group if not kind or id(row) in doubt] for kind, group in kinds.items()}
    picked = take(kinds, count, doubt)
    write([{name: row[name] for name in COLUMNS} for _, row in picked], Path(out))
    return {
        "picked": len(picked),
        "kinds": len({kind for kind, _ in picked if kind}),
        "all_kinds": len(kinds) - (() in kinds),
    }


def change(state: str, next_state: str) -> tuple[str, ...]:
    """What a step changes, as sorted templates: `-gone`, `+new`; `()` where it changes nothing.

    Numbers become `#`. Where a line is replaced by one of the same words, only the new one stays and its numbers say
    which way they moved: `agent 1 6 left` to `agent 2 6 left` is `~agent #+ #= left`.
    """
    prose = metrics.is_prose(state) and metrics.is_prose(next_state)
    before, after = metrics.facts(state, prose), metrics.facts(next_state, prose)
    gone, new = list((before - after).elements()), list((after - before).elements())
    if not gone and not new and metrics.changed(state, next_state):
        return ("~order",)
    found = []
    for line in new:
        template = _NUMBER.sub("#", line)
        twin = next((old for old in gone if _NUMBER.sub("#", old) == template), None)
        if twin is None:
            found.append(f"+{template}")
        else:
            gone.remove(twin)
            found.append(f"~{_moved(twin, line)}")
    return tuple(sorted(found + [f"-{_NUMBER.sub('#', line)}" for line in gone]))


def _moved(old: str, new: str) -> str:
    """The new line, its numbers replaced by the sign of their change."""
    was = iter(_NUMBER.findall(old))

    def sign(match: re.Match[str]) -> str:
        before, after = float(next(was)), float(match[0])
        return "#=" if before == after else "#+" if after > before else "#-"

    return _NUMBER.sub(sign, new)


def by_kind(rows: Sequence[dict[str, Any]], seed: int) -> dict[tuple[str, ...], list[dict[str, Any]]]:
    """Rows without an action by kind of change, in random order; no pair twice, none that has an action elsewhere."""
    kinds: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    seen = {(row["state"], row["next_state"]) for row in rows if row["action"] is not None}
    for i in np.random.default_rng(seed).permutation(len(rows)).tolist():
        pair = rows[i]["state"], rows[i]["next_state"]
        if pair not in seen:
            seen.add(pair)
            kinds[change(*pair)].append(rows[i])
    return dict(kinds)


def take(
    kinds: dict[tuple[str, ...], list[dict[str, Any]]], count: int, doubt: dict[int, float] | None = None
) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """At most `count` rows with their kinds: sweeps over the kinds, farthest first; unchanged rows at the end.

    Args:
        kinds: Rows by kind.
        count: How many.
        doubt: id of a row -> how unsure the inverse model is, in [0, 1].
    """

    def worth(row: dict[str, Any]) -> float:
        return doubt.get(id(row), 0.0) if doubt else 1.0

    queues = {kind: sorted(group, key=worth, reverse=True) for kind, group in kinds.items() if kind and group}
    taken: list[tuple[tuple[str, ...], dict[str, Any]]] = []
    sweep = 0
    while queues and len(taken) < count:
        left = list(queues)
        weights = np.array([0.1 + worth(queues[kind][sweep]) for kind in left])
        order = _farthest_first([_words(kind) for kind in left], weights, count - len(taken))
        taken += [(left[i], queues[left[i]][sweep]) for i in order]
        sweep += 1
        queues = {kind: group for kind, group in queues.items() if len(group) > sweep}
    return taken + [((), row) for row in kinds.get((), [])][: count - len(taken)]


def _words(kind: tuple[str, ...]) -> np.ndarray:
    """The signed words and pairs of words of a kind, hashed to a bit field of `_BITS` bits in 64-bit words."""
    field = np.zeros(_BITS, np.uint8)
    for template in kind:
        words = _WORD.findall(template[1:])
        for word in [*words, *(f"{a} {b}" for a, b in pairwise(words)), template]:
            digest = blake2b(f"{template[0]}{word}".encode(), digest_size=4).digest()
            field[int.from_bytes(digest) % _BITS] = 1
    return np.packbits(field).view(np.uint64)


def _farthest_first(fields: list[np.ndarray], weights: np.ndarray, count: int) -> list[int]:
    """Indices in greedy order: the largest weight x Jaccard distance to the nearest one already taken."""
    bits = np.stack(fields)  # (K, words)
    distance = np.ones(len(bits))
    order: list[int] = []
    for _ in range(min(count, len(bits))):
        best = int(np.argmax(np.where(distance < 0, -1.0, weights * (distance + 1e-6))))
        order.append(best)
        shared = np.bitwise_count(bits & bits[best]).sum(1)
        either = np.bitwise_count(bits | bits[best]).sum(1)
        distance = np.minimum(distance, 1 - shared / np.maximum(either, 1))
        distance[order] = -1
    return order


def _doubt(model: api.InverseModel, rows: list[dict[str, Any]], seed: int) -> dict[int, float]:
    """How unsure the model is of each row: 1 - P(its likeliest candidate); 1 where no reply could be read."""
    groups = api.candidates(model, rows, n=SAMPLES, seed=seed)
    return {id(row): 1 - math.exp(group[0].inverse) if group else 1.0 for row, group in zip(rows, groups, strict=True)}


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows as CSV (with a mark that makes spreadsheets read UTF-8), JSONL or Parquet; whole or not at all."""
    with replacing(path) as part:
        if path.suffix == ".parquet":
            kinds = {"step": pa.int64()}
            schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS], note("label --pick"))
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), part)
        elif path.suffix == ".csv":
            with part.open("w", encoding="utf-8-sig", newline="") as file:
                writer = csv.writer(file)
                writer.writerows([COLUMNS, *(row.values() for row in rows)])
        else:
            part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a file that `write` wrote, with whatever was filled in.

    Raises:
        InputError: The file cannot be read as its ending says.
    """
    path = Path(path)
    check_ending(path, ENDINGS)
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path).to_pylist()
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                return [dict(row) for row in csv.DictReader(file)]
            return [dict(json.loads(line)) for line in file if line.strip()]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected the file that --pick wrote, filled in") from None
    except (OSError, ValueError, TypeError, csv.Error, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected the file that --pick wrote, filled in") from None


def named(rows: Sequence[dict[str, Any]], data: str | Path, start: int = 0) -> list[dict[str, Any]]:
    """The rows with their place in a file, `where`, for errors; they are counted from 1, after `start` others."""
    return [{**row, "where": f"{data}: row {number}"} for number, row in enumerate(rows, start=start + 1)]


def check_ending(path: str | Path, endings: Sequence[str]) -> None:
    """Refuse a file name of an unknown kind before any work is done.

    Raises:
        InputError: The name ends otherwise.
    """
    if not str(path).endswith(tuple(endings)):
        raise InputError(f"{path}: unknown kind of file, expected {', '.join(endings)}")
