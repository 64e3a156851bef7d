"""The group-relative variant of the third stage: TRL's GRPO, with episodes played by us.

What an episode is worth is told against the others of its seed, and there is no critic. Every group is trained on: one
whose episodes all fared alike has no gradient.
"""

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from swirl import durable, models, train
from swirl.agents.arena import Arena
from swirl.agents.episodes import Episode, Terms, play, worth
from swirl.agents.player import Player
from swirl.agents.settings import RL
from swirl.config import Model
from swirl.order import seed_of
from swirl.train_episodes import grpo_episodes


def learn(
    start: Path,
    out: Path,
    arena: Arena,
    terms: Terms,
    settings: RL,
    *,
    model: Model,
    seed: int,
    device: str,
    validate: Callable[[Any, Any], dict[str, Any]],
) -> Path:
    """Train a policy by GRPO; arguments as those of `swirl.agents.ppo_trainer.learn`."""

    def rollout(seeds: list[int], trainer: Any) -> dict[str, Any]:
        policy = trainer.accelerator.unwrap_model(trainer.model)
        scenes = [arena.scenes(one, 1)[0] for one in seeds]
        drawn = seed_of(seed, trainer.state.global_step)
        player = Player(policy, trainer.processing_class, terms.reply, seed=drawn)
        policy.eval()  # as TRL has it while it generates
        episodes = play(player, trainer.processing_class, arena, scenes, terms)
        policy.train()
        told = [_told(episode) for episode in episodes]
        return {
            **{name: [row[name] for row in told] for name in told[0]},
            "score": [worth(episode, terms.part, settings) for episode in episodes],
            "success": [float(episode.success) for episode in episodes],
            "steps": [float(episode.steps) for episode in episodes],
        }

    def select(found: list[Path]) -> Path:
        curve = []
        for number, path in zip(schedule.saved[1:], found[1:], strict=True):
            policy, tokenizer = models.load(path, models.device_of(device), model.dtype, model.trust_remote_code)
            curve.append({"iteration": number, **validate(policy, tokenizer)})
        _write_log(out / "log.jsonl", curve, settings.groups * settings.size)
        return found[-1]

    saves = max(1, settings.iterations // settings.save_every)
    schedule = train.Schedule(
        settings.iterations, settings.groups, settings.learning_rate, 0.0, seed, saves, settings.max_grad_norm
    )
    return grpo_episodes(
        start,
        list(chain.from_iterable(arena.drawn(i, settings.groups) for i in range(settings.iterations))),
        rollout,
        out,
        schedule=schedule,
        group=settings.size,
        micro=settings.micro,
        clip=(settings.clip_low, settings.clip_high),
        model=model,
        select=select,
        device=device,
        title="grpo",
    )


def _told(episode: Episode) -> dict[str, list[int]]:
    """An episode as TRL has it: a first prompt, and a completion with a mask on what the agent wrote."""
    first, *_ = episode.turns
    pieces = [(first.reply, 1)]
    for turn in episode.turns[1:]:
        pieces += [(turn.prompt, 0), (turn.reply, 1)]
    return {
        "prompt_ids": first.prompt,
        "completion_ids": [token for ids, _ in pieces for token in ids],
        "env_mask": [own for ids, own in pieces for _ in ids],
    }


def _write_log(file: Path, curve: list[dict[str, Any]], episodes: int) -> None:
    """The trainer's log in the words of `ppo_trainer`, with what validation found."""
    found = {row["iteration"]: row for row in curve}
    rows = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        row = json.loads(line)
        rows.append(
            {
                "iteration": number,
                "success": row["success"],
                "score": row["reward"],
                "steps": round(row["steps"] * episodes),
                "episodes": episodes,
                "entropy": row.get("entropy"),
                **found.get(number, {}),
            }
        )
    durable.atomic_write(file, "".join(json.dumps(row) + "\n" for row in rows))
