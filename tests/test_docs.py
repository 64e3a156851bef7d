"""The pages are run, not believed: marked blocks of README.md and docs/*.md are executed, in order, in one folder.

    ```bash run            a shell script that must succeed
    ```python run          the same, in Python
    ```bash fails          one that must fail (python too)
    ```text output         what the block before it printed (and, where it fails, its stderr); "..." is anything
    ```jsonl file=x.jsonl  a file for the blocks after it (any language)
    ```python quote=a.py   lines that stand in that file of the repository, so that pages cannot drift from the code

What else a page says of commands, recipe keys, files and links is compared with what there is.
"""

import ast
import dataclasses
import doctest
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
import typing
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import TINY, randomise

import swirl as package
from swirl import arguments, image_metrics, image_similarity
from swirl.agents.settings import AgentRecipe
from swirl.config import Recipe
from swirl.eval import held_out
from swirl.methods import METHODS
from swirl.recipe import load_recipe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SLOW = {"your-own-data.md"}
FENCE = re.compile(r"(?ms)^```([^\n`]*)\n(.*?)^```[ \t]*$")


class Block(NamedTuple):
    """A fenced block of a page."""

    where: str
    language: str
    mark: str
    text: str


def blocks(page):
    found = []
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        language, _, mark = match[1].partition(" ")
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(f"{page.name}:{line}", language, mark.strip(), match[2]))
    return found


def alike(expected, got):
    """Whether printed text is what the page says, whatever `...` stands for; spaces count as one."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(expected, got, flags)


def run(page, folder):
    """Run the marked blocks of a page in a folder.

    Raises:
        AssertionError: A block did not do what the page says.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    shown = None
    for block in blocks(page):
        if block.mark.startswith("file="):
            (folder / block.mark.removeprefix("file=")).write_text(block.text, encoding="utf-8")
        elif block.mark in ("run", "fails"):
            head = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[block.language]
            done = subprocess.run(
                [*head, block.text], cwd=folder, env=env, capture_output=True, text=True, timeout=1800
            )
            assert bool(done.returncode) == (block.mark == "fails"), f"{block.where}\n{done.stdout}\n{done.stderr}"
            shown = done.stdout + (done.stderr if block.mark == "fails" else "")
        elif block.mark == "output":
            assert shown is not None, f"{block.where}: there is no block whose output this is"
            assert alike(block.text, shown), f"{block.where}: the page says\n{block.text}\nbut it printed\n{shown}"


@pytest.fixture
def folder(tmp_path, tiny):
    """Where a page is read: the recipes are there, and a finished run whose model learnt nothing."""
    from swirl import ledger
    from swirl.tiny import build

    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    spec = dataclasses.replace(TINY, max_length=1024)
    recipe = dataclasses.replace(Recipe(), model=spec, threads=1)
    with ledger.Run.open(tmp_path / "runs" / "demo", recipe.toml()) as demo:

        def make(out):
            build(["room 5 5", "agent 1 1 right", "carrying nothing"] * 9, out, spec, seed=0)
            randomise(out, std=0.2)

        phase = demo.phase("start", make)
    name = phase.relative_to(tmp_path / "runs" / "demo")
    (tmp_path / "runs" / "demo" / "results.json").write_text(f'{{"forward": "{name}", "inverse": "{name}"}}')
    return tmp_path


RUN = [page for page in PAGES if any(block.mark == "run" for block in blocks(page))]


@pytest.mark.parametrize("page", [pytest.param(p, id=p.name, marks=[pytest.mark.slow] * (p.name in SLOW)) for p in RUN])
def test_a_page_does_what_it_says(page, folder):
    run(page, folder)


@pytest.mark.parametrize(
    "text",
    [
        "```bash run\nfalse\n```\n",
        "```bash run\nfalse | cat\n```\n",
        "```python run\n1 / 0\n```\n",
        "```bash fails\ntrue\n```\n",
        "```bash run\nseq 3\n```\n\n```text output\n1\n...\n4\n```\n",
        "```bash fails\necho no >&2; exit 2\n```\n\n```text output\nyes\n```\n",
        "```text output\nnothing\n```\n",
    ],
)
def test_a_page_that_is_wrong_is_found_out(text, tmp_path):
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(AssertionError):
        run(tmp_path / "page.md", tmp_path)


