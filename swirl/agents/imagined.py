"""The learned world as a Gymnasium environment: `swirl/Imagined-v0`, alone or many side by side.

    import gymnasium
    import swirl.agents.imagined  # registers it; nothing of it is imported before

    lake = {"forward": "runs/lake", "starts": "runs/lake/data/validation.parquet", "world": "frozenlake"}
    env = gymnasium.make("swirl/Imagined-v0", **lake)
    many = gymnasium.make_vec("swirl/Imagined-v0", num_envs=64, **lake)  # one call of the model per step of all

`gymnasium.make("swirl.agents.imagined:swirl/Imagined-v0", ...)` imports it by itself. Every step is a prediction, so an
episode that the model drifts away in looks like any other: `info["uncertainty"]` and `limit` are for that.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from swirl import api, data, worlds
from swirl.agents import head as heads
from swirl.agents.head import Head
from swirl.agents.learned import check_world
from swirl.agents.simulators import Imagined, Node, Outcome, by_rules
from swirl.api import ForwardModel
from swirl.errors import InputError
from swirl.types import State
from swirl.worlds import World
from swirl.worlds.base import Rules, refuse_outside_episode

Model = str | Path | ForwardModel


@dataclass(frozen=True)
class _Episode:
    node: Node
    steps: int = 0
    running: bool = True


Stepped = tuple[_Episode, float, bool, bool, dict[str, Any]]


class ImaginedWorld(gymnasium.Env[str, np.int64]):
    """A forward model to act in.

    An observation is a state's text, as the model writes it. A step whose prediction cannot be read changes nothing.
    `info["uncertainty"]` is of the step, then 1; see `simulators.Imagined`.

    Args:
        forward: Run folder, checkpoint or loaded model; or several, an ensemble.
        starts: States to begin at, drawn evenly; or a recording, whose trajectories' first states they are.
        world: Name of a world, or one: its rules read reward and end off states, and it lists the actions. Or rules
            alone, beside `actions`.
        actions: What can be done, in words; by default what the world lists.
        head: A learned head or its folder, in place of the world's rules; it reads the (first) model.
        samples: See `simulators.Imagined`; with more than one, or an ensemble, uncertainty says something.
        max_steps: Steps after which an episode is truncated.
        limit: Uncertainty above which it is truncated; by default it never is.
        device: Where to compute.

    Raises:
        InputError: A number is out of its range, there is no start, reward and end cannot be known, the actions cannot
            be listed once for all episodes, or a model, head or recording cannot be used or is of another world.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        forward: Model | Sequence[Model],
        starts: str | Path | Sequence[State],
        world: str | World | Rules | None = None,
        actions: Sequence[str] | None = None,
        head: str | Path | Head | None = None,
        samples: int = 1,
        max_steps: int = 40,
        limit: float | None = None,
        device: str = "auto",
    ) -> None:
        if max_steps < 1 or (limit is not None and limit < 0):
            raise InputError(f"max_steps = {max_steps} and limit = {limit}, expected at least 1, and at least 0")
        given = [forward] if isinstance(forward, Model) else list(forward)
        for one in given:
            if isinstance(one, str | Path) and isinstance(world, str):
                check_world(one, world)
        forwards = [api.load_forward(one, device) if isinstance(one, str | Path) else one for one in given]
        self._made = worlds.make(world) if isinstance(world, str) else None
        known = world if not isinstance(world, str) else self._made
        self.simulator = Imagined(forwards, samples=samples)
        self.simulator.outcome = _outcome(known, head, forwards)
        self.actions = tuple(actions or _listed(known))
        if len(set(self.actions)) < len(self.actions):
            raise InputError(f"actions = {', '.join(self.actions)}: one is given twice; give each once")
        states, seen = _states(starts)
        self.starts = [forwards[0].write(state) for state in states]
        self.observation_space = _space(forwards, [*self.starts, *seen])
        self.action_space = spaces.Discrete(len(self.actions))
        self.max_steps, self.limit = max_steps, limit
        self._episode: _Episode | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """See `gymnasium.Env.reset`; there are no options."""
        super().reset(seed=seed)
        self._episode = self.begin(self.np_random)
        return self._episode.node.state, {}

    def step(self, action: np.int64) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`.

        Raises:
            InputError: There is no such action, or no episode.
        """
        episode = self._episode
        refuse_outside_episode(episode is not None and episode.running)
        [(after, reward, terminated, truncated, info)] = self.advance([episode] if episode else [], [action])
        self._episode = after
        return after.node.state, reward, terminated, truncated, info

    def close(self) -> None:
        """Lets go of the world, where its name was given."""
        if self._made is not None:
            self._made.close()

    def begin(self, rng: np.random.Generator) -> _Episode:
        """An episode at a start that is drawn."""
        return _Episode(self.simulator.start([self.starts[int(rng.integers(len(self.starts)))]]))

    def advance(self, episodes: Sequence[_Episode], actions: Sequence[np.int64]) -> list[Stepped]:
        """A step of each episode, predicted together: the episode after it, reward, terminated, truncated, info.

        Raises:
            InputError: There is no such action.
        """
        for action in actions:
            if action not in self.action_space:
                raise InputError(f"action {action}, expected a number from 0 to {len(self.actions) - 1}")
        done = [self.actions[int(action)] for action in actions]
        nodes = self.simulator.expand([episode.node for episode in episodes], done)
        return [self._stepped(*step) for step in zip(episodes, done, nodes, strict=True)]

    def _stepped(self, episode: _Episode, action: str, node: Node) -> Stepped:
        if node.state not in self.observation_space:  # in characters that no token has by itself: as if unreadable
            node = self.simulator.nowhere(episode.node.state, action, episode.node.handle)
        steps = episode.steps + 1
        doubtful = self.limit is not None and node.uncertainty > self.limit
        truncated = not node.terminated and (steps >= self.max_steps or doubtful)
        after = _Episode(node, steps, not (node.terminated or truncated))
        return after, float(node.reward), node.terminated, truncated, {"uncertainty": node.uncertainty}


class ImaginedVector(VectorEnv[tuple[str, ...], np.ndarray, np.ndarray]):
    """Many episodes of an `ImaginedWorld`, a step of all of which is one call of the model.

    Steps as `gymnasium.vector.SyncVectorEnv` of as many environments does; an episode that has ended begins anew with
    the next step.

    Args:
        num_envs: How many.
        **settings: Of `ImaginedWorld`.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int = 1, **settings: Any) -> None:
        self.num_envs, self.world = num_envs, ImaginedWorld(**settings)
        self.single_observation_space = self.world.observation_space
        self.single_action_space = self.world.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rngs: list[np.random.Generator] = []
        self._episodes: list[_Episode] = []

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        """See `SyncVectorEnv.reset`: a seed for each, or one that counts up; there are no options."""
        seeds = (
            [None if seed is None else seed + i for i in range(self.num_envs)]
            if not isinstance(seed, Sequence)
            else seed
        )
        if len(seeds) != self.num_envs:
            raise InputError(f"{len(seeds)} seeds for {self.num_envs} environments; give one for each")
        old = self._rngs or [None] * self.num_envs
        self._rngs = [
            rng if rng is not None and own is None else seeding.np_random(own)[0]
            for rng, own in zip(old, seeds, strict=True)
        ]
        self._episodes = [self.world.begin(rng) for rng in self._rngs]
        return self._states(), {}

    def step(self, actions: np.ndarray) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """See `SyncVectorEnv.step`; the action of an episode that begins anew is not looked at.

        Raises:
            InputError: There is no such action, or no episode has begun.
        """
        refuse_outside_episode(bool(self._episodes))
        going = [i for i, episode in enumerate(self._episodes) if episode.running]
        stepped = self.world.advance([self._episodes[i] for i in going], [actions[i] for i in going])
        rewards, ended, cut = (np.zeros(self.num_envs, kind) for kind in (np.float64, np.bool_, np.bool_))
        infos: dict[str, Any] = {}
        for i in set(range(self.num_envs)) - set(going):
            self._episodes[i] = self.world.begin(self._rngs[i])
        for i, (episode, reward, terminated, truncated, info) in zip(going, stepped, strict=True):
            self._episodes[i], rewards[i], ended[i], cut[i] = episode, reward, terminated, truncated
            infos = self._add_info(infos, info, i)
        return self._states(), rewards, ended, cut, infos

    def _states(self) -> tuple[str, ...]:
        return tuple(episode.node.state for episode in self._episodes)


def _outcome(world: World | Rules | None, head: str | Path | Head | None, forwards: Sequence[ForwardModel]) -> Outcome:
    """How reward and end of a step are known."""
    if head is not None:
        return (head if isinstance(head, Head) else heads.load(Path(head), forwards[0])).outcome
    if not isinstance(world, Rules):
        named = "no world is given" if world is None else f"the states of {world.name} do not tell it"
        raise InputError(f"nothing says what a step gives: {named}; give a world with outcome(), or head=")
    return by_rules(world)


def _listed(world: World | Rules | None) -> Sequence[str]:
    """The actions that a world lists, if they are the same in two episodes."""
    if world is None or not hasattr(world, "actions"):
        raise InputError("no world is given that lists actions; give actions=")
    lists = cast(World, world)
    first, second = (lists.actions(lists.reset(seed)[0]) for seed in (0, 1))
    if first is None or first != second:
        raise InputError(f"{lists.name} does not list the same actions in every episode; give actions=")
    return first


def _states(starts: str | Path | Sequence[State]) -> tuple[list[State], set[str]]:
    """Start states, and the texts of all that are known besides."""
    if not isinstance(starts, str | Path):
        if not starts:
            raise InputError("starts is empty, expected at least one state, or a recording")
        return list(starts), set()
    table = data.read(starts).select(["trajectory", "step", "state", "next_state"]).to_pylist()
    first = {row["trajectory"]: row["state"] for row in sorted(table, key=lambda row: -row["step"])}
    return list(first.values()), {row[name] for row in table for name in ("state", "next_state")}


def _space(forwards: Sequence[ForwardModel], seen: Sequence[str]) -> spaces.Text:
    """Texts in the characters of the models' tokens and of known states, as long as a model could write."""
    characters, most = set("".join(seen)) | set(string.printable), max(map(len, seen))
    for forward in forwards:
        tokenizer = forward.scorer.tokenizer
        pieces = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        characters |= set("".join(pieces))
        # A change of the longest state that is read can write as much again.
        most = max(most, 2 * forward.max_length * max(map(len, pieces)))
    return spaces.Text(most, min_length=0, charset=frozenset(characters))


gymnasium.register(
    "swirl/Imagined-v0",
    entry_point="swirl.agents.imagined:ImaginedWorld",
    vector_entry_point="swirl.agents.imagined:ImaginedVector",
)
