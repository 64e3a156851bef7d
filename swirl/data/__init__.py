"""Recordings: collect them from a world, read and check a user's own, split them into what a run may see.

```python
collect(partial(worlds.make, "sokoban"), "recording.parquet", 100_000, {"random": 0.5, "solver": 0.5})
table = read("recording.parquet")
split(table, "run/data", labels=1000, validation_labels=100, validation=0.1, test=0.1, seed=0, data_seed=0)
for line in check("run/data").lines():
    print(line)
```

| file | what it does |
|---|---|
| `table.py` | the schema of a recording, its validation, histories |
| `parts.py` | states given as content parts, where their images lie |
| `files.py` | Parquet and JSONL in and out; a file is whole or absent |
| `streaming.py` | rewrite a recording piece by piece, with the user's own columns |
| `collecting.py` | play a world and stream its transitions to a file |
| `origin.py` | which world, options and seed a recording was made with |
| `overwriting.py` | which files a command may write over |
| `playing.py` | episodes of a world, in this process or in several |
| `replay.py` | back to a moment of an episode that was played |
| `branching.py` | what other actions would have led to, in a world that can be stepped |
| `imaging.py` | images of a recording as tokens |
| `pieces.py` | a recording under way, which a kill does not lose |
| `splitting.py` | layouts to parts, the label budget, the four files of a run |
| `checking.py` | what is in a recording or a split, and whether the split leaks |
| `image_check.py` | whether the images in states can be opened |
| `looking.py` | rows of a recording for a person to read |
| `report.py` | what `checking.py` found, as data and as lines |
"""

from swirl.data.checking import check
from swirl.data.collecting import collect
from swirl.data.files import export, load, read
from swirl.data.imaging import as_read
from swirl.data.origin import Origin, origin_of
from swirl.data.report import Lengths, Report
from swirl.data.splitting import split, without_layouts
from swirl.data.table import conform, with_history

__all__ = [
    "Lengths",
    "Origin",
    "Report",
    "as_read",
    "check",
    "collect",
    "conform",
    "export",
    "load",
    "origin_of",
    "read",
    "split",
    "with_history",
    "without_layouts",
]
