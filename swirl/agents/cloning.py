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
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from swirl import api, data
from swirl.agents import selfplay
from swirl.agents.arena import Scene
from swirl.agents.episodes import Terms, play
from swirl.agents.replies import Reply, of_turn
from swirl.agents.scripted import Scripted
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


def _say(terms: Terms, scene: Scene) -> Reply:
    """What was done next in a scene of a tape, as many actions as a turn may have."""
    steps = list(islice(scene.handle, terms.per_turn))
    actions = [step["action"] for step in steps]
    return of_turn(actions, steps[0]["state"], steps[-1]["next_state"], terms.form, terms.part)


def rows(tokenizer: Any, demonstrated: Sequence[Steps], terms: Terms) -> list[selfplay.Row | None]:
    """Demonstrations as conversations to learn from."""
    tape = Tape()
    scenes = tape.scenes(demonstrated)
    episodes = play(Scripted(scenes, tokenizer, partial(_say, terms)), tokenizer, tape, scenes, terms, "demonstrations")
    return [selfplay.row(tokenizer, episode, [turn.read for turn in episode.turns]) for episode in episodes]
