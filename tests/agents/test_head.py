import json

import numpy as np
import pytest
import torch
from counting import ROWS, TOP, Counter, state_of, trained
from sklearn.linear_model import LogisticRegression

from swirl import api, models, prompts
from swirl.agents import head
from swirl.agents.simulators import Imagined
from swirl.errors import InputError


@pytest.fixture(scope="module")
def forward(tmp_path_factory, one_thread):
    return api.load_forward(trained(tmp_path_factory.mktemp("counting")), "cpu")


def recorded(copies=3):
    """The counter's six transitions with what they give, each as trajectories of its own."""
    out = []
    for copy in range(copies):
        for i, row in enumerate(ROWS):
            reward, terminated = Counter().outcome(row["state"], row["next_state"])
            out.append({**row, "reward": reward, "terminated": terminated, "trajectory": f"{copy} {i}"})
    return out


def asked(rows):
    return [[row[name] for row in rows] for name in ("state", "action", "next_state")]


def test_reward_and_end_are_read_off_hidden_states(forward):
    learned = head.fit(forward, recorded())
    for row, (reward, terminated) in zip(ROWS, learned.outcome(*asked(ROWS)), strict=True):
        wanted = Counter().outcome(row["state"], row["next_state"])
        assert reward == pytest.approx(wanted[0], abs=0.05)
        assert terminated is wanted[1]
    assert learned.quality.rows == 4  # a fifth of 18 trajectories
    assert learned.quality.reward_r2 is None or learned.quality.reward_r2 > 0.9


def test_what_it_was_fitted_on_is_what_it_says(forward):
    other = [
        {**row, "reward": 3 * (row["action"] == "down"), "terminated": row["state"] == state_of(2)}
        for row in recorded()
    ]
    told = head.fit(forward, other).outcome(*asked(ROWS))
    for row, (reward, terminated) in zip(ROWS, told, strict=True):
        assert reward == pytest.approx(3.0 * (row["action"] == "down"), abs=0.15)
        assert terminated is (row["state"] == state_of(2))


def test_the_held_out_quality_is_low_where_there_is_nothing_to_learn(forward):
    rng = np.random.default_rng(0)
    noise = [{**row, "reward": rng.normal(), "terminated": bool(rng.random() < 0.5)} for row in recorded(40)]
    assert head.fit(forward, noise).quality.reward_r2 < 0.2
    assert head.fit(forward, noise).quality.terminated_f1 < 0.8
    told = head.fit(forward, recorded(40)).quality
    assert told.reward_r2 > 0.99
    assert told.terminated_f1 == 1.0
    assert head.fit(forward, recorded(2), seed=1).quality.rows == 2


def test_where_nothing_ends_nothing_is_said_to(forward):
    never = [{**row, "terminated": False, "reward": 0.5} for row in recorded()]
    learned = head.fit(forward, never)
    assert learned.quality.terminated_f1 is learned.quality.reward_r2 is None
    assert all(np.isfinite(weights).all() for weights in learned.weights.values())
    assert learned.outcome(*asked(ROWS)) == [(pytest.approx(0.5, abs=1e-4), False)] * 6


def test_features_are_means_of_the_last_layers_states_whatever_the_batch(forward, monkeypatch):
    rows = [{"state": text, "action": "up", "next_state": "count 2"} for text in ("count 1", "count 1 count 2 count 3")]
    ids = [head._encoded(forward, row) for row in rows]
    tokenizer = forward.scorer.tokenizer
    text = tokenizer.apply_chat_template(prompts.transition_prompt("forward", rows[0]), tokenize=False)
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids[0][: len(whole)] == whole
    assert tokenizer.decode(ids[0]).endswith("count 2<|end|>")
    together = head.features(forward, ids)
    for row, found in zip(ids, together, strict=True):
        with torch.no_grad():
            hidden = forward.scorer.model(torch.tensor([row]), output_hidden_states=True).hidden_states[-1][0]
        np.testing.assert_allclose(found, hidden.double().mean(0).numpy(), atol=1e-5)
    monkeypatch.setattr(head, "BATCH", 1)
    np.testing.assert_allclose(head.features(forward, ids[::-1])[::-1], together, atol=1e-5)


def test_rows_that_say_nothing_are_left_out(forward):
    blank = [{**row, "action": None} for row in recorded(1)] + [{**row, "reward": None} for row in recorded(1)]
    long = [{**recorded(1)[0], "state": "count 1 " * 40}]
    with pytest.raises(InputError, match="0 of 13 rows have an action and a reward and can be read, from 0 traj"):
        head.fit(forward, blank + long)
    with pytest.raises(InputError, match=r"1 of 14 rows .* from 1 trajectories, expected two"):
        head.fit(forward, blank + long + recorded(1)[:1])
    wrong = [{**row, "reward": 9.0, "terminated": True} for row in blank]
    learned, alone = (
        head.fit(forward, recorded() + [w | {"action": None} for w in wrong]),
        head.fit(forward, recorded()),
    )
    for name, weights in alone.weights.items():
        np.testing.assert_array_equal(learned.weights[name], weights)


