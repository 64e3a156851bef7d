"""MiniGrid drawn: a frame can be read back tile by tile, so it says all that the text says."""

import numpy as np
import pytest
from minigrid.core.constants import COLOR_NAMES, OBJECT_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.world_object import Ball, Box, Door, Floor, Goal, Key, Lava, Wall

from swirl import images
from swirl.errors import InputError
from swirl.worlds import check_world, make
from swirl.worlds.minigrid import layout

ROOMS = [f"MiniGrid-{name}-v0" for name in ("DoorKey-8x8", "Fetch-8x8-N3", "GoToDoor-8x8", "PutNear-8x8-N3")]
EMPTY = (OBJECT_TO_IDX["empty"], 0, 0)


def tiles():
    """What MiniGrid draws, as (its code, the agent's direction) by pixels: every thing, and the agent on it."""
    things = [None, Wall(), Goal(), Lava(), *(kind(c) for kind in (Key, Ball, Box, Floor) for c in COLOR_NAMES)]
    things += [Door(c, is_open, locked) for c in COLOR_NAMES for is_open, locked in ((1, 0), (0, 0), (0, 1))]
    out = {}
    for thing in things:
        for direction in (None, 0, 1, 2, 3) if thing is None or thing.can_overlap() else (None,):
            pixels = Grid.render_tile(thing, direction, tile_size=8).astype(np.uint8).tobytes()
            assert pixels not in out, "two things that look the same"
            out[pixels] = thing.encode() if thing else EMPTY, direction
    return out


TILES = tiles()


def frame(state):
    [part] = state
    assert part["type"] == "image"
    return np.asarray(images.open_image(part["image"]))


def read(pixels):
    """The grid as `Grid.encode` gives it but for its corner, the agent, and the code of what is in the corner."""
    height, width = pixels.shape[0] // 8, pixels.shape[1] // 8
    grid, agents = np.zeros((width, height, 3), np.uint8), []
    for x in range(width):
        for y in range(height):
            grid[x, y], direction = TILES[pixels[8 * y : 8 * y + 8, 8 * x : 8 * x + 8].tobytes()]
            if direction is not None:
                agents.append((x, y, direction))
    corner = tuple(grid[0, 0].tolist())
    grid[0, 0] = Wall().encode()
    [agent] = agents
    return grid, agent, corner


@pytest.mark.parametrize("environment", [*ROOMS, "MiniGrid-UnlockPickup-v0", "MiniGrid-LavaGapS5-v0"])
def test_the_frame_is_the_full_state(environment):
    world = make("minigrid", environments=[environment], max_steps=60, view="image")
    carried = set()
    for seed in range(3):
        for behaviour in world.behaviours:
            rng = np.random.default_rng(seed)
            state, info = world.reset(seed)
            env, ended = world._env, False
            while True:
                grid, agent, corner = read(frame(state))
                np.testing.assert_array_equal(grid, env.grid.encode())
                assert agent == (*env.agent_pos, env.agent_dir)
                assert corner == (env.carrying.encode() if env.carrying else Wall().encode())
                assert layout(world._text) == info["layout"]
                carried.add(corner)
                if ended:
                    break
                state, _, terminated, truncated, _ = world.step(world.act(behaviour, rng))
                ended = terminated or truncated
    assert (len(carried) > 1) == (environment not in ("MiniGrid-LavaGapS5-v0", "MiniGrid-GoToDoor-8x8-v0"))


def test_the_view_changes_nothing_but_the_state():
    worlds = [make("minigrid", environments=ROOMS, view=view) for view in ("text", "image")]
    seen = {}
    for seed in range(8):
        rng = np.random.default_rng(seed)
        (text, info), (drawn, same) = [world.reset(seed) for world in worlds]
        assert info == same
        for _ in range(40):
            assert frame(drawn).shape == (64, 64, 3)
            assert seen.setdefault(text, drawn) == drawn
            action = worlds[0].act("curious", rng)
            (text, *rest), (drawn, *others) = [world.step(action) for world in worlds]
            assert rest == others
            if rest[1] or rest[2]:
                break
    assert len(seen) == len({state[0]["image"] for state in seen.values()}) > 60


def test_the_contract_holds():
    check_world(make("minigrid", environments=ROOMS, view="image"), seeds=range(4), steps=20)


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(InputError, match="unknown view 'pixels': expected one of 'text', 'image'"):
        make("minigrid", view="pixels")
    hidden = "MiniGrid-ObstructedMaze-1Dlh-v0"
    with pytest.raises(InputError, match=f"{hidden}' puts things into boxes, .* give view = 'text'"):
        make("minigrid", environments=hidden, view="image").reset(0)
    assert "holding key" in make("minigrid", environments=hidden).reset(0)[0]
