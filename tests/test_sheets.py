"""Contact sheets, film strips, GIFs: sizes, where things are, and that no text leaves its box."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from swirl import images, sheets
from swirl.sheets import GAP, MARGIN, Row

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def plain(colour, size=(48, 48)):
    return Image.new("RGB", size, colour)


def centre(picture, left, top, side=192):
    return picture.getpixel((left + side // 2, top + side // 2))


def inked(picture, box):
    """Whether anything but paper is in a box (left, top, right, bottom)."""
    return bool((np.asarray(picture.crop(box)) != 255).any())


def test_a_sheet_has_a_column_for_each_thing_and_small_frames_are_enlarged():
    sheet = sheets.contact_sheet(
        [Row(plain(RED), "paint", plain(GREEN), plain(BLUE)), Row(plain(BLUE), "x", plain(RED), None)]
    )
    lefts = [MARGIN, MARGIN + 192 + GAP + sheets.ACTION + GAP]
    lefts += [lefts[1] + 192 + GAP, lefts[1] + 2 * (192 + GAP)]
    top = MARGIN + sheets.HEAD + GAP
    assert sheet.size == (lefts[3] + 192 + MARGIN, top + 2 * 192 + GAP + MARGIN)
    assert [centre(sheet, left, top) for left in lefts[:3]] == [RED, GREEN, BLUE]
    below = top + 192 + GAP
    assert [centre(sheet, left, below) for left in lefts[:2]] == [BLUE, RED]
    assert sheet.getpixel((lefts[2] + 10, below + 10)) == (0xF3, 0xF4, 0xF6)  # a placeholder
    assert inked(sheet, (lefts[2] + 60, below + 80, lefts[2] + 130, below + 112))  # that says why


def test_pixels_stay_pixels():
    board = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8))
    sheet = sheets.contact_sheet([Row(board, "a", board, board)])
    top = MARGIN + sheets.HEAD + GAP
    shown = sheet.crop((MARGIN, top, MARGIN + 192, top + 192))
    assert shown.resize((8, 8), Image.Resampling.NEAREST).tobytes() == board.tobytes()
    assert len(set(shown.get_flattened_data())) == len(set(board.get_flattened_data()))


def test_the_margins_are_empty():
    long = "walk over to the green door and open it with the yellow key " * 20
    rows = [
        Row(plain(RED, (64, 30)), long, plain(RED, (300, 500)), None),
        Row(plain(RED), "w" * 400, plain(RED), plain(RED)),
    ]
    strip = sheets.film_strip({"a rather long name": [plain(RED)] * 12, "b": [None] * 12}, [long] * 11)
    for picture in (sheets.contact_sheet(rows), strip):
        width, height = picture.size
        edge = MARGIN - 2
        for box in (
            (0, 0, width, edge),
            (0, 0, edge, height),
            (width - edge, 0, width, height),
            (0, height - edge, width, height),
        ):
            assert not inked(picture, box)


def test_an_action_stays_in_its_column():
    sheet = sheets.contact_sheet([Row(plain(RED), "long words " * 60 + "w" * 500, plain(RED), plain(RED))])
    left, top = MARGIN + 192 + 1, MARGIN + sheets.HEAD + GAP
    assert not inked(sheet, (left, 0, left + GAP - 2, sheet.height))
    assert not inked(sheet, (left + GAP + sheets.ACTION + 1, 0, left + GAP + sheets.ACTION + GAP - 2, sheet.height))
    assert not inked(sheet, (left, top + 192 + 1, left + sheets.ACTION, sheet.height))


@settings(max_examples=60)
@given(st.text(max_size=120), st.integers(20, 200), st.integers(1, 4))
def test_wrapped_lines_fit(text, width, most):
    lines = sheets._wrapped(text, width, most)
    assert 1 <= len(lines) <= most
    assert all(sheets._font(sheets.TEXT).getlength(line) <= width or len(line) == 1 for line in lines)
    letters, shown = "".join(text.split()), "".join("".join(lines).split())
    assert shown == letters or (shown.endswith("…") and letters.startswith(shown[:-1]))


def test_wrapping_by_hand():
    wide = sheets._font(sheets.TEXT).getlength("turn left") + 1
    assert sheets._wrapped("turn left and go", wide, 9) == ["turn left", "and go"]
    assert sheets._wrapped("turn left and go on", wide, 1) == ["turn l…"]
    assert sheets._wrapped("  a\n b ", wide, 1) == ["a b"]
    assert "".join(sheets._wrapped("abcdefghijklmnopqrstuvwxyz", 60, 9)) == "abcdefghijklmnopqrstuvwxyz"
    assert sheets._wrapped("", wide, 3) == [""]


def test_the_difference_is_red_where_the_prediction_is_wrong():
    truth, prediction = plain((100, 100, 100), (4, 4)), plain((100, 100, 100), (4, 4))
    prediction.putpixel((1, 2), (100, 355 - 255, 110))
    prediction.putpixel((3, 3), (255, 255, 255))
    found = np.asarray(sheets.difference(truth, prediction)).astype(int)
    faded = round(255 - 0.3 * 155)
    assert found[0, 0].tolist() == [faded] * 3
    slight, much = found[2, 1], found[3, 3]
    assert much[0] - much[1] > slight[0] - slight[1] > 20
    assert (found[..., 0] != found[..., 1]).sum() == 2
    assert sheets.difference(truth, None) is sheets.difference(truth, plain(RED)) is None
    white, black = plain((255, 255, 255), (1, 1)), plain((0, 0, 0), (1, 1))
    assert sheets.difference(white, black).getpixel((0, 0)) == sheets.WRONG


def test_a_film_strip_puts_step_under_step():
    real, imagined = [plain(RED), plain(GREEN), plain(BLUE)], [plain(RED), plain(BLUE), None]
    strip = sheets.film_strip({"real": real, "imagined": imagined}, ["left", "right"])
    width, height = strip.size
    left, top = width - MARGIN - 3 * 192 - 2 * GAP, height - MARGIN - 2 * 192 - GAP
    columns = [left + step * (192 + GAP) for step in range(3)]
    assert [centre(strip, x, top) for x in columns] == [RED, GREEN, BLUE]
    assert [centre(strip, x, top + 192 + GAP) for x in columns[:2]] == [RED, BLUE]
    assert strip.getpixel((columns[2] + 9, top + 192 + GAP + 9)) == (0xF3, 0xF4, 0xF6)
    assert inked(strip, (MARGIN, top, left - GAP, top + 192)) and inked(
        strip, (MARGIN, top + 192 + GAP, left - GAP, height)
    )
    assert all(inked(strip, (x, MARGIN, x + 192, top - GAP)) for x in columns)


def test_a_long_film_strip_goes_on_below():
    frames = [plain((step, 0, 0)) for step in range(18)]
    short, long = (sheets.film_strip({"real": frames[:n]}, ["go"] * (n - 1)) for n in (8, 18))
    assert long.width == short.width
    left, height = long.width - MARGIN - 8 * 192 - 7 * GAP, long.height
    assert [centre(long, left + step * (192 + GAP), height - MARGIN - 192) for step in (0, 1)] == [
        (16, 0, 0),
        (17, 0, 0),
    ]
    assert 2.5 * short.height < height < 3 * short.height


def test_a_film_strip_of_unlike_lengths_is_refused():
    with pytest.raises(ValueError, match=r"\{'imagined': 2\} frames, expected 3"):
        sheets.film_strip({"real": [plain(RED)] * 3, "imagined": [plain(RED)] * 2}, ["a", "b"])
    for make in (lambda: sheets.film_strip({}, []), lambda: sheets.contact_sheet([]), lambda: sheets.gif([])):
        with pytest.raises(ValueError, match="expected"):
            make()


def test_a_gif_shows_each_frame_in_turn():
    held = sheets.gif([plain(RED), plain(GREEN), None, plain(BLUE, (24, 48))], 120)
    with Image.open(io.BytesIO(held)) as film:
        assert (film.format, film.n_frames, film.size, film.info["loop"]) == ("GIF", 4, (192, 192), 0)
        seen = []
        for number in range(4):
            film.seek(number)
            assert film.info["duration"] == 120
            seen.append(film.convert("RGB").getpixel((96, 20)))
    assert seen == [RED, GREEN, (0xF3, 0xF4, 0xF6), BLUE]


def test_frames_of_any_shape_and_mode_are_shown():
    odd = [
        plain(RED, (1, 1)),
        plain(RED, (2000, 2)),
        plain(RED, (2, 3000)),
        Image.new("L", (9, 9), 7),
        plain(RED, (700, 500)),
    ]
    for frame in odd:
        assert images.data_uri(sheets.contact_sheet([Row(frame, "a", frame, frame)])).startswith(
            "data:image/png;base64,"
        )
    assert sheets.film_strip({"real": odd}, ["a"] * 4).height < 500
