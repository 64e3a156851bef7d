import inspect
import math
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from swirl import images, worlds
from swirl.errors import InputError
from swirl.worlds.base import check_world, unknown


class Corridor:
    """A correct world: five cells in a row; the seed gives the colour of the floor and the start; cell 4 ends it."""

    name = "corridor"
    behaviours = ("random", "right")
    complete = repeatable = True

    def reset(self, seed):
        self.colour = ("red", "blue")[seed % 2]
        self.cell = seed % 3
        self.ended = False
        return self.text(), {"layout": self.colour}

    def text(self):
        return f"floor {self.colour}\nagent {self.cell}"

    def step(self, action):
        if action not in ("left", "right"):
            raise unknown("action", action, ("left", "right"))
        if self.ended:
            raise InputError("the episode has ended: call reset(seed)")
        self.cell = max(self.cell - 1, 0) if action == "left" else self.cell + 1
        self.ended = self.cell == 4
        return self.text(), float(self.ended), self.ended, False, {"layout": self.colour}

    def actions(self, state):
        return ("left", "right")

    def act(self, behaviour, rng):
        if behaviour not in self.behaviours:
            raise unknown("behaviour", behaviour, self.behaviours)
        return "right" if behaviour == "right" else str(rng.choice(["left", "right"]))

    def close(self):
        pass


class ResetByChance(Corridor):
    episodes = 0

    def reset(self, seed):
        self.episodes += 1
        return super().reset(seed + self.episodes)


class StateOfBytes(Corridor):
    def text(self):
        return b"agent"


class StateWithoutText(Corridor):
    def text(self):
        return [{"type": "text"}]


class EmptyState(Corridor):
    def text(self):
        return " \n"


class StepByChance(Corridor):
    slips = 0

    def step(self, action):
        state, *rest = super().step(action)
        self.slips += 1
        return (f"{state}\nslips {self.slips}", *rest)


class ScoreOfTheGameBefore(Corridor):
    """The first reward of an episode is what the last one of the episode before was, if that was of another seed."""

    seed, left = None, 0.0

    def reset(self, seed):
        self.late, self.seed = self.left if seed != self.seed else 0.0, seed
        self.left = 0.0
        return super().reset(seed)

    def step(self, action):
        state, reward, *rest = super().step(action)
        self.left = max(self.left, reward)
        self.late, late = 0.0, self.late
        return (state, reward + late, *rest)


class ActsByChance(Corridor):
    dice = np.random.default_rng(0)

    def act(self, behaviour, rng):
        super().act(behaviour, rng)
        return str(self.dice.choice(["left", "right"]))


class EndsInIntegers(Corridor):
    def step(self, action):
        state, reward, terminated, _, info = super().step(action)
        return state, reward, terminated, 0, info


class RewardNotANumber(Corridor):
    def step(self, action):
        state, _, *rest = super().step(action)
        return (state, math.nan, *rest)


class RewardInteger(Corridor):
    def step(self, action):
        state, _, *rest = super().step(action)
        return (state, 0, *rest)


class UnknownActionAccepted(Corridor):
    def step(self, action):
        return super().step(action if action in ("left", "right") else "left")


class UnknownActionNotHelped(Corridor):
    def step(self, action):
        if action not in ("left", "right"):
            raise InputError(f"no action {action!r}")
        return super().step(action)


class UnknownActionMoves(Corridor):
    def step(self, action):
        self.cell += action not in ("left", "right")
        return super().step(action)


class UnknownBehaviourAccepted(Corridor):
    def act(self, behaviour, rng):
        return "right"


class GoesOnAfterTheEnd(Corridor):
    def step(self, action):
        self.ended = False
        return super().step(action)


class IllegalBehaviour(Corridor):
    def act(self, behaviour, rng):
        return "jump" if behaviour == "right" else super().act(behaviour, rng)


class NoLayout(Corridor):
    def reset(self, seed):
        return super().reset(seed)[0], {}


class LayoutChanges(Corridor):
    def step(self, action):
        *rest, _ = super().step(action)
        return (*rest, {"layout": f"{self.colour} {self.cell}"})


