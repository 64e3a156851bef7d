"""Whether every text that a run's phases will encode fits `model.max_length`; said before anything is trained.

What is counted is what the recipe's methods read: `pretrain` has the inverse model write the change of every pair,
which can be as long as both states; methods that label put an inferred action beside every pair, as long as the
inverse model may write it; validation and test are asked of both roles.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from swirl import prompts
from swirl.config import Recipe
from swirl.models import load_tokenizer
from swirl.types import ROLES, Role, state_text

ROWS = 1000
"""Rows that are held at once."""
NOT_INFERRED = {"pretrain", "warmup", "early-experience", "oracle"}
"""Methods that train on no inferred action."""


class _Asked(NamedTuple):
    """A role's prompt for a row, its completion, and the tokens that an action which is yet to be inferred may take."""

    role: Role
    row: dict[str, Any]
    completion: str
    inferred: int = 0


def check_lengths(recipe: Recipe, folder: Path, tokenizer_path: Path, inferred: int) -> None:
    """Refuse transitions that do not fit `model.max_length`.

    Args:
        recipe: The resolved recipe.
        folder: Holds the four files.
        tokenizer_path: Checkpoint that both roles start from.
        inferred: Longest action that the inverse model may write, in tokens.

    Raises:
        InputError: Names the first such row.
    """
    spec = recipe.model
    tokenizer = load_tokenizer(tokenizer_path, spec.trust_remote_code)
    known: dict[str, int] = {}

    def tokens(text: str) -> int:
        if text not in known:
            known[text] = len(prompts.encode_completion(tokenizer, text))
        return known[text]

    def about(asked: _Asked) -> int:
        """At least as many tokens as the prompt and the completion have: each text alone, and some to spare."""
        row, style = asked.row, spec.prompt
        given = row["action"] if asked.role == "forward" else prompts.shown(style, row["state"], row["next_state"])
        past = sum(tokens(state_text(text)) + frame for text in row.get("history") or ())
        return frame + past + tokens(row["state"]) + tokens(given) + tokens(asked.completion) + asked.inferred + 16

    blank = [prompts.prompt(role, "", "", (), spec.prompt) for role in ROLES]
    frame = max(len(prompts.encode_prompt(tokenizer, turns, **spec.chat_template_kwargs)) for turns in blank)
    for name in ("labelled", "state_only", "validation", "test"):
        with pq.ParquetFile(folder / f"{name}.parquet") as file:
            for batch in file.iter_batches(ROWS):
                for row in batch.to_pylist():
                    for asked in _asked(recipe, name, row, inferred):
                        if about(asked) > spec.max_length:
                            prompts.encode(
                                tokenizer,
                                asked.role,
                                asked.row,
                                spec.prompt,
                                spec.max_length,
                                asked.completion,
                                room=asked.inferred,
                                **spec.chat_template_kwargs,
                            )


def _asked(recipe: Recipe, name: str, row: dict[str, Any], inferred: int) -> Iterator[_Asked]:
    """What the recipe's methods, and the evaluation, ask about a row of a file."""
    style, runs = recipe.model.prompt, _runs(recipe)
    if "pretrain" in runs and name in ("labelled", "state_only"):
        for role in ("forward",) if prompts.in_change_form(style) else ROLES:
            yield _Asked(role, *prompts.pretext(role, {**row, "action": ""}, style))
    if name in ("validation", "test") or (name == "labelled" and runs & {"warmup", "verified", "swirl"}):
        for role in ROLES:
            yield _Asked(role, row, prompts.target(role, row, style))
    if name == "state_only" and runs - NOT_INFERRED:
        for role in ROLES:
            yield _Asked(role, {**row, "action": ""}, prompts.target(role, {**row, "action": ""}, style), inferred)


def _runs(recipe: Recipe) -> set[str]:
    """The methods of the recipe that have something to do."""
    amount = {"warmup": recipe.warmup.steps, "verified": recipe.verified.rounds, "swirl": recipe.swirl.rounds}
    return {name for name in recipe.methods if amount.get(name, 1)}
