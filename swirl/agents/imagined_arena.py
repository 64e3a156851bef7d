"""Training inside a learned world: an arena whose steps a forward model predicts, all of a turn's at once.

Episodes begin as those of the world do. What the policy learns there is worth what it does in the world itself: the
difference is the WM2Real gap, see `docs/agents.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from swirl.agents.arena import Scene, WorldArena
from swirl.agents.simulators import Simulator
from swirl.errors import InputError
from swirl.worlds.base import Step


@dataclass(frozen=True)
class ImaginedArena:
    """Episodes of a model of a world.

    Attributes:
        real: The world's own, whose beginnings are those here.
        simulator: Predicts what follows.
    """

    real: WorldArena
    simulator: Simulator

    def scenes(self, seed: int, count: int) -> list[Scene]:
        """A group: so many episodes of a seed, at their beginning.

        Raises:
            InputError: The world does not list its actions, so none could be refused.
        """
        [scene] = self.real.scenes(seed, 1)
        if not scene.actions:
            raise InputError(f"{self.real.name} lists no actions; train in the world itself, without rl.model")
        return [replace(scene, handle=self.simulator.start([scene.state])) for _ in range(count)]

    def step(self, scenes: Sequence[Scene], actions: Sequence[str]) -> list[Step | None]:
        """Take an action in each scene; `None` where there is no such action, which changes nothing."""
        there = [i for i, action in enumerate(actions) if action in scenes[i].actions]
        nodes = self.simulator.expand([scenes[i].handle for i in there], [actions[i] for i in there])
        found: list[Step | None] = [None] * len(scenes)
        for i, node in zip(there, nodes, strict=True):
            scenes[i].handle, scenes[i].state = node, node.state
            found[i] = node.state, node.reward, node.terminated, False, {"uncertainty": node.uncertainty}
        return found

    def tested(self) -> list[int]:
        """The seeds of validation."""
        return self.real.tested()

    def drawn(self, iteration: int, groups: int) -> list[int]:
        """The seeds of an iteration's groups; none has a layout of validation."""
        return self.real.drawn(iteration, groups)
