import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swirl.data import Lengths, check, export, read, split
from swirl.data.checking import Overlap
from swirl.errors import InputError


def rows(*rows):
    """(trajectory, step, state, action, next_state) and, if given, split."""
    names = ("trajectory", "step", "state", "action", "next_state", "split")
    return [dict(zip(names, row, strict=False)) for row in rows]


def recording(path, *values):
    pq.write_table(pa.Table.from_pylist(rows(*values)), path)
    return path


SMALL = (
    ("t", 0, "aa", "go", "bbb"),
    ("t", 1, "bbb", "stay", "bbb"),
    ("t", 2, "bbb", "stay", "bbb"),  # a duplicate of the step before
    ("t", 3, "aa", "go", "c"),  # broken: step 2 led to bbb; conflict: aa + go led to bbb
    ("t", 5, "aa", None, "c"),  # not the step after 3: nothing to compare
    ("u", 6, "dddd" * 5, None, "c"),  # another trajectory than 5, which led to c
)


def test_the_counts_of_a_small_recording(tmp_path):
    report = check(recording(tmp_path / "a.parquet", *SMALL))
    assert (report.rows, report.trajectories, report.layouts, report.states) == (6, 2, 2, 4)
    assert report.unchanged == pytest.approx(2 / 6)
    assert report.labelled == pytest.approx(4 / 6)
    assert report.distinct_actions == 2
    assert report.actions == (("go", 2), ("stay", 2))
    assert (report.duplicates, report.conflicts, report.broken) == (1, 2, 1)
    # states have 2 2 2 3 3 20 characters, actions 2 2 4 4
    # as change: whole bbb, =, =, whole c, whole c, whole c, with the mark before them: 5 1 1 3 3 3
    assert report.characters == {
        "state": Lengths(2, 20, 20),
        "action": Lengths(2, 4, 4),
        "change": Lengths(3, 5, 5),
    }
    assert (report.tokens, report.context, report.too_long, report.parts, report.overlaps) == ({}, None, 0, {}, {})
    assert report.problems == ()
    assert report.notes[0].startswith("`swirl train` would refuse this: 1 layouts with actions, expected at least 3")


def test_a_recording_whose_default_split_leaks_is_a_problem_and_one_too_small_to_split_is_noted(tmp_path):
    path = tmp_path / "a.parquet"
    good = check(recording(path, *world(lambda t: f"place {t}")))
    assert (good.problems, good.notes) == ((), ())
    small = check(recording(path, *world(lambda t: f"place {t % 2}")))
    assert small.problems == ()
    [note] = small.notes
    assert note.startswith("`swirl train` would refuse this: 2 layouts with actions, expected at least 3")
    # every trajectory starts elsewhere and goes through the same corridor: whichever is the test, its 4 states leak
    corridor = [
        (t, s, f"start {t}" if s == 0 else state, a, after) for t, s, state, a, after in world(lambda t: "hall")
    ]
    [problem] = check(recording(path, *corridor)).problems
    assert problem.startswith("`swirl train` would refuse this by its default split: 4 of 5 test states (80.0%) occur")
    unlabelled = [(t, s, state, None, after) for t, s, state, _, after in corridor]
    assert check(recording(path, *unlabelled)).problems == ()  # nothing is tested


def test_a_split_that_is_given_on_some_rows_is_a_problem(tmp_path):
    report = check(recording(tmp_path / "a.parquet", *SPLIT, ("z", 0, "f", "go", "g", None)))
    assert report.parts == {"train": 2, "validation": 1, "test": 2, "none": 1}
    [problem] = report.problems
    assert problem.startswith("`swirl train` would refuse this: split is given on 5 of 6 rows; give it on every row")


def test_long_actions_are_cut_where_they_are_printed(tmp_path):
    report = check(recording(tmp_path / "a.parquet", ("t", 0, "a", "x" * 400, "b")))
    assert report.actions == (("x" * 400, 1),)
    assert f"          1  '{'x' * 98}…" in report.lines()


def test_rows_that_exceed_the_context_are_counted_and_named(tmp_path):
    path = recording(tmp_path / "a.parquet", *SMALL)
    calls = []
    report = check(path, tokenizer=lambda text: calls.append(text) or len(text), context=8)
    # state + action + next_state: 7, 10, 10, 5, 3, 21
    assert (report.too_long, report.too_long_rows) == (3, ("a.parquet:2", "a.parquet:3", "a.parquet:6"))
    assert report.tokens == report.characters
    assert len(calls) == len(set(calls)) == 9  # three changes among them
    assert check(path, tokenizer=len, context=7).too_long == check(path, tokenizer=len, context=9).too_long == 3
    assert check(path, tokenizer=len, context=10).too_long == 1
    many = recording(tmp_path / "b.parquet", *[(str(row), 0, "aa", "go", "b") for row in range(9)])
    report = check(many, tokenizer=len, context=1)
    assert (report.too_long, len(report.too_long_rows)) == (9, 5)


