"""What a path means where a model is asked for, and how its checkpoint was trained to be prompted."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swirl import models
from swirl.config import Model, Recipe
from swirl.errors import InputError
from swirl.recipe import load_recipe, parse_recipe
from swirl.types import Role


def resolve(path: str | Path, role: Role, template: Mapping[str, Any] | None = None) -> tuple[Path, Recipe]:
    """The checkpoint that a path means for a role, and the recipe that says how to prompt it.

    A checkpoint that a run made carries `swirl.json`, which says how it was trained to be asked; any other is asked
    zero-shot, with an instruction, and its thinking switched off where its chat template can (`enable_thinking`).

    Args:
        path: A run folder (its latest checkpoint of the role), a phase of a run, or any `transformers` checkpoint: a
            folder, or a name that `transformers` can resolve.
        role: Which of the two models.
        template: Given to the chat template of a checkpoint that no run made, over that switch.

    Raises:
        InputError: There is no such folder, or it holds no model for the role.
    """
    asked = {"enable_thinking": False, **(template or {})}  # what a template does not know it does not read
    checkpoint = models.located(path)
    fallback = Recipe(model=Model(prompt="instruct", max_length=0, chat_template_kwargs=asked))
    if (checkpoint / "ledger.json").is_file():
        if not (checkpoint / "results.json").is_file():
            raise InputError(
                f"{path} has no results yet; let `swirl train` finish a method, or name a folder under phases/"
            )
        fallback = load_recipe(checkpoint / "recipe.toml")
        checkpoint = checkpoint / json.loads((checkpoint / "results.json").read_text())[role]
    if models.located(checkpoint).exists() and not (checkpoint / "config.json").is_file():
        raise InputError(f"{path} is neither a run folder (no ledger.json) nor a checkpoint (no config.json)")
    if not (checkpoint / "swirl.json").is_file():
        return checkpoint, fallback
    card = json.loads((checkpoint / "swirl.json").read_text())
    if role not in card["roles"]:
        raise InputError(f"{path} is a checkpoint of the {card['roles'][0]} model, expected one of the {role} model")
    return checkpoint, parse_recipe({name: card[name] for name in ("model", "data", "evaluation")})
