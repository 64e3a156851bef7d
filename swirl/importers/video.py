"""Video files: neighbouring frames are transitions without actions.

Every `stride`-th frame is a state. A frame that differs from the one before it by more than `scene_cut` begins a new
trajectory; one that does not differ by more than `min_change` is left out, and the next is compared with the frame
before it, so that a trajectory is a chain all the same. The difference is the mean absolute one of all pixels and
colours, 0 to 255, of the frames as they are kept. All scenes of a clip are one layout. What happens outside the picture
does not show, so the world is partially observed. What FFmpeg cannot decode ends the clip.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from swirl.errors import InputError, MissingPartError
from swirl.importers.context import Context, Options
from swirl.importers.frames import fitted
from swirl.importers.rows import Fault, Row
from swirl.importers.sources import Source, files

INSTALL = "pip install '.[video]'"
ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".ogv", ".wmv", ".flv")


class Frame(NamedTuple):
    """A state of a clip.

    Attributes:
        number: Its place among the frames that were decoded.
        image: What it shows.
    """

    number: int
    image: Image.Image


def missing() -> str | None:
    """The command that installs what reading video needs and is not here; None if nothing is missing."""
    return None if find_spec("av") else INSTALL


def read(paths: list[str], context: Context) -> Iterator[Row | Fault]:
    """Transitions of all clips.

    Raises:
        InputError: An option cannot be used.
        MissingPartError: PyAV is not installed.
    """
    if missing():
        raise MissingPartError(f"importing video needs the package av; install it: {INSTALL}")
    _check(context.options)
    sources = files(paths, ENDINGS)
    for number, source in enumerate(sources):
        yield from _clip(source, lambda share, n=number: context.reached((n + share) / len(sources)), context)


def _check(options: Options) -> None:
    if options.stride < 1:
        raise InputError(f"--stride {options.stride}: expected a number of frames, at least 1")
    for name, value in (("--scene-cut", options.scene_cut), ("--min-change", options.min_change)):
        if not 0 <= value <= 255:
            raise InputError(f"{name} {value:g}: expected a mean difference of pixels, 0 to 255")
    if options.min_change >= options.scene_cut:
        raise InputError(
            f"--min-change {options.min_change:g} is not below --scene-cut {options.scene_cut:g}, so no pair is kept; "
            "lower the one, or raise the other"
        )
    if not options.start >= 0 or not (options.end is None or options.end > options.start):
        raise InputError(f"--start {options.start:g} --end {options.end}: expected seconds, 0 <= start < end")


def _clip(source: Source, reached: Callable[[float], None], context: Context) -> Iterator[Row | Fault]:
    """The transitions of a clip, then what ended it too early, if anything did."""
    options, counts = context.options, context.counts
    before: Frame | None = None
    state: str | None = None  # that shows `before`
    row: Row | None = None
    fault: Fault | None = None
    scene = step = 0
    for frame in _frames(source, reached, context):
        if isinstance(frame, Fault):
            fault = frame
            break
        change = _difference(before, frame) if before else None
        if before is None or change is None or change > options.scene_cut:
            counts["scene cuts"] += before is not None
            if row is not None:
                row.truncated = True
                yield row
            scene, step = scene + (before is not None), 0
            before, state, row = frame, None, None
        elif change <= options.min_change:
            counts["pairs without change"] += 1
        else:
            if row is not None:
                yield row
            state, after = state or context.image(before.image), context.image(frame.image)
            where, trajectory = f"{source.name}:{frame.number}", f"{source.name}/{scene}"
            row = Row(where, state, after, trajectory=trajectory, step=step, layout=source.name, partial=True)
            before, state, step = frame, after, step + 1
    if row is not None:
        row.truncated = True
        yield row
    if fault is not None:
        yield fault


def _difference(one: Frame, other: Frame) -> float:
    """Mean absolute difference of pixels and colours, 0 to 255; frames of two sizes are two scenes."""
    if one.image.size != other.image.size:
        return float("inf")
    pixels, others = np.asarray(one.image, np.int16), np.asarray(other.image, np.int16)
    return float(np.abs(pixels - others).mean())


def _frames(source: Source, reached: Callable[[float], None], context: Context) -> Iterator[Frame | Fault]:
    """Every so manieth frame between start and end, one at a time; a fault is the last item."""
    av = import_module("av")
    options, number = context.options, 0
    try:
        with av.open(str(source.path), options={"protocol_whitelist": "file"}) as clip:
            if not clip.streams.video:
                yield Fault(source.name, "has no video stream")
                return
            stream = clip.streams.video[0]
            for frame in _between(clip, stream, options, reached):
                if reason := _unfit(frame):
                    yield Fault(source.name, reason)
                    return
                context.counts["frames"] += 1
                if number % options.stride == 0:
                    yield Frame(number, fitted(frame.to_image().rotate(frame.rotation, expand=True), options.size))
                number += 1
            whole = options.start == 0 and options.end is None
            if whole and number < stream.frames:
                yield Fault(source.name, f"ends after {number:,} of {stream.frames:,} frames")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        what = "cannot be read as a video" if not number else f"cannot be decoded beyond frame {number - 1:,}"
        yield Fault(source.name, f"{what} ({getattr(error, 'strerror', None) or error})")
        return
    if not number:
        yield Fault(source.name, "has no frames" if whole else "has no frames between --start and --end")


def _between(clip: Any, stream: Any, options: Options, reached: Callable[[float], None]) -> Iterator[Any]:
    """The decoded frames from start to end."""
    begin = stream.start_time or 0
    length = float((stream.duration or 0) * stream.time_base) or 1.0
    if options.start:
        clip.seek(begin + int(options.start / stream.time_base), stream=stream)  # to the key frame before it
    for frame in clip.decode(stream):
        if frame.pts is None and (options.start or options.end is not None):
            raise ValueError("its frames have no times; leave --start and --end out")
        seconds = 0.0 if frame.pts is None else float((frame.pts - begin) * stream.time_base)
        if options.end is not None and seconds > options.end:
            return
        if seconds >= options.start:
            reached(min(seconds / length, 1.0))
            yield frame


def _unfit(frame: Any) -> str | None:
    """Why a frame does not become an upright 8-bit RGB image without loss."""
    if frame.rotation % 90:
        return f"is turned by {frame.rotation} degrees, expected a multiple of 90; turn it"
    parts = frame.format.components
    if any(part.is_alpha for part in parts):
        return f"has transparency (pixels are {frame.format.name}); put it on a background"
    if any(part.bits > 8 for part in parts):
        return f"has more than 8 bits a channel (pixels are {frame.format.name}); convert it to 8 bits"
    return None
