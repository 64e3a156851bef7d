"""From a recording to the four files that a run may see.

Parts are made of whole *layouts* (initial states of the world), never of rows, so that a test state cannot be met in
training. Layouts are put in the order of a hash of their name and `data_seed`; test takes from the front until its
share is nearest, then validation, the rest trains. The shares are of transitions that have an action: layouts without
any could not be scored and always train; where no action is known at all, everything trains. A quota rather than a
threshold on the hash: small recordings get every part, at the price that adding data can move a layout to another part.

In a partially observed world (the column `partial`) layouts may share states, a hallway that looks the same in every
house, and no choice of layouts can keep them apart. What leaks there is a transition whose state and next state both
occur as one in training: it is left out of validation and the test, and counted. So where such a world has fewer than
three layouts with actions (all conversations begin with one system prompt), whole trajectories are parted instead, and
the user is told.

What a run may not know does not reach its files. Which rows are labelled depends on a hash of `seed`, trajectory and
step, and on whether an action is there, never on what it is; a larger budget with the same seed contains the smaller.
Columns are chosen by name, so neither a behaviour (which tells much about the action) nor a user's own column passes.
"""

import logging
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from swirl.data.files import replacing, write_parquet
from swirl.data.origin import Origin
from swirl.data.table import SCHEMA, codes, conform, is_partial, pairs, pc, trajectory_order, with_history
from swirl.errors import InputError

logger = logging.getLogger(__name__)

MINIMUM = 3  # layouts with actions: one each to train, to validate and to test
PARTS = ("labelled", "state_only", "validation", "test")
COLUMNS_OF = {
    "labelled": tuple(SCHEMA.names),
    "state_only": tuple(name for name in SCHEMA.names if name != "action"),
    "validation": tuple(SCHEMA.names),
    "test": tuple(SCHEMA.names),
}


def split(
    table: pa.Table,
    folder: str | Path,
    *,
    labels: int | None,
    validation_labels: int,
    validation: float,
    test: float,
    seed: int,
    data_seed: int,
    history: int = 0,
    origin: Origin | None = None,
) -> dict[str, int]:
    """Write `labelled`, `state_only`, `validation` and `test`, all `.parquet`, into a folder.

    A `split` column is kept as it is; it must then be given on every row. Otherwise parts are made by layout: the
    `layout` column, or the first state of the trajectory; in a partially observed world with fewer than three layouts
    that have actions, by trajectory.

    Args:
        table: A recording.
        folder: Where to; made if need be.
        labels: The label budget, training and validation together; `None` uses every action there is.
        validation_labels: How many of `labels` are spent on validation; not used where `labels` is `None`.
        validation: Share of the transitions whose layouts are for validation.
        test: Share of the transitions whose layouts are for the test.
        seed: Chooses which transitions are labelled.
        data_seed: Chooses which layouts go where.
        history: Add a `history` column of up to so many earlier states.
        origin: Where the recording comes from; noted in `test.parquet` alone.

    Returns:
        Counts: transitions, trajectories, layouts, the rows of each file, the rows left out of validation (no label was
        paid for them) and of the test (no action), and those left out of both because training has the same transition
        (shared; always 0 but for a partially observed world).

    Raises:
        InputError: Some actions are known, but none of validation or of the test; or there are fewer than `labels`.
    """
    table = conform(table, "recording")
    budget = {"labels": labels, "validation_labels": validation_labels}
    layout, part, shared, chosen = parted(
        table, **budget, validation=validation, test=test, seed=seed, data_seed=data_seed
    )
    if history:
        table = with_history(table, history)
    for name, values in (("layout", layout), ("split", part)):
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))
    with ExitStack() as stack:  # all four take their names at the end, or none does
        for name in PARTS:
            columns = [*COLUMNS_OF[name], *(["history"] if history else [])]
            path = stack.enter_context(replacing(Path(folder) / f"{name}.parquet"))
            note = origin.metadata() if origin and name == "test" else None
            write_parquet(table.filter(pa.array(chosen[name])).select(columns), path, note)
    return {
        "transitions": table.num_rows,
        "trajectories": pc.count_distinct(table["trajectory"]).as_py(),
        "layouts": len(np.unique(layout)),
        **{name: int(chosen[name].sum()) for name in PARTS},
        **{
            f"{name}_left_out": int(((part == name) & ~shared & ~chosen[name]).sum()) for name in ("validation", "test")
        },
        **{f"{name}_shared": int(((part == name) & shared).sum()) for name in ("validation", "test")},
    }


