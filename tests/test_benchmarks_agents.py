"""The tables of agents, made from kept files alone."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import load_benchmark

from swirl.agents import stages

ROOT = Path(__file__).parent.parent


@pytest.fixture
def agents(tmp_path, monkeypatch):
    module = load_benchmark("agents")
    monkeypatch.setattr(module, "KEPT", tmp_path)
    return module


def keep(agents, row, seed, passed, self_play=0, curve=(), start="of the seed"):
    """A kept file of a run, `passed` of 8 samples in each of three seeds of validation."""

    def tested(policy, successes, arena="real", metric="pass_at_1", form="plain", samples=8):
        return {
            **{"policy": policy, "form": form, "arena": arena, "metric": metric, "value": sum(successes) / 3 / samples},
            **{"successes": successes, "samples": samples},
        }

    shares = [
        {"policy": "base", "form": form, "arena": "real", "metric": "prediction_exact", "value": value}
        for form, value in (("plain", 0.01), ("states", 0.03))
    ]
    rows = [
        *shares,
        tested("base", [2, 2, 2]),
        *([tested("tune", [4, 4, 4])] if self_play else []),
        tested("solver", [1, 1, 1], samples=1),
        tested("rl", passed),
        tested("rl", [1, 1, 1], metric="greedy_pass_at_1", samples=1),
        tested("rl", [1, 1, 1], form="states"),
        tested("rl", [0, 0, 4], arena="imagined"),
    ]
    facts = {
        "recipe": agents._spec("sokoban", row, seed).toml(),
        "start": start,
        "layouts": ["a", "b", "c"],
        "results": {"rows": rows, "steps": {"self-play": self_play, "rl": sum(line["steps"] for line in curve)}},
        "curve": list(curve),
        "seconds_cpu": 90.0,
    }
    path = agents._kept("sokoban", row, seed)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(facts))


def validated(steps, *successes):
    return {"steps": steps} | ({"validation_successes": successes, "validation_samples": 8} if successes else {})


def tables(text):
    """Lines of every table in a text, by their first two cells, each by the titles of columns."""
    found = []
    for table in re.findall(r"(?m)(?:^\|.*\n)+", text):
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
        found.append({(cells[0], cells[1]): dict(zip(head, cells, strict=True)) for cells in rows})
    return found


def first_table(text):
    """Lines of the first table, by their first cell."""
    return {name: cells for (name, _), cells in tables(text)[0].items()}


def test_a_table_reads_every_row_at_its_end_and_at_as_many_actions(agents):
    curve = [validated(100, 6, 6, 6), validated(100), validated(100, 0, 0, 0)]
    keep(agents, "spa", 0, [8, 8, 8], 150, curve)
    keep(agents, "spa", 1, [4, 4, 4], 150, curve)
    keep(agents, "state-estimation", 0, [3, 3, 3], 0, curve)
    main = first_table(agents.table("sokoban"))
    spa, alone = main["SPA"], main["RL + state estimation"]
    assert spa["paper"] == "59.8/69.5"
    # Two seeds that are 50 points apart say little of their mean.
    assert spa["Pass@1"] == "75.0 [0.0, 100.0]"
    assert alone["Pass@1"] == "37.5 [37.5, 37.5]"
    assert (spa["Pass@8"], spa["Pass@64"]) == ("100.0 [100.0, 100.0]", "")
    assert spa["greedy"] == "100.0 [100.0, 100.0]"
    # The test of the end stands for the validation there. The first iteration of SPA ends at 250 actions, the last at
    # 450: a quarter of the way from 0.75 to 1 and to 0.5.
    assert alone["Pass@1 at 300 actions"] == "37.5 [37.5, 37.5]"
    assert spa["Pass@1 at 300 actions"].startswith("75.0 [")
    assert agents._at({0: json.loads(agents._kept("sokoban", "spa", 0).read_text())}, 300)[0].mean() == 0.8125
    assert (spa["CPU min"], spa["seeds"], alone["seeds"]) == ("1.5", "2", "1")
    base, solver = main["base"], main["the world's solver"]
    assert (base["Pass@1"], base["prediction right"]) == ("25.0 [25.0, 25.0]", "3.0")
    assert main["after self-play and SFT"]["Pass@1"] == "50.0 [50.0, 50.0]"
    assert (solver["Pass@1"], solver["Pass@8"], solver["CPU min"]) == ("100.0 [100.0, 100.0]", "", "")
    assert spa["Pass@1 in the model"].startswith("16.7 [0.0")


def test_before_its_end_a_run_is_between_where_it_was_read(agents):
    keep(agents, "spa", 0, [8, 8, 8], 200, [validated(100), validated(100, 8, 8, 8)])
    facts = json.loads(agents._kept("sokoban", "spa", 0).read_text())
    # 0.25 at the start, 0.5 after self-play, 1 at the end.
    expected = {0: 0.25, 100: 0.375, 200: 0.5, 300: 0.75, 400: 1.0, 500: 1.0}
    assert {taken: agents._at({0: facts}, taken)[0].mean() for taken in expected} == expected
    keep(agents, "state-estimation", 0, [8, 8, 8], 0, [validated(500)])
    assert "Pass@1 at 400 actions" in agents.table("sokoban")  # those of self-play among them
    keep(agents, "imagined", 0, [8, 8, 8])
    assert agents._at({0: json.loads(agents._kept("sokoban", "imagined", 0).read_text())}, 100) == {}


def test_differences_are_paired_by_layout_and_seed(agents):
    curve = [validated(100, 0, 0, 0)]
    keep(agents, "spa", 0, [4, 6, 8], 100, curve)
    keep(agents, "spa", 1, [8, 8, 8], 100, curve)
    keep(agents, "state-estimation", 0, [2, 4, 6], 0, curve)
    keep(agents, "vanilla", 0, [0, 2, 4], 0, curve)
    keep(agents, "online", 2, [2, 4, 6], 0, curve)
    text = agents.table("sokoban")
    _, apart = tables(text)
    alone = first_table(text)["RL + state estimation"]["Pass@1"]
    low, high = map(float, re.findall(r"[\d.]+", alone)[1:])
    assert low < 40 and high > 60  # of a single seed, over its layouts, which differ
    # SPA's other seed has nothing to be paired with, and `online` none at all.
    assert {names: (cells["Pass@1"], cells["seeds"]) for names, cells in apart.items()} == {
        ("vanilla RL", "SPA"): ("-50.0 [-50.0, -50.0]", "1"),
        ("RL + state estimation", "SPA"): ("-25.0 [-25.0, -25.0]", "1"),
        ("RL + state estimation", "vanilla RL"): ("+25.0 [+25.0, +25.0]", "1"),
    }
    # At 100 actions SPA has only played itself.
    at_budget = "Pass@1 at 100 actions"
    assert apart["vanilla RL", "SPA"][at_budget].startswith("-25.0 [")
    assert apart["RL + state estimation", "SPA"][at_budget].startswith("+0.0 [")
    assert text.startswith(
        "Not run yet: vanilla RL (seeds 1, 2); RL + state estimation (seeds 1, 2); "
        "online world modelling (seeds 0, 1); SPA (seed 2); SPA, 1 epoch of SFT; "
    )


def test_a_kept_file_of_another_recipe_is_not_taken_for_this_one(agents):
    keep(agents, "spa", 0, [4, 4, 4], 50, [validated(100)])
    asked = {seed: (agents._kept("sokoban", "spa", seed), "another") for seed in (0, 1)}
    todo, [error] = agents.running.missing(asked)
    assert todo == [1]
    assert "spa-seed0.json is of another recipe; remove it" in error
    same = {0: (asked[0][0], json.loads(asked[0][0].read_text())["recipe"])}
    assert agents.running.missing(same) == ([], [])
    assert "| SPA |" in agents.table("sokoban")
    recipe = json.loads(asked[0][0].read_text())["recipe"]
    asked[0][0].write_text(asked[0][0].read_text().replace("iterations = ", "iterations = 1"))
    assert recipe != json.loads(asked[0][0].read_text())["recipe"]
    assert agents.table("sokoban") == "Not run yet.\n"


def test_rows_of_a_seed_that_begin_with_other_policies_are_told(agents):
    for seed in (0, 1, 2):
        keep(agents, "spa", seed, [4, 4, 4], 50, [validated(100)], start=f"of {seed}")
        keep(agents, "vanilla", seed, [4, 4, 4], 0, [validated(100)], start=f"of {max(seed, 1)}")
    assert agents.table("sokoban").count("In seed 0 not all rows begin with one policy") == 1
    keep(agents, "vanilla", 2, [4, 4, 4], 0, [validated(100)], start="anew")
    assert "In seeds 0, 2 not all rows begin with one policy" in agents.table("sokoban")
    for seed in (0, 2):
        keep(agents, "vanilla", seed, [4, 4, 4], 0, [validated(100)], start=f"of {seed}")
    assert "not all rows" not in agents.table("sokoban")


SMALL = {
    "play.options": "{size = 3, slippery = false}",
    "play.turns": "1",
    "play.reply": "48",
    "model.hidden": "48",
    "model.layers": "1",
    "model.heads": "4",
    "base.episodes": "20",
    "base.steps": "40",
    "self_play.groups": "2",
    "self_play.size": "2",
    "tune.epochs": "1",
    "rl.iterations": "1",
    "rl.groups": "2",
    "rl.size": "2",
    "evaluation.seeds": "2",
    "evaluation.samples": "1",
    "evaluation.last_samples": "1",
}
"""A recipe on a frozen lake that takes seconds."""


def test_rows_are_run_from_one_start_and_kept(agents, tmp_path, monkeypatch):
    recipe = tmp_path / "small.toml"
    recipe.write_text(agents.settings.load(ROOT / "recipes" / "spa-frozenlake.toml", SMALL).toml())
    monkeypatch.setattr(agents.acting, "recipe_of", lambda world: recipe)
    monkeypatch.setattr(agents, "DEMONSTRATED", 30)
    todo = [("frozenlake", "state-estimation", 0), ("frozenlake", "cloned", 0)]
    assert agents.carry_out(todo, tmp_path / "runs", processes=1) == []
    first, second = (json.loads(agents._kept(*one).read_text()) for one in todo)
    assert "start-seed0" not in first["recipe"]
    assert agents.settings.load(recipe, {"method": "rl"}).toml() == first["recipe"]
    assert [line["iteration"] for line in first["curve"]] == [1]
    # What the start was taught is not taught again.
    made = (tmp_path / "runs" / "agents" / "frozenlake").glob("*/phases/*")
    assert sorted(f"{path.parent.parent.name} {path.name}" for path in made) == [
        "cloned-seed0 01-demonstrations",
        "cloned-seed0 02-clone",
        "start-seed0 01-start",
        "start-seed0 02-base-episodes",
        "start-seed0 03-base",
        "start-seed0 04-rl",
        "state-estimation-seed0 01-rl",
    ]
    assert second["results"]["steps"] == {"self-play": 0, "rl": 0}
    assert first["start"] == second["start"]
    # Of what was kept a table can be made, and no path of this machine is in it.
    assert str(tmp_path) not in second["recipe"]
    assert len(first["layouts"]) == len(set(first["layouts"])) == 2
    [tested] = [row for row in first["results"]["rows"] if (row["policy"], row["metric"]) == ("rl", "pass_at_1")]
    assert (len(tested["successes"]), tested["samples"]) == (2, 1)
    monkeypatch.setattr(agents, "_has", lambda world, row: row in ("cloned", "state-estimation", "spa", "vanilla"))
    assert set(first_table(agents.table("frozenlake"))) == {
        "RL + state estimation",
        "cloning the solver, all actions given",
    }


def test_a_start_that_fails_is_told_and_its_rows_are_not_run(agents, tmp_path, monkeypatch):
    recipe = tmp_path / "small.toml"
    recipe.write_text((ROOT / "recipes" / "spa-frozenlake.toml").read_text().replace("threads = 1", "threads = 0"))
    monkeypatch.setattr(agents.acting, "recipe_of", lambda world: recipe)
    [error] = agents.carry_out([("frozenlake", "spa", 0), ("frozenlake", "states", 0)], tmp_path / "runs", 1)
    assert "start-seed0: exit code 2" in error
    assert not (tmp_path / "frozenlake").exists()


WORLDS = ["sokoban", "frozenlake", "sudoku"]
SAID = {"sokoban": 6, "frozenlake": 7}
"""Worlds whose tables are also told in words, and how many intervals at least those have."""


@pytest.mark.parametrize("world", WORLDS)
def test_the_page_shows_what_the_kept_files_hold(world):
    agents = load_benchmark("agents")
    page = agents.PAGE.read_text(encoding="utf-8")
    begin, end = (f"<!-- agents-{world}:{mark} -->" for mark in ("begin", "end"))
    assert page.split(begin)[1].split(end)[0] == f"\n\n{agents.table(world)}\n"
    assert set(agents.WORLDS) == set(WORLDS)


INTERVAL = re.compile(r"([-+]?\d+\.\d) \[([-+]?\d+\.\d), ([-+]?\d+\.\d)\]")


def intervals(text):
    """The figures with intervals of a text, each also as it reads where what is compared changes places."""
    found = [tuple(map(float, one)) for one in INTERVAL.findall(text)]
    return found, {*found, *((-value, -high, -low) for value, low, high in found)}


@pytest.mark.parametrize(("world", "least"), SAID.items())
def test_what_is_said_of_a_table_are_its_figures(world, least):
    page = load_benchmark("agents").PAGE.read_text(encoding="utf-8")
    table, rest = page.split(f"<!-- agents-{world}:begin -->")[1].split(f"<!-- agents-{world}:end -->")
    told, _ = intervals(rest.split("\n### ")[0])
    assert len(told) >= least
    assert set(told) <= intervals(table)[1]


def test_what_is_said_of_single_seeds_is_what_the_kept_files_hold():
    agents = load_benchmark("agents")
    seeds = agents.running.SEEDS

    def ended(row):
        by_seed = agents.running.kept({seed: agents._asked("frozenlake", row, seed) for seed in seeds})
        return agents._passed(by_seed, "rl", *agents.PASSED["Pass@1"])

    spa, alone = ended("spa"), ended("vanilla")
    first, second, third = (100 * (spa[seed].mean() - alone[seed].mean()) for seed in seeds)
    told = f"seed by seed {first:.1f}, {second:.1f} and {third:.1f} over RL alone"
    assert told in agents.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("world", WORLDS)
def test_every_row_of_a_world_begins_with_the_same_policy(agents, world):
    lessons = []
    for row in agents.ROWS.values():
        recipe = agents.settings.load(ROOT / "recipes" / f"spa-{world}.toml", row.overrides)
        taught = [(arena.options, terms) for arena, terms in stages.Stages(SimpleNamespace(), recipe)._lessons()]
        lessons.append((taught, recipe.seed, recipe.model, recipe.base))
    assert all(one == lessons[0] for one in lessons)
    assert len({str(arena) for arena, _ in lessons[0][0]}) == 2
