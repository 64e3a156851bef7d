"""Where a recording comes from, so that its episodes can be played again.

`swirl collect` and the recordings of recipes note world, options and seed in the metadata of their Parquet file. A
run's `test.parquet` carries the note on, no other part does. Imports have none, nor has what another program rewrote.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from swirl.data.playing import begin

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

    def reset_seed(self, trajectory: str) -> int | None:
        """The seed that the world was reset with for a trajectory; `None` where its name does not say."""
        number = re.fullmatch(r"t(\d{6,})", trajectory)
        return begin(self.seed, int(number[1]))[0] if number else None


def origin_of(path: str | Path) -> Origin | None:
    """The origin that a readable Parquet file notes; `None` where it notes none, or is no Parquet file."""
    if Path(path).suffix != ".parquet":
        return None
    noted = (pq.read_schema(path).metadata or {}).get(KEY)
    return Origin(**json.loads(noted)) if noted else None
