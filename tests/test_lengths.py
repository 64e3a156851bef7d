import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from swirl import models, prompts
from swirl.errors import InputError
from swirl.methods.lengths import check_lengths
from swirl.recipe import parse_recipe

INFERRED = 5
ROW = {"state": "door open\nkey", "next_state": "door shut\ngo left", "trajectory": "t7", "step": 3}
PAIR = {**ROW, "action": ""}


@pytest.fixture
def tokenizer(tiny):
    return models.load_tokenizer(tiny)


def length(tokenizer, role, row, style, completion=None):
    return sum(map(len, prompts.encode(tokenizer, role, row, style, 9999, completion)))


def needs(tokenizer, task, style):
    """The tokens of the longest text that each kind of phase encodes for a row."""
    if task == "pretrain":
        roles = ["forward"] if style.endswith("-change") else ["forward", "inverse"]
        return max(length(tokenizer, role, PAIR, style, prompts.pretext(role, PAIR, style)[1]) for role in roles)
    if task == "inferred":
        return max(length(tokenizer, role, PAIR, style) for role in ("forward", "inverse")) + INFERRED
    return max(length(tokenizer, role, {**ROW, "action": "go right"}, style) for role in ("forward", "inverse"))


def check(tiny, folder, name, methods, style, max_length, row=ROW, **options):
    """Run the check where one of the four files has one row."""
    schema = pa.schema([(key, pa.int64() if key == "step" else pa.string()) for key in [*ROW, "action"]])
    for file in ("labelled", "state_only", "validation", "test"):
        rows = [] if file != name else [row if file == "state_only" else {**row, "action": "go right"}]
        kept = schema if file != "state_only" else schema.remove(schema.get_field_index("action"))
        pq.write_table(pa.Table.from_pylist(rows, schema=kept), folder / f"{file}.parquet")
    model = {"name": str(tiny), "max_length": max_length, "prompt": style}
    check_lengths(parse_recipe({"methods": methods, "model": model, **options}), folder, tiny, INFERRED)


@pytest.mark.parametrize("style", ["terse", "instruct", "terse-change"])
@pytest.mark.parametrize(
    ("name", "methods", "task"),
    [
        ("labelled", ["pretrain"], "pretrain"),
        ("state_only", ["pretrain"], "pretrain"),
        ("labelled", ["warmup"], "supervised"),
        ("labelled", ["swirl"], "supervised"),
        ("state_only", ["verified"], "inferred"),
        ("state_only", ["warmup", "swirl"], "inferred"),
        ("state_only", ["bootstrap"], "inferred"),
        ("state_only", ["rlvr"], "inferred"),
        ("validation", [], "supervised"),
        ("test", ["warmup"], "supervised"),
    ],
)
def test_what_a_phase_encodes_is_what_has_to_fit(tiny, tokenizer, tmp_path, name, methods, task, style):
    longest = needs(tokenizer, task, style)
    check(tiny, tmp_path, name, methods, style, longest)
    with pytest.raises(InputError, match=rf"trajectory 't7' step 3: {longest} tokens as an? (forward|inverse) prompt"):
        check(tiny, tmp_path, name, methods, style, longest - 1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("labelled", {"methods": []}),
        ("state_only", {"methods": ["warmup", "oracle"]}),
        ("labelled", {"methods": ["warmup"], "warmup": {"steps": 0}}),
        ("state_only", {"methods": ["verified"], "verified": {"rounds": 0}}),
    ],
)
def test_what_no_phase_encodes_need_not_fit(tiny, tmp_path, name, options):
    check(tiny, tmp_path, name, style="terse", max_length=17, **options)


def test_all_that_goes_has_to_fit_where_it_is_read(tiny, tokenizer, tmp_path):
    row = {**ROW, "state": "\n".join(["lamp"] * 60), "next_state": "door"}
    longest = length(tokenizer, "inverse", {**row, "action": "go right"}, "terse-change-only")
    check(tiny, tmp_path, "labelled", ["warmup"], "terse-change-only", longest, row)
    with pytest.raises(InputError, match=f"{longest} tokens as an inverse prompt"):
        check(tiny, tmp_path, "labelled", ["warmup"], "terse-change-only", longest - 1, row)


def test_histories_and_control_tokens_that_are_spelt_out_count(tiny, tokenizer, tmp_path):
    row = {**ROW, "state": "door<|next|>" * 9}
    longest = max(length(tokenizer, role, {**row, "action": "go right"}, "terse") for role in ("forward", "inverse"))
    assert longest > 9 * len("<|next|>")
    check(tiny, tmp_path, "labelled", ["warmup"], "terse", longest, row)
    with pytest.raises(InputError, match=f"{longest} tokens"):
        check(tiny, tmp_path, "labelled", ["warmup"], "terse", longest - 1, row)
