"""The keys of a recipe, as frozen dataclasses with their defaults; `swirl.recipe` reads them from a TOML file.

`Recipe.toml()` writes the resolved recipe, which reads back to an equal one.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from swirl import toml


@dataclass(frozen=True)
class Data:
    """Where transitions come from, and what of them a run may know."""

    path: str = ""
    """A recording of the user's own (Parquet or JSONL); empty: collect from `world`."""
    world: str = "minigrid"
    """Name of the world to collect from."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the world, e.g. `environments`."""
    behaviours: dict[str, float] = field(default_factory=dict)
    """Share of trajectories per behaviour; empty: all that the world has, equally."""
    transitions: int = 20_000
    """Transitions to collect."""
    max_steps: int = 40
    """Longest trajectory to collect, steps."""
    workers: int = 1
    """Processes that collect; what is recorded does not depend on it."""
    seed: int = 0
    """Seed of the collection and of the split by layout; the recipe's own seed draws the labels."""
    labels: int = 0
    """Label budget, training and validation together, transitions; 0: every label there is."""
    validation_labels: int = 0
    """Part of the budget that goes to validation, transitions; 0 with `labels = 0`: all of the validation part."""
    validation: float = 0.1
    """Share of transitions whose layouts are kept for validation."""
    test: float = 0.1
    """Share of transitions whose layouts are kept for the test."""
    leave_out: str = ""
    """A file of layouts, one a line, that the run is to know nothing of: an agent's run has one of those that it is
    tested on, `layouts.txt`."""
    inverse_unchanged: bool = True
    """Whether the inverse model trains on transitions that changed nothing, and baselines label them; where any idle
    action may have led there, they teach noise."""
    history: int = 0
    """Previous states shown in the prompt, for partially observed worlds."""


@dataclass(frozen=True)
class Images:
    """How images in states become tokens of the language model."""

    tokenizer: str = ""
    """`tile` (exact, for frames of square tiles), `vq` (prototypes of the training frames' patches), `fsq` (an
    autoencoder trained on the training frames), or the folder of an image tokenizer, learned elsewhere or a pretrained
    model's; empty: states hold no images."""
    tile: int = 8
    """`tile`: side of a tile, pixels."""
    codes: int = 1024
    """`tile`: most distinct tiles; `vq`: prototypes."""
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """`fsq`: values per latent channel; their product is the number of codes."""
    patch: int = 8
    """`vq`, `fsq`: side of the square that a code stands for, pixels."""
    width: int = 32
    """`fsq`: channels of the autoencoder's first layer."""
    steps: int = 2000
    """`fsq`: optimiser steps."""
    batch: int = 32
    """`fsq`: frames per optimiser step."""
    learning_rate: float = 1e-3
    """`fsq`: of the autoencoder."""


Style = Literal["terse", "instruct", "terse-change", "instruct-change", "terse-change-only", "instruct-change-only"]


