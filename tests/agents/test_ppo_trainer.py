"""From episodes to an optimiser step."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from swirl import tiny
from swirl.agents import batch, ppo, ppo_trainer
from swirl.agents.episodes import Episode, Turn, worth
from swirl.agents.ppo_trainer import Training
from swirl.agents.replies import Reply
from swirl.agents.settings import RL
from swirl.config import Model

SPEC = Model(hidden=48, layers=2, heads=4, max_length=256)
SETTINGS = RL(minibatch=3, micro=3, learning_rate=1e-3, critic_learning_rate=1e-3, entropy=0.1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    tiny.build(["the cat sat on the mat", "Up Down Left Right"], folder, SPEC, seed=0)
    return folder


def turn(prompt, reply, read=None, state="s0", states=()):
    return Turn(state, prompt, reply, "", read, True, ["Up"] * len(states), list(states))


ONE = Episode(1, "", [turn([5, 6, 7], [8, 9]), turn([10], [11])])
TWO = Episode(2, "", [turn([5], [12, 13, 14, 15])])
THREE = Episode(2, "", [turn([5], [16])])
CHOSEN = [(ONE, 2.0), (TWO, -1.0), (THREE, 0.5)]
BATCH = batch.of_episodes(CHOSEN, 0, CPU, "episode")
ROWS = BATCH.all
ALONE = batch.of_episodes(CHOSEN, 0, CPU, "turn")


def test_episodes_become_rows():
    assert ROWS.ids.tolist() == [[5, 6, 7, 8, 9, 10, 11], [5, 12, 13, 14, 15, 0, 0], [5, 16, 0, 0, 0, 0, 0]]
    assert ROWS.there.tolist() == [[1] * 7, [1] * 5 + [0] * 2, [1] * 2 + [0] * 5]
    assert ROWS.mask.tolist() == [[0, 0, 0, 1, 1, 0, 1], [0, 1, 1, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0, 0]]
    assert (BATCH.episode.tolist(), BATCH.scores.tolist()) == ([0, 1, 2], [2.0, -1.0, 0.5])


def test_turns_that_were_read_alone_become_rows_of_their_own():
    assert ALONE.all.ids.tolist() == [[5, 6, 7, 8, 9], [10, 11, 0, 0, 0], [5, 12, 13, 14, 15], [5, 16, 0, 0, 0]]
    assert ALONE.all.mask.tolist() == [[0, 0, 0, 1, 1], [0, 1, 0, 0, 0], [0, 1, 1, 1, 1], [0, 1, 0, 0, 0]]
    assert (ALONE.episode.tolist(), ALONE.scores.tolist()) == ([0, 0, 1, 2], [2.0, -1.0, 0.5])


def test_values_go_along_episodes_and_back():
    for some in (BATCH, ALONE):
        ids = some.all.ids.float()
        along = some.along(ids)
        assert along.tolist() == [[8.0, 9.0, 11.0, 0.0], [12.0, 13.0, 14.0, 15.0], [16.0, 0.0, 0.0, 0.0]]
        assert torch.equal(some.back(along), ids * some.all.mask)


def test_all_of_a_score_comes_at_an_episodes_end():
    settings = dataclasses.replace(SETTINGS, gamma=0.5, lam=1.0)
    for some in (BATCH, ALONE):
        advantage, returns = ppo_trainer._advantages(some, torch.zeros(some.all.mask.shape), settings)
        assert advantage.tolist() == returns.tolist()
        assert returns.tolist() == [[0.5, 1.0, 2.0, 0.0], [-0.125, -0.25, -0.5, -1.0], [0.5, 0.0, 0.0, 0.0]]


def test_a_pass_has_rows_of_like_length_and_is_no_wider_than_they_are():
    assert [rows.tolist() for rows in ALONE.passes(torch.tensor([0, 2]), 2)] == [[1, 3], [0]]
    short = ALONE.rows(torch.tensor([1, 3]))
    assert (short.ids.tolist(), short.mask.tolist()) == ([[10, 11], [5, 16]], [[0.0, 1.0], [0.0, 1.0]])


def test_log_probabilities_are_of_the_tokens_that_follow(start):
    training = Training(start, SETTINGS, SPEC, CPU)
    log_probs, entropy = ppo_trainer._log_probs(training.policy, ROWS)
    logits = training.policy(torch.tensor([[5, 12, 13]])).logits[0, -1]
    expected = torch.log_softmax(logits, -1)
    assert log_probs[1, 3].item() == pytest.approx(expected[14].item(), abs=1e-5)
    assert entropy[1, 3].item() == pytest.approx(-(expected.exp() * expected).sum().item(), abs=1e-5)
    assert log_probs[:, 0].tolist() == [0.0] * 3


def test_a_value_is_what_is_expected_before_the_token(start):
    training = Training(start, SETTINGS, SPEC, CPU)
    torch.nn.init.ones_(training.critic.head.weight)
    values = ppo_trainer._values(training.critic, ROWS)
    alone = training.critic(input_ids=torch.tensor([[5, 12, 13]]), attention_mask=torch.ones(1, 3))
    assert values[1, 1:4].tolist() == pytest.approx(alone[0].tolist(), abs=1e-4)
    assert values[:, 0].tolist() == [0.0] * 3


def test_turns_that_were_read_alone_see_nothing_of_each_other(start):
    training = Training(start, SETTINGS, SPEC, CPU)
    together, alone = (ppo_trainer._log_probs(training.policy, some.all)[0] for some in (BATCH, ALONE))
    assert alone[0, 3:].tolist() == pytest.approx(together[0, 3:5].tolist(), abs=1e-5)  # the first turn, in both
    expected = torch.log_softmax(training.policy(torch.tensor([[10]])).logits[0, -1], -1)[11].item()
    assert alone[1, 1].item() == pytest.approx(expected, abs=1e-5)
    assert together[0, 6].item() != pytest.approx(expected, abs=1e-5)


def test_at_first_nothing_is_expected(start):
    training = Training(start, SETTINGS, SPEC, CPU)
    assert not ppo_trainer._values(training.critic, ROWS).any()


def weights(start, settings, chosen=CHOSEN, telling=True, context="episode"):
    training = Training(start, settings, SPEC, CPU)
    some = batch.of_episodes(chosen, 0, CPU, context)
    return training, ppo_trainer._learn(training, some, settings, telling, np.random.default_rng(0))


@pytest.mark.parametrize("context", ["episode", "turn"])
def test_how_episodes_are_cut_into_passes_does_not_matter(start, context):
    one, facts = weights(start, SETTINGS, context=context)
    other, others = weights(start, dataclasses.replace(SETTINGS, micro=1), context=context)
    assert facts == pytest.approx(others, abs=1e-5)
    for module in ("policy", "critic"):
        for first, second in zip(getattr(one, module).parameters(), getattr(other, module).parameters(), strict=True):
            assert torch.allclose(first, second, atol=2e-5)


def test_what_the_world_says_is_not_learned():
    logits = torch.randn(*ROWS.ids.shape, 20, generator=torch.manual_seed(0)).requires_grad_()
    log_probs, entropy = ppo_trainer._log_probs(lambda **_: SimpleNamespace(logits=logits), ROWS)
    loss, _ = ppo.policy_loss(log_probs, log_probs.detach(), torch.ones(ROWS.mask.shape), ROWS.mask, 0.2, 0.28)
    (loss - ppo.masked_mean(entropy, ROWS.mask)).backward()
    # A place's logits are of the next token.
    touched = (logits.grad != 0).any(-1).float()
    assert torch.equal(touched[:, :-1], ROWS.mask[:, 1:])
    assert not touched[:, -1].any()


def test_episodes_that_fared_as_expected_teach_the_policy_nothing(start):
    training, _ = weights(start, dataclasses.replace(SETTINGS, entropy=0.0), [(ONE, 0.0), (TWO, 0.0), (THREE, 0.0)])
    fresh = Training(start, SETTINGS, SPEC, CPU)
    for first, second in zip(training.policy.parameters(), fresh.policy.parameters(), strict=True):
        assert torch.equal(first, second)


def test_where_no_group_says_anything_the_critic_alone_learns(start):
    training, facts = weights(start, SETTINGS, telling=False)
    fresh = Training(start, SETTINGS, SPEC, CPU)
    for first, second in zip(training.policy.parameters(), fresh.policy.parameters(), strict=True):
        assert torch.equal(first, second)
    assert training.critic.head.weight.any()
    assert set(facts) == {"value_loss"}


def test_of_several_minibatches_the_later_ones_see_how_far_the_policy_has_moved(start):
    _, alone = weights(start, SETTINGS)
    _, facts = weights(start, dataclasses.replace(SETTINGS, minibatch=1, micro=1, learning_rate=1e-2))
    assert "kl" not in alone
    assert facts["kl"] > 0


def test_every_pass_goes_over_all_episodes_and_sees_how_far_the_policy_has_moved(start, monkeypatch):
    seen, real = [], ppo.policy_loss

    def spied(log_probs, old, advantage, mask, low, high):
        seen.append(mask.sum(1).tolist())
        return real(log_probs, old, advantage, mask, low, high)

    monkeypatch.setattr(ppo, "policy_loss", spied)
    training, facts = weights(start, dataclasses.replace(SETTINGS, epochs=3, minibatch=2, micro=2, learning_rate=1e-2))
    own = sorted(ROWS.mask.sum(1).tolist())
    assert [len(rows) for rows in seen] == [2, 1] * 3
    assert [sorted(seen[i] + seen[i + 1]) for i in (0, 2, 4)] == [own] * 3
    steps = [state["step"].item() for optimiser in training.optimisers for state in optimiser.state.values()]
    assert set(steps) == {6}
    assert facts["kl"] > 0


def test_what_was_good_becomes_likelier_and_what_was_bad_less_likely(start):
    training, _ = weights(start, SETTINGS)
    before = ppo_trainer._log_probs(Training(start, SETTINGS, SPEC, CPU).policy, ROWS)[0].sum(1)
    after = ppo_trainer._log_probs(training.policy, ROWS)[0].sum(1)
    assert after[0] > before[0]
    assert after[1] < before[1]


def test_of_turns_that_were_read_alone_what_was_good_becomes_likelier_too(start):
    training, _ = weights(start, SETTINGS, context="turn")
    before = ppo_trainer._log_probs(Training(start, SETTINGS, SPEC, CPU).policy, ALONE.all)[0].sum(1)
    after = ppo_trainer._log_probs(training.policy, ALONE.all)[0].sum(1)
    # Both turns of the episode that went well, though the score came in the second; not that of the one that did not.
    assert (after > before).tolist()[:3] == [True, True, False]


def test_a_checkpoint_goes_on_as_if_it_had_never_been_left(start, tmp_path):
    training, _ = weights(start, SETTINGS)
    training.log.append({"iteration": 1})
    training.save(tmp_path / "checkpoint-1")
    ppo_trainer._learn(training, BATCH, SETTINGS, True, np.random.default_rng(0))
    resumed = Training(start, SETTINGS, SPEC, CPU)
    resumed.restore(tmp_path / "checkpoint-1", SPEC)
    assert resumed.done == 1
    ppo_trainer._learn(resumed, BATCH, SETTINGS, True, np.random.default_rng(0))
    for module in ("policy", "critic"):
        for first, second in zip(
            getattr(training, module).parameters(), getattr(resumed, module).parameters(), strict=True
        ):
            assert torch.equal(first, second)


def test_a_checkpoint_that_is_not_whole_is_dropped(start, tmp_path):
    training = Training(start, SETTINGS, SPEC, CPU)
    for number in (2, 10):
        training.save(tmp_path / f"checkpoint-{number}")
    assert [path.name for path in ppo_trainer.checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-10"]
    (tmp_path / "checkpoint-10" / "critic.safetensors").write_bytes(b"")
    (tmp_path / "checkpoint-11").mkdir()
    assert [path.name for path in ppo_trainer.checkpoints(tmp_path)] == ["checkpoint-2"]
    assert not (tmp_path / "checkpoint-11").exists()


def test_states_that_are_told_right_are_rewarded_where_it_is_asked():
    right = turn([5], [6], Reply(("Up",), "", "s0", "s1"), "s0", ["s1"])
    half = turn([5], [6], Reply(("Up",), "", "s0", "s9"), "s0", ["s1"])
    plain = turn([5], [6], Reply(("Up",)), "s0", ["s1"])
    episode = Episode(0, "", [right, half, plain])
    assert worth(episode, "whole", RL(state_reward=0.5)) == pytest.approx(0.5 * (1 + 0.5 + 0) / 3)
    assert worth(episode, "whole", RL()) == 0.0


def test_what_a_model_is_unsure_of_is_worth_less_where_it_is_asked():
    first, second = turn([5], [6], Reply(("Up", "Up")), "s0", ["s1", "s2"]), turn([5], [6], None, "s2", [])
    first.doubts = [0.25, 1.0]
    episode = Episode(0, "", [first, second])
    assert worth(episode, "whole", RL(penalty=0.5)) == pytest.approx(-0.5 * 1.25)
    assert worth(episode, "whole", RL()) == 0.0


def test_advantages_are_whitened_over_the_agents_tokens(start, monkeypatch):
    seen, real = [], ppo.policy_loss
    monkeypatch.setattr(ppo, "policy_loss", lambda *given: seen.append(given[2:4]) or real(*given))
    weights(start, SETTINGS)
    [(advantage, mask)] = seen
    own = advantage[mask.bool()]
    assert own.mean().item() == pytest.approx(0, abs=1e-5)
    assert own.std(correction=0).item() == pytest.approx(1, abs=1e-3)
    assert len(set(own.sign().tolist())) == 2


def test_where_nothing_else_is_learned_entropy_rises(start):
    even = [(ONE, 0.0), (TWO, 0.0), (THREE, 0.0)]
    training, before = weights(start, dataclasses.replace(SETTINGS, entropy=1.0, learning_rate=1e-2), even)
    after = ppo_trainer._learn(training, BATCH, SETTINGS, True, np.random.default_rng(0))
    assert after["entropy"] > before["entropy"]
