"""CPU seconds of a phase over all its attempts, noted on disk while it is made.

What a killed attempt took is part of what the phase cost: its training, but its validation and export as well, of which
no log knows. So they are noted every few seconds, whatever the phase does, and a kill loses no more than the last few.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

INTERVAL = 10.0
"""Seconds by the wall between two notes."""


def noted(file: Path, name: str) -> float:
    """CPU seconds that a phase is last noted to have taken; 0 where the notes are of another, or there are none."""
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    for line in reversed(lines):
        with suppress(ValueError):  # a note that a kill cut short; the one before stands
            note = json.loads(line)
            return note["seconds"] if note["phase"] == name else 0.0
    return 0.0


@contextmanager
def counting(file: Path, name: str, resumed: bool) -> Iterator[Callable[[], float]]:
    """Count CPU seconds of this process while a phase is made, and note them.

    Args:
        file: Where they are noted, a JSON object a line; it holds one phase, the last that was begun.
        name: Of the phase.
        resumed: Whether earlier attempts count: those that are noted in the file.

    Yields:
        What gives the seconds of all attempts up to now.
    """
    origin = time.process_time() - (noted(file, name) if resumed else 0.0)
    ended = threading.Event()

    def seconds() -> float:
        return round(time.process_time() - origin, 3)

    with file.open("a" if resumed else "w") as notes:

        def note() -> None:
            notes.write(json.dumps({"phase": name, "seconds": seconds()}) + "\n")
            notes.flush()
            os.fsync(notes.fileno())

        def regularly() -> None:
            while not ended.wait(INTERVAL):
                with suppress(OSError):  # a full disk is told of by what the phase writes, and by the last note
                    note()

        thread = threading.Thread(target=regularly, daemon=True)
        thread.start()
        try:
            yield seconds
        finally:
            ended.set()
            thread.join()
            note()
