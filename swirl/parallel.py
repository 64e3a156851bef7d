"""Several processes, one program: what `torchrun` and `accelerate launch` start.

Every process runs the same code; the one of rank 0 writes, collects, splits, validates and tests, while the others
wait. Without a launcher there is one process and everything here is free.
"""

import logging
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from swirl import progress

Row = TypeVar("Row")
Result = TypeVar("Result")

PATIENCE = timedelta(days=7)
"""How long a process waits for the others. Rank 0 may validate for hours; that a process died the launcher notices."""


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def start(cpu: bool) -> None:
    """Meet the other processes; to be called once before anything below. Only rank 0 goes on telling of its progress.

    Args:
        cpu: Compute on CPU, and talk by gloo, whatever accelerators there are.
    """
    if world_size() == 1:
        return
    from accelerate import PartialState

    # The trainers' own settings find the group there and keep it.
    state = PartialState(cpu=cpu, timeout=PATIENCE)
    if state.num_processes != world_size():
        raise RuntimeError(f"the launcher says {world_size()} processes, {state.num_processes} met")
    if not is_main():
        progress.set_quiet(True)
        logging.getLogger("swirl").setLevel(logging.WARNING)


def barrier() -> None:
    """Wait for every process."""
    if world_size() > 1:
        _group().barrier()


def spread(rows: Sequence[Row], work: Callable[[list[Row]], list[Result]]) -> list[Result]:
    """Give every process its share of the rows; all get all results, in the order of the rows.

    Args:
        rows: The same on every process.
        work: Rows to as many results, which must pickle.
    """
    if world_size() == 1:
        return work(list(rows))
    parts: list[Any] = [None] * world_size()
    _group().all_gather_object(parts, work(list(rows[rank() :: world_size()])))
    return [parts[number % world_size()][number // world_size()] for number in range(len(rows))]


def from_main(work: Callable[[], Result]) -> Result:
    """The result of `work` on rank 0, on every process."""
    if world_size() == 1:
        return work()
    box: list[Any] = [work() if is_main() else None]
    _group().broadcast_object_list(box)
    return box[0]


def _group() -> Any:
    from torch import distributed

    return distributed
