import dataclasses
import tomllib
from pathlib import Path

import pytest

from swirl import cli, recipe
from swirl.agents import settings
from swirl.errors import InputError
from swirl.methods import METHODS
from swirl.recipe import load_recipe, parse_recipe

FOLDER = Path(__file__).parent.parent / "recipes"
AGENTS = sorted(FOLDER.glob("spa-*.toml"))
RECIPES = sorted(set(FOLDER.rglob("*.toml")) - set(AGENTS))
PAPER = {path.stem: path for path in sorted((FOLDER / "paper").glob("*.toml"))}


def name(path):
    return str(path.relative_to(FOLDER))


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_a_recipe_is_read_and_survives_being_written(path):
    recipe = load_recipe(path)
    assert parse_recipe(tomllib.loads(recipe.toml())) == recipe
    assert set(recipe.methods) <= set(METHODS)


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_a_recipe_opens_with_its_source_and_a_command_that_names_it(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"swirl train recipes/{name(path)}" in line for line in header)
    if path.parent.name == "paper":
        assert any("arXiv" in line for line in header)
        assert any("Expected" in line for line in header)
        assert any("Not run here" in line for line in header)


@pytest.mark.parametrize("path", AGENTS, ids=name)
def test_an_agents_recipe_is_read_survives_being_written_and_names_its_command(path, tmp_path):
    recipe = settings.load(path)
    (tmp_path / "again.toml").write_text(recipe.toml())
    assert settings.load(tmp_path / "again.toml") == recipe
    assert f"swirl agent train recipes/{name(path)}" in path.read_text()


def test_a_recipe_for_another_command_is_refused_with_that_command(capsys):
    models, agents = FOLDER / "minigrid.toml", FOLDER / "spa-sokoban.toml"
    assert cli.main(["train", str(agents)]) == cli.main(["compare", str(agents), "--methods", "warmup"]) == 2
    assert cli.main(["agent", "train", str(models)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"swirl: {agents} is an agent's recipe; run: swirl agent train {agents}",
        f"swirl: {agents} is an agent's recipe; run: swirl agent train {agents}",
        f"swirl: {models} is no agent's recipe; run: swirl train {models}",
    ]


def test_a_recipe_that_comes_with_swirl_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe("minigrid") == load_recipe(FOLDER / "minigrid.toml")
    assert load_recipe("paper/mind2web") == load_recipe(PAPER["mind2web"])
    assert settings.load("spa-sokoban") == settings.load(FOLDER / "spa-sokoban.toml")
    (tmp_path / "minigrid").write_text("seed = 9\n")
    assert load_recipe("minigrid").seed == 9
    with pytest.raises(
        InputError, match=r"^no recipe at recipes/minigrid\.toml; .*: crafter-rgb, .*minigrid, .*paper/"
    ):
        load_recipe("recipes/minigrid.toml")
    monkeypatch.setattr(recipe, "FOLDERS", (tmp_path / "none", FOLDER))  # as installed from a wheel
    assert load_recipe("minigrid-rgb") == load_recipe(FOLDER / "minigrid-rgb.toml")


def test_a_misspelt_key_is_no_recipe_of_the_other_kind(tmp_path):
    (tmp_path / "r.toml").write_text('method = ["warmup"]\n[warmup]\nsteps = 3\n')
    with pytest.raises(InputError, match="unknown recipe key method; did you mean methods"):
        load_recipe(tmp_path / "r.toml")


def test_the_keys_that_tell_an_agents_recipe_are_its_keys():
    assert {field.name for field in dataclasses.fields(settings.AgentRecipe)} == recipe.AGENTS


@pytest.mark.parametrize("path", PAPER.values(), ids=name)
def test_a_step_divides_into_the_trainers_batches(path):
    recipe = load_recipe(path)
    rows = recipe.swirl.prompts * recipe.swirl.generations
    for batch in (rows, recipe.warmup.batch):
        assert batch % recipe.trainer["per_device_train_batch_size"] == 0
    assert recipe.evaluation.select == "last"
    assert recipe.swirl.setting == "published"
    assert (recipe.swirl.min_spread, recipe.swirl.replay, recipe.swirl.fidelity) == (0, 0, 0)


def test_text_recipes_have_the_papers_settings():
    for stem, completions, generations in (
        ("scienceworld", 128, 16),
        ("mind2web", 128, 16),
        ("stabletoolbench", 128, 64),
    ):
        recipe = load_recipe(PAPER[stem])
        swirl = recipe.swirl
        assert (swirl.prompts * swirl.generations, swirl.generations) == (completions, generations)
        assert (swirl.learning_rate, swirl.lr_warmup, swirl.beta) == (5e-5, 25, 0.1)
        assert (swirl.temperature, swirl.top_p) == (0.7, 0.96)
        assert recipe.warmup.batch == 128
    assert load_recipe(PAPER["stabletoolbench"]).model.max_length == 8126 + 4096


def test_visual_recipes_have_the_papers_settings():
    found = {}
    for stem in ("liquid-aurora", "liquid-aurora-iterative", "liquid-aurora-shared"):
        recipe = load_recipe(PAPER[stem])
        swirl = recipe.swirl
        assert (swirl.temperature, swirl.top_p, swirl.beta, swirl.generations) == (0.75, 0.96, 0.1, 8)
        assert (recipe.warmup.learning_rate, recipe.warmup.batch, recipe.warmup.lr_warmup) == (2e-5, 128, 0.05)
        found[stem] = (swirl.prompts * 8, swirl.learning_rate, swirl.lr_warmup, recipe.model.shared)
    assert found == {
        "liquid-aurora": (64, 1e-6, 100, False),
        "liquid-aurora-iterative": (128, 2e-7, 50, False),
        "liquid-aurora-shared": (128, 5e-7, 50, True),
    }


def test_the_minigrid_recipes_differ_in_the_method_alone():
    """Comparisons are fair: same data, same labels, same model, same warm-up."""
    default = load_recipe(FOLDER / "minigrid.toml")
    for stem in ("published", "anchored"):
        recipe = load_recipe(FOLDER / f"minigrid-{stem}.toml")
        for part in ("data", "model", "pretrain", "warmup", "trainer", "threads", "seed"):
            assert getattr(recipe, part) == getattr(default, part), (stem, part)
