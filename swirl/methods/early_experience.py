"""Early experience: the forward model learns from what an agent's own actions lead to, without any reward.

    play fresh episodes on training layouts;    at some visited states x:
        z   the action taken, and others drawn from those that can be taken there
        y   what each leads to in the world itself
    SFT of P(y | x, z) on them and the true labels

This method has what no other one here has: a world that can be stepped, in which every action's outcome can be had for
the asking. No hidden action of the recording is used, and no label is inferred. What it costs, steps of the world, is
in the facts of its phase `early-experience-play`.

Source: arXiv 2510.08558, implicit world modelling; there the states are those of experts' trajectories, the actions the
language model's own proposals, and the model goes on to be trained as the agent.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from swirl import models, parallel, progress, prompts, worlds
from swirl.data.branching import Tried, branch
from swirl.data.collecting import shares_of, turns_of
from swirl.data.replay import seed_of
from swirl.errors import InputError
from swirl.methods.phases import Pair
from swirl.methods.runner import Runner
from swirl.worlds.written import WrittenWorld


def early_experience(run: Runner, pair: Pair) -> Pair:
    """The inverse model stays as it is."""
    settings = run.recipe.experience
    tried = _tried(run, pair)
    merged = run.supervised([run.labelled, tried], settings.label_share)
    return run.sft("early-experience", pair, merged, settings, ("forward",))


def _tried(run: Runner, pair: Pair) -> Path:
    """Transitions that were tried in the recipe's world, on layouts of the training part alone."""
    if run.recipe.data.path:
        raise InputError(
            f"early-experience acts in a world, but data.path = {run.recipe.data.path} is a recording; leave it out of "
            "methods, or collect from a world"
        )

    def work(out: Path) -> None:
        if not parallel.is_main():
            return
        found = _play(run)
        known = {pair for part in ("validation", "test") for pair in _pairs(run.data / f"{part}.parquet")}
        new = [row for row in found.rows if (row["state"], row["next_state"]) not in known]
        tokenizer = models.load_tokenizer(pair.forward, run.recipe.model.trust_remote_code)
        rows = [row for row in new if _fits(run, tokenizer, row)]
        facts = {name: value for name, value in vars(found).items() if name != "rows"}
        facts |= {"transitions": len(rows), "held_out": len(found.rows) - len(new), "too_long": len(new) - len(rows)}
        run.write_rows(rows, out, facts)

    facts = {"kind": "play", "rows": run.recipe.experience.transitions}
    return run.phase("early-experience-play", work, facts) / "rows.parquet"


def _play(run: Runner) -> Tried:
    """Episodes that begin as those of the training part did, and go on by themselves."""
    data, settings = run.recipe.data, run.recipe.experience
    training = [pq.read_table(path, columns=["trajectory", "layout"]) for path in (run.labelled, run.state_only)]
    names, layouts = ({x for part in training for x in part[column].to_pylist()} for column in ("trajectory", "layout"))
    seeds = [seed for name in sorted(names) if (seed := seed_of(name, data.seed)) is not None]
    order = np.random.default_rng(run.seed("early-experience-order")).permutation(len(seeds))
    with (
        closing(worlds.make(data.world, **data.options)) as world,
        progress.bar("early-experience-play", settings.transitions) as bar,
    ):
        found = branch(
            WrittenWorld(world, run.images) if run.images else world,
            [seeds[i] for i in order],
            layouts,
            turns_of(shares_of(world.behaviours, data.behaviours or None)),
            transitions=settings.transitions,
            states=settings.states,
            alternatives=settings.alternatives,
            max_steps=data.max_steps,
            seed=run.seed("early-experience-play"),
            advance=bar.advance,
        )
    for row in found.rows:
        row["history"] = row["history"][-data.history :] if data.history else []
    return found


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    """The transitions of a file, without their actions."""
    table = pq.read_table(path, columns=["state", "next_state"])
    return zip(table["state"].to_pylist(), table["next_state"].to_pylist(), strict=True)


def _fits(run: Runner, tokenizer: Any, row: dict[str, Any]) -> bool:
    """Whether the model can read a transition; the world may show what no recorded state was as long as."""
    try:
        run.encode(tokenizer, "forward", row, prompts.target("forward", row, run.recipe.model.prompt))
    except InputError:
        return False
    return True
