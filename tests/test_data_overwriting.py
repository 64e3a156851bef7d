import json
import os

import pyarrow.parquet as pq

from swirl import cli, data
from swirl.data.overwriting import BY


def collect(out, *more):
    return cli.main(["collect", "sokoban", "--transitions", "6", "--out", str(out), *more])


def rows(path, changed=True, action=None):
    """A JSONL recording of three transitions."""
    lines = [{"state": f"n {i}", "next_state": f"n {i + changed}", "action": action} for i in range(3)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def refused(capsys, words, path, reason):
    """A command exits with 2 and one line, and leaves the file as it was."""
    before = path.read_bytes()
    assert cli.main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert reason in said
    assert path.read_bytes() == before
    assert sorted(path.parent.glob(".*")) == []


def test_what_a_command_reads_it_does_not_write_over(tmp_path, capsys):
    source = rows(tmp_path / "t.jsonl")
    recording, link = tmp_path / "s.parquet", tmp_path / "link.parquet"
    data.export(data.read(source), recording)
    os.symlink(recording, link)
    for words, path in (
        (["label", source, "--pick", 2, "--out", source], source),
        (["label", recording, "--inverse", "none", "--out", recording], recording),
        (["label", recording, "--labels", source, "--out", link], recording),
        (["label", source, "--labels", recording, "--out", recording], recording),
        (["import", "table", recording, "--out", recording], recording),
    ):
        refused(capsys, words, path, "is read by this command")


def test_an_image_that_is_imagined_from_is_not_drawn_over(tmp_path, capsys):
    image = tmp_path / "first.png"
    image.write_bytes(b"pixels")
    words = ["imagine", "none", "--state", f"@{image}", "--action", "left", "--out", image]
    refused(capsys, words, image, "is read by this command")


def test_a_file_of_another_command_or_nobodys_is_kept(tmp_path, capsys):
    source, out = rows(tmp_path / "t.jsonl"), tmp_path / "m.parquet"
    assert collect(out) == 0
    refused(capsys, ["import", "table", source, "--out", out], out, "made by `swirl collect`; delete it")
    out.unlink()
    assert cli.main(["import", "table", str(source), "--out", str(out)]) == 0
    refused(capsys, ["import", "chat", source, "--out", out], out, "made by `swirl import table`")
    refused(capsys, ["collect", "sokoban", "--out", out], out, "made by `swirl import table`")
    data.export(data.read(source), out)
    refused(capsys, ["label", source, "--pick", 2, "--out", out], out, "made by something else")
    out.write_text("no Parquet")
    refused(capsys, ["collect", "sokoban", "--out", out], out, "made by something else")


def test_a_file_that_a_person_fills_in_is_kept(tmp_path, capsys):
    source, todo = rows(tmp_path / "t.jsonl"), tmp_path / "todo.csv"
    words = ["label", source, "--pick", 2, "--out", todo]
    assert cli.main([str(word) for word in words]) == 0
    refused(capsys, words, todo, "there is such a file already; delete it")


def test_the_same_command_replaces_its_own_file(tmp_path):
    source = rows(tmp_path / "t.jsonl")
    for words in (["import", "table", source], ["label", source, "--pick", 2], ["label", source, "--labels", source]):
        out = tmp_path / "out.parquet"
        words = [str(word) for word in (*words, "--out", out)]
        assert cli.main(words) == cli.main(words) == 0
        out.unlink()


def test_a_recording_is_replaced_by_one_of_its_origin_alone(tmp_path, capsys):
    out = tmp_path / "m.parquet"
    assert collect(out) == 0
    assert collect(out, "--transitions", "9") == 0
    assert data.read(out).num_rows == 9
    for more in (["--seed", "1"], ["--option", "boxes=1"]):
        refused(capsys, ["collect", "sokoban", "--out", out, *more], out, "of another world, other options")


def test_an_import_with_a_label_budget_keeps_its_note(tmp_path):
    source, out = rows(tmp_path / "t.jsonl", action="go"), tmp_path / "m.parquet"
    assert cli.main(["import", "table", str(source), "--labels", "1", "--out", str(out)]) == 0
    assert pq.read_schema(out).metadata[BY] == b"import table"
