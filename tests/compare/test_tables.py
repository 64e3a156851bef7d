"""The tables of a comparison, from kept files with known numbers."""

import numpy as np
import pytest
from kept_runs import cell, point, results_of, three_methods

from swirl.compare import reading, summary, tables


@pytest.fixture
def cells():
    return three_methods()


@pytest.fixture
def results(cells):
    return results_of(cells)


def values(results, unit="cpu_seconds"):
    forward = [r for r in results["rows"] if r["unit"] == unit and r["role"] in ("forward", "both")]
    return {(r["method"], r["statistic"]): r["value"] for r in forward}


def test_values_differences_gaps_and_costs(results):
    found = values(results)
    # Of 5 rows: 1 right after the warm-up, 4 by verified, 5 by the oracle; swirl has 1 + 1 * (50 - 30) / (90 - 30).
    swirl = (1 + 1 / 3) / 5
    expected = {
        ("warmup", "value"): 1 / 5,
        ("verified", "value"): 4 / 5,
        ("swirl", "value"): swirl,
        ("oracle", "value"): 1,
        ("copy-input", "value"): 0,
        ("warmup", "cost"): 30,
        ("warmup", "difference"): -3 / 5,
        ("swirl", "difference"): swirl - 4 / 5,
        ("oracle", "difference"): 1 / 5,
        ("verified", "gap_closed"): 3 / 4,
        ("swirl", "gap_closed"): (swirl - 1 / 5) / (4 / 5),
        ("verified", "cost"): 50,
        ("swirl", "cost"): 50,
        ("oracle", "cost"): 99,
    }
    assert found == pytest.approx(expected)
    assert values(results, "tokens")["swirl", "cost"] == 500


def test_a_reward_stands_beside_what_it_brought(cells, results):
    cells["swirl"][1]["rewards"]["swirl1-forward-grpo"] = {"first": -0.7, "last": -0.65}
    (row,) = summary.rewarded(cells)
    found = {
        name: pytest.approx(value)
        for name, value in {"first": -0.6, "last": -0.45, "before": 0.2, "after": 0.4}.items()
    }
    assert row == {"method": "swirl", "phase": "swirl1-forward-grpo", "role": "forward", "seeds": 2, **found}
    lines = tables.tables(results)["Reward beside held-out quality, by phase"]
    assert lines[1] == ["`swirl`", "swirl1-forward-grpo", "2", "-0.500", "-0.250", "0.200", "0.400"]
    found = tables.tables({**results, "rewards": [], "tried": []})
    assert list(found) == [
        f"At equal {unit}{what}"
        for unit in ("CPU seconds", "tokens of training")
        for what in ("", ", less `verified`", ", gap closed")
    ]


def tried(results, *found):
    """The table's line for rates with these scores and changed facts F1, by rate."""
    rows = [dict(zip(("method", "learning_rate", "score", "facts"), ("swirl", *one), strict=True)) for one in found]
    head, line = tables.tables({**results, "tried": rows})["Learning rates on the tuning seed, both scores added up"]
    assert head == ["method", *(f"{rate:g}" for rate in sorted(one[0] for one in found)), ""]
    return line


def test_what_learning_rates_scored_is_told(results):
    lines = tables.tables(results)["Learning rates on the tuning seed, both scores added up"]
    assert lines == [["method", "1e-05", "0.0001", ""], ["`swirl`", "0.500", "0.250", ""]]  # of two all are at an edge
    assert tried(results, (1, 0.2, 0), (2, 0.4, 0), (3, 0.3, 0)) == ["`swirl`", "0.200", "0.400", "0.300", ""]
    assert tried(results, (3, 0.4, 0), (2, 0.3, 0), (1, 0.2, 0))[1:] == ["0.200", "0.300", "0.400", "best at the edge"]


