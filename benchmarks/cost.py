"""What our scoring, phase steps and relabelling cost, as ratios to plain alternatives measured in the same run.

    python benchmarks/cost.py [--quick] [--json FILE] [--device cpu]

CPU seconds of this process (on CUDA: synchronised wall seconds), one thread; the sides of a ratio take turns and the
ratio is the median over the turns. A ratio above 1 says how many times less ours costs.
"""

import argparse
import itertools
import json
import math
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}

import alternatives
import numpy as np
import torch
import transformers

from swirl import labelling, models, prompts, train
from swirl.config import Model, Swirl
from swirl.rewards.likelihood import Likelihood, action_likelihood, next_state_likelihood
from swirl.scorer import Scorer

SEED = 0
EVERY = 1e-300
"""A probability that every action has."""

LARGE = 32_000
"""A vocabulary of the size that released models have at least."""


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        turns: Times that each side runs.
        tokens: Prompt and completion tokens per side and turn, about; a case has one pair at least.
        cases: State tokens, group size and vocabulary of the scoring cases.
        lengths: State tokens over which the slope is fitted.
        groups: Group sizes over which the slope is fitted.
        phases: State tokens, transitions per step, group size of the phase steps.
        steps: Timed optimiser steps per turn.
        pairs: Pairs to relabel.
    """

    turns: int = 3
    tokens: int = 24_000
    cases: tuple[tuple[int, int, int], ...] = (
        (30, 4, 512),
        (30, 16, 512),
        (30, 16, LARGE),
        (2048, 4, 512),
        (2048, 16, 512),
        (1024, 4, LARGE),
        (4096, 4, 512),
    )
    lengths: tuple[int, ...] = (64, 256, 1024, 2048)
    groups: tuple[int, ...] = (2, 4, 8, 16)
    phases: tuple[tuple[int, int, int], ...] = ((30, 8, 8), (512, 1, 8))
    steps: int = 3
    pairs: int = 200


QUICK = Plan(
    turns=1,
    tokens=400,
    cases=((16, 4, 512),),
    lengths=(16, 32),
    groups=(2, 4),
    phases=((8, 2, 2),),
    steps=1,
    pairs=6,
)

Row = dict[str, Any]
Ids = tuple[list[list[int]], list[list[int]]]
"""Prompts and completions."""


def main() -> None:
    """Measure, print a Markdown table, write JSON where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run, not what it costs")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    parser.add_argument("--device", default="cpu", help="where scoring is measured; phase steps stay on the CPU")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    plan = QUICK if options.quick else Plan()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(plan, Path(folder), options.device)
        rows = [*bench.scoring(), *bench.slopes(), *bench.relabelling(), *bench.phase_steps()]
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({"setting": setting(plan, options.device), "rows": rows}, indent=1) + "\n")


def setting(plan: Plan, device: str) -> Row:
    """What the numbers depend on besides the code."""
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "seed": SEED,
        "turns": plan.turns,
    }


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| what | case | against | ours | theirs | unit | ratio |", "|---|---|---|---:|---:|---|---:|"]
    for row in rows:
        ours, theirs = (f"{row[side]:,.3g}" if row[side] < 1000 else f"{row[side]:,.0f}" for side in ("ours", "theirs"))
        lines.append(
            f"| {row['what']} | {row['case']} | {row['against']} | {ours} | {theirs} | {row['unit']} "
            f"| {row['ratio']:.2f} |"
        )
    return "\n".join(lines)


