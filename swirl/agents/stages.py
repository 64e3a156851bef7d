"""The stages of an agent's run, each a phase of its run folder: made once, continued where it was interrupted."""

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from swirl import api, durable, ledger, models, order, tiny, train
from swirl.agents import cloning, clumsy, conversation, evaluation, grpo, measures, ppo_trainer, selfplay, testing
from swirl.agents.agent import arena_of, terms_of
from swirl.agents.arena import WorldArena
from swirl.agents.clumsy import say
from swirl.agents.episodes import Episode, Terms
from swirl.agents.imagined_arena import ImaginedArena
from swirl.agents.learned import outcome_of, trained_layouts
from swirl.agents.replies import Form
from swirl.agents.settings import SELF_PLAY, AgentRecipe, Base, Clone, Tune
from swirl.agents.simulators import Imagined
from swirl.errors import InputError

logger = logging.getLogger("swirl")

TEXTS = 300
"""Seeds whose first states and replies make a tiny model's vocabulary."""
DOUBTFUL = 0.1
"""Mean uncertainty of imagined steps above which a run warns."""
ROWS = pa.schema(
    [("prompt", pa.list_(pa.int32())), ("completion", pa.list_(pa.int32())), ("weights", pa.list_(pa.float32()))]
)
"""Columns of what is learned from: token ids, and a weight for each of the completion's."""


