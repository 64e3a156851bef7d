"""Other people's recordings, and the user's own logs, as one Parquet recording.

```python
import_recording("chat", ["log.jsonl"], "recording.parquet", Options(redact=True))
```

| file | what it does |
|---|---|
| `core.py` | the stream from a source to the file: what every format shares |
| `context.py` | what the user chose, and what a format reads by: masking, counting, malformed records |
| `rows.py` | a transition on its way in, what makes it malformed |
| `cutting.py` | states that are too long, cut by a rule |
| `budget.py` | which actions a label budget keeps, type by type |
| `redaction.py` | masks what looks like a key or a token |
| `sources.py` | the files of a source, their names, and JSON values out of them, damaged or not |
| `conversation.py` | messages as text, calls and their outputs as transitions |
| `frames.py` | images on their way to the folder beside the recording |
| `table.py` `chat.py` `toolbench.py` `mind2web.py` `minari.py` `snapshots.py` `video.py` `pairs.py` | one format each |
| `pages.py` | HTML as lines |
"""

from swirl.importers.budget import parse_labels
from swirl.importers.context import Options
from swirl.importers.core import FORMATS, REDACTED, import_recording
from swirl.importers.frames import parse_size

__all__ = ["FORMATS", "REDACTED", "Options", "import_recording", "parse_labels", "parse_size"]
