"""docs/recipe.md: every key of a recipe, from the docstrings beside the keys. `python docs/keys.py` writes it."""

import ast
import dataclasses
import inspect
import json
import sys
import typing
from pathlib import Path
from typing import Any, Literal

from swirl.agents.settings import AgentRecipe
from swirl.config import Recipe

PAGE = Path(__file__).parent / "recipe.md"
TOP = """\
# Recipe keys

A recipe is a TOML file. Every key has a default, any key can be given on the command line (`--warmup.steps 50`; a plain
key of the first table as `--seed 1`), and an unknown key is an error that names the nearest. A run folder holds its
resolved recipe, with every key, as `recipe.toml`. The recipes that come with swirl are listed in
[recipes/README.md](../recipes/README.md).

This page is written by `python docs/keys.py` from `swirl/config.py` and `swirl/agents/settings.py`.

## Models

Read by `swirl train` and `swirl compare`.
"""
AGENTS = """
## Agents

Read by `swirl agent train`; see [agents](agents.md).
"""


def page() -> str:
    """The text of the page."""
    return TOP + tables(Recipe) + AGENTS + tables(AgentRecipe)


def tables(recipe: type) -> str:
    """The plain keys of a recipe, then its sections."""
    hints = typing.get_type_hints(recipe)
    sections = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    text = table(recipe, [name for name in hints if name not in sections])
    for name, section in sections.items():
        text += f"\n### [{name}]\n\n{plain(inspect.getdoc(section) or '')}\n"
        text += table(section, [field.name for field in dataclasses.fields(section)])
    return text


def table(section: Any, names: list[str]) -> str:
    """Keys, their defaults and what they mean."""
    told, hints, default = docstrings(section), typing.get_type_hints(section), section()
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for name in names:
        meaning = plain(told[name])
        if typing.get_origin(hints[name]) is Literal:
            meaning += " One of " + ", ".join(f"`{choice}`" for choice in typing.get_args(hints[name])) + "."
        rows.append(f"| `{name}` | {written(getattr(default, name))} | {meaning} |")
    return "\n" + "\n".join(rows) + "\n"


def docstrings(section: type) -> dict[str, str]:
    """Name of a key -> the string that stands below it; keys that have none are absent."""
    [tree] = ast.parse(inspect.getsource(section)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        key.target.id: ast.literal_eval(below.value)
        for key, below in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


def plain(text: str) -> str:
    """A docstring as a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def written(value: Any) -> str:
    """A default as a recipe would have it."""
    return f"`{json.dumps(value)}`" if value not in ({}, ()) else "`{}`" if value == {} else "`[]`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit()
