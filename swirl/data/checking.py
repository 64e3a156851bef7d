"""What is in a recording or in a split, and whether the split leaks.

A split fails where a test state occurs in training, as a state or as a next state, or a `state_only.parquet` that
has actions: then no number measured on the test means anything. In a partially observed world states look alike that
are not: there the failure is a validation or test *transition*, as state and next state, that occurs in training.
`split` leaves these out, so a recording may have some, and the folder that it writes must not. Where a recording has no
split, the one that a recipe makes by default is tried. Everything else is for the reader to judge.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from swirl import changes
from swirl.config import Data
from swirl.data.files import read, read_part
from swirl.data.image_check import check_images
from swirl.data.report import Lengths, Overlap, Report
from swirl.data.splitting import PARTS, layouts, parted
from swirl.data.table import codes, is_partial, pairs, pc, trajectory_order
from swirl.errors import InputError

FEW = 5  # rows named as examples
SAMPLE = 10_000  # rows whose changes are written out


def check(path: str | Path, tokenizer: Callable[[str], int] | None = None, context: int | None = None) -> Report:
    """Describe a recording, or the folder that `split` wrote, and look for leaks.

    Args:
        path: A recording, a folder with the four files, or a run folder, which has them in `data`.
        tokenizer: Gives the number of tokens of a text.
        context: The context window in tokens; what a chat template adds is not counted.

    Raises:
        InputError: A file is missing or not a recording.
    """
    path = Path(path)
    if (path / "data").is_dir():
        path = path / "data"
    tables = _tables(path)
    table = pa.concat_tables(tables.values())
    if not table.num_rows:
        raise InputError(f"{path}: no rows in any of {', '.join(tables)}")
    state, next_state = codes(table["state"], table["next_state"])
    (action,) = codes(table["action"])
    part, partial = _part_names(tables, table), is_partial(table)
    overlaps = _overlaps(state, next_state, part)
    counts = sorted(
        ((row["values"], row["counts"]) for row in pc.value_counts(table["action"].drop_null()).to_pylist()),
        key=lambda pair: (-pair[1], pair[0]),
    )
    written = _changes(table)
    tokens, too_long = _token_lengths(table, written, tokenizer, context)
    names = [f"{name}:{row}" for name, rows in tables.items() for row in range(1, rows.num_rows + 1)]
    problems, notes = ([], []) if path.is_dir() else _by_training(table, state, next_state)
    images, broken = check_images(table, names)
    if images is not None and len(images.sizes) > 1:
        notes.append(f"images of {len(images.sizes):,} sizes; to make them one, import with --size WxH")
    return Report(
        rows=table.num_rows,
        trajectories=pc.count_distinct(table["trajectory"]).as_py(),
        layouts=_number_of_layouts(table),
        states=len(np.union1d(state, next_state)),
        unchanged=float((state == next_state).mean()),
        labelled=1 - table["action"].null_count / table.num_rows,
        distinct_actions=len(counts),
        actions=tuple(counts[:20]),
        duplicates=table.num_rows - _distinct(state, action, next_state),
        conflicts=_conflicts(state, action, next_state, table["action"].is_valid().to_numpy()),
        broken=_broken(table, state, next_state),
        characters={
            name: _lengths(pc.utf8_length(table[name].drop_null()).to_numpy())
            for name in ("state", "action")
            if table[name].null_count < table.num_rows
        }
        | {"change": _lengths(np.array([*map(len, written)]))},
        tokens=tokens,
        context=context if tokenizer else None,
        too_long=len(too_long),
        too_long_rows=tuple(names[row] for row in too_long[:FEW].tolist()),
        images=images,
        partial=partial,
        parts={} if part is None else {name: int((part == name).sum()) for name in dict.fromkeys(part.tolist())},
        overlaps=overlaps,
        problems=(
            *_hidden_columns(path),
            *(_shared_transitions(path, overlaps) if partial else _shared_states(overlaps)),
            *problems,
            *broken,
        ),
        notes=tuple(notes),
    )


def _tables(path: Path) -> dict[str, pa.Table]:
    """The rows of each file, by its name."""
    if not path.is_dir():
        return {path.name: read(path)}
    files = [path / f"{name}.parquet" for name in PARTS]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{path}: no {', '.join(missing)}; expected a recording, or the folder of a run")
    return {file.name: read_part(file) for file in files}


def _part_names(tables: dict[str, pa.Table], table: pa.Table) -> np.ndarray | None:
    """The part of each row, or `None` for a recording without a split column."""
    if len(tables) > 1:
        return np.repeat(list(PARTS), [rows.num_rows for rows in tables.values()])
    if table["split"].null_count == table.num_rows:
        return None
    return np.array(table["split"].fill_null("none").to_pylist())


def _overlaps(state: np.ndarray, next_state: np.ndarray, part: np.ndarray | None) -> dict[str, Overlap]:
    if part is None:
        return {}
    train = np.isin(part, ("train", "labelled", "state_only"))
    seen = np.union1d(state[train], next_state[train])
    pair = pairs(state, next_state)
    overlaps = {}
    for name in ("test", "validation"):
        held = part == name
        if held.any():
            states = np.unique(state[held])
            overlaps[name] = Overlap(
                states=len(states),
                shared_states=int(np.isin(states, seen).sum()),
                transitions=int(held.sum()),
                shared_transitions=int(np.isin(pair[held], pair[train]).sum()),
            )
    return overlaps


def _number_of_layouts(table: pa.Table) -> int:
    try:
        return len(np.unique(layouts(table)))
    except InputError:  # which `_by_training` tells
        return 0


def _by_training(table: pa.Table, state: np.ndarray, next_state: np.ndarray) -> tuple[list[str], list[str]]:
    """What `swirl train` would say of a recording, by its own split or by the default one: problems, and notes.

    That it is too small, or of too few layouts, to train on is a note: it may be meant for `swirl eval`.
    """
    spec = Data()
    try:
        chosen = parted(table, validation=spec.validation, test=spec.test, data_seed=spec.seed).chosen
    except InputError as error:
        told = [f"`swirl train` would refuse this: {error}"]
        return (told, []) if 0 < table["split"].null_count < table.num_rows else ([], told)
    if is_partial(table) or not table["split"].null_count:
        return [], []
    part = np.select([chosen[name] for name in PARTS], PARTS, "left out")
    shared = _shared_states(_overlaps(state, next_state, part))
    return [f"`swirl train` would refuse this by its default split: {reason}" for reason in shared], []


def _shared_states(overlaps: dict[str, Overlap]) -> list[str]:
    test = overlaps.get("test")
    if test is None or not test.shared_states:
        return []
    return [
        f"{test.shared_states} of {test.states} test states ({test.shared_states / test.states:.1%}) occur in "
        "training; split by a layout column that keeps them apart, or take them out of one part"
    ]


def _shared_transitions(path: Path, overlaps: dict[str, Overlap]) -> list[str]:
    if not path.is_dir():
        return []  # `split` leaves them out
    return [
        f"{overlap.shared_transitions} of {overlap.transitions} {name} transitions occur in training; split the "
        "recording again"
        for name, overlap in overlaps.items()
        if overlap.shared_transitions
    ]


def _hidden_columns(path: Path) -> list[str]:
    if not path.is_dir():
        return []
    names = pq.read_schema(path / "state_only.parquet").names
    return [
        f"state_only.parquet has a column {name!r}, which a run may not know; split the recording again"
        for name in ("action", "behaviour")
        if name in names
    ]


def _distinct(*columns: np.ndarray) -> int:
    return len(np.unique(np.stack(columns, axis=1), axis=0))


def _conflicts(state: np.ndarray, action: np.ndarray, next_state: np.ndarray, labelled: np.ndarray) -> int:
    """Labelled rows whose (state, action) has more than one next state."""
    if not labelled.any():
        return 0
    rows = np.stack([state, action, next_state], axis=1)[labelled]
    cause = np.unique(rows[:, :2], axis=0, return_inverse=True)[1].ravel()
    outcomes = np.unique(np.stack([cause, rows[:, 2]], axis=1), axis=0)
    return int((np.bincount(outcomes[:, 0])[cause] > 1).sum())


def _broken(table: pa.Table, state: np.ndarray, next_state: np.ndarray) -> int:
    group, order = trajectory_order(table)
    step = table["step"].to_numpy()
    now, after = order[:-1], order[1:]
    follows = (group[now] == group[after]) & (step[now] + 1 == step[after])
    return int((follows & (next_state[now] != state[after])).sum())


def _changes(table: pa.Table) -> list[str]:
    """Next states as changes, of rows that are evenly spaced."""
    rows = np.unique(np.linspace(0, table.num_rows - 1, min(table.num_rows, SAMPLE)).astype(np.int64))
    pairs = table.select(["state", "next_state"]).take(pa.array(rows)).to_pylist()
    return [changes.shortest(pair["state"], pair["next_state"]) for pair in pairs]


def _lengths(values: np.ndarray) -> Lengths:
    median, p95, most = np.percentile(values, [50, 95, 100], method="inverted_cdf").tolist()
    return Lengths(int(median), int(p95), int(most))


def _token_lengths(
    table: pa.Table, written: list[str], tokenizer: Callable[[str], int] | None, context: int | None
) -> tuple[dict[str, Lengths], np.ndarray]:
    """Lengths in tokens, and the numbers of the rows that the context window does not hold."""
    if tokenizer is None:
        return {}, np.array([], np.int64)
    number: dict[str | None, int] = {None: 0}  # every distinct text is tokenized once
    columns = {}
    for name in ("state", "action", "next_state"):
        texts = table[name].to_pylist()
        number |= {text: tokenizer(text) for text in dict.fromkeys(texts) if text not in number}
        columns[name] = np.array([number[text] for text in texts])
    labelled = table["action"].is_valid().to_numpy()
    lengths = {"state": _lengths(columns["state"])}
    if labelled.any():
        lengths["action"] = _lengths(columns["action"][labelled])
    number |= {text: tokenizer(text) for text in dict.fromkeys(written) if text not in number}
    lengths["change"] = _lengths(np.array([number[text] for text in written]))
    total = columns["state"] + columns["action"] + columns["next_state"]
    return lengths, np.flatnonzero(total > context) if context is not None else np.array([], np.int64)