def test_how_a_tie_of_learning_rates_was_decided_is_told(results):
    assert tried(results, (1, 0.4, 0.5), (2, 0.4, 0.6), (3, 0.3, 0.9))[-1] == "tie, 2 by changed facts F1"
    assert tried(results, (2, 0.4, 0.5), (1, 0.4, 0.5))[-1] == "tie, 2 given first"
    assert tried(results, (1, 0.4, 0.6), (2, 0.4, 0.5), (3, 0.4, 0.5))[-1] == (
        "tie, 1 by changed facts F1; best at the edge"
    )


def test_an_interval_holds_no_value_that_the_metric_cannot_have(cells):
    cells["verified"] = {s: cell(point("verified1-forward-sft", "forward", 50, [s, 3])) for s in (0, 1, 2)}
    rows = summary.summarise(cells, "verified")
    value, copied = (
        next(r for r in rows if (r["method"], r["metric"], r["statistic"]) == (method, "exact_match_changed", "value"))
        for method in ("verified", "copy-input")
    )
    assert (value["low"], value["high"]) == (0, 1)  # of 4/5 on average, with two degrees of freedom
    assert (copied["low"], copied["high"]) == (0, 0)


def test_metrics_of_frames_have_columns_and_decibels_their_own_range(cells):
    for by_seed in cells.values():
        for one in by_seed.values():
            one["counts"] = {role: {**of, "image_psnr_changed": [2, 3]} for role, of in one["counts"].items()}
            for at in one["points"]:
                if at["role"] == "forward":
                    at["sums"]["image_psnr_changed"] = [60 + 20 * value for value in at["sums"]["exact_match_changed"]]
    found = results_of(cells)
    [value] = [
        row
        for row in found["rows"]
        if (row["method"], row["metric"], row["statistic"], row["unit"])
        == ("verified", "image_psnr_changed", "value", "tokens")
    ]
    # 50 dB in two rows and 100 / 3 in three; of two layouts alone the interval would reach far beyond what can be.
    assert (value["low"], value["value"], value["high"]) == (0, pytest.approx(40), 60)
    assert "PSNR on changed, dB" in tables.text(found)


def test_states_that_are_images_have_no_metrics_of_language_and_the_ceiling_is_not_compared(cells):
    def metrics_of(statistic):
        rows = summary.summarise(cells, "verified")
        return {row["metric"] for row in rows if row["statistic"] == statistic and row["role"] == "forward"}

    for by_seed in cells.values():
        for one in by_seed.values():
            one["counts"] = {
                role: {**of, "rouge_l": [2, 3], "unreadable_rate": [2, 3]} for role, of in one["counts"].items()
            }
            for at in one["points"]:
                at["sums"] |= {"rouge_l": [1, 1], "unreadable_rate": [0, 0]}
    of_words = {"exact_match_net", "exact_match_changed", "unreadable_rate", "rouge_l"}
    assert metrics_of("value") == metrics_of("difference") == of_words
    for by_seed in cells.values():
        for one in by_seed.values():
            one["counts"]["forward"] |= {"image_exact_match": [2, 3], "image_psnr_ceiling": [2, 3]}
            for at in one["points"]:
                at["sums"] |= {"image_exact_match": [1, 1], "image_psnr_ceiling": [60, 90]}
    assert metrics_of("value") == of_words - {"rouge_l"} | {"image_psnr_ceiling"}
    assert metrics_of("difference") == of_words - {"rouge_l"}


def test_seconds_that_do_more_in_one_seed_than_in_another_are_told(cells):
    assert summary.warnings({"": cells}) == []
    spent = cells["swirl"][1]["points"][-1]  # 90 seconds for 900 tokens, as in the other seed
    spent["tokens"] = 720
    assert summary.warnings({"": cells}) == []
    spent["tokens"] = 700
    assert summary.warnings({"": cells}) == [
        "A token took 1.29 times as many CPU seconds in one seed of `swirl` as in another: equal CPU seconds are equal "
        "cost only so far."
    ]


def test_an_oracle_that_did_all_of_its_rounds_is_told(cells):
    cells["oracle"][1]["points"][-1]["phase"] = "oracle12-forward-sft"
    [told] = summary.warnings({"": cells})
    assert told.startswith("1 of 2 runs of `oracle` did all of their 12 rounds and may not have stopped improving:")