class LayoutOfTheStart(Corridor):
    """Names what an episode changes: episodes of two layouts walk through the same states."""

    def reset(self, seed):
        state, _ = super().reset(seed)
        return state, {"layout": f"{self.colour} {self.cell}"}

    def step(self, action):
        *rest, _ = super().step(action)
        return (*rest, {})


class HiddenBattery(Corridor):
    """The third step of an episode does nothing, and no state says which step it is."""

    def reset(self, seed):
        self.charge = 3
        return super().reset(seed)

    def step(self, action):
        cell = self.cell
        state, *rest = super().step(action)
        self.charge -= 1
        if self.charge == 0 and not self.ended:
            self.cell = cell
            state = self.text()
        return (state, *rest)


class NoBehaviours(Corridor):
    behaviours = ()


class NoActions(Corridor):
    def actions(self, state):
        return ()


def test_a_correct_world_passes():
    check_world(Corridor(), seeds=range(6))


def test_a_world_that_says_what_it_cannot_promise_passes():
    class Hidden(HiddenBattery):
        complete = False

    class ByChance(StepByChance):
        complete = repeatable = False

    check_world(Hidden(), seeds=range(6))
    check_world(ByChance(), seeds=range(6))


def test_a_world_whose_actions_cannot_be_listed_passes():
    class Open(Corridor):
        def actions(self, state):
            return None

    check_world(Open(), seeds=range(6))


class Drawn(Corridor):
    """The corridor as one row of pixels, the agent in white."""

    def text(self):
        image = Image.new("RGB", (64, 64), self.colour)
        image.putpixel((self.cell, 0), (255, 255, 255))
        return self.parts(images.data_uri(image))

    def parts(self, image):
        return [{"type": "text", "text": "corridor"}, {"type": "image", "image": image}]


class ImageByPath(Drawn):
    def parts(self, image):
        return super().parts("corridor.png")


class ImageOfNothing(Drawn):
    def parts(self, image):
        return super().parts(image[:60])


class ImageThatHides(Drawn):
    def text(self):
        noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
        noise[0, self.cell] = 255
        return self.parts(images.data_uri(Image.fromarray(noise)))


def test_states_may_hold_images():
    check_world(Drawn(), seeds=range(6))


