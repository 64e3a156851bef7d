"""The published tables: what they say is what the kept files hold."""

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import load_benchmark

from swirl.compare import comparison, reading
from swirl.errors import InputError

ROOT = Path(__file__).parent.parent


RESULTS = load_benchmark("results")


@pytest.mark.parametrize("name", RESULTS.TABLES)
def test_every_table_can_be_made_and_has_its_place(name):
    table = RESULTS.TABLES[name]
    comparison.check(table.plan())
    for page in table.pages:
        text = (ROOT / page).read_text(encoding="utf-8")
        assert text.count(f"<!-- {name}:begin -->") == text.count(f"<!-- {name}:end -->") == 1


@pytest.mark.parametrize("name", RESULTS.TABLES)
def test_pages_show_what_the_kept_files_hold(name, tmp_path, monkeypatch):
    for page in RESULTS.TABLES[name].pages:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
        text = (tmp_path / page).read_text(encoding="utf-8")
        before, rest = text.split(f"<!-- {name}:begin -->")
        (tmp_path / page).write_text(f"{before}<!-- {name}:begin --><!-- {name}:end -->{rest.split(':end -->', 1)[1]}")
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.setattr(RESULTS, "ROOT", tmp_path)
    text = (ROOT / RESULTS.TABLES[name].pages[0]).read_text(encoding="utf-8")
    waits = f"<!-- {name}:begin -->\n\n{RESULTS.running.NOT_YET}\n" in text
    assert RESULTS.main(["--table", "--only", name, "--runs", str(tmp_path / "runs")]) == int(waits)
    for page in RESULTS.TABLES[name].pages:
        assert (tmp_path / page).read_text(encoding="utf-8") == (ROOT / page).read_text(encoding="utf-8")


FIGURE = re.compile(r"\d\.\d{3}")
METHODS = {"warm-up": "warmup", "default": "verified", "oracle": "oracle"}
"""What a text calls methods, beside their names between backticks."""
COLUMNS = {
    "net": "next state, net",
    "exact on changed": "exact on changed",
    "changed transitions": "exact on changed",
    "changed facts": "changed facts F1",
    "false changes": "false changes",
    "unreadable": "unreadable",
    "inverse": "action, exact",
    "at 100 (": "100, 50",
    "200 labels": "200, 100",
    "1,000": "1000, 100",
    "2,000": "2000, 100",
    "10,000": "10000, 100",
}
"""What a text calls metrics, or what varies, and the columns that have them."""


