"""`grpo_episodes()`: TRL's GRPO on episodes of many turns, which TRL lets a function of ours play.

`rollout_func` is experimental in TRL 1.16. What it gives is what a completion is otherwise: here all that follows an
episode's first prompt, with a mask on what the agent wrote.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from swirl import train
from swirl.config import Model
from swirl.fit import Select, fit


def grpo_episodes(
    start: Path,
    seeds: Sequence[int],
    rollout: Callable[[list[int], Any], dict[str, Any]],
    out: Path,
    *,
    schedule: train.Schedule,
    group: int,
    micro: int,
    clip: tuple[float, float],
    model: Model,
    select: Select,
    device: str = "auto",
    title: str = "grpo",
) -> Path:
    """Group-relative policy optimisation of a policy on whole episodes, without a KL term.

    Args:
        start: Checkpoint to start from.
        seeds: Of the episodes, one for every group of every step, in order.
        rollout: Plays episodes: seeds, each as often as it has episodes, and the trainer (`model`, `processing_class`,
            `state.global_step`), to lists `prompt_ids`, `completion_ids`, `env_mask` (1 on the agent's tokens) and
            `score`, and what else is to be logged, a number per episode.
        out: Folder that becomes the checkpoint; an interrupted phase left here is continued.
        schedule: Steps, batch (groups per step) and learning rate, which is constant.
        group: Episodes of a seed (G).
        micro: Episodes of a forward pass.
        clip: How far a ratio may fall below 1 and rise above it.
        model: How to load and adapt the model.
        select: Which of the saved checkpoints to keep.
        device: As in the recipe.
        title: Shown in the progress bar.

    Returns:
        `out`.
    """
    # TRL gives a rollout nothing but prompts.
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": str(seed)}]} for seed in seeds])

    def reward(completions: Any, log_metric: Callable[[str, float], None], **columns: Any) -> list[float | None]:
        for name in columns["logged"][0]:
            log_metric(name, sum(row[name] for row in columns["logged"]) / len(completions))
        return columns["score"]

    def play(prompts: list[Any], trainer: Any) -> dict[str, Any]:
        played = rollout([int(turns[-1]["content"]) for turns in prompts], trainer)
        known = ("prompt_ids", "completion_ids", "env_mask", "score")
        others = [dict(zip(played, row, strict=True)) for row in zip(*played.values(), strict=True)]
        logged = [{name: value for name, value in row.items() if name not in known} for row in others]
        return {**{name: played[name] for name in known}, "logprobs": None, "logged": logged}

    rows = schedule.batch * group
    options = train.options_of(out, schedule, rows, model, device, {"per_device_train_batch_size": micro}) | train.GRPO
    options |= {
        "num_generations": group,
        "steps_per_generation": options["gradient_accumulation_steps"],
        "lr_scheduler_type": "constant",
        "loss_type": "dapo",
        "scale_rewards": "group",
        "importance_sampling_level": "token",
        "beta": 0.0,
        "epsilon": clip[0],
        "epsilon_high": clip[1],
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
    }

    def build(policy: Any, tokenizer: Any, callbacks: list[Any]) -> GRPOTrainer:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are using 'rollout_func'", UserWarning)  # known, see above
            return GRPOTrainer(
                model=policy,
                reward_funcs=reward,
                args=GRPOConfig(**options),
                train_dataset=data,
                processing_class=tokenizer,
                callbacks=callbacks,
                rollout_func=play,
                peft_config=train.adapters(model),
            )

    return fit(start, out, schedule.steps, model, select, title, build)
