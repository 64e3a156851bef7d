"""What is in a recording or in a split, and whether the split leaks.

The one failure is a test state that occurs in training, as a state or as a next state, or a `state_only.parquet` that
has actions: then no number measured on the test means anything. In a partially observed world states look alike that
are not: there the failure is a validation or test *transition*, as state and next state, that occurs in training.
`split` leaves these out, so a recording may have some, and the folder that it writes must not. Everything else is for
the reader to judge.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from swirl import changes
from swirl.data.files import read, read_part
from swirl.data.splitting import PARTS
from swirl.data.table import codes, is_partial, pairs, pc, trajectory_order
from swirl.errors import InputError

FEW = 5  # rows named as examples
SAMPLE = 10_000  # rows whose changes are written out


@dataclass(frozen=True)
class Lengths:
    """Lengths of texts: the least that half, 95 % and all of them do not exceed."""

    median: int
    p95: int
    max: int


@dataclass(frozen=True)
class Overlap:
    """How much of a held-out part occurs in training.

    Attributes:
        states: Distinct states of the part.
        shared_states: Those of them that training has, as a state or as a next state.
        transitions: Transitions of the part.
        shared_transitions: Those of them whose state and next state are those of a training transition.
    """

    states: int
    shared_states: int
    transitions: int
    shared_transitions: int


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes:
        rows: Transitions.
        trajectories: Trajectories.
        states: Distinct texts among states and next states.
        unchanged: Share of the transitions whose next state is their state.
        labelled: Share of the transitions that have an action.
        distinct_actions: Distinct actions.
        actions: The 20 most frequent actions with their counts.
        duplicates: Rows that repeat the state, action and next state of another.
        conflicts: Labelled rows whose state and action lead to another next state elsewhere: the world is stochastic,
            or not all of it is observed.
        broken: Steps whose next state is not the state of the step after.
        characters: Lengths of states, of actions, and of next states written as changes (`swirl.changes`; of at most
            10,000 rows, evenly spaced).
        tokens: The same in tokens; empty where there was no tokenizer.
        context: The context window, in tokens, or `None`.
        too_long: Rows whose state, action and next state together exceed the context window.
        too_long_rows: The first of them, as "name:row".
        partial: Whether states do not say everything that the next one depends on, as the column `partial` has it.
        parts: Rows of each part; empty for a recording that is not split.
        overlaps: For "test" and "validation", what of it occurs in training.
        problems: Reasons not to use the data; empty if all is well.
    """

    rows: int
    trajectories: int
    states: int
    unchanged: float
    labelled: float
    distinct_actions: int
    actions: tuple[tuple[str, int], ...]
    duplicates: int
    conflicts: int
    broken: int
    characters: dict[str, Lengths]
    tokens: dict[str, Lengths]
    context: int | None
    too_long: int
    too_long_rows: tuple[str, ...]
    partial: bool
    parts: dict[str, int]
    overlaps: dict[str, Overlap]
    problems: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report as lines to print."""
        lines = [
            f"transitions       {self.rows:,} in {self.trajectories:,} trajectories",
            f"distinct states   {self.states:,}",
            f"unchanged         {self.unchanged:.1%} of the transitions",
            f"labelled          {self.labelled:.1%} of the transitions",
            f"duplicates        {self.duplicates:,}",
            f"conflicts         {self.conflicts:,} (same state and action, another next state)",
            f"broken steps      {self.broken:,} (next state is not the state of the step after)",
        ]
        for unit, lengths in (("characters", self.characters), ("tokens", self.tokens)):
            for name, length in lengths.items():
                label = f"{name} {unit}"
                lines.append(f"{label:<17} median {length.median:,}, 95 % {length.p95:,}, longest {length.max:,}")
        if self.context is not None:
            rows = f": {', '.join(self.too_long_rows)}" if self.too_long else ""
            lines.append(f"too long          {self.too_long:,} rows exceed {self.context:,} tokens{rows}")
        if self.partial:
            lines.append("partial           yes: shared states are no leak here, shared transitions are")
        lines += [f"part              {name}: {rows:,}" for name, rows in self.parts.items()]
        for name, overlap in self.overlaps.items():
            lines.append(
                f"in training       {overlap.shared_states:,} of {overlap.states:,} {name} states, "
                f"{overlap.shared_transitions:,} of {overlap.transitions:,} {name} transitions"
            )
        lines.append(f"actions           {self.distinct_actions:,}")
        lines += [f"  {number:>9,}  {action!r}" for action, number in self.actions]
        return lines + [f"PROBLEM           {problem}" for problem in self.problems]


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
    return Report(
        rows=table.num_rows,
        trajectories=pc.count_distinct(table["trajectory"]).as_py(),
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
        partial=partial,
        parts={} if part is None else {name: int((part == name).sum()) for name in dict.fromkeys(part.tolist())},
        overlaps=overlaps,
        problems=(
            *_hidden_columns(path),
            *(_shared_transitions(path, overlaps) if partial else _shared_states(overlaps)),
        ),
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
    return [changes.describe(pair["state"], pair["next_state"]) for pair in pairs]


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