def test_states_may_be_lists_of_text_parts():
    class Parts(Corridor):
        def text(self):
            return [{"type": "text", "text": line} for line in super().text().split("\n")]

    check_world(Parts(), seeds=range(6))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (ResetByChance, "then .*; expected the same both times"),
        (StateOfBytes, "b'agent'; expected a string or a list of text and image parts"),
        (StateWithoutText, "expected a string or a list of text and image parts"),
        (ImageByPath, "gave the image 'corridor.png'; expected a data: URI"),
        (ImageOfNothing, "gave an image that cannot be opened: .*; expected a whole one"),
        (ImageThatHides, "share the state .{,700}; expected no state in two layouts"),
        (EmptyState, "an empty state"),
        (StepByChance, "step 0 .*expected the same both times"),
        (ScoreOfTheGameBefore, "step 0 .*expected the same both times"),
        (ActsByChance, "the behaviour 'random' took .*; expected the same both times; .*draw every chance of act"),
        (EndsInIntegers, "truncated = 0; expected a bool"),
        (RewardNotANumber, "the reward nan; expected a finite float"),
        (RewardInteger, "the reward 0; expected a finite float"),
        (UnknownActionAccepted, "unknown action 'leftzz' was accepted; expected an InputError"),
        (UnknownActionNotHelped, "expected the nearest one named"),
        (UnknownActionMoves, "an unknown action changed the state"),
        (UnknownBehaviourAccepted, "unknown behaviour 'randomzz' was accepted"),
        (GoesOnAfterTheEnd, "a step after the episode's end was accepted"),
        (IllegalBehaviour, r"'right' took 'jump'; expected one of \('left', 'right'\)"),
        (NoLayout, "layout None; expected a non-empty string"),
        (LayoutChanges, "the layout became"),
        (LayoutOfTheStart, "share the state"),
        (HiddenBattery, "expected one next state"),
        (NoBehaviours, "behaviours are empty"),
        (NoActions, r"actions\(\) is empty"),
    ],
)
def test_a_broken_world_is_refused(broken, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_world(broken(), seeds=range(6))
    assert not isinstance(caught.value, InputError)
    assert "; to mend it, " in str(caught.value)


def test_unknown_names_the_nearest():
    assert str(unknown("action", "turn lefft", ("turn left", "drop"))) == (
        "unknown action 'turn lefft': did you mean 'turn left'?"
    )
    assert str(unknown("action", "xyz", ("turn left", "drop"))) == (
        "unknown action 'xyz': expected one of 'turn left', 'drop'"
    )
    assert str(unknown("action", "xyz", map(str, range(70)))).endswith("'8', '9', and 60 more")


def test_make_refuses_what_it_does_not_know_and_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown world 'minigird'.*did you mean 'minigrid'"):
        worlds.make("minigird")
    with pytest.raises(InputError, match=r"unknown world 'minigird'.*did you mean 'minigrid'"):
        worlds.availability("minigird")
    with pytest.raises(InputError, match=r"unknown minigrid option 'max_step'.*did you mean 'max_steps'"):
        worlds.make("minigrid", max_step=3)


@pytest.mark.parametrize("name", worlds.WORLDS)
def test_an_option_of_another_type_is_refused_by_every_world(name):
    module, _, attribute = worlds.WORLDS[name].partition(":")
    options = inspect.signature(getattr(import_module(module), attribute)).parameters
    assert options
    for option, parameter in options.items():
        annotation = parameter.annotation
        wrong = [["a", 1], 5, True] if "str" in str(annotation) else ["False", [1], {}]
        wrong += [0, 1, "true"] if annotation is bool else [True, 2.5] if "float" not in str(annotation) else [True]
        wrong += [None] * ("None" not in str(annotation))
        for value in wrong:
            with pytest.raises(InputError, match=f"^{option} is {re.escape(repr(value))}, expected "):
                worlds.make(name, **{option: value})


@pytest.mark.parametrize("name", worlds.WORLDS)
def test_every_option_says_what_it_means(name):
    for option in worlds.options(name):
        assert option["meaning"].endswith("."), option
        assert "\n" not in option["meaning"]


def test_the_error_names_the_type():
    with pytest.raises(InputError, match=r"^slippery is 'False', expected true or false$"):
        worlds.make("frozenlake", slippery="False")
    with pytest.raises(InputError, match=r"^max_steps is '9', expected a whole number or null$"):
        worlds.make("minigrid", max_steps="9")
    with pytest.raises(InputError, match=r"^pages is \[3\], expected a text or a list of texts$"):
        worlds.make("web", pages=[3])
    worlds.make("frozenlake", frozen=1).close()  # a whole number is a number
    worlds.make("minigrid", environments="MiniGrid-Empty-5x5-v0", max_steps=None).close()


def test_importing_and_asking_imports_no_simulator():
    code = (
        "import sys, swirl.worlds as w\n"
        "assert w.availability('minigrid') is None\n"
        "assert all(w.options(name) and w.behaviours(name) for name in w.WORLDS)\n"
        "print([m for m in ('gymnasium', 'minigrid', 'pygame', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("minigrid", {"minigrid.py", "minigrid_frame.py", "base.py"}),
        ("scienceworld", {"scienceworld.py", "textgame.py", "jvm.py", "base.py"}),
        ("sokoban", {"sokoban.py", "puzzle.py", "base.py"}),
        ("toolcalls", {"toolcalls.py", "bfcl.py", "base.py"}),
        ("web", {"web.py", "web.js", "browser.py", "base.py"}),
    ],
)
def test_the_source_of_a_world_is_all_that_it_stands_on(name, files):
    folder, source = Path(worlds.__file__).parent, worlds.source(name)
    assert worlds.source(name) is source  # read once, see there
    assert {file.name for file in folder.iterdir() if file.is_file() and file.read_bytes() in source} == files


def test_a_recording_of_a_page_that_was_edited_is_another_one(tmp_path):
    page = tmp_path / "my.html"
    page.write_text("<p>one")
    before = worlds.fingerprint("web", {"pages": [str(page)]})
    assert worlds.fingerprint("web", {"pages": [str(page)]}) == before
    page.write_text("<p>two")
    assert worlds.fingerprint("web", {"pages": [str(page)]}) != before
    assert worlds.fingerprint("web", {"pages": str(page)}) != worlds.fingerprint("web", {"pages": [str(page)]})
