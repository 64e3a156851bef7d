"""`sft()` and `grpo()`: a checkpoint path and rows in, a checkpoint path out.

Only this file and the two trainers (`sft_trainer.py`, `grpo_trainer.py`) import TRL (1.16); `fit.py` keeps a phase
exactly resumable. What that needs from here:
- the data set of a phase holds exactly the rows of its steps, in order, so training never leaves epoch 0 and no sampler
  has a state of its own;
- checkpoints fall on generation boundaries, for generations in flight are not saved.

Every option whose default may change is set here. `[trainer]` of the recipe goes on top verbatim, but for the keys that
`swirl.recipe.check_trainer` refuses.
"""

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from swirl import models, parallel
from swirl.config import Model, Swirl
from swirl.errors import InputError
from swirl.fit import Select, fit
from swirl.grpo_trainer import SwirlGRPOTrainer
from swirl.order import batch_order, cycle
from swirl.recipe import check_trainer
from swirl.sft_trainer import WeightedSFTTrainer, per_step
from swirl.types import Encoded

SETTINGS: dict[str, dict[str, Any]] = {
    # What the released code runs: TRL 0.25.1 with its defaults.
    "published": {
        "loss_type": "dapo",
        "scale_rewards": "group",
        "importance_sampling_level": "token",
        "use_bias_correction_kl": False,
    },
    # What the theorem needs: no division by the group's spread, no length normalisation that depends on the sample,
    # and the gradient of KL(policy || reference).
    "elbo": {
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        "importance_sampling_level": "token",
        "use_bias_correction_kl": True,
    },
}

GRPO: dict[str, Any] = {
    "num_iterations": 1,
    "shuffle_dataset": False,
    "min_p": 0.0,  # None would mean what is saved with the model
    "repetition_penalty": 1.0,
    "mask_truncated_completions": False,
    "disable_dropout": True,
    "remove_unused_columns": False,
    "log_completions": False,
}
"""What every phase of GRPO sets alike."""


