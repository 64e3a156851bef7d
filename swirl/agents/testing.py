"""The test of an agent's run: the policy of every stage on the seeds of validation, beside a perfect player."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from swirl.agents import clumsy, evaluation, measures
from swirl.agents.arena import Arena, WorldArena
from swirl.agents.episodes import Terms
from swirl.agents.replies import Form
from swirl.agents.settings import AgentRecipe

Rows = list[dict[str, Any]]
Load = Callable[[Path], tuple[Any, Any]]
"""A policy and its tokenizer, of a checkpoint."""


def measured(
    recipe: AgentRecipe,
    policies: Mapping[str, Path],
    arenas: Mapping[str, Arena],
    terms: Callable[[Form], Terms],
    load: Load,
) -> Rows:
    """Rows of `measures.measure` with the policy, the form of reply, the arena and the recipe's seed.

    Args:
        recipe: The run's.
        policies: Checkpoints by the name of the stage that made them, in order.
        arenas: Where they are tested, by name.
        terms: How episodes go, with replies in a form.
        load: Loads a checkpoint.
    """
    rows: Rows = []
    *_, last = policies
    for name, path in policies.items():
        model, tokenizer = load(path)
        samples = recipe.evaluation.last_samples if name == last else recipe.evaluation.samples
        for form in _forms(recipe, name):
            for where, arena in arenas.items():
                told = {"policy": name, "form": form, "arena": where, "seed": recipe.seed}
                rows += [told | row for row in sampled_and_greedy(model, tokenizer, arena, terms(form), samples)]
    return rows


def solved(recipe: AgentRecipe, arena: WorldArena, terms: Terms, tokenizer: Any, seed: int) -> Rows:
    """What a perfect player does on an agent's terms: how far a policy can hope to come. None where nobody is one."""
    if "solver" not in arena.world().behaviours:
        return []
    scenes = [arena.scenes(one, 1)[0] for one in arena.tested()]
    player = clumsy.cast(tokenizer, 0.0, terms)
    episodes = evaluation.play_all(player, tokenizer, arena, scenes, terms, seed, "solver")
    found = [row for row in measures.measure(episodes, [1], terms.part) if row["metric"] in ("pass_at_1", "steps")]
    told = {"policy": "solver", "form": terms.form, "arena": "real", "seed": recipe.seed}
    return [told | row for row in found]


def sampled_and_greedy(model: Any, tokenizer: Any, arena: Arena, terms: Terms, samples: int) -> Rows:
    """Rows of `measures.measure` of a policy, `samples` episodes of each seed, and Pass@1 of its greedy ones."""
    found = evaluation.tested(model, tokenizer, arena, terms, samples)
    greedy = evaluation.tested(model, tokenizer, arena, terms, 1, 0.0)
    [first] = [row for row in greedy if row["metric"] == "pass_at_1"]
    return [*found, {**first, "metric": "greedy_pass_at_1"}]


def _forms(recipe: AgentRecipe, name: str) -> tuple[Form, ...]:
    """The forms of reply that a stage's policy is measured in: its own, and of a start what follows."""
    forms: dict[Form, None] = {recipe.rl.form: None}
    if name != "rl" and recipe.method == "spa":
        forms["states"] = None
    return tuple(forms)
