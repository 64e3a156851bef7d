"""Early experience: what is tried in a world, what it costs, and that nothing held out is touched."""

import itertools
import json
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest

from swirl import data, worlds
from swirl.config import Data, Experience, Recipe
from swirl.data.branching import branch
from swirl.errors import InputError, SkippedError
from swirl.methods.early_experience import early_experience
from swirl.methods.phases import Pair
from swirl.methods.runner import Runner


class Ring:
    """Ten places in a ring; the layout is the seed, an episode ends after six steps. Counts the steps that it takes."""

    name, behaviours, complete, repeatable = "ring", ("random",), True, True
    moves = {"on": 1, "back": -1, "jump": 5, "stay": 0}  # noqa: RUF012

    def __init__(self, listed=True):
        self.listed, self.taken, self.resets, self.at, self.left, self.seed = listed, 0, [], 0, 0, 0

    def reset(self, seed):
        self.resets.append(seed)
        self.seed, self.at, self.left = seed, seed % 10, 6
        return self._text(), {"layout": f"layout {seed}"}

    def step(self, action):
        assert self.left, "stepped after its end"
        self.taken, self.left = self.taken + 1, self.left - 1
        self.at = (self.at + self.moves[action]) % 10
        return self._text(), 0.5, self.left == 0, False, {}

    def actions(self, state):
        assert state == self._text(), "asked of a state that it is not in"
        return tuple(self.moves) if self.listed else None

    def act(self, behaviour, rng):
        return list(self.moves)[rng.integers(4)]

    def close(self):
        pass

    def _text(self):
        return f"ring {self.seed} place {self.at}"


def tried(world, seeds=(3, 4), layouts=("layout 3", "layout 4"), **changed):
    asked = {"transitions": 30, "states": 2, "alternatives": 3, "max_steps": 9, "seed": 1} | changed
    return branch(world, list(seeds), set(layouts), itertools.repeat("random"), **asked)


def place(text):
    return int(text.rpartition(" ")[2])


def test_rows_are_what_the_world_does():
    found = tried(Ring())
    assert len(found.rows) == 30
    for row in found.rows:
        assert place(row["next_state"]) == (place(row["state"]) + Ring.moves[row["action"]]) % 10
        assert (row["layout"], row["split"], row["partial"], row["reward"]) == (
            f"layout {row['state'].split()[1]}",
            "train",
            False,
            0.5,
        )
        assert len(row["history"]) == row["step"]
    assert {row["terminated"] for row in found.rows} == {row["step"] == 5 for row in found.rows}


def test_every_state_is_tried_with_different_actions_once_each():
    found = tried(Ring(), transitions=32)
    for _, rows in itertools.groupby(found.rows, lambda row: (row["trajectory"], row["step"])):
        assert sorted(row["action"] for row in rows) == sorted(Ring.moves)  # the one taken and three others
    visits = {(row["trajectory"], row["step"]) for row in found.rows}
    assert len(visits) == 8 and len({name for name, _ in visits}) == 4  # two states of each episode


def test_all_steps_are_counted():
    world = Ring()
    found = tried(world, transitions=32)
    assert found.environment_steps == world.taken
    steps = [row["step"] for row in found.rows]
    # Four episodes of six steps; three of four rows replayed the steps before theirs, and took one more.
    assert world.taken == 4 * 6 + sum(3 * (step + 1) for step in steps) // 4
    assert found.episodes == 4


def test_an_episode_of_another_layout_is_left_before_its_first_step():
    world = Ring()
    found = tried(world, seeds=(3, 7), layouts=("layout 3",))
    assert {row["layout"] for row in found.rows} == {"layout 3"}
    assert found.other_layouts >= 1
    with pytest.raises(InputError, match="20 of 20 were of layouts that are not trained on"):
        tried(world, seeds=(7,), layouts=("layout 3",))


def test_where_no_action_is_listed_behaviours_propose():
    found = tried(Ring(listed=False))
    for _, rows in itertools.groupby(found.rows, lambda row: (row["trajectory"], row["step"])):
        actions = [row["action"] for row in rows]
        assert len(actions) == len(set(actions)) >= 2


def test_a_replay_that_leads_elsewhere_is_counted_and_not_used():
    class Moody(Ring):
        def reset(self, seed):
            _, info = super().reset(seed)
            self.at = (self.at + self.resets.count(seed)) % 10
            return self._text(), info

    found = tried(Moody(), seeds=range(10, 60), layouts=[f"layout {n}" for n in range(10, 60)], transitions=20)
    # Two states of each of ten episodes: the actions taken there are known, what others lead to is not.
    assert (found.episodes, found.not_reached) == (10, 60)


def test_an_episode_that_breaks_off_is_used_as_far_as_it_went():
    class Fragile(Ring):
        def step(self, action):
            if self.left == 4:
                raise SkippedError("hangs")
            return super().step(action)

    found = tried(Fragile(), transitions=12)
    assert {row["step"] for row in found.rows} == {0, 1}


def test_what_is_tried_follows_from_the_seed():
    assert tried(Ring()).rows == tried(Ring()).rows != tried(Ring(), seed=2).rows


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("early")
    data.collect(partial(worlds.make, "sokoban"), folder / "in.parquet", 900, {"random": 1}, max_steps=12, seed=4)
    shares = {"validation": 0.2, "test": 0.2, "seed": 0, "data_seed": 4}
    data.split(data.read(folder / "in.parquet"), folder, labels=60, validation_labels=20, history=2, **shares)
    return folder


