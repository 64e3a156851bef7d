from itertools import pairwise

import pyarrow.parquet as pq
import pytest

from swirl.data import collect, read
from swirl.data.collecting import turns_of
from swirl.errors import InputError, SkippedError
from swirl.types import COLUMNS


class Line:
    """A walk on a line of 8 places from a drawn one; the world ends at place 7."""

    behaviours = ("random", "right")
    complete = True

    def reset(self, seed):
        self.place = seed % 7
        return f"at {self.place}", {"layout": f"start {self.place}"}

    def act(self, behaviour, rng):
        return "right" if behaviour == "right" else ("left", "right")[rng.integers(2)]

    def step(self, action):
        self.place = max(0, self.place + (1 if action == "right" else -1))
        done = self.place == 7
        return [{"type": "text", "text": f"at {self.place}"}], float(done), done, False, {}

    def close(self):
        pass


MIX = {"random": 3, "right": 1}


def record(path, transitions=200, seed=0, max_steps=5, **options):
    return collect(
        options.pop("make", Line), path, transitions, options.pop("behaviours", MIX), max_steps, seed, **options
    )


def test_a_recording_has_exactly_the_transitions_asked_for_and_the_columns_of_the_contract(tmp_path):
    counts = record(tmp_path / "a.parquet", 203)
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(rows) == counts["transitions"] == 203
    assert tuple(rows[0]) == (*COLUMNS, "layout", "partial", "behaviour")
    assert {row["split"] for row in rows} == {None}
    assert counts["trajectories"] == len({row["trajectory"] for row in rows})
    assert counts["layouts"] == len({row["layout"] for row in rows}) == 7
    assert read(tmp_path / "a.parquet").num_rows == 203


@pytest.mark.parametrize("complete", (True, False))
def test_rows_of_a_world_that_is_not_complete_are_marked(tmp_path, complete):
    world = Line()
    world.complete = complete
    collect(lambda: world, tmp_path / "a.parquet", 20, MIX, 5, 0)
    assert set(read(tmp_path / "a.parquet")["partial"].to_pylist()) == {not complete}


def test_trajectories_are_whole_numbered_and_end_terminated_or_truncated(tmp_path):
    record(tmp_path / "a.parquet", 203)
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    names = list(dict.fromkeys(row["trajectory"] for row in rows))
    assert names == [f"t{index:06d}" for index in range(len(names))]
    for name in names:
        steps = [row for row in rows if row["trajectory"] == name]
        assert [row["step"] for row in steps] == list(range(len(steps)))
        assert len(steps) <= 5
        assert [row["terminated"] or row["truncated"] for row in steps] == [False] * (len(steps) - 1) + [True]
        assert steps[-1]["terminated"] == (steps[-1]["next_state"] == "at 7")
        assert steps[-1]["truncated"] != steps[-1]["terminated"]
        assert all(a["next_state"] == b["state"] for a, b in pairwise(steps))
        assert {row["layout"] for row in steps} == {f"start {steps[0]['state'][3:]}"}


def test_the_last_trajectory_is_truncated_at_the_cut(tmp_path):
    record(tmp_path / "a.parquet", 2, max_steps=100, behaviours={"random": 1})
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [(row["step"], row["truncated"]) for row in rows] == [(0, False), (1, True)]


def test_the_same_arguments_give_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        record(tmp_path / f"{name}.parquet", seed=seed)
    first, again, other = [(tmp_path / f"{name}.parquet").read_bytes() for name in "abc"]
    assert first == again
    assert first != other


def test_behaviours_take_turns_by_their_shares(tmp_path):
    turns = turns_of({"a": 0.5, "b": 0.25, "c": 0.25})
    assert [next(turns) for _ in range(8)] == ["a", "b", "c", "a", "a", "b", "c", "a"]
    record(tmp_path / "a.parquet", 400)
    behaviour = {row["trajectory"]: row["behaviour"] for row in pq.read_table(tmp_path / "a.parquet").to_pylist()}
    right = sum(name == "right" for name in behaviour.values())
    assert abs(right - len(behaviour) / 4) <= 1


