"""States written with image tokens and read back, and folders of image tokenizers."""

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from swirl import images, imagetokens
from swirl.config import Images
from swirl.errors import InputError
from swirl.imagetokens import base, tile
from swirl.types import IMAGE, state_text

COLOURS = [(0, 0, 0), (200, 0, 0), (0, 200, 0), (255, 255, 255)]


def picture(rows):
    return Image.fromarray(np.array(rows, np.uint8))


TOKENIZER = tile.learn([images.data_uri(picture([COLOURS]))], Images(tile=1))
SNAKE = picture([[COLOURS[1], COLOURS[0]], [COLOURS[2], COLOURS[3]]])

pictures = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(st.sampled_from(COLOURS), min_size=width, max_size=width), min_size=1, max_size=3
    ).map(picture)
)
# No line of a text may begin as an image does; nor may a text hold tokens.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(
    lambda text: IMAGE not in text and not base.OWN.search(text)
)


@st.composite
def states(draw):
    """Parts: texts, with an image between any two of them or none."""
    parts = [{"type": "text", "text": draw(texts)}]
    for image in draw(st.lists(pictures, max_size=3)):
        parts += [{"type": "image", "image": images.data_uri(image)}, {"type": "text", "text": draw(texts)}]
    return parts[draw(st.integers(0, 1)) :] if len(parts) > 1 else parts


@given(st.lists(states(), max_size=4))
def test_what_is_written_can_be_drawn(some):
    """Also where a text is given in place of the parts."""
    found = imagetokens.written(TOKENIZER, some)
    assert [imagetokens.drawn(TOKENIZER, text) for text in found] == [list(parts) for parts in some]
    assert imagetokens.written(TOKENIZER, [state_text(parts) for parts in some]) == found


@given(st.text() | st.lists(st.sampled_from(["<|i0|>", "<|i3|>", "<|i4|>", "\n", "x", " ", "<|i"])).map("".join))
def test_nothing_that_a_model_writes_raises(text):
    parts = imagetokens.drawn(TOKENIZER, text)
    if parts is not None:
        assert sum(part["type"] == "image" for part in parts) == 0 or imagetokens.written(TOKENIZER, [parts]) == [text]


def test_a_state_by_hand():
    state = f"you see\n{IMAGE}{images.data_uri(SNAKE)}\nand a key"
    # Codes are sorted by the tiles' bytes: black 0, green 1, red 2, white 3.
    text = "you see\n<|i2|><|i0|>\n<|i1|><|i3|>\nand a key"
    assert imagetokens.written(TOKENIZER, [state, "no image"]) == [text, "no image"]
    assert state_text(imagetokens.drawn(TOKENIZER, text)) == state


def test_paths_are_relative_to_the_base_and_opened_once(tmp_path, monkeypatch):
    name = images.keep(SNAKE, tmp_path)
    opened = []
    open_image = images.open_image
    monkeypatch.setattr(images, "open_image", lambda *where: opened.append(where) or open_image(*where))
    monkeypatch.setattr(base, "BATCH", 1)
    other = images.keep(picture([COLOURS]), tmp_path)
    found = imagetokens.written(TOKENIZER, [IMAGE + name, IMAGE + other, f"a\n{IMAGE}{name}"], tmp_path)
    assert found == ["<|i2|><|i0|>\n<|i1|><|i3|>", "<|i0|><|i2|><|i1|><|i3|>", "a\n<|i2|><|i0|>\n<|i1|><|i3|>"]
    assert sorted(opened) == sorted([(name, tmp_path), (other, tmp_path)])


def test_two_images_next_to_each_other():
    image = IMAGE + images.data_uri(SNAKE)
    with pytest.raises(InputError, match="two images next to each other; put text between them"):
        imagetokens.written(TOKENIZER, ["fine", f"a\n{image}\n{image}"])
    assert imagetokens.written(TOKENIZER, [f"{image}\n\n{image}"])[0].count("\n\n") == 1


def test_image_tokens_in_a_text():
    with pytest.raises(InputError, match=re.escape("'<|i17|>' in its text, which stands for a piece of an image")):
        imagetokens.written(TOKENIZER, ["fine", "a <|i17|> b"])


@pytest.mark.parametrize(
    "text",
    [
        "<|i0|><|i0|>\n<|i0|>",  # rows of unlike length
        "<|i4|>",  # no such code
        "<|i0|> <|i0|>",
        "a<|i0|>",
        "<|i0|>\n<|i0|>a",
    ],
)
def test_broken_grids(text):
    assert imagetokens.drawn(TOKENIZER, text) is None
    assert imagetokens.drawn(TOKENIZER, f"a\n{text}\nb") is None


def test_rows_by_hand():
    tokens = base.own_tokens(11)
    codes = np.array([[10, 0], [3, 4], [3, 3]])
    assert base.write_rows(tokens, codes) == "<|i10|><|i0|>\n<|i3|><|i4|>\n<|i3|><|i3|>"
    assert base.parse_rows(base.write_rows(tokens, codes), 11).tolist() == codes.tolist()
    assert base.parse_rows(base.write_rows(tokens, codes), 10) is None
    assert base.parse_rows("", 11) is None
    assert base.parse_rows("<|i3|>\n", 11) is None


def test_fingerprints_tell_tokenizers_apart(tmp_path):
    folders = [tmp_path / name for name in "abc"]
    other = tile.learn([images.data_uri(SNAKE), images.data_uri(picture([[(1, 2, 3)]]))], Images(tile=1))
    for folder, tokenizer in zip(folders, [TOKENIZER, TOKENIZER, other], strict=True):
        folder.mkdir()
        tokenizer.save(folder)
    one, same, another = map(imagetokens.fingerprint, folders)
    assert one == same != another
    assert re.fullmatch("[0-9a-f]{16}", one)
    (folders[0] / base.CARD).rename(folders[0] / "card.json")
    assert imagetokens.fingerprint(folders[0]) != one


@pytest.mark.parametrize("card", [None, "", "[]", "{}", '{"kind": "jpeg"}', '{"kind": []}', "\0", '{"kind": "tile"}'])
def test_folders_without_a_whole_tokenizer(tmp_path, card):
    TOKENIZER.save(tmp_path)
    (tmp_path / base.CARD).unlink()
    if card is not None:
        (tmp_path / base.CARD).write_text(card)
    with pytest.raises(InputError, match=f"{re.escape(str(tmp_path))} has no whole image tokenizer"):
        imagetokens.load(tmp_path)


def test_a_card_is_json_with_the_kind(tmp_path):
    TOKENIZER.save(tmp_path)
    assert json.loads((tmp_path / base.CARD).read_text()) == {"kind": "tile", "tile": 1}