@dataclass(frozen=True)
class Model:
    """The language model that both roles start from."""

    name: str = "tiny"
    """`tiny` (built here from scratch), a local folder, or a name that `transformers` can resolve."""
    shared: bool = False
    """One set of weights for both roles."""
    lora_rank: int = 0
    """Rank of LoRA adapters, merged at the end of each phase; 0: train all weights."""
    lora_alpha: int = 32
    """Weight of the adapters, times their rank: what they add counts `lora_alpha / lora_rank` times."""
    lora_targets: str = "all-linear"
    """Modules that get adapters, as `target_modules` of `peft` understands one string."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights, in training and in memory."""
    max_length: int = 256
    """Longest prompt and completion together, tokens; a longer transition is an error, never cut."""
    prompt: Style = "terse"
    """`terse` for models trained from scratch here, `instruct` for models that follow instructions. With `-change`,
    next states are written as the lines that the step removes and adds, or whole where that is shorter; with
    `-change-only`, the inverse model reads these lines and not the state before."""
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Given to the chat template, e.g. `{ enable_thinking = false }`."""
    trust_remote_code: bool = False
    """Whether code that comes with a model may run here."""
    vocabulary: int = 512
    """`tiny` only: tokens in its vocabulary."""
    tokens: Literal["words", "lines", "phrases"] = "words"
    """`tiny` only: what no token goes beyond; with `lines`, frequent phrases and lines are one token each; with
    `phrases` likewise, but digits and words of one character, the cells of a grid, are tokens of their own."""
    hidden: int = 96
    """`tiny` only: width."""
    layers: int = 3
    """`tiny` only: depth."""
    heads: int = 6
    """`tiny` only: attention heads."""


@dataclass(frozen=True)
class Pretrain:
    """State-only pre-training of both roles."""

    steps: int = 300
    """Optimiser steps per role."""
    batch: int = 32
    """Pairs per optimiser step."""
    learning_rate: float = 1e-3
    """Peak of the cosine."""
    lr_warmup: float = 0.05
    """As `warmup.lr_warmup`."""


@dataclass(frozen=True)
class Warmup:
    """Supervised fine-tuning of both roles on the labelled transitions."""

    steps: int = 300
    """Optimiser steps per role; 0: no warm-up (a model that follows instructions starts zero-shot)."""
    batch: int = 32
    """Transitions per optimiser step."""
    learning_rate: float = 1e-3
    """Peak of the cosine: it rises to it, then falls to 0."""
    lr_warmup: float = 0.05
    """Share of the steps during which the learning rate rises; 1 or more: the number of steps."""


@dataclass(frozen=True)
class Swirl:
    """Phase I and Phase II of SWIRL by GRPO (arXiv 2602.06130)."""

    rounds: int = 1
    """Passes over Phase I and Phase II."""
    patience: int = 0
    """Stop after this many rounds in which neither role improved on validation; 0: run them all."""
    setting: Literal["published", "elbo"] = "published"
    """`published`: the released code's; `elbo`: the setting in which the paper's theorem holds."""
    steps: int = 60
    """Optimiser steps per phase."""
    prompts: int = 8
    """Transitions per optimiser step (P)."""
    generations: int = 8
    """Completions per transition (G)."""
    learning_rate: float = 1e-5
    """Peak of the cosine."""
    lr_warmup: float = 0.1
    """As `warmup.lr_warmup`."""
    beta: float = 0.1
    """Weight of the KL divergence to the phase's starting checkpoint."""
    temperature: float = 0.7
    """Of sampling completions."""
    top_p: float = 0.96
    """Completions are sampled from the likeliest tokens whose probabilities sum to this; 1: from all."""
    top_k: int = 0
    """Completions are sampled from this many likeliest tokens; 0: no limit."""
    max_grad_norm: float = 1.0
    """Gradients with a larger norm are scaled down to it."""
    floor: float = -10.0
    """Least reward, nats; also the reward of a completion that cannot be read."""
    min_spread: float = 0.0
    """Anchor: a group whose rewards differ by less than this gets no policy gradient, nats."""
    replay: float = 0.0
    """Anchor: weight of the supervised loss on a batch of labelled transitions, added to every step."""
    fidelity: float = 0.0
    """Anchor, Phase I: weight of the supervised loss on (x, z~Q, y) with the recorded next state y."""
    replay_batch: int = 16
    """Transitions per replay batch."""
    select: Literal["best", "last"] = "best"
    """Keep the checkpoint of a phase that is best on validation (its start included), or the last, as published."""
    encoder: str = "all-minilm-l6-v2"
    """`rwml`: what embeds next states, `all-minilm-l6-v2` (the extra `similarity`) or any encoder of `transformers`."""
    distance: float = 0.2
    """`rwml`: cosine distance to the recorded next state under which a prediction is right (tau)."""
    easy: float = 0.1
    """`rwml`: share of the pairs that is kept of those which the forward model gets right before the phase."""


@dataclass(frozen=True)
class Verified:
    """Verified relabelling: the reciprocal reward as expectation-maximisation."""

    rounds: int = 4
    """Times that pairs are labelled and both roles trained on what is kept."""
    patience: int = 0
    """Stop after this many rounds without a better validation score of either role; 0: never."""
    pairs: int = 4000
    """State-only pairs labelled per round; 0: all of them."""
    listed: bool = True
    """Whether candidates are the actions that the world lists, where it does; else they are sampled, as where nobody
    knows a list: of a recording of your own (`data.path`), or in a world without one."""
    candidates: int = 8
    """Actions sampled per pair where candidates are not listed."""
    precision: float = 0.9
    """Expected share of right labels among those kept; how sure to be is calibrated on validation."""
    coverage: float = 0.5
    """Least share of the changed pairs labelled with each action that is kept, however unsure: where nothing is certain
    yet, labels often wrong teach more than none. In the first round nothing else is."""
    steps: int = 150
    """Optimiser steps per role and round."""
    batch: int = 64
    """Transitions per optimiser step."""
    learning_rate: float = 1e-3
    """Peak of the cosine."""
    lr_warmup: float = 0.05
    """As `warmup.lr_warmup`."""
    label_share: float = 0.1
    """Least share of labelled transitions in the training rows of a round, about: they are repeated whole."""
    select: Literal["best", "last"] = "last"
    """Which checkpoint of a round goes on: the best on validation, the round's start included, or the last. The labels
    get better from round to round, by less than a hundred validation labels can tell."""


