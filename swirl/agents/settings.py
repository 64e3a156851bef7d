"""The keys of an agent's recipe, as frozen dataclasses with their defaults.

Defaults are those of SPA's paper and released code (arXiv 2510.15047) where it has them.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from swirl import recipe as recipes
from swirl import toml
from swirl.agents.replies import Context, Form, Part
from swirl.config import Model
from swirl.errors import InputError

BLOCK = 1_000_000
"""World seeds of each seed of a recipe; validation has the first block, whatever the recipe's seed."""
SELF_PLAY = BLOCK // 2
"""Where in a block those of self-play begin; reinforcement learning, and the clumsy player, have those before."""
STRIDE = 8
"""Seeds that an iteration has for each of its groups, since some are passed over."""
SEEDS = SELF_PLAY // STRIDE
"""Groups that reinforcement learning may have, in all iterations together."""


@dataclass(frozen=True)
class Play:
    """The world that is acted in, and how episodes go."""

    world: str = "sokoban"
    """Name of the world."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the world."""
    turns: int = 5
    """Most turns of an episode."""
    per_turn: int = 5
    """Most actions of a turn."""
    actions: int = 10
    """Most actions of an episode."""
    penalty: float = -0.1
    """For a turn whose reply cannot be read, or that has an action which there is not."""
    reply: int = 400
    """Most tokens of a reply."""
    told: bool = True
    """Whether prompts say in sentences what the world is and how to reply; a `tiny` model is taught marks instead."""
    context: Context = "episode"
    """What an agent reads in a turn: the episode up to it, or that turn's state alone."""
    part: Part = "whole"
    """What of a state replies tell: all of it, or its last line alone where that has coordinates."""


@dataclass(frozen=True)
class Base:
    """`tiny` only: the starting policy, taught the form of replies and a little skill by a clumsy player's episodes."""

    episodes: int = 200
    """Episodes of the clumsy player."""
    slips: float = 0.5
    """Share of the player's actions that are random."""
    variants: tuple[dict[str, Any], ...] = ({},)
    """Options of the worlds that it plays in, over `play.options`: runs whose worlds differ start from one policy where
    all have `[{coordinates = true}, {coordinates = false}]`."""
    steps: int = 300
    """Optimiser steps."""
    batch: int = 16
    """Rows per optimiser step."""
    learning_rate: float = 1e-3
    """Peak of the cosine."""
    lr_warmup: float = 0.05
    """Share of the steps during which the learning rate rises; 1 or more: the number of steps."""


@dataclass(frozen=True)
class SelfPlay:
    """Stage 1: episodes of the starting policy itself."""

    groups: int = 160
    """Seeds."""
    size: int = 8
    """Episodes of each."""
    temperature: float = 1.0
    """Of sampling replies."""
    actions: Literal["policy", "random"] = "policy"
    """Who chooses the actions where states are told; the thoughts say them too."""
    states: Literal["true", "believed"] = "true"
    """Whether the two states of a reply are put right."""
    rehearse: bool = False
    """Whether as many episodes in the plain form are learned beside, as they are, so that it is not forgotten."""


@dataclass(frozen=True)
class Tune:
    """Stage 2: supervised fine-tuning on what self-play left."""

    epochs: int = 5
    """Passes over the rows."""
    batch: int = 16
    """Rows per optimiser step."""
    learning_rate: float = 1e-4
    """Peak of the cosine."""
    lr_warmup: float = 0.1
    """As `base.lr_warmup`."""
    masked: bool = False
    """Whether the two states are left out of the loss."""


@dataclass(frozen=True)
class Clone:
    """`clone`: supervised fine-tuning on demonstrations, in the form of reply of `rl.form`."""

    data: str = ""
    """A recording of demonstrations."""
    inverse: str = ""
    """Run folder or checkpoint of an inverse model that infers their actions; empty: the recorded ones are taken."""
    epochs: int = 5
    """Passes over the rows."""
    batch: int = 16
    """Rows per optimiser step."""
    learning_rate: float = 1e-4
    """Peak of the cosine."""
    lr_warmup: float = 0.1
    """As `base.lr_warmup`."""


@dataclass(frozen=True)
class RL:
    """Stage 3: reinforcement learning on the task's reward."""

    algorithm: Literal["ppo", "grpo"] = "ppo"
    """`ppo`: with a critic, as the paper; `grpo`: by TRL, what an episode is worth against others of its seed."""
    model: tuple[str, ...] = ()
    """Run folder or checkpoint of a forward model to train inside of; several are an ensemble; none: the world."""
    penalty: float = 0.0
    """What a step of uncertainty 1 in such a model takes from what an episode is worth, see `simulators.Imagined`."""
    iterations: int = 1000
    """Times that episodes are played and learned from."""
    groups: int = 32
    """Seeds of an iteration."""
    size: int = 8
    """Episodes of each."""
    keep: float = 0.25
    """`ppo`: share of the groups, those whose scores differ most, that is trained on."""
    epochs: int = 1
    """`ppo`: passes over what an iteration keeps."""
    minibatch: int = 64
    """`ppo`: episodes of an optimiser step; that of `grpo` has all episodes of the iteration."""
    micro: int = 8
    """Most rows of a forward pass: episodes, or turns that are read alone."""
    form: Form = "plain"
    """The form of reply that prompts ask for."""
    learning_rate: float = 1e-6
    """Of the policy."""
    critic_learning_rate: float = 1e-5
    """`ppo`: of the critic."""
    gamma: float = 1.0
    """`ppo`: discount of a token."""
    lam: float = 1.0
    """`ppo`: lambda of the generalised advantage estimate."""
    value_clip: float = 0.5
    """`ppo`: how far a value may go from what it was before the iteration, in the critic's loss."""
    entropy: float = 1e-3
    """`ppo`: weight of the policy's entropy."""
    clip_low: float = 0.2
    """A token's probability ratio counts down to 1 less this."""
    clip_high: float = 0.28
    """A token's probability ratio counts up to 1 and this."""
    max_grad_norm: float = 1.0
    """Gradients with a larger norm are scaled down to it."""
    state_reward: float = 0.0
    """Times the share of states told right in an episode's replies, added to its score: online world modelling."""
    save_every: int = 50
    """Iterations between two checkpoints, each of which is validated."""


