import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swirl.data import read
from swirl.errors import InputError, MissingPartError
from swirl.importers import Options, import_recording
from swirl.importers import minari as importer


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("door open", "door open"),
        (np.int64(3), "value 3"),
        (np.array([0.123456, -2.0, 1e-9], np.float32), "0 0.1235\n1 -2\n2 1e-09"),
        (np.array([[1, 2], [3, 4]]), "1 2\n3 4"),
        (np.array([True, False]), "0 1\n1 0"),
        (
            {"mission": "go", "position": np.array([1, 2]), "inner": {"a": np.int64(1), "b": np.int64(2)}},
            "mission go\nposition \n  1 2\ninner \n  a 1\n  b 2".replace("position \n  1 2", "position 1 2"),
        ),
        ((np.int64(1), "x"), "0 1\n1 x"),
    ],
)
def test_observations_as_text(value, text):
    assert importer._lines(value) == text


def test_pictures_are_refused():
    with pytest.raises(InputError, match="the observations are pictures; write each to a file"):
        importer._lines(np.zeros((8, 8, 3), np.uint8))


def test_a_missing_package_is_named_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setattr(importer, "find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match=r"pip install '\.\[minari\]'"):
        import_recording("minari", ["x"], tmp_path / "o.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Folder of two episodes of two and three steps, written by Minari itself."""
    minari = pytest.importorskip("minari", reason=f"Minari is not installed: {importer.INSTALL}")
    pytest.importorskip("h5py", reason=f"h5py is not installed: {importer.INSTALL}")
    import gymnasium as gym
    from minari.data_collector import EpisodeBuffer

    root = tmp_path_factory.mktemp("minari")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(root))
        episodes = [
            EpisodeBuffer(
                observations={
                    "at": np.array([10 * e + i for i in range(steps + 1)]),
                    "x": np.array([i / 3 for i in range(steps + 1)], np.float32),
                },
                actions=[np.int64(i % 2) for i in range(steps)],
                rewards=[float(i) for i in range(steps)],
                terminations=[False] * (steps - 1) + [e == 0],
                truncations=[False] * steps,
                infos={},
            )
            for e, steps in enumerate((2, 3))
        ]
        space = gym.spaces.Dict({"at": gym.spaces.Discrete(99), "x": gym.spaces.Box(-9, 9, (), np.float32)})
        minari.create_dataset_from_buffers(
            "walk/test-v0",
            buffer=episodes,
            observation_space=space,
            action_space=gym.spaces.Discrete(2),
            data_format="hdf5",
        )
    return root / "walk" / "test-v0"


@pytest.mark.filterwarnings("ignore")
def test_an_episode_is_a_trajectory(dataset, tmp_path):
    counts = import_recording("minari", [str(dataset)], tmp_path / "o.parquet")
    rows = read(tmp_path / "o.parquet").to_pylist()
    assert counts == {"transitions": 5, "trajectories": 2, "labels": 5, "malformed": 0}
    assert [(row["trajectory"], row["step"], row["action"], row["reward"]) for row in rows] == [
        ("test-v0/0", 0, "0", 0.0),
        ("test-v0/0", 1, "1", 1.0),
        ("test-v0/1", 0, "0", 0.0),
        ("test-v0/1", 1, "1", 1.0),
        ("test-v0/1", 2, "0", 2.0),
    ]
    assert (rows[0]["state"], rows[0]["next_state"]) == ("at 0\nx 0", "at 1\nx 0.3333")
    assert [(row["terminated"], row["truncated"]) for row in rows] == [
        (False, False),
        (True, False),
        (False, False),
        (False, False),
        (False, True),
    ]


@pytest.mark.filterwarnings("ignore")
def test_a_dataset_that_two_paths_lead_to_is_read_once(dataset, tmp_path):
    paths = [str(dataset), str(dataset.parent / ".." / "walk" / dataset.name)]
    assert import_recording("minari", paths, tmp_path / "o.parquet")["transitions"] == 5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["actions", "rewards", "truncations", "observations/at"])
@pytest.mark.parametrize("more", [-1, 1])
def test_an_episode_of_parts_that_do_not_fit_is_malformed(name, more, dataset, tmp_path, caplog):
    import h5py

    shutil.copytree(dataset, tmp_path / "copy")
    with h5py.File(tmp_path / "copy" / "data" / "main_data.hdf5", "r+") as file:
        values = file[f"episode_0/{name}"][()]
        del file[f"episode_0/{name}"]
        file[f"episode_0/{name}"] = values[:-1] if more < 0 else np.append(values, values[-1:])
    counts = import_recording("minari", [str(tmp_path / "copy")], tmp_path / "o.parquet")
    assert (counts["transitions"], counts["malformed"]) == (3, 1) and "copy:0: " in caplog.text


def test_a_dataset_that_is_not_there_is_one_line(dataset, tmp_path):
    for path in (tmp_path, "no/such-v0"):
        with pytest.raises(InputError, match="cannot be read as a Minari dataset"):
            import_recording("minari", [str(path)], tmp_path / "o.parquet")


@pytest.mark.filterwarnings("ignore")
@given(raw=st.binary(min_size=1, max_size=200), at=st.integers(0, 100_000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_a_damaged_dataset_is_no_fault_of_ours(dataset, raw, at, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy, dirs_exist_ok=True)
    file = copy / "data" / "main_data.hdf5"
    damaged = bytearray(file.read_bytes())
    at %= len(damaged)
    damaged[at : at + len(raw)] = raw
    file.write_bytes(damaged)
    try:
        counts = import_recording("minari", [str(copy)], tmp_path / "o.parquet", Options())
    except InputError:
        return
    assert counts["transitions"]
