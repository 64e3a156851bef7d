"""Imitation of demonstrations whose actions nobody recorded: the inverse model infers them, the policy clones.

    z*_t   = argmax_z Q(z | s_t, s_{t+1})      for every step of a demonstration
    policy = sft(policy, turns of up to `per_turn` actions z*)

A step that changes nothing says nothing about what was done, and is passed over; a demonstration is followed up to the
first step whose action nobody can tell. Both states of a reply are known, so that in the form "states" the policy
learns its world model from demonstrations too.

Source: the setting is AIME's, imitation from observations with a pretrained world model (Zhang et al., Action Inference
by Maximising Evidence, NeurIPS 2023).
"""

import logging
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import groupby, islice, takewhile
from pathlib import Path
from typing import Any

from swirl import api, data, metrics, progress
from swirl.agents import selfplay
from swirl.agents.arena import Scene
from swirl.agents.episodes import Terms, play
from swirl.agents.replies import Reply, of_turn
from swirl.agents.scripted import Scripted
from swirl.errors import InputError
from swirl.labelling import ListActions
from swirl.worlds.base import Step

logger = logging.getLogger("swirl")

Steps = list[dict[str, Any]]
"""Rows of a recording."""


def demonstrations(
    path: str | Path, infer: Callable[[Steps], list[str]] | None, tested: Collection[str] = (), history: int = 0
) -> tuple[list[Steps], dict[str, int]]:
    """The trajectories of a recording, with an action in every step that changes something; others are passed over.

    Args:
        path: The recording.
        infer: Infers the actions of steps, and those that were recorded are not looked at; `None`: they are taken.
        tested: Layouts that are not to be learned from: their trajectories are left out.
        history: Earlier states that are shown to who infers.

    Returns:
        Trajectories, and counts of what is not in them: steps that are `tested`, that are `unchanged`, and that are
        `untold`, from one on whose action is not known.

    Raises:
        InputError: The recording cannot be read, or has nothing else to learn from.
    """
    every = data.with_history(data.read(path), history).to_pylist()
    recorded = [row for row in every if metrics.changed(row["state"], row["next_state"])]
    if tested and any(row["layout"] is None for row in recorded):
        logger.warning("%s names no layouts: whether what is tested is learned from cannot be told", path)
    rows = [row for row in recorded if row["layout"] not in tested]
    if not rows:
        raise InputError(f"{path}: no step changes the state in a layout that is not tested; give another recording")
    first = {row["trajectory"]: i for i, row in reversed(list(enumerate(rows)))}
    rows.sort(key=lambda row: (first[row["trajectory"]], row["step"]))
    actions = infer(rows) if infer else [row["action"] for row in rows]
    for row, action in zip(rows, actions, strict=True):
        row["action"] = action
    whole = groupby(rows, lambda row: row["trajectory"])
    told = [steps for _, own in whole if (steps := list(takewhile(lambda row: row["action"], own)))]
    if not told:
        mend = (
            "the inverse model wrote none that can be read; give another"
            if infer
            else "give clone.inverse, a model that infers them"
        )
        raise InputError(f"{path}: no trajectory begins with a step whose action is known: {mend}")
    counts = {
        "tested": len(recorded) - len(rows),
        "unchanged": len(every) - len(recorded),
        "untold": len(rows) - sum(map(len, told)),
    }
    return told, counts


class Inferred:
    """Infers actions by the inverse model of a run: of those that there are, the likeliest; "" where none can be read.

    Args:
        run: Its run folder.
        list_actions: The actions that there are; where they cannot be listed, the model's own proposals are taken.
        device: Where to compute.

    Attributes:
        history: Earlier states that the model is shown.

    Raises:
        InputError: The run has no inverse model that can be used.
    """

    def __init__(self, run: str | Path, list_actions: ListActions, device: str) -> None:
        self._model, self._list_actions = api.load_inverse(run, device), list_actions
        self.history = self._model.recipe.data.history

    def __call__(self, rows: Steps) -> list[str]:
        """An action for each of the rows, which have a `history`."""
        alike: dict[Sequence[str] | None, list[int]] = defaultdict(list)
        for i, row in enumerate(rows):
            alike[self._list_actions(row["state"])].append(i)
        found = [""] * len(rows)
        for actions, index in alike.items():
            for i, group in zip(index, api.candidates(self._model, [rows[i] for i in index], actions), strict=True):
                found[i] = group[0].action if group else ""
        return found


class Tape:
    """A recording as an arena: every step leads where it led, whatever is done. A scene's handle is what is to come."""

    def scenes(self, demonstrated: Sequence[Steps]) -> list[Scene]:
        """One for each demonstration."""
        return [Scene(deque(steps), steps[0]["state"], number, "", "", ()) for number, steps in enumerate(demonstrated)]

    def step(self, scenes: Sequence[Scene], actions: Sequence[str]) -> list[Step | None]:
        """What was recorded next."""
        found: list[Step | None] = []
        for scene in scenes:
            row = scene.handle.popleft()
            scene.state = row["next_state"]
            over = row["terminated"] or not scene.handle
            found.append((scene.state, row["reward"] or 0.0, row["terminated"], over and not row["terminated"], {}))
        return found


def _say(terms: Terms, scene: Scene, said: int) -> Reply:
    """What was done next in a scene of a tape, as many actions as a turn may have."""
    steps = list(islice(scene.handle, min(terms.per_turn, terms.actions - said)))
    actions = [step["action"] for step in steps]
    return of_turn(actions, steps[0]["state"], steps[-1]["next_state"], terms.form, terms.part)


def rows(tokenizer: Any, demonstrated: Sequence[Steps], terms: Terms) -> list[list[selfplay.Row]]:
    """Demonstrations as conversations to learn from, rows of each."""
    tape = Tape()
    scenes = tape.scenes(demonstrated)
    with progress.bar("demonstrations", len(scenes)) as bar:
        episodes = play(Scripted(scenes, tokenizer, partial(_say, terms)), tokenizer, tape, scenes, terms, bar)
    return [
        selfplay.rows(tokenizer, episode, [turn.read for turn in episode.turns], context=terms.context)
        for episode in episodes
    ]