@dataclass(frozen=True)
class Evaluation:
    """How agents are measured: on seeds whose layouts are never trained on."""

    seeds: int = 128
    """Seeds that are played."""
    samples: int = 8
    """Episodes of each, at temperature 1; one more is greedy. Checkpoints of reinforcement learning have as many."""
    last_samples: int = 8
    """The same for the policy that a run ends with."""


@dataclass(frozen=True)
class AgentRecipe:
    """A resolved recipe."""

    seed: int = 0
    """Decides everything that is drawn."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda`."""
    threads: int = 1
    """CPU threads of PyTorch; a part of what makes a run reproducible."""
    method: Literal["spa", "rl", "clone"] = "spa"
    """`spa`: self-play, fine-tuning, reinforcement learning; `rl`: the last alone; `clone`: imitation alone."""
    play: Play = field(default_factory=Play)
    model: Model = field(default_factory=Model)
    base: Base = field(default_factory=Base)
    self_play: SelfPlay = field(default_factory=SelfPlay)
    tune: Tune = field(default_factory=Tune)
    clone: Clone = field(default_factory=Clone)
    rl: RL = field(default_factory=RL)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def toml(self) -> str:
        """The resolved recipe as TOML, which reads back to an equal one."""
        return toml.dumps(dataclasses.asdict(self))


_RANGES: recipes.Ranges = {
    "at least 1": (
        lambda value: value >= 1,
        "threads base.steps play.turns play.per_turn play.actions play.reply base.episodes base.batch self_play.groups "
        "self_play.size tune.epochs tune.batch clone.epochs clone.batch rl.groups rl.epochs rl.minibatch rl.micro "
        "rl.save_every evaluation.seeds evaluation.samples evaluation.last_samples model.max_length",
    ),
    "at least 2: a group needs a spread": (lambda value: value >= 2, "rl.size"),
    "0 or more": (
        lambda value: 0 <= value < math.inf,
        "seed base.lr_warmup self_play.temperature tune.lr_warmup clone.lr_warmup rl.iterations rl.clip_low "
        "rl.clip_high rl.value_clip rl.entropy rl.state_reward rl.penalty",
    ),
    "more than 0": (
        lambda value: 0 < value < math.inf,
        "base.learning_rate tune.learning_rate clone.learning_rate rl.learning_rate rl.critic_learning_rate "
        "rl.max_grad_norm",
    ),
    "0 or less": (lambda value: -math.inf < value <= 0, "play.penalty"),
    "a share, more than 0 and at most 1": (lambda value: 0 < value <= 1, "rl.keep"),
    "a share, at least 0 and at most 1": (lambda value: 0 <= value <= 1, "base.slips rl.gamma rl.lam"),
}


def load(path: str | Path, overrides: Mapping[str, str] | None = None) -> AgentRecipe:
    """Read an agent's recipe and apply overrides, as `swirl.recipe.load_recipe` does.

    Raises:
        InputError: The file cannot be read, a key is unknown, or a value has the wrong type or range.
    """
    recipe: AgentRecipe = recipes.build(AgentRecipe, recipes.read(path, overrides or {}, AgentRecipe))
    recipes.check_ranges(recipe, _RANGES)
    if recipe.model.name == "tiny" and recipe.play.told:
        raise InputError(
            "play.told = true with model.name = 'tiny', which follows no instructions; set play.told = false, or give "
            "a model that does"
        )
    if recipe.play.reply >= recipe.model.max_length:
        raise InputError(
            f"play.reply = {recipe.play.reply} with model.max_length = {recipe.model.max_length} leaves no room for a "
            "prompt; lower the one or raise the other"
        )
    if recipe.method == "clone" and not recipe.clone.data:
        raise InputError("method = 'clone' without demonstrations; give clone.data, a recording")
    if recipe.rl.algorithm == "grpo" and recipe.play.context == "turn":
        raise InputError("rl.algorithm = 'grpo' reads whole episodes; set play.context = 'episode', or take 'ppo'")
    if recipe.rl.algorithm == "grpo" and not recipe.rl.iterations:
        raise InputError("rl.iterations = 0 with rl.algorithm = 'grpo', expected at least 1")
    if recipe.self_play.actions == "random" and recipe.self_play.states == "believed":
        raise InputError(
            "self_play.actions = 'random' is played by who knows the world and believes nothing; set "
            "self_play.states = 'true'"
        )
    if not recipe.base.variants:
        raise InputError(
            "base.variants = [] leaves a tiny model nothing to learn from; give [{}] for the world as it is"
        )
    if recipe.rl.algorithm == "ppo" and (recipe.model.lora_rank or recipe.model.dtype != "float32"):
        raise InputError(
            "rl.algorithm = 'ppo' trains all weights in float32; set model.lora_rank = 0 and model.dtype = 'float32', "
            "or rl.algorithm = 'grpo'"
        )
    if recipe.rl.iterations * recipe.rl.groups > SEEDS:
        raise InputError(
            f"rl.iterations x rl.groups is {recipe.rl.iterations * recipe.rl.groups:,}, and there are {SEEDS:,} seeds "
            "to train on; lower one of them"
        )
    return recipe