def in_tables(text):
    """The figures of tables by method and column."""
    found = {}
    for table in re.findall(r"(?m)(?:^\|.*\n)+", text):
        head, _, *rows = ([cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines())
        for method, *cells in rows:
            for column, cell in zip(head[1:], cells, strict=True):
                found.setdefault((method, column), set()).update(FIGURE.findall(cell))
    return found


def unfounded(said, tables):
    """Figures of a passage that the tables do not have of a method and in a column that its bullet or line names."""
    wrong = []
    for part in re.split(r"\n(?:- |\| |\n)", said):
        methods = set(re.findall(r"`([\w-]+)`", part)) | {name for word, name in METHODS.items() if word in part}
        columns = {column for word, column in COLUMNS.items() if word in part.lower()}
        known = {
            figure
            for (method, column), of in tables.items()
            if method in methods and column in columns
            for figure in of
        }
        wrong += [(figure, part) for figure in FIGURE.findall(part) if figure not in known]
    return wrong


@pytest.mark.parametrize(
    ("mark", "begins", "ends", "least"),
    [
        ("minigrid", "What this says, five recordings", "What to hold against it", 35),
        ("minigrid-labels", "What this says is of recording 1", "### Each anchor", 16),
        ("minigrid-rgb", "One seed so far", "## Crafter", 13),
        ("scienceworld", "What this says of ScienceWorld", "Why, and what to hold against it", 20),
    ],
)
def test_what_is_said_of_a_table_are_its_figures(mark, begins, ends, least):
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    table = page.split(f"<!-- {mark}:begin -->")[1].split(f"<!-- {mark}:end -->")[0]
    said = page.split(begins)[1].split(ends)[0]
    assert len(FIGURE.findall(said)) >= least
    assert unfounded(said, in_tables(table)) == []


def test_a_figure_of_another_method_or_metric_is_unfounded():
    tables = in_tables(
        "| method | next state, net | false changes |\n|---|---|---|\n| `swirl` | 0.434 [0.258, 0.609] | 0.088 |\n"
    )
    assert tables == {("swirl", "next state, net"): {"0.434", "0.258", "0.609"}, ("swirl", "false changes"): {"0.088"}}
    assert unfounded("`swirl` has 0.434 [0.258, 0.609] on net\n- and `swirl` 0.088 false changes", tables) == []
    for said in ("`verified` has 0.434 on net", "`swirl` has 0.434 false changes", "on net `swirl` has 0.435"):
        assert [figure for figure, _ in unfounded(said, tables)] == FIGURE.findall(said)


def test_what_is_held_against_the_table_is_what_the_kept_files_hold():
    said = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").split("What to hold against it")[1]
    minigrid, seeds = RESULTS.KEPT / "minigrid", range(1, 6)
    runs = {
        name: [json.loads((minigrid / f"{name}-data.seed={seed}-seed{seed}.json").read_text()) for seed in seeds]
        for name in ("verified", "bootstrap", "bootstrap-all")
    }

    def mean_net(name, phase):
        curves = [reading.curve(run, "forward", reading.NET, "cpu_seconds").values() for run in runs[name]]
        return np.mean([curve[phase] for curve in curves])

    first, last, other = mean_net("verified", 1), mean_net("verified", -1), mean_net("bootstrap", -1)
    assert (
        f"{last - first:.3f} comes after the first round: its net is {first:.3f} then and {last:.3f} at its end" in said
    )
    assert f"that of `bootstrap` {other:.3f} at its own" in said
    least, false = 0.0, 0.0
    for run in runs["bootstrap"]:
        end = next(point for point in run["points"] if point["phase"] == "bootstrap5-forward-sft")
        sums = {name: np.array(values) for name, values in end["sums"].items()}
        changed = np.array(run["counts"]["forward"]["exact_match_changed"])
        # An unreadable reply to a changed transition is wrong and no copy of the state.
        least += np.maximum(
            0, sums["unreadable_rate"] - (changed - sums["exact_match_changed"] - sums["copy_rate"])
        ).sum()
        false += sums["false_change_rate"].sum()
    assert f"at least {least:.0f} of {false:,.0f} at the ends of" in said

    def taken_back(name):
        """By run, whether each round ended as it began."""
        phases = re.compile(r"(warmup|bootstrap\d)-forward-sft")
        ends = [[p["sums"] for p in run["points"] if phases.match(p["phase"])] for run in runs[name]]
        return [[before == after for before, after in pairwise(of)] for of in ends]

    rounds = taken_back("bootstrap-all")
    assert [seed for seed, of in zip(seeds, rounds, strict=True) if all(of[1:])] == [5]
    assert "In recording 5 `bootstrap-all` took back each of its rounds 2 to 5." in said
    assert [of[-1] for of in rounds] == [True] * 5
    both = [f"{sum(map(sum, of))} of {sum(map(len, of))}" for of in (rounds, taken_back("bootstrap"))]
    assert f"In all five it took back its last round, {both[0]} rounds in all, `bootstrap` {both[1]}:" in said


def test_what_learning_rates_may_explain_is_what_the_kept_files_hold():
    said = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").split("**Learning rates** are chosen by net")[1]

    def facts(name):
        run = json.loads((RESULTS.KEPT / "scienceworld" / f"tune-{name}.json").read_text())
        return reading.curve(run, "forward", "changed_facts_f1", "cpu_seconds").values()[-1]

    other, taken, lead = facts("verified-0.002"), facts("verified-0.0003"), facts("bootstrap-0.002")
    assert f"{other:.3f} against {taken:.3f}, `bootstrap` there {lead:.3f}." in said
    assert (other - taken) / (lead - taken) == pytest.approx(0.5, abs=0.1)  # "about half"


def test_what_has_not_run_is_told_beside_what_has(tmp_path):
    minigrid, labels = RESULTS.TABLES["minigrid"], RESULTS.TABLES["minigrid-labels"]
    for cell, _ in comparison.missing(minigrid.plan(), tmp_path):
        if cell.method not in ("swirl", "oracle") and (cell.method, cell.recipe.seed) != ("verified", 3):
            (tmp_path / f"{cell.name}.json").touch()
    (tmp_path / "oracle-data.seed=5-seed5.json").touch()
    assert RESULTS.missing(minigrid, tmp_path) == (
        "Not run yet: `swirl`; `oracle` (seeds 1, 2, 3, 4); `verified` (seed 3).\n\n"
    )
    # Of these the runs with 400 labels are the same; with others none has run.
    values = "; ".join(f"{n}, {100 if n > 100 else 50}" for n in (100, 200, 1000, 2000, 10000))
    assert RESULTS.missing(labels, tmp_path) == (
        f"Not run yet: {values.replace('200, 100;', '200, 100; 400, 100: `swirl`, `verified` (seed 3);')}.\n\n"
    )
    for cell, _ in comparison.missing(minigrid.plan(), tmp_path):
        (tmp_path / f"{cell.name}.json").touch()
    assert RESULTS.missing(minigrid, tmp_path) == ""


def test_a_short_table_has_few_columns_and_no_intervals():
    rows = [["method", "seeds", *reversed(RESULTS.SHORT[1:])], ["`swirl`", "5", *["0.9 [0.8, 1.0]"] * 4, "480 (90 %)"]]
    assert RESULTS.shortened(rows) == [list(RESULTS.SHORT), ["`swirl`", "480 (90 %)", *["0.9"] * 4]]


def test_a_table_without_runs_says_so_and_stops_no_other(tmp_path, monkeypatch, capsys):
    for page in {page for table in RESULTS.TABLES.values() for page in table.pages}:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    monkeypatch.setattr(RESULTS, "ROOT", tmp_path)
    monkeypatch.setattr(RESULTS, "KEPT", tmp_path)
    assert RESULTS.main(["--table", "--runs", str(tmp_path / "runs")]) == 1
    told = capsys.readouterr().out
    assert all(f"{name}: {tmp_path / table.recipe} has no run of" in told for name, table in RESULTS.TABLES.items())
    page = (tmp_path / "docs" / "results.md").read_text(encoding="utf-8")
    for name in RESULTS.TABLES:
        assert f"<!-- {name}:begin -->\n\n{RESULTS.running.NOT_YET}\n<!-- {name}:end -->" in page


def test_a_page_without_a_place_for_a_table_is_left_as_it_is(tmp_path):
    page = tmp_path / "page.md"
    for text in ("No marks.\n", "<!-- lake:begin -->\n\nold\n", "<!-- lake:end -->\n"):
        page.write_text(text)
        with pytest.raises(InputError, match=r"page.md has no place for a table; put <!-- lake:begin --> and <!-- lak"):
            RESULTS.write(page, "lake", "new")
        assert page.read_text() == text
    page.write_text("before <!-- lake:begin -->old<!-- lake:end --> after")
    RESULTS.write(page, "lake", "new\n")
    RESULTS.write(page, "lake", "new\n")
    assert page.read_text() == "before <!-- lake:begin -->\n\nnew\n\n<!-- lake:end --> after"


def test_make_results_runs_what_fills_every_place_of_the_page():
    filled = {
        "results": {name for name, table in RESULTS.TABLES.items() if "docs/results.md" in table.pages},
        "planning": {"planning"},
        "agents": {f"agents-{world}" for world in load_benchmark("agents").WORLDS},
    }
    marks = re.findall(r"<!-- ([\w-]+):begin -->", (ROOT / "docs" / "results.md").read_text(encoding="utf-8"))
    assert sorted(marks) == sorted(set().union(*filled.values()))
    told = subprocess.run(["make", "-n", "results"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"for table in {' '.join(filled)}; do" in told
    assert "benchmarks/$table.py" in told
