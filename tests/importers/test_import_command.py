import json
from pathlib import Path

import pytest

from swirl import cli
from swirl.data import read

RECIPE = """
methods = ["warmup"]
threads = 1
device = "cpu"
[data]
validation = 0.2
test = 0.2
[model]
hidden = 32
layers = 1
heads = 2
vocabulary = 300
max_length = 400
[warmup]
steps = 2
batch = 4
[evaluation]
checkpoints = 1
"""


def log(path, count):
    """Conversations with two calls each, none like another."""
    with Path(path).open("w") as file:
        for number in range(count):
            messages: list = [{"role": "user", "content": f"order {number}"}]
            for step, name in enumerate(("find", "pay")):
                call = {"id": f"c{step}", "function": {"name": name, "arguments": f'{{"n": {number}}}'}}
                messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
                messages.append({"role": "tool", "tool_call_id": f"c{step}", "content": f"{name} {number} done"})
            file.write(json.dumps({"messages": messages}) + "\n")


def test_the_options_reach_the_import(tmp_path, capsys):
    source, out = tmp_path / "log.jsonl", tmp_path / "o.parquet"
    log(source, 4)
    words = ["import", "chat", source, "--out", out, "--labels", "50%", "--seed", "3", "--max-state", "12"]
    words += ["--too-long", "truncate-tail", "--next-state", "conversation"]
    assert cli.main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    assert said == f"{out}: 8 transitions, 4 trajectories, 4 labels, 0 malformed, 8 cut, 8 cut with the change\n"
    assert {len(row["next_state"]) for row in read(out).to_pylist()} == {12}
    for extra, message in (
        (["--labels", "none"], "expected a number of labels above 0"),
        (["--column", "state"], "expected OURS=THEIRS"),
        (["--reduct"], "did you mean --redact?"),
    ):
        assert cli.main([*map(str, words[:5]), *extra]) == 2
        assert message in capsys.readouterr().err


def test_secrets_are_masked_in_chats_unless_the_user_says_otherwise(tmp_path):
    secret = "sk-abcdefghijklmnop1234"
    log(tmp_path / "log.jsonl", 1)
    text = (tmp_path / "log.jsonl").read_text().replace("order 0", secret)
    (tmp_path / "log.jsonl").write_text(text)
    for form, flags, masked in (
        ("chat", [], True),
        ("chat", ["--no-redact"], False),
        ("table", [], False),
        ("table", ["--redact"], True),
    ):
        if form == "table":
            (tmp_path / "log.jsonl").write_text(json.dumps({"state": secret, "next_state": "b"}))
        out = tmp_path / f"{form}.parquet"
        assert cli.main(["import", form, str(tmp_path / "log.jsonl"), "--out", str(out), *flags]) == 0
        assert (secret in read(out)["state"][0].as_py()) != masked


@pytest.mark.slow
def test_an_imported_chat_log_is_checked_and_trained_on(tmp_path):
    log(tmp_path / "log.jsonl", 12)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    out, run = tmp_path / "o.parquet", tmp_path / "run"
    assert cli.main(["import", "chat", str(tmp_path / "log.jsonl"), "--out", str(out)]) == 0
    assert cli.main(["check", str(out)]) == 0
    assert cli.main(["train", str(tmp_path / "recipe.toml"), "--data", str(out), "--out", str(run)]) == 0
    assert cli.main(["check", str(run / "data")]) == 0
    results = json.loads((run / "results.json").read_text())
    assert {row["role"] for row in results["rows"]} >= {"forward", "inverse"}