def test_what_is_too_long_has_no_outcome(forward):
    learned = head.fit(forward, recorded())
    states = ["count 3", "count 3 " * 40, "count 3"]
    told = learned.outcome(states, ["up"] * 3, ["count 4"] * 3)
    assert told[1] == (0.0, False)
    assert told[0] == told[2] == (pytest.approx(1, abs=0.05), True)
    assert learned.outcome([], [], []) == []


def test_few_rewards_are_told_as_they_were_recorded_and_many_as_they_are_reckoned(forward):
    few = head.fit(forward, recorded())
    assert {reward for reward, _ in few.outcome(*asked(ROWS))} == {0.0, 1.0}
    many = head.fit(forward, [row | {"reward": i / 100} for i, row in enumerate(recorded())])
    assert not len(many.weights["levels"])
    assert len({reward for reward, _ in many.outcome(*asked(ROWS))}) > 2


def test_it_is_the_outcome_of_an_imagined_world(forward):
    simulator = Imagined([forward], head.fit(forward, recorded()).outcome)
    here = simulator.start([state_of(TOP - 1)])
    up, down = simulator.expand([here, here], ["up", "down"])
    assert (up.reward, up.terminated) == (pytest.approx(1, abs=0.05), True)
    assert (down.reward, down.terminated) == (pytest.approx(0, abs=0.05), False)


def test_a_head_is_kept_without_a_pickle_and_for_its_model_alone(forward, qwen3, tmp_path):
    learned = head.fit(forward, recorded())
    head.save(learned, tmp_path / "head")
    assert sorted(path.name for path in (tmp_path / "head").iterdir()) == ["head.json", "head.safetensors"]
    again = head.load(tmp_path / "head", forward)
    assert again.outcome(*asked(ROWS)) == learned.outcome(*asked(ROWS))
    assert again.quality == learned.quality
    with pytest.raises(InputError, match="was fitted on another model than"):
        head.load(tmp_path / "head", api.load_forward(qwen3, "cpu"))
    (tmp_path / "head" / "head.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(InputError, match="holds no head"):
        head.load(tmp_path / "head", forward)
    with pytest.raises(InputError, match="holds no head"):
        head.load(tmp_path, forward)
    head.save(learned, tmp_path / "head")
    (tmp_path / "head" / "head.json").write_text(json.dumps({"forward": models.weights_hash(forward.scorer.model)}))
    with pytest.raises(InputError, match="holds no head"):
        head.load(tmp_path / "head", forward)


def test_ridge_is_the_least_of_its_sum():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    one = np.column_stack([x, np.ones(40)])
    np.testing.assert_allclose(head.ridge(x, y, 0.0), np.linalg.lstsq(one, y)[0], atol=1e-4)
    np.testing.assert_allclose(head.ridge(x, y, 1e9), [0, 0, 0, y.mean()], atol=1e-4)
    # By hand: x = ±1, y = ±1, mean (wx - y)² + strength w² is least at w = 1 / (1 + strength).
    np.testing.assert_allclose(head.ridge(np.array([[1.0], [-1.0]]), np.array([1.0, -1.0]), 3.0), [0.25, 0], atol=1e-9)


@pytest.mark.parametrize("strength", [1e-3, 0.1, 10.0])
def test_logistic_is_scikit_learns(strength):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(80, 3))
    y = (x @ [2.0, -1.0, 0.0] + rng.normal(size=80) > 1).astype(float)
    theirs = LogisticRegression(C=1 / (strength * 80), tol=1e-10, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(
        head.logistic(x, y, strength), [*theirs.coef_[0], *theirs.intercept_], rtol=1e-3, atol=1e-4
    )


def test_separable_targets_have_finite_weights():
    x = np.linspace(-1, 1, 20)[:, None]
    weights = head.logistic(x, (x[:, 0] > 0).astype(float), 1e-4)
    assert np.isfinite(weights).all()
    assert ((x @ weights[:-1] + weights[-1] > 0) == (x[:, 0] > 0)).all()


def test_the_penalty_is_chosen_by_rows_that_were_not_fitted():
    rng = np.random.default_rng(0)
    x, noise, out = rng.normal(size=(30, 15)), rng.normal(size=30), np.arange(30) >= 20
    weights, told = head._chosen(head.ridge, head._squared_error, x, noise, out)
    assert np.abs(weights[:-1]).max() < 0.05  # nothing to learn: the strongest
    assert told.shape == (10,)
    weights, _ = head._chosen(head.ridge, head._squared_error, x, x[:, 0], out)
    assert weights[0] == pytest.approx(1, abs=1e-2)  # all of it to learn: the weakest
