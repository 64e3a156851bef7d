import pytest

from swirl.eval.summary import shortfalls, show

METRICS = {"forward": "exact_match_changed", "inverse": "action_exact_match_changed"}


def results(forward, inverse):
    """Test rows of both roles, stage by stage."""
    rows = []
    for (role, metric), values in zip(METRICS.items(), (forward, inverse), strict=True):
        rows += [
            {"phase": phase, "split": "test", "role": role, "metric": metric, "value": value, "low": None, "high": None}
            for phase, value in values.items()
        ]
    return {"rows": rows, "alarms": ["warmup-sft: reward rose"], "forward": "phases/1", "inverse": "phases/2"}


@pytest.mark.parametrize(
    ("forward", "inverse", "expected"),
    [
        ((0.1, 0.3, 0.4), (0.1, 0.8, 0.9), []),
        ((0.1, 0.3, 0.3), (0.1, 0.8, 0.9), [("forward", "0.3000", "0.3000")]),
        ((0.1, 0.3, 0.4), (0.1, 0.8, 0.7), [("inverse", "0.7000", "0.8000")]),
        ((0.5, 0.3, 0.4), (0.1, 0.8, 0.9), []),
        ((0.1, 0.3, 0.2), (0.1, 0.8, 0.8), [("forward", "0.2000", "0.3000"), ("inverse", "0.8000", "0.8000")]),
    ],
)
def test_a_gain_is_over_the_warm_up_in_both_roles(forward, inverse, expected):
    phases = ("pretrain", "warmup", "verified")
    found = results(
        {"copy-input": 0.0, **dict(zip(phases, forward, strict=True))},
        {"majority-action": 0.3, **dict(zip(phases, inverse, strict=True))},
    )
    assert shortfalls(found) == [
        f"the {role} model did not gain: its {METRICS[role]} on the test part is {last} after verified, "
        f"and was {first} after warmup"
        for role, last, first in expected
    ]


def test_verification_at_test_time_is_no_gain_of_the_model_and_no_loss():
    inverse = {"warmup": 0.5, "verified": 0.6}
    gained = {"warmup": 0.5, "verified": 0.6, "best-of-2": 0.4, "best-of-8": 0.45}
    assert shortfalls(results(gained, inverse)) == []
    [line] = shortfalls(results({"warmup": 0.5, "verified": 0.4, "best-of-8": 0.9}, inverse))
    assert "is 0.4000 after verified, and was 0.5000 after warmup" in line


def test_a_warm_up_alone_gains_nothing():
    alone = shortfalls(results({"copy-input": 0.0, "warmup": 0.5}, {"majority-action": 0.3, "warmup": 0.5}))
    assert [line.split(":")[0] for line in alone] == [f"the {role} model did not gain" for role in METRICS]
    untold = shortfalls(results({"pretrain": 0.5}, {}))
    assert untold == [
        f"whether the {role} model gained cannot be told: no test of it after the method warmup" for role in METRICS
    ]


def test_the_table_shows_every_stage_and_the_alarms(capsys, tmp_path):
    show(results({"copy-input": 0.0, "warmup": 0.25}, {"majority-action": 0.125, "warmup": 0.5}), tmp_path)
    printed = capsys.readouterr().out
    for word in ("copy-input", "0.250", "majority-action", "0.125", "0.500", "\nalarm: warmup-sft"):
        assert word in printed
    assert f"forward {tmp_path / 'phases/1'}" in printed
    assert "Test (false changes: of unchanged transitions; forward NLL/token: of all; the others: of changed" in printed