def test_the_twenty_most_frequent_actions_are_listed(tmp_path):
    values = [(f"{n}-{row}", 0, "a", f"do {99 - n}", "b") for n in range(30) for row in range(31 - n)]
    report = check(recording(tmp_path / "a.parquet", *values))
    assert report.distinct_actions == 30
    assert report.actions == tuple((f"do {99 - n}", 31 - n) for n in range(20))


SPLIT = (
    ("t", 0, "a", "go", "b", "train"),
    ("t", 1, "b", "go", "c", "train"),
    ("v", 0, "a", "go", "b", "validation"),
    ("x", 0, "d", "go", "e", "test"),
    ("x", 1, "e", "go", "a", "test"),
)


def test_a_split_without_a_shared_state_has_no_problem(tmp_path):
    report = check(recording(tmp_path / "a.parquet", *SPLIT))
    assert report.parts == {"train": 2, "validation": 1, "test": 2}
    # the test ends in a training state, but never starts from one
    assert report.overlaps == {"test": Overlap(2, 0, 2, 0), "validation": Overlap(1, 1, 1, 1)}
    assert report.problems == ()


def test_a_test_state_in_training_is_a_problem(tmp_path):
    for name, shared, row in (
        ("state", 1, ("y", 0, "b", "go", "f", "test")),
        ("next_state", 1, ("y", 0, "c", "go", "f", "test")),
        ("both", 1, ("y", 0, "b", "jump", "c", "test")),
    ):
        report = check(recording(tmp_path / f"{name}.parquet", *SPLIT, row))
        assert report.overlaps["test"] == Overlap(3, shared, 3, int(name == "both"))
        assert report.problems == (
            "1 of 3 test states (33.3%) occur in training; "
            "split by a layout column that keeps them apart, or take them out of one part",
        )
        assert report.lines()[-1] == f"PROBLEM           {report.problems[0]}"


def world(start, trajectories=12):
    return [
        (f"t{t}", step, f"{start(t)} {step}", f"action {step}", f"{start(t)} {step + 1}")
        for t in range(trajectories)
        for step in range(5)
    ]


def parted(folder, values, labels=10):
    source = recording(folder.parent / "source.parquet", *values)
    budget = {"labels": labels, "validation_labels": 3, "validation": 0.2, "test": 0.2}
    split(read(source), folder, **budget, seed=0, data_seed=0)
    return folder


def test_the_folder_of_a_split_is_checked_across_its_files(tmp_path):
    report = check(parted(tmp_path / "data", world(lambda t: f"place {t}")), tokenizer=len, context=1)
    assert report.parts == {"labelled": 7, "state_only": 33, "validation": 3, "test": 10}
    assert report.rows == report.too_long == 53
    assert report.too_long_rows[0] == "labelled.parquet:1"
    assert report.labelled == pytest.approx(20 / 53)
    assert report.broken == 0  # labelled and state-only steps are one trajectory
    assert report.overlaps["test"] == Overlap(10, 0, 10, 0)
    assert report.overlaps["validation"] == Overlap(3, 0, 3, 0)
    assert report.problems == ()
    assert check(tmp_path) == check(tmp_path / "data")  # as a run folder has it


def test_a_folder_whose_layouts_share_states_is_refused(tmp_path):
    # every trajectory starts elsewhere and goes through the same corridor
    values = [(t, s, f"start {t}" if s == 0 else state, a, after) for t, s, state, a, after in world(lambda t: "hall")]
    report = check(parted(tmp_path / "data", values))
    assert report.overlaps["test"] == Overlap(6, 4, 10, 8)
    assert report.problems[0].startswith("4 of 6 test states (66.7%) occur in training")


def test_in_a_partially_observed_world_shared_states_are_reported_and_shared_transitions_left_out(tmp_path):
    shared = ("y", 0, "a", "go", "b", "test")  # a training transition
    values = [dict(row, partial=True) for row in rows(*SPLIT, shared, ("z", 0, "a", "go", "z", "test"))]
    source = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(values), source)
    report = check(source)
    assert report.overlaps["test"] == Overlap(3, 1, 4, 1)
    [note] = report.notes
    assert note.startswith("`swirl train` would refuse this: all 1 validation transitions occur in training")
    assert "partial           yes: shared states are no leak here, shared transitions are" in report.lines()
    values[2] |= {"next_state": "another"}  # something of validation has to be left
    pq.write_table(pa.Table.from_pylist(values), source)
    assert (check(source).partial, check(source).problems) == (True, ())
    budget = {"labels": None, "validation_labels": 0, "validation": 0.2, "test": 0.2}
    counts = split(read(source), tmp_path / "data", **budget, seed=0, data_seed=0)
    assert (counts["test"], counts["test_shared"]) == (3, 1)
    report = check(tmp_path / "data")
    assert report.overlaps["test"] == Overlap(3, 1, 3, 0)
    assert (report.partial, report.problems) == (True, ())
    assert not check(recording(tmp_path / "b.parquet", *SPLIT)).partial


