"""`swirl`: parse, then import, then call. No logic.

Results go to stdout, logs and progress to stderr. Exit codes: 0; 1 a fault of ours, with a traceback; 2 the user's
input, one line; 3 a part that is missing here, with the command that installs it.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swirl.errors import InputError, MissingPartError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    _quiet_libraries()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "filelock", "datasets", "transformers", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        arguments.overrides = _overrides(rest, arguments)
        return arguments.run(arguments) or 0
    except InputError as error:
        print(f"swirl: {error}", file=sys.stderr)
        return 2
    except MissingPartError as error:
        print(f"swirl: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("swirl: interrupted; the same command continues", file=sys.stderr)
        return 130


def _quiet_libraries() -> None:
    """Telemetry off unless asked for, and one progress display: ours."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _overrides(rest: list[str], arguments: argparse.Namespace) -> dict[str, str]:
    """`--section.key value` pairs that argparse does not know."""
    if rest and not hasattr(arguments, "recipe"):
        raise InputError(f"unknown argument {rest[0]}; see swirl {arguments.command} --help")
    found: dict[str, str] = {}
    words = iter(rest)
    for word in words:
        if not word.startswith("--"):
            raise InputError(f"unexpected argument {word!r}; a recipe's key is overridden with --section.key value")
        key, sign, value = word[2:].partition("=")
        found[key] = value if sign else next(words, "")
        if not found[key]:
            raise InputError(f"{word} has no value; write --{key} VALUE")
    return found


def _worlds(a: argparse.Namespace) -> None:
    from swirl import progress, worlds

    rows = [[name, worlds.availability(name) or "ready"] for name in worlds.WORLDS]
    if a.json:
        print(json.dumps([{"world": name, "status": status} for name, status in rows]))
    else:
        progress.table("Worlds", ["world", "status"], rows)


def _collect(a: argparse.Namespace) -> None:
    from swirl import data, progress, worlds

    world = worlds.make(a.world, **dict(_option(text) for text in a.option))
    shares = dict(_share(text) for text in a.behaviour) or dict.fromkeys(world.behaviours, 1.0)
    with progress.bar(f"collect {a.world}", a.transitions) as bar:
        counts = data.collect(
            world, a.out, a.transitions, shares, a.max_steps, a.seed, progress=lambda done, _: bar.update(done)
        )
    world.close()
    print(f"{a.out}: " + ", ".join(f"{count:,} {name}" for name, count in counts.items()))