class Stages:
    """An agent's run in progress.

    Args:
        run: The run folder.
        recipe: The resolved recipe.

    Attributes:
        policies: Checkpoints by the name of the stage that made them, in order.
    """

    def __init__(self, run: ledger.Run, recipe: AgentRecipe) -> None:
        self.run, self.recipe = run, recipe
        self.device = models.device_of(recipe.device)
        self.arena = arena_of(recipe)
        self.policies: dict[str, Path] = {}

    def terms(self, form: Form) -> Terms:
        """How episodes go, with replies in a form."""
        return terms_of(self.recipe, form)

    def seed(self, name: str) -> int:
        """A seed for a stage, from the recipe's and the stage's name."""
        return order.seed_of(self.recipe.seed, *name.encode())

    def start(self) -> Path:
        """The policy that is begun with: the recipe's model, or a tiny one that is taught to reply."""
        spec, base = self.recipe.model, self.recipe.base
        if spec.name != "tiny":
            self.policies["base"] = models.located(spec.name)
            return self.policies["base"]
        built = self.run.phase("start", self._build)
        rows = self.run.phase("base-episodes", partial(self._teach, built))
        return self._fine_tune("base", built, rows, base, base.steps)

    def self_play(self, policy: Path) -> Path:
        """Stage 1: the rows that are learned from next, made of the policy's own episodes."""
        return self.run.phase("self-play", partial(self._self_play, policy))

    def tune(self, policy: Path, rows: Path) -> Path:
        """Stage 2: supervised fine-tuning on the replies of self-play."""
        return self._epochs("tune", policy, rows, self.recipe.tune)

    def clone(self, policy: Path) -> Path:
        """Imitation: supervised fine-tuning on demonstrations."""
        rows = self.run.phase("demonstrations", partial(self._demonstrations, policy))
        return self._epochs("clone", policy, rows, self.recipe.clone)

    @cached_property
    def imagined(self) -> ImaginedArena | None:
        """The learned world that is trained in; `None` where that is the world itself."""
        runs = self.recipe.rl.model
        if not runs:
            return None
        for run in runs:
            trained = trained_layouts([run])
            if not trained:
                logger.warning(
                    "%s is no run folder, or its data name no layouts: whether it was trained on those that agents are "
                    "tested on cannot be told",
                    run,
                )
            if seen := trained & self.arena.held_out:
                raise InputError(
                    f"{run} was trained on {len(seen)} of the {len(self.arena.held_out)} layouts that agents are "
                    "tested on; train it on others, or in a larger world"
                )
        forwards = [api.load_forward(run, self.recipe.device) for run in runs]
        outcome = outcome_of(self.arena.world(), forwards[0], runs[0])
        return ImaginedArena(self.arena, Imagined(forwards, outcome))

    def learn(self, policy: Path) -> Path:
        """Stage 3: reinforcement learning on the task's reward, in the world or in the model of it."""
        settings, terms = self.recipe.rl, self.terms(self.recipe.rl.form)
        algorithm = {"ppo": ppo_trainer.learn, "grpo": grpo.learn}[settings.algorithm]

        def work(out: Path) -> None:
            algorithm(
                policy,
                out,
                self.imagined or self.arena,
                terms,
                settings,
                model=self.recipe.model,
                seed=self.seed("rl"),
                device=self.recipe.device,
                validate=partial(self._validated, terms),
            )
            shutil.rmtree(out / "trainer", ignore_errors=True)
            _tell_of_doubt((out / "log.jsonl").read_text())

        self.policies["rl"] = self.run.phase("rl", work)
        return self.policies["rl"]

    def test(self) -> Path:
        """Measures the policy of every stage on the seeds of validation, and a perfect player on the same terms."""

        def work(out: Path) -> None:
            tokenizer = models.load_tokenizer(next(iter(self.policies.values())), self.recipe.model.trust_remote_code)
            arenas = {"real": self.arena, **({"imagined": self.imagined} if self.imagined else {})}
            rows = testing.solved(self.recipe, self.arena, self.terms("plain"), tokenizer, self.seed("solver"))
            rows += testing.measured(self.recipe, self.policies, arenas, self.terms, self._load)
            durable.atomic_write(out / "phase.json", json.dumps({"test": rows}, indent=1) + "\n")

        return self.run.phase("test", work, into="test")

    def _validated(self, terms: Terms, model: Any, tokenizer: Any) -> dict[str, Any]:
        """What the log has of a checkpoint: its metrics on the seeds of validation, and the successes of each seed."""
        first, *others = evaluation.tested(model, tokenizer, self.arena, terms, self.recipe.evaluation.samples)
        of_seeds = {"validation_successes": first["successes"], "validation_samples": first["samples"]}
        return {f"validation_{row['metric']}": row["value"] for row in (first, *others)} | of_seeds

    def _build(self, out: Path) -> None:
        """A tiny model, with a vocabulary made of what it will read and write."""
        texts: set[str] = set()
        for arena, terms in self._lessons():
            for seed in islice(arena.training(), TEXTS):
                [scene] = arena.scenes(seed, 1)
                reply = say(scene, 0, 1.0, terms, np.random.default_rng(seed))
                penalised = conversation.ask(scene.state, terms.actions, terms.form, reward=terms.penalty)
                texts |= {penalised, reply.text()}
        tiny.build(sorted(texts), out, self.recipe.model, self.recipe.seed)

    def _lessons(self) -> list[tuple[WorldArena, Terms]]:
        """What a tiny model is taught in: every variant of the world, with replies in both forms."""
        options = self.recipe.play.options
        beside = frozenset(self.arena.held_out)
        arenas = [replace(self.arena, options=options | other, beside=beside) for other in self.recipe.base.variants]
        return [(arena, self.terms(form)) for arena in arenas for form in ("plain", "states")]

    def _teach(self, built: Path, out: Path) -> None:
        base, tokenizer = self.recipe.base, models.load_tokenizer(built)
        rows = []
        for arena, terms in self._lessons():
            scenes = [arena.scenes(seed, 1)[0] for seed in islice(arena.training(), base.episodes)]
            player = clumsy.cast(tokenizer, base.slips, terms)
            episodes = evaluation.play_all(player, tokenizer, arena, scenes, terms, self.seed("base"), "base")
            longest = max(len(turn.reply) for episode in episodes for turn in episode.turns)
            if longest > terms.reply:
                raise InputError(
                    f"play.reply = {terms.reply} would cut off replies in the form {terms.form!r}, of up to {longest} "
                    f"tokens in lessons; set it to {longest} or more, and model.max_length to what that needs"
                )
            replies = selfplay.dealt_out(episodes, np.random.default_rng(self.seed("base")))
            for episode, new in zip(episodes, replies, strict=True):
                rows.append(selfplay.rows(tokenizer, episode, new, context=terms.context))
        # A plain reply says what it does in a few tokens, one that tells states in a hundred: rows weigh the same.
        self._write([list(map(selfplay.evened, of_episode)) for of_episode in rows], out, {"episodes": len(rows)})

    def _self_play(self, policy: Path, out: Path) -> None:
        settings, play_ = self.recipe.self_play, self.recipe.play
        model, tokenizer = self._load(policy)
        seeds = self.arena.training(SELF_PLAY)
        told = self._played(model, tokenizer, seeds, "states")
        plain = self._played(model, tokenizer, seeds, "plain") if settings.rehearse else []
        believed = settings.states == "believed"
        replies = [selfplay.as_written(e, "states") if believed else selfplay.put_right(e, play_.part) for e in told]
        replies += [selfplay.as_written(episode, "plain") for episode in plain]
        rows = [
            selfplay.rows(tokenizer, episode, new, self.recipe.tune.masked, play_.context)
            for episode, new in zip([*told, *plain], replies, strict=True)
        ]
        facts = {row["metric"]: row["value"] for row in measures.measure(told, [1], play_.part)}
        # All of them, where the metric is the mean of an episode; those of the plain form were played too.
        facts |= {"episodes": len(rows), "steps": sum(episode.steps for episode in [*told, *plain])}
        self._write(rows, out, facts)

    def _played(self, model: Any, tokenizer: Any, seeds: Iterator[int], form: Form) -> list[Episode]:
        """The next groups of self-play, in one form of reply."""
        settings, terms = self.recipe.self_play, self.terms(form)
        scenes = [scene for seed in islice(seeds, settings.groups) for scene in self.arena.scenes(seed, settings.size)]
        player = evaluation.policy(model, tokenizer, terms, settings.temperature)
        if settings.actions == "random" and form == "states":  # what is rehearsed is the policy's own
            player = clumsy.cast(tokenizer, 1.0, terms)
        return evaluation.play_all(player, tokenizer, self.arena, scenes, terms, self.seed("self-play"), "self-play")

    def _demonstrations(self, policy: Path, out: Path) -> None:
        settings, terms = self.recipe.clone, self.terms(self.recipe.rl.form)
        tokenizer = models.load_tokenizer(policy, self.recipe.model.trust_remote_code)
        list_actions = self.arena.world().actions
        infer = cloning.Inferred(settings.inverse, list_actions, self.recipe.device) if settings.inverse else None
        history = infer.history if infer else 0
        demonstrated, left_out = cloning.demonstrations(settings.data, infer, self.arena.held_out, history)
        longest = min(terms.actions, terms.turns * terms.per_turn)
        left_out["beyond_an_episode"] = sum(max(0, len(steps) - longest) for steps in demonstrated)
        facts = {"episodes": len(demonstrated), "steps": sum(map(len, demonstrated)), "left_out": left_out}
        self._write(cloning.rows(tokenizer, demonstrated, terms), out, facts)

    def _write(self, rows: Sequence[Sequence[selfplay.Row]], out: Path, facts: dict[str, Any]) -> None:
        """Rows to learn from, those of each episode, and what is known of them."""
        found = list(chain.from_iterable(rows))
        columns = [{"prompt": p, "completion": c, "weights": weights} for (p, c), weights in found]
        pq.write_table(pa.Table.from_pylist(columns, schema=ROWS), out / "rows.parquet")
        facts |= {"nothing_to_learn": sum(not of_episode for of_episode in rows)}
        durable.atomic_write(out / "phase.json", json.dumps(facts, indent=1) + "\n")
        if not found:
            raise InputError(
                f"none of {len(rows)} episodes has a reply that can be learned from; give a model that replies in the "
                "form that it is asked for, or a longer play.reply"
            )

    def _epochs(self, name: str, policy: Path, rows: Path, settings: Tune | Clone) -> Path:
        count = pq.read_metadata(rows / "rows.parquet").num_rows
        return self._fine_tune(name, policy, rows, settings, -(-count * settings.epochs // settings.batch))

    def _fine_tune(self, name: str, start: Path, rows: Path, settings: Base | Tune | Clone, steps: int) -> Path:
        def work(out: Path) -> None:
            table = pq.read_table(rows / "rows.parquet").to_pylist()
            train.sft(
                start,
                [(row["prompt"], row["completion"]) for row in table],
                out,
                schedule=train.Schedule(
                    steps, settings.batch, settings.learning_rate, settings.lr_warmup, self.seed(name), 1
                ),
                model=self.recipe.model,
                weights=[row["weights"] for row in table],
                device=self.recipe.device,
                trainer={"adam_beta2": 0.95, "weight_decay": 0.01},
                title=name,
                select=lambda found: found[-1],
            )
            shutil.rmtree(out / "trainer", ignore_errors=True)

        self.policies[name] = self.run.phase(name, work)
        return self.policies[name]

    def _load(self, policy: Path) -> tuple[Any, Any]:
        spec = self.recipe.model
        return models.load(policy, self.device, spec.dtype, spec.trust_remote_code)


def _tell_of_doubt(log: str) -> None:
    """Say so where much of what was learned from was a guess: what is gained there need not be had in the world."""
    doubts = [row["uncertainty"] for row in map(json.loads, log.splitlines()) if "uncertainty" in row]
    if doubts and (last := float(np.mean(doubts[-10:]))) > DOUBTFUL:
        logger.warning(
            "the learned world was unsure of %.0f %% of the last steps in it, or could not say what follows; see "
            "rl.penalty, or train the model on more",
            100 * last,
        )