def run_of(folder, out, monkeypatch, phases=None, **keys):
    options = {"world": "sokoban", "behaviours": {"random": 1.0}, "max_steps": 12, "seed": 4, "history": 2} | keys
    run = Runner(None, Recipe(data=Data(**options), experience=Experience(transitions=80)), folder)
    monkeypatch.setattr(run, "phase", lambda name, work, facts: (out.mkdir(exist_ok=True), work(out), out)[-1])
    return run


def test_it_trains_the_forward_model_on_training_layouts_and_labels(split, tiny, tmp_path, monkeypatch):
    run, told = run_of(split, tmp_path / "out", monkeypatch), []
    monkeypatch.setattr(run, "sft", lambda stage, pair, examples, *rest: told.append((examples("forward"), *rest)))
    monkeypatch.setattr(run, "encode", lambda *_: ([1], [2]))
    early_experience(run, Pair(tiny, tiny))
    parts = {name: pq.read_table(split / f"{name}.parquet").to_pylist() for name in ("labelled", "state_only", "test")}
    parts["validation"] = pq.read_table(split / "validation.parquet").to_pylist()
    layouts = {name: {row["layout"] for row in rows} for name, rows in parts.items()}
    rows = pq.read_table(tmp_path / "out" / "rows.parquet").to_pylist()
    tried = {row["layout"] for row in rows}
    assert tried <= layouts["labelled"] | layouts["state_only"]
    assert not tried & (layouts["validation"] | layouts["test"])
    facts = json.loads((tmp_path / "out" / "phase.json").read_text())["facts"]
    assert facts["environment_steps"] > facts["transitions"] == len(rows) == 80
    assert facts["other_layouts"] == facts["not_reached"] == facts["held_out"] == facts["too_long"] == 0
    assert max(len(row["history"]) for row in rows) == 2
    [(examples, settings, roles)] = told
    assert (settings, roles) == (run.recipe.experience, ("forward",))
    trained = [(row["state"], row["action"], text) for row, text in examples]
    assert {(r["state"], r["action"], r["next_state"]) for r in rows + parts["labelled"]} == set(trained)


def test_the_recordings_own_actions_are_not_played_again(split, tiny, tmp_path, monkeypatch):
    run = run_of(split, tmp_path / "out", monkeypatch)
    monkeypatch.setattr(run, "sft", lambda *_: None)
    monkeypatch.setattr(run, "encode", lambda *_: ([1], [2]))
    early_experience(run, Pair(tiny, tiny))
    rows = pq.read_table(tmp_path / "out" / "rows.parquet").to_pylist()
    recorded = {(r["state"], r["next_state"]) for r in data.read(split / "in.parquet").to_pylist() if r["step"] > 3}
    late = [row for row in rows if row["step"] > 3]
    assert np.mean([(row["state"], row["next_state"]) in recorded for row in late]) < 0.5


def test_transitions_that_are_held_out_or_do_not_fit_are_left_out_and_counted(split, tiny, tmp_path, monkeypatch):
    run = run_of(split, tmp_path / "all", monkeypatch)
    monkeypatch.setattr(run, "sft", lambda *_: None)
    monkeypatch.setattr(run, "encode", lambda *_: ([1], [2]))
    early_experience(run, Pair(tiny, tiny))
    every = pq.read_table(tmp_path / "all" / "rows.parquet").to_pylist()
    for part in ("labelled", "state_only", "validation"):
        (tmp_path / f"{part}.parquet").write_bytes((split / f"{part}.parquet").read_bytes())
    pair = {key: every[0][key] for key in ("state", "next_state")}
    pq.write_table(pq.read_table(tmp_path / "all" / "rows.parquet").slice(0, 1), tmp_path / "test.parquet")
    run = run_of(tmp_path, tmp_path / "some", monkeypatch)
    monkeypatch.setattr(run, "sft", lambda *_: None)

    def encode(tokenizer, role, row, text):
        if row["state"] == every[-1]["state"]:
            raise InputError("too long")
        return [1], [2]

    monkeypatch.setattr(run, "encode", encode)
    early_experience(run, Pair(tiny, tiny))
    kept = pq.read_table(tmp_path / "some" / "rows.parquet").to_pylist()
    same = [{key: row[key] for key in pair} == pair for row in every]
    long = [row["state"] == every[-1]["state"] and not known for row, known in zip(every, same, strict=True)]
    assert kept == [row for row, a, b in zip(every, same, long, strict=True) if not (a or b)]
    facts = json.loads((tmp_path / "some" / "phase.json").read_text())["facts"]
    assert (facts["held_out"], facts["too_long"]) == (sum(same), sum(long)) and sum(long) > 0


def test_a_recording_cannot_be_acted_in(tmp_path):
    run = Runner(None, Recipe(data=Data(path="in.jsonl")), tmp_path)
    with pytest.raises(InputError, match=r"acts in a world, but data\.path = in\.jsonl is a recording"):
        early_experience(run, Pair(tmp_path, tmp_path))


def test_other_seeds_than_the_recordings_are_of_other_layouts(split, tiny, tmp_path, monkeypatch):
    run = run_of(split, tmp_path / "out", monkeypatch, seed=5)  # as if the recording had been collected with it
    monkeypatch.setattr(run, "sft", lambda *_: None)
    with pytest.raises(InputError, match="is the world that of the recording"):
        early_experience(run, Pair(tiny, tiny))
