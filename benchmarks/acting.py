"""What the tables of agents and of planning stand on: a world's starting agent, and a learned model of the world.

Both are made once for a world and seed. The model has seen no layout that agents are tested on, and both act in the
world of the agent's recipe, so that one can plan for the other.
"""

import json
from pathlib import Path

import running

from swirl.agents import settings
from swirl.config import Recipe
from swirl.recipe import load_recipe

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
MODEL = RECIPES / "minigrid.toml"
"""Of learned models, in other worlds."""


def recipe_of(world: str) -> Path:
    """The agent's recipe."""
    return RECIPES / f"spa-{world}.toml"


def options(world: str) -> list[str]:
    """Options of the world that the agent acts in, as commands take them."""
    return [word for key, value in _options(world).items() for word in ("--option", f"{key}={json.dumps(value)}")]


def model_spec(world: str, seed: int) -> Recipe:
    """The learned model's recipe."""
    return load_recipe(MODEL, _of_model(world, seed))


def recipes(world: str, seed: int) -> str:
    """The recipes of the start and of the learned model, resolved: what a kept file of both is known by."""
    return settings.load(recipe_of(world), _of_start(seed)).toml() + "\n" + model_spec(world, seed).toml()


def start(world: str, seed: int, runs: Path) -> tuple[Path, str]:
    """The run whose policy agents begin with, made or continued; what went wrong, or ""."""
    out = runs / "agents" / world / f"start-seed{seed}"
    return out, running.swirl(["agent", "train", str(recipe_of(world))], _of_start(seed), out)


def learn(world: str, seed: int, start: Path, runs: Path) -> tuple[Path, str]:
    """The run of a learned model, made or continued, without the layouts of a start; what went wrong, or ""."""
    out = runs / "models" / f"{world}-seed{seed}"
    given = {**_of_model(world, seed), "data.leave_out": str(start / "layouts.txt")}
    return out, running.swirl(["train", str(MODEL)], given, out)


def _options(world: str) -> dict[str, object]:
    return settings.load(recipe_of(world)).play.options


def _of_start(seed: int) -> dict[str, str]:
    untrained = {"method": "rl", "rl.iterations": "0", "evaluation.samples": "1", "evaluation.last_samples": "1"}
    return {"seed": str(seed), **untrained}


def _of_model(world: str, seed: int) -> dict[str, str]:
    written = ", ".join(f"{key} = {json.dumps(value)}" for key, value in _options(world).items())
    of_data = {"data.world": world, "data.options": f"{{ {written} }}"}
    return {"seed": str(seed), **of_data, "model.tokens": "phrases"}
