"""What a recipe will do, need and cost, before it does anything: `swirl train RECIPE --dry-run`.

The phases come from the methods themselves, run without a run folder; tokens are measured on the recording, or on
a small sample of the world where it is yet to be collected, the machine's speed in a second, and `cost.py` does the
arithmetic.

They are estimates: good for choosing between minutes and days, not between two settings. MiniGrid's recipe took 431 CPU
seconds on one core; the estimate is 327 at the 140 GFLOP/s that this core has to itself, and 431 at the 90 that were
measured beside other work.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from swirl import data, models, progress, prompts, tiny, worlds
from swirl.config import Recipe
from swirl.data import imaging
from swirl.errors import MissingPartError
from swirl.imagetokens import ImageTokenizer, vocabulary
from swirl.methods import session
from swirl.methods.cost import Cost, Lengths, Machine, Shape
from swirl.methods.lengths import check_lengths
from swirl.methods.phases import Pair
from swirl.methods.runner import Runner
from swirl.types import ROLES, Role

SAMPLE = 500
"""Rows of the recording whose lengths are measured."""
TRIAL = 300
"""Transitions that are collected, and thrown away, where there is no recording yet."""
PROBES = 5
"""Measurements of the machine's speed; the best counts, for others may be at work beside it."""


def show(recipe: Recipe, cache: Path, as_json: bool = False) -> None:
    """Print the plan of a recipe.

    Raises:
        InputError: A method, the recording or the model's configuration cannot be used: what `swirl train` would say
            before it trains anything.
    """
    found = plan(recipe, cache)
    if as_json:
        print(json.dumps(found))
        return
    rows = [
        [p["phase"], p["kind"], p["steps"], p["rows"], f"{p['tokens']:,}", time_of(p["seconds"])]
        for p in found["phases"]
    ]
    progress.table("Phases, validation included", ["phase", "kind", "steps", "rows", "tokens", "time"], rows)
    shape, lengths = found["model"], found["lengths"]
    source = "measured" if lengths["measured"] else "assumed, for the world's simulator is missing: the longest allowed"
    mean = ", ".join(f"{role} {lengths['prompt'][role]:.0f} + {lengths['reply'][role]:.0f}" for role in ROLES)
    print(
        f"parameters  {shape['parameters']:,}\n"
        f"tokens      {mean} (prompt + completion, {source})\n"
        f"memory      {found['bytes'] / 2**30:.2f} GiB at the peak\n"
        f"time        {time_of(found['seconds'])} at {found['flops'] / 1e9:,.0f} GFLOP/s (measured now)\n"
        "Estimates, without the time to collect: that of recipes/minigrid.toml was right to within a quarter;\n"
        "with other models and machines, time and memory can be off by a factor of two or three."
    )


def plan(recipe: Recipe, cache: Path) -> dict[str, Any]:
    """Phases with steps, rows, tokens and seconds, and the totals.

    Args:
        recipe: The recipe.
        cache: Where recordings of worlds are kept; where there is none, `TRIAL` transitions are collected for a look.

    Raises:
        InputError: As `show`.
    """
    torch.set_num_threads(recipe.threads)
    runner = Runner(None, recipe, Path("data"))
    pair: Pair = runner.start()
    for _, method in session._methods(recipe):
        pair = method(runner, pair)
    _rehearse(recipe, cache)
    rows, total, images = _recording(recipe, cache)
    tokenizer, shape = _model(recipe, rows, images)
    lengths = _lengths(recipe, tokenizer, rows)
    machine = _benchmark(recipe, shape)
    cost = Cost(recipe, shape, lengths, machine, total, _listed(recipe, rows))
    phases = [cost.phase(facts) for facts in runner.planned] + [cost.test()]
    return {
        "phases": phases,
        "model": asdict(shape),
        "lengths": asdict(lengths),
        "bytes": cost.memory(runner.planned),
        "seconds": sum(phase["seconds"] for phase in phases),
        "flops": machine.flops,
    }


def _rehearse(recipe: Recipe, cache: Path) -> None:
    """Split a recording that is there and look for rows that are too long, as the run will before it trains.

    Lengths of images are left to the run: to know them, an image tokenizer may have to be trained.

    Raises:
        InputError: The run would be refused.
    """
    if not session.recording_path(recipe, cache).is_file():
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        session.split(recipe, folder, cache)
        if recipe.images.tokenizer:
            return
        runner = Runner(None, recipe, folder)
        start = runner.start().forward
        if recipe.model.name == "tiny":
            tiny.train_tokenizer(runner.texts(), recipe.model).save_pretrained(start)
        check_lengths(recipe, folder, start, runner.max_new_tokens["inverse"])


def _recording(recipe: Recipe, cache: Path) -> tuple[list[dict[str, Any]], int, ImageTokenizer | None]:
    """Some rows of the recording, how many it has or will have, and the image tokenizer that wrote them.

    There are no rows where the world's simulator is missing. A tokenizer that is yet to be trained writes as many
    tokens before.
    """
    path = session.recording_path(recipe, cache)
    if recipe.data.path or path.is_file():
        return _sample(recipe, path)
    total = recipe.data.transitions
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trial.parquet"
        try:
            session.collect(recipe, path, min(TRIAL, total))
        except MissingPartError:
            return [], total, None
        rows, _, images = _sample(recipe, path)
        return rows, total, images