@dataclass(frozen=True)
class Inferred:
    """Supervised fine-tuning of the forward model on inferred actions: `sft-continue`, `sft-merge`, `bootstrap`."""

    rounds: int = 3
    """`bootstrap` labels the pairs anew in each; the others do the steps of all rounds at once."""
    pairs: int = 4000
    """State-only pairs labelled each time; 0: all of them."""
    steps: int = 150
    """Optimiser steps per round."""
    batch: int = 64
    """Transitions per optimiser step."""
    learning_rate: float = 1e-3
    """Peak of the cosine."""
    lr_warmup: float = 0.05
    """As `warmup.lr_warmup`."""
    label_share: float = 0.1
    """`sft-merge`, `bootstrap`: least share of labelled transitions in the training rows, about: they are repeated
    whole."""
    change_weight: float = 1.0
    """`bootstrap`, where next states are written whole: how many times as much a token counts that belongs to what
    changed; 1: all alike."""
    select: Literal["best", "last"] = "best"
    """Which checkpoint of a round goes on: the best on validation, the round's start included, or the last."""

    def at_once(self) -> "Inferred":
        """The steps of all rounds as one round."""
        return dataclasses.replace(self, rounds=1, steps=self.rounds * self.steps)


@dataclass(frozen=True)
class Experience:
    """`early-experience`: supervised fine-tuning of the forward model on what it tries in the world itself."""

    transitions: int = 4000
    """Transitions to try."""
    states: int = 4
    """Visited states per episode at which other actions are tried."""
    alternatives: int = 3
    """Other actions per such state, beside the one that was taken."""
    steps: int = 450
    """Optimiser steps."""
    batch: int = 64
    """Transitions per optimiser step."""
    learning_rate: float = 1e-3
    """Peak of the cosine."""
    lr_warmup: float = 0.05
    """As `warmup.lr_warmup`."""
    label_share: float = 0.1
    """Least share of labelled transitions in the training rows, about: they are repeated whole."""


@dataclass(frozen=True)
class Evaluation:
    """How held-out quality is measured."""

    select: Literal["best", "last"] = "best"
    """Keep the checkpoint of a supervised phase that is best on validation (its start included), or the last; where the
    method's own section does not say."""
    checkpoints: int = 3
    """Evenly spaced checkpoints per phase; also where an interrupted phase continues."""
    max_rows: int = 2000
    """Most test rows to score; 0: all of them."""
    batch: int = 128
    """Rows per generation batch."""
    best_of: tuple[int, ...] = ()
    """Verification at test time: for each number N here the last checkpoints are tested once more, with the next state
    of N samples that the inverse model reads the action off best."""
    test_phases: bool = False
    """Whether the test part is also read after every phase that trained, for curves; nothing is chosen by it."""
    encoder: str = ""
    """Encoder of BERTScore, which the test measures where one is named: `all-minilm-l6-v2` (the extra `similarity`), a
    local folder, or a name that `transformers` can resolve."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a run; the same recipe, seed and machine give the same weights."""

    methods: tuple[str, ...] = ("warmup", "verified")
    """Methods, one after another; each starts from the checkpoints of the one before."""
    seed: int = 0
    """Draws the labels, and everything that is random in training."""
    threads: int = 2
    """CPU threads of PyTorch; a part of what makes a run reproducible."""
    device: str = "auto"
    """`auto` (CUDA where there is one), `cpu`, `cuda`."""
    data: Data = field(default_factory=Data)
    images: Images = field(default_factory=Images)
    model: Model = field(default_factory=Model)
    pretrain: Pretrain = field(default_factory=Pretrain)
    warmup: Warmup = field(default_factory=Warmup)
    swirl: Swirl = field(default_factory=Swirl)
    verified: Verified = field(default_factory=Verified)
    inferred: Inferred = field(default_factory=Inferred)
    experience: Experience = field(default_factory=Experience)
    evaluation: Evaluation = field(default_factory=Evaluation)
    trainer: dict[str, Any] = field(default_factory=dict)
    """Passed to TRL's configuration verbatim; a key that the recipe sets elsewhere is refused."""

    def toml(self) -> str:
        """The resolved recipe as TOML."""
        return toml.dumps(dataclasses.asdict(self))
