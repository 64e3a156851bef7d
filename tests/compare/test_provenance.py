"""Where cells ran, and what that says against their costs."""

from kept_runs import three_methods

from swirl.compare import provenance

ONE = {"processor": "x86_64", "cpu": "A", "gpu": "", "cores": 2, "threads": 1, "load": 1.5}
OLD = {"processor": "x86_64", "cores": 2, "threads": 1}


def test_a_machine_is_known_by_what_its_seconds_depend_on():
    found = provenance.machine("cpu", 3)
    assert set(found) == set(ONE)
    assert (found["threads"], found["gpu"]) == (3, "") and found["cores"] >= 1 and found["load"] >= 0


def test_seconds_of_different_machines_are_warned_of():
    assert provenance.warnings([[ONE, {**ONE, "load": 2.4}, OLD]]) == []  # what was not noted speaks against nothing
    [told] = provenance.warnings([[ONE, {**ONE, "cpu": "B", "threads": 2}, OLD]])
    assert "(cpu A and B; threads 1 and 2): equal CPU seconds are not equal cost here" in told
    [told] = provenance.warnings([[{**OLD, "cores": 4}, OLD]])
    assert "(cores 2 and 4)" in told
    assert provenance.warnings([[ONE, ONE], [{**ONE, "cpu": "B"}] * 2]) == []  # what is compared is of one machine


def test_runs_of_different_code_are_told_of():
    one = {"commit": "abc1234", "versions": {"python": "3.11", "torch": "2.13.0", "trl": "1.16.0"}}
    other = {"commit": "abc1234+", "versions": {"python": "3.12", "torch": "2.9.1", "trl": "1.16.0"}}
    assert provenance.mixed([one, one]) == []
    assert provenance.mixed([one, {**one, "versions": {"python": "3.12"}}]) == []  # what was not noted
    assert provenance.mixed([one, {**one, "commit": "def"}, {**one, "commit": "def"}]) == [
        "The runs are of 2 commits; the report lists which."
    ]
    assert provenance.mixed([one, {**other, "commit": "abc1234"}]) == [
        "The runs are of torch 2.13.0 and 2.9.1; the report lists which."
    ]
    assert provenance.mixed([one, other]) == [
        "The runs are of 2 commits, of torch 2.13.0 and 2.9.1; the report lists which."
    ]


def test_a_gpu_and_a_busy_machine_are_told_of():
    [told] = provenance.warnings([[{**ONE, "gpu": "H100"}]])
    assert told.startswith("What a GPU did is not in the CPU seconds")
    different, _ = provenance.warnings([[{**ONE, "gpu": "H100"}, ONE]])
    assert "(gpu H100 and none)" in different
    [told] = provenance.warnings([[ONE, {**ONE, "load": 2.6}], [{**ONE, "load": 6.0}]])
    assert told.startswith("2 of 3 runs ended on a busy machine (load up to 6 on 2 cores)")


def test_runs_of_one_machine_stand_together_whatever_their_load():
    cells = three_methods()
    cells = {"verified": cells["verified"], "swirl": {0: cells["swirl"][0]}}
    for seed, load in ((0, 1.5), (1, 4.0)):
        cells["verified"][seed]["machine"] = {**ONE, "load": load}
    _, mine, other = provenance.table({"": cells})
    machine = "processor x86_64, cpu A, cores 2, threads 1"
    assert mine == ["abc1234", machine, "1.5 to 4", "torch 2.13.0", "verified seed 0, verified seed 1"]
    assert other == ["abc1234", "cores 2", "", "torch 2.13.0", "swirl seed 0"]
