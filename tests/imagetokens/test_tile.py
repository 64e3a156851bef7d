"""The tile tokenizer: exact where it knows the tiles, nearest where it does not."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from swirl import images, imagetokens
from swirl.config import Images
from swirl.errors import InputError
from swirl.imagetokens import tile

SPEC = Images(tokenizer="tile", tile=2, codes=8)
BLACK, RED, WHITE = (0, 0, 0), (200, 0, 0), (255, 255, 255)


def frame(*rows, side=2):
    """A frame of tiles of one colour each."""
    return Image.fromarray(np.array(rows, np.uint8).repeat(side, 0).repeat(side, 1))


def uris(*frames):
    return [images.data_uri(picture) for picture in frames]


@pytest.fixture
def tokenizer():
    """Knows black (code 0), red (1) and white (2) tiles."""
    return tile.learn(uris(frame([WHITE, RED]), frame([BLACK, RED])), SPEC)


def test_codes_by_hand(tokenizer):
    wide, tall = frame([RED, BLACK, BLACK]), frame([WHITE], [RED])
    codes = tokenizer.encode([wide, tall])
    assert [grid.tolist() for grid in codes] == [[[1, 0, 0]], [[2], [1]]]
    assert {grid.dtype for grid in codes} == {np.dtype(np.int64)}
    assert tokenizer.encode([]) == []
    assert tokenizer.tokens == ("<|i0|>", "<|i1|>", "<|i2|>")
    assert tokenizer.write(codes[1]) == "<|i2|>\n<|i1|>"
    assert tokenizer.parse("<|i2|>\n<|i1|>").tolist() == [[2], [1]]
    assert tokenizer.parse("<|i3|>") is None
    assert tokenizer.decode(codes[0]).tobytes() == wide.tobytes()
    assert tokenizer.unknown([wide, tall]) == 0


def test_a_tile_is_not_mirrored_or_turned():
    """Each pixel of the tile differs, and so does each tile of the frame."""
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    tokenizer = tile.learn(uris(Image.fromarray(pixels)), SPEC)
    assert tokenizer.tiles[tokenizer.encode([Image.fromarray(pixels)])[0][1, 2]].tolist() == pixels[2:4, 4:6].tolist()
    assert np.asarray(tokenizer.decode(np.array([[0, 5]]))).tolist() == np.hstack(tokenizer.tiles[[0, 5]]).tolist()


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.lists(st.integers(0, 255), min_size=1, max_size=108)),
        min_size=1,
        max_size=4,
    ),
    st.randoms(),
)
def test_any_frames_are_learned_exactly_in_any_order(drawn, random):
    frames = [
        Image.fromarray(np.resize(np.array(values, np.uint8), (rows * 2, columns * 2, 3)))
        for rows, columns, values in drawn
    ]
    spec = Images(tile=2, codes=99)
    tokenizer = tile.learn(uris(*frames), spec)
    for picture, codes in zip(frames, tokenizer.encode(frames), strict=True):
        assert codes.shape == (picture.height // 2, picture.width // 2)
        assert tokenizer.decode(codes).tobytes() == picture.tobytes()
        assert np.array_equal(tokenizer.parse(tokenizer.write(codes)), codes)
    assert tokenizer.unknown(frames) == 0
    shuffled = random.sample(frames, len(frames)) + frames[:1]
    assert np.array_equal(tile.learn(uris(*shuffled), spec).tiles, tokenizer.tiles)


def test_an_unknown_tile_becomes_the_nearest(tokenizer):
    pixels = np.asarray(frame([BLACK, RED, WHITE])).copy()
    pixels[0, 0] = (90, 90, 90)  # a pixel of the black tile
    pixels[:, 2:4] = (101, 0, 0)  # a shade nearer to red than to black
    pixels[:, 4:6] = (99, 0, 0)  # and one nearer to black
    changed = Image.fromarray(pixels)
    assert tokenizer.encode([changed])[0].tolist() == [[0, 1, 0]]
    assert tokenizer.unknown([changed, frame([BLACK, (1, 2, 3), (1, 2, 3)])]) == 5


def test_the_nearest_is_the_same_in_parts(tokenizer, monkeypatch):
    """Against distances written out, more tiles than are held at once."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    tiles = tile.cut_tiles(Image.fromarray(pixels), 2).astype(int)
    distances = ((tiles[:, :, None] - tokenizer.tiles.astype(int)) ** 2).sum((3, 4, 5))
    for held in (1, 7, 2**22):
        monkeypatch.setattr(tile, "DISTANCES", held)
        assert np.array_equal(tokenizer.encode([Image.fromarray(pixels)])[0], distances.argmin(2))


def test_sizes_that_are_no_multiples(tokenizer):
    for size in [(5, 4), (4, 5), (1, 1)]:
        with pytest.raises(InputError, match=rf"an image has {size[0]}x{size[1]} pixels, expected multiples of the 2 "):
            tokenizer.encode([frame([RED]), Image.new("RGB", size)])
        with pytest.raises(InputError, match=r"set another images\.tile"):
            tile.learn(uris(Image.new("RGB", size)), SPEC)


def test_too_many_tiles():
    frames = uris(*(frame([(2 * i, 0, 0), (2 * i + 1, 0, 0)]) for i in range(9)))
    assert len(tile.learn(frames[:4], SPEC).tiles) == 8
    with pytest.raises(InputError, match=r"5 of 9 frames have 10 distinct tiles .* images\.codes = 8 .* \"fsq\""):
        tile.learn(frames, SPEC)
    with pytest.raises(InputError, match="no frames"):
        tile.learn([], SPEC)


def test_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image_tokenizer.json", "tiles.png"]
    loaded = imagetokens.load(tmp_path)
    assert np.array_equal(loaded.tiles, tokenizer.tiles)
    assert loaded.encode([frame([RED, WHITE])])[0].tolist() == [[1, 2]]


def test_damaged_folders(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    card = tmp_path / "image_tokenizer.json"
    for damaged in [{"kind": "tile"}, {"kind": "tile", "tile": 3}, {"kind": "tile", "tile": "2"}]:
        card.write_text(json.dumps(damaged))
        with pytest.raises(InputError, match=r"its card says|no whole image tokenizer"):
            imagetokens.load(tmp_path)
    card.write_text(json.dumps({"kind": "tile", "tile": 2}))
    strip = tmp_path / "tiles.png"
    strip.write_bytes(strip.read_bytes()[:50])
    with pytest.raises(InputError, match=r"tiles\.png: (no|a broken) image"):
        imagetokens.load(tmp_path)
    Image.new("RGB", (3, 2)).save(strip)
    with pytest.raises(InputError, match="3x2 pixels"):
        imagetokens.load(tmp_path)
    strip.unlink()
    with pytest.raises(InputError, match="no such image file"):
        imagetokens.load(tmp_path)
