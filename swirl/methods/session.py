"""A whole run: recording -> four files -> methods -> one reading of the test part -> results.

`swirl train` is this and nothing else.
"""

import importlib
import json
import logging
from datetime import datetime
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from swirl import data, durable, ledger, parallel, plots, similarity, worlds
from swirl.config import Recipe
from swirl.data.imaging import has_images, write_images
from swirl.errors import InputError
from swirl.methods import METHODS
from swirl.methods.branching import Base
from swirl.methods.lengths import check_lengths
from swirl.methods.phases import Pair
from swirl.methods.runner import Runner
from swirl.methods.testing import of_baselines, read_test

logger = logging.getLogger("swirl")

FREE = ("frames", "data", "start")
"""Phases that train no model."""


def run_recipe(recipe: Recipe, out: Path, cache: Path, base: Path | None = None) -> dict[str, Any]:
    """Run a recipe, or continue it.

    Args:
        recipe: The resolved recipe.
        out: The run folder.
        cache: Folder for recordings collected from worlds; a run never keeps what it may not know.
        base: A run whose methods are the first of the recipe's: what it has made is taken from it.

    Returns:
        What `results.json` holds.

    Raises:
        InputError: The recipe, the recording or the run folder cannot be used.
        MissingPartError: The recipe asks for a part that is not installed.
    """
    methods = _methods(recipe)
    if recipe.evaluation.encoder:  # or its absence would be found when all is trained
        similarity.located(recipe.evaluation.encoder)
    if "rwml" in recipe.methods:
        similarity.located(recipe.swirl.encoder)
    parallel.start(cpu=recipe.device == "cpu" or not torch.cuda.is_available())
    torch.set_num_threads(recipe.threads)
    main = parallel.is_main()
    with ledger.Run.open(out, recipe.toml(), main, parallel.barrier, disposable=FREE) as run:
        _warn_of_another_recording(recipe, run)
        before = Base(base, recipe) if base else None
        folder = _data(run, recipe, cache, before)
        runner = Runner(run, recipe, folder, _list_actions(recipe), before)
        start = pair = runner.start()
        check_lengths(recipe, folder, start.forward, runner.max_new_tokens["inverse"])
        stages: list[tuple[str, Pair]] = []
        for name, method in methods:
            pair = method(runner, pair)
            stages.append((name, pair))
            _publish(run, runner, recipe, pair)
        if pq.read_metadata(folder / "test.parquet").num_rows:
            run.phase("test", lambda staging: read_test(runner, stages or [("start", start)], staging), into="test")
        else:
            logger.warning("no action is known: nothing was validated, and there is no test")
        return _publish(run, runner, recipe, pair)


def _data(run: ledger.Run, recipe: Recipe, cache: Path, before: Base | None) -> Path:
    """The four files of a run, with images as tokens."""
    work, seconds = (before and before.has("data")) or (None, 0.0)
    if not work:
        work = partial(split, recipe, cache=cache)
        if recipe.images.tokenizer:
            work = partial(_write_images, recipe, run.phase("frames", work, into="frames"))
    return run.phase("data", work, into="data", seconds_before=seconds)


def check_images(recipe: Recipe, table: pa.Table, path: Path) -> None:
    """Refuse a recording of images without an image tokenizer, and one of words with one."""
    asked = recipe.images.tokenizer
    if has_images(table) and not asked:
        raise InputError(f'{path}: states hold images; give images.tokenizer, "tile" for example')
    if asked and not has_images(table):
        raise InputError(f"{path}: states hold no image, but images.tokenizer = {asked!r}; leave that out")


def _write_images(recipe: Recipe, frames: Path, staging: Path) -> None:
    if not parallel.is_main():
        return
    counts = write_images(frames, staging, recipe.images, recipe.seed, recipe.device)
    logger.info("images: %d distinct ones in training, %d codes", counts["images"], counts["codes"])
    counts |= json.loads((frames / "counts.json").read_text())
    durable.atomic_write(staging / "counts.json", json.dumps(counts, indent=1) + "\n")


def _warn_of_another_recording(recipe: Recipe, run: ledger.Run) -> None:
    """Say so where the user's file changed after the run took its copy, which it goes on with."""
    taken = next((phase.finished_at for phase in run.phases if phase.name == "data"), None)
    path = Path(recipe.data.path)
    if not recipe.data.path or not taken or not path.is_file():
        return
    if path.stat().st_mtime > datetime.fromisoformat(taken).timestamp() + 1:  # which has whole seconds
        logger.warning("%s changed after this run took its copy, which it goes on with; use another --out", path)


