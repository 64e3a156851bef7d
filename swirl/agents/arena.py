"""Where agents act: episodes of a world by seed, dealt out so that nothing is trained on that is tested.

A *group* is episodes of one seed, which begin alike and meet the same chances. Seeds of validation are fixed; a
training seed whose layout is one of theirs is passed over, since in a small world layouts recur.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any, Protocol

from swirl import worlds
from swirl.agents.settings import BLOCK, STRIDE
from swirl.errors import InputError, SkippedError
from swirl.types import state_text
from swirl.worlds.base import Step, World

logger = logging.getLogger("swirl")


@dataclass
class Scene:
    """An episode that is being played.

    Attributes:
        handle: What its arena goes on from: a world, or a node of a simulator.
        state: The state now.
        seed: What it began with.
        layout: Of its world.
        manual: The world in words.
        actions: Those that there are, where they can be listed.
    """

    handle: Any
    state: str
    seed: int
    layout: str
    manual: str
    actions: tuple[str, ...]


class Arena(Protocol):
    """Where agents train and are tested: a world (`WorldArena`), or a model of one (`ImaginedArena`)."""

    def scenes(self, seed: int, count: int) -> list[Scene]:
        """A group: so many episodes of a seed, at their beginning."""
        ...

    def step(self, scenes: Sequence[Scene], actions: Sequence[str]) -> list[Step | None]:
        """Take an action in each scene; `None` where there is no such action, which changes nothing."""
        ...

    def tested(self) -> list[int]:
        """The seeds of validation."""
        ...

    def drawn(self, iteration: int, groups: int) -> list[int]:
        """The seeds of an iteration's groups; none has a layout of validation."""
        ...


@dataclass(frozen=True)
class WorldArena:
    """Episodes of a world itself.

    Attributes:
        name: A key of `swirl.worlds.WORLDS`.
        options: Of the world.
        validation: How many seeds validation has.
        seed: The recipe's, which says what is trained on.
        beside: Layouts that are not trained on either, beside those of validation.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    validation: int = 128
    seed: int = 0
    beside: frozenset[str] = frozenset()

    def scenes(self, seed: int, count: int) -> list[Scene]:
        """A group: so many episodes of a seed, at their beginning.

        Raises:
            InputError: The world has images.
        """
        return [self._scene(seed) for _ in range(count)]

    def step(self, scenes: Sequence[Scene], actions: Sequence[str]) -> list[Step | None]:
        """Take an action in each scene; `None` where there is no such action, which changes nothing.

        An episode that cannot go on (`SkippedError`) is broken off where it is.
        """
        found: list[Step | None] = []
        for scene, action in zip(scenes, actions, strict=True):
            try:
                after = scene.handle.step(action)
            except InputError:
                found.append(None)
                continue
            except SkippedError as error:
                logger.warning("%s, seed %d: an episode is broken off: %s", self.name, scene.seed, error)
                after = scene.state, 0.0, False, True, {}
            scene.state = state_text(after[0])
            found.append(after)
        return found

    def tested(self) -> list[int]:
        """The seeds of validation."""
        return list(range(self.validation))

    def training(self, first: int = 0) -> Iterator[int]:
        """Seeds to train on, in order, without the layouts of validation.

        Args:
            first: Where in the block of the recipe's seed to begin.

        Raises:
            InputError: None of a thousand seeds in a row has a layout of its own.
        """
        passed_over = 0
        block = (1 + self.seed) * BLOCK
        for seed in range(block + first, block + BLOCK):
            if self.layout(seed) not in self.held_out:
                passed_over = 0
                yield seed
            elif (passed_over := passed_over + 1) == 1000:
                raise InputError(
                    f"{self.name}: the {len(self.held_out)} layouts of validation are all that there are; lower "
                    "evaluation.seeds, or make the world larger"
                )

    def drawn(self, iteration: int, groups: int) -> list[int]:
        """The seeds of an iteration's groups."""
        return list(islice(self.training(iteration * groups * STRIDE), groups))

    @cached_property
    def held_out(self) -> set[str]:
        """The layouts that are not trained on, those of validation among them."""
        return {self.layout(seed) for seed in self.tested()} | self.beside

    def layout(self, seed: int) -> str:
        """The layout of a seed."""
        return self.world().reset(seed)[1]["layout"]

    def world(self) -> World:
        """The world, anew, in no episode."""
        return worlds.make(self.name, **self.options)

    def _scene(self, seed: int) -> Scene:
        world = self.world()
        state, info = world.reset(seed)
        if not isinstance(state, str):
            raise InputError(f"{self.name} shows images, which agents do not read; choose a world of words")
        manual = getattr(world, "manual", f"You act in the world {self.name}.")
        return Scene(world, state, seed, info["layout"], manual, world.actions(state) or ())
