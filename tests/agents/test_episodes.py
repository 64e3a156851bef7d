"""Episodes, with a player whose replies are written down."""

import dataclasses

import pytest

from swirl import models, tiny
from swirl.agents import conversation
from swirl.agents.arena import WorldArena
from swirl.agents.episodes import Terms, play
from swirl.agents.player import Sampled
from swirl.config import Model
from swirl.errors import InputError, SkippedError

LAKE = WorldArena("frozenlake", {"slippery": False}, validation=4)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    tiny.build(["<think></think><answer>Up || Down</answer>"], folder, Model(hidden=48, layers=1, heads=4), seed=0)
    return models.load_tokenizer(folder)


class Script:
    """Says what is written for each row, turn by turn; notes what it was told."""

    def __init__(self, tokenizer, lines):
        self.ends, self.told = [tokenizer.eos_token_id], []
        self._tokenizer, self._lines = tokenizer, [list(row) for row in lines]

    def reply(self, prompts):
        """The next line of each row."""
        self.told.append([self._tokenizer.decode(ids) for ids in prompts])
        texts = [row.pop(0) for row in self._lines]
        whole = [conversation.reply(self._tokenizer, f"<think></think><answer>{text}</answer>")[0] for text in texts]
        return [
            Sampled(ids[:-1], False) if text == "CUT" else Sampled(ids, True)
            for ids, text in zip(whole, texts, strict=True)
        ]

    def forget(self):
        """Take note."""
        self.told.append("forgotten")

    def keep(self, rows):
        """Drop the others."""
        self._lines = [self._lines[row] for row in rows]


def safe_scene():
    """An episode whose first moves right and back are on ice."""
    for seed in range(100):
        [scene] = LAKE.scenes(seed, 1)
        if scene.state.split("\n")[0].startswith("P _") and scene.state.split("\n")[1].startswith("_"):
            return scene
    raise AssertionError("no such lake")


def run(tokenizer, lines, terms):
    script = Script(tokenizer, lines)
    return play(script, tokenizer, LAKE, [safe_scene() for _ in lines], terms), script


def test_actions_are_taken_in_order_and_the_next_prompt_says_what_came(tokenizer):
    terms = Terms(turns=2, per_turn=3, actions=10, penalty=-0.5, reply=64, max_length=2000)
    [episode], script = run(tokenizer, [["Right || Left", "Down"]], terms)
    first, second = episode.turns
    assert (first.actions, first.unknown, first.penalty) == (["Right", "Left"], 0, 0.0)
    assert first.after == first.state == second.state
    assert "Player (P) is at (0,1)" in first.states[0]
    assert "6 left, plain" in script.told[0][0]  # two turns of three actions
    assert "Reward: 0\n" in script.told[1][0]
    assert "3 left, plain" in script.told[1][0]
    assert (episode.steps, episode.success, episode.ended) == (3, False, False)


def test_a_turn_that_is_read_alone_begins_as_the_first_does(tokenizer):
    terms = Terms(turns=2, per_turn=3, reply=64, max_length=2000, context="turn")
    [episode], script = run(tokenizer, [["Right", "Down"]], terms)
    [[first], forgotten, [second], *_] = script.told
    assert forgotten == "forgotten"
    assert first.startswith("<|bos|>") and second.startswith("<|bos|>")
    assert "3 left, plain" in second and "Reward" not in second
    assert second.count("Player (P) is at") == 1 and "Player (P) is at (0,1)" in second
    # What bounds an episode that is read whole does not bound one of such turns.
    longest = max(len(turn.prompt) for turn in episode.turns)
    terms = Terms(turns=2, per_turn=3, reply=64, max_length=longest + 64, context="turn")
    [episode], _ = run(tokenizer, [["Right", "Down"]], terms)
    assert (len(episode.turns), episode.outgrown) == (2, False)


def test_no_more_actions_than_a_turn_or_an_episode_may_have(tokenizer):
    terms = Terms(turns=9, per_turn=2, actions=3, reply=64, max_length=2000)
    [episode], _ = run(tokenizer, [["Right || Left || Right", "Left || Right", "Left"]], terms)
    assert [turn.actions for turn in episode.turns] == [["Right", "Left"], ["Left"]]


def test_what_there_is_not_costs_once_a_turn_and_the_rest_is_done(tokenizer):
    terms = Terms(turns=1, penalty=-0.5, reply=64, max_length=2000)
    [episode], _ = run(tokenizer, [["Fly || Right || Swim"]], terms)
    [turn] = episode.turns
    assert (turn.actions, turn.unknown, turn.penalty, episode.score) == (["Right"], 2, -0.5, -0.5)


def test_a_reply_that_is_cut_off_does_nothing_and_is_ended_in_the_next_prompt(tokenizer):
    terms = Terms(turns=2, penalty=-0.5, reply=64, max_length=2000)
    [episode], script = run(tokenizer, [["CUT", "Right"]], terms)
    assert (episode.turns[0].read, episode.turns[0].actions, episode.turns[0].penalty) == (None, [], -0.5)
    assert script.told[1][0].startswith(tokenizer.eos_token)
    assert "Reward: -0.5" in script.told[1][0]