def without_layouts(table: pa.Table, path: str | Path) -> pa.Table:
    """A recording without the trajectories of some layouts.

    Args:
        table: A recording.
        path: A text file of their names, one a line.

    Raises:
        InputError: The file cannot be read, or nothing is left.
    """
    try:
        names = set(Path(path).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"data.leave_out = {str(path)!r} cannot be read as names of layouts: {error}") from None
    kept = ~np.isin(layouts(table), list(names))
    if not kept.any():
        raise InputError(f"{path} names every layout of the recording; leave some to train on")
    logger.info("%s: %d of %d transitions are left out", path, (~kept).sum(), len(kept))
    return table.filter(pa.array(kept))


class Parted(NamedTuple):
    """Where each row of a recording goes.

    Attributes:
        layout: The name of its layout.
        part: "train", "validation" or "test".
        shared: Whether it is left out of validation or the test because training has the same transition.
        chosen: For each of `PARTS` whether its file has the row.
    """

    layout: np.ndarray
    part: np.ndarray
    shared: np.ndarray
    chosen: dict[str, np.ndarray]


def parted(
    table: pa.Table,
    *,
    labels: int | None = None,
    validation_labels: int = 0,
    validation: float,
    test: float,
    seed: int = 0,
    data_seed: int,
) -> Parted:
    """What `split` would write of a recording that `conform` gave; its arguments are those of `split`.

    Raises:
        InputError: As `split`.
    """
    _check_budget(labels, validation_labels)
    layout = layouts(table)
    has_action = table["action"].is_valid().to_numpy()
    part = _parts(table, layout, has_action, validation, test, data_seed)
    shared = _shared(table, part)
    chosen = _chosen(table, np.where(shared, "shared", part), has_action, labels, validation_labels, seed)
    return Parted(layout, part, shared, chosen)


def _check_budget(labels: int | None, validation_labels: int) -> None:
    if labels is None:
        return
    if validation_labels < 1:
        raise InputError(f"validation_labels = {validation_labels}, expected at least 1")
    if labels <= validation_labels:
        raise InputError(
            f"labels = {labels} with validation_labels = {validation_labels} leaves none to train on; "
            "the budget counts both: raise labels or lower validation_labels"
        )


def layouts(table: pa.Table) -> np.ndarray:
    """Name of the layout of each row: that of its trajectory.

    Raises:
        InputError: A trajectory has two.
    """
    group, order = trajectory_order(table)
    first = order[np.unique(group[order], return_index=True)[1]]  # by group: the row with the lowest step
    (code,) = codes(table["layout"])
    other = np.flatnonzero(code != code[first[group]])
    if len(other):
        row = int(other[0])
        seen = [table["layout"][int(index)].as_py() for index in (first[group[row]], row)]
        raise InputError(
            f"trajectory {table['trajectory'][row].as_py()!r} has layouts {seen[0]!r} and {seen[1]!r}, "
            "expected one; name the trajectories apart, or leave the layout column out"
        )
    named, states = table["layout"].to_pylist(), table["state"]
    names = [named[row] or f"state:{_hash(states[row].as_py()).hex()}" for row in first.tolist()]
    return np.array(names, object)[group]


def _hash(*values: object) -> bytes:
    return blake2b("\0".join(map(str, values)).encode(), digest_size=8).digest()


def _parts(
    table: pa.Table, layout: np.ndarray, has_action: np.ndarray, validation: float, test: float, data_seed: int
) -> np.ndarray:
    """The name of the part that each row is in."""
    own = table["split"]
    if own.null_count == 0:
        return np.array(own.to_pylist(), object)
    if own.null_count < table.num_rows:
        raise InputError(
            f"split is given on {table.num_rows - own.null_count} of {table.num_rows} rows; "
            "give it on every row, or on none to split by layout"
        )
    if not has_action.any():  # nothing could be scored
        return np.full(table.num_rows, "train", object)
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise InputError(f"validation = {validation} and test = {test}; expected two shares above 0 with a sum below 1")
    names, group = np.unique(_units(table, layout, has_action), return_inverse=True)
    weights = dict(zip(names.tolist(), np.bincount(group, weights=has_action).astype(int).tolist(), strict=True))
    part_of = _assign(weights, validation, test, data_seed)
    return np.array([part_of[name] for name in names.tolist()], object)[group]


