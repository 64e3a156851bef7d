import dataclasses
import math
import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl import recipe
from swirl.config import Recipe
from swirl.errors import InputError
from swirl.recipe import check_trainer, load_recipe, parse_recipe

SECTIONS = {
    field.name: type(getattr(Recipe(), field.name))
    for field in dataclasses.fields(Recipe)
    if dataclasses.is_dataclass(getattr(Recipe(), field.name))
}
KEYS = [("", field.name) for field in dataclasses.fields(Recipe) if field.name not in SECTIONS] + [
    (section, field.name) for section, cls in SECTIONS.items() for field in dataclasses.fields(cls)
]


def table(section, key, value):
    return {section: {key: value}} if section else {key: value}


def get(recipe, section, key):
    return getattr(getattr(recipe, section) if section else recipe, key)


def read(path, text, **overrides):
    file = path / "recipe.toml"
    file.write_text(text, encoding="utf-8")
    return load_recipe(file, {key.replace("__", "."): value for key, value in overrides.items()})


def test_an_empty_recipe_is_the_default():
    assert parse_recipe({}) == Recipe()


def test_values_land_where_they_belong(tmp_path):
    recipe = read(
        tmp_path,
        'methods = ["warmup", "swirl"]\nseed = 7\n[model]\nname = "some/model"\n[swirl]\nbeta = 1\n'
        "[data.options]\nenvironments = ['a', 'b']\n[trainer]\nweight_decay = 0.1\n",
    )
    assert recipe.methods == ("warmup", "swirl")
    assert (recipe.seed, recipe.model.name, recipe.swirl.beta) == (7, "some/model", 1.0)
    assert isinstance(recipe.swirl.beta, float)
    assert recipe.data.options == {"environments": ["a", "b"]}
    assert recipe.trainer == {"weight_decay": 0.1}
    assert recipe.warmup == Recipe().warmup


# Unknown keys, wrong types, values out of range


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sed": 1}, r"unknown recipe key sed; did you mean seed\?"),
        ({"swirl": {"bata": 1}}, r"unknown recipe key swirl.bata; did you mean swirl.beta\?"),
        ({"swril": {"beta": 1}}, r"unknown recipe key swril; did you mean swirl\?"),
        ({"warmup": {"lr": 1}}, "unknown recipe key warmup.lr; known: steps, batch, learning_rate, lr_warmup"),
        ({"model": {"hiden": 1}}, r"did you mean model.hidden\?"),
    ],
)
def test_an_unknown_key_names_the_nearest(given, message):
    with pytest.raises(InputError, match=message):
        parse_recipe(given)


def test_every_misspelt_key_is_an_error_that_names_the_right_one():
    for section, key in KEYS:
        near = f"did you mean {section + '.' if section else ''}{key}?"
        with pytest.raises(InputError) as caught:
            parse_recipe(table(section, key + "x", 1))
        assert near in str(caught.value)


WRONG = {
    "whole number": ["1", 1.5, True, [1], {"a": 1}, None],
    "number": ["1.0", True, [1.0], {}, None, 10**400],
    "string": [1, True, ["a"], {}],
    "true or false": [0, 1, "true", []],
}


@pytest.mark.parametrize(
    ("section", "key", "kind"),
    [
        ("", "seed", "whole number"),
        ("warmup", "steps", "whole number"),
        ("swirl", "beta", "number"),
        ("model", "name", "string"),
        ("model", "shared", "true or false"),
    ],
)
def test_a_value_of_another_type_names_the_type(section, key, kind):
    for value in WRONG[kind]:
        with pytest.raises(InputError, match=kind) as caught:
            parse_recipe(table(section, key, value))
        assert str(caught.value).startswith(f"{section + '.' if section else ''}{key} = ")


