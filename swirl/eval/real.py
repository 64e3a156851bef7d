"""The real world as the judge, for recordings of deterministic worlds that say where they come from.

A world cannot be set to a state, so an episode is played again: reset with its seed, then the recorded actions. Steps
from where the world no longer gives the recorded states are left out; `real_replayed` is the share of the rest.

*Action equivalence.* The inferred action, executed in the recorded state, leads to the recorded next state. Two actions
that do the same are both right, which `action_exact_match_changed` cannot know.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swirl import data, metrics, progress, worlds
from swirl.data.origin import Origin
from swirl.data.replay import seed_of
from swirl.errors import InputError
from swirl.eval import rows
from swirl.imagetokens import ImageTokenizer
from swirl.types import state_text
from swirl.worlds.base import World
from swirl.worlds.written import WrittenWorld

Rows = rows.Rows


@dataclass(frozen=True)
class Replay:
    """A world in which the episodes of a recording can be played again."""

    world: World
    origin: Origin

    def after(self, trajectory: str, actions: Sequence[str]) -> str:
        """The state that actions lead to from an episode's start; "" where one of them cannot be taken."""
        seed = seed_of(trajectory, self.origin.seed)
        if seed is None:
            return ""
        state = state_text(self.world.reset(seed)[0])
        for action in actions:
            state = self._step(action, state)
            if not state:
                break
        return state

    def _step(self, action: str, state: str) -> str:
        """The state after an action, written in any case; "" where there is none, or the episode has ended."""
        listed = self.world.actions(state) or ()
        known = next((own for own in listed if metrics.action_match(own, action)), action)
        try:
            return state_text(self.world.step(known)[0])
        except InputError:
            return ""

    def pasts(self, recording: Rows) -> dict[tuple[str, int], list[str]]:
        """The actions that lead to each step (trajectory and number), as far as the world gives the recorded states."""
        trajectories: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in recording:
            trajectories[row["trajectory"]].append(row)
        out: dict[tuple[str, int], list[str]] = {}
        with progress.bar("replay", len(trajectories)) as bar:
            for name, steps in trajectories.items():
                actions: list[str] = []
                here = self.after(name, actions)
                for row in sorted(steps, key=lambda row: row["step"]):
                    if row["step"] != len(actions) or not metrics.exact_match(here, state_text(row["state"])):
                        break
                    out[name, row["step"]] = list(actions)
                    actions.append(row["action"])
                    here = self._step(row["action"] or "", here) if here else ""
                bar.advance()
        return out


def replay_of(path: Path, images: ImageTokenizer | None = None) -> Replay:
    """The world of a recording, its images written by a tokenizer.

    Raises:
        InputError: The recording does not say where it comes from, or its world is not a function of seed and actions.
        MissingPartError: The world's simulator is not installed.
    """
    origin = data.origin_of(path)
    if origin is None:
        raise InputError(
            f"{path} does not say which world and seed it was recorded with; give a recording of `swirl collect`, or a "
            "run's data/test.parquet"
        )
    world = worlds.make(origin.world, **origin.options)
    if not (world.complete and world.repeatable):
        world.close()
        raise InputError(f"{path}: the world {origin.world!r} as recorded cannot be played again step by step")
    return Replay(WrittenWorld(world, images) if images else world, origin)


def equivalence(
    replay: Replay, pasts: dict[tuple[str, int], list[str]], picked: Rows, named: Mapping[str, Sequence[str]]
) -> rows.Results:
    """`action_equivalent_changed` of each model's inferred actions.

    Args:
        replay: The world.
        pasts: Of the recording.
        picked: Transitions with actions.
        named: Actions for `picked` by model.
    """
    changed = [metrics.changed(row["state"], row["next_state"]) for row in picked]
    told = [i for i, row in enumerate(picked) if changed[i] and (row["trajectory"], row["step"]) in pasts]
    clusters = rows.clusters([picked[i] for i in told])
    share = len(told) / sum(changed) if any(changed) else 0.0
    out = rows.plain("recording", "inverse", "real_replayed", share, sum(changed))
    for model, actions in named.items():
        right = []
        for i in told:
            name, step = picked[i]["trajectory"], picked[i]["step"]
            reached = replay.after(name, [*pasts[name, step], actions[i]])
            right.append(metrics.exact_match(reached, state_text(picked[i]["next_state"])))
        out += rows.mean(model, "inverse", "action_equivalent_changed", right, clusters)
    return out
