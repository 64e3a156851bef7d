"""A world of one step: the state names the action that is right."""

from swirl.worlds.base import refuse_outside_episode, unknown

LETTERS = ("a", "b", "c")


def missing():
    """Nothing is."""
    return None


class Choice:
    """Ends after one action, with a reward of 1 where it is the one that the state names."""

    name, behaviours, complete, repeatable = "choice", ("random",), True, True
    manual = "Say the letter."

    def __init__(self):
        self._letter = ""

    def reset(self, seed):
        """Names a letter."""
        self._letter = LETTERS[seed % len(LETTERS)]
        return f"letter {self._letter} of {seed % 1000:03}", {"layout": str(seed)}

    def step(self, action):
        """Takes a letter."""
        if action not in LETTERS:
            raise unknown("action", action, LETTERS)
        refuse_outside_episode(bool(self._letter))
        right, self._letter = action == self._letter, ""
        return "over", float(right), True, False, {}

    def actions(self, state):
        """The letters."""
        return LETTERS

    def act(self, behaviour, rng):
        """A random letter."""
        return LETTERS[rng.integers(len(LETTERS))]

    def close(self):
        """Nothing to close."""
