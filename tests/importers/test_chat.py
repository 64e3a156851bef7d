import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swirl.data import check, read, split
from swirl.importers import Options, import_recording

SYSTEM = {"role": "system", "content": "Be kind."}


def call(number, name, **arguments):
    return {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def conversation(user="Find a flight", **more):
    """Two messages with calls; the second has two calls, answered in the other order."""
    return {
        "messages": [
            SYSTEM,
            {"role": "user", "content": user},
            {"role": "assistant", "content": None, "tool_calls": [call(1, "search", to="SEA", day=20)]},
            {"role": "tool", "tool_call_id": "c1", "content": '["HAT136"]'},
            {"role": "assistant", "content": "Booking.", "tool_calls": [call(2, "book"), call(3, "pay", amount=9)]},
            {"role": "tool", "tool_call_id": "c3", "content": "paid"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "booked"}]},
        ],
        **more,
    }


def jsonl(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def imported(tmp_path, *records, **options):
    out = tmp_path / "out.parquet"
    counts = import_recording("chat", [jsonl(tmp_path / "log.jsonl", *records)], out, Options(**options))
    return read(out).to_pylist(), counts


START = "system: Be kind.\nuser: Find a flight"
FIRST = f'{START}\ncall: search {{"day": 20, "to": "SEA"}}\ntool: ["HAT136"]\nassistant: Booking.'


def test_each_call_is_a_transition_from_the_conversation_so_far_to_the_output(tmp_path):
    rows, counts = imported(tmp_path, conversation())
    assert [(row["state"], row["action"], row["next_state"]) for row in rows] == [
        (START, 'search {"day": 20, "to": "SEA"}', 'tool: ["HAT136"]'),
        (FIRST, "book", "tool: booked"),
        (f"{FIRST}\ncall: book\ntool: booked", 'pay {"amount": 9}', "tool: paid"),
    ]
    assert [(row["trajectory"], row["step"], row["truncated"]) for row in rows] == [
        ("log.jsonl#1", 0, False),
        ("log.jsonl#1", 1, False),
        ("log.jsonl#1", 2, True),
    ]
    assert counts == {"transitions": 3, "trajectories": 1, "labels": 3, "malformed": 0}


def test_the_next_state_may_be_the_conversation_without_the_call(tmp_path):
    rows, _ = imported(tmp_path, conversation(), next_state="conversation")
    assert rows[0]["next_state"] == f'{START}\ntool: ["HAT136"]'
    assert rows[1]["next_state"] == f"{FIRST}\ntool: booked"


@pytest.mark.parametrize("options", [{"drop_actions": True}, {"labels": 1}])
@pytest.mark.parametrize("next_state", ["output", "conversation"])
def test_a_hidden_action_is_in_no_state(options, next_state, tmp_path):
    rows, counts = imported(tmp_path, conversation(), next_state=next_state, **options)
    assert len(rows) == 3
    assert counts["labels"] == options.get("labels", 0) == sum(row["action"] is not None for row in rows)
    for row in rows:
        for name in ("search", "SEA", "book\n", "pay ", "amount", "call:"):
            assert name not in row["state"] + row["next_state"], name


def test_tau_bench_gives_layout_and_reward(tmp_path):
    wrapped = conversation()
    record = {"task_id": 7, "reward": 1.0, "info": {}, "traj": wrapped["messages"], "trial": 0}
    path = tmp_path / "tau.json"
    path.write_text(json.dumps([record, record], indent=1))
    import_recording("chat", [str(path)], tmp_path / "out.parquet")
    rows = read(tmp_path / "out.parquet").to_pylist()
    assert [row["trajectory"] for row in rows] == ["tau.json#1"] * 3 + ["tau.json#2"] * 3
    assert {row["layout"] for row in rows} == {"task 7"}
    assert [(row["reward"], row["terminated"], row["truncated"]) for row in rows[1:3]] == [
        (None, False, False),
        (1.0, True, False),
    ]


def test_a_file_may_be_one_conversation_a_message_a_line_or_an_array(tmp_path):
    messages = conversation()["messages"]
    (tmp_path / "array.json").write_text(json.dumps(messages))
    jsonl(tmp_path / "lines.jsonl", *messages)
    jsonl(tmp_path / "list.jsonl", messages)
    import_recording("chat", [str(tmp_path)], tmp_path / "out.parquet")
    rows = read(tmp_path / "out.parquet").to_pylist()
    assert [row["trajectory"] for row in rows[::3]] == ["array.json", "lines.jsonl", "list.jsonl#1"]
    assert [row["state"] for row in rows[:3]] == [row["state"] for row in rows[3:6]] == [r["state"] for r in rows[6:]]


def test_older_function_calls_are_matched_in_order(tmp_path):
    rows, _ = imported(
        tmp_path,
        {
            "messages": [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "function_call": {"name": "f", "arguments": "not JSON"}},
                {"role": "function", "name": "f", "content": "1"},
                {"role": "assistant", "function_call": {"name": "g", "arguments": {"b": 1, "a": 2}}},
                {"role": "function", "name": "g", "content": None},
            ]
        },
    )
    assert [(row["action"], row["next_state"]) for row in rows] == [
        ("f not JSON", "tool: 1"),
        ('g {"a": 2, "b": 1}', "tool: (nothing)"),
    ]