def test_machines_are_among_what_is_told(cells):
    cells["oracle"][1]["machine"] = {"cores": 4}
    [told] = summary.warnings({"": cells})
    assert "(cores 2 and 4)" in told
    cells["swirl"][0]["commit"] = "def5678"
    assert summary.warnings({"": cells}) == ["The runs are of 2 commits; the report lists which.", told]


def test_a_warm_up_that_was_trained_anew_is_told(cells):
    other = {**cells["oracle"][1], "recipe": {"data": {"history": 1}}}  # whose warm-up is another by its recipe
    other["points"] = [one | {"sums": {name: [1, 1] for name in one["sums"]}} for one in other["points"]]
    cells["oracle"][1] = other
    assert summary.warnings({"": cells}) == []
    warm = cells["swirl"][1]["points"][1]
    assert warm["phase"] == "warmup-forward-sft"
    warm["sums"] = {"exact_match_changed": [1, 1]}
    [told] = summary.warnings({"": cells})
    assert told.startswith("In seed 1 not all runs begin from one warm-up: it was trained anew")


def test_a_difference_ends_where_those_of_the_metric_do(cells):
    """By seed 0, 1 and 5 of 5 rows more: with two degrees of freedom the interval would reach far beyond 1."""
    more = ([0, 0], [1, 0], [2, 3])
    cells = {
        "verified": {s: cell(point("v-sft", "forward", 50, [0, 0]), warm=(0, 0)) for s in range(3)},
        "swirl": {s: cell(point("s-sft", "forward", 50, more[s]), warm=(0, 0)) for s in range(3)},
    }
    found = {
        row["metric"]: (row["low"], row["high"])
        for row in summary.summarise(cells, "verified")
        if (row["method"], row["statistic"], row["unit"]) == ("swirl", "difference", "tokens")
    }
    assert found["exact_match_changed"] == (-1, 1)
    low, high = found[reading.NET]  # of which the range is twice as wide
    assert -2 <= low < -1 and 1 < high <= 2


def test_what_spent_less_than_the_budget_says_what_share(cells, results):
    cells["swirl"] = {s: cell(point("swirl1-forward-grpo", "forward", 40, [0, 2])) for s in (0, 1)}
    cells["verified"][0]["points"][-1]["cpu_seconds"] = 41.0  # 40 of 41 is as good as all
    results["rows"] = [{**row, "at": ""} for row in summary.summarise(cells, "verified")]

    def costs():
        return {line[0]: line[3] for line in tables.table(results, "cpu_seconds")[1:]}

    assert costs() == {
        "`copy-input`": "",
        "`warmup`": "30",
        "`swirl`": "40 (88 %)",
        "`verified`": "46",
        "`oracle`": "99",
    }
    del cells["swirl"][1]  # the share is of the seeds that it has: of 41, not of 45.5
    results["rows"] = [{**row, "at": ""} for row in summary.summarise(cells, "verified")]
    assert costs()["`swirl`"] == "40"
    assert "or at its end where it spent less (a share below 95 % stands beside the cost)" in tables.told(results)


@pytest.mark.parametrize(
    ("seeds", "new_recordings", "begins", "drawn"),
    [
        ([0, 1], False, "Seeds 0, 1;", "over seeds and test layouts;"),
        ([0, 1], True, "Seeds 0, 1;", "over seeds, each with a recording of its own;"),
        ([3], False, "Seed 3;", "over test layouts, for there is one seed;"),
        ([3], True, "Seed 3;", "over test layouts, for there is one seed;"),
    ],
)
def test_what_intervals_are_drawn_over_is_told_as_it_is(results, seeds, new_recordings, begins, drawn):
    told = tables.told({**results, "seeds": seeds, "new_recordings": new_recordings})
    assert told.startswith(begins) and f"bootstrap {drawn}" in told


