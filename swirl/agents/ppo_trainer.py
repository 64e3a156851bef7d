"""PPO on the episodes of an agent, killed at any moment and continued exactly.

    repeat for each iteration
        play groups of episodes with the policy; keep the groups whose scores differ most
        advantages by GAE on the agent's tokens, the whole score on the last of them
        passes over minibatches: clipped surrogate - entropy; clipped value error

No library of those that the project stands on trains episodes of many turns by PPO. Everything random in an iteration
is drawn from its number and the phase's seed, so a checkpoint is the weights, the optimisers and a number.

Source: arXiv 2510.15047, section 3.3 and its released settings (PPO of verl in RAGEN, filtered by the reward's spread,
no KL). Departure: the loss is over the agent's tokens alone, where the released code trains on the world's too.
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModel

from swirl import durable, models, progress
from swirl.agents import batch, measures, ppo
from swirl.agents.arena import Arena
from swirl.agents.batch import Batch, Rows
from swirl.agents.critic import Critic
from swirl.agents.episodes import Terms, play, worth
from swirl.agents.player import Player
from swirl.agents.settings import RL
from swirl.config import Model
from swirl.order import seed_of

logger = logging.getLogger("swirl")

Facts = dict[str, Any]


class Training:
    """A policy and its critic in training: what a checkpoint holds.

    Attributes:
        done: Iterations.
        log: A row for each.
    """

    def __init__(self, start: Path, settings: RL, model: Model, device: torch.device) -> None:
        self.policy, self.tokenizer = models.load(start, device, model.dtype, model.trust_remote_code)
        body = AutoModel.from_pretrained(start, dtype=self.policy.dtype, trust_remote_code=model.trust_remote_code)
        self.critic = Critic(body.to(device), self.policy.config.hidden_size)
        rates = (self.policy, settings.learning_rate), (self.critic, settings.critic_learning_rate)
        self.optimisers = [torch.optim.AdamW(part.parameters(), lr=rate, weight_decay=0.0) for part, rate in rates]
        self.done, self.log = 0, list[Facts]()

    def save(self, folder: Path) -> None:
        """Write everything, and last what vouches for it."""
        models.save(self.policy, self.tokenizer, folder)
        self.critic.save(folder / "critic.safetensors")
        for name, optimiser in zip(("policy", "critic"), self.optimisers, strict=True):
            torch.save(optimiser.state_dict(), folder / f"{name}.optimiser.pt")
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in self.log))
        durable.atomic_write(folder / "complete.json", json.dumps(durable.seal(folder), indent=1))

    def restore(self, folder: Path, model: Model) -> None:
        """Go on from what `save` wrote."""
        saved, _ = models.load(folder, self.policy.device, model.dtype, model.trust_remote_code)
        self.policy.load_state_dict(saved.state_dict())
        self.critic.restore(folder / "critic.safetensors")
        for name, optimiser in zip(("policy", "critic"), self.optimisers, strict=True):
            optimiser.load_state_dict(torch.load(folder / f"{name}.optimiser.pt", weights_only=True))
        self.log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        self.done = len(self.log)


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
    validate: Callable[[Any, Any], Facts],
) -> Path:
    """Train a policy by PPO.

    Args:
        start: Its checkpoint.
        out: Folder that becomes the trained checkpoint; an interrupted phase left here is continued.
        arena: Where it plays.
        terms: How episodes go.
        settings: Of PPO.
        model: How to load it.
        seed: Of everything that is drawn.
        device: Where to compute.
        validate: Measures the policy, model and tokenizer, wherever a checkpoint is saved; the log has what it gives.

    Returns:
        `out`.
    """
    training = Training(start, settings, model, models.device_of(device))
    found = checkpoints(out / "trainer")
    if found:
        training.restore(found[-1], model)
        logger.info("ppo: continues at iteration %d of %d", training.done, settings.iterations)
    with progress.bar("ppo", settings.iterations, training.done) as bar:
        while training.done < settings.iterations:
            row = _iterate(training, arena, terms, settings, seed)
            training.done += 1
            if training.done % settings.save_every == 0 or training.done == settings.iterations:
                row |= validate(training.policy, training.tokenizer)
            training.log.append({"iteration": training.done, **row})
            if training.done % settings.save_every == 0:
                training.save(out / "trainer" / f"checkpoint-{training.done}")
                for older in checkpoints(out / "trainer")[:-1]:
                    shutil.rmtree(older)
            bar.advance(success=row["success"], score=row["score"])
    models.save(training.policy, training.tokenizer, out)
    durable.atomic_write(out / "log.jsonl", "".join(json.dumps(row) + "\n" for row in training.log))
    return out


def checkpoints(folder: Path) -> list[Path]:
    """Those that are whole, in the order of their iterations; what a kill left half-written is deleted."""
    whole = []
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2])):
        seal = path / "complete.json"
        if seal.is_file() and not any(durable.faults(path, json.loads(seal.read_bytes()))):
            whole.append(path)
        else:
            shutil.rmtree(path)
    return whole


def _iterate(training: Training, arena: Arena, terms: Terms, settings: RL, seed: int) -> Facts:
    """One iteration; what the log says of it."""
    number = seed_of(seed, training.done)
    seeds = arena.drawn(training.done, settings.groups)
    scenes = [scene for one in seeds for scene in arena.scenes(one, settings.size)]
    player = Player(training.policy, training.tokenizer, terms.reply, seed=number)
    episodes = play(player, training.tokenizer, arena, scenes, terms)
    groups = [episodes[i : i + settings.size] for i in range(0, len(episodes), settings.size)]
    scores = [[worth(episode, terms.part, settings) for episode in group] for group in groups]
    kept = ppo.most_spread(scores, settings.keep)
    learned = kept or range(len(groups))
    chosen = [(episode, score) for i in learned for episode, score in zip(groups[i], scores[i], strict=True)]
    some = batch.of_episodes(chosen, training.tokenizer.pad_token_id, training.policy.device, terms.context)
    facts = _learn(training, some, settings, bool(kept), np.random.default_rng(number))
    return measures.monitored(episodes) | {"groups_kept": len(kept), **facts}


def _learn(training: Training, some: Batch, settings: RL, telling: bool, rng: np.random.Generator) -> Facts:
    """Passes over minibatches of episodes, in an order drawn for each pass.

    Where no group's episodes differ in what they are worth (`telling` is false), advantages are the critic's errors and
    no more: it alone learns.
    """
    everything = torch.arange(len(some.scores), device=some.scores.device)
    orders = (rng.permutation(len(everything)) for _ in range(settings.epochs))
    minibatches = [part for order in orders for part in everything[order].split(settings.minibatch)]

    def of_all(found: Callable[[Rows], torch.Tensor]) -> torch.Tensor:
        """What is found for every token (R, T)."""
        out = torch.zeros_like(some.all.mask)
        for chosen in some.passes(everything, settings.micro):
            rows = some.rows(chosen)
            out[chosen, : rows.ids.shape[1]] = found(rows)
        return out

    with torch.no_grad():
        values = of_all(lambda rows: _values(training.critic, rows))
        old = None  # of a single step the policy that wrote it is the one that learns from it
        if len(minibatches) > 1 and telling:
            old = of_all(lambda rows: _log_probs(training.policy, rows)[0])
    advantage, returns = map(some.back, _advantages(some, values, settings))
    advantage = ppo.whiten(advantage, some.all.mask)
    told: list[Facts] = []
    for part in minibatches:
        own = some.all.mask[torch.isin(some.episode, part)].sum()
        for chosen in some.passes(part, settings.micro):
            rows, facts = some.rows(chosen), dict[str, float]()
            at = chosen, slice(rows.ids.shape[1])
            share = (rows.mask.sum() / own).item()
            if telling:
                log_probs, entropy = _log_probs(training.policy, rows)
                before = log_probs.detach() if old is None else old[at]
                surrogate, moved = ppo.policy_loss(
                    log_probs, before, advantage[at], rows.mask, settings.clip_low, settings.clip_high
                )
                spread = ppo.masked_mean(entropy, rows.mask)
                ((surrogate - settings.entropy * spread) * share).backward()
                facts |= {"entropy": spread.item(), **({} if old is None else moved)}
            error = ppo.value_loss(
                _values(training.critic, rows), values[at], returns[at], rows.mask, settings.value_clip
            )
            (error * share).backward()
            facts |= {"value_loss": error.item()}
            told.append({"share": share, **{name: value * share for name, value in facts.items()}})
        learning = list(zip((training.policy, training.critic), training.optimisers, strict=True))
        for module, optimiser in learning if telling else learning[1:]:
            torch.nn.utils.clip_grad_norm_(module.parameters(), settings.max_grad_norm)
            optimiser.step()
            optimiser.zero_grad()
    total = sum(one.pop("share") for one in told)
    return {name: sum(one[name] for one in told) / total for name in told[0]}


def _advantages(some: Batch, values: torch.Tensor, settings: RL) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns along episodes (B, N), of values of tokens (R, T); all of a score comes at the end."""
    own = some.along(some.all.mask)
    rewards = torch.zeros_like(own)
    rewards[torch.arange(len(own)), own.sum(1).long() - 1] = some.scores
    return ppo.advantages(rewards, some.along(values), own, settings.gamma, settings.lam)


def _log_probs(policy: Any, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each of the agent's tokens, and the entropy there (R, T), nats; 0 for the others."""
    logits = policy(input_ids=rows.ids, attention_mask=rows.there, use_cache=False).logits[:, :-1]
    own = rows.mask[:, 1:].bool()  # the first token is the world's
    log_probs = torch.log_softmax(logits[own].float(), -1)
    found = log_probs.gather(-1, rows.ids[:, 1:][own][:, None])[:, 0], ppo.entropy(log_probs)
    of_log_probs, of_entropy = (torch.zeros_like(rows.mask[:, 1:]).masked_scatter(own, one) for one in found)
    return F.pad(of_log_probs, (1, 0)), F.pad(of_entropy, (1, 0))


def _values(critic: Critic, rows: Rows) -> torch.Tensor:
    """V before each token (R, T): what is said after the one before it; 0 before the first."""
    return F.pad(critic(input_ids=rows.ids, attention_mask=rows.there)[:, :-1], (1, 0))
