import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swirl.importers import pages
from swirl.metrics import structured_f1
from swirl.structure import structure

PAGE = 'page "Login" login.html\n"Press \\"login\\"."\n[1] input "Name" = "" focused\n[2] button "Login"'
HTML = '<ul class="menu"><li>Tea</li><li>Cake</li></ul><input name="q" value="">'

scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12).filter(
    lambda value: isinstance(value, dict | list)
)
PIECES = [
    "{",
    "}",
    "[",
    "]",
    '"',
    ":",
    ",",
    "1",
    "a",
    " ",
    "\n",
    "<a>",
    "</a>",
    "<p x='1'>",
    "<!",
    "tool: ",
    'page "x" y',
]
wild = st.text() | st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


def test_leaves_of_json():
    found = structure('output: {"a": [1, {"b": null}], "c": {}, "d": []}')
    assert found.kind == "json"
    assert found.leaves == Counter([(("a", 0), "1"), (("a", 1, "b"), "null"), (("c",), "{}"), (("d",), "[]")])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "[]"),
        ('tool: {\n  "a": 1\n}', '{"a": 1}'),
        ("user: hello\ntool: [1]\nassistant: so\ntool: [2]", "[2]"),  # the last one
        ('user: buy it\noutput: {"a": 1}\nShop.stock {"b": 2}', '{"a": 1}'),  # a fact is no output
        ('{"a":\n[\n1\n]\n}', '{"a": [1]}'),  # its inner lines are part of it
        ('{"a": "{\\n"}\r', '{"a": "{\\n"}'),
    ],
)
def test_json_is_found_in_whole_lines(text, expected):
    assert structured_f1(text, expected) == 1
    assert structured_f1(expected, text) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "room 8 8\nagent 1 2",
        "3",
        '"a"',
        "[1] input",
        'so {"a": 1}',
        'output: {"a": 1} … 300 characters',
        '{"a": 1',
        "a < b",
        "<3 hearts",
        "[" * 100_000,
        "[" + "9" * 10_000 + "]",
    ],
)
def test_texts_without_a_tree(text):
    assert structure(text) is None
    assert structured_f1('{"a": 1}', text) is None
    assert structured_f1(text, '{"a": 1}') == 0


def test_structured_f1_by_hand():
    truth = '{"files": ["a", "b"], "size": 3}'
    # One of three leaves differs: 2·2 / (3 + 3).
    assert structured_f1('{"size": 3, "files": ["a", "c"]}', truth) == pytest.approx(2 / 3)
    # One leaf is missing: 2·2 / (2 + 3).
    assert structured_f1('{"files": ["a"], "size": 3}', truth) == pytest.approx(0.8)
    # Places in an array count: 2·1 / (3 + 3).
    assert structured_f1('{"files": ["b", "a"], "size": 3}', truth) == pytest.approx(1 / 3)
    assert structured_f1("the files are a and b", truth) == 0


@pytest.mark.parametrize("other", ["[1.0]", '["1"]', "[true]", "[[1]]", '{"0": 1}', "[null]"])
def test_values_of_different_types_differ(other):
    assert structured_f1(other, "[1]") == 0


def test_leaves_of_a_page():
    found = structure(PAGE)
    assert found.kind == "page"
    assert found.leaves == Counter(
        [
            ((), 'page "Login" login.html'),
            ((), '"Press \\"login\\"."'),
            (("input", '"Name"'), '= "" focused'),
            (("button", '"Login"'), ""),
        ]
    )


def test_an_element_more_does_not_renumber_a_page():
    lines = PAGE.split("\n")
    more = "\n".join([*lines[:2], '[1] link "Home"', lines[2].replace("1", "2"), lines[3].replace("2", "3")])
    assert structured_f1(more, PAGE) == pytest.approx(2 * 4 / (4 + 5))
    assert structured_f1(PAGE.replace('= ""', '= "JAze"'), PAGE) == 0.75


def test_leaves_of_html():
    assert structure(HTML).leaves == Counter(
        [
            (("ul",), ""),
            (("ul", "@class"), "menu"),
            (("ul", "li"), ""),
            (("ul", "li"), ""),
            (("ul", "li", "text"), "Tea"),
            (("ul", "li", "text"), "Cake"),
            (("input",), ""),
            (("input", "@name"), "q"),
            (("input", "@value"), ""),
        ]
    )
    # Cake moved out of its item: 2·8 / (9 + 9).
    assert structured_f1(HTML.replace("<li>Cake</li>", "<li></li>Cake"), HTML) == pytest.approx(8 / 9)
    assert structured_f1("<!DOCTYPE html>\n" + HTML.replace("><", ">\n  <"), HTML) == 1


def test_html_as_the_importer_writes_it_has_no_nesting():
    lines = pages.lines(HTML)
    assert lines.split("\n")[:2] == ['<ul class="menu">', "Tea"]
    assert structure(lines).leaves[("text",), "Cake"] == 1
    assert structured_f1(lines.replace("Cake", "Pie"), lines) == pytest.approx(1 - 1 / structure(lines).leaves.total())


def test_trees_of_different_kinds_are_not_compared():
    assert structured_f1(HTML, PAGE) == structured_f1(PAGE, HTML) == structured_f1("[]", HTML) == 0


@given(wild, wild)
def test_nothing_raises_and_all_is_within_bounds(one, other):
    forth, back = structured_f1(one, other), structured_f1(other, one)
    assert forth is None or 0 <= forth <= 1
    if forth is not None and back is not None:
        assert forth == back
        assert (forth == 1) == (structure(one) == structure(other))
    assert structured_f1(one, one) in (1, None)


@given(values, values, st.sampled_from([None, 2]), st.booleans())
def test_json_scores_1_exactly_where_it_is_the_same(one, other, indent, sort):
    assert structured_f1(json.dumps(one, indent=indent, sort_keys=sort), json.dumps(one)) == 1
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    score = structured_f1(json.dumps(one), json.dumps(other))
    assert (score == 1) == same
    assert score == structured_f1(json.dumps(other), json.dumps(one))
