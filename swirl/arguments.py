"""What can be written after `swirl`, and errors that name the nearest such thing.

Nothing heavy is imported here, so that `--help` is instant.
"""

import argparse
import dataclasses
import difflib
import typing
from typing import Any, NoReturn

from swirl.agents.settings import AgentRecipe
from swirl.config import Recipe
from swirl.errors import InputError

BEHAVIOUR = "how to act, see `swirl worlds NAME`; repeatable (default: all, equally)"
TAKE_OVERRIDES: dict[str, type] = {"train": Recipe, "compare": Recipe, "agent": AgentRecipe}
"""Commands that read a recipe, any key of which can be overridden, and what they read."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as ours are."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{message}; see {self.prog} --help")


def parse(words: list[str]) -> argparse.Namespace:
    """The arguments of a command; `overrides` holds the recipe's keys that were given.

    Raises:
        InputError: They cannot be understood; names the nearest that can.
    """
    parser, commands = _parser()
    if not words:
        words = ["--help"]
    if not words[0].startswith("-") and words[0] not in commands:
        raise InputError(f"unknown command {words[0]!r}; {_nearest(words[0], commands)}")
    overrides: dict[str, str] = {}
    if words[0] in TAKE_OVERRIDES:
        words, overrides = _take_overrides(words, _options(commands[words[0]]), _keys(words[0]))
    arguments, rest = parser.parse_known_args(words)
    if rest:
        raise _unknown(rest[0], commands[arguments.command])
    _check_together(arguments)
    arguments.overrides = overrides
    return arguments


def _check_together(arguments: argparse.Namespace) -> None:
    """Refuse options that would not be read beside the others."""
    given = {name for name, value in vars(arguments).items() if value is not None}
    if arguments.command == "check" and "context" in given and "tokenizer" not in given:
        raise InputError("--context counts tokens; give --tokenizer MODEL too")
    if arguments.command == "eval" and ("judge" in given) != ("judge_model" in given):
        raise InputError("--judge and --judge-model go together: the endpoint, and the name of the model there")
    if arguments.command == "eval" and "judge" not in given and given & {"judge_requests", "judge_tokens"}:
        raise InputError("--judge-requests and --judge-tokens are caps of --judge; give it too, or leave them out")
    if arguments.command == "agent" and "out" in given and arguments.do != "train":
        raise InputError(f"--out is of agent train; leave it out of agent {arguments.do}")
    if arguments.command == "agent" and "episode" in given and arguments.do != "play":
        raise InputError(f"--episode is of agent play; leave it out of agent {arguments.do}")
    if arguments.command == "compare" and arguments.processes < 1:
        raise InputError(f"--processes {arguments.processes}: expected at least 1")
    if arguments.command == "eval":
        parts = {part.strip() for part in (arguments.suite or "").split(",")}
        if "plot" in given and not arguments.plot.lower().endswith((".png", ".svg")):
            raise InputError(f"--plot {arguments.plot}: expected a file that ends in .png or .svg")
        if "plot" in given and not {"rollouts", "trust", "all"} & parts:
            raise InputError("--plot draws the suite's parts rollouts and trust; give --suite rollouts,trust too")
        if "turns" in given and not {"rollouts", "all"} & parts:
            raise InputError("--turns is of the suite's part rollouts; give --suite rollouts too")
    if arguments.command == "label":
        for use, unread in (("labels", ("pick", "inverse", "forward", "action")), ("pick", ("forward", "action"))):
            for other in unread:
                if {use, other} <= given:
                    raise InputError(f"--{use} and --{other} are for different uses, see swirl label --help; give one")


def _unknown(word: str, command: Parser) -> InputError:
    if not word.startswith("-"):
        return InputError(f"unexpected argument {word!r}; see {command.prog} --help")
    recipe = TAKE_OVERRIDES.get(command.prog.split()[-1])
    plain = [f"--{key}" for key in _plain_keys(recipe)] if recipe else []
    near = _nearest(word.partition("=")[0], dict.fromkeys([*_options(command), *plain]))
    more = "; keys in a section of the recipe are written --section.key" if recipe and near.startswith("known") else ""
    return InputError(f"unknown option {word}; {near}{more}")


def _options(command: Parser) -> list[str]:
    return [text for action in command._actions for text in action.option_strings]


def _keys(command: str) -> list[str]:
    """The sections and plain keys of the recipe that a command reads."""
    recipe = TAKE_OVERRIDES.get(command)
    return [field.name for field in dataclasses.fields(recipe)] if recipe else []


def _plain_keys(recipe: type) -> list[str]:
    """The keys of a recipe that are in no section."""
    hints = typing.get_type_hints(recipe).items()
    return [name for name, hint in hints if not dataclasses.is_dataclass(hint) and typing.get_origin(hint) is not dict]


def _nearest(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def _take_overrides(words: list[str], options: list[str], keys: list[str]) -> tuple[list[str], dict[str, str]]:
    """Separate `--section.key value` (or `=value`), which override a recipe, from what the parser knows.

    They are taken out first: a parser that does not know an option cannot tell its value from the recipe's path.
    """
    rest, found, given = [], {}, iter(words)
    for word in given:
        key, sign, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or f"--{key}" in options or not ("." in key or key in keys):
            rest.append(word)
            continue
        found[key] = value if sign else next(given, "")
        if not found[key] or (not sign and found[key].startswith("--")):
            raise InputError(f"{word} has no value; write --{key} VALUE")
    return rest, found


def _version() -> str:
    from importlib.metadata import version

    return f"swirl {version('swirl-wm')}"


def _parser() -> tuple[Parser, dict[str, Parser]]:
    """The parser, and those of its commands by name."""
    parser = Parser(prog="swirl", description="Learn world models from state-only data.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_data_commands(commands)
    _add_model_commands(commands)
    return parser, commands.choices


def _command(commands: Any, name: str, text: str, more: str = "") -> Parser:
    return commands.add_parser(name, help=text, description=f"{text} {more}".strip(), allow_abbrev=False)


def _add_data_commands(commands: Any) -> None:
    sub = _command(commands, "worlds", "List the worlds, and whether each can run here; or one world's options.")
    sub.add_argument("world", nargs="?", help="show this world's options and behaviours")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = _command(commands, "collect", "Record transitions of a world to a Parquet file.")
    sub.add_argument("world", help="name of the world, see `swirl worlds`")
    sub.add_argument("--out", required=True, help="the Parquet file")
    sub.add_argument("--transitions", type=int, default=20_000, help="how many (default: %(default)s)")
    sub.add_argument("--behaviour", action="append", default=[], metavar="NAME[=SHARE]", help=BEHAVIOUR)
    sub.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="see `swirl worlds NAME`; VALUE is JSON"
    )
    sub.add_argument("--max-steps", type=int, default=40, help="longest trajectory (default: %(default)s)")
    sub.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn (default: %(default)s)")
    sub.add_argument("--workers", type=int, default=1, help="processes that play (default: %(default)s)")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = _command(
        commands,
        "import",
        "Turn logs, tables, snapshots or a public data set into a recording.",
        "Formats: table, chat, toolbench, mind2web, minari, snapshots, video, pairs; see docs/importing.md.",
    )
    sub.add_argument("kind", metavar="FORMAT", help="what the sources are")
    sub.add_argument("source", nargs="+", metavar="SOURCE", help="a file or a folder; minari: a folder or a local id")
    sub.add_argument("--out", required=True, help="the Parquet file")
    sub.add_argument("--drop-actions", action="store_true", help="write no action")
    sub.add_argument(
        "--labels", metavar="N|P%", help="keep N actions, or P %% of them, each type in proportion (default: all)"
    )
    sub.add_argument("--seed", type=int, default=0, help="chooses which actions are kept (default: %(default)s)")
    sub.add_argument("--max-state", type=int, metavar="CHARACTERS", help="longest state (default: no limit)")
    sub.add_argument(
        "--too-long",
        default="error",
        metavar="POLICY",
        help="a longer one: error, skip, truncate-head, -tail or -unchanged (default: %(default)s)",
    )
    sub.add_argument("--strict", action="store_true", help="stop at the first malformed record; else they are counted")
    sub.add_argument(
        "--redact",
        action=argparse.BooleanOptionalAction,
        help="mask keys and tokens (default: for chat and toolbench)",
    )
    sub.add_argument("--json", action="store_true", help="print JSON")

    group = sub.add_argument_group("table")
    column = "name of one of our columns in the source, e.g. state=before; repeatable"
    group.add_argument("--column", action="append", default=[], metavar="OURS=THEIRS", help=column)

    group = sub.add_argument_group("chat, toolbench")
    group.add_argument(
        "--next-state",
        default="output",
        metavar="WHAT",
        help="output: what the tool answered; conversation: all that was said, with it (default: %(default)s)",
    )

    group = sub.add_argument_group("pairs")
    group.add_argument("--format", metavar="WHOSE", help="aurora, pico-banana or bytemorph")

    group = sub.add_argument_group("table, pairs, video")
    group.add_argument("--size", metavar="WxH", help="stretch each image to this many pixels")

    group = sub.add_argument_group("video")
    group.add_argument("--stride", type=int, metavar="N", help="take every N-th frame as a state (default: 1)")
    group.add_argument(
        "--scene-cut", type=float, metavar="0..255", help="mean difference that ends a trajectory (default: 50)"
    )
    group.add_argument(
        "--min-change", type=float, metavar="0..255", help="mean difference that is no change (default: 0)"
    )
    group.add_argument("--start", type=float, metavar="SECONDS", help="where in each clip to begin")
    group.add_argument("--end", type=float, metavar="SECONDS", help="where in each clip to end")

    sub = _command(commands, "check", "Describe a recording or a run's data; exit 2 where a split leaks.")
    sub.add_argument("path", help="a recording (Parquet, JSONL), a run folder, or a folder that holds a split")
    sub.add_argument("--tokenizer", help="model whose tokenizer measures lengths")
    sub.add_argument("--context", type=int, help="context window, tokens; with --tokenizer")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = _command(commands, "look", "Show rows of a recording: states, actions, and the lines that change.")
    sub.add_argument("path", help="a recording (Parquet, JSONL), e.g. RUN/data/test.parquet")
    sub.add_argument("--rows", type=int, default=5, metavar="N", help="how many, from the first (default: %(default)s)")
    sub.add_argument("--changed", action="store_true", help="only rows whose next state is another state")
    sub.add_argument("--json", action="store_true", help="print JSON")


def _add_model_commands(commands: Any) -> None:
    sub = _command(
        commands,
        "train",
        "Run a recipe, or continue it.",
        "Any key of the recipe can be overridden: --section.key VALUE (TOML, or a bare word).",
    )
    sub.add_argument("recipe", help="a TOML file, or the name of one that comes with swirl: minigrid")
    sub.add_argument("--data", help="a recording of your own instead of the recipe's world")
    sub.add_argument("--out", help="run folder (default: runs/RECIPE)")
    sub.add_argument("--begin-from", metavar="RUN", help="a run of the recipe's first methods: take over what it made")
    sub.add_argument("--seed", type=int, help="overrides the recipe's seed")
    sub.add_argument("--cache", default=".swirl", help="where recordings of worlds are kept (default: %(default)s)")
    sub.add_argument("--dry-run", action="store_true", help="print phases, steps, memory and time, and stop")
    sub.add_argument("--require-gain", action="store_true", help="exit 1 unless both roles end above their warm-up")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = _command(
        commands,
        "compare",
        "Compare methods: same data, warm-up and grid of learning rates, read at equal cost, paired over seeds.",
        "The recipe's own method is always among them and sets the cost. Any key of the recipe can be overridden. What "
        "is finished is not run again; an unknown method names those that there are.",
    )
    sub.add_argument("recipe", help="a TOML file, or the name of one that comes with swirl: minigrid")
    sub.add_argument(
        "--methods", required=True, metavar="A,B", help="methods and settings, e.g. bootstrap,swirl,oracle"
    )
    sub.add_argument("--seeds", default="0,1,2", metavar="N,N", help="seeds of the tables (default: %(default)s)")
    sub.add_argument("--learning-rates", default="", metavar="X,Y", help="each method tries these on the tuning seed")
    sub.add_argument("--tuning-seed", type=int, default=1000, metavar="N", help="in no table (default: %(default)s)")
    vary = "compare at each value of a key, e.g. data.labels=100,200,400; repeatable, keys that vary together"
    sub.add_argument("--vary", action="append", default=[], metavar="KEY=V,V", help=vary)
    sub.add_argument(
        "--new-recordings", action="store_true", help="the world draws a recording for each seed, not one for all"
    )
    sub.add_argument("--data", help="a recording of your own instead of the recipe's world")
    sub.add_argument("--out", help="folder of runs, tables and report (default: runs/compare/RECIPE)")
    sub.add_argument("--keep", metavar="DIR", help="where finished runs leave a file each (default: OUT/cells)")
    sub.add_argument("--cache", default=".swirl", help="where recordings of worlds are kept (default: %(default)s)")
    sub.add_argument("--processes", type=int, default=1, metavar="N", help="runs at once (default: %(default)s)")
    sub.add_argument("--dry-run", action="store_true", help="print the runs, which are kept, and their time, and stop")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = _command(commands, "eval", "Measure checkpoints on a labelled recording.")
    sub.add_argument("data", help="a recording with actions")
    sub.add_argument("--forward", help="run folder or checkpoint of a forward model")
    sub.add_argument("--inverse", help="run folder or checkpoint of an inverse model")
    sub.add_argument("--max-rows", type=int, help="most rows to score, 0: all (default: as the model's run, else 2000)")
    sub.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="longest reply (default: the longest recorded one and a quarter)",
    )
    sub.add_argument(
        "--template",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="for the chat template of a model that no run made, e.g. enable_thinking=true; VALUE is JSON; repeatable",
    )
    sub.add_argument("--judge", metavar="URL", help="have a language model score 0 to 10, see docs/judge.md")
    sub.add_argument("--judge-model", metavar="NAME", help="its name at that endpoint")
    sub.add_argument(
        "--judge-cache", default=".swirl/judge.jsonl", metavar="FILE", help="its answers (default: %(default)s)"
    )
    sub.add_argument("--judge-requests", type=int, metavar="N", help="most calls (default: no limit)")
    sub.add_argument("--judge-tokens", type=int, metavar="N", help="tokens after which it ends (default: no limit)")
    sub.add_argument("--encoder", default="", help="BERTScore too, with this encoder: all-minilm-l6-v2, or a folder")
    sub.add_argument("--suite", metavar="PARTS", help="also rollouts, knowledge, trust, real (comma-separated), or all")
    sub.add_argument("--turns", type=int, metavar="N", help="rollouts: the longest, in steps (default: 6)")
    sub.add_argument(
        "--plot",
        metavar="FILE",
        help="draw scores by turn of rollouts, and confidence against accuracy of trust (.png or .svg)",
    )
    sub.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = _command(
        commands,
        "label",
        "Write actions into a state-only recording, or pick what a person should label.",
        "Three uses, one at a time: --inverse RUN infers the actions; --pick N writes the N transitions most worth "
        "labelling by hand (with --inverse RUN: what that model is unsure of first); --labels FILE merges that file, "
        "filled in.",
    )
    sub.add_argument("data", help="a recording")
    sub.add_argument("--out", required=True, help="the file to write: .parquet or .jsonl (--pick: also .csv)")
    sub.add_argument("--inverse", help="run folder or checkpoint of the inverse model")
    sub.add_argument("--forward", help="verify the labels with this forward model")
    sub.add_argument("--action", action="append", help="an action to choose among; repeatable (default: sample)")
    sub.add_argument("--samples", type=int, default=4, help="sampled actions per pair (default: %(default)s)")
    sub.add_argument("--pick", type=int, metavar="N", help="write the N transitions most worth labelling by hand")
    sub.add_argument("--labels", metavar="FILE", help="merge what was filled in there")
    sub.add_argument("--seed", type=int, default=0, help="seed of everything that is drawn (default: %(default)s)")
    sub.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = _command(commands, "imagine", "Roll the forward model out from a state through a list of actions.")
    sub.add_argument("forward", help="run folder or checkpoint")
    sub.add_argument("--state", required=True, help="the first state, or @FILE: text, or an image")
    sub.add_argument("--action", action="append", required=True, help="repeatable, in order")
    sub.add_argument("--out", metavar="FILE", help="draw imagined images: a film strip (.png) or an animation (.gif)")
    sub.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = _command(
        commands,
        "plan",
        "Act in a world by planning in the forward model, and measure what that gains.",
        "All planners play the same episodes, in layouts that the run did not train on. Beside the model: random "
        "actions, and with --real plans in copies of the world itself; see docs/planning.md.",
    )
    sub.add_argument("run", nargs="*", help="run folder or checkpoint of a forward model; several: an ensemble")
    sub.add_argument("--world", required=True, help="name of the world, see `swirl worlds`")
    sub.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="see `swirl worlds NAME`; VALUE is JSON"
    )
    sub.add_argument("--policy", metavar="RUN", help="an agent's run folder: it proposes what is tried")
    sub.add_argument("--goal", metavar="STATE", help="reach this state, or what is in @FILE, in place of rewards")
    sub.add_argument("--episodes", type=int, default=20, help="how many (default: %(default)s)")
    sub.add_argument("--horizon", type=int, default=8, help="steps to look ahead (default: %(default)s)")
    sub.add_argument("--width", type=int, default=8, help="beam: states kept; cem: elites (default: %(default)s)")
    sub.add_argument("--method", default="beam", help="beam or cem (default: %(default)s)")
    sub.add_argument("--discount", type=float, default=0.99, help="of a reward, per step (default: %(default)s)")
    sub.add_argument("--replan", type=int, default=1, help="steps taken before the next plan (default: %(default)s)")
    sub.add_argument(
        "--samples", type=int, default=1, help="predictions of a step, to tell how sure it is (default: 1)"
    )
    sub.add_argument("--penalty", type=float, default=1.0, help="price of a step that is unsure (default: %(default)s)")
    sub.add_argument("--seed", type=int, default=0, help="of the first episode, and of cem (default: %(default)s)")
    sub.add_argument("--real", action="store_true", help="plan in copies of the world too: the bound")
    sub.add_argument("--no-model", action="store_true", help="plan in copies of the world alone")
    sub.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    sub.add_argument("--json", action="store_true", help="print JSON")

    sub = _command(
        commands,
        "agent",
        "Train an agent by SPA or by reinforcement learning alone, or continue it; then measure it, or watch it play.",
        "Any key of the recipe can be overridden: --section.key VALUE (TOML, or a bare word).",
    )
    sub.add_argument(
        "do",
        choices=["train", "eval", "play"],
        help="train: run a recipe; eval: measure an agent on layouts that it never trained on; play: show an episode",
    )
    sub.add_argument(
        "recipe",
        help="a TOML file, or the name of one that comes with swirl: spa-sokoban; eval and play: a run folder, or a "
        "recipe with a --model.name that plays by it",
    )
    sub.add_argument("--out", help="train: run folder (default: runs/RECIPE)")
    sub.add_argument("--episode", type=int, metavar="N", help="play: the seed of the world (default: 0)")
    sub.add_argument("--seed", type=int, help="overrides the recipe's seed")
    sub.add_argument("--json", action="store_true", help="print JSON")