def take_turns(sides: dict[str, Callable[[], Any]], turns: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of every side in every turn: A B A B."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, side in sides.items():
            begin = clock()
            side()
            seconds[name].append(clock() - begin)
    return seconds


def compare(what: str, case: str, unit: str, seconds: dict[str, list[float]], per: float = 1.0) -> list[Row]:
    """One row per alternative: medians over the turns of `per` x seconds, and of the ratios within a turn."""
    ours = seconds["ours"]
    return [
        {
            "what": what,
            "case": case,
            "against": name,
            "ours": per * statistics.median(ours),
            "theirs": per * statistics.median(theirs),
            "unit": unit,
            "ratio": statistics.median(b / a for a, b in zip(ours, theirs, strict=True)),
        }
        for name, theirs in seconds.items()
        if name != "ours"
    ]


def per_doubling(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """By how much the cost grows when the size doubles: least squares over the logarithms."""
    return float(2 ** np.polyfit(np.log2(sizes), np.log2(costs), 1)[0])


class Bench:
    """The four measurements; models are built once per vocabulary."""

    def __init__(self, plan: Plan, folder: Path, device: str) -> None:
        self.plan, self.folder, self.device = plan, folder, device
        self.scorers: dict[int, dict[str, Scorer]] = {}

    def clock(self) -> float:
        """Seconds: of this process's CPU, or on CUDA of the wall."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def spec(self, vocabulary: int) -> Model:
        """A `tiny` model with room for two of the longest states."""
        longest = max(itertools.chain(self.plan.lengths, (length for length, *_ in self.plan.cases)))
        return Model(vocabulary=vocabulary, max_length=2 * longest + 64)

    def load(self, vocabulary: int) -> dict[str, Scorer]:
        """Scorers with and without shared prefixes."""
        if vocabulary not in self.scorers:
            path = alternatives.build(self.folder / f"model-{vocabulary}", self.spec(vocabulary), SEED)
            self.scorers[vocabulary] = {
                "ours": Scorer(path, self.device),
                "ours, share=False": Scorer(path, self.device, share=False),
            }
        return self.scorers[vocabulary]

    def sides(self, vocabulary: int, ids: Ids) -> dict[str, Callable[[], Any]]:
        """Three ways to score the same rows."""
        scorers = self.load(vocabulary)
        sides: dict[str, Callable[[], Any]] = {
            name: lambda scorer=scorer: scorer.log_likelihood(*ids)[0] for name, scorer in scorers.items()
        }
        ours = scorers["ours"]
        sides["full logits, batched"] = lambda: alternatives.full_logits(ours, *ids, ours.batch_tokens)
        return sides

    def scoring(self) -> list[Row]:
        """Tokens per second and peak memory of scoring."""
        rows = []
        for length, group, vocabulary in self.plan.cases:
            for kind in KINDS:
                ids = question(kind, length, group, self.plan.tokens)
                count = sum(map(len, itertools.chain(*ids)))
                case = f"{kind}, {length}-token states, G {group}, vocabulary {vocabulary:,}"
                sides = self.sides(vocabulary, ids)
                memory = {name: [self.peak(side)] for name, side in sides.items()}
                check({name: side() for name, side in sides.items()})
                seconds = take_turns(sides, self.plan.turns, self.clock)
                rows += compare("scoring", case, "s per 1,000 tokens", seconds, 1000 / count)
                rows += compare("peak memory", case, "MB", memory)
        return rows

    def peak(self, side: Callable[[], Any]) -> float:
        """Megabytes beyond what was held before."""
        if self.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            side()
            return (torch.cuda.max_memory_allocated() - before) / 1e6
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        side()
        return max(0.1, resident("VmHWM") - before)

    def slopes(self) -> list[Row]:
        """Cost per pair as states grow (G = 4) and as groups grow (256-token states)."""
        rows = []
        for kind in KINDS:
            for what, sizes in (("state length doubles", self.plan.lengths), ("G doubles", self.plan.groups)):
                costs: dict[str, list[float]] = {}
                for size in sizes:
                    length, group = (
                        (size, 4) if sizes is self.plan.lengths else (min(256, max(self.plan.lengths)), size)
                    )
                    ids = question(kind, length, group, self.plan.tokens)
                    seconds = take_turns(self.sides(512, ids), self.plan.turns, self.clock)
                    for name, values in seconds.items():
                        costs.setdefault(name, []).append(statistics.median(values) * group / len(ids[0]))
                fitted = {name: [per_doubling(sizes, values)] for name, values in costs.items()}
                rows += compare(f"growth of scoring when {what}", f"{kind}, {sizes[0]} to {sizes[-1]}", "x", fitted)
        return rows

    def relabelling(self) -> list[Row]:
        """Six listed actions per pair, scored by both models."""
        spec = self.spec(512)
        start = alternatives.build(self.folder / "start", spec, SEED)
        tokenizer = models.load_tokenizer(start)
        known = alternatives.transitions(400, 30, SEED)
        examples = [prompts.encode(tokenizer, "inverse", row, "terse", spec.max_length) for row in known]
        schedule = train.Schedule(60 if self.plan.turns > 1 else 2, 16, 2e-3, 0.1, SEED, 1)
        trained = train.sft(
            start, examples, self.folder / "inverse", schedule=schedule, model=spec, select=last, device="cpu"
        )
        rows = alternatives.transitions(self.plan.pairs, 30, SEED + 1)
        inverse, forward = (Scorer(path, self.device) for path in (trained, start))

        def verify(least: float) -> Any:
            every = [alternatives.ACTIONS] * len(rows)
            return labelling.verify(inverse, forward, rows, every, style="terse", template={}, least=least)

        kept = statistics.mean(len(group) for group in verify(0.01))
        naive: Callable[[], Any] = lambda: alternatives.relabel(inverse, forward, rows)  # noqa: E731
        every = [
            c.inverse + (c.forward or 0.0) for group in verify(EVERY) for c in sorted(group, key=lambda c: c.action)
        ]
        check({"ours": every, "theirs": [x for row in naive() for x in row]})
        out = []
        for case, least in (
            (f"{kept:.1f} of 6 actions pass the inverse model", 0.01),
            ("every action verified", EVERY),
        ):
            sides = {"ours": lambda least=least: verify(least), "every action, full logits": naive}
            seconds = take_turns(sides, self.plan.turns, self.clock)
            out += compare("relabelling", f"30-token states, {case}", "s per 1,000 pairs", seconds, 1000 / len(rows))
        return out

    def phase_steps(self) -> list[Row]:
        """A GRPO step with the likelihood reward, against TRL's own trainer with a row-by-row reward."""
        rows = []
        for length, count, group in self.plan.phases:
            for role in ("forward", "inverse"):
                seconds: dict[str, list[float]] = {"ours": [], "TRL, reward row by row": []}
                for turn in range(self.plan.turns):
                    step = PhaseStep(self, role, length, count, group, self.folder / f"{role}-{length}-{turn}")
                    ours, theirs = step.ours(), step.plain()
                    check({"ours": ours[1], "theirs": theirs[1]})
                    seconds["ours"].append(statistics.mean(ours[0]))
                    seconds["TRL, reward row by row"].append(statistics.mean(theirs[0]))
                phase = "Phase I (forward trains)" if role == "forward" else "Phase II (inverse trains)"
                case = f"{length}-token states, {count} transitions, G {group}"
                rows += compare(phase, case, "s per step", seconds)
        return rows


@dataclass(frozen=True)
class PhaseStep:
    """A few steps of one phase, run by either side with the same samples.

    The weights are random and the last token allowed is made to be the end, so that every completion is read and
    scored; no two are alike, which leaves our deduplication nothing to save.
    """

    bench: Bench
    role: str
    length: int
    count: int
    group: int
    out: Path

    @property
    def steps(self) -> int:
        """Optimiser steps, the untimed first one too."""
        return self.bench.plan.steps + 1

    def inputs(self) -> tuple[Path, list[Row], dict[str, Any], int]:
        """Checkpoint, rows in the order of training, options of generation, completion tokens."""
        self.bench.load(512)
        path = self.bench.folder / "model-512"
        rows = [
            {"prompt": prompts.transition_prompt(self.role, row), **row}  # pyright: ignore[reportArgumentType]
            for row in alternatives.transitions(self.steps * self.count, self.length, SEED)
        ]
        end = models.load_tokenizer(path).eos_token_id
        return path, rows, {"forced_eos_token_id": end}, self.length + 1 if self.role == "forward" else 3

    def ours(self) -> tuple[list[float], list[float]]:
        """Through `train.grpo`; CPU seconds and mean reward per step."""
        path, rows, generation, longest = self.inputs()
        reward = action_likelihood if self.role == "forward" else next_state_likelihood
        train.grpo(
            path,
            rows,
            reward(Likelihood(Scorer(path))),
            self.out,
            schedule=train.Schedule(self.steps, self.count, 1e-5, 0.1, SEED, 1),
            settings=Swirl(generations=self.group),
            model=self.bench.spec(512),
            select=last,
            max_completion=longest,
            device="cpu",
            trainer={"generation_kwargs": generation},
        )
        log = [json.loads(line) for line in (self.out / "log.jsonl").read_text().splitlines()]
        marks = [row["cpu_seconds"] for row in log]
        return [b - a for a, b in itertools.pairwise(marks)], [row["reward"] for row in log]

    def plain(self) -> tuple[list[float], list[float]]:
        """Through TRL alone."""
        path, rows, generation, longest = self.inputs()
        order = np.random.default_rng(SEED).permutation(len(rows))
        return alternatives.plain_grpo(
            path,
            [rows[i] for i in order],
            alternatives.row_by_row(Scorer(path), self.role),
            self.out / "plain",
            steps=self.steps,
            group=self.group,
            max_completion=longest,
            seed=SEED,
            generation=generation,
        )


KINDS = ("y -> action", "action -> y", "6 candidates")
"""Whose likelihood is asked: one action after G sampled next states (Phase I), one next state after G sampled actions
(Phase II, verification), several actions after one pair (relabelling)."""


def question(kind: str, length: int, group: int, tokens: int) -> Ids:
    """Rows of token ids, pair after pair; only the state is common to the G rows of a pair."""
    rng = random.Random(SEED)

    def draw(count: int) -> list[int]:
        return rng.choices(range(6, 500), k=count)

    asked, wanted = [], []
    per_pair = group * (2 * length + 4)
    for _ in range(max(1, round(tokens / per_pair))):
        state, after, action = draw(length), draw(length), draw(1)
        for _ in range(group):
            match kind:
                case "y -> action":
                    row = [1, *state, 5, *draw(length), 3], [*action, 2]
                case "action -> y":
                    row = [1, *state, 4, *draw(1), 3], [*after, 2]
                case _:
                    row = [1, *state, 5, *after, 3], [*draw(1), 2]
            asked.append(row[0])
            wanted.append(row[1])
    return asked, wanted


def check(values: dict[str, list[float]]) -> None:
    """Both sides must have computed the same.

    Raises:
        AssertionError: They did not, so their cost cannot be compared.
    """
    (_, first), *others = values.items()
    for name, other in others:
        if not all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3) for a, b in zip(first, other, strict=True)):
            raise AssertionError(f"{name} gave other numbers than ours")


def resident(key: str) -> float:
    """Megabytes of this process's memory by the kernel's account: `VmRSS` now, `VmHWM` at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(key + ":"))


def last(checkpoints: list[Path]) -> Path:
    """The last of the saved checkpoints."""
    return checkpoints[-1]


if __name__ == "__main__":
    sys.exit(main())
