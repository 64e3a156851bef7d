"""Episodes of a policy: turns in which it reads a state, replies, and acts several times.

What cannot be read as a reply does nothing and costs a penalty, and so does an action that the world does not have; a
bad reply is data, not a crash. An episode ends where the world says so, when its turns or actions are used up, or where
the next turn would be longer than what the model reads.

Source: arXiv 2510.15047, section 3 and its released settings (5 turns of at most 5 actions, 10 in all, -0.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from swirl import metrics, progress
from swirl.agents import conversation
from swirl.agents.arena import Scene
from swirl.agents.player import Sampled
from swirl.agents.replies import OPEN, Context, Form, Part, Reply, parse, told
from swirl.agents.settings import RL
from swirl.errors import InputError
from swirl.worlds.base import Step


@dataclass
class Turn:
    """A turn.

    Attributes:
        state: Before it.
        prompt: Token ids that the agent read in it, after all that came before.
        reply: Token ids that it wrote, the end among them where it came.
        text: What it wrote, `OPEN` included.
        read: The same, read; `None` where it cannot be.
        finished: Whether the reply ended within its limit.
        actions: Those that were taken.
        states: After each of them.
        rewards: For each of them.
        unknown: How many actions it wrote that there are not.
        penalty: For what could not be read or taken.
        doubts: Uncertainty of each of its steps, where a model imagined them.
    """

    state: str
    prompt: list[int]
    reply: list[int]
    text: str
    read: Reply | None
    finished: bool
    actions: list[str] = field(default_factory=list)
    states: list[str] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    unknown: int = 0
    penalty: float = 0.0
    doubts: list[float] = field(default_factory=list)

    @property
    def after(self) -> str:
        """The state after all its actions."""
        return self.states[-1] if self.states else self.state

    def right(self, part: Part) -> tuple[float, float] | None:
        """Whether the two states that it tells are right, 0 or 1 each; `None` where it tells none."""
        if not self.read or self.read.observation is None or self.read.prediction is None:
            return None
        seen, after = told(self.state, part), told(self.after, part)
        return metrics.exact_match(self.read.observation, seen), metrics.exact_match(self.read.prediction, after)


@dataclass
class Episode:
    """An episode.

    Attributes:
        seed: Its world's.
        layout: Its world's.
        turns: In order.
        success: Whether the world ended it with a positive reward.
        ended: Whether the world ended it.
        outgrown: Whether its next turn would have been longer than what the model reads.
    """

    seed: int
    layout: str
    turns: list[Turn] = field(default_factory=list)
    success: bool = False
    ended: bool = False
    outgrown: bool = False

    @property
    def score(self) -> float:
        """Rewards and penalties together."""
        return sum(sum(turn.rewards) + turn.penalty for turn in self.turns)

    @property
    def steps(self) -> int:
        """Actions that were taken."""
        return sum(len(turn.actions) for turn in self.turns)


@dataclass(frozen=True)
class Terms:
    """How episodes go.

    Attributes:
        turns: Most turns.
        per_turn: Most actions of a turn; more are left out.
        actions: Most actions of an episode.
        penalty: For a turn with a reply that cannot be read, or an action that there is not.
        reply: Most tokens of a reply.
        form: Of the replies.
        part: What of a state they tell.
        told: Whether the first prompt says what the world is, for models that follow instructions.
        max_length: Most tokens of what is read, and of the reply.
        template: For the chat template.
        context: What an agent reads in a turn.
    """

    turns: int = 5
    per_turn: int = 5
    actions: int = 10
    penalty: float = -0.1
    reply: int = 400
    form: Form = "plain"
    part: Part = "whole"
    told: bool = False
    max_length: int = 1024
    template: dict[str, Any] = field(default_factory=dict)
    context: Context = "episode"


class Plays(Protocol):
    """Who plays: a policy (`swirl.agents.player.Player`), or a script (`swirl.agents.scripted.Scripted`).

    Attributes:
        ends: Ids of the tokens that end a reply, the first of them the usual one.
    """

    ends: list[int]

    def reply(self, prompts: Sequence[list[int]]) -> list[Sampled]:
        """The next reply of every episode that is still played, after the tokens that it is told."""
        ...

    def forget(self) -> None:
        """Go on in new conversations, in which nothing was said before."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these episodes alone, in this order."""
        ...


class Steps(Protocol):
    """Where episodes happen: an `Arena`, or a tape of what happened."""

    def step(self, scenes: Sequence[Scene], actions: Sequence[str]) -> list[Step | None]:
        """Take an action in each scene; `None` where there is no such action, which changes nothing."""
        ...


