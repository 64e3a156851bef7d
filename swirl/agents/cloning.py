"""Imitation of demonstrations whose actions nobody recorded: the inverse model infers them, the policy clones.

    z*_t   = argmax_z Q(z | s_t, s_{t+1})      for every step of a demonstration
    policy = sft(policy, turns of up to `per_turn` actions z*)

A step that changes nothing says nothing about what was done, and is passed over. Both states of a reply are known, so
that in the form "states" the policy learns its world model from demonstrations too.

Source: the setting is AIME's, imitation from observations with a pretrained world model (Zhang et al., Action Inference
by Maximising Evidence, NeurIPS 2023).
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from swirl import api, data
from swirl.agents import conversation, selfplay
from swirl.agents.arena import Scene
from swirl.agents.episodes import Terms, play
from swirl.agents.player import Sampled
from swirl.agents.replies import Reply, told
from swirl.errors import InputError
from swirl.worlds.base import Step

Steps = list[dict[str, Any]]
"""Rows of a recording."""


def demonstrations(path: str | Path, infer: Callable[[Steps], list[str]] | None) -> Iterator[Steps]:
    """The trajectories of a recording, with an action in every step that changes something; others are passed over.

    Args:
        path: The recording.
        infer: Infers the actions of steps, and those that were recorded are not looked at; `None`: they are taken.

    Raises:
        InputError: The recording cannot be read, or an action is missing.
    """
    rows = [row for row in data.read(path).to_pylist() if row["state"] != row["next_state"]]
    actions = infer(rows) if infer else [row["action"] for row in rows]
    for row, action in zip(rows, actions, strict=True):
        if not action:
            where = f"{path}: trajectory {row['trajectory']!r} step {row['step']} has no action"
            raise InputError(f"{where}; give clone.inverse, the run of a model that infers them")
        row["action"] = action
    for _, steps in groupby(rows, lambda row: row["trajectory"]):
        yield list(steps)


def inferred(run: str | Path, actions: Sequence[str], device: str) -> Callable[[Steps], list[str]]:
    """Infers actions by the inverse model of a run: of those that there are, the likeliest.

    Raises:
        InputError: The run has no inverse model that can be used.
    """
    inverse = api.load_inverse(run, device)
    return lambda rows: [group[0].action for group in api.candidates(inverse, rows, actions)]


class Tape:
    """A recording as an arena: every step leads where it led, whatever is done. A scene's handle is what is to come."""

    def scenes(self, demonstrated: Sequence[Steps]) -> list[Scene]:
        """One for each demonstration."""
        return [Scene(deque(steps), steps[0]["state"], number, "", ()) for number, steps in enumerate(demonstrated)]

    def step(self, scenes: Sequence[Scene], actions: Sequence[str]) -> list[Step | None]:
        """What was recorded next."""
        found: list[Step | None] = []
        for scene in scenes:
            row = scene.handle.popleft()
            scene.state = row["next_state"]
            over = row["terminated"] or not scene.handle
            found.append((scene.state, row["reward"] or 0.0, row["terminated"], over and not row["terminated"], {}))
        return found


class Demonstrator:
    """Says what was done in the scenes of a tape, as many actions in a turn as there may be."""

    def __init__(self, scenes: Sequence[Scene], tokenizer: Any, terms: Terms) -> None:
        self.ends = [tokenizer.eos_token_id]
        self._scenes, self._tokenizer, self._terms = list(scenes), tokenizer, terms

    def reply(self, prompts: Sequence[list[int]]) -> list[Sampled]:
        """The next turn of every scene."""
        texts = [self._say(list(islice(scene.handle, self._terms.per_turn))).text() for scene in self._scenes]
        return [Sampled(conversation.reply(self._tokenizer, text)[0], True) for text in texts]

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these scenes alone."""
        self._scenes = [self._scenes[row] for row in rows]

    def _say(self, steps: Steps) -> Reply:
        actions, part = tuple(step["action"] for step in steps), self._terms.part
        if self._terms.form == "plain":
            return Reply(actions, " ".join(actions))
        return Reply(actions, " ".join(actions), told(steps[0]["state"], part), told(steps[-1]["next_state"], part))


def rows(tokenizer: Any, demonstrated: Sequence[Steps], terms: Terms) -> list[selfplay.Row | None]:
    """Demonstrations as conversations to learn from."""
    tape = Tape()
    scenes = tape.scenes(demonstrated)
    episodes = play(Demonstrator(scenes, tokenizer, terms), tokenizer, tape, scenes, terms, "demonstrations")
    return [selfplay.row(tokenizer, episode, [turn.read for turn in episode.turns]) for episode in episodes]
