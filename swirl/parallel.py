"""Several processes, one program: what `torchrun` and `accelerate launch` start.

Every process runs the same code; the one of rank 0 writes. Without a launcher there is one process and everything here
is free.
"""

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

Row = TypeVar("Row")
Result = TypeVar("Result")


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def barrier() -> None:
    """Wait for every process."""
    if world_size() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def spread(rows: Sequence[Row], work: Callable[[list[Row]], list[Result]]) -> list[Result]:
    """Give every process its share of the rows; all get all results, in the order of the rows.

    Args:
        rows: The same on every process.
        work: Rows to as many results, which must pickle.
    """
    if world_size() == 1:
        return work(list(rows))
    from accelerate.utils import gather_object

    mine = list(enumerate(rows))[rank() :: world_size()]
    done = work([row for _, row in mine])
    gathered = gather_object([(number, result) for (number, _), result in zip(mine, done, strict=True)])
    return [result for _, result in sorted(gathered, key=lambda pair: pair[0])]


def from_main(work: Callable[[], Result]) -> Result:
    """The result of `work` on rank 0, on every process."""
    if world_size() == 1:
        return work()
    from accelerate.utils import broadcast_object_list

    box = [work() if is_main() else None]
    return broadcast_object_list(box)[0]  # pyright: ignore[reportReturnType]