def test_rows_are_written_in_groups_and_none_is_lost_between_them(tmp_path, monkeypatch):
    record(tmp_path / "whole.parquet")
    monkeypatch.setattr("swirl.data.pieces.CHUNK", 64)
    record(tmp_path / "groups.parquet")
    file = pq.ParquetFile(tmp_path / "groups.parquet")
    assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [64, 64, 64, 8]
    assert file.read().equals(pq.read_table(tmp_path / "whole.parquet"))
    file.close()


def test_a_world_that_breaks_leaves_the_earlier_file_and_nothing_else(tmp_path):
    record(tmp_path / "a.parquet")
    before = (tmp_path / "a.parquet").read_bytes()

    class Broken(Line):
        def step(self, action):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(Broken, tmp_path / "a.parquet", 10, MIX, 5, 0)
    assert (tmp_path / "a.parquet").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.parquet"]


def test_a_skipped_episode_is_counted_and_its_steps_are_kept(tmp_path, caplog):
    class Skips(Line):
        """Every third episode does not begin, and no place above 4 is reached."""

        episodes = 0

        def reset(self, seed):
            self.episodes += 1
            if self.episodes % 3 == 0:
                raise SkippedError("it does not begin")
            return super().reset(seed % 4)

        def step(self, action):
            if self.place == 4:
                raise SkippedError("it hangs")
            return super().step(action)

    counts = collect(Skips, tmp_path / "a.parquet", 50, {"right": 1}, 10, 0)
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert counts["transitions"] == len(rows) == 50
    last = [row for row in rows if row["next_state"] == "at 4"]
    assert all(row["truncated"] for row in last)
    names = {row["trajectory"] for row in rows}
    assert counts["trajectories"] == len(names)
    played = int(rows[-1]["trajectory"][1:]) + 1
    cut = rows[-1]["next_state"] != "at 4"
    assert counts["skipped"] in (played - cut, played - 1)  # every episode was, but one that the end cut first
    assert "episodes were skipped; the last: it" in caplog.text
    assert "skipped" not in record(tmp_path / "b.parquet")


def test_the_bar_says_how_many_episodes_are_skipped_and_why(tmp_path, monkeypatch):
    shown = []

    class Skipping(Line):
        def step(self, action):
            if self.place == 3:
                raise SkippedError("it hangs" + "!" * 200)
            return super().step(action)

    monkeypatch.setattr("swirl.progress.Bar.update", lambda bar, completed, **fields: shown.append(fields))
    counts = record(tmp_path / "a.parquet", make=Skipping)
    assert "skipped" not in shown[0]
    assert shown[-1]["skipped"] == f"{counts['skipped']} (it hangs{'!' * 72})"


def test_a_world_that_skips_every_episode_is_given_up(tmp_path):
    class Never(Line):
        def step(self, action):
            raise SkippedError("it hangs")

    with pytest.raises(InputError, match="20 episodes in a row did not begin; the last: it hangs"):
        collect(Never, tmp_path / "a.parquet", 10, MIX, 5, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"behaviours": {"gold": 1}}, "behaviour 'gold' is not one of this world's: random, right"),
        ({"behaviours": {"right": -1, "random": 2}}, "behaviour 'right' has share -1, expected a number of 0 or more"),
        ({"behaviours": {"right": float("nan")}}, "behaviour 'right' has share nan"),
        ({"behaviours": {"right": 0}}, "no behaviour with a share above 0"),
        ({"behaviours": {}}, "no behaviour with a share above 0"),
        ({"transitions": 0}, "transitions = 0, expected at least 1"),
        ({"workers": 0}, "workers = 0, expected at least 1"),
        ({"max_steps": 0}, "max_steps = 0, expected at least 1"),
        ({"seed": -1}, "seed = -1, expected 0 or more"),
    ],
)
def test_arguments_that_cannot_be_used(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        record(tmp_path / "sub" / "a.parquet", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_recording_is_parquet_and_not_a_folder(tmp_path):
    with pytest.raises(InputError, match="end the name with"):
        record(tmp_path / "a.jsonl")
    (tmp_path / "d.parquet").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        record(tmp_path / "d.parquet")