def play(
    player: Plays, tokenizer: Any, arena: Steps, scenes: Sequence[Scene], terms: Terms, bar: progress.Bar | None = None
) -> list[Episode]:
    """Play episodes to their ends, all at once.

    Args:
        player: Fresh; its rows become those of the scenes.
        tokenizer: The policy's.
        arena: Where it plays.
        scenes: Of the arena, at their beginning; they are played in place.
        terms: How episodes go.
        bar: Told how many episodes have ended.

    Raises:
        InputError: A first prompt is too long.
    """
    episodes = [Episode(scene.seed, scene.layout) for scene in scenes]
    asked = [opening(tokenizer, scene, terms, episode) for scene, episode in zip(scenes, episodes, strict=True)]
    lengths = list(map(len, asked))
    if max(lengths) + terms.reply > terms.max_length:
        raise InputError(
            f"a first prompt has {max(lengths)} tokens, and model.max_length = {terms.max_length} leaves no room for "
            f"a reply of {terms.reply}; raise it"
        )
    active = list(range(len(scenes)))
    while active:
        replies = player.reply([asked[i] for i in active])
        for i, sampled in zip(active, replies, strict=True):
            episodes[i].turns.append(turn_of(scenes[i], asked[i], sampled, tokenizer))
        _act(arena, [(scenes[i], episodes[i]) for i in active], terms)
        going = []
        for row, (i, sampled) in enumerate(zip(active, replies, strict=True)):
            if not _over(episodes[i], terms):
                if terms.context == "turn":
                    asked[i] = opening(tokenizer, scenes[i], terms, episodes[i])
                    lengths[i] = len(asked[i])
                else:
                    asked[i] = _following(player, tokenizer, episodes[i], terms, sampled)
                    lengths[i] += len(sampled.ids) + len(asked[i])
                episodes[i].outgrown = lengths[i] + terms.reply > terms.max_length
                going += [] if episodes[i].outgrown else [row]
        if bar:
            bar.advance(len(active) - len(going))
        player.keep(going)
        if terms.context == "turn":
            player.forget()
        active = [active[row] for row in going]
    return episodes


def _over(episode: Episode, terms: Terms) -> bool:
    return episode.ended or len(episode.turns) >= terms.turns or episode.steps >= terms.actions


def turn_of(scene: Scene, asked: list[int], sampled: Sampled, tokenizer: Any) -> Turn:
    """What a prompt and the reply to it make, before anything is done."""
    text = OPEN + tokenizer.decode(sampled.ids, skip_special_tokens=True)
    return Turn(scene.state, asked, sampled.ids, text, parse(text) if sampled.finished else None, sampled.finished)


def _left(episode: Episode, terms: Terms) -> int:
    """Actions that an episode may still have, by its turns and by its actions."""
    return min(terms.actions - episode.steps, terms.per_turn * (terms.turns - len(episode.turns)))


def _wanted(episode: Episode, terms: Terms) -> tuple[str, ...]:
    """Actions of the last turn that there is still room for."""
    read = episode.turns[-1].read
    return read.actions[: min(terms.per_turn, terms.actions - episode.steps)] if read else ()


def _act(arena: Steps, played: Sequence[tuple[Scene, Episode]], terms: Terms) -> None:
    """Take the actions of all episodes' last turns, the first of each, then the second: a world may be a model."""
    wanted = [_wanted(episode, terms) for _, episode in played]
    for number in range(max(map(len, wanted), default=0)):
        now = [i for i, (_, episode) in enumerate(played) if number < len(wanted[i]) and not episode.ended]
        found = arena.step([played[i][0] for i in now], [wanted[i][number] for i in now])
        for i, after in zip(now, found, strict=True):
            scene, episode = played[i]
            turn = episode.turns[-1]
            if after is None:
                turn.unknown += 1
                continue
            _, reward, terminated, truncated, info = after
            turn.actions.append(wanted[i][number])
            turn.states.append(scene.state)
            turn.rewards.append(reward)
            turn.doubts += [info["uncertainty"]] if "uncertainty" in info else []
            episode.ended = terminated or truncated
            episode.success = terminated and reward > 0
    for _, episode in played:
        turn = episode.turns[-1]
        turn.penalty = terms.penalty if turn.unknown or turn.read is None else 0.0


def opening(tokenizer: Any, scene: Scene, terms: Terms, episode: Episode) -> list[int]:
    """The prompt of an episode's next turn, as that of a new conversation."""
    before = conversation.introduction(scene.manual, scene.actions, terms.per_turn) if terms.told else ""
    left, turn = _left(episode, terms), len(episode.turns) + 1
    text = conversation.ask(scene.state, left, terms.form, told=terms.told, before=before, turn=turn)
    return conversation.first(tokenizer, text, **terms.template)


def _following(player: Plays, tokenizer: Any, episode: Episode, terms: Terms, sampled: Sampled) -> list[int]:
    last = episode.turns[-1]
    text = conversation.ask(
        last.after,
        _left(episode, terms),
        terms.form,
        told=terms.told,
        turn=len(episode.turns) + 1,
        reward=sum(last.rewards) + last.penalty,
    )
    end = [] if sampled.finished else player.ends[:1]
    return end + conversation.following(tokenizer, text, player.ends, **terms.template)


def worth(episode: Episode, part: Part, settings: RL) -> float:
    """What an episode is worth to who learns from it.

    Its score; `state_reward` times the share of the states it should tell that are right (a share: a reward for each
    would be one for playing long); less `penalty` times the uncertainty of each imagined step, as in MOPO
    (arXiv 2005.13239, equation 4).
    """
    right = [sum(turn.right(part) or ()) / 2 for turn in episode.turns]
    doubt = sum(sum(turn.doubts) for turn in episode.turns)
    return episode.score + settings.state_reward * sum(right) / len(right) - settings.penalty * doubt