@dataclass(frozen=True)
class Schedule:
    """How one phase optimises.

    Attributes:
        steps: Optimiser steps.
        batch: Rows per optimiser step over all processes (GRPO: prompts, each with its group).
        learning_rate: Peak of the cosine.
        lr_warmup: Share of the steps during which the rate rises; 1 or more: the number of steps.
        seed: Of order, sampling and adapters.
        checkpoints: How many evenly spaced checkpoints are kept.
        max_grad_norm: Gradient clipping.
    """

    steps: int
    batch: int
    learning_rate: float
    lr_warmup: float
    seed: int
    checkpoints: int
    max_grad_norm: float = 1.0

    @property
    def saved(self) -> list[int]:
        """Steps after which there is a checkpoint: 0 (the start), evenly spaced ones, and the last."""
        return [*range(0, self.steps, -(-self.steps // self.checkpoints)), self.steps]


def sft(
    start: Path,
    rows: Sequence[Encoded],
    out: Path,
    *,
    schedule: Schedule,
    model: Model,
    select: Select,
    weights: Sequence[Sequence[float]] | None = None,
    device: str = "auto",
    trainer: dict[str, Any] | None = None,
    title: str = "sft",
) -> Path:
    """Supervised fine-tuning on completion tokens.

    Args:
        start: Checkpoint to start from.
        rows: Token ids of prompts and completions.
        out: Folder that becomes the checkpoint; an interrupted phase left here is continued.
        schedule: Steps, batch and learning rate.
        model: How to load and adapt the model.
        select: Which of the saved checkpoints to keep.
        weights: Of each row's completion tokens, not all 0 in a step: the loss is the weighted mean over the completion
            tokens of a step. By default every one counts once.
        device: As in the recipe.
        trainer: Options for TRL's `SFTConfig`, verbatim.
        title: Shown in the progress bar.

    Returns:
        `out`.
    """
    # By prompts alone. The loss is the mean over a step's tokens: by whole rows, next states that change nothing, of a
    # token or two, would share steps of their own, where each would count as much as a whole long change elsewhere.
    order = batch_order([len(p) for p, _ in rows], schedule.steps, schedule.batch, schedule.seed)
    columns: dict[str, list] = {
        "input_ids": [rows[i][0] + rows[i][1] for i in order],
        "labels": [[-100] * len(rows[i][0]) + rows[i][1] for i in order],
    }
    if weights is not None:
        scaled = per_step([weights[i] for i in order], schedule.batch)
        columns["weights"] = [[0.0] * len(rows[i][0]) + row for i, row in zip(order, scaled, strict=True)]
    options = options_of(out, schedule, schedule.batch, model, device, trainer) | {
        "train_sampling_strategy": "sequential",
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
        "packing": False,
        "loss_type": "nll",
        "remove_unused_columns": False,
    }
    build = SFTTrainer if weights is None else WeightedSFTTrainer
    return fit(
        start,
        out,
        schedule.steps,
        model,
        select,
        title,
        lambda policy, tokenizer, callbacks: build(
            model=policy,
            args=SFTConfig(**_verbatim(SFTConfig, options, trainer)),
            train_dataset=Dataset.from_dict(columns),
            processing_class=tokenizer,
            callbacks=callbacks,
            peft_config=adapters(model),
        ),
    )


def grpo(
    start: Path,
    prompts: Sequence[dict[str, Any]],
    reward: Callable[..., list[float | None]],
    out: Path,
    *,
    schedule: Schedule,
    settings: Swirl,
    model: Model,
    select: Select,
    max_completion: int,
    suppress: Sequence[int] = (),
    replay: Sequence[Sequence[Encoded]] = (),
    replay_weight: float = 0.0,
    device: str = "auto",
    trainer: dict[str, Any] | None = None,
    title: str = "grpo",
) -> Path:
    """Group-relative policy optimisation of one role against a reward.

    The KL reference is the checkpoint at `start`: TRL reloads it by its path, so the policy is given as one.

    Args:
        start: Checkpoint to start from, and KL reference.
        prompts: Rows with `prompt` (messages) and the columns that the reward reads; exactly steps x prompts of them
            are drawn, in the order of the schedule's seed.
        reward: TRL's signature; returns a finite float or `None` per completion.
        out: Folder that becomes the checkpoint; an interrupted phase left here is continued.
        schedule: Steps, batch (prompts per step) and learning rate.
        settings: Group size, sampling, KL weight and which of `SETTINGS`.
        model: How to load and adapt the model.
        select: Which of the saved checkpoints to keep.
        max_completion: Token limit of a completion.
        suppress: Ids of tokens that no completion may have.
        replay: Labelled batches, one per optimiser step; their supervised loss is added.
        replay_weight: Weight of that loss (lambda).
        device: As in the recipe.
        trainer: Options for TRL's `GRPOConfig`, verbatim.
        title: Shown in the progress bar.

    Returns:
        `out`.
    """
    rng = np.random.default_rng(schedule.seed)
    drawn = cycle(len(prompts), schedule.steps * schedule.batch, rng)
    # `draw` tells a reward which completions are a group: neighbours may ask the same.
    data = Dataset.from_list([{**prompts[i], "draw": number} for number, i in enumerate(drawn)])
    group = settings.generations
    elbo = settings.setting == "elbo"
    options = options_of(out, schedule, schedule.batch * group, model, device, trainer)
    options |= GRPO | SETTINGS[settings.setting]
    options |= {
        "num_generations": group,
        "max_completion_length": max_completion,
        "steps_per_generation": options["gradient_accumulation_steps"],
        # A baseline that holds the completion's own reward shrinks the policy gradient by (G - 1) / G; the theorem's
        # weighting of reward and KL holds when the KL shrinks alike.
        "beta": settings.beta * (group - 1) / group if elbo else settings.beta,
        "temperature": 1.0 if elbo else settings.temperature,
        "top_p": 1.0 if elbo else settings.top_p,
        "top_k": 0 if elbo else settings.top_k,
        "epsilon": 0.2,
        "generation_kwargs": {"suppress_tokens": list(suppress)} if suppress else None,
        "chat_template_kwargs": model.chat_template_kwargs,
    }
    return fit(
        start,
        out,
        schedule.steps,
        model,
        select,
        title,
        lambda policy, tokenizer, callbacks: SwirlGRPOTrainer(
            replay=replay,
            replay_weight=replay_weight,
            elbo=elbo,
            model=policy,
            reward_funcs=reward,
            args=GRPOConfig(**_verbatim(GRPOConfig, options, trainer)),
            train_dataset=data,
            processing_class=tokenizer,
            callbacks=callbacks,
            peft_config=adapters(model),
        ),
    )


def options_of(
    out: Path, schedule: Schedule, rows: int, model: Model, device: str, trainer: dict[str, Any] | None
) -> dict[str, Any]:
    """Options that all trainers share; `rows` is rows per optimiser step over all processes."""
    check_trainer(trainer or {})
    world = parallel.world_size()
    asked = (trainer or {}).get("per_device_train_batch_size", max(1, rows // world))
    if rows % (world * asked):
        raise InputError(
            f"{rows} rows per step do not divide into {world} processes x {asked} rows; "
            "change the batch, or trainer.per_device_train_batch_size"
        )
    return {
        "output_dir": str(out / "trainer"),
        "max_steps": schedule.steps,
        "per_device_train_batch_size": asked,
        "gradient_accumulation_steps": rows // (world * asked),
        "learning_rate": schedule.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(schedule.lr_warmup * (schedule.steps if schedule.lr_warmup < 1 else 1)),
        "optim": "adamw_torch",
        "weight_decay": 0.0,
        "max_grad_norm": schedule.max_grad_norm,
        "seed": schedule.seed,
        "data_seed": schedule.seed,
        "save_strategy": "steps",
        "save_steps": schedule.saved[1],
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_first_step": False,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": models.device_of(device).type == "cpu",
        "bf16": False,
        "fp16": False,
        # Under its new name, or transformers warns of the old one, which TRL sets; a recipe may use either.
        "activation_checkpointing": (trainer or {}).get("gradient_checkpointing", False),
        # Every weight is used in every pass, and no buffer changes: nothing to look for, nothing to send around.
        "ddp_find_unused_parameters": False,
        "ddp_broadcast_buffers": False,
        "dataloader_pin_memory": False,
        "dataloader_num_workers": 0,
        "model_init_kwargs": {"dtype": model.dtype, "trust_remote_code": model.trust_remote_code},
    }


def _verbatim(cls: type, options: dict[str, Any], trainer: dict[str, Any] | None) -> dict[str, Any]:
    """Options with the recipe's `[trainer]` on top; a key of only the other trainer's is left to it.

    Raises:
        InputError: A key that neither trainer knows.
    """
    known = {c: {f.name for f in dataclasses.fields(c)} for c in (SFTConfig, GRPOConfig)}
    for key in trainer or {}:
        if not any(key in names for names in known.values()):
            near = difflib.get_close_matches(key, set.union(*known.values()), n=1)
            raise InputError(
                f"unknown recipe key trainer.{key}; TRL has no such option"
                + (f", did you mean trainer.{near[0]}?" if near else "")
            )
    return options | {key: value for key, value in (trainer or {}).items() if key in known[cls]}


def adapters(model: Model) -> Any:
    """The LoRA configuration of a model's settings; `None` where all weights are trained."""
    if not model.lora_rank:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=model.lora_rank, lora_alpha=model.lora_alpha, target_modules=model.lora_targets, task_type="CAUSAL_LM"
    )
