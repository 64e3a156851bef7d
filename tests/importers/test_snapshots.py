from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swirl.data import read, with_history
from swirl.importers import import_recording, pages


def folder(path, **files):
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def imported(tmp_path):
    counts = import_recording("snapshots", [str(tmp_path / "in")], tmp_path / "out.parquet")
    return read(tmp_path / "out.parquet").to_pylist(), counts


def test_neighbours_in_the_order_of_their_numbers_are_transitions_without_actions(tmp_path):
    folder(tmp_path / "in", s10__txt="c\n", s9__md="b", s2__txt="a", s11__txt="c")
    rows, counts = imported(tmp_path)
    assert [(row["state"], row["next_state"], row["step"], row["truncated"]) for row in rows] == [
        ("a", "b", 0, False),
        ("b", "c", 1, False),
        ("c", "c", 2, True),
    ]
    assert {row["action"] for row in rows} == {None} and {row["trajectory"] for row in rows} == {"in"}
    assert counts == {"transitions": 3, "trajectories": 1, "labels": 0, "malformed": 0}


def test_each_folder_is_a_trajectory(tmp_path):
    folder(tmp_path / "in/z", a1__txt="a", a2__txt="b")
    folder(tmp_path / "in/z/deep", a1__txt="c", a2__txt="d")
    folder(tmp_path / "in/b", a1__txt="alone")
    folder(tmp_path / "in/z", z3__txt="e")
    rows, _ = imported(tmp_path)
    assert [(row["trajectory"], row["step"], row["state"], row["next_state"]) for row in rows] == [
        ("z", 0, "a", "b"),
        ("z", 1, "b", "e"),
        ("z/deep", 0, "c", "d"),
    ]


def test_a_file_that_cannot_be_read_breaks_the_chain(tmp_path, caplog):
    names = {
        "1__txt": "a",
        "2__txt": "b",
        "3__txt": b"\xff",
        "4__txt": "d",
        "5__txt": "e",
        "x__txt": "?",
        "05__txt": "f",
    }
    folder(tmp_path / "in", **names)
    rows, counts = imported(tmp_path)
    assert (rows[0]["next_state"], rows[1]["next_state"]) == ("b", "f")
    assert [(row["trajectory"], row["step"], row["truncated"]) for row in rows] == [("in", 0, True), ("4.txt", 0, True)]
    assert counts["malformed"] == 3
    assert "3.txt: cannot be read as UTF-8 text" in caplog.text and "x.txt: no number" in caplog.text


def test_html_is_written_as_lines(tmp_path):
    page = """<!doctype html><head><title>x</title><script>var a = "<b>";</script><style>b {}</style>
    <body class=main><p>Two   words</p><!-- no --><p style="x">&amp; more
    <button id="b1" onclick="go()" disabled>Go</button><img src=x><svg><text>hid</text></svg><br/>end</body>"""
    assert pages.lines(page).split("\n") == [
        '<body class="main">',
        "Two words",
        "& more",
        '<button id="b1" disabled="">',
        "Go",
        "<img>",
        "end",
    ]
    folder(tmp_path / "in", p1__html=page, p2__HTM=page.replace("Go<", "Gone<"))
    rows, _ = imported(tmp_path)
    assert rows[0]["state"] == pages.lines(page) and rows[0]["next_state"].split("\n")[4] == "Gone"


@given(st.text(st.sampled_from('<>!-[]?/ab="&;\n'), max_size=40))
def test_any_text_is_lines_or_not_html(text):
    try:
        found = pages.lines(text)
    except ValueError as error:
        assert "not readable as HTML" in str(error)
    else:
        assert all(line.strip() for line in found.split("\n")) or found == ""


def test_a_chain_that_breaks_twice_or_at_its_ends(tmp_path):
    good = {f"{number}__txt": f"s{number}" for number in (2, 3, 5, 7, 8, 9)}
    folder(tmp_path / "in", **good, **{f"{number}__txt": " " for number in (1, 4, 6, 10)})
    rows, counts = imported(tmp_path)
    assert [tuple(row[name] for name in ("trajectory", "step", "state", "truncated")) for row in rows] == [
        ("2.txt", 0, "s2", True),
        ("7.txt", 0, "s7", False),
        ("7.txt", 1, "s8", True),
    ]
    assert counts["malformed"] == 4
    assert with_history(read(tmp_path / "out.parquet"), 3)["history"].to_pylist() == [[], [], ["s7"]]


@given(bad=st.binary(max_size=30), at=st.integers(0, 5), ending=st.sampled_from(["txt", "html", "md"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pairs_of_good_snapshots_are_kept_whatever_else_lies_there(bad, at, ending, tmp_path):
    home = tmp_path / f"{at}{ending}{abs(hash(bad))}" / "in"
    folder(home, **{f"{number}__txt": f"state {number}" for number in range(6) if number != at})
    (home / f"{at}.{ending}").write_bytes(bad)
    rows, _ = imported(home.parent)
    pairs = {(row["state"], row["next_state"]) for row in rows}
    for number in range(5):
        if at not in (number, number + 1):
            assert (f"state {number}", f"state {number + 1}") in pairs
    for row, following in pairwise(rows):
        assert row["truncated"] == (following["trajectory"] != row["trajectory"])
        assert row["truncated"] or following["state"] == row["next_state"]


@pytest.mark.parametrize("name", ["..1.txt", "9" * 60 + ".txt", "٣.txt"])
def test_odd_names_are_numbers_too(name, tmp_path):
    folder(tmp_path / "in", **{"0__txt": "a"})
    (tmp_path / "in" / name).write_text("b")
    rows, counts = imported(tmp_path)
    assert [(row["state"], row["next_state"]) for row in rows] == [("a", "b")] and counts["malformed"] == 0


def test_what_a_snapshot_shows_is_not_all_there_is(tmp_path):
    folder(tmp_path / "in", a1__txt="a", a2__txt="b")
    assert imported(tmp_path)[0][0]["partial"]


ATTRIBUTES = [
    "alt", "aria-label", "aria-expanded", "aria-selected", "aria-checked", "backend_node_id",
    "checked", "class", "disabled", "for", "href", "id", "name",
    "placeholder", "role", "selected", "title", "type", "value",
]  # fmt: skip


@pytest.mark.parametrize("attribute", sorted({*ATTRIBUTES, *pages.KEPT}))
def test_what_a_person_or_a_script_acts_by_is_kept_and_nothing_else(attribute):
    assert pages.lines(f'<div {attribute}="x" onclick="y" style="z">') == f'<div {attribute}="x">'
    assert attribute in ATTRIBUTES
