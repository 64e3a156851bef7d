import io
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from swirl import progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def loud(monkeypatch):
    monkeypatch.setenv(progress.QUIET_VARIABLE, "0")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    progress._stderr_console.cache_clear()  # a console reads the environment once
    return Terminal()


def plain(stream):
    """What a terminal was sent, less its control codes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def run(clock, seconds_per_step, steps, **arguments):
    with progress.bar("label", total=steps, clock=clock, **arguments) as task:
        for i in range(arguments.get("completed", 0), steps):
            clock.now += seconds_per_step
            task.advance(reward=-0.1 * (i + 1))


def test_short_tasks_leave_no_trace_in_a_log(capsys):
    run(Clock(), 0.1, 19)
    assert capsys.readouterr() == ("", "")


def test_log_gets_a_line_every_ten_seconds_and_one_at_the_end(capsys):
    run(Clock(), 4.0, 8)
    out, err = capsys.readouterr()
    assert out == ""
    # 4 s a step: the first line that is due comes at 12 s with 5 steps left, the next at 24 s.
    assert err.splitlines() == [
        "label: 3/8, 0:00:20 left, reward -0.3",
        "label: 6/8, 0:00:08 left, reward -0.6",
        "label: 8/8, done in 0:00:32, reward -0.8",
    ]


def test_a_task_of_three_seconds_gets_its_last_line_only(capsys):
    run(Clock(), 1.0, 3)
    assert capsys.readouterr().err == "label: 3/3, done in 0:00:03, reward -0.3\n"


def test_work_of_an_earlier_run_does_not_count_for_the_time_left(capsys):
    run(Clock(), 10.0, 8, completed=6)
    # one step in 10 s, one to go
    assert capsys.readouterr().err.splitlines()[0] == "label: 7/8, 0:00:10 left, reward -0.7"


def test_unknown_total_and_absolute_updates(capsys):
    clock = Clock()
    with progress.bar("collect", clock=clock) as task:
        clock.now += 3700
        task.update(500, trajectory="t3")
        task.update(loss=0.5)
    assert capsys.readouterr().err.splitlines() == [
        "collect: 500, trajectory t3",
        "collect: 500, done in 1:01:40, trajectory t3, loss 0.5",
    ]


def test_an_exception_passes_and_its_line_says_stopped(capsys):
    clock = Clock()
    with pytest.raises(KeyError), progress.bar("label", total=5, clock=clock) as task:
        task.advance(2)
        clock.now += 5
        raise KeyError
    assert capsys.readouterr().err == "label: 2/5, stopped after 0:00:05\n"


def test_quiet_silences_bars_but_counts_on(capsys):
    progress.set_quiet(True)
    assert progress.is_quiet()
    clock = Clock()
    with progress.bar("label", total=5, clock=clock) as task:
        clock.now += 60
        task.advance(2)
    assert task.completed == 2
    assert capsys.readouterr() == ("", "")
    progress.set_quiet(False)
    run(Clock(), 5.0, 1)
    assert "done in" in capsys.readouterr().err


def test_terminal_shows_bar_count_and_field(terminal, capsys):
    with redirect_stderr(terminal):
        run(Clock(), 1.0, 3)
    last = plain(terminal).splitlines()[-1]
    assert re.search(r"label ━+ 3/3 0:00:03 left 0:00:00 reward -0.3", last)
    assert capsys.readouterr() == ("", "")


def test_short_tasks_leave_no_trace_on_a_terminal(terminal):
    with redirect_stderr(terminal):
        run(Clock(), 0.1, 5)
    assert plain(terminal).strip("\r") == ""


def test_nested_bars_share_a_terminal(terminal):
    clock = Clock()
    with redirect_stderr(terminal), progress.bar("rounds", total=1, clock=clock) as outer:
        with progress.bar("steps", total=1, clock=clock) as inner:
            clock.now += 5
            inner.advance()
        outer.advance()
    assert re.search("steps ━+ 1/1", plain(terminal))
    assert re.search("rounds ━+ 1/1", plain(terminal))


def test_results_printed_under_a_bar_stay_on_stdout(terminal, capsys):
    with redirect_stderr(terminal), progress.bar("label", total=1, clock=Clock()):
        print("result")
    assert capsys.readouterr().out == "result\n"
    assert "result" not in terminal.getvalue()


def test_brackets_are_not_markup(terminal, capsys):
    clock = Clock()
    with redirect_stderr(terminal), progress.bar("[red]x", total=1, clock=clock) as task:
        clock.now += 3
        task.advance(state="[bold]")
    assert "[red]x" in plain(terminal) and "state [bold]" in plain(terminal)
    progress.table("[dim]t", ["[red]"], [["[bold]"]])
    out = capsys.readouterr().out
    assert "[dim]t" in out and "[red]" in out and "[bold]" in out


def test_table_cuts_nothing_in_a_pipe(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    long = " ".join(["word"] * 100)
    progress.table("Results of a run", ["phase", "value", "note"], [["warm-up", 0.123456, long], ["b", None, "x"]])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "Results of a run"
    assert any(line.split()[:2] == ["warm-up", "0.1235"] and line.endswith(long) for line in lines)
    assert ["b", "x"] in [line.split() for line in lines]


def test_table_folds_on_a_terminal(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    with redirect_stdout(terminal):
        progress.table("t", ["text"], [["abcdefghij" * 5]])
    lines = plain(terminal).splitlines()
    assert "".join("".join(lines).split()).count("abcdefghij") == 5
    assert max(len(line) for line in lines) <= 20


def test_numbers_are_flushed_right(capsys):
    progress.table("t", ["name", "count"], [["a", 1], ["bcd", 1000]])
    ends = {len(line.rstrip()) for line in capsys.readouterr().out.splitlines() if line.endswith(("1 ", "1", "1000"))}
    assert len(ends) == 1


def test_table_refuses_ragged_rows():
    with pytest.raises(ValueError, match="2 cells"):
        progress.table("t", ["a"], [["x", "y"]])


def test_importing_does_not_import_rich():
    code = "import sys, swirl.progress; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
