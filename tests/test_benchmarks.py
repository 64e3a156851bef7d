"""The cost benchmark runs at tiny sizes and says everything that it should; no time is asserted."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MEASURED = {
    "scoring": "tokens/s",
    "peak memory of scoring": "MB",
    "slope of scoring in state length": "power",
    "slope of scoring in G": "power",
    "verified relabelling": "s per 1,000 pairs",
    "Phase I step (forward trains)": "s per step",
    "Phase II step (inverse trains)": "s per step",
    "slope of a phase step in state length": "power",
    "slope of a phase step in G": "power",
}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The rows of a quick run, its setting, and what it printed."""
    out = tmp_path_factory.mktemp("cost") / "cost.json"
    page = (ROOT / "docs" / "cost.md").read_text()
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "cost.py", "--quick", "--json", out],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    assert (ROOT / "docs" / "cost.md").read_text() == page  # tiny sizes are not published
    return *json.loads(out.read_text()).values(), done.stdout


def test_everything_is_measured_against_its_alternative(quick):
    _, rows, _ = quick
    assert {row["what"]: row["unit"] for row in rows} == MEASURED
    for row in rows:
        assert all(math.isfinite(row[side]) for side in ("ours", "theirs", "ratio"))
        assert row["ratio"] > 0 or row["unit"] == "power"  # tiny sizes may cost alike
        assert row["against"] != "ours"
    scoring = [row for row in rows if row["what"] == "scoring"]
    assert len(scoring) == 3 * 2  # three questions, two alternatives
    assert len({row["case"] for row in scoring}) == 3


def test_memory_is_that_of_tensors(quick):
    _, rows, _ = quick
    for row in rows:
        if row["what"] == "peak memory of scoring":
            assert 0.01 < row["ours"] < 100  # MB: some hundred tokens, three layers of width 96
            assert 0.01 < row["theirs"] < 100


def test_the_setting_names_no_machine(quick):
    setting, _, stdout = quick
    assert setting["machine"].split(", ")[1:] == [f"{os.cpu_count()} cores", "1 thread"]
    assert setting["trl"] and setting["torch"] and setting["commit"]
    assert os.uname().nodename not in json.dumps(setting) + stdout


def test_the_page_has_what_the_benchmark_measures():
    text = (ROOT / "docs" / "cost.md").read_text()
    tables = text.split("<!-- cost:begin -->")[1].split("<!-- cost:end -->")[0]
    for what, unit in MEASURED.items():
        assert f"**{what[0].upper()}{what[1:]}**, {unit}" in tables
    assert "commit" in tables
    for case in (
        "30-token states, G 4",
        "30-token states, G 16",
        "2,048-token states, G 4",
        "2,048-token states, G 16",
        "4,096-token states, G 4",
        "4,096-token states, G 16",
        "4,096-token states, 1 transition, G 4",
        "2,048-token states, every action verified",
    ):
        assert case in tables


def test_values_of_a_comparison():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import measuring
    finally:
        sys.path.pop(0)
    [row] = measuring.compare("a", "b", "tokens/s", {"ours": [1.0, 2.0, 4.0], "plain": [2.0, 2.0, 16.0]}, 8)
    assert (row["ours"], row["theirs"], row["ratio"]) == (4.0, 4.0, 2.0)
    [row] = measuring.compare("a", "b", "s", {"ours": [1.0], "plain": [3.0]})
    assert (row["ours"], row["theirs"], row["ratio"]) == (1.0, 3.0, 3.0)
    assert measuring.slope([1, 2, 4], [3.0, 12.0, 48.0]) == pytest.approx(2.0)
    with pytest.raises(AssertionError, match="plain gave other numbers"):
        measuring.check({"ours": [1.0, 2.0], "plain": [1.0, 2.1]})


def test_a_stopped_table_ends_what_it_has_called(tmp_path):
    """Two at once of three; SIGTERM reaches the table alone, as from a job scheduler."""
    child = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(60)"
    table = f"""
import sys
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import running
work = lambda one: str(running.CALLED.call([sys.executable, "-c", {child!r}, {str(tmp_path)!r} + "/" + str(one)]))
running.finish(lambda: len(running.side_by_side(work, [1, 2, 3], 2, "table")))
"""
    stopped = subprocess.Popen([sys.executable, "-c", table], stderr=subprocess.PIPE, text=True)
    while len([path for path in tmp_path.iterdir() if path.read_text()]) < 2:
        assert stopped.poll() is None
        time.sleep(0.05)
    stopped.terminate()
    _, said = stopped.communicate(timeout=30)
    assert said.splitlines()[-1] == "interrupted; the same command goes on where it last saved"
    assert stopped.returncode == 130
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]  # the third did not begin
