"""Whole comparisons by the command, with real runs in processes of their own."""

import json
import re
import subprocess
import sys
import time

import pytest
from test_run import RECIPE, rows, write

LATER = """
[verified]
rounds = 1
steps = 2
pairs = 20
batch = 4
[inferred]
rounds = 1
steps = 2
pairs = 20
batch = 4
"""


@pytest.fixture
def words(tmp_path):
    # Steps enough for the inverse model to write something.
    recipe = RECIPE.replace("steps = 2", "steps = 60\nlearning_rate = 5e-3").replace(
        '["warmup"]', '["warmup", "verified"]'
    )
    (tmp_path / "recipe.toml").write_text(recipe + LATER)
    write(tmp_path / "in.jsonl", rows())
    return [tmp_path / "recipe.toml", "--data", tmp_path / "in.jsonl", "--out", tmp_path / "out"]


def compare(*words):
    return [sys.executable, "-m", "swirl.cli", "compare", *map(str, words)]


def made(out):
    return {path.name: path.stat().st_mtime_ns for path in (out / "cells").iterdir()}


@pytest.mark.slow
def test_methods_are_compared_from_one_warm_up_and_what_is_finished_is_not_run_again(words, tmp_path):
    words = [*words, "--methods", "bootstrap,best-of-n", "--seeds", "0,1", "--processes", 2]
    done = subprocess.run(compare(*words), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    names = {f"{method}-seed{seed}.json" for method in ("bootstrap", "best-of-n", "verified") for seed in (0, 1)}
    assert set(made(out)) == names
    warm = [path for path in (out / "runs").glob("warmup-seed*") if path.is_dir()]
    assert len(warm) == 2
    results = json.loads((out / "results.json").read_text())
    values = {(r["method"], r["role"], r["metric"], r["unit"], r["statistic"]): r for r in results["rows"]}
    for method, seed in (("bootstrap", 0), ("verified", 1)):  # what the run itself printed of its end
        run = json.loads((out / "runs" / f"{method}-seed{seed}" / "results.json").read_text())
        kept = json.loads((out / "cells" / f"{method}-seed{seed}.json").read_text())
        last = [p for p in kept["points"] if p["role"] == "forward" and "cpu_seconds" in p][-1]
        told = [
            r["value"] for r in run["rows"]
            if (r["split"], r["phase"], r["metric"]) == ("test", method, "exact_match_changed")
        ]  # fmt: skip
        counts = kept["counts"]["forward"]["exact_match_changed"]
        assert [sum(last["sums"]["exact_match_changed"]) / sum(counts)] == pytest.approx(told)
    assert values["verified", "inverse", "action_exact_match_changed", "cpu_seconds", "value"]["seeds"] == 2
    assert ("verified", "forward", "exact_match_changed", "cpu_seconds", "difference") not in values
    assert ("best-of-8", "forward", "exact_match_changed", "tokens", "difference") in values
    assert "copy-input" in (out / "comparison.md").read_text()
    page = (out / "report.html").read_text()
    assert "<svg" in page and not re.search(r'(src|href)="(?!#)', page.replace("http://www.w3.org", ""))

    before = made(out)
    (out / "cells" / "bootstrap-seed1.json").unlink()
    again = subprocess.run(compare(*words), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert {name for name, time in made(out).items() if before[name] != time} == {"bootstrap-seed1.json"}
    assert json.loads((out / "results.json").read_text())["rows"] == results["rows"]

    other = subprocess.run(compare(*words, "--verified.steps", 3), capture_output=True, text=True)
    assert other.returncode == 2
    assert re.search(
        r"verified-seed0.json was made with another recipe: verified.steps was 2, now 3; remove", other.stderr
    )


@pytest.mark.slow
def test_learning_rates_are_tried_on_a_seed_of_their_own_and_a_run_that_fails_stops_no_other(words, tmp_path):
    # It acts in a world, and the data are a file.
    more = ["--methods", "early-experience", "--seeds", "0", "--tuning-seed", "5"]
    done = subprocess.run(compare(*words, *more, "--learning-rates", "1e-9,5e-3"), capture_output=True, text=True)
    assert done.returncode == 1
    assert re.search(
        r"swirl: tune-early-experience-1e-09 ended with exit code 2: .* acts in a world, .* \(see .*log\)", done.stderr
    )
    assert "early-experience is left out, for not all of its learning rates were tried" in done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["learning_rates"]) == {"verified"}
    cell = json.loads((tmp_path / "out" / "cells" / "verified-seed0.json").read_text())
    assert cell["recipe"]["verified"]["learning_rate"] == results["learning_rates"]["verified"]
    tuned = json.loads((tmp_path / "out" / "cells" / "tune-verified-0.005.json").read_text())["recipe"]
    assert (tuned["seed"], tuned["data"]["seed"], tuned["verified"]["learning_rate"]) == (5, 0, 0.005)


@pytest.mark.slow
def test_being_stopped_ends_the_runs(words, tmp_path):
    words = [*words, "--methods", "bootstrap", "--seeds", "0", "--verified.steps", 2000, "--inferred.steps", 2000]
    started = subprocess.Popen(compare(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "out" / "runs" / "bootstrap-seed0.log"
    while "bootstrap1-forward-sft: started" not in (log.read_text() if log.is_file() else ""):
        assert started.poll() is None, started.communicate()
        time.sleep(0.2)
    started.terminate()  # as a service manager does: this process alone
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "interrupted; the same command goes on where it last saved" in errors
    time.sleep(1)
    still = subprocess.run(["pgrep", "-f", str(tmp_path / "out" / "runs")], capture_output=True, text=True)
    assert still.stdout == ""


def test_bad_words_are_refused_before_anything_runs(swirl, words, tmp_path):
    for more, message in (
        (["--methods", "boostrap"], "unknown method 'boostrap' in --methods; known: "),
        (["--methods", "bootstrap", "--seeds", ""], "--seeds names none; give some, e.g. 0,1,2"),
        (["--methods", "bootstrap", "--data", "nothere.parquet"], "no recording at nothere.parquet; check --data"),
        (["--methods", "bootstrap", "--seeds", "0,x"], "--seeds 0,x: expected a list as in 1,2,3"),
        (["--methods", "bootstrap", "--vary", "data.labels"], "--vary data.labels: expected KEY=VALUE,VALUE"),
        (["--methods", "bootstrap", "--vary", "seed=1", "--vary", "seed=2"], "--vary seed is given twice"),
        (["--methods", "bootstrap", "--vary", "data.lables=1,2"], "did you mean data.labels?"),
        (["--methods", "bootstrap", "--vary", "seed.x=1"], "--seed.x: seed is a value, not a section"),
        (["--methods", "bootstrap", "--learning-rates", "1", "--tuning-seed", "0"], "--tuning-seed 0 is one of the"),
    ):
        code, _, stderr = swirl("compare", *words, *more)
        assert code == 2
        assert message in stderr
        assert not (tmp_path / "out").exists()
