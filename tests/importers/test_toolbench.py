import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swirl.data import read
from swirl.errors import InputError
from swirl.importers import Options, import_recording


def node(kind, text, *children, **more):
    return {"node_type": kind, "description": text, "children": list(children), **more}


def call(name, arguments, output, *children):
    return node("Action", name, node("Action Input", arguments, *children, observation=output))


FINISH = call("Finish", '{"return_type": "give_answer"}', "done")
TREE = node(
    "Action Input",
    "",
    call(
        "search",
        '{"b": 1,\n "a": 2}',
        "two found",
        node("Thought", "The first.", call("open", "{}", "page 1", FINISH)),
        call("open", '{"n": 2}', "page 2"),
    ),
)
ANSWER = {"answer_generation": {"query": "\nWho?\n", "function": []}, "forward_args": {}}


def imported(tmp_path, name="588_DFS.json", **answer):
    (tmp_path / name).write_text(json.dumps(ANSWER | answer))
    counts = import_recording("toolbench", [str(tmp_path / name)], tmp_path / "out.parquet")
    return read(tmp_path / "out.parquet").to_pylist(), counts


def test_a_tree_gives_each_call_once_and_a_trajectory_for_each_branch(tmp_path):
    rows, counts = imported(tmp_path, tree={"tree": TREE})
    found = 'user: Who?\ncall: search {"a": 2, "b": 1}\ntool: two found'
    assert [(row["trajectory"], row["step"], row["state"], row["action"], row["next_state"]) for row in rows] == [
        ("588_DFS/0", 0, "user: Who?", 'search {"a": 2, "b": 1}', "tool: two found"),
        ("588_DFS/0", 1, f"{found}\nassistant: The first.", "open", "tool: page 1"),
        (
            "588_DFS/0",
            2,
            f"{found}\nassistant: The first.\ncall: open\ntool: page 1",
            'Finish {"return_type": "give_answer"}',
            "tool: done",
        ),
        ("588_DFS/1", 1, found, 'open {"n": 2}', "tool: page 2"),
    ]
    assert [(row["terminated"], row["truncated"]) for row in rows] == [(False, False)] * 2 + [
        (True, False),
        (False, True),
    ]
    assert {row["layout"] for row in rows} == {"user: Who?"}
    assert counts == {"transitions": 4, "trajectories": 2, "labels": 4, "malformed": 0}


def test_a_chain_is_a_trajectory(tmp_path):
    chain = [
        node("Thought", ""),
        node("Action", "search"),
        node("Action Input", "oops", observation=""),
        node("Action", "open"),
        node("Action Input", "{}"),
    ]
    rows, counts = imported(tmp_path, "1.json", trys=[{"chain": chain}, {"chain": chain[:3]}])
    assert [(row["trajectory"], row["action"], row["next_state"], row["truncated"]) for row in rows] == [
        ("1/0", "search oops", "tool: (nothing)", True),
        ("1/1", "search oops", "tool: (nothing)", True),
    ]
    assert counts["calls without an output"] == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({}, "neither trys nor tree"),
        ({"trys": [{}], "answer_generation": {}}, "no query under answer_generation"),
        ({"trys": [{}]}, "an item of trys has no chain"),
        ({"trys": [{"chain": [{"node_type": "Action"}]}]}, "a node has no description"),
        ({"trys": [{"chain": [node("Action Input", "{}", observation="")]}]}, "without an Action before it"),
        ({"tree": {"tree": {"node_type": "Thought"}}}, "has no list of children"),
    ],
)
def test_a_malformed_answer_is_named_and_the_others_are_kept(answer, reason, tmp_path, caplog):
    rows, counts = imported(tmp_path, tree={"tree": TREE})
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "1.json").write_text(json.dumps(ANSWER | answer))
    (folder / "2.json").write_text(json.dumps(ANSWER | {"tree": {"tree": TREE}}))
    counts = import_recording("toolbench", [str(folder)], tmp_path / "all.parquet")
    assert counts["transitions"] == len(rows) == 4 and counts["malformed"] == 1
    assert "1.json:1: " in caplog.text and reason in caplog.text


@given(raw=st.binary(max_size=60), at=st.integers(0, 400), size=st.integers(0, 60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_damaged_answer_costs_itself_alone(raw, at, size, tmp_path):
    whole = json.dumps(ANSWER | {"tree": {"tree": TREE}}).encode()
    (tmp_path / "1.json").write_bytes(whole[:at] + raw + whole[at + size :])
    (tmp_path / "2.json").write_bytes(whole)
    import_recording("toolbench", [str(tmp_path)], tmp_path / "out" / "all.parquet")
    rows = read(tmp_path / "out" / "all.parquet").to_pylist()
    assert sum(row["trajectory"].startswith("2/") for row in rows) == 4


def test_nothing_but_damage_is_an_error_and_leaves_no_file(tmp_path):
    (tmp_path / "1.json").write_text("[1, 2]")
    with pytest.raises(InputError, match=r"\(2 malformed; the first is 1.json:1: no query .*\); is the format right"):
        import_recording("toolbench", [str(tmp_path)], tmp_path / "o.parquet", Options())
    assert [path.name for path in tmp_path.iterdir()] == ["1.json"]
