import json

import pytest

from swirl import cli
from swirl.data import looking
from swirl.errors import InputError
from swirl.types import IMAGE

ROWS = [
    {"state": "a\nb", "action": None, "next_state": "a\nb", "trajectory": "t", "step": 0},
    {"state": "a\nb", "action": "go", "next_state": "a\nc\nd", "trajectory": "t", "step": 1},
    {"state": "[red]\nb", "action": "stop", "next_state": "[red]", "trajectory": "t", "step": 2},
]


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_a_step_is_shown_as_the_lines_that_go_and_come(recording, capsys):
    assert cli.main(["look", str(recording)]) == 0
    assert capsys.readouterr().out == (
        "row 1, trajectory t, step 0, no action\n  a\n  b\n\n"
        "row 2, trajectory t, step 1, action: go\n  a\n- b\n+ c\n+ d\n\n"
        "row 3, trajectory t, step 2, action: stop\n  [red]\n- b\n\n"
    )


def test_rows_that_change_nothing_can_be_passed_over(recording):
    assert [row["row"] for row in looking.look(recording, 1, changed=True)] == [2]
    assert [row["row"] for row in looking.look(recording, 9, changed=True)] == [2, 3]


def test_long_stretches_that_stay_are_counted():
    lines = [f"line {i}" for i in range(30)]
    shown = list(looking.change("\n".join(lines), "\n".join([*lines[:20], "new", *lines[21:]])))
    assert shown[:7] == [*((" ", f"line {i}") for i in range(6)), (" ", "… 8 lines")]
    assert shown[7:15] == [*((" ", f"line {i}") for i in range(14, 20)), ("-", "line 20"), ("+", "new")]
    assert shown[15:] == [*((" ", f"line {i}") for i in range(21, 27)), (" ", "… 3 lines")]


def test_an_image_is_named_by_its_place():
    assert looking.in_words(f"a\n{IMAGE}frames/1.png") == "a\n[image frames/1.png]"


def test_what_cannot_be_shown_is_refused(recording, tmp_path):
    with pytest.raises(InputError, match="--rows 0, expected at least 1"):
        looking.look(recording, 0)
    same = tmp_path / "same.jsonl"
    same.write_text(json.dumps(ROWS[0]) + "\n")
    with pytest.raises(InputError, match="no row whose state changes"):
        looking.look(same, 5, changed=True)