def test_one_name_is_a_list_of_one():
    assert parse_recipe({"methods": "warmup"}) == parse_recipe({"methods": ["warmup"]})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": 1}, "methods = 1, expected a list"),
        ({"evaluation": {"best_of": 2}}, "evaluation.best_of = 2, expected a list"),
        ({"methods": ["warmup", 1]}, "methods = 1, expected a string"),
        ({"model": 3}, r"model = 3, expected a section \[model\]"),
        ({"swirl": {"setting": "fast"}}, "swirl.setting = 'fast', expected one of 'published', 'elbo'"),
        ({"swirl": {"setting": ["elbo"]}}, "expected one of 'published', 'elbo'"),
        ({"data": {"behaviours": {"gold": "all"}}}, "data.behaviours = 'all', expected a number"),
        ({"data": {"behaviours": ["gold"]}}, "expected a section"),
        ({"data": {"options": 1}}, "data.options = 1, expected a section"),
    ],
)
def test_lists_sections_and_choices(given, message):
    with pytest.raises(InputError, match=message):
        parse_recipe(given)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("", "threads", 0),
        ("", "seed", -1),
        ("data", "transitions", 0),
        ("data", "validation", -0.1),
        ("data", "test", 1.0),
        ("data", "labels", -5),
        ("model", "max_length", 0),
        ("model", "lora_rank", -1),
        ("pretrain", "steps", 0),
        ("pretrain", "batch", 0),
        ("warmup", "steps", -1),
        ("warmup", "batch", 0),
        ("warmup", "learning_rate", 0.0),
        ("warmup", "learning_rate", math.nan),
        ("warmup", "lr_warmup", -0.5),
        ("swirl", "steps", 0),
        ("swirl", "generations", 1),
        ("swirl", "beta", -0.1),
        ("swirl", "beta", math.inf),
        ("swirl", "temperature", 0.0),
        ("swirl", "top_p", 0.0),
        ("swirl", "top_p", 1.5),
        ("swirl", "floor", -math.inf),
        ("swirl", "floor", 0.0),
        ("swirl", "replay", -1.0),
        ("swirl", "min_spread", math.nan),
        ("verified", "precision", 0.0),
        ("verified", "precision", 1.01),
        ("verified", "coverage", 1.01),
        ("verified", "coverage", -0.1),
        ("verified", "label_share", 1.0),
        ("verified", "candidates", 0),
        ("evaluation", "checkpoints", 0),
        ("evaluation", "max_rows", -1),
    ],
)
def test_a_value_that_no_run_could_use_is_refused(section, key, value):
    with pytest.raises(InputError, match=rf"^{section + '.' if section else ''}{key} = .*, expected "):
        parse_recipe(table(section, key, value))


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("warmup", "steps", 0),
        ("verified", "pairs", 0),
        ("verified", "precision", 1.0),
        ("swirl", "beta", 0.0),
        ("swirl", "top_p", 1.0),
        ("swirl", "lr_warmup", 25),
        ("evaluation", "max_rows", 0),
        ("data", "validation", 0.0),
        ("data", "labels", 0),
    ],
)
def test_the_ends_of_ranges_are_in(section, key, value):
    assert get(parse_recipe(table(section, key, value)), section, key) == value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": {"validation": 0.5, "test": 0.5}}, "must leave something for training"),
        ({"data": {"labels": 10, "validation_labels": 10}}, "data.validation_labels = 10 uses up data.labels = 10"),
        (
            {"model": {"prompt": "terse-change"}, "inferred": {"change_weight": 3}},
            "inferred.change_weight = 3.0 with model.prompt = 'terse-change', where next states are",
        ),
        ({"model": {"hidden": 30, "heads": 4}}, "model.hidden = 30, expected a multiple of twice model.heads = 4"),
    ],
)
def test_values_that_do_not_go_together(given, message):
    with pytest.raises(InputError, match=message):
        parse_recipe(given)


def test_the_shape_of_tiny_does_not_bind_other_models():
    assert parse_recipe({"model": {"name": "other", "hidden": 30, "heads": 4}}).model.hidden == 30


# [trainer]


@pytest.mark.parametrize(
    ("key", "value", "mend"),
    [
        ("max_steps", 5, "change the steps of its section, as in warmup.steps"),
        ("learning_rate", 1e-3, "change the learning_rate of its section, as in warmup.learning_rate"),
        ("warmup_steps", 3, "change the lr_warmup of"),
        ("gradient_accumulation_steps", 2, "change that, or trainer.per_device_train_batch_size"),
        ("seed", 1, "change seed"),
        ("data_seed", 1, "change seed"),
        ("model_init_kwargs", {"dtype": "bfloat16"}, "change model.dtype"),
        ("max_completion_length", 3, "change model.max_length"),
        ("num_generations", 4, "change swirl.generations"),
        ("beta", 0.0, "change swirl.beta"),
        ("loss_type", "grpo", "change swirl.setting"),
        ("output_dir", "elsewhere", "use --out"),
        ("save_steps", 10, "change evaluation.checkpoints"),
        ("save_strategy", "no", "change evaluation.checkpoints"),
        ("shuffle_dataset", True, "seed decides the order"),
        ("train_sampling_strategy", "random", "seed decides the order"),
        ("num_iterations", 2, "leave it out"),
        ("packing", True, "leave it out"),
    ],
)
def test_a_trainer_key_that_is_set_elsewhere_is_refused(tmp_path, key, value, mend):
    with pytest.raises(InputError) as caught:
        parse_recipe({"trainer": {"weight_decay": 0.1, key: value}})
    message = str(caught.value)
    assert message.startswith(f"trainer.{key} is ") and mend in message and "\n" not in message
    with pytest.raises(InputError, match=rf"^trainer\.{key} is "):
        read(tmp_path, "seed = 1", **{f"trainer__{key}": str(value).lower()})