def test_what_gives_no_transition_is_counted(tmp_path):
    unanswered = {"messages": conversation()["messages"][:-1]}  # nobody answered c2
    rows, counts = imported(tmp_path, {"messages": [SYSTEM]}, unanswered)
    assert [row["action"].split()[0] for row in rows] == ["search", "pay"]
    assert rows[1]["state"].endswith("assistant: Booking.\ncall: book")
    assert rows[1]["truncated"] and not rows[0]["truncated"]
    assert counts["conversations without a call"] == counts["calls without an output"] == 1


def said(*names, **keys):
    """An assistant message that calls the named tools; `keys` gives the id of some."""
    calls = [{"function": {"name": name, "arguments": "{}"}} for name in names]
    return {
        "role": "assistant",
        "tool_calls": [
            call | ({"id": keys[name]} if name in keys else {}) for call, name in zip(calls, names, strict=True)
        ],
    }


def output(text, key=None):
    return {"role": "tool", "content": text} | ({} if key is None else {"tool_call_id": key})


USER = {"role": "user", "content": "u"}


@pytest.mark.parametrize(
    ("messages", "pairs", "without"),
    [
        ([said("a", a="1"), USER, said("b", b="1"), output("B", "1")], [("b", "B")], 1),  # an id used again
        ([said("a"), said("b"), output("B")], [("b", "B")], 1),
        ([said("a", "b"), output("A"), USER, output("B")], [("a", "A"), ("b", "B")], 0),
        ([said("a", "b")], [], 2),
        ([said("a", "b"), USER, said("c"), output("C")], [("c", "C")], 2),
        ([said("a", "b", a="1", b="1"), output("A", "1"), output("B", "1")], [("a", "A"), ("b", "B")], 0),
        ([said("a", "b", a="1", b="2"), output("B", "2")], [("b", "B")], 1),
        ([said("a", "b", a=1, b=2), output("B", "2"), output("A", "1")], [("a", "A"), ("b", "B")], 0),
        ([said("a", "b", a="1", b="2"), output("A"), output("B")], [("a", "A"), ("b", "B")], 0),
    ],
)
def test_an_output_belongs_to_a_call_of_the_last_message(messages, pairs, without, tmp_path):
    rows, counts = imported(tmp_path, conversation(), {"messages": [USER, *messages]})
    assert [(row["action"], row["next_state"].removeprefix("tool: ")) for row in rows[3:]] == pairs
    assert counts.get("calls without an output", 0) == without and counts["malformed"] == 0


@pytest.mark.parametrize(
    "messages",
    [
        [said("a", "b"), output("?")],
        [said("a"), output("A"), output("?")],
        [said("a", "b", a="1"), output("?", "1"), output("?"), output("?")],
        [said("a", "b", a="1", b="1"), output("?", "1")],
        [said("a", "b", a="1"), output("?"), output("A", "1")],  # the ids contradict the order
        [said("a", a="1"), said("b", b="2"), output("A", "1")],  # too late
        [said("a", a="1"), output("A", "1"), output("A again", "1")],
    ],
)
def test_an_output_of_nobody_knows_which_call_is_given_to_none(messages, tmp_path, caplog):
    rows, counts = imported(tmp_path, conversation(), {"messages": [USER, *messages]})
    assert len(rows) == 3 and counts["malformed"] == 1
    assert "log.jsonl:2: message " in caplog.text


ROUNDS = st.lists(
    st.tuples(
        st.lists(st.sampled_from("123"), unique=True, max_size=3), st.sets(st.sampled_from("123")), st.booleans()
    ),
    min_size=1,
    max_size=5,
)


