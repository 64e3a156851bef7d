"""Imports go down only, and a help page waits for no library."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "swirl"

FLOORS = {
    **dict.fromkeys(["errors", "types", "config", "recipe", "toml"], 1),
    **dict.fromkeys(
        [
            "changes",
            "prompts",
            "metrics",
            "similarity",
            "structure",
            "intervals",
            "health",
            "models",
            "tiny",
            "checkpoints",
            "scorer",
            "parallel",
            "durable",
            "clock",
            "lock",
            "ledger",
            "order",
            "progress",
            "plots",
            "worlds",
            "images",
            "imagetokens",
            "image_metrics",
            "image_similarity",
            "sheets",
            "pictures",
        ],
        2,
    ),
    **dict.fromkeys(["data", "importers", "rewards", "labelling", "posterior"], 3),
    **dict.fromkeys(["train", "train_episodes", "sft_trainer", "grpo_trainer", "fit"], 3),
    **dict.fromkeys(["api", "methods", "eval", "compare", "agents"], 4),
    **dict.fromkeys(["__init__", "cli", "arguments"], 5),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(tree, package):
    """Dotted names of all modules that a file imports, anywhere in it; `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
            yield from (f"{base}.{name.name}" for name in node.names)


def upward(path):
    """Imports of a file that go up."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    for name in imported(ast.parse(path.read_text()), list(parts[:-1])):
        target = name.split(".")
        if target[0] == "swirl":
            # What `swirl` itself gives away lives on the top floor.
            to = FLOORS.get(target[1], 5) if len(target) > 1 else 5
            if to > FLOORS[parts[1]]:
                yield name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    assert list(upward(path)) == []


def test_an_import_that_goes_up_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "swirl").mkdir()
    for number, line in enumerate(
        ["from swirl import train", "import swirl.train", "from swirl.train import sft", "from .train import sft"]
    ):
        for floor in ("models", "methods"):
            file = tmp_path / "swirl" / f"{floor}.py"
            file.write_text(f"def late():\n    {line}\n")
            assert bool(list(upward(file))) == (floor == "models"), (number, floor)


def test_the_floors_are_those_of_the_architecture_page():
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"(?m)^\| (\d) \| (.*?) \|", text)
    page = {name.rstrip("/"): int(floor) for floor, names in rows for name in re.findall(r"`([^`]+)`", names)}
    assert page == {name: floor for name, floor in FLOORS.items() if name != "__init__"}
    present = {path.relative_to(PACKAGE).with_suffix("").parts[0] for path in FILES}
    assert present <= set(FLOORS), "a file has no floor yet"


def test_worlds_never_import_torch_and_only_the_trainers_import_trl():
    for path in FILES:
        roots = {name.split(".")[0] for name in imported(ast.parse(path.read_text()), [])}
        assert "trl" not in roots or path in [
            PACKAGE / f"{name}.py" for name in ("train", "train_episodes", "sft_trainer", "grpo_trainer")
        ], path
        if PACKAGE / "worlds" in path.parents:
            assert not roots & {"torch", "transformers", "trl", "datasets"}, path


@pytest.mark.parametrize("command", [[], ["train"], ["agent"]])
def test_a_help_page_imports_no_library(command):
    code = (
        "import runpy, sys\n"
        "try:\n    runpy.run_module('swirl.cli', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'peft', 'numpy', 'pandas', 'pyarrow', 'matplotlib'}\n"
        "found = heavy & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "usage: swirl" in done.stdout


def test_a_world_that_is_asked_for_brings_no_torch():
    code = "import sys; from swirl import worlds; worlds.make('minigrid').close(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
