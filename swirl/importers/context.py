"""What the user chose, and what a format is given to read by: the same for all formats."""

import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from swirl import images, progress
from swirl.errors import InputError
from swirl.importers.frames import Frames, fitted
from swirl.importers.redaction import redact
from swirl.importers.rows import Fault
from swirl.types import IMAGE, state_parts, state_text

logger = logging.getLogger(__name__)

NEXT_STATES = ("output", "conversation")
SHOWN = 10  # malformed records that are named one by one


@dataclass(frozen=True)
class Options:
    """What the user may choose.

    Attributes:
        columns: For `table`: name of ours -> the source's name of that column.
        next_state: For `chat` and `toolbench`: the tool's "output", or the "conversation" up to and with it.
        drop_actions: Write no action at all.
        labels: How many actions to keep (int), or which share of them (float); `None` keeps all.
        seed: Chooses which.
        max_state: Longest state in characters; `None` for any length.
        too_long: What happens to a longer one, one of `cutting.POLICIES`.
        strict: Stop at the first malformed record.
        redact: Mask what looks like a key or a token.
        format: For `pairs`: whose files they are, one of `pairs.FORMATS`.
        size: For images: width and height to stretch each to, by Lanczos' filter; `None` keeps their own.
        stride: For `video`: a state is every so manieth frame.
        scene_cut: For `video`: mean absolute difference of two states' pixels, 0 to 255, above which the scene is cut.
        min_change: For `video`: that difference at which, or below which, nothing has changed.
        start: For `video`: seconds from the beginning of a clip to the first frame.
        end: For `video`: seconds to the last one; `None` is the end of the clip.
    """

    columns: dict[str, str] = field(default_factory=dict)
    next_state: str = "output"
    drop_actions: bool = False
    labels: int | float | None = None
    seed: int = 0
    max_state: int | None = None
    too_long: str = "error"
    strict: bool = False
    redact: bool = False
    format: str | None = None
    size: tuple[int, int] | None = None
    stride: int = 1
    scene_cut: float = 50.0
    min_change: float = 0.0
    start: float = 0.0
    end: float | None = None

    @property
    def hides_actions(self) -> bool:
        """Whether some action is left out; it must not be readable in a state then."""
        return self.drop_actions or self.labels is not None


class Context:
    """What a format's `read` is given beside its sources.

    Attributes:
        options: What the user chose.
        counts: What is worth telling at the end, by name.
        first: The first record that was malformed.
        faults: How often one was, or several together.
        same_layout: Layouts that turned out to be one when rows of both were read: name -> name of the other.
    """

    def __init__(self, options: Options, bar: progress.Bar, frames: Frames) -> None:
        self.options = options
        self.counts: Counter[str] = Counter()
        self.first: Fault | None = None
        self.faults = 0
        self.same_layout: dict[str, str] = {}
        self._bar = bar
        self._frames = frames
        self._start = time.monotonic()
        self._share = 0.0

    def text(self, text: str) -> str:
        """A text of the source as it may be written: with its secrets masked, if they are to be."""
        if not self.options.redact:
            return text
        text, masked = redact(text)
        self.counts["masked"] += masked
        return text

    def image(self, image: Image.Image) -> str:
        """The state that shows an image, which is kept beside the recording."""
        return state_text([{"type": "image", "image": self._frames.keep(image)}])

    def state(self, text: str, folder: Path) -> str:
        """A state of the source as it may be written: as `text`, with its images kept beside the recording.

        Args:
            text: The text of the state.
            folder: What the paths of its images are relative to.

        Raises:
            InputError: An image cannot be used.
        """
        if IMAGE not in text:
            return self.text(text)
        return "\n".join(
            self.text(part["text"])
            if part["type"] == "text"
            else self.image(fitted(images.open_image(part["image"], folder), self.options.size))
            for part in state_parts(text)
        )

    def layout(self, name: str) -> str:
        """The one name of a layout, whatever it turned out to be the same as."""
        while name in self.same_layout:
            name = self.same_layout[name]
        return name

    def reached(self, share: float) -> None:
        """Report how much of the sources was read, 0 to 1."""
        self._share = share

    def report(self) -> None:
        """Bring the progress bar up to date."""
        rows = self.counts["transitions"]
        rate = rows / max(time.monotonic() - self._start, 1e-3)
        self._bar.update(int(100 * self._share), transitions=rows, per_second=round(rate))

    def fault(self, fault: Fault) -> None:
        """Count a malformed record, and name it.

        Raises:
            InputError: The import is strict.
        """
        if self.options.strict:
            raise InputError(f"{fault.where}: {fault.reason}; mend it, or leave --strict out to go on without it")
        self.counts["malformed"] += fault.records
        self.first = self.first or fault
        self.faults += 1
        if self.faults <= SHOWN:
            logger.warning("%s: %s; left out", fault.where, fault.reason)
