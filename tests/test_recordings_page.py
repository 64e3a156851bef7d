"""The page of worlds says what the kept measurements say, of every world; and the measurements are of what they say."""

import re
from pathlib import Path

import pytest
from conftest import load_benchmark

from swirl import worlds

ROOT = Path(__file__).parent.parent


@pytest.fixture
def recordings():
    return load_benchmark("recordings")


def test_the_page_is_made_of_the_kept_files_and_has_every_world(recordings):
    text = recordings.PAGE.read_text(encoding="utf-8")
    assert recordings.page() == text
    for part in text.split("## Their recordings"):
        assert set(re.findall(r"(?m)^\| `?(\w+)`? \|", part)) - {"world", "command"} >= set(worlds.WORLDS)
    assert set(recordings.LICENCES) == set(worlds.WORLDS)


def test_a_world_is_measured(recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(recordings, "TRANSITIONS", 60)
    monkeypatch.setattr(recordings, "KEPT", tmp_path)
    facts = recordings.measure_world("sokoban")
    assert (facts["transitions"], facts["distinct_actions"]) == (60, 4)
    assert 0 < facts["changed"] < 1 < facts["per_second"]
    assert facts["characters"]["action"] == [4, 5]  # Down, Right
    recordings.keep("sokoban", facts)
    [row] = [line for line in recordings.page().splitlines() if line.startswith("| sokoban |")]
    assert f"| {facts['changed']:.0%} |" in row and "| 4 / 5 | 4 |" in row


@pytest.mark.parametrize("what", ["collect", "import table (JSONL)", "import chat"])
def test_a_stream_is_measured(recordings, what, monkeypatch):
    monkeypatch.setenv("SWIRL_QUIET", "1")
    facts = recordings.measure_stream(what, 200)
    assert facts["rows"] == 200 and facts["seconds"] > 0
    assert 20 < facts["peak_mb"] < 2000