@given(rounds=ROUNDS, data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_no_call_gets_the_output_of_another(rounds, data, tmp_path):
    """Ids are used again in each round, and some calls stay without an output."""
    messages, expected, silent = [USER, said("start", start="0"), output("start", "0")], ["start"], 0
    for number, (keys, answered, chat) in enumerate(rounds):
        names = [f"{number}.{key}" for key in keys]
        messages += [said(*names, **dict(zip(names, keys, strict=True)))] + [USER] * chat
        shuffled = data.draw(st.permutations([key for key in keys if key in answered]))
        messages += [output(f"{number}.{key}", key) for key in shuffled]
        expected += [f"{number}.{key}" for key in keys if key in answered]
        silent += sum(key not in answered for key in keys)
    rows, counts = imported(tmp_path, {"messages": messages})
    assert [(row["action"], row["next_state"]) for row in rows] == [(name, f"tool: {name}") for name in expected]
    assert counts.get("calls without an output", 0) == silent and counts["malformed"] == 0


@pytest.mark.parametrize("damage", ['{"role": "user", "content": "IMPOR', "3", '{"content": "no role"}'])
@pytest.mark.parametrize("at", [0, 3, 7])
def test_one_conversation_with_a_damaged_line_is_left_out_as_a_whole(damage, at, tmp_path, caplog):
    messages = [json.dumps(message) for message in conversation()["messages"]]
    messages.insert(at, damage)
    (tmp_path / "bad.jsonl").write_text("\n".join(messages))
    jsonl(tmp_path / "good.jsonl", *conversation()["messages"])
    counts = import_recording("chat", [str(tmp_path)], tmp_path / "out.parquet")
    assert {row["trajectory"] for row in read(tmp_path / "out.parquet").to_pylist()} == {"good.jsonl"}
    assert counts["malformed"] == 2
    assert f"7 messages of a conversation that is damaged at bad.jsonl:{at + 1}" in caplog.text


def test_a_reward_that_is_no_number_costs_its_row_and_is_counted(tmp_path, caplog):
    rows, counts = imported(tmp_path, conversation(reward=float("nan")))
    assert [row["action"].split()[0] for row in rows] == ["search", "book"]
    assert counts["malformed"] == 1 and "log.jsonl:1: reward is not finite" in caplog.text


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (3, "no list of messages"),
        ({"text": "hi"}, "no list of messages"),
        ({"messages": ["hi"]}, "message 1 has no role"),
        ({"messages": [SYSTEM, {"role": "user", "content": 3}]}, "message 2 has no role, or a content"),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "a"}]}, "a call that was not made"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]}, "without a function name"),
        ({"messages": [{"role": "assistant", "tool_calls": "f"}]}, "tool_calls is no list"),
    ],
)
def test_a_malformed_conversation_is_named_and_the_others_are_kept(record, reason, tmp_path, caplog):
    rows, counts = imported(tmp_path, conversation(), record, conversation("again"))
    assert len(rows) == 6 and counts["malformed"] == 1
    assert "log.jsonl:2: " in caplog.text and reason in caplog.text


def test_secrets_are_masked_once_each_and_counted(tmp_path):
    record = conversation("my key is sk-abcdefghijklmnop1234")
    record["messages"][3]["content"] = '{"user": "mia", "api_key": "q1w2e3r4t5"}'
    record["messages"][2]["tool_calls"] = [call(1, "login", password="hunter22")]
    rows, counts = imported(tmp_path, record, redact=True)
    text = json.dumps(rows)
    assert counts["masked"] == 3
    assert not any(secret in text for secret in ("sk-abc", "q1w2", "hunter22"))
    assert rows[0]["action"] == 'login {"password": "[REDACTED]"}'
    assert '"user": "mia"' in rows[0]["next_state"]


SENSIBLE = st.integers(0, 9).map(lambda n: conversation(f"user {n}"))
DAMAGED = st.one_of(
    st.binary(max_size=40).map(lambda raw: b"\xff" + raw.replace(b"\n", b"")),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["messages", "role", "content", "tool_calls", "function", "name", "id", "traj"]), inner
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps({"messages": [value], "x": 1}).encode()),
)


@given(good=st.lists(SENSIBLE, min_size=1, max_size=4), bad=st.lists(DAMAGED, max_size=4), shift=st.integers(0, 4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_no_good_conversation_is_lost_whatever_is_around_it(good, bad, shift, tmp_path):
    lines = [json.dumps(record).encode() for record in good]
    for index, line in enumerate(bad):
        lines.insert((index * 2 + shift) % (len(lines) + 1), line)
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    counts = import_recording("chat", [str(path)], tmp_path / "out.parquet")
    states = [row["state"] for row in read(tmp_path / "out.parquet").to_pylist() if row["step"] == 0]
    for record in good:
        state = f"system: Be kind.\nuser: {record['messages'][1]['content']}"
        assert state in states
        states.remove(state)
    assert counts["malformed"] + counts.get("conversations without a call", 0) <= len(bad)
    assert counts["malformed"] >= sum(line.startswith(b"\xff") for line in bad)
    assert check(tmp_path / "out.parquet").problems == ()


def test_conversations_that_begin_with_one_system_prompt_can_be_split(tmp_path):
    logs = [{"messages": [SYSTEM, *conversation()["messages"][2:]]} for _ in range(12)]
    for number, log in enumerate(logs):
        log["messages"][2] = {"role": "tool", "tool_call_id": "c1", "content": f"flight {number}"}
    rows, _ = imported(tmp_path, *logs)
    assert {row["partial"] for row in rows} == {True} and len({row["state"] for row in rows if not row["step"]}) == 1
    budget = {"labels": None, "validation_labels": 0, "validation": 0.1, "test": 0.1}
    counts = split(read(tmp_path / "out.parquet"), tmp_path / "data", **budget, seed=0, data_seed=0)
    assert (counts["labelled"], counts["validation"], counts["test"]) == (30, 3, 3)
    assert check(tmp_path / "data").problems == ()
