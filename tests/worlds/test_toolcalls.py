"""Tool calls: the contract, the benchmark's gold calls, and texts against hand-made objects."""

import decimal
from types import SimpleNamespace

import numpy as np
import pytest
from recorded import records_and_trains

from swirl import worlds
from swirl.errors import InputError, MissingPartError
from swirl.worlds.base import check_world
from swirl.worlds.bfcl import CATEGORIES, INSTALL, _facts, missing

here = pytest.mark.skipif(missing() is not None, reason=f"BFCL's back-ends are not installed: {INSTALL}")


@pytest.fixture(scope="module")
def uncut():
    return worlds.make("toolcalls", categories=CATEGORIES, width=None, facts=None)


@here
def test_the_contract_holds():
    world = worlds.make("toolcalls")
    assert not world.complete
    check_world(world, seeds=range(0, 200, 20), steps=20)


@here
def test_uncut_states_say_everything_and_no_two_layouts_share_one(uncut):
    assert uncut.complete
    check_world(uncut, seeds=[0, 60, 199, 305, 595], steps=12)
    resets = [uncut.reset(seed) for seed in range(800)]
    layouts = {state: info["layout"] for state, info in resets}
    assert all(layouts[state] == info["layout"] for state, info in resets)
    assert len({info["task"] for _, info in resets}) == 800
    assert len(set(layouts.values())) == 195  # of 200: some tasks start with the same objects
    assert [info["layout"] for _, info in resets[:200]] == [info["layout"] for _, info in resets[600:]]


@here
def test_gold_makes_every_gold_call_of_the_benchmark_without_an_error_and_ends():
    calls, rng = 0, np.random.default_rng(0)
    world = worlds.make("toolcalls", categories=CATEGORIES, facts=1)
    for seed in range(800):
        world.reset(seed)
        ended = False
        while not ended:
            state, reward, ended, truncated, _ = world.step(world.act("gold", rng))
            assert "\noutput: Error during execution" not in state
            assert (reward, truncated) == (float(ended), False)
            calls += 1
    assert calls == 4625


@here
def test_a_call_changes_the_objects_and_is_not_in_the_next_state():
    world = worlds.make("toolcalls")
    state, info = world.reset(0)
    assert info["task"] == "multi_turn_base_0"
    lines = state.split("\n")
    assert lines[0].startswith("user: Move 'final_report.pdf' within document directory")
    assert "GorillaFileSystem in /workspace" in lines
    assert "GorillaFileSystem /workspace/archive/" in lines
    after = world.step('mkdir( dir_name = "notes" )')[0].split("\n")
    assert sorted(set(after) - set(lines)) == ["GorillaFileSystem /workspace/notes/", "output: null"]
    after, *_ = world.step("cd('archive')")
    assert "cd(" not in after
    assert "mkdir" not in after
    after = after.split("\n")
    assert "GorillaFileSystem in /workspace/archive" in after
    assert 'output: {"current_working_directory": "archive"}' in after
    assert sum("archive" in line for line in after) == 3  # where it is, the output and the folder


@here
def test_the_gold_calls_are_in_no_state():
    world, rng = worlds.make("toolcalls"), np.random.default_rng(0)
    for seed in range(200):
        state, ended = world.reset(seed)[0], False
        while not ended:
            call = world.act("gold", rng)
            assert call not in state
            state, _, ended, *_ = world.step(call)
            assert call not in state


@here
def test_calls_that_do_not_fit_give_errors_as_output_and_other_texts_are_refused():
    world = worlds.make("toolcalls")
    world.reset(0)
    for action in ("mkdir()", "mkdir(1, 2, 3)", "mkdir(name='a')"):
        assert "\noutput: Error during execution: " in world.step(action)[0]
    before = world._describe()
    for action in ("mkdr(dir_name='a')", "cp(source='a', destination='b')", "fillFuelTank(fuelAmount=1.0)"):
        with pytest.raises(InputError, match="unknown function"):  # `cp` is kept from this task
            world.step(action)
    with pytest.raises(InputError, match="did you mean 'mkdir'"):
        world.step("mkdr(dir_name='a')")
    for action in (
        "mkdir",
        "api.mkdir('x')",
        "mkdir(**{'dir_name': 'x'})",
        "mkdir(*['x'])",
        "(",
        "",
        "1",
        "mkdir('x');1",
    ):
        with pytest.raises(InputError, match="is no call"):
            world.step(action)
    assert world._describe() == before
    world.close()
    with pytest.raises(InputError, match="reset"):
        world.step("ls()")


