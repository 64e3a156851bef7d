"""A world with its images as tokens is the world in everything but how a state is written."""

import numpy as np
import pytest

from swirl import images, imagetokens
from swirl.config import Images
from swirl.imagetokens import tile
from swirl.types import state_text
from swirl.worlds import make
from swirl.worlds.written import WrittenWorld

ROOM = {"environments": ["MiniGrid-Fetch-5x5-N2-v0"], "max_steps": 12, "view": "image"}


def play(world, seed, behaviour):
    """All that an episode of at most 12 steps says."""
    rng, out = np.random.default_rng(seed), [world.reset(seed)]
    for _ in range(12):
        action = world.act(behaviour, rng)
        out.append((action, *world.step(action)))
        if out[-1][3] or out[-1][4]:
            break
    return out


@pytest.fixture(scope="module")
def tokenizer():
    world, frames = make("minigrid", **ROOM), set()
    for seed in range(6):
        (state, _), *steps = play(world, seed, "random")
        frames |= {part["image"] for parts in (state, *(step[1] for step in steps)) for part in parts}
    return tile.learn(sorted(frames), Images(tile=8))


def test_an_episode_is_the_worlds_with_its_images_as_tokens(tokenizer):
    world, written = make("minigrid", **ROOM), WrittenWorld(make("minigrid", **ROOM), tokenizer)
    for name in ("name", "behaviours", "complete", "repeatable"):
        assert getattr(written, name) == getattr(world, name)
    for behaviour in world.behaviours:
        (state, info), *steps = play(world, 3, behaviour)
        (told, said), *taken = play(written, 3, behaviour)
        assert said == info
        assert len(taken) == len(steps) > 1
        for (action, after, *rest), (did, read, *others) in zip(steps, taken, strict=True):
            assert (did, others) == (action, rest)
            assert isinstance(read, str)
            (part,) = imagetokens.drawn(tokenizer, read)
            np.testing.assert_array_equal(*(images.open_image(p["image"]) for p in (part, after[0])))
            assert written.actions(read) == world.actions(state_text(after))
        assert told == imagetokens.written(tokenizer, [state])[0]
    world.close()
    written.close()


def test_words_stay_as_they_are(tokenizer):
    lake = {"size": 3}
    world, written = make("frozenlake", **lake), WrittenWorld(make("frozenlake", **lake), tokenizer)
    assert [play(written, 1, b) for b in world.behaviours] == [play(world, 1, b) for b in world.behaviours]
