"""Prototypes of patches: all of them where there is room, else those that many patches are near to."""

import numpy as np
import pytest
from PIL import Image

from swirl import imagetokens
from swirl.config import Images
from swirl.errors import InputError
from swirl.images import data_uri
from swirl.imagetokens import vq

SPEC = Images(tokenizer="vq", patch=2, codes=4)


def frame(*colours):
    """A row of flat patches, two pixels square."""
    pixels = np.repeat(np.repeat(np.array([colours], np.uint8)[..., None], 2, 0), 2, 1).repeat(3, 2)
    return Image.fromarray(pixels)


def test_few_patches_are_all_kept_and_exact():
    shown = [data_uri(frame(0, 40, 40)), data_uri(frame(200, 0, 0))]
    tokenizer = vq.learn(shown, SPEC, seed=0)
    assert len(tokenizer.tokens) == 3
    for colours in ((0, 40, 200), (200, 200, 0)):
        [codes] = tokenizer.encode([frame(*colours)])
        assert np.array_equal(np.asarray(tokenizer.decode(codes)), np.asarray(frame(*colours)))


def test_of_many_patches_prototypes_are_the_middle_of_clusters():
    rng = np.random.default_rng(0)
    around = [(20, 60, 180, 240)[i % 4] + int(rng.integers(-3, 4)) for i in range(400)]
    shown = [data_uri(frame(*around[i : i + 8])) for i in range(0, 400, 8)]
    tokenizer = vq.learn(shown, SPEC, seed=0)
    assert len(tokenizer.tokens) <= 4
    [codes] = tokenizer.encode([frame(21, 59, 181, 239)])
    error = np.abs(np.asarray(tokenizer.decode(codes), int) - np.asarray(frame(21, 59, 181, 239), int))
    assert error.max() <= 5


def test_it_is_the_same_each_time_and_comes_back_from_disk(tmp_path):
    rng = np.random.default_rng(1)
    shown = [data_uri(Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))) for _ in range(6)]
    one, two = (vq.learn(shown, SPEC, seed=3) for _ in range(2))
    assert np.array_equal(one.tiles, two.tiles)
    one.save(tmp_path)
    assert np.array_equal(imagetokens.load(tmp_path).decode(np.array([[0, 1]])), one.decode(np.array([[0, 1]])))


def test_no_frames_are_an_error_with_its_mend():
    with pytest.raises(InputError, match="no frames to learn patches from; check"):
        vq.learn([], SPEC, seed=0)