def test_what_speaks_against_the_costs_stands_above_the_tables(results):
    told = tables.text({**results, "warnings": ["One ran.", "Another was slow."]})
    assert told.partition("\n")[0].endswith("shares. One ran. Another was slow.")


def test_a_score_over_no_rows_stands_in_no_table_and_stops_none(cells):
    for by_seed in cells.values():
        for one in by_seed.values():
            one["counts"] = {"forward": one["counts"]["forward"], "inverse": {}}
            one["points"].append({**one["points"][2], "phase": "swirl1-inverse-grpo", "cpu_seconds": 95})
    assert {row["role"] for row in summary.rewarded(cells)} == {"forward"}
    assert {row["role"] for row in summary.summarise(cells, "verified")} == {"forward", "both"}


def test_a_share_of_a_gain_that_is_not_certain_has_no_interval():
    counts = {"exact_match_changed": [1] * 20}

    def run(*right):
        points = [point("warmup-forward-sft", "forward", 20, [1, 0] * 10), point("m-sft", "forward", 50, list(right))]
        return {**cell(), "points": points, "counts": {"forward": counts}}

    for oracle, certain in (([1] * 20, True), ([1, 0] * 9 + [1, 1], False)):
        cells = {"verified": {0: run(*[1, 0] * 9, 1, 1)}, "oracle": {0: run(*oracle)}}
        rows = summary.summarise(cells, "verified")
        gap = next(r for r in rows if (r["metric"], r["statistic"]) == ("exact_match_changed", "gap_closed"))
        assert gap["value"] == pytest.approx(0.1 if certain else 1)
        assert (gap["low"] is not None) == certain
        results = {"rows": rows, "methods": ["oracle", "verified"], "seeds": [0]}
        [_, line] = tables.compared(results, "cpu_seconds", "gap_closed")
        assert ("(the oracle's gain is uncertain)" in line[1]) != certain


def test_an_oracle_that_gains_nothing_bounds_nothing(cells, results):
    for by_seed in cells.values():
        for one in by_seed.values():
            one["points"] = [p for p in one["points"] if not p["phase"].startswith("oracle")]
    rows = summary.summarise(cells, "verified")
    assert not [row for row in rows if row["statistic"] == "gap_closed"]
    assert all(np.isfinite(row["value"]) for row in rows)


def test_the_table_names_what_was_compared_in_order(results):
    lines = tables.table(results, "cpu_seconds")
    assert [line[0] for line in lines[1:]] == ["`copy-input`", "`warmup`", "`swirl`", "`verified`", "`oracle`"]
    head, swirl = lines[0], lines[3]
    told = dict(zip(head, swirl, strict=True))
    assert told["seeds"] == "2" and told["learning rate"] == "1e-05" and told["CPU s"] == "50"
    assert told["next state, net"].split()[0] == told["exact on changed"].split()[0]  # nothing stands still there
    assert told["next state, net"].startswith("0.267 [")
    assert told["action, exact"].startswith("0.500 [")
    head, *lines = tables.compared(results, "cpu_seconds", "difference")
    assert [line[0] for line in lines] == ["`warmup`", "`swirl`", "`oracle`"]
    assert dict(zip(head, lines[1], strict=True))["exact on changed"].startswith("-0.533 [-")
    assert "| `swirl` | 2 | 1e-05 | 50 |" in tables.text(results)
    brief = tables.text(results, brief=True)
    assert "| `swirl` | 2 | 1e-05 | 50 |" in brief and "less `verified`:" in brief
    assert "tokens of training" not in brief and "Learning rates on" not in brief


def test_what_is_of_fewer_seeds_says_so(cells, results):
    del cells["oracle"][1]
    results["rows"] = [{**row, "at": ""} for row in summary.summarise(cells, "verified")]
    head, *lines = tables.table(results, "cpu_seconds")
    told = {line[0]: dict(zip(head, line, strict=True)) for line in lines}
    gaps = tables.compared(results, "cpu_seconds", "gap_closed")
    assert [line[0] for line in gaps[1:]] == ["`swirl`", "`verified`"]
    differences = {line[0]: line[1] for line in tables.compared(results, "cpu_seconds", "difference")[1:]}
    assert differences["`oracle`"].endswith(", 1 of 2 seeds") and differences["`swirl`"].endswith("]")
    assert told["`swirl`"]["next state, net"].endswith("]")
    assert told["`oracle`"]["seeds"] == "1"


