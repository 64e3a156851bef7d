"""Where a recording comes from, so that its episodes can be played again.

`swirl collect` and the recordings of recipes note world, options and seed in the metadata of their Parquet file. A
run's `test.parquet` carries the note on, no other part does. Imports have none, nor has what another program rewrote.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

KEY = b"swirl.origin"


@dataclass(frozen=True)
class Origin:
    """What was recorded.

    Attributes:
        world: Name of the world.
        options: Its options.
        seed: Of the collection; with the number in a trajectory's name it gives the seed of the episode.
    """

    world: str
    options: dict[str, Any]
    seed: int

    def metadata(self) -> dict[bytes, bytes]:
        """As metadata of a Parquet file."""
        return {KEY: json.dumps(asdict(self), sort_keys=True).encode()}


def origin_of(path: str | Path) -> Origin | None:
    """The origin that a readable Parquet file notes; `None` where it notes none, or is no Parquet file."""
    if Path(path).suffix != ".parquet":
        return None
    noted = (pq.read_schema(path).metadata or {}).get(KEY)
    return Origin(**json.loads(noted)) if noted else None