def _option(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign:
        raise InputError(f"--option {text}: expected KEY=VALUE")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def _share(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        return name, float(share or 1)
    except ValueError:
        raise InputError(f"--behaviour {text}: expected NAME or NAME=SHARE") from None


def _check(a: argparse.Namespace) -> int:
    import dataclasses

    from swirl import data

    count = None
    if a.tokenizer:
        from swirl.models import load_tokenizer

        tokenizer = load_tokenizer(a.tokenizer)
        count = lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    report = data.check(a.path, count, a.context)
    print(json.dumps(dataclasses.asdict(report)) if a.json else "\n".join(report.lines()))
    return 2 if report.problems else 0


def _train(a: argparse.Namespace) -> int:
    from swirl.config import load_recipe

    overrides = dict(a.overrides)
    for key, value in (("data.path", a.data), ("seed", a.seed)):
        if value is not None:
            overrides[key] = json.dumps(str(value)) if key == "data.path" else str(value)
    recipe = load_recipe(a.recipe, overrides)
    if a.dry_run:
        from swirl.methods import plan

        plan.show(recipe, as_json=a.json)
        return 0
    from swirl.eval import summary
    from swirl.methods import session

    out = Path(a.out) if a.out else Path("runs") / Path(a.recipe).stem
    results = session.run_recipe(recipe, out, Path(a.cache))
    if a.json:
        print(json.dumps(results))
    else:
        summary.show(results, out)
    return 1 if a.require_gain and not summary.gained(results) else 0


def _eval(a: argparse.Namespace) -> None:
    from swirl.eval import standalone

    rows = standalone.evaluate(a.data, forward=a.forward, inverse=a.inverse, max_rows=a.max_rows, device=a.device)
    standalone.show(rows, as_json=a.json)


def _label(a: argparse.Namespace) -> None:
    from swirl.methods import annotate

    if a.pick:
        annotate.pick(a.data, a.out, a.pick, inverse=a.inverse, seed=a.seed)
    else:
        annotate.label(a.data, a.out, inverse=a.inverse, forward=a.forward, actions=a.action, n=a.samples, seed=a.seed)


def _imagine(a: argparse.Namespace) -> None:
    from swirl import api

    text = Path(a.state[1:]).read_text(encoding="utf-8") if a.state.startswith("@") else a.state
    states = api.load_forward(a.forward, a.device).imagine(text, a.action)
    if a.json:
        print(json.dumps([{"action": action, "state": state} for action, state in zip(a.action, states, strict=True)]))
        return
    print(text)
    for action, state in zip(a.action, states, strict=True):
        print(f"\n--- {action}\n{state}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="swirl", description="Learn world models from state-only data.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(run=run)
        return sub

    sub = command("worlds", _worlds, "List the worlds, and whether each can run here.")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command("collect", _collect, "Record transitions of a world to a Parquet file.")
    sub.add_argument("world", help="name of the world, see `swirl worlds`")
    sub.add_argument("--out", required=True, help="the Parquet file")
    sub.add_argument("--transitions", type=int, default=20_000, help="how many (default: %(default)s)")
    sub.add_argument("--behaviour", action="append", default=[], metavar="NAME[=SHARE]", help="who acts; repeatable")
    sub.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="option of the world (JSON)")
    sub.add_argument("--max-steps", type=int, default=40, help="longest trajectory (default: %(default)s)")
    sub.add_argument("--seed", type=int, default=0)

    sub = command("check", _check, "Describe a recording or a run's data folder; exit 2 where a split leaks.")
    sub.add_argument("path", help="a recording (Parquet, JSONL), or a folder that holds a split")
    sub.add_argument("--tokenizer", help="model whose tokenizer measures lengths")
    sub.add_argument("--context", type=int, help="context window, tokens")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command("train", _train, "Run a recipe, or continue it. Any key: --section.key value.")
    sub.add_argument("recipe", help="a TOML file, see recipes/")
    sub.add_argument("--data", help="a recording of your own instead of the recipe's world")
    sub.add_argument("--out", help="run folder (default: runs/RECIPE)")
    sub.add_argument("--seed", type=int, help="overrides the recipe's seed")
    sub.add_argument("--cache", default=".swirl", help="where recordings of worlds are kept (default: %(default)s)")
    sub.add_argument("--dry-run", action="store_true", help="print phases, steps, memory and time, and stop")
    sub.add_argument("--require-gain", action="store_true", help="exit 1 unless both roles end above their warm-up")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command("eval", _eval, "Measure checkpoints on a labelled recording.")
    sub.add_argument("data", help="a recording with actions")
    sub.add_argument("--forward", help="run folder or checkpoint of a forward model")
    sub.add_argument("--inverse", help="run folder or checkpoint of an inverse model")
    sub.add_argument("--max-rows", type=int, default=2000, help="most rows to score, 0: all (default: %(default)s)")
    sub.add_argument("--device", default="auto")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = command("label", _label, "Write actions into a state-only recording, or pick what a person should label.")
    sub.add_argument("data", help="a recording")
    sub.add_argument("--out", required=True, help="Parquet or JSONL file to write")
    sub.add_argument("--inverse", help="run folder or checkpoint of the inverse model")
    sub.add_argument("--forward", help="verify the labels with this forward model")
    sub.add_argument("--action", action="append", help="an action to choose among; repeatable (default: sample)")
    sub.add_argument("--samples", type=int, default=4, help="sampled actions per pair (default: %(default)s)")
    sub.add_argument("--pick", type=int, metavar="N", help="write the N transitions most worth labelling by hand")
    sub.add_argument("--seed", type=int, default=0)

    sub = command("imagine", _imagine, "Roll the forward model out from a state through a list of actions.")
    sub.add_argument("forward", help="run folder or checkpoint")
    sub.add_argument("--state", required=True, help="the first state, or @FILE")
    sub.add_argument("--action", action="append", required=True, help="repeatable, in order")
    sub.add_argument("--device", default="auto")
    sub.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