def test_a_page_that_is_right_passes(tmp_path):
    text = "```text file=a.txt\n1\n```\n\n```bash run\ncat a.txt; seq 2 9\n```\n\n```text output\n1\n...\n9\n```\n"
    (tmp_path / "page.md").write_text(text)
    run(tmp_path / "page.md", tmp_path)


def in_file(quote, source):
    """Whether the lines of a quotation follow one another in the source, at any one indentation; "..." skips."""
    lines = [line.strip() for line in source.splitlines()]
    start = 0
    for part in re.split(r"(?m)^\s*\.\.\.$", quote):
        wanted = [line.strip() for line in textwrap.dedent(part).strip().splitlines()]
        places = [i for i in range(start, len(lines) - len(wanted) + 1) if lines[i : i + len(wanted)] == wanted]
        if not places:
            return False
        start = places[0] + len(wanted)
    return True


QUOTES = [block for page in PAGES for block in blocks(page) if block.mark.startswith("quote=")]


@pytest.mark.parametrize("block", QUOTES, ids=lambda block: block.where)
def test_quoted_code_is_the_codes(block):
    source = (ROOT / block.mark.removeprefix("quote=")).read_text()
    assert in_file(block.text, source), f"{block.where} is not in {block.mark}"


def test_a_quotation_that_drifted_is_seen():
    source = "def f():\n    a = 1\n    b = 2\n    return a\n"
    assert in_file("a = 1\nb = 2\n", source)
    assert in_file("a = 1\n...\nreturn a\n", source)
    assert not in_file("a = 1\nb = 3\n", source)
    assert not in_file("a = 1\nreturn a\n", source)
    assert not in_file("return a\n...\na = 1\n", source)


def sections(recipe=Recipe):
    """Names of a recipe's sections and their keys; `trainer`, whose keys are TRL's, is left out."""
    hints = typing.get_type_hints(recipe).items()
    return {name: {f.name for f in dataclasses.fields(hint)} for name, hint in hints if dataclasses.is_dataclass(hint)}