def _sample(recipe: Recipe, path: Path) -> tuple[list[dict[str, Any]], int, ImageTokenizer | None]:
    table = data.read(path)
    picked = np.random.default_rng(0).permutation(table.num_rows)[:SAMPLE]
    rows = data.with_history(table, recipe.data.history).take(np.sort(picked))
    session.check_images(recipe, table, path)
    images = imaging.learn(imaging.shown(rows), replace(recipe.images, steps=0), recipe.seed, recipe.device)
    return data.as_read(rows, images, path).to_pylist(), table.num_rows, images


def _listed(recipe: Recipe, rows: Sequence[dict[str, Any]]) -> int:
    """How many actions the world lists in a state; 0 where it does not, where nobody asks, or nobody knows yet."""
    if recipe.data.path or not rows or not recipe.verified.listed:
        return 0
    try:
        world = worlds.make(recipe.data.world, **recipe.data.options)
    except MissingPartError:
        return 0
    actions = world.actions(rows[0]["state"])
    world.close()
    return len(actions or ())


def _model(recipe: Recipe, rows: Sequence[dict[str, Any]], images: ImageTokenizer | None) -> tuple[Any, Shape]:
    """The tokenizer, and the shape of the model on the meta device: no weights are read or made."""
    from transformers import AutoModelForCausalLM

    spec = recipe.model
    if spec.name == "tiny":
        texts = {text for row in rows for text in (row["state"], row["next_state"], row["action"] or "")}
        tokenizer = tiny.train_tokenizer(sorted(texts), spec, images)
        config = tiny.configure(tokenizer, spec)
    else:
        tokenizer = models.load_tokenizer(spec.name, spec.trust_remote_code)
        config = models.load_config(spec.name, spec.trust_remote_code)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=spec.trust_remote_code)
    if images and spec.name != "tiny":  # whose tokenizer was made with them
        tokenizer = vocabulary.ordinary(tokenizer, (*images.tokens, *images.marks))
        vocabulary.extend(model, tokenizer, images.tokens, images.first)
    text = model.config.get_text_config()
    total = sum(parameter.numel() for parameter in model.parameters())
    own = 0 if text.tie_word_embeddings else text.vocab_size * text.hidden_size
    return tokenizer, Shape(total, total - own, text.num_hidden_layers, text.hidden_size, text.vocab_size)


def _lengths(recipe: Recipe, tokenizer: Any, rows: Sequence[dict[str, Any]]) -> Lengths:
    spec = recipe.model
    if not rows:
        half = spec.max_length // 2
        small = max(1, spec.max_length // 16)
        return Lengths(
            {"forward": half, "inverse": spec.max_length - small},
            {"forward": spec.max_length - half, "inverse": small},
            {"forward": spec.max_length - half, "inverse": small},
            measured=False,
        )
    prompt: dict[Role, float] = {}
    reply: dict[Role, float] = {}
    limit: dict[Role, int] = {}
    known = [{**row, "action": row["action"] or ""} for row in rows]
    for role in ROLES:
        asked = [prompts.transition_prompt(role, row, spec.prompt) for row in known]
        prompt[role] = float(
            np.mean([len(prompts.encode_prompt(tokenizer, one, **spec.chat_template_kwargs)) for one in asked])
        )
        told = [len(prompts.encode_completion(tokenizer, prompts.target(role, row, spec.prompt))) for row in known]
        reply[role], limit[role] = float(np.mean(told)), max(told) + max(told) // 4 + 1
    return Lengths(prompt, reply, limit, measured=True)


def _benchmark(recipe: Recipe, shape: Shape, seconds: float = 0.05) -> Machine:
    """Time a matrix product of the model's width, then one that has to fetch its matrix from memory."""
    device, dtype = models.device_of(recipe.device), getattr(torch, recipe.model.dtype)

    def probe(a: torch.Tensor, b: torch.Tensor) -> float:
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            for _ in range(3):
                (a @ b).view(-1)[0].item()  # waits for a GPU
            count += 3
        return count / (time.perf_counter() - begin)

    def rate(a: torch.Tensor, b: torch.Tensor) -> float:
        probe(a, b)  # the first is slower
        return max(probe(a, b) for _ in range(PROBES))

    a = torch.ones(2048, shape.hidden, device=device, dtype=dtype)
    b = torch.ones(shape.hidden, 3 * shape.hidden, device=device, dtype=dtype)
    large = torch.ones(4096, 8192, device=device, dtype=dtype)
    flops = 2 * 2048 * shape.hidden * 3 * shape.hidden * rate(a, b)
    return Machine(flops, large.nbytes * rate(torch.ones(1, 4096, device=device, dtype=dtype), large))


def time_of(seconds: float) -> str:
    """Two digits of the largest unit that fits: 42 s, 3.5 min, 12 h, 4.2 days."""
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.0f} s"
