"""What `check` found, as data and as lines to print."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

SIZES = 5  # sizes of images that are printed
WIDEST = 100  # characters of an action that are printed


@dataclass(frozen=True)
class Lengths:
    """Lengths of texts: the least that half, 95 % and all of them do not exceed."""

    median: int
    p95: int
    max: int


@dataclass(frozen=True)
class Overlap:
    """How much of a held-out part occurs in training.

    Attributes:
        states: Distinct states of the part.
        shared_states: Those of them that training has, as a state or as a next state.
        transitions: Transitions of the part.
        shared_transitions: Those of them whose state and next state are those of a training transition.
    """

    states: int
    shared_states: int
    transitions: int
    shared_transitions: int


@dataclass(frozen=True)
class Images:
    """The images in states.

    Attributes:
        shown: How often a state or a next state shows one.
        distinct: How many there are, told apart by where they lie.
        sizes: Width and height as in "64x48" -> how many have it.
    """

    shown: int
    distinct: int
    sizes: dict[str, int]


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes:
        rows: Transitions.
        trajectories: Trajectories.
        layouts: Layouts; 0 where the trajectories contradict one another.
        states: Distinct texts among states and next states.
        unchanged: Share of the transitions whose next state is their state.
        labelled: Share of the transitions that have an action.
        distinct_actions: Distinct actions.
        actions: The 20 most frequent actions with their counts.
        duplicates: Rows that repeat the state, action and next state of another.
        conflicts: Labelled rows whose state and action lead to another next state elsewhere: the world is stochastic,
            or not all of it is observed.
        broken: Steps whose next state is not the state of the step after.
        characters: Lengths of states, of actions, and of next states written as changes (`swirl.changes`; of at most
            10,000 rows, evenly spaced).
        tokens: The same in tokens; empty where there was no tokenizer.
        context: The context window, in tokens, or `None`.
        too_long: Rows whose state, action and next state together exceed the context window.
        too_long_rows: The first of them, as "name:row".
        images: What images the states show; `None` where they are text alone.
        partial: Whether states do not say everything that the next one depends on, as the column `partial` has it.
        parts: Rows of each part; empty for a recording that is not split.
        overlaps: For "test" and "validation", what of it occurs in training.
        problems: Reasons not to use the data; empty if all is well.
        notes: Why `swirl train` would not take it as it is, though nothing is wrong with it.
    """

    rows: int
    trajectories: int
    layouts: int
    states: int
    unchanged: float
    labelled: float
    distinct_actions: int
    actions: tuple[tuple[str, int], ...]
    duplicates: int
    conflicts: int
    broken: int
    characters: dict[str, Lengths]
    tokens: dict[str, Lengths]
    context: int | None
    too_long: int
    too_long_rows: tuple[str, ...]
    images: Images | None
    partial: bool
    parts: dict[str, int]
    overlaps: dict[str, Overlap]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report as lines to print."""
        lines = [
            f"transitions       {self.rows:,} in {counted(self.trajectories, 'trajectories')}",
            f"layouts           {self.layouts:,}",
            f"distinct states   {self.states:,}",
            f"unchanged         {self.unchanged:.1%} of the transitions",
            f"labelled          {self.labelled:.1%} of the transitions",
            f"duplicates        {self.duplicates:,}",
            f"conflicts         {self.conflicts:,} (same state and action, another next state)",
            f"broken steps      {self.broken:,} (next state is not the state of the step after)",
        ]
        for unit, lengths in (("characters", self.characters), ("tokens", self.tokens)):
            for name, length in lengths.items():
                label = f"{name} {unit}"
                lines.append(f"{label:<17} median {length.median:,}, 95 % {length.p95:,}, longest {length.max:,}")
        if self.context is not None:
            rows = f": {_some(self.too_long_rows, self.too_long)}" if self.too_long else ""
            lines.append(f"too long          {counted(self.too_long, 'rows')} over {self.context:,} tokens{rows}")
        if self.images is not None:
            sizes = [f"{size}: {count:,}" for size, count in self.images.sizes.items()]
            lines.append(
                f"images            {self.images.shown:,} in states, {self.images.distinct:,} distinct "
                f"({_some(sizes[:SIZES], len(sizes))})"
            )
        if self.partial:
            lines.append("partial           yes: shared states are no leak here, shared transitions are")
        lines += [f"part              {name}: {rows:,}" for name, rows in self.parts.items()]
        for name, overlap in self.overlaps.items():
            lines.append(
                f"in training       {overlap.shared_states:,} of {overlap.states:,} {name} states, "
                f"{overlap.shared_transitions:,} of {overlap.transitions:,} {name} transitions"
            )
        lines.append(f"actions           {self.distinct_actions:,}")
        lines += [f"  {number:>9,}  {_cut(repr(action))}" for action, number in self.actions]
        more = self.distinct_actions - len(self.actions)
        lines += [f"             … and {more:,} more"] if more else []
        lines += [f"note              {note}" for note in self.notes]
        return lines + [f"PROBLEM           {problem}" for problem in self.problems]


def counted(count: int, name: str) -> str:
    """A number and what it counts, given in the plural: "1 trajectory", "2 trajectories"."""
    name = re.sub(r"s\b", "", re.sub(r"ies\b", "y", name)) if count == 1 else name
    return f"{count:,} {name}"


def _some(named: Sequence[str], total: int) -> str:
    """The first of a list, and how many more it has."""
    return ", ".join(named) + (f" and {total - len(named):,} more" if total > len(named) else "")


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