def test_episodes_end_by_themselves_while_others_go_on(tokenizer):
    terms = Terms(turns=3, actions=4, per_turn=4, reply=64, max_length=2000)
    episodes, _ = run(
        tokenizer, [["Left", "Left", "Left"], ["Left || Left || Left || Left"], ["Up", "CUT", "Up"]], terms
    )
    assert [len(episode.turns) for episode in episodes] == [3, 1, 3]
    assert [episode.steps for episode in episodes] == [3, 4, 2]


def test_a_goal_is_a_success_and_a_hole_is_none(tokenizer):
    arena = WorldArena("frozenlake", {"slippery": False}, validation=4)
    won = lost = 0
    for seed in range(30):
        [scene] = arena.scenes(seed, 1)
        way = " || ".join(scene.handle.solve())
        [episode] = play(
            Script(tokenizer, [[way]]), tokenizer, arena, [scene], Terms(turns=1, per_turn=9, reply=99, max_length=2000)
        )
        won += episode.success and episode.ended and episode.score == 1.0
        [scene] = arena.scenes(seed, 1)
        if scene.state.startswith("P O"):
            [episode] = play(
                Script(tokenizer, [["Right"]]), tokenizer, arena, [scene], Terms(turns=1, reply=64, max_length=2000)
            )
            assert (episode.success, episode.ended) == (False, True)
            lost += 1
    assert won == 30
    assert lost > 0


def test_an_episode_ends_where_the_model_could_read_no_further(tokenizer):
    terms = Terms(turns=9, actions=99, reply=64, max_length=2000)
    [long], _ = run(tokenizer, [["Left"] * 9], terms)
    used = len(long.turns[0].prompt) + len(long.turns[0].reply) + len(long.turns[1].prompt)
    [short], _ = run(tokenizer, [["Left"] * 9], Terms(turns=9, actions=99, reply=64, max_length=used + 64))
    assert len(short.turns) == 2
    assert (long.outgrown, short.outgrown) == (False, True)
    with pytest.raises(InputError, match="leaves no room"):
        run(tokenizer, [["Left"]], Terms(reply=64, max_length=len(long.turns[0].prompt) + 63))


def test_no_layout_is_both_trained_on_and_tested():
    arena = WorldArena("frozenlake", {"slippery": False}, validation=64)
    tested = {arena.scenes(seed, 1)[0].state for seed in arena.tested()}
    seeds = [seed for seed, _ in zip(arena.training(), range(100), strict=False)]
    assert not tested & {arena.scenes(seed, 1)[0].state for seed in seeds}
    assert seeds[-1] - seeds[0] > 100, "some were passed over, or the test says nothing"


def test_recipes_seeds_train_on_seeds_of_their_own_and_test_on_the_same():
    first, second = (WorldArena("sokoban", validation=4, seed=seed) for seed in (0, 1))
    assert first.tested() == second.tested()
    some = [set(arena.drawn(0, 8)) | set(arena.drawn(1, 8)) for arena in (first, second)]
    assert [len(seeds) for seeds in some] == [16, 16]
    assert not some[0] & some[1]


def test_a_world_with_no_more_layouts_than_are_tested_is_refused():
    with pytest.raises(InputError, match=r"lower evaluation\.seeds"):
        next(WorldArena("frozenlake", {"size": 2}, validation=64).training())


def test_lessons_of_another_kind_of_world_keep_the_tested_layouts_apart_too():
    rooms = WorldArena("sokoban", {"moves": 5}, validation=64)
    other = dataclasses.replace(rooms, options={}, beside=frozenset(rooms.held_out))
    taught = {other.layout(seed) for seed, _ in zip(other.training(), range(300), strict=False)}
    assert not taught & rooms.held_out
    alone = WorldArena("sokoban", {}, validation=64)
    assert {alone.layout(seed) for seed, _ in zip(alone.training(), range(300), strict=False)} & rooms.held_out


def test_an_episode_that_cannot_go_on_is_broken_off(tokenizer, caplog):
    [one, two] = LAKE.scenes(5, 2)

    def hang(action):
        raise SkippedError("the page hangs")

    two.handle.step = hang
    terms = Terms(turns=3, reply=64, max_length=2000)
    going, broken = play(Script(tokenizer, [["Left"] * 3, ["Left"]]), tokenizer, LAKE, [one, two], terms)
    assert (len(going.turns), len(broken.turns)) == (3, 1)
    assert (broken.ended, broken.success, broken.turns[0].after) == (True, False, broken.turns[0].state)
    assert "seed 5: an episode is broken off: the page hangs" in caplog.text


def test_a_group_meets_the_same_chances():
    arena = WorldArena("frozenlake", {"slippery": True}, validation=4)
    one, two = arena.scenes(3, 2)
    for _ in range(3):
        [first], [second] = arena.step([one], ["Right"]), arena.step([two], ["Right"])
        assert first == second
        if first[2]:
            break
