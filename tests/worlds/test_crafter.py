"""Crafter: the contract, the same frames for the same seed and actions, and what its behaviours do."""

import sys

import numpy as np
import pytest

from swirl import images, worlds
from swirl.errors import InputError, MissingPartError
from swirl.worlds import check_world
from swirl.worlds.crafter import ACTIONS, INSTALL, MOVES, missing

here = pytest.mark.skipif(missing() is not None, reason=f"Crafter is not installed: {INSTALL}")


@pytest.fixture(scope="module")
def world():
    """Two areas, by day and night; what was made of them is kept for all tests."""
    return worlds.make("crafter", areas=2)


def frames(world, seed, behaviour="wander", steps=60):
    """The frames of an episode, its actions and how it ended."""
    rng = np.random.default_rng(seed)
    states, actions, ends = [world.reset(seed)[0]], [], (False, False)
    while len(actions) < steps and not any(ends):
        actions.append(world.act(behaviour, rng))
        state, _, *ends, _ = world.step(actions[-1])
        states.append(state)
    return [np.asarray(images.open_image(state[0]["image"])) for state in states], actions, ends


@here
def test_the_contract_holds(world):
    assert not world.complete
    check_world(world, seeds=range(1), steps=25)


@here
def test_actions_are_those_of_the_simulator():
    import crafter

    assert [name.replace("_", " ") for name in crafter.constants.actions] == list(ACTIONS)


@here
def test_another_simulator_gives_the_same_frames(world):
    """As long as it takes for creatures to come and go, in whose order the package is not repeatable."""
    first, actions, _ = frames(world, 2, "random", 300)
    again, same, _ = frames(worlds.make("crafter", areas=1), 2, "random", 300)  # area 0, as here
    assert actions == same and len(first) > 100
    assert {frame.shape for frame in first} == {(64, 64, 3)}
    np.testing.assert_array_equal(first, again)


@here
def test_a_frame_of_63_pixels_is_the_cells_without_the_black_border(world):
    whole, actions, _ = frames(world, 2, "wander", 20)
    cells, same, _ = frames(worlds.make("crafter", areas=1, size=63), 2, "wander", 20)
    assert actions == same
    assert all(not frame[63].any() and not frame[:, 63].any() for frame in whole)
    np.testing.assert_array_equal([frame[:63, :63] for frame in whole], cells)


@here
def test_episodes_of_one_area_share_the_layout_and_not_their_chances(world):
    (one, info), (two, same) = world.reset(1), world.reset(3)
    assert info == same == {"layout": "area 1"} != world.reset(2)[1]
    assert one == two  # nothing has been drawn yet
    states = [[world.reset(seed), *(world.step("noop") for _ in range(30))][-1][0] for seed in (1, 3)]
    assert states[0] != states[1]


@here
def test_the_wanderer_gets_around_and_the_moves_are_seen(world):
    def cells(behaviour):
        seen = set()
        for seed in range(4):
            rng = np.random.default_rng(seed)
            world.reset(seed)
            for _ in range(100):
                *_, terminated, truncated, _ = world.step(world.act(behaviour, rng))
                seen.add((seed, *world._env._player.pos.tolist()))
                if terminated or truncated:
                    break
        return len(seen)

    assert cells("wander") > 2 * cells("random")
    for (dx, dy), action in MOVES.items():
        world.reset(0)
        before = world._env._player.pos.copy()
        world.step(action)
        assert (world._env._player.pos - before).tolist() in ([dx, dy], [0, 0])
        assert world._env._player.facing == (dx, dy)


@here
def test_without_night_a_frame_is_drawn_of_few_tiles(world):
    """9 x 7 cells of 7 x 7 pixels; by night noise makes every tile its own."""

    def tiles(frames):
        return {
            frame[7 * y : 7 * y + 7, 7 * x : 7 * x + 7].tobytes()
            for frame in frames
            for x in range(9)
            for y in range(7)
        }

    def at_midnight(world):
        world.reset(0)
        world._env._step = 205
        states = [world.step("noop")[0] for _ in range(6)]
        return [np.asarray(images.open_image(state[0]["image"])) for state in states]

    bright = worlds.make("crafter", areas=1, night=False)
    assert len(tiles(at_midnight(bright))) < 40 < 200 < len(tiles(at_midnight(world)))


@here
def test_an_episode_ends_in_death_or_at_its_length(world):
    short = worlds.make("crafter", areas=1, max_steps=3)
    assert frames(short, 0)[2] == [False, True]
    with pytest.raises(InputError, match=r"call reset\(seed\)"):
        short.step("noop")
    world.reset(0)
    world._env._player.health = 0
    assert world.step("noop")[2:4] == (True, False)


@here
def test_what_cannot_be_used_is_refused():
    with pytest.raises(InputError, match="areas is 0 and max_steps 10000: expected at least 1"):
        worlds.make("crafter", areas=0)
    with pytest.raises(InputError, match="size is 8: expected at least 9 pixels"):
        worlds.make("crafter", size=8)
    with pytest.raises(InputError, match="max_steps 0"):
        worlds.make("crafter", max_steps=0)


def test_a_missing_simulator_gives_its_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "crafter", None)
    with pytest.raises(MissingPartError, match=r"pip install '\.\[crafter\]'"):
        worlds.make("crafter")
    monkeypatch.setattr("swirl.worlds.crafter.find_spec", lambda name: None)
    assert worlds.availability("crafter") == INSTALL
