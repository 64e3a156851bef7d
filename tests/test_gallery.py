"""Which rollout is drawn of a run's test."""

from swirl.eval import gallery


def stretch(name):
    steps = [(f"{name}{i}", f"{name}{i + 1}") for i in range(3)]
    return [{"state": before, "action": "on", "next_state": after, "history": None} for before, after in steps]


def test_the_rollout_that_is_drawn_is_neither_the_best_nor_the_worst():
    """Of a the model knows nothing, of b one step, of c all: it is right in 0, 1 and 3 of three steps."""

    def predict(asked, title):
        known = {"b0": "b1", "c0": "c1", "c1": "c2", "c2": "c3"}
        return [known.get(row["state"], "wrong") for row in asked]

    for order in ("abc", "cab", "bca"):
        drawn, imagined = gallery.median([stretch(name) for name in order], predict, 0)
        assert [row["state"] for row in drawn] == ["b0", "b1", "b2"]
        assert imagined == ["b1", "wrong", "wrong"]


def test_a_prediction_that_cannot_be_read_is_not_right():
    drawn, imagined = gallery.median([stretch("a")], lambda asked, title: [""] * len(asked), 0)
    assert (drawn, imagined) == (stretch("a"), ["", "", ""])
