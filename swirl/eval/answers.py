"""What a judge has answered, kept on the disk so that nothing is asked twice."""

import json
import os
from pathlib import Path
from typing import Any

from swirl.errors import InputError
from swirl.eval.rubrics import read_score


class Answers:
    """A cache of answers: a line each, written whole before the answer counts.

    Attributes:
        scores: By key; `None` for a reply that could not be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.scores: dict[str, int | None] = {}
        whole = 0
        for number, line in enumerate(path.read_bytes().splitlines(keepends=True) if path.is_file() else [], 1):
            if not line.endswith(b"\n"):  # a kill in the midst of it
                os.truncate(path, whole)
                break
            whole += len(line)
            try:
                found = json.loads(line)
                key, score = found["key"], found["score"]
                if score is None:  # how replies are read may have been mended since
                    score = read_score(found.get("reply"))
                if score is not None and (type(score) is not int or not 0 <= score <= 10):
                    raise ValueError
                self.scores[key] = score
            except (ValueError, KeyError, TypeError):
                raise InputError(
                    f"{path}:{number} is no judge's answer; delete the line, or use another --judge-cache"
                ) from None

    def add(self, answer: dict[str, Any]) -> None:
        """Write an answer to the disk."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(json.dumps(answer).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.scores[answer["key"]] = answer["score"]
