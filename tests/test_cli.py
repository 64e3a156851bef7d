import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from swirl import arguments, cli, data
from swirl.errors import InputError

COMMANDS = (
    "worlds", "collect", "import", "check", "look", "train", "compare", "eval", "label", "imagine", "plan", "agent"
)  # fmt: skip


def python(code, *args):
    """What a fresh interpreter does, for what a running one cannot show: imports, signals, exit codes."""
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=600)


def swirl(*args):
    return python("import sys; from swirl import cli; sys.exit(cli.main())", *map(str, args))


@pytest.fixture
def recording(tmp_path):
    """A counter: 12 trajectories of 6 steps, up and down between 0 and 9."""
    rows = []
    for start in range(12):
        value = start % 8
        for step in range(6):
            action = ("up", "down")[(start + step) % 3 == 0]
            after = min(9, max(0, value + (1 if action == "up" else -1)))
            row = {
                "state": f"count {value}\nroom {start}",
                "action": action,
                "next_state": f"count {after}\nroom {start}",
            }
            rows.append(row | {"trajectory": f"t{start}", "step": step})
            value = after
    path = tmp_path / "counter.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys\nfrom swirl import cli\n"
        "try: cli.main()\n"
        "finally: print({'torch', 'transformers', 'datasets', 'pyarrow', 'numpy', 'rich'} & set(sys.modules))"
    )
    done = python(code, *([command] if command else []), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: swirl{' ' + command if command else ''} ")
    assert done.stdout.endswith("\nset()\n")


def test_no_command_prints_the_commands():
    done = swirl()
    assert done.returncode == 0
    assert all(f"    {command} " in done.stdout for command in COMMANDS)
    assert tuple(cli.COMMANDS) == COMMANDS


def test_version():
    done = swirl("--version")
    assert done.returncode == 0
    assert done.stdout.split()[0] == "swirl"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian x", "unknown command 'trian'; did you mean train?"),
        ("check --tokeniser x y", "unknown option --tokeniser; did you mean --tokenizer?"),
        ("check a b", "unexpected argument 'b'; see swirl check --help"),
        ("check", "the following arguments are required: path; see swirl check --help"),
        ("check a --context 9", "--context counts tokens; give --tokenizer MODEL too"),
        ("label a --out b --labels c --pick 3", "--labels and --pick are for different uses"),
        ("label a --out b --labels c --inverse d", "--labels and --inverse are for different uses"),
        ("label a --out b --pick 3 --action c", "--pick and --action are for different uses"),
        ("collect minigrid --out x.parquet --transitions many", "argument --transitions: invalid int value: 'many';"),
        ("collect minigird --out x.parquet", "unknown world 'minigird'"),
        ("collect minigrid --out x.parquet --option size", "--option size: expected KEY=VALUE"),
        ("collect minigrid --out x.parquet --behaviour gold=much", "--behaviour gold=much: expected NAME or"),
        ("train gone.toml", "no recipe at gone.toml"),
        ("train {tmp}", "expected a recipe, a TOML file"),
        (
            "train {recipe} --xx 1",
            "unknown option --xx; known: -h, --help, --data, --out, --begin-from, --seed, --cache, --dry-run, "
            "--require-gain, --json, --methods, --threads, --device; keys in a section of the recipe are written "
            "--section.key",
        ),
        ("train {recipe} --sed 1", "unknown option --sed; did you mean --seed?"),
        ("train {recipe} --thread 1", "unknown option --thread; did you mean --threads?"),
        ("train {recipe} --warmup.stps 1", "unknown recipe key warmup.stps; did you mean warmup.steps?"),
        ("train {recipe} --warmpu.steps=1", "unknown recipe key warmpu; did you mean warmup?"),
        ("train {recipe} --warmup.steps many", "warmup.steps = 'many', expected a whole number"),
        ("train {recipe} --warmup.steps", "--warmup.steps has no value; write --warmup.steps VALUE"),
        ("train --warmup.steps --json {recipe}", "--warmup.steps has no value"),
        ("train {recipe} --model.prompt polite", "expected one of 'terse', 'instruct'"),
        ("train {recipe} --data {tmp}/gone.parquet --dry-run", "gone.parquet: no such file; give a Parquet or JSONL"),
        ("train {recipe} --methods [\"nope\"] --dry-run", "unknown method 'nope'"),
        ("eval {tmp}/gone.parquet --forward {tmp}/gone", "no such folder"),
        ("eval {tmp}/gone.parquet", "give --forward, --inverse or both"),
        ("eval a --forward b --suite trust --plot {tmp}/c.pdf", "c.pdf: expected a file that ends in .png or .svg"),
        ("eval a --forward b --suite knowledge --plot {tmp}/c.png", "give --suite rollouts,trust too"),
        ("eval a --forward b --plot {tmp}/c.svg", "give --suite rollouts,trust too"),
        ("eval a --forward b --suite trust --turns 9", "part rollouts; give --suite rollouts too"),
        ("eval a --forward b --template think", "--template think: expected KEY=VALUE"),
        ("eval a --forward b --suite all --plot {tmp}", "expected a file that ends in"),
        ("eval {tmp}/gone.parquet --suite rollouts,trust --plot {tmp}/c.PNG", "give --forward, --inverse or both"),
        ("label {tmp}/gone.parquet --out {tmp}/x.csv --pick 3", "gone.parquet: no such file"),
        ("imagine {tmp}/gone --state a --action b", "no such folder"),
        ("imagine {tmp}/gone --state @{tmp}/gone --action b", "as text"),
        ("imagine {tmp}/gone --state= --action b", "--state is empty; give the text of a state, or @FILE with it"),
        ("plan {tmp}/gone --world frozenlake --goal=", "--goal is empty"),
    ],
)  # fmt: skip
def test_the_users_errors_are_one_line_and_exit_2(words, message, tmp_path, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("threads = 1\n")
    assert cli.main([word.format(tmp=tmp_path, recipe=recipe) for word in words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("swirl: ") and message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


@pytest.mark.parametrize(
    ("error", "code", "last"),
    [
        ("InputError('got x')", 2, "swirl: got x"),
        ("MissingPartError('pip install x')", 3, "swirl: pip install x"),
        ("KeyboardInterrupt()", 130, "swirl: interrupted"),
        ("ZeroDivisionError('ours')", 1, "ZeroDivisionError: ours"),
        ("BrokenPipeError()", 0, ""),
    ],
)
def test_exit_codes(error, code, last):
    done = python(
        "import sys\nfrom swirl import cli\nfrom swirl.errors import *\n"
        f"def run(a): raise {error}\n"
        "cli.COMMANDS['worlds'] = run\nsys.exit(cli.main(['worlds']))"
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert (done.stderr.splitlines() or [""])[-1] == last
    assert ("Traceback" in done.stderr) == (code == 1)


def test_logs_go_to_stderr():
    done = python(
        "import logging, sys\nfrom swirl import cli\n"
        "cli.COMMANDS['worlds'] = lambda a: logging.getLogger('swirl').info('a log')\nsys.exit(cli.main(['worlds']))"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "a log\n")


def parsed(*words):
    found = arguments.parse(["train", *words])
    return found.recipe, found.overrides


def test_overrides_stand_before_or_after_the_recipe():
    wanted = {"warmup.steps": "5", "methods": '["warmup"]'}
    assert parsed("r.toml", "--warmup.steps", "5", "--methods", '["warmup"]') == ("r.toml", wanted)
    assert parsed("--warmup.steps", "5", "--methods", '["warmup"]', "r.toml") == ("r.toml", wanted)
    assert parsed("--warmup.steps=5", "r.toml", '--methods=["warmup"]') == ("r.toml", wanted)
    assert parsed("r.toml", "--verified.precision", "-0.5") == ("r.toml", {"verified.precision": "-0.5"})


def test_options_that_share_a_sections_name_stay_options():
    found = arguments.parse(
        ["train", "r.toml", "--data", "d.parquet", "--data.labels", "9", "--seed", "3", "--threads=1"]
    )
    assert (found.data, found.seed) == ("d.parquet", 3)
    assert found.overrides == {"data.labels": "9", "threads": "1"}


def test_only_train_takes_overrides():
    with pytest.raises(InputError, match=r"unknown option --warmup.steps"):
        arguments.parse(["check", "x", "--warmup.steps", "5"])


def test_overrides_reach_the_recipe(tmp_path, recording, capsys):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('threads = 1\ndevice = "cpu"\n[model]\nhidden = 32\nlayers = 1\nheads = 2\nvocabulary = 300\n')
    words = ["train", "--swirl.steps", "7", str(recipe), "--methods", '["swirl"]', "--dry-run", "--json"]
    assert cli.main([*words, "--data", str(recording), "--swirl.setting", "elbo"]) == 0
    phases = json.loads(capsys.readouterr().out)["phases"]
    assert [(p["phase"], p["steps"]) for p in phases if p["kind"] == "grpo"] == [
        ("swirl1-forward-grpo", 7),
        ("swirl1-inverse-grpo", 7),
    ]


def test_json_alone_goes_to_stdout(recording, run_folder, tmp_path, capsys):
    def result(*words):
        assert cli.main([*map(str, words), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert {row["world"] for row in result("worlds")} >= {"minigrid"}
    assert result("check", recording)["rows"] == 72
    out = tmp_path / "told.parquet"
    assert result("label", recording, "--labels", recording, "--out", out)["labels"] == 72
    out = tmp_path / "imported.parquet"
    assert result("import", "table", recording, "--out", out) == {
        "out": str(out),
        "transitions": 72,
        "trajectories": 12,
        "labels": 72,
        "malformed": 0,
    }
    out = tmp_path / "collected.parquet"
    assert result("collect", "sokoban", "--transitions", "3", "--out", out)["transitions"] == 3
    assert [row["row"] for row in result("look", recording, "--rows", "2")] == [1, 2]
    imagined = result("imagine", run_folder, "--state", "key", "--action", "go left", "--device", "cpu")
    assert [row["action"] for row in imagined] == ["go left"]
    short = tmp_path / "short.jsonl"
    short.write_text(json.dumps({"state": "key", "action": "go left", "next_state": "door"}) + "\n")
    rows = result("eval", short, "--forward", run_folder, "--inverse", run_folder, "--device", "cpu")
    assert {row["role"] for row in rows} == {"forward", "inverse", "both"}


def test_a_world_shows_its_options_and_behaviours(capsys):
    assert cli.main(["worlds", "frozenlake", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["world"], shown["status"]) == ("frozenlake", "ready")
    assert shown["behaviours"] == ["random", "curious", "solver"]
    meaning = "Share of the cells that are ice, before maps without a way are thrown away."
    assert shown["options"][0] | {"meaning": ""} == {
        "option": "size",
        "type": "a whole number",
        "default": 4,
        "meaning": "",
    }
    assert shown["options"][2] == {"option": "frozen", "type": "a number", "default": 0.8, "meaning": meaning}
    assert cli.main(["worlds", "toolcalls"]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert ["categories", "a text or a list of texts", '["base"]'] in [row[:3] for row in rows]
    assert any('("long_context")' in " ".join(row) for row in rows)
    assert ["width", "a whole number or null", "240", "Most characters of a line; None cuts none."] in rows
    assert ["behaviours: gold, perturbed, random"] in rows
    assert cli.main(["worlds", "frozenlak"]) == 2
    assert capsys.readouterr().err == "swirl: unknown world 'frozenlak': did you mean 'frozenlake'?\n"


def test_collect_then_check(tmp_path, capsys):
    path = tmp_path / "r.parquet"
    assert cli.main(["collect", "minigrid", "--out", str(path), "--transitions", "60", "--behaviour", "random"]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: 60 transitions, ")
    assert data.read(path).num_rows == 60
    assert cli.main(["check", str(path)]) == 0
    assert "transitions       60 in" in capsys.readouterr().out


def test_a_split_that_leaks_exits_2(tmp_path):
    row = {"state": "a", "action": "go", "next_state": "b"}
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row | {"split": s}) + "\n" for s in ("train", "test")))
    assert cli.main(["check", str(tmp_path / "r.jsonl")]) == 2


def test_the_three_uses_of_label(recording, run_folder, tmp_path, capsys):
    table = data.read(recording).to_pylist()
    for row in table[6:]:
        row["action"] = None
    some = tmp_path / "some.jsonl"
    some.write_text("".join(json.dumps(row) + "\n" for row in table))

    def said(*words):
        assert cli.main(["label", *map(str, words)]) == 0
        return capsys.readouterr().out

    out = tmp_path / "todo.jsonl"
    assert said(some, "--out", out, "--pick", 4) == f"{out}: 4 picked, 2 of 2 kinds of change\n"
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    out.write_text("".join(json.dumps(row | {"action": "up"}) + "\n" for row in rows))
    merged = tmp_path / "merged.jsonl"
    assert said(some, "--labels", out, "--out", merged) == f"{merged}: 72 rows, 4 labels, 0 empty\n"
    labelled = tmp_path / "labelled.parquet"
    words = ["--inverse", run_folder, "--action", "up", "--action", "down", "--device", "cpu"]
    assert said(merged, *words, "--out", labelled) == f"{labelled}: 72 rows, 10 kept, 62 inferred, 0 unreadable\n"
    assert data.read(labelled)["action"].null_count == 62  # what a model inferred is no label
    assert pq.read_table(labelled)["action"].null_count == 0


RECIPE = """
methods = ["warmup"]
threads = 1
device = "cpu"
[data]
seed = 5
labels = 30
validation_labels = 6
[model]
hidden = 32
layers = 1
heads = 2
vocabulary = 300
[warmup]
steps = 3
batch = 4
[evaluation]
checkpoints = 1
max_rows = 4
"""


@pytest.mark.slow
def test_a_run_its_continuation_and_its_results_again(recording, tmp_path):
    recipe, out = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    words = ["train", recipe, "--data", recording, "--out", out]
    first = swirl(*words)
    assert first.returncode == 0, first.stderr
    assert "copy-input" in first.stdout and f"forward {out}/phases/" in first.stdout
    assert "phase warmup-forward-sft: finished" in first.stderr
    again = swirl(*words, "--json")
    assert again.returncode == 0
    results = json.loads(again.stdout)
    assert results == json.loads((out / "results.json").read_text())
    assert "phase warmup-forward-sft: finished before, skipped" in again.stderr
    other = swirl(*words, "--seed", "1")
    assert other.returncode == 2
    assert "seed was 0, now 1" in other.stderr
    wanting = swirl(*words, "--require-gain")
    assert wanting.returncode == 1  # nothing follows the warm-up
    assert wanting.stderr.count("swirl: the forward model did not gain: its exact_match_changed on the test") == 1
    found = swirl("eval", out / "data/test.parquet", "--forward", out, "--inverse", out, "--json", "--device", "cpu")
    mine = {(r["role"], r["metric"]): r for r in json.loads(found.stdout) if r["model"] != "copy-input"}
    checked = 0
    for row in results["rows"]:
        if (row["split"], row["phase"]) == ("test", "warmup") and row["metric"] != "action_length_mean":
            assert mine[row["role"], row["metric"]]["value"] == pytest.approx(row["value"], abs=1e-6), row["metric"]
            checked += 1
    assert checked > 8