def _units(table: pa.Table, layout: np.ndarray, has_action: np.ndarray) -> np.ndarray:
    """What parts are made of, for each row: its layout, or its trajectory where there are too few layouts.

    Raises:
        InputError: There is not one unit each to train, to validate and to test.
    """
    number = len(set(layout[has_action]))
    if number >= MINIMUM:
        return layout
    if not is_partial(table):
        raise InputError(
            f"{number} layouts with actions, expected at least {MINIMUM}, one each to train, to validate and to test; "
            "trajectories that begin with the same state are one layout unless a layout column names theirs: record "
            'some that begin otherwise, add a split column, or mark the rows "partial" if states do not say everything'
        )
    trajectory = np.array(table["trajectory"].to_pylist(), object)
    trajectories = len(set(trajectory[has_action]))
    if trajectories < MINIMUM:
        raise InputError(
            f"{trajectories} trajectories with actions in {number} layouts, expected at least {MINIMUM}, one each to "
            "train, to validate and to test; record more trajectories, label some in others, or add a split column"
        )
    logger.warning(
        "%d layouts with actions are too few for three parts: split by trajectory, so that parts share layouts; "
        "transitions that training has are left out of validation and test",
        number,
    )
    return trajectory


def _shared(table: pa.Table, part: np.ndarray) -> np.ndarray:
    """Which validation and test rows of a partially observed world have both states of a training row.

    Raises:
        InputError: Nothing is left of a part.
    """
    if not is_partial(table):
        return np.zeros(table.num_rows, bool)
    pair = pairs(*codes(table["state"], table["next_state"]))
    shared = (part != "train") & np.isin(pair, pair[part == "train"])
    for name in ("validation", "test"):
        rows = part == name
        if rows.any() and shared[rows].all():
            raise InputError(
                f"all {int(rows.sum())} {name} transitions occur in training, where they are read from memory; record "
                "more, or put more into the states"
            )
    return shared


def _assign(weights: dict[str, int], validation: float, test: float, data_seed: int) -> dict[str, str]:
    """The part of each layout or trajectory, given how many of its transitions have an action."""
    left = sorted((name for name in weights if weights[name]), key=lambda name: (_hash(data_seed, name), name))
    part_of = dict.fromkeys(weights, "train")
    total = sum(weights.values())
    for part, share, keep in (("test", test, 2), ("validation", validation, 1)):
        taken, rows, quota = [], 0, share * total
        for name in left:
            if len(left) - len(taken) > keep and abs(rows + weights[name] - quota) <= abs(rows - quota):
                taken.append(name)
                rows += weights[name]
        taken = taken or [min(left, key=lambda name: weights[name])]
        part_of.update(dict.fromkeys(taken, part))
        left = [name for name in left if part_of[name] == "train"]
    return part_of


def _chosen(
    table: pa.Table,
    part: np.ndarray,
    has_action: np.ndarray,
    labels: int | None,
    validation_labels: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """A mask over the rows for each file."""
    budget = {"train": None if labels is None else labels - validation_labels, "validation": None}
    if labels is not None:
        budget["validation"] = validation_labels
    masks = {}
    for name in ("train", "validation", "test"):
        rows = np.flatnonzero((part == name) & has_action)
        number = budget.get(name)
        if not len(rows) and name != "train" and has_action.any():
            raise InputError(
                f"no {name} transition with an action (of {int((part == name).sum())} {name} transitions, "
                f"{len(part)} in all); give actions or the split column to more of them"
            )
        if number is not None:
            if number > len(rows):
                raise InputError(
                    f"labels = {labels} with validation_labels = {validation_labels} asks for {number} {name} labels, "
                    f"but {len(rows)} {name} transitions have an action; lower the budget or record more"
                )
            rows = rows[_rank(table, rows, seed)[:number]]
        masks[name] = np.isin(np.arange(len(part)), rows)
    return {
        "labelled": masks["train"],
        "state_only": (part == "train") & ~masks["train"],
        "validation": masks["validation"],
        "test": masks["test"],
    }


def _rank(table: pa.Table, rows: np.ndarray, seed: int) -> np.ndarray:
    """A uniformly random order of `rows` that depends on nothing but the seed and their names."""
    index = pa.array(rows)
    names = zip(table["trajectory"].take(index).to_pylist(), table["step"].take(index).to_pylist(), strict=True)
    keys = [int.from_bytes(_hash(seed, step, trajectory)) for trajectory, step in names]
    return np.argsort(np.array(keys, np.uint64), kind="stable")