def test_the_mend_of_a_trainer_key_names_keys_that_exist():
    known = {f"{section}.{key}" for section, key in KEYS if section} | {key for section, key in KEYS if not section}
    for why, keys in recipe._RESERVED.items():
        assert keys.split()
        for name in re.findall(r"\w+\.\w+", why):
            assert name in known | {"trainer.per_device_train_batch_size"}, name
        for section in re.findall(r"\[(\w+)\]", why):
            assert section in SECTIONS, section


def test_other_trainer_keys_pass():
    check_trainer({"per_device_train_batch_size": 8, "optim": "sgd", "max_grad_norm": 0.5, "report_to": "trackio"})


# Files and overrides


def test_a_file_that_is_not_there_or_is_no_toml(tmp_path):
    with pytest.raises(InputError, match="no recipe at"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(InputError, match="is not TOML"):
        read(tmp_path, "seed = = 1")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not TOML"):
        load_recipe(tmp_path / "binary.toml")
    with pytest.raises(InputError, match="cannot read"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("section", "key", "text", "value"),
    [
        ("", "seed", "7", 7),
        ("warmup", "learning_rate", "1e-5", 1e-5),
        ("warmup", "learning_rate", "1", 1.0),
        ("model", "name", "some/model", "some/model"),
        ("model", "name", '"123"', "123"),
        ("model", "name", "C:\\models\\tiny", "C:\\models\\tiny"),
        ("model", "shared", "true", True),
        ("swirl", "setting", "elbo", "elbo"),
        ("", "methods", '["swirl"]', ("swirl",)),
        ("data", "behaviours", "{gold = 0.5, random = 1}", {"gold": 0.5, "random": 1.0}),
        ("data", "path", "", ""),
    ],
)
def test_an_override_is_toml_or_a_bare_word(tmp_path, section, key, text, value):
    name = f"{section}.{key}" if section else key
    recipe = read(tmp_path, "seed = 1\n[model]\nname = 'base'\n", **{name: text})
    assert get(recipe, section, key) == value
    if key != "seed":
        assert recipe.seed == 1
    if key != "name":
        assert recipe.model.name == "base"


def test_overrides_reach_into_open_sections_and_make_sections(tmp_path):
    recipe = read(tmp_path, "seed = 1", trainer__weight_decay="0.5", data__options__size="[6, 6]", swirl__beta="1")
    assert recipe.trainer == {"weight_decay": 0.5}
    assert recipe.data.options == {"size": [6, 6]}
    assert recipe.swirl.beta == 1.0


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("seed.x", "--seed.x: seed is a value, not a section"),
        ("sead", r"unknown recipe key sead; did you mean seed\?"),
        ("swirl.batch_size", "unknown recipe key swirl.batch_size"),
    ],
)
def test_an_override_of_what_is_not_there(tmp_path, key, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, "seed = 1", **{key: "1"})


# Writing


RESERVED = {key for keys in recipe._RESERVED.values() for key in keys.split()}
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20)
FLOATS = st.floats(allow_nan=False)
SCALARS = TEXT | FLOATS | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.dates() | st.times() | st.datetimes()
OPEN = st.dictionaries(
    TEXT, st.recursive(SCALARS, lambda x: st.lists(x, max_size=3) | st.dictionaries(TEXT, x, max_size=3), max_leaves=6)
)


@given(
    name=TEXT.filter(lambda text: text != "tiny"),
    rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    beta=st.floats(min_value=0, allow_infinity=False),
    shares=st.dictionaries(TEXT, FLOATS, max_size=3),
    trainer=OPEN.filter(lambda trainer: not trainer.keys() & RESERVED),
    options=OPEN,
    methods=st.lists(TEXT, max_size=3),
)
def test_a_written_recipe_reads_back_equal(name, rate, beta, shares, trainer, options, methods):
    recipe = parse_recipe(
        {
            "methods": methods,
            "model": {"name": name},
            "warmup": {"learning_rate": rate},
            "swirl": {"beta": beta},
            "data": {"behaviours": shares, "options": options},
            "trainer": trainer,
        }
    )
    again = parse_recipe(tomllib.loads(recipe.toml()))
    assert again == recipe
    assert again.toml() == recipe.toml()


def test_a_written_recipe_holds_every_key():
    written = tomllib.loads(Recipe().toml())
    for section, key in KEYS:
        assert key in (written[section] if section else written)
