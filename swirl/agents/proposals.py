"""A policy's proposals to a planner: the first actions of its replies, as often as it writes them.

    propose = Proposals(agent.load("runs/sokoban"), actions)
    beam(simulator.expand, tasks, Search(policy=propose))

A reply has thoughts before its actions, so what an action is likely to be is known only by writing many replies.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import log

import numpy as np

from swirl.agents import episodes
from swirl.agents.agent import Agent
from swirl.agents.arena import Scene
from swirl.agents.episodes import Episode
from swirl.agents.evaluation import BATCH
from swirl.agents.planning import Plan, Planner, Task
from swirl.agents.player import Player
from swirl.agents.simulators import Expand
from swirl.order import seed_of


class Proposals:
    """What an agent would do in states, each as at an episode's beginning; a `planning.Policy`.

    A state is asked about once: its proposals are remembered.

    Args:
        agent: The policy.
        manual: The world in words, for an agent that is told what it plays.
        actions: The actions that there are, for the same.
        samples: Replies that are written in each state, at temperature 1.
        seed: Of the sampling.
    """

    def __init__(self, agent: Agent, manual: str, actions: Sequence[str], samples: int = 16, seed: int = 0) -> None:
        self.agent, self.samples, self.seed = agent, samples, seed
        self._scene = Scene(None, "", 0, "", manual, tuple(actions))
        self._known: dict[str, list[tuple[str, float]]] = {}

    def __call__(self, states: Sequence[str]) -> list[list[tuple[str, float]]]:
        """Actions with the log of their share among the replies that can be read (nats), the likeliest first."""
        new = [state for state in dict.fromkeys(states) if state not in self._known]
        model, tokenizer = self.agent.loaded
        terms = self.agent.terms
        scenes = [replace(self._scene, state=state) for state in new for _ in range(self.samples)]
        asked = [episodes.opening(tokenizer, scene, terms, Episode(0, "")) for scene in scenes]
        written: list[str | None] = []
        for start in range(0, len(asked), BATCH):
            part = slice(start, start + BATCH)
            player = Player(model, tokenizer, terms.reply, seed=seed_of(self.seed, len(self._known), start))
            for scene, prompt, reply in zip(scenes[part], asked[part], player.reply(asked[part]), strict=True):
                read = episodes.turn_of(scene, prompt, reply, tokenizer).read
                written.append(read.actions[0] if read and read.actions else None)
        for i, state in enumerate(new):
            own = Counter(a for a in written[i * self.samples : (i + 1) * self.samples] if a is not None)
            self._known[state] = [(action, log(n / own.total())) for action, n in own.most_common()]
        return [self._known[state] for state in states]


def alone(propose: Proposals, seed: int | None = None) -> Planner:
    """The policy without a plan; it does nothing where no reply can be read.

    Args:
        propose: What it would do.
        seed: Of drawing its actions as often as it writes them; `None`: the likeliest is taken, always the same in a
            state, so that an episode which comes back to one goes round in circles.
    """
    rng = None if seed is None else np.random.default_rng(seed)

    def planner(expand: Expand, tasks: Sequence[Task]) -> list[Plan]:
        found = propose([task.start.state for task in tasks])
        return [
            Plan((_one_of(proposals, rng),) if proposals else (), (task.start,))
            for task, proposals in zip(tasks, found, strict=True)
        ]

    return planner


def _one_of(proposals: Sequence[tuple[str, float]], rng: np.random.Generator | None) -> str:
    """The likeliest of some actions, or one drawn by the logs of their shares."""
    actions, logs = zip(*proposals, strict=True)
    return actions[0] if rng is None else actions[rng.choice(len(actions), p=np.exp(logs) / np.exp(logs).sum())]
