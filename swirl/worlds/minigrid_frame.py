"""MiniGrid's grid as a picture that says everything the next state depends on.

A tile of 8 x 8 pixels for each cell, drawn by MiniGrid: the same thing, and agent that looks the same way, is the same
tile wherever it is. There is no highlight of what the agent sees. What the agent carries is drawn in the top left
corner of the grid, in place of the wall there, as it would lie on the floor. That place is free: the agent never
stands on the border, so it never faces a corner.
"""

from typing import Any

import numpy as np
from PIL import Image

PIXELS = 8
"""Of a tile's side."""


def draw(env: Any) -> Image.Image:
    """The grid of a MiniGrid environment with its agent, and what that carries."""
    from minigrid.core.grid import Grid

    grid, agent = env.grid, (int(env.agent_pos[0]), int(env.agent_pos[1]))
    pixels = np.zeros((grid.height, PIXELS, grid.width, PIXELS, 3), np.uint8)
    for index, thing in enumerate(grid.grid):
        y, x = divmod(index, grid.width)
        facing = env.agent_dir if (x, y) == agent else None
        pixels[y, :, x] = Grid.render_tile(thing, facing, tile_size=PIXELS)  # which keeps the tiles it has drawn
    if env.carrying:
        pixels[0, :, 0] = Grid.render_tile(env.carrying, tile_size=PIXELS)
    return Image.fromarray(pixels.reshape(grid.height * PIXELS, grid.width * PIXELS, 3))
