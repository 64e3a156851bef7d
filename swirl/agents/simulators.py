"""Simulators: what would follow, asked for many states and actions at once. Planning and `ImaginedWorld` stand on them.

    simulator = Imagined([swirl.load_forward("runs/lake")], by_rules(worlds.make("frozenlake")))
    here = simulator.start([state])
    left, down = simulator.expand([here, here], ["Left", "Down"])

`Imagined` asks forward models, `Real` steps copies of the world itself. Neither changes where the world stands.
"""

import copy
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from swirl import metrics, models, prompts
from swirl.api import ForwardModel
from swirl.errors import InputError
from swirl.types import State, state_text
from swirl.worlds import World
from swirl.worlds.base import Rules

KEPT = 100_000
"""Steps whose prediction is remembered, about a kilobyte each; then all are forgotten."""

Expand = Callable[[Sequence["Node"], Sequence[str]], Sequence["Node"]]
"""What each node's action leads to; `Simulator.expand` is one."""
Outcome = Callable[[Sequence[str], Sequence[str], Sequence[str]], Sequence[tuple[float, bool] | None]]
"""Reward and end of steps, from their states, actions and next states; `None` where no step can lead from one to the
other."""


@dataclass(frozen=True)
class Node:
    """A state in a simulator, and the step that led there.

    Attributes:
        state: Its text.
        reward: Of the step.
        terminated: Whether nothing comes after it.
        uncertainty: Of the prediction: 0 sure, 1 nothing is known.
        handle: What the simulator goes on from; nobody else's.
    """

    state: str
    reward: float = 0.0
    terminated: bool = False
    uncertainty: float = 0.0
    handle: Any = field(default=None, repr=False, compare=False)


class Simulator(Protocol):
    """Something that says what actions would lead to.

    Attributes:
        calls: Predictions that were asked for so far, or steps that were taken: what looking ahead has cost.
    """

    calls: int

    def start(self, states: Sequence[State], world: World | None = None) -> Node:
        """The node of where an episode stands now.

        Args:
            states: Those that it has shown, the oldest first; at least one.
            world: Where it is played; a model does without.
        """
        ...

    def expand(self, nodes: Sequence[Node], actions: Sequence[str]) -> list[Node]:
        """What each node's action leads to; none of the nodes is terminated."""
        ...


def by_rules(world: Rules) -> Outcome:
    """Outcomes as a world reads them off its states."""
    return lambda states, actions, next_states: [world.outcome(*pair) for pair in zip(states, next_states, strict=True)]


def no_outcome(states: Sequence[str], actions: Sequence[str], next_states: Sequence[str]) -> list[tuple[float, bool]]:
    """No reward and no end, where only states are looked at."""
    return [(0.0, False)] * len(states)


class Imagined:
    """Forward models as a simulator.

    The next state of a step is the model's greedy prediction. With samples, or with several models (an ensemble, say of
    runs of several seeds), it is the commonest prediction, the first of those that are equally common; its uncertainty
    is 1 - its share. A prediction that cannot be read, or did not end, is none. Where there is no other, or the outcome
    says that no step leads there, the step leads nowhere, see `nowhere`. A step is predicted once: what followed is
    remembered.

    Args:
        forwards: Models of one world; each is asked greedily where there are several.
        outcome: Reward and end of a predicted step: `by_rules(world)`, or a learned head's.
        samples: Predictions of each step, at temperature 1; 1: the greedy one. Of one model only.
        seed: Of the sampling.

    Attributes:
        calls: Predictions that were asked for.
        unreadable: Steps for which none of them could be read, or be where a step leads.

    Raises:
        InputError: There is no model, or samples are asked for that cannot be drawn.
    """

    def __init__(
        self, forwards: Sequence[ForwardModel], outcome: Outcome = no_outcome, samples: int = 1, seed: int = 0
    ) -> None:
        if not forwards:
            raise InputError("no forward model to imagine with; give at least one")
        if samples < 1 or (samples > 1 and len(forwards) > 1):
            raise InputError(
                f"samples = {samples} with {len(forwards)} models, expected at least 1, and 1 where there are several: "
                "an ensemble is asked greedily"
            )
        self.forwards, self.outcome, self.samples, self.seed = list(forwards), outcome, samples, seed
        self.history = max(forward.recipe.data.history for forward in forwards)
        self.calls = self.unreadable = 0
        self._known: dict[tuple[str, tuple[str, ...], str], Node] = {}

    def start(self, states: Sequence[State], world: World | None = None) -> Node:
        """See `Simulator.start`."""
        *past, here = [self.forwards[0].write(state) for state in states[-self.history - 1 :]]
        return Node(here, handle=tuple(past))

    def expand(self, nodes: Sequence[Node], actions: Sequence[str]) -> list[Node]:
        """See `Simulator.expand`; one call of `generate` per model, but for prompts that leave little room."""
        asked = [(node.state, node.handle, action) for node, action in zip(nodes, actions, strict=True)]
        if len(self._known) + len(asked) > KEPT:
            self._known.clear()
        if new := [step for step in dict.fromkeys(asked) if step not in self._known]:
            self._known.update(zip(new, self._predict(new), strict=True))
        return [self._known[step] for step in asked]

    def _predict(self, steps: Sequence[tuple[str, tuple[str, ...], str]]) -> list[Node]:
        """Nodes of steps (state, earlier states, action), all different."""
        rows = [{"state": state, "history": past, "action": action} for state, past, action in steps]
        columns = [predict(forward, rows, self.samples, self.seed) for forward in self.forwards]
        self.calls += len(steps) * self.samples * len(self.forwards)
        chosen = [commonest([text for group in groups for text in group]) for groups in zip(*columns, strict=True)]
        before, _, done = zip(*steps, strict=True)
        outcomes = self.outcome(before, done, [text or state for (text, _), state in zip(chosen, before, strict=True)])
        nodes = []
        for step, (text, uncertainty), outcome in zip(steps, chosen, outcomes, strict=True):
            here, _, action = step
            past = self._past(step)
            if text and outcome:
                nodes.append(Node(text, *outcome, uncertainty, past))
            else:
                self.unreadable += 1
                nodes.append(self.nowhere(here, action, past))
        return nodes

    def nowhere(self, state: str, action: str, handle: Any) -> Node:
        """Where a step leads of which nothing can be told: the state stays, and the uncertainty is 1.

        Reward and end are those of a step that changes nothing: to end there, or to go on for nothing, would pay
        wherever steps cost.
        """
        [outcome] = self.outcome([state], [action], [state])
        return Node(state, *(outcome or (0.0, False)), uncertainty=1.0, handle=handle)

    def _past(self, step: tuple[str, tuple[str, ...], str]) -> tuple[str, ...]:
        """The states before the one that a step leads to, as many as are shown."""
        state, past, _ = step
        return (*past, state)[-self.history :] if self.history else ()