def _methods(recipe: Recipe) -> list[tuple[str, Any]]:
    for name in recipe.methods:
        if name not in METHODS:
            raise InputError(f"unknown method {name!r} in methods; known: {', '.join(METHODS)}")
    functions = [(name, name.replace("-", "_")) for name in recipe.methods]
    return [(name, getattr(importlib.import_module(f"swirl.methods.{f}"), f)) for name, f in functions]


def recording_path(recipe: Recipe, cache: Path) -> Path:
    """Where the recording of a recipe is, or will be: the user's own file, or one in the cache."""
    spec = recipe.data
    if spec.path:
        return Path(spec.path)
    facts = [spec.world, spec.behaviours, spec.transitions, spec.max_steps, spec.seed]
    of = worlds.fingerprint(spec.world, spec.options)
    key = blake2b(json.dumps(facts).encode() + of.encode(), digest_size=6).hexdigest()
    return cache / f"{spec.world}-{key}.parquet"


def recording(recipe: Recipe, cache: Path) -> Path:
    """The recording of a recipe; one from a world is collected once."""
    spec, path = recipe.data, recording_path(recipe, cache)
    if spec.path:
        return path
    if path.is_file():
        return path
    collect(recipe, path, spec.transitions)
    return path


def collect(recipe: Recipe, path: Path, transitions: int) -> None:
    """Record so many transitions of a recipe's world.

    Raises:
        InputError: The world cannot be made as the recipe says.
        MissingPartError: Its simulator is not installed.
    """
    spec = recipe.data
    data.collect(
        partial(worlds.make, spec.world, **spec.options),
        path,
        transitions,
        spec.behaviours or None,
        spec.max_steps,
        spec.seed,
        spec.workers,
        worlds.fingerprint(spec.world, spec.options),
        (spec.world, spec.options),
    )


def split(recipe: Recipe, staging: Path, cache: Path) -> None:
    """Write the four files of a run.

    Raises:
        InputError: The recording cannot be read or split, or gives a method nothing to learn from.
    """
    if not parallel.is_main():
        return
    spec, path = recipe.data, recording(recipe, cache)
    table = data.read(path)
    check_images(recipe, table, path)
    if spec.leave_out:
        table = data.without_layouts(table, spec.leave_out)
    counts = data.split(
        table,
        staging,
        labels=spec.labels or None,
        validation_labels=spec.validation_labels,
        validation=spec.validation,
        test=spec.test,
        seed=recipe.seed,
        data_seed=spec.seed,
        history=spec.history,
        origin=data.origin_of(path),
    )
    logger.info("data: %s", ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    if not counts["labelled"] and "warmup" in recipe.methods and recipe.warmup.steps:
        raise InputError(
            "no training transition has an action, and warmup learns from those; label some (swirl label --pick), or "
            "start from a model that follows instructions, with warmup.steps = 0"
        )
    report = data.check(staging)
    if report.problems:
        raise InputError("; ".join(report.problems))
    durable.atomic_write(staging / "counts.json", json.dumps(counts, indent=1) + "\n")


def _list_actions(recipe: Recipe) -> Any:
    if recipe.data.path:
        return None
    return worlds.make(recipe.data.world, **recipe.data.options).actions


def _publish(run: ledger.Run, runner: Runner, recipe: Recipe, pair: Pair) -> dict[str, Any]:
    """Write `results.json` and `metrics.jsonl` from the committed phases, and draw the plots."""
    common = {"split": "validation", "seed": recipe.seed}
    rows = [{**common, **row} for row in of_baselines(runner, runner.validation)]
    logs: list[dict[str, Any]] = []
    curve: list[dict[str, Any]] = []
    alarms: list[str] = []
    for phase in run.phases:
        folder = run.folder / phase.folder
        if (folder / "log.jsonl").is_file():
            logs += [{"phase": folder.name, **json.loads(x)} for x in (folder / "log.jsonl").read_text().splitlines()]
        if (folder / "phase.json").is_file():
            facts = json.loads((folder / "phase.json").read_text())
            curve += [{"phase": folder.name, **row} for row in facts.get("curve", [])]
            alarms += [f"{phase.name}: {alarm}" for alarm in facts.get("alarms", [])]
            for split in ("validation", "test"):
                rows += [
                    {"phase": phase.name, "split": split, "seed": recipe.seed, **row} for row in facts.get(split, [])
                ]
    results = {
        "forward": _relative(pair.forward, run.folder),
        "inverse": _relative(pair.inverse, run.folder),
        "alarms": alarms,
        "rows": rows,
    }
    if parallel.is_main():
        durable.atomic_write(run.folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in logs))
        durable.atomic_write(run.folder / "results.json", json.dumps(results, indent=1) + "\n")
        plots.plot_run(logs, curve, rows, run.folder)
    return results


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