HOSTILE = (
    "__import__('os').system('touch FILE')",
    "mkdir(dir_name=__import__('os').system('touch FILE'))",
    "mkdir(dir_name=open('FILE', 'w'))",
    "mkdir(dir_name=[open('FILE', 'w') for _ in 'x'])",
    'mkdir(dir_name=f\'{open("FILE", "w")}\')',
    "mkdir(dir_name=(name := 'x'))",
    "mkdir(dir_name=mkdir)",
    "mkdir(dir_name=''.__class__)",
    "mkdir.__globals__('x')",
    "(lambda: 1)()",
    "mkdir(dir_name=10**10**9)",
    "mkdir(dir_name=" + "-" * 100_000 + "1)",
    "mkdir(dir_name=" + "[" * 100_000 + "]" * 100_000 + ")",
    "mkdir(dir_name=" + "9" * 5_000 + ")",
    "mkdir(dir_name=0x" + "f" * 5_000 + ")",
    "mkdir(dir_name=-1000000000000001)",
    "mkdir(dir_name='\\ud800')",  # half a character, which no file can hold
    "mkdir(dir_name={1, 'a'})",
    "mkdir(dir_name=b'a')",
    "mkdir(dir_name=1e999)",
)


@here
@pytest.mark.parametrize("action", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_but_literals_is_evaluated_and_nothing_changes(opened, tmp_path, action):
    before, gold = opened._describe(), opened.act("gold", np.random.default_rng(0))
    with pytest.raises(InputError, match="is no call: expected") as error:
        opened.step(action.replace("FILE", str(tmp_path / "made")))
    assert len(str(error.value)) < 500
    assert list(tmp_path.iterdir()) == []
    assert opened._describe() == before
    assert opened.act("gold", np.random.default_rng(0)) == gold


@here
@pytest.mark.parametrize("name", ["__init__", "_load_scenario", "_navigate_to_directory", "__class__", "_random"])
def test_what_a_back_end_keeps_to_itself_cannot_be_called(opened, name):
    with pytest.raises(InputError, match="unknown function"):
        opened.step(f"{name}()")


@pytest.fixture(scope="module")
def opened():
    """A task in its first state, for tests that change nothing."""
    world = worlds.make("toolcalls")
    world.reset(0)
    return world


@here
def test_no_result_takes_days():
    world = worlds.make("toolcalls")
    world.reset(next(seed for seed in range(200) if (world.reset(seed), "power" in world._apis.owner)[1]))
    assert '\noutput: {"result": 8.0}' in world.step("power(base=2, exponent=3)")[0]
    assert '\noutput: {"result": "3.0"}' in world.step("logarithm(value=8, base=2, precision=1000)")[0]
    before = decimal.getcontext().prec
    assert '\noutput: {"result": "1.4142' in world.step("square_root(number=2, precision=99)")[0]
    assert decimal.getcontext().prec == before  # which the back-end has set
    for call in (
        "power(base=99999999, exponent=99999999999)",
        "power(10, 1000000000)",
        "logarithm(value=3, base=2, precision=1001)",
        "logarithm(value=3, base=2, precision='999999999')",
        "square_root(2, 999999999)",
        "round_number(number=5, decimal_places=-999999999)",
    ):
        assert "\noutput: Error during execution: " in world.step(call)[0]


@here
@pytest.mark.parametrize(
    "call", ["displayCarStatus('fuel')", "get_outside_temperature_from_google()", "get_current_speed()"]
)
def test_what_is_drawn_is_counted_and_follows_the_seed(call):
    world = worlds.make("toolcalls")
    seed = next(seed for seed in range(200) if (world.reset(seed), "startEngine" in world._apis.owner)[1])
    state, _ = world.reset(seed)
    states = [state, *(world.step(call)[0] for _ in range(2))]
    drawn = [0, 0, 0] if call.startswith("display") else [0, 1, 2]
    for number, text in zip(drawn, states, strict=True):
        assert f"\nVehicleControlAPI.random_draws {number}\n" in f"{text}\n"
    outputs = [text.partition("\noutput: ")[2].split("\n")[0] for text in states[1:]]
    assert (outputs[0] == outputs[1]) == (drawn[2] == 0)
    world.reset(seed)
    assert world.step(call)[0] == states[1]


@here
def test_whole_numbers_that_are_drawn_are_counted():
    world = worlds.make("toolcalls")
    seed = next(seed for seed in range(200) if (world.reset(seed), "authenticate_travel" in world._apis.owner)[1])
    assert "\nTravelAPI.random_draws 0" in world.reset(seed)[0]
    call = "authenticate_travel(client_id='a', client_secret='b', refresh_token='c', grant_type='d',"
    after = world.step(call + " user_first_name='e', user_last_name='f')")[0]
    assert "\nTravelAPI.random_draws 1" in after


@here
def test_an_error_changes_nothing_but_the_output(uncut):
    rng, refused = np.random.default_rng(0), 0
    for seed in range(0, 200, 2):
        state, _ = uncut.reset(seed)
        for _ in range(10):
            after, _, ended, *_ = uncut.step(uncut.act("random", rng))
            lines = [text.split("\n") for text in (state, after)]
            if any(line.startswith("output: Error during execution") for line in lines[1]):
                facts = [[x for x in part if not x.startswith("output: ")] for part in lines]
                assert facts[0] == facts[1]
                refused += 1
            state = after
            if ended:
                break
    assert refused > 20


@here
def test_what_the_behaviours_call():
    world, rng = worlds.make("toolcalls"), np.random.default_rng(0)
    kept = total = 0
    for seed in range(60):
        world.reset(seed)
        gold = world.act("gold", rng)
        name = gold.partition("(")[0]
        for _ in range(5):
            call = world.act("perturbed", rng)
            assert world._apis.owner[call.partition("(")[0]] == world._apis.owner[name]
            kept, total = kept + (call == gold), total + 1
            assert world.act("random", rng).partition("(")[0] in world._apis.owner
    assert 0.4 < kept / total < 0.6


@here
def test_what_does_not_fit_is_cut_and_counted():
    world = worlds.make("toolcalls", width=40, facts=3)
    lines = world.reset(0)[0].split("\n")
    assert lines[0] == "user: Move 'final_report.pdf' within doc … 122 characters"
    assert lines[4:8] == [
        'TwitterAPI.username "analyst_pro"',
        'TwitterAPI.password "Kj8#mP9$vL2"',
        "TwitterAPI.authenticated false",
        "TwitterAPI … 22 lines",
    ]
    assert max(map(len, lines)) <= 40 + len(" … 122 characters")


def test_facts_are_one_line_each():
    file = SimpleNamespace(content="a\nb")
    empty = SimpleNamespace(contents={})
    assert list(_facts("A /w", SimpleNamespace(contents={"f": file, "d": empty}))) == ['A /w/f "a\\nb"', "A /w/d/"]
    assert list(_facts("A.x", {"k": [{"n": 1}, {"n": None}], "s": {3, 1}, "e": []})) == [
        'A.x.k.0 {"n": 1}',
        'A.x.k.1 {"n": null}',
        "A.x.s [1, 3]",
        "A.x.e []",
    ]


@here
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"categories": ["bse"]}, "did you mean 'base'"),
        ({"categories": []}, "unknown category"),
        ({"width": 0}, "width is 0: expected at least 1"),
        ({"facts": -1}, "facts is -1: expected at least 1"),
    ],
)
def test_options_that_cannot_be_used(options, message):
    with pytest.raises(InputError, match=message):
        worlds.make("toolcalls", **options)


def test_a_missing_package_names_the_commands(monkeypatch):
    monkeypatch.setattr("swirl.worlds.bfcl.find_spec", lambda name: None)
    assert worlds.availability("toolcalls") == INSTALL
    with pytest.raises(MissingPartError, match="pip install --no-deps bfcl-eval"):
        worlds.make("toolcalls")


@here
def test_a_recording_is_checked_and_trained_on(swirl, tmp_path):
    cut = ("--option", "width=80", "--option", "facts=8")
    report = records_and_trains(swirl, tmp_path, "toolcalls", "--transitions", "150", "--max-steps", "6", *cut)
    assert "150 transitions" in report
