"""The published tables: what they say is what the kept files hold."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import load_benchmark

from swirl.compare import comparison

ROOT = Path(__file__).parent.parent


RESULTS = load_benchmark("results")


@pytest.mark.parametrize("name", RESULTS.TABLES)
def test_every_table_can_be_made_and_has_its_place(name):
    table = RESULTS.TABLES[name]
    comparison._check(table.plan())
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
    waits = f"<!-- {name}:begin -->\n\n{RESULTS.NOT_YET}\n" in (ROOT / RESULTS.TABLES[name].pages[0]).read_text("utf-8")
    assert RESULTS.main(["--table", "--only", name, "--runs", str(tmp_path / "runs")]) == int(waits)
    for page in RESULTS.TABLES[name].pages:
        assert (tmp_path / page).read_text(encoding="utf-8") == (ROOT / page).read_text(encoding="utf-8")


TUNED = re.compile(r"(?m)^\| `(\w+)`[^|]*\((\de-\d)\) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$")
"""A row of the tuning seed's figures: method, rate, and three shares."""


def test_the_tuning_seeds_figures_are_those_of_the_kept_files():
    found = TUNED.findall((ROOT / "docs" / "results.md").read_text(encoding="utf-8"))
    assert {method for method, *_ in found} == {"bootstrap", "swirl", "verified", "oracle"}
    wanted = "exact_match_changed", "false_change_rate", "action_exact_match_changed"
    for method, rate, *shown in found:
        kept = json.loads((RESULTS.KEPT / "minigrid" / f"tune-{method}-{float(rate)}.json").read_text())
        values = {row["metric"]: row["value"] for row in kept["rows"] if row["phase"] == method}
        assert shown == [f"{values[metric]:.3f}" for metric in wanted]


def test_what_is_said_of_a_table_are_its_figures():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    table, said = page.split("<!-- minigrid:end -->")[0], page.split("What this says")[1].split("Before commit")[0]
    figures = set(re.findall(r"\d\.\d{3}", said))
    assert len(figures) > 15
    assert figures <= set(re.findall(r"\d\.\d{3}", table))


def test_what_has_not_run_is_told_beside_what_has(tmp_path):
    minigrid, labels = RESULTS.TABLES["minigrid"], RESULTS.TABLES["minigrid-labels"]
    for cell, _ in comparison.missing(minigrid.plan(), tmp_path):
        if cell.method not in ("swirl", "oracle") and (cell.method, cell.recipe.seed) != ("verified", 3):
            (tmp_path / f"{cell.name}.json").touch()
    (tmp_path / "oracle-seed4.json").touch()
    assert RESULTS.missing(minigrid, tmp_path) == (
        "Not run yet: `swirl`; `oracle` (seeds 0, 1, 2, 3); `verified` (seed 3).\n\n"
    )
    # Of these the runs with 400 labels are the same; with others none has run.
    values = "; ".join(f"{n}, {100 if n > 100 else 50}" for n in (100, 200, 1000, 2000, 10000))
    assert RESULTS.missing(labels, tmp_path) == (
        f"Not run yet: {values.replace('200, 100;', '200, 100; 400, 100: `swirl`;')}.\n\n"
    )
    for cell, _ in comparison.missing(minigrid.plan(), tmp_path):
        (tmp_path / f"{cell.name}.json").touch()
    assert RESULTS.missing(minigrid, tmp_path) == ""


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
        assert f"<!-- {name}:begin -->\n\n{RESULTS.NOT_YET}\n<!-- {name}:end -->" in page
