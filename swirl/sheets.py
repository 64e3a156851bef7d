"""Pictures of predictions for people: contact sheets, film strips, GIFs.

Everything here takes and gives images in memory: `picture.save("sheet.png")` writes one, and
`swirl.images.data_uri(picture)` is what a page that opens offline holds. Small frames are enlarged by whole numbers, so
that their pixels stay pixels; what could not be read has a placeholder, never a gap.

    rows = [Row(state, "turn left", truth, prediction), ...]
    contact_sheet(rows).save("sheet.png")
    film_strip({"real": frames, "imagined": others}, actions).save("strip.png")
    Path("rollout.gif").write_bytes(gif(frames))
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

SMALL, LARGE = 192, 256
"""Pixels: frames with longer sides of less than the first are enlarged, of more than the second made smaller."""
MARGIN, GAP = 28, 16
"""Pixels around everything, and between neighbours."""
TEXT, HEAD, STEP = 15, 14, 20
"""Pixels: sizes of the font, of text and of titles; from line to line."""
ACTION = 176
"""Pixels: width of the column of actions."""
FRAMES_A_LINE = 8
"""Of a film strip; a longer one goes on below."""
LINES = 3
"""Of an action in a film strip, at most."""

PAPER, PANEL, RULE = "#ffffff", "#f3f4f6", "#d7dae0"
INK, FAINT = "#1f2430", "#7a8190"
WRONG = (224, 36, 60)


class Row(NamedTuple):
    """A line of a contact sheet.

    Attributes:
        state: The frame before the step.
        action: What was done, in words.
        truth: The recorded next frame.
        prediction: The predicted one; `None` where it could not be read.
    """

    state: Image.Image
    action: str
    truth: Image.Image
    prediction: Image.Image | None


def contact_sheet(rows: Sequence[Row]) -> Image.Image:
    """A line for each row: state, action, recorded next state, prediction, and where the two differ.

    The last column is the recorded frame, faded, with wrong pixels in red: the deeper, the further off.

    Raises:
        ValueError: There are no rows.
    """
    if not rows:
        raise ValueError("got no rows, expected at least one: an empty sheet shows nothing")
    lines = [(_fitted(r.state), _fitted(r.truth), _fitted(r.prediction), _fitted(difference(*r[2:]))) for r in rows]
    width, height = _largest([frame for line in lines for frame in line])
    titles = ("state", "action", "next state", "prediction", "difference")
    widths = (width, ACTION, width, width, width)
    lefts = [MARGIN + sum(widths[:i]) + GAP * i for i in range(len(widths))]
    top = MARGIN + HEAD + GAP
    size = (lefts[-1] + width + MARGIN, top + len(rows) * (height + GAP) - GAP + MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for left, wide, title in zip(lefts, widths, titles, strict=True):
        draw.text((left + wide / 2, MARGIN), title, FAINT, _font(HEAD), anchor="ma")
    for number, (row, (state, *others)) in enumerate(zip(rows, lines, strict=True)):
        y = top + number * (height + GAP)
        _place(sheet, state, (lefts[0], y), (width, height))
        below = _write(draw, row.action, (lefts[1], y, ACTION, height - GAP))
        _arrow(draw, lefts[1], round(below) + GAP // 2, ACTION)
        missing = ("", "unreadable", "" if row.prediction is None else "another size")
        for left, frame, text in zip(lefts[2:], others, missing, strict=True):
            _place(sheet, frame, (left, y), (width, height), text)
    return sheet


def film_strip(rollouts: Mapping[str, Sequence[Image.Image | None]], actions: Sequence[str]) -> Image.Image:
    """Rollouts below each other, step under step, with the action that led to each frame above its column.

    Args:
        rollouts: By name, the real one first: the frame at the start, then one after each action; `None` where there
            is none.
        actions: What was done (T).

    Raises:
        ValueError: There is no rollout, or one has not T + 1 frames.
    """
    wrong = {name: len(frames) for name, frames in rollouts.items() if len(frames) != len(actions) + 1}
    if wrong or not rollouts:
        raise ValueError(
            f"got rollouts of {wrong} frames, expected {len(actions) + 1}, one more than there are actions"
        )
    fitted = {name: [_fitted(frame) for frame in frames] for name, frames in rollouts.items()}
    width, height = _largest([frame for frames in fitted.values() for frame in frames])
    names = max(_font(TEXT).getlength(name) for name in rollouts)
    left = MARGIN + int(names) + GAP
    captions = ["start", *actions]
    band = max(_height(_wrapped(text, width, LINES)) for text in captions) + HEAD + GAP // 2
    line = band + len(fitted) * (height + GAP)
    starts = range(0, len(captions), FRAMES_A_LINE)
    across = min(len(captions), FRAMES_A_LINE)
    size = (left + across * (width + GAP) - GAP + MARGIN, 2 * MARGIN - GAP + len(starts) * (line + GAP) - GAP)
    strip = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(strip)
    for number, start in enumerate(starts):
        top = MARGIN + number * (line + GAP)
        for row, (name, frames) in enumerate(fitted.items()):
            y = top + band + row * (height + GAP)
            draw.text((left - GAP, y + height / 2), name, INK, _font(TEXT), anchor="rm")
            for step, frame in enumerate(frames[start : start + FRAMES_A_LINE]):
                _place(strip, frame, (left + step * (width + GAP), y), (width, height), "none")
        for step, text in enumerate(captions[start : start + FRAMES_A_LINE]):
            x = left + step * (width + GAP)
            draw.text((x + width / 2, top), f"t = {start + step}", FAINT, _font(HEAD - 2), anchor="ma")
            _write(draw, text, (x, top + HEAD + 2, width, _height(_wrapped(text, width, LINES))), LINES)
    return strip


def gif(frames: Sequence[Image.Image | None], ms: int = 500) -> bytes:
    """A GIF file that goes round for ever, small frames enlarged; `None` becomes a placeholder.

    Args:
        frames: One or more.
        ms: Milliseconds that a frame is shown.

    Raises:
        ValueError: There are no frames.
    """
    if not frames:
        raise ValueError("got no frames, expected at least one")
    fitted = [_fitted(frame) for frame in frames]
    size = _largest(fitted)
    pages = []
    for frame in fitted:
        page = Image.new("RGB", size, PAPER)
        _place(page, frame, (0, 0), size, "none")
        pages.append(page)
    held = io.BytesIO()
    pages[0].save(held, "GIF", save_all=True, append_images=pages[1:], duration=ms, loop=0, disposal=1)
    return held.getvalue()


def difference(truth: Image.Image, prediction: Image.Image | None) -> Image.Image | None:
    """The recorded frame, grey and faded, with wrong pixels in red, the deeper the further off.

    Returns:
        An image of the same size; `None` where there is no prediction of that size.
    """
    if prediction is None or prediction.size != truth.size:
        return None
    one, other = (np.asarray(image.convert("RGB"), np.float64) for image in (truth, prediction))
    wrong = np.abs(one - other).max(-1, keepdims=True) / 255
    depth = np.sqrt(wrong)  # so that a small error can be seen
    faded = 255 - 0.3 * (255 - np.asarray(truth.convert("L"), np.float64)[..., None])
    return Image.fromarray(((1 - depth) * faded + depth * np.array(WRONG)).round().astype(np.uint8))


def _fitted(frame: Image.Image | None) -> Image.Image | None:
    """A frame enlarged by a whole number, or made smaller, so that it can be looked at."""
    if frame is None:
        return None
    side = max(frame.size)
    if side > LARGE:
        return ImageOps.contain(frame.convert("RGB"), (LARGE, LARGE), Image.Resampling.LANCZOS)
    return ImageOps.scale(frame.convert("RGB"), max(1, SMALL // side), Image.Resampling.NEAREST)


def _largest(frames: Sequence[Image.Image | None]) -> tuple[int, int]:
    """Width and height that each of the frames fits into."""
    sizes = [frame.size for frame in frames if frame] or [(SMALL, SMALL)]
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _place(
    sheet: Image.Image, frame: Image.Image | None, at: tuple[int, int], room: tuple[int, int], missing: str = ""
) -> None:
    """Put a frame in the middle of its room, or a placeholder that fills it; with a hairline around it."""
    draw = ImageDraw.Draw(sheet)
    (x, y), (width, height) = at, room
    if frame is None:
        draw.rectangle((x, y, x + width - 1, y + height - 1), PANEL, RULE)
        _write(draw, missing, (x, y, width, height), colour=FAINT)
        return
    x, y = x + (width - frame.width) // 2, y + (height - frame.height) // 2
    sheet.paste(frame, (x, y))
    draw.rectangle((x - 1, y - 1, x + frame.width, y + frame.height), outline=RULE)


def _arrow(draw: ImageDraw.ImageDraw, left: int, y: int, width: int) -> None:
    """From the state to what comes of it, below the action."""
    right = left + width - GAP // 2
    draw.line((left + GAP // 2, y, right, y), RULE, 2)
    draw.polygon([(right - 7, y - 5), (right - 7, y + 5), (right + 1, y)], RULE)


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    box: tuple[int, int, int, int],
    most: int | None = None,
    colour: str = INK,
) -> float:
    """Text in the middle of a box (left, top, width, height), wrapped, and shortened where it does not fit.

    Returns:
        Where its last line ends.
    """
    left, top, width, height = box
    lines = _wrapped(text, width, most or max(1, height // STEP))
    y = top + (height - _height(lines)) / 2
    for number, line in enumerate(lines):
        draw.text((left + width / 2, y + number * STEP), line, colour, _font(TEXT), anchor="ma")
    return y + _height(lines)


def _height(lines: Sequence[str]) -> int:
    return STEP * len(lines)


def _wrapped(text: str, width: float, most: int) -> list[str]:
    """Lines no wider than that, no more of them than that; one that is cut short ends with an ellipsis."""
    lines = list(_lines(text, width))
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and _font(TEXT).getlength(f"{last}…") > width:
        last = last[:-1]
    return [*lines[: most - 1], f"{last.rstrip()}…"]


def _lines(text: str, width: float) -> Iterator[str]:
    """Words to lines; a word that is too wide is broken where it must be."""
    line = ""
    for word in text.split():
        if line and _font(TEXT).getlength(f"{line} {word}") <= width:
            line = f"{line} {word}"
            continue
        if line:
            yield line
        while _font(TEXT).getlength(word) > width and len(word) > 1:
            fits = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or _font(TEXT).getlength(word[:n]) <= width)
            yield word[:fits]
            word = word[fits:]
        line = word
    yield line


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which Matplotlib brings: the font within PIL lacks most letters beyond English."""
    found = find_spec("matplotlib")
    assert found and found.origin
    return ImageFont.truetype(Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", size)
