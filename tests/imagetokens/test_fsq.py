"""The autoencoder with finite scalar quantisation."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from swirl import images, imagetokens, progress
from swirl.config import Images
from swirl.errors import InputError, MissingPartError
from swirl.imagetokens import fsq

pytest.importorskip("vector_quantize_pytorch", reason="the extra images is not installed")
SPEC = Images(tokenizer="fsq", levels=(5, 4, 3), patch=4, width=16, steps=3, batch=4)


def frames(count, width=16, height=8, seed=0):
    """Frames of a red square on grey, at places of its own."""
    draws, found = np.random.default_rng(seed), []
    for _ in range(count):
        pixels = np.full((height, width, 3), 100, np.uint8)
        row, column = draws.integers(height // 4), draws.integers(width // 4)
        pixels[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = (220, 20, 20)
        found.append(Image.fromarray(pixels))
    return found


def noise(count, seed=0):
    draws = np.random.default_rng(seed)
    return [Image.fromarray(draws.integers(0, 256, (8, 16, 3), np.uint8)) for _ in range(count)]


@pytest.fixture(scope="module")
def uris():
    return [images.data_uri(frame) for frame in frames(20)]


@pytest.fixture(scope="module")
def tokenizer(uris, one_thread):
    return fsq.learn(uris, SPEC, seed=0, device="cpu")


def test_shapes_and_ranges(tokenizer):
    some = noise(5)
    codes = tokenizer.encode(some)
    assert [grid.shape for grid in codes] == [(2, 4)] * 5
    assert {grid.dtype for grid in codes} == {np.dtype(np.int64)}
    assert 0 <= np.min(codes) < np.max(codes) < 60 == len(tokenizer.tokens)
    assert tokenizer.decode(codes[0]).size == (16, 8)
    assert tokenizer.decode(codes[0]).mode == "RGB"
    assert tokenizer.encode([]) == []


def test_every_code_is_a_point_of_its_own(tokenizer):
    """What is decoded are the values that the encoder rounded to."""
    network = tokenizer.network
    pixels = fsq._pixels(noise(4))
    with torch.inference_mode():
        assert torch.equal(network.pixels(network.codes(pixels)), network(pixels))
        points = network.quantise.indices_to_codes(torch.arange(60).reshape(1, 6, 10))
    assert len(points.flatten(2)[0].T.unique(dim=0)) == 60


def test_frames_are_encoded_alike_alone_and_together(tokenizer):
    some = noise(40) + frames(3)
    together = tokenizer.encode(some)
    backwards = tokenizer.encode(some[::-1])[::-1]
    for frame, one, other in zip(some, together, backwards, strict=True):
        assert np.array_equal(tokenizer.encode([frame])[0], one)
        assert np.array_equal(one, other)


def test_a_code_depends_on_its_patch_alone(tokenizer):
    """And a pixel on the codes nearby alone."""
    some = [np.asarray(frame) for frame in noise(2)]
    mixed = np.where(np.arange(16)[None, :, None] < 8, *some)
    codes = tokenizer.encode([Image.fromarray(pixels) for pixels in [*some, mixed]])
    assert (codes[0] != codes[1]).any()
    assert codes[2].tolist() == np.hstack([codes[0][:, :2], codes[1][:, 2:]]).tolist()
    wide = np.zeros((1, 16), np.int64)
    far = wide.copy()
    far[0, 15] = 7
    one, other = (np.asarray(tokenizer.decode(grid)) for grid in (wide, far))
    assert (one[:, :20] == other[:, :20]).all()
    assert (one != other).any()


def test_it_learns(uris, one_thread):
    tokenizer = fsq.learn(uris, replace(SPEC, steps=100, batch=8, learning_rate=1e-2), seed=0, device="cpu")
    held = frames(6, seed=1)
    for frame, codes in zip(held, tokenizer.encode(held), strict=True):
        error = np.asarray(tokenizer.decode(codes), float) - np.asarray(frame, float)
        assert np.abs(error).mean() < 8  # a frame without its square is off by 12.5 and more


def test_the_same_seed_gives_the_same_weights(uris, tokenizer):
    torch.manual_seed(5)  # what others draw makes no difference
    before = torch.random.get_rng_state()
    again, other = (fsq.learn(uris, SPEC, seed=seed, device="cpu").network.state_dict() for seed in (0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(again[name], tensor) for name, tensor in tokenizer.network.state_dict().items())
    assert not torch.equal(again["encoder.0.weight"], other["encoder.0.weight"])


def test_frames_are_opened_when_they_are_drawn(uris, monkeypatch):
    opened, live = [], []
    open_image = images.open_image
    monkeypatch.setattr(images, "open_image", lambda frame: opened.append(frame) or open_image(frame))
    monkeypatch.setattr(progress.Bar, "advance", lambda self, **fields: live.append(len(opened)))
    fsq.learn(uris, SPEC, seed=0, device="cpu")
    assert live == [5, 9, 13]  # the first one for its size, and four at each step
    assert len(set(opened)) > 4


def test_texts(tokenizer):
    codes = np.array([[59, 0, 1, 2], [3, 4, 5, 6]])
    text = tokenizer.write(codes)
    assert text.startswith("<|i59|><|i0|>")
    assert tokenizer.parse(text).tolist() == codes.tolist()
    assert tokenizer.parse(text.replace("59", "60")) is None
    assert tokenizer.parse(text.replace("<|i0|>", "").replace("<|i3|>", "")) is None  # not a whole frame
    state = [{"type": "image", "image": images.data_uri(frames(1)[0])}]
    [written] = imagetokens.written(tokenizer, [state])
    assert imagetokens.written(tokenizer, [imagetokens.drawn(tokenizer, text)]) != [""]
    assert written.count("\n") == 1


def test_frames_of_other_sizes(uris, tokenizer, tmp_path):
    other = frames(1, width=20)[0]
    with pytest.raises(InputError, match=r"an image has 20x8 pixels, expected 16x8 .* resize it"):
        tokenizer.encode([*frames(1), other])
    other.save(tmp_path / "other.png")
    with pytest.raises(InputError, match=r"other\.png has 20x8 pixels, expected 16x8"):
        fsq.learn([uris[0], *[str(tmp_path / "other.png")] * 9], SPEC, seed=0, device="cpu")
    with pytest.raises(InputError, match=r"other\.png has 20x8 pixels, expected multiples of images\.patch = 8"):
        fsq.learn([str(tmp_path / "other.png")], replace(SPEC, patch=8), seed=0, device="cpu")


def test_settings_that_cannot_be(uris):
    with pytest.raises(InputError, match="no frames"):
        fsq.learn([], SPEC, seed=0, device="cpu")
    for levels in ((), (8, 2)):
        with pytest.raises(InputError, match=r"images\.levels is \[.*\], expected numbers from 3 up"):
            fsq.learn(uris, replace(SPEC, levels=levels), seed=0, device="cpu")


def test_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["autoencoder.safetensors", "image_tokenizer.json"]
    loaded = imagetokens.load(tmp_path)
    some = noise(3)
    assert np.array_equal(loaded.encode(some), tokenizer.encode(some))
    codes = loaded.encode(some)[0]
    assert loaded.decode(codes).tobytes() == tokenizer.decode(codes).tobytes()
    assert (loaded.size, loaded.grid, loaded.tokens) == ((16, 8), (2, 4), tokenizer.tokens)


def test_damaged_folders(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    card, weights = tmp_path / "image_tokenizer.json", tmp_path / "autoencoder.safetensors"
    whole = json.loads(card.read_text())
    for name in ("levels", "patch", "width", "size"):
        card.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        with pytest.raises(InputError, match="no whole image tokenizer"):
            imagetokens.load(tmp_path)
    card.write_text(json.dumps(whole | {"width": 24}))
    with pytest.raises(InputError, match=r"autoencoder\.safetensors has no whole image tokenizer"):
        imagetokens.load(tmp_path)
    card.write_text(json.dumps(whole))
    tensors = load_file(weights)
    save_file({name: tensor for name, tensor in tensors.items() if name != "decoder.0.bias"}, weights)
    with pytest.raises(InputError, match=r"autoencoder\.safetensors has no whole image tokenizer"):
        imagetokens.load(tmp_path)
    weights.write_bytes(weights.read_bytes()[:99])
    with pytest.raises(InputError, match="copy the folder again"):
        imagetokens.load(tmp_path)
    weights.unlink()
    with pytest.raises(InputError, match="copy the folder again"):
        imagetokens.load(tmp_path)


def test_the_library_that_is_not_installed_is_named(monkeypatch, uris):
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    with pytest.raises(MissingPartError, match=r"pip install '\.\[images\]'"):
        fsq.learn(uris, SPEC, seed=0, device="cpu")