def test_what_varies_becomes_columns_of_scores_differences_and_gaps(cells, results):
    results["rows"] = [{**row, "at": "100"} for row in summary.summarise(cells, "verified")]
    cells["swirl"] = {s: cell(point("swirl1-forward-grpo", "forward", 50, [2, 3])) for s in (0, 1)}
    del cells["oracle"]
    results["rows"] += [{**row, "at": "200"} for row in summary.summarise(cells, "verified")]
    found = tables.tables({**results, "vary": "data.labels"})
    # No inverse model is trained after the warm-up; the oracle gains nothing there.
    scores, less, gaps, actions, alike = found
    assert scores == "Next state, net, by `data.labels`"
    assert (less, gaps) == (f"{scores}, less `verified`", f"{scores}, gap closed")
    assert (actions, alike) == ("Action, exact, by `data.labels`", "Action, exact, by `data.labels`, less `verified`")
    assert {tuple(lines[0]) for lines in found.values()} == {("method", "100", "200")}

    def told(title):
        return {line[0]: [cell.partition(" ")[0] for cell in line[1:]] for line in found[title][1:]}

    # Of 5 rows as in the table at one value; at 200 `swirl` has all 5, `verified` 4, and there is no oracle.
    assert told(scores) == {
        "`copy-input`": ["0.000", "0.000"],
        "`warmup`": ["0.200", "0.200"],
        "`swirl`": ["0.267", "1.000"],
        "`verified`": ["0.800", "0.800"],
        "`oracle`": ["1.000", ""],
    }
    assert told(less) == {
        "`warmup`": ["-0.600", "-0.600"],
        "`swirl`": ["-0.533", "+0.200"],
        "`oracle`": ["+0.200", ""],
    }
    assert told(gaps) == {"`swirl`": ["0.083", ""], "`verified`": ["0.750", ""]}
    assert "less `verified`:\n\n| method | 100 | 200 |\n" in tables.text({**results, "vary": "data.labels"})


def test_a_terminal_has_room_for_what_is_printed(results, capsys, tmp_path):
    results["warnings"] = ["Something speaks against it."]
    tables.show(results, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    head = "At equal CPU seconds: "
    told = lines[lines.index(f"{head}next state, net") : lines.index("At equal tokens of training: next state, net")]
    [swirl] = [line.split() for line in told if "swirl" in line]
    assert swirl[:3] == ["`swirl`", "50", "0.267"] and swirl[5] == "-0.533"  # each with the two ends of its interval
    assert len(swirl) == 8
    rest = lines[lines.index(f"{head}other metrics") : lines.index("Reward beside held-out quality, by phase")]
    assert [line.split() for line in rest if "swirl" in line] == [["`swirl`", "0.267"]]  # exact on changed
    assert not [line for line in rest if "majority-action" in line]
    widest = max(len(line.rstrip()) for line in lines[: lines.index("Reward beside held-out quality, by phase")])
    assert widest <= 80
    assert lines[-3:] == [results["warnings"][0], f"report {tmp_path}/report.html", f"results {tmp_path}/results.json"]


def test_at_a_terminal_every_value_of_what_varies_has_its_rows(cells, results, capsys, tmp_path):
    at = [{**row, "at": value} for value in ("100", "200") for row in summary.summarise(cells, "verified")]
    tables.show({**results, "vary": "data.labels", "rows": at}, tmp_path)
    out = capsys.readouterr().out
    title = "At equal CPU seconds, by `data.labels`: next state, net"
    told = out.partition(title)[2].partition("At equal")[0]
    assert [line.split()[0] for line in told.splitlines() if "`oracle`" in line] == ["100", "200"]
    assert "other metrics" not in out
