"""A trained agent, loaded: to measure it, to watch it, or to have it propose actions to a planner.

agent = load("runs/sokoban")
agent.measure()      # rows, on layouts that it was never trained on
agent.play(seed=3)   # an episode, turn by turn
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from swirl import models, progress
from swirl.agents import evaluation, settings, testing
from swirl.agents.arena import WorldArena
from swirl.agents.episodes import Episode, Terms
from swirl.agents.replies import Form
from swirl.agents.settings import AgentRecipe
from swirl.errors import InputError
from swirl.eval.rows import interval


def arena_of(recipe: AgentRecipe) -> WorldArena:
    """Where a recipe's agent acts."""
    return WorldArena(recipe.play.world, recipe.play.options, recipe.evaluation.seeds, recipe.seed)


def terms_of(recipe: AgentRecipe, form: Form) -> Terms:
    """How a recipe's episodes go, with replies in a form."""
    play, model = recipe.play, recipe.model
    return Terms(
        turns=play.turns,
        per_turn=play.per_turn,
        actions=play.actions,
        penalty=play.penalty,
        reply=play.reply,
        form=form,
        part=play.part,
        told=play.told,
        max_length=model.max_length,
        template=model.chat_template_kwargs,
        context=play.context,
    )


@dataclass(frozen=True)
class Agent:
    """A policy, and how it plays.

    Attributes:
        recipe: How it plays; replies are in the form of `rl.form`.
        path: Its checkpoint.
    """

    recipe: AgentRecipe
    path: Path

    @cached_property
    def loaded(self) -> tuple[Any, Any]:
        """Model and tokenizer."""
        spec = self.recipe.model
        torch.set_num_threads(self.recipe.threads)
        return models.load(self.path, models.device_of(self.recipe.device), spec.dtype, spec.trust_remote_code)

    @property
    def terms(self) -> Terms:
        """How its episodes go."""
        return terms_of(self.recipe, self.recipe.rl.form)

    def measure(self) -> list[dict[str, Any]]:
        """Rows of `measures.measure` on the seeds of validation, `evaluation.samples` episodes of each, one greedy."""
        arena, samples = arena_of(self.recipe), self.recipe.evaluation.samples
        return testing.sampled_and_greedy(*self.loaded, arena, self.terms, samples)

    def play(self, seed: int) -> Episode:
        """The greedy episode of a seed of the world."""
        arena, (model, tokenizer) = arena_of(self.recipe), self.loaded
        cast = evaluation.policy(model, tokenizer, self.terms, temperature=0.0)
        [episode] = evaluation.play_all(cast, tokenizer, arena, arena.scenes(seed, 1), self.terms, 0, "play")
        return episode


def load(path: str | Path, overrides: Mapping[str, str] | None = None) -> Agent:
    """An agent of a run folder, or a model that plays by a recipe.

    Args:
        path: A run folder of `swirl agent train`, or a recipe whose `model.name` is the policy.
        overrides: Of the recipe; `model.name` puts another policy in the place of the run's.

    Raises:
        InputError: There is no such run or recipe, the run has no policy yet, or the recipe's is made by a run.
    """
    folder, named = Path(path), "model.name" in (overrides or {})
    if not (folder / "ledger.json").is_file():
        recipe = settings.load(path, overrides)
        if recipe.model.name == "tiny":
            raise InputError(f"{path}: its model is 'tiny', which a run makes; give a run folder, or --model.name")
        return Agent(recipe, models.located(recipe.model.name))
    found = folder / "results.json"
    results = json.loads(found.read_text()) if found.is_file() else {}
    if "policy" not in results:
        raise InputError(f"{path} has no policy; give a run of `swirl agent train` that is finished")
    recipe = settings.load(folder / "recipe.toml", overrides)
    return Agent(recipe, models.located(recipe.model.name) if named else folder / results["policy"])


def show(agent: Agent, seed: int | None, as_json: bool = False) -> None:
    """Print what an agent does: an episode of a seed, or without one how it fares on the seeds of validation.

    Raises:
        InputError: The seed is below 0, or the agent cannot play.
    """
    if seed is not None:
        if seed < 0:
            raise InputError(f"--episode {seed}, expected at least 0")
        episode = agent.play(seed)
        print(json.dumps(asdict(episode)) if as_json else in_words(episode))
        return
    rows = agent.measure()
    if as_json:
        print(json.dumps(rows))
        return
    cells = [[row["metric"], row["value"], interval(row), row["n"]] for row in rows]
    progress.table(f"{agent.path}: layouts never trained on", ["metric", "value", "95 %", "of"], cells)


def in_words(episode: Episode) -> str:
    """An episode to read: of each turn the state, the reply, and what its actions brought."""
    blocks = []
    for number, turn in enumerate(episode.turns, 1):
        done = ", ".join(f"{a} {r:g}" for a, r in zip(turn.actions, turn.rewards, strict=True)) or "no action"
        penalty = f"; {turn.penalty:g} for what cannot be read or taken" if turn.penalty else ""
        blocks.append(f"--- turn {number}\n{turn.state}\n{turn.text}\n{done}{penalty}")
    end = "success" if episode.success else "ended by the world" if episode.ended else "broken off"
    last = episode.turns[-1].after
    return "\n\n".join([*blocks, f"--- {end}, score {episode.score:g}, {episode.steps} actions\n{last}"])