def test_the_page_of_recipe_keys_is_what_the_code_says(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import keys

    assert keys.PAGE.read_text(encoding="utf-8") == keys.page(), "write it again: python docs/keys.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_recipe_keys_exist(page):
    known = sections(AgentRecipe if page.name == "agents.md" else Recipe)
    if page.name == "recipe.md":
        known |= {name: known.get(name, set()) | of_agents for name, of_agents in sections(AgentRecipe).items()}
    known["swirl"] = known.get("swirl", set()) | {
        path.stem for path in (ROOT / "swirl").iterdir()
    }  # the package's modules
    known["swirl"] |= set(package.__all__)
    for section, key in re.findall(r"`(?:--)?(\w+)\.(\w+)\b[^`(/]*`", page.read_text()):
        assert section not in known or key in known[section] | {"py", "md"}, f"{section}.{key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
        path, _, anchor = target.partition("#")
        if path.startswith("http"):
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"(?m)^#+ (.*)$", linked.read_text())
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, target
    for name in re.findall(r"`((?:swirl|docs|recipes|tests|benchmarks|examples)/[\w./-]*)`", text):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_not_run_could_be(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    targets = set(re.findall(r"(?m)^(\w+):", (ROOT / "Makefile").read_text()))
    for block in blocks(page):
        if block.language != "bash" or block.mark:
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["make"]:
                assert words[1] in targets, f"{block.where}: {line}"
            if words[:1] == ["swirl"]:
                known = arguments.parse(words[1:])
                if known.command == "train":
                    load_recipe(known.recipe, known.overrides)


def rows(page, title):
    """Cells of the first table after a title, without its head."""
    text = page.read_text().split(f"\n## {title}\n", 1)[1].split("\n## ")[0]
    table = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def test_the_readme_lists_the_methods_and_the_commands():
    methods = {cells[0].strip("`"): cells[-1] for cells in rows(ROOT / "README.md", "Methods")}
    assert set(methods) == set(METHODS)
    for name, file in methods.items():
        assert f"swirl/methods/{name.replace('-', '_')}.py" in file
    commands = {cells[0].strip("`").removeprefix("swirl ") for cells in rows(ROOT / "README.md", "Commands")}
    assert commands == set(arguments._parser()[1])


def test_the_metrics_page_has_every_metric_that_is_measured():
    page = {
        title: {
            name for cells in rows(ROOT / "docs" / "metrics.md", title) for name in re.findall(r"`(\w+)`", cells[0])
        }
        for title in ("Next state", "Action")
    }
    measured = [{"state": x, "action": "a", "next_state": "[1]", "trajectory": x} for x in ("[0]", "[1]")]
    common = {"nll_per_token", "nll", "nll_changed"}
    more = {"forward": {"bert_score", "bert_score_changed"}, "inverse": {"action_nmi", "action_perplexity_ratio"}}
    for title, role in (("Next state", "forward"), ("Action", "inverse")):
        found = {row["metric"] for row in held_out.results(role, measured, ["a", "b"])}
        assert page[title] == found | common | more[role] | {held_out.CUT_OFF[role]}


def test_the_metrics_page_has_every_metric_of_frames():
    page = {cells[0].strip("`") for cells in rows(ROOT / "docs" / "metrics.md", "Next frame")}
    one, other = (np.full((16, 16, 3), value, np.uint8) for value in (0, 1))
    found = set(image_metrics.forward_values([one, one], [one, other], [one, one], tile=8))
    elsewhere = {image_similarity.ClipSimilarity.metric, image_similarity.Lpips.metric}
    elsewhere |= {"image_disc_edit", "image_suppressed_nll"}
    assert page == found | elsewhere


def test_the_file_tree_is_the_files():
    text = (ROOT / "README.md").read_text()
    tree = text.split("\n## Files\n", 1)[1].split("```")[1]
    named = set(re.findall(r"(?m)^  ([\w.]+/?)\s", tree))
    there = {p.name + "/" * p.is_dir() for p in (ROOT / "swirl").iterdir() if not p.name.startswith("__")}
    assert named == there


def assigned(path, name):
    """The value of a literal that a module assigns, read without importing the module."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == name:
            return ast.literal_eval(typing.cast(ast.expr, node.value))
    raise LookupError(name)


def test_the_settings_page_shows_every_option_that_differs():
    settings = assigned(ROOT / "swirl" / "train.py", "SETTINGS")
    page = {cells[0].strip("`"): cells[1:3] for cells in rows(ROOT / "docs" / "methods.md", "Two settings")}
    for option in settings["published"].keys() | settings["elbo"].keys():
        values = [settings[setting].get(option) for setting in ("published", "elbo")]
        assert (option in page) == (values[0] != values[1]), option
        if option in page:
            assert page[option] == [f"`{value}`" for value in values]


def test_the_hyper_parameters_are_those_of_the_recipes():
    table = rows(ROOT / "docs" / "methods.md", "The paper's hyper-parameters")
    assert {cells[-1].strip("`") for cells in table} == {
        f"recipes/paper/{p.name}" for p in ROOT.glob("recipes/paper/*")
    }
    for cells in table:
        swirl = load_recipe(ROOT / cells[-1].strip("`")).swirl
        values = [swirl.learning_rate, swirl.lr_warmup, swirl.prompts * swirl.generations, swirl.generations]
        assert [float(cell) for cell in cells[1:-1]] == [*values, swirl.beta, swirl.temperature, swirl.top_p]


def test_the_paper_index_has_every_paper_that_is_named():
    index = (ROOT / "docs" / "paper-index.md").read_text()
    files = [*(ROOT / "swirl").rglob("*.py"), *(ROOT / "recipes").rglob("*.toml"), *PAGES]
    for file in files:
        for paper in re.findall(r"\b\d{4}\.\d{5}\b", file.read_text()):
            assert paper in index, f"{file.name}: arXiv {paper}"


def test_pictures_are_whole_and_read_on_light_and_dark():
    pictures = list((ROOT / "docs" / "images").glob("*.svg"))
    assert pictures
    for picture in pictures:
        root = ElementTree.parse(picture).getroot()
        assert root.tag.endswith("svg")
        assert root.find("{*}title") is not None
        assert "prefers-color-scheme: dark" in picture.read_text()


def test_recipes_on_pages_are_recipes(tmp_path):
    found = [block for page in PAGES for block in blocks(page) if block.language == "toml"]
    assert found
    for block in found:
        tomllib.loads(block.text)
        (tmp_path / "r.toml").write_text(block.text)
        load_recipe(tmp_path / "r.toml")
