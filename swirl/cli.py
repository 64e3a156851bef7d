"""`swirl`: parse, then import, then call. No logic.

Results go to stdout, logs and progress to stderr. Exit codes: 0; 1 a fault of ours, with a traceback, or a run without
the gain that `--require-gain` asks for or a judge that scores nothing, a line per role; 2 the user's input, one line;
3 a part that is missing here, with the command that installs it; 130 interrupted.
"""

import argparse
import dataclasses
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swirl.arguments import parse
from swirl.errors import InputError, MissingPartError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    _quiet_libraries()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "httpx2", "openai", "filelock", "datasets", "transformers", "accelerate"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = parse(words)
        code = COMMANDS[arguments.command](arguments) or 0
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"swirl: {error}", file=sys.stderr)
        return 2
    except MissingPartError as error:
        print(f"swirl: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        resumes = words[:1] in (["train"], ["agent"], ["compare"], ["collect"])
        print("swirl: interrupted" + "; the same command goes on where it last saved" * resumes, file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, `head` say, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _quiet_libraries() -> None:
    """Telemetry off unless asked for, one progress display (ours), and no advice meant for programmers.

    What loads and generates is quiet by itself, in Python too (`models`); here it is the trainers, for the process.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)


def _worlds(a: argparse.Namespace) -> None:
    from swirl import progress, worlds

    if a.world is not None:
        facts = {"world": a.world, "status": _status(worlds.availability(a.world))}
        facts |= {"behaviours": worlds.behaviours(a.world), "options": worlds.options(a.world)}
        if a.json:
            print(json.dumps(facts))
            return
        columns = ["option", "type", "default", "meaning"]
        rows = [
            [*map(option.get, columns[:2]), json.dumps(option["default"]), option["meaning"]]
            for option in facts["options"]
        ]
        progress.table(f"{a.world}: {facts['status']}", columns, rows)
        print(f"behaviours: {', '.join(facts['behaviours'])}")
        return
    rows = [[name, _status(worlds.availability(name))] for name in worlds.WORLDS]
    if a.json:
        print(json.dumps([{"world": name, "status": status} for name, status in rows]))
    else:
        progress.table("Worlds", ["world", "status"], rows)


def _status(command: str | None) -> str:
    """Whether a world can run here; else the command that installs what it needs."""
    return "ready" if command is None else f"needs: {command}"


def _collect(a: argparse.Namespace) -> None:
    from functools import partial

    from swirl import data, worlds

    options = dict(_option(text) for text in a.option)
    counts = data.collect(
        partial(worlds.make, a.world, **options),
        a.out,
        a.transitions,
        dict(_share(text) for text in a.behaviour) or None,
        a.max_steps,
        a.seed,
        a.workers,
        worlds.fingerprint(a.world, options),
        (a.world, options),
    )
    _print_counts(a, counts)


def _print_counts(a: argparse.Namespace, counts: dict[str, int]) -> None:
    """What a command wrote to its file."""
    from swirl.data.report import counted

    if a.json:
        print(json.dumps({"out": a.out, **counts}))
    else:
        print(f"{a.out}: " + ", ".join(counted(count, name) for name, count in counts.items()))


def _option(text: str, name: str = "--option") -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign:
        raise InputError(f"{name} {text}: expected KEY=VALUE")
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


FOR_IMAGES = ("format", "stride", "scene_cut", "min_change", "start", "end")
"""Options of an import that only video and pairs of images have."""


def _import(a: argparse.Namespace) -> None:
    from swirl import importers

    options = importers.Options(
        columns=dict(_column(text) for text in a.column),
        next_state=a.next_state,
        drop_actions=a.drop_actions,
        labels=None if a.labels is None else importers.parse_labels(a.labels),
        seed=a.seed,
        max_state=a.max_state,
        too_long=a.too_long,
        strict=a.strict,
        redact=a.kind in importers.REDACTED if a.redact is None else a.redact,
        size=None if a.size is None else importers.parse_size(a.size),
        **{name: getattr(a, name) for name in FOR_IMAGES if getattr(a, name) is not None},
    )
    counts = importers.import_recording(a.kind, a.source, a.out, options)
    _print_counts(a, counts)


def _column(text: str) -> tuple[str, str]:
    ours, sign, theirs = text.partition("=")
    if not (ours and sign and theirs):
        raise InputError(f"--column {text}: expected OURS=THEIRS, e.g. state=before")
    return ours, theirs


def _check(a: argparse.Namespace) -> int:
    from swirl import data

    count = None
    if a.tokenizer:
        from swirl.models import load_tokenizer

        tokenizer = load_tokenizer(a.tokenizer)
        count = lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    report = data.check(a.path, count, a.context)
    print(json.dumps(dataclasses.asdict(report)) if a.json else "\n".join(report.lines()))
    return 2 if report.problems else 0


def _look(a: argparse.Namespace) -> None:
    from swirl.data import looking

    rows = looking.look(a.path, a.rows, a.changed)
    if a.json:
        print(json.dumps(rows))
    else:
        looking.show(rows)


def _train(a: argparse.Namespace) -> int:
    from swirl.recipe import load_recipe

    overrides = dict(a.overrides)
    if a.data is not None:
        overrides["data.path"] = json.dumps(a.data)
    if a.seed is not None:
        overrides["seed"] = str(a.seed)
    recipe = load_recipe(a.recipe, overrides)
    if a.dry_run:
        from swirl.methods import plan

        plan.show(recipe, Path(a.cache), as_json=a.json)
        return 0
    from swirl import parallel
    from swirl.eval import summary
    from swirl.methods import session

    out = Path(a.out) if a.out else Path("runs") / Path(a.recipe).stem
    base = Path(a.begin_from) if a.begin_from else None
    results = session.run_recipe(recipe, out, Path(a.cache), base)
    if not parallel.is_main():
        return 0
    if a.json:
        print(json.dumps(results))
    else:
        summary.show(results, out)
    missed = summary.shortfalls(results) if a.require_gain else []
    for line in missed:
        print(f"swirl: {line}", file=sys.stderr)
    return 1 if missed else 0


def _agent(a: argparse.Namespace) -> None:
    from swirl.agents import settings

    overrides = {**a.overrides, **({} if a.seed is None else {"seed": str(a.seed)})}
    if a.do != "train":
        from swirl.agents import agent

        agent.show(agent.load(a.recipe, overrides), (a.episode or 0) if a.do == "play" else None, as_json=a.json)
        return
    recipe = settings.load(a.recipe, overrides)
    from swirl.agents import session

    out = Path(a.out) if a.out else Path("runs") / Path(a.recipe).stem
    results = session.run_recipe(recipe, out)
    if a.json:
        print(json.dumps(results))
    else:
        session.show(results, out)


def _compare(a: argparse.Namespace) -> int:
    from swirl.compare import comparison, tables
    from swirl.compare.cells import Place
    from swirl.recipe import load_recipe

    overrides = {**a.overrides, **({"data.path": json.dumps(a.data)} if a.data is not None else {})}
    out = Path(a.out) if a.out else Path("runs") / "compare" / Path(a.recipe).stem
    plan = comparison.Plan(
        load_recipe(a.recipe, overrides),
        _listed("--methods", a.methods, str),
        _listed("--seeds", a.seeds, int),
        _listed("--learning-rates", a.learning_rates, float),
        a.tuning_seed,
        _varied(a.vary),
        a.new_recordings,
    )
    place = Place(out / "runs", Path(a.keep) if a.keep else out / "cells", Path(a.cache))
    if a.dry_run:
        from swirl.compare import forecast

        forecast.show(plan, place, a.processes, as_json=a.json)
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the runs that it started end with it
    failed = comparison.run(plan, place, a.processes)
    for line in failed:
        print(f"swirl: {line}", file=sys.stderr)
    results = comparison.write(plan, place, out)
    if a.json:
        print(json.dumps(results))
    else:
        tables.show(results, out)
    return int(bool(failed))


def _listed(option: str, text: str, kind: Any) -> list[Any]:
    try:
        return [kind(part.strip()) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"{option} {text}: expected a list as in 1,2,3") from None


def _varied(texts: Sequence[str]) -> dict[str, list[Any]]:
    varied: dict[str, list[Any]] = {}
    for text in texts:
        key, sign, values = text.partition("=")
        if not sign or not values:
            raise InputError(f"--vary {text}: expected KEY=VALUE,VALUE, e.g. data.labels=100,200")
        if key in varied:
            raise InputError(f"--vary {key} is given twice; give all its values in one")
        varied[key] = [_option(f"{key}={value}")[1] for value in values.split(",")]
    return varied


def _eval(a: argparse.Namespace) -> int:
    from swirl.data import files
    from swirl.eval import figures, standalone
    from swirl.eval.judge import Judge

    if a.plot:
        files.prepare(Path(a.plot))
    limits = (a.judge_requests, a.judge_tokens)
    roles = sum(bool(path) for path in (a.forward, a.inverse))
    judge = Judge(a.judge, a.judge_model, a.judge_cache, *limits, parts=roles) if a.judge else None
    template = dict(_option(text, "--template") for text in a.template)
    given = (a.data, a.forward, a.inverse, a.max_rows, a.device, a.encoder)
    rows = standalone.evaluate(*given, a.suite, judge, a.turns, a.max_new_tokens, template)
    standalone.show(rows, as_json=a.json)
    if a.plot:
        figures.plot(rows, Path(a.plot))
    unscored = [row["role"] for row in rows if row["metric"] == "judge_missing" and row["value"] == row["n"]]
    for role in unscored:
        print(f"swirl: the judge gave no prediction of the {role} model a score", file=sys.stderr)
    return int(bool(unscored))


def _label(a: argparse.Namespace) -> None:
    from swirl.methods import annotate, pick

    if a.pick is not None:
        counts = pick.pick(a.data, a.out, a.pick, a.inverse, a.seed, a.device)
        if not a.json:
            print(
                f"{a.out}: {counts['picked']:,} picked, {counts['kinds']:,} of {counts['all_kinds']:,} kinds of change"
            )
            return
    elif a.labels is not None:
        counts = annotate.merge(a.data, a.labels, a.out)
    else:
        counts = annotate.label(a.data, a.out, a.inverse, a.forward, a.action, a.samples, a.seed, a.device)
    _print_counts(a, counts)


def _imagine(a: argparse.Namespace) -> None:
    from swirl import api, pictures
    from swirl.data import files, overwriting

    out = pictures.check_ending(Path(a.out)) if a.out else None
    if out:
        overwriting.check_not_read(out, [a.state[1:]] if a.state.startswith("@") else [])
        files.prepare(out)
    first = _state("--state", a.state)
    states = [first, *api.load_forward(a.forward, a.device).imagine(first, a.action)]
    if out:
        pictures.draw(states, a.action, out)
    if a.json:
        told = zip(a.action, states[1:], strict=True)
        print(json.dumps([{"action": action, "state": state} for action, state in told]))
        return
    print(pictures.in_words(first))
    for action, state in zip(a.action, states[1:], strict=True):
        print(f"\n--- {action}\n{pictures.in_words(state)}")


def _plan(a: argparse.Namespace) -> None:
    from swirl import worlds
    from swirl.agents import plan
    from swirl.agents.planning import Search

    search = Search(a.horizon, a.width, a.discount, a.penalty, seed=a.seed)
    goal = None if a.goal is None else _state("--goal", a.goal)
    world = worlds.make(a.world, **dict(_option(text) for text in a.option))
    found = plan.measure(
        world,
        a.run,
        search,
        a.method,
        a.episodes,
        a.seed,
        goal,
        model=not a.no_model,
        real=a.real or a.no_model,
        device=a.device,
        replan=a.replan,
        samples=a.samples,
        policy=a.policy,
    )
    plan.show(found, as_json=a.json)


def _state(option: str, argument: str) -> Any:
    """The argument itself, or what is in the file that `@FILE` names: an image, by its ending, or text."""
    text = argument
    if argument.startswith("@"):
        if Path(argument[1:]).suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"):
            return [{"type": "image", "image": argument[1:]}]
        try:
            text = Path(argument[1:]).read_text(encoding="utf-8").strip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{argument}: cannot read {argument[1:]} as text ({error})") from None
    if not text.strip():
        raise InputError(f"{option} {argument}".strip() + " is empty; give the text of a state, or @FILE with it")
    return text


COMMANDS = {
    "worlds": _worlds,
    "collect": _collect,
    "import": _import,
    "check": _check,
    "look": _look,
    "train": _train,
    "compare": _compare,
    "eval": _eval,
    "label": _label,
    "imagine": _imagine,
    "plan": _plan,
    "agent": _agent,
}


if __name__ == "__main__":
    sys.exit(main())