def commonest(texts: Sequence[str]) -> tuple[str, float]:
    """The commonest of predicted states, the first where several are, and 1 - its share; ("", 1.0) where none is one.

    What cannot be read ("") is never the commonest, but counts in the share.
    """
    counts = Counter(normal for text in texts if (normal := metrics.normalise(text)))
    if not counts:
        return "", 1.0
    [(normal, count)] = counts.most_common(1)
    return next(text for text in texts if metrics.normalise(text) == normal), 1 - count / len(texts)


def predict(forward: ForwardModel, rows: Sequence[dict[str, Any]], n: int = 1, seed: int = 0) -> list[list[str]]:
    """Next states of rows with `state`, `action` and `history`, all asked at once.

    Args:
        forward: The model.
        rows: States as the model writes them; of `history` as much is shown as the model's prompts have.
        n: 1: the greedy prediction; more are sampled at temperature 1.
        seed: Of the sampling.

    Returns:
        `n` states per row; "" where a reply cannot be read or did not end, or the row is longer than what is read.
    """
    shown = forward.recipe.data.history
    asked = [{**row, "history": row["history"][-shown:] if shown else ()} for row in rows]
    encoded = {i: found for i, row in enumerate(asked) if (found := _encoded(forward, row))}
    out = [[""] * n for _ in rows]
    for chosen in _alike([(room, i) for i, (_, room) in encoded.items()]):
        part = [encoded[i][0] for i in chosen]
        replies = models.generate(
            forward.scorer.model,
            forward.scorer.tokenizer,
            part,
            n=n,
            temperature=0.0 if n == 1 else 1.0,
            max_new_tokens=min(*(encoded[i][1] for i in chosen), max(256, 2 * max(map(len, part)))),
            seed=seed,
            suppress=forward.scorer.suppressed("forward", forward.spec.prompt),
        )
        for i, group in zip(chosen, replies, strict=True):
            out[i] = [_state_in(forward, reply, asked[i]["state"]) for reply in group]
    return out


def _encoded(forward: ForwardModel, row: dict[str, Any]) -> tuple[list[int], int] | None:
    """See `ForwardModel.encode`; None where the row leaves no room for a reply."""
    try:
        return forward.encode(row, least=1)
    except InputError:
        return None


def _alike(rooms: list[tuple[int, int]]) -> Iterator[list[int]]:
    """Rows in groups; none has less than half of the room of another, for the least is the limit of all their replies.

    Nearly always one group. A prompt that has outgrown the others must not cut them off.
    """
    rest = sorted(rooms, key=lambda row: -row[0])
    while rest:
        most, _ = rest[0]
        size = sum(2 * room >= most for room, _ in rest)
        yield [i for _, i in rest[:size]]
        rest = rest[size:]


def _state_in(forward: ForwardModel, reply: models.Reply, state: str) -> str:
    return prompts.parse_reply("forward", reply.text, forward.spec.prompt, state) if reply.finished else ""


class Real:
    """The world itself as a simulator: copies of it are stepped. What a plan can reach at best.

    Chances are copied too: where the world rolls dice, looking ahead sees how they will fall.

    Attributes:
        calls: Steps that were taken.
    """

    def __init__(self) -> None:
        self.calls = 0

    def start(self, states: Sequence[State], world: World | None = None) -> Node:
        """See `Simulator.start`; the world is copied as it stands.

        Raises:
            InputError: There is no world, or it cannot be copied.
        """
        if world is None:
            raise InputError("nothing to try actions in; give the world in which the episode is played")
        return Node(state_text(states[-1]), handle=copied(world))

    def expand(self, nodes: Sequence[Node], actions: Sequence[str]) -> list[Node]:
        """See `Simulator.expand`; an episode that a limit has ended goes no further either."""
        out = []
        for node, action in zip(nodes, actions, strict=True):
            world = copied(node.handle)
            state, reward, terminated, truncated, _ = world.step(action)
            out.append(Node(state_text(state), reward, terminated or truncated, 0.0, world))
        self.calls += len(out)
        return out


def copied(world: World) -> World:
    """A world that goes on from where this one stands.

    Raises:
        InputError: It holds what cannot be copied, say a process.
    """
    try:
        return copy.deepcopy(world)
    except (TypeError, copy.Error, pickle.PicklingError) as error:
        raise InputError(
            f"the world {world.name!r} cannot be copied ({models.first_line(error)}), so nothing can be tried in it; "
            "plan in a model"
        ) from error
