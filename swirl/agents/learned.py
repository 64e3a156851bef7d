"""What agents have to know of a learned model before they act in it: of which world it is, and what pays there."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from swirl import data
from swirl.agents import head
from swirl.agents.simulators import Outcome, by_rules, no_outcome
from swirl.api import ForwardModel
from swirl.errors import InputError
from swirl.worlds import World
from swirl.worlds.base import Rules

Run = str | Path


def outcome_of(world: World, forward: ForwardModel | None, run: Run | None) -> Outcome:
    """How rewards and ends of imagined steps are known: by the world's rules, or a head fitted on a run's labels.

    Raises:
        InputError: There are neither.
    """
    if isinstance(world, Rules):
        return by_rules(world)
    if forward is None or run is None:
        return no_outcome
    labelled = Path(run) / "data" / "labelled.parquet"
    if not labelled.is_file():
        raise InputError(
            f"the states of {world.name} do not tell its reward, and {run} has no labelled transitions to learn it "
            "from; give a run folder, or plan for a --goal"
        )
    return head.fit(forward, pq.read_table(labelled).to_pylist()).outcome


def trained_layouts(runs: Sequence[Run]) -> set[str]:
    """Names of the layouts that runs trained or validated on; none for what is no run folder."""
    parts = [
        Path(run) / "data" / f"{part}.parquet" for run in runs for part in ("labelled", "state_only", "validation")
    ]
    tables = [pq.read_table(part, columns=["layout"]) for part in parts if part.is_file()]
    return {name for table in tables for name in table["layout"].unique().to_pylist() if name is not None}


def check_world(path: Run, world: str) -> None:
    """Refuse a run or a recording that is known to be of another world; of an import nothing is known.

    Args:
        path: A run folder or a recording; a checkpoint passes.
        world: The name of the one that is acted in.

    Raises:
        InputError: It is of another.
    """
    recording = Path(path) / "data" / "test.parquet" if Path(path).is_dir() else Path(path)
    origin = data.origin_of(recording) if recording.is_file() else None
    if origin is not None and origin.world != world:
        raise InputError(f"{path} is of the world {origin.world!r}, not of {world!r}; give one that is")
