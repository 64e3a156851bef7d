"""What a run may not know changes nothing in it: actions that no label was paid for, scrambled, leave no trace."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from whole_runs import PHASES, RECIPE, contents, differing, phases_of

from swirl import data
from swirl.data import splitting
from swirl.errors import InputError
from swirl.methods import session
from swirl.recipe import load_recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, one_thread):
    path = tmp_path_factory.mktemp("hidden") / "recipe.toml"
    path.write_text(RECIPE)
    return load_recipe(path)


@pytest.fixture(scope="module")
def caches(recipe, tmp_path_factory):
    """Two folders with the recipe's recording: as it was collected, and with every hidden action made another.

    Hidden are the actions of training transitions that were not labelled, and of validation transitions left out.
    """
    true, scrambled, parts = (tmp_path_factory.mktemp(name) for name in ("true", "scrambled", "parts"))
    path, spec = session.recording(recipe, true), recipe.data
    data.split(
        data.read(path),
        parts,
        labels=spec.labels,
        validation_labels=spec.validation_labels,
        validation=spec.validation,
        test=spec.test,
        seed=recipe.seed,
        data_seed=spec.seed,
    )
    known = set()
    for part in ("labelled", "validation", "test"):
        known |= set(places(pq.read_table(parts / f"{part}.parquet")))
    table = pq.read_table(path)
    actions, rng = table["action"].to_pylist(), np.random.default_rng(0)
    names = sorted(set(actions))
    others = [
        action if place in known else str(rng.choice([name for name in names if name != action]))
        for place, action in zip(places(table), actions, strict=True)
    ]
    changed = sum(action != other for action, other in zip(actions, others, strict=True))
    assert changed == table.num_rows - len(known) > 400
    column = table.schema.get_field_index("action")
    pq.write_table(table.set_column(column, "action", pa.array(others)), scrambled / path.name)
    return true, scrambled


def places(table):
    return zip(table["trajectory"].to_pylist(), table["step"].to_pylist(), strict=True)


def traces(recipe, caches, folder):
    """Files by which a run on the true recording and one on the scrambled recording can be told apart."""
    for name, cache in zip(("true", "scrambled"), caches, strict=True):
        session.run_recipe(recipe, folder / name, cache)
    return differing(folder / "scrambled", folder / "true")


def test_scrambled_hidden_actions_leave_no_trace(recipe, caches, tmp_path):
    assert traces(recipe, caches, tmp_path) == []
    assert phases_of(tmp_path / "true") == PHASES
    found = contents(tmp_path / "true")
    everything = {path.relative_to(tmp_path / "true").as_posix() for path in (tmp_path / "true").rglob("*.*")}
    # `lock` has no ending, and the clock tells times alone.
    assert everything - {"clock.jsonl"} == set(found), "a file that was not compared"


def test_a_known_action_leaves_a_trace(recipe, caches, tmp_path):
    # One labelled action more or less must show, or nothing could.
    other = tmp_path / "cache"
    other.mkdir()
    path = session.recording_path(recipe, caches[0])
    table = pq.read_table(path)
    short = replace(recipe, methods=("warmup",))
    session.run_recipe(short, tmp_path / "before", caches[0])
    place = next(places(pq.read_table(tmp_path / "before" / "data" / "labelled.parquet")))
    actions = [
        "right" if at == place and action != "right" else "left" if at == place else action
        for at, action in zip(places(table), table["action"].to_pylist(), strict=True)
    ]
    column = table.schema.get_field_index("action")
    pq.write_table(table.set_column(column, "action", pa.array(actions)), other / path.name)
    session.run_recipe(short, tmp_path / "after", other)
    found = differing(tmp_path / "after", tmp_path / "before")
    assert "data/labelled.parquet" in found
    assert "phases/02-warmup-forward-sft/model.safetensors" in found
    assert "data/state_only.parquet" not in found


def test_a_planted_column_is_refused_and_would_be_found(recipe, caches, tmp_path, monkeypatch):
    short = replace(recipe, methods=())
    monkeypatch.setitem(splitting.COLUMNS_OF, "state_only", splitting.COLUMNS_OF["labelled"])
    with pytest.raises(InputError, match=r"state_only\.parquet has a column 'action', which a run may not know"):
        traces(short, caches, tmp_path / "refused")
    monkeypatch.setattr(data, "check", lambda folder: SimpleNamespace(problems=[]))
    assert "data/state_only.parquet" in traces(short, caches, tmp_path)


def test_an_action_in_a_column_of_another_name_is_found(recipe, caches, tmp_path, monkeypatch):
    real = splitting.split

    def split(table, folder, **options):
        number = pa.array([float(len(action)) for action in table["action"].to_pylist()])
        return real(table.set_column(table.schema.get_field_index("reward"), "reward", number), folder, **options)

    monkeypatch.setattr(data, "split", split)
    found = traces(replace(recipe, methods=()), caches, tmp_path)
    assert [name for name in found if name.startswith("data/")] == ["data/state_only.parquet"]


def test_a_choice_of_labels_by_action_is_found(recipe, caches, tmp_path, monkeypatch):
    def rank(table, rows, seed):
        return np.argsort(np.array(table["action"].to_pylist(), object)[rows], kind="stable")

    monkeypatch.setattr(splitting, "_rank", rank)
    found = traces(replace(recipe, methods=()), caches, tmp_path)
    assert {"data/labelled.parquet", "data/state_only.parquet", "data/validation.parquet"} <= set(found)


def test_an_order_by_action_is_found(recipe, caches, tmp_path, monkeypatch):
    real = splitting.split

    def split(table, folder, **options):
        return real(table.sort_by("action"), folder, **options)

    monkeypatch.setattr(data, "split", split)
    found = traces(replace(recipe, methods=("pretrain",)), caches, tmp_path)
    assert "data/state_only.parquet" in found
    assert "data/test.parquet" not in found  # sorted by actions that were left alone
    assert "phases/02-pretrain-forward-sft/model.safetensors" in found