@pytest.mark.parametrize("part", ("test", "validation"))
def test_a_shared_transition_that_is_left_in_the_folder_is_a_problem(tmp_path, part):
    folder = parted(tmp_path / "data", world(lambda t: f"place {t}"))
    for name in ("labelled", "state_only", "validation", "test"):
        table = pq.read_table(folder / f"{name}.parquet")
        flags = pa.array([True] * table.num_rows, pa.bool_())
        export(table.set_column(table.column_names.index("partial"), "partial", flags), folder / f"{name}.parquet")
    assert check(folder).problems == ()
    table = pq.read_table(folder / f"{part}.parquet")
    train = pq.read_table(folder / "labelled.parquet")
    leak = pa.concat_tables([table, train.slice(0, 1)])
    export(leak, folder / f"{part}.parquet")
    [problem] = check(folder).problems
    assert problem == f"1 of {leak.num_rows} {part} transitions occur in training; split the recording again"


def test_a_fully_labelled_folder_has_an_empty_file_and_is_fine(tmp_path):
    report = check(parted(tmp_path / "data", world(lambda t: f"place {t}"), labels=None))
    assert (report.parts.get("state_only", 0), report.labelled, report.problems) == (0, 1.0, ())


def test_actions_in_the_state_only_file_are_a_problem(tmp_path):
    folder = parted(tmp_path / "data", world(lambda t: f"place {t}"))
    path = folder / "state_only.parquet"
    table = pq.read_table(path)
    export(table.append_column("action", pa.repeat("go", table.num_rows)), path)
    assert check(folder).problems == (
        "state_only.parquet has a column 'action', which a run may not know; split the recording again",
    )


def test_what_cannot_be_checked(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        check(tmp_path / "a.parquet")
    folder = parted(tmp_path / "data", world(lambda t: f"place {t}"))
    (folder / "test.parquet").unlink()
    (folder / "labelled.parquet").unlink()
    with pytest.raises(InputError, match=r"no labelled\.parquet, test\.parquet; expected a recording, or the folder"):
        check(folder)


def test_unlabelled_recordings_have_no_lengths_of_actions(tmp_path):
    report = check(recording(tmp_path / "a.parquet", ("t", 0, "a", None, "b")), tokenizer=len, context=5)
    assert (report.labelled, report.conflicts, report.actions) == (0.0, 0, ())
    assert list(report.characters) == list(report.tokens) == ["state", "change"]


def test_one_of_a_thing_is_singular_and_lists_say_what_they_leave_out(tmp_path):
    rows = [("t", i, f"s{i}", f"act {i}", f"s{i + 1}") for i in range(23)]
    lines = check(recording(tmp_path / "a.parquet", *rows), tokenizer=len, context=3).lines()
    assert lines[0] == "transitions       23 in 1 trajectory"
    assert "             … and 3 more" in lines
    [too_long] = [line for line in lines if line.startswith("too long")]
    assert too_long.endswith("a.parquet:5 and 18 more")


def test_the_report_prints_what_it_found(tmp_path):
    *lines, note = check(recording(tmp_path / "a.parquet", *SMALL), tokenizer=len, context=8).lines()
    assert note.startswith("note              `swirl train` would refuse this: 1 layouts with actions")
    assert lines == [
        "transitions       6 in 2 trajectories",
        "layouts           2",
        "distinct states   4",
        "unchanged         33.3% of the transitions",
        "labelled          66.7% of the transitions",
        "duplicates        1",
        "conflicts         2 (same state and action, another next state)",
        "broken steps      1 (next state is not the state of the step after)",
        "state characters  median 2, 95 % 20, longest 20",
        "action characters median 2, 95 % 4, longest 4",
        "change characters median 3, 95 % 5, longest 5",
        "state tokens      median 2, 95 % 20, longest 20",
        "action tokens     median 2, 95 % 4, longest 4",
        "change tokens     median 3, 95 % 5, longest 5",
        "too long          3 rows over 8 tokens: a.parquet:2, a.parquet:3, a.parquet:6",
        "actions           2",
        "          2  'go'",
        "          2  'stay'",
    ]
    lines = check(recording(tmp_path / "b.parquet", *SPLIT)).lines()
    assert lines[11:16] == [
        "part              train: 2",
        "part              validation: 1",
        "part              test: 2",
        "in training       0 of 2 test states, 0 of 2 test transitions",
        "in training       1 of 1 validation states, 1 of 1 validation transitions",
    ]
