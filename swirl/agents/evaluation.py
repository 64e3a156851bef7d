"""How well a policy plays the seeds of validation, and episodes in batches for whoever needs many."""

from collections.abc import Callable, Sequence
from typing import Any

from swirl import progress
from swirl.agents import measures
from swirl.agents.arena import Arena, Scene
from swirl.agents.episodes import Episode, Plays, Terms, play
from swirl.agents.player import Player
from swirl.order import seed_of

BATCH = 128
"""Episodes that are played at once."""

Cast = Callable[[Sequence[Scene], int], Plays]
"""A player for some scenes, with a seed of its chances."""


def play_all(
    cast: Cast, tokenizer: Any, arena: Arena, scenes: Sequence[Scene], terms: Terms, seed: int, title: str
) -> list[Episode]:
    """Episodes of any number of scenes, `BATCH` at once, with a progress bar; see `play`."""
    episodes = []
    with progress.bar(title, len(scenes)) as bar:
        for start in range(0, len(scenes), BATCH):
            some = scenes[start : start + BATCH]
            episodes += play(cast(some, seed_of(seed, start)), tokenizer, arena, some, terms, bar)
    return episodes


def policy(model: Any, tokenizer: Any, terms: Terms, temperature: float = 1.0) -> Cast:
    """A policy as a cast."""
    return lambda scenes, seed: Player(model, tokenizer, terms.reply, temperature, seed)


def tested(
    model: Any, tokenizer: Any, arena: Arena, terms: Terms, samples: int, temperature: float = 1.0, seed: int = 0
) -> list[dict[str, Any]]:
    """Rows of `measures.measure` over the seeds of validation.

    Args:
        model: The policy.
        tokenizer: Its tokenizer.
        arena: Where it plays.
        terms: How episodes go.
        samples: Episodes of each seed.
        temperature: 0 is greedy.
        seed: Of the sampling.
    """
    scenes = [scene for one in arena.tested() for scene in arena.scenes(one, samples)]
    cast = policy(model, tokenizer, terms, temperature)
    ks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= samples]
    return measures.measure(play_all(cast, tokenizer, arena, scenes, terms, seed, "test"), ks, terms.part)
