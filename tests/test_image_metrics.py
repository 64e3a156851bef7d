"""Metrics of frames: cases by hand, other implementations, and that a worse frame scores worse."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.image import peak_signal_noise_ratio

from swirl import image_metrics as metrics

WHITE, GREY, BLACK = 255, 100, 0


def frame(*rows):
    """A frame of grey values."""
    return np.repeat(np.array(rows, np.uint8)[..., None], 3, axis=2)


STATE = frame([0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0])
TRUTH = frame([9, 0, 0, 0], [0, 0, 0, 0], [0, 0, 7, 7], [0, 0, 7, 7])
"""Of 16 pixels 5 change; of 4 cells of side 2 the first and the last."""


def with_pixels(base, **values):
    """A copy of a frame; `r1c2=5` makes the pixel in row 1, column 2 a grey of 5."""
    copy = base.copy()
    for name, value in values.items():
        copy[int(name[1]), int(name[3])] = value
    return copy


def test_a_pixel_differs_where_any_channel_does():
    other = STATE.copy()
    other[1, 2, 2] = 1  # blue alone
    assert np.argwhere(metrics.differs(STATE, other)).tolist() == [[1, 2]]
    assert metrics.changed(STATE, other) and not metrics.changed(STATE, STATE.copy())


def test_differences_do_not_wrap_around():
    assert metrics.differs(frame([250]), frame([1]), 248).all() and metrics.differs(frame([1]), frame([250]), 248).all()
    assert not metrics.differs(frame([250]), frame([1]), 249).any()


def test_all_of_a_frame_of_another_size_differs():
    assert metrics.differs(STATE, frame([0, 0], [0, 0])).tolist() == [[True, True], [True, True]]


def test_cells_at_the_edges_are_smaller():
    pixels = np.zeros((5, 4), bool)
    pixels[4, 3] = True  # in the last row, which is a cell's alone
    assert metrics.cells(pixels, 3).tolist() == [[False, False], [False, True]]
    pixels[0, 2] = True
    assert metrics.cells(pixels, 3).tolist() == [[True, False], [False, True]]
    assert metrics.cells(pixels, 1).tolist() == pixels.tolist()
    assert metrics.cells(pixels, 8).tolist() == [[True]]


def test_the_share_of_cells_that_are_right():
    wrong = with_pixels(TRUTH, r0c0=8, r1c1=1)  # both in the first cell of side 2
    assert metrics.cell_match(TRUTH, wrong) == 14 / 16
    assert metrics.cell_match(TRUTH, wrong, 2) == 3 / 4
    assert metrics.cell_match(TRUTH, wrong, 3) == 3 / 4
    assert metrics.cell_match(TRUTH, TRUTH) == 1


@pytest.mark.parametrize(
    ("prediction", "f1", "iou", "f1_of_2", "iou_of_2"),
    [
        (TRUTH, 1, 1, 1, 1),
        (STATE, 0, 0, 0, 0),  # a copy
        # The lone pixel alone: 2·1 / (5 + 1); of cells 2·1 / (2 + 1).
        (with_pixels(STATE, r0c0=9), 2 / 6, 1 / 5, 2 / 3, 1 / 2),
        # It is there, but wrong: the square's 4 of 5 are right. Where it changes is all right.
        (with_pixels(TRUTH, r0c0=8), 2 * 4 / 10, 1, 2 * 1 / 4, 1),
        # A pixel too many: in a cell that is otherwise right, which makes it wrong.
        (with_pixels(TRUTH, r0c1=1), 2 * 5 / 11, 5 / 6, 2 * 1 / 4, 1),
        # One too many in a cell that does not change.
        (with_pixels(TRUTH, r0c3=1), 2 * 5 / 11, 5 / 6, 2 * 2 / 5, 2 / 3),
        # Part of the square stays as it was.
        (with_pixels(TRUTH, r3c3=0), 2 * 4 / 9, 4 / 5, 2 * 1 / 4, 1),
        # All wrong everywhere.
        (np.full_like(STATE, 200), 0, 5 / 16, 0, 2 / 4),
        (None, 0, 0, 0, 0),
        (frame([9, 0], [0, 0]), 0, 0, 0, 0),
    ],
)
def test_the_changed_region(prediction, f1, iou, f1_of_2, iou_of_2):
    assert metrics.changed_f1(STATE, TRUTH, prediction) == pytest.approx(f1, abs=1e-12)
    assert metrics.changed_iou(STATE, TRUTH, prediction) == pytest.approx(iou, abs=1e-12)
    assert metrics.changed_f1(STATE, TRUTH, prediction, 2) == pytest.approx(f1_of_2, abs=1e-12)
    assert metrics.changed_iou(STATE, TRUTH, prediction, 2) == pytest.approx(iou_of_2, abs=1e-12)


def test_the_changed_region_where_nothing_changed():
    for measure in (metrics.changed_f1, metrics.changed_iou):
        assert measure(STATE, STATE, STATE) == 1
        assert measure(STATE, STATE, TRUTH) == 0


def test_all_of_a_next_state_of_another_size_is_changed():
    small = frame([0, 0], [0, 5])
    assert metrics.changed_f1(STATE, small, small) == 1
    assert metrics.changed_f1(STATE, small, frame([0, 0], [0, 6])) == 2 * 3 / 8


def test_with_a_tolerance_noise_is_no_change():
    noisy = with_pixels(TRUTH, r0c0=11, r1c3=2, r2c2=5)
    assert metrics.changed_f1(STATE, TRUTH, noisy, 2, tolerance=2) == 1
    assert metrics.changed_iou(STATE, TRUTH, noisy, tolerance=2) == 1
    assert metrics.cell_match(TRUTH, noisy, tolerance=2) == 1
    assert metrics.cell_match(TRUTH, noisy, tolerance=1) == 13 / 16


@pytest.mark.parametrize(
    ("truth", "prediction", "expected"),
    [
        (frame([BLACK, BLACK]), frame([WHITE, WHITE]), 0.0),
        (frame([BLACK, BLACK]), frame([BLACK, WHITE]), 10 * math.log10(2)),  # half of it wrong by all there is
        (frame([100, 100], [100, 100]), frame([110, 100], [100, 100]), 10 * math.log10(255**2 / 25)),  # 34.15
        (frame([100, 100]), frame([100, 100]), 60.0),
        (np.zeros((50, 50, 3), np.uint8), np.eye(50, dtype=np.uint8)[..., None] * np.array([1, 0, 0], np.uint8), 60.0),
        (frame([BLACK, BLACK]), None, 0.0),
        (frame([BLACK, BLACK]), frame([BLACK]), 0.0),
    ],
)
def test_psnr(truth, prediction, expected):
    assert metrics.psnr(truth, prediction) == pytest.approx(expected, abs=1e-9)


frames = st.tuples(st.integers(11, 16), st.integers(11, 16), st.integers(0, 2**32 - 1), st.sampled_from([2, 30, 255]))


def pair(height, width, seed, spread):
    """Two frames, the second the first with noise of up to `spread`."""
    rng = np.random.default_rng(seed)
    one = rng.integers(0, 256, (height, width, 3))
    return one.astype(np.uint8), np.clip(one + rng.integers(-spread, spread + 1, one.shape), 0, 255).astype(np.uint8)


@given(frames)
def test_psnr_is_that_of_torchmetrics(drawn):
    truth, prediction = pair(*drawn)
    expected = peak_signal_noise_ratio(
        torch.from_numpy(prediction.astype(np.float64)), torch.from_numpy(truth.astype(np.float64)), data_range=255.0
    )
    assert metrics.psnr(truth, prediction) == pytest.approx(min(60.0, expected.item()), abs=1e-4)


def naive_ssim(one, other):
    """From the paper's formulas, a window after the other."""
    offsets = np.arange(11) - 5
    bell = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights = np.outer(bell, bell) / bell.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top, left, channel in itertools.product(range(one.shape[0] - 10), range(one.shape[1] - 10), range(3)):
        x, y = (image[top : top + 11, left : left + 11, channel].astype(float) for image in (one, other))
        mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
        var_x, var_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
        covariance = (weights * (x - mean_x) * (y - mean_y)).sum()
        structure = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
        values.append(structure / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)))
    return np.mean(values)


@settings(max_examples=25)
@given(frames)
def test_ssim_is_that_of_the_paper(drawn):
    truth, prediction = pair(*drawn)
    assert metrics.ssim(truth, prediction) == pytest.approx(naive_ssim(truth, prediction), abs=1e-4)


def test_ssim_by_hand():
    black, grey = (np.full((12, 12, 3), value, np.uint8) for value in (BLACK, GREY))
    # Two flat frames: the luminance alone, (0 + c1) / (100² + c1), c1 = 2.55².
    assert metrics.ssim(black, grey) == pytest.approx(2.55**2 / (100**2 + 2.55**2), abs=1e-6)
    assert metrics.ssim(grey, grey) == 1.0
    assert metrics.ssim(grey, None) == metrics.ssim(grey, grey[:-1]) == 0.0
    assert metrics.ssim(grey[:10], grey[:10]) is metrics.ssim(grey[:, :10], None) is None
    assert metrics.ssim(grey[:11, :11], black[:11, :11]) is not None


def test_ssim_is_that_of_scikit_image():
    # structural_similarity(a, b, channel_axis=2, gaussian_weights=True, use_sample_covariance=False, data_range=255)
    # of scikit-image 0.26.0, whose package is not needed here.
    waves = np.arange(32)[:, None, None] * 7 + np.arange(40)[None, :, None] * np.array([3, 5, 11])
    one, other = (waves % 256).astype(np.uint8), (waves * 2 % 256).astype(np.uint8)
    assert metrics.ssim(one, other) == pytest.approx(0.5512289111387823, abs=1e-5)


def test_disc_edit():
    near, far = with_pixels(STATE, r0c0=3), with_pixels(STATE, r0c0=2, r1c1=2, r2c2=2)  # norms √27 and √36
    assert metrics.disc_edit(STATE, near, far) is True
    assert metrics.disc_edit(STATE, far, near) is False
    assert metrics.disc_edit(STATE, STATE, far) is True
    assert metrics.disc_edit(STATE, STATE, STATE) is False  # a copy is never right
    assert metrics.disc_edit(STATE, None, far) is metrics.disc_edit(STATE, near, None) is False
    assert metrics.disc_edit(STATE, frame([0]), far) is False


def means(found):
    return {name: (float(value.mean()), rows.tolist()) for name, (value, rows) in found.items()}


def test_rows_by_hand():
    states, truths = [STATE] * 6, [TRUTH, TRUTH, TRUTH, STATE, STATE, STATE]
    # right, a copy, unreadable; left alone, changed, of another size
    predictions = [TRUTH, STATE, None, STATE, TRUTH, frame([0])]
    assert means(metrics.forward_values(states, truths, predictions, tile=2)) == {
        "image_exact_match_changed": (1 / 3, [0, 1, 2]),
        "image_exact_match": (2 / 6, [0, 1, 2, 3, 4, 5]),
        "image_changed_f1": (1 / 3, [0, 1, 2]),
        "image_changed_iou": (1 / 3, [0, 1, 2]),
        "image_false_change_rate": (2 / 3, [3, 4, 5]),
        "image_copy_rate": (1 / 3, [0, 1, 2]),
        "image_pixel_match": (pytest.approx((1 + 11 / 16 + 0 + 1 + 11 / 16 + 0) / 6), [0, 1, 2, 3, 4, 5]),
        "image_tile_match": (pytest.approx((1 + 1 / 2 + 0 + 1 + 1 / 2 + 0) / 6), [0, 1, 2, 3, 4, 5]),
        "image_psnr": (pytest.approx((60 + COPY_PSNR + 0 + 60 + COPY_PSNR + 0) / 6), [0, 1, 2, 3, 4, 5]),
        "image_psnr_changed": (pytest.approx((60 + COPY_PSNR + 0) / 3), [0, 1, 2]),
        "image_unreadable_rate": (2 / 6, [0, 1, 2, 3, 4, 5]),
    }


COPY_PSNR = 10 * math.log10(255**2 / ((81 + 4 * 49) / 16))


def test_what_is_over_no_rows_is_left_out():
    found = metrics.forward_values([STATE], [TRUTH], [TRUTH])
    assert not {"image_false_change_rate", "image_tile_match", "image_ssim"} & set(found)
    assert not {"image_copy_rate", "image_changed_f1", "image_psnr_changed"} & set(
        metrics.forward_values([STATE], [STATE], [TRUTH])
    )
    assert metrics.forward_values([], [], []) == {}


def test_rows_are_read_one_by_one():
    alive = []

    def stream():
        for _ in range(3):
            alive.append(1)
            yield TRUTH.copy()
            alive.pop()
            assert not alive

    assert len(metrics.forward_values(stream(), iter([TRUTH] * 3), iter([STATE] * 3))["image_exact_match"][1]) == 3


@pytest.mark.parametrize("bad", [STATE.astype(float), STATE[..., 0], STATE[:0], np.zeros((4, 4, 4), np.uint8)])
def test_what_is_no_frame_is_refused(bad):
    for place in range(3):
        columns = [[STATE, STATE] for _ in range(3)]
        columns[place] = [STATE, bad]
        with pytest.raises(ValueError, match=r"row 1: a (state|truth|prediction) of"):
            metrics.forward_values(*columns)
    with pytest.raises(ValueError, match="longer"):
        metrics.forward_values([STATE], [STATE, STATE], [STATE, STATE])


# Worse step by step: a room of tiles of 8 pixels, in which a sprite moves.
TILE, SIDE = 8, 6
SIGN = {
    "image_exact_match": 1,
    "image_exact_match_changed": 1,
    "image_pixel_match": 1,
    "image_tile_match": 1,
    "image_changed_f1": 1,
    "image_changed_iou": 1,
    "image_psnr": 1,
    "image_psnr_changed": 1,
    "image_ssim": 1,
    "image_ssim_changed": 1,
    "image_false_change_rate": -1,
    "image_copy_rate": -1,
    "image_unreadable_rate": -1,
}
BEST = {name: 60.0 if "psnr" in name else float(up > 0) for name, up in SIGN.items()}


def room(row, column):
    """Walls around a floor, and a sprite."""
    image = np.full((SIDE * TILE, SIDE * TILE, 3), 60, np.uint8)
    image[TILE:-TILE, TILE:-TILE] = 190
    sprite = np.random.default_rng(3).integers(0, 256, (TILE, TILE, 3))
    image[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = sprite
    return image


ROWS = [(room(1, c), room(2, c)) for c in (1, 2, 3)] + [(room(1, c), room(1, c)) for c in (1, 2)]


def random_pixels(state, truth):
    """Ever more pixels, in an order by chance, get a colour by chance."""
    rng = np.random.default_rng(int(truth.sum()) % 2**32)
    order = rng.permutation(truth.shape[0] * truth.shape[1])
    colours = (truth.reshape(-1, 3).astype(int) + rng.integers(1, 256, (len(order), 3))) % 256
    for share in (0, 0.01, 0.05, 0.2, 0.5, 1):
        flat = truth.reshape(-1, 3).copy()
        some = order[: round(share * len(order))]
        flat[some] = colours[some]
        yield flat.reshape(truth.shape)


def noise(state, truth):
    """Ever more noise everywhere."""
    steps = np.random.default_rng(int(truth.sum()) % 2**32).choice([-1, 1], truth.shape)
    for size in (0, 1, 4, 16, 64):
        yield np.clip(truth + steps * size, 0, 255).astype(np.uint8)


def copying(state, truth):
    """One row of tiles after another is the state's."""
    for n in range(SIDE + 1):
        yield np.concatenate([state[: n * TILE], truth[n * TILE :]])


def shifted(state, truth):
    """What changed is drawn ever further from where it belongs."""
    for n in (0, 1, 2, 4, 8):
        yield np.roll(truth, n, axis=1)


def unreadable(state, truth):
    yield truth
    yield None


@pytest.mark.parametrize(
    ("perturb", "still", "unsteady"),
    [
        (random_pixels, {"image_copy_rate", "image_unreadable_rate"}, set()),
        (noise, {"image_copy_rate", "image_unreadable_rate"}, set()),
        (copying, {"image_false_change_rate", "image_unreadable_rate"}, set()),
        # By a whole tile, walls lie on walls again.
        (shifted, {"image_copy_rate", "image_unreadable_rate"}, {"image_changed_f1"}),
        (unreadable, {"image_copy_rate"}, set()),
    ],
)
def test_a_worse_frame_scores_worse(perturb, still, unsteady):
    states, truths = zip(*ROWS, strict=True)
    steps = zip(*(list(perturb(*row)) for row in ROWS), strict=True)
    found = [means(metrics.forward_values(states, truths, predictions, TILE)) for predictions in steps]
    assert {name: value for name, (value, _) in found[0].items()} == BEST  # a new metric belongs here too
    for name, up in SIGN.items():
        values = [up * summary[name][0] for summary in found]
        if name not in unsteady:
            assert all(worse <= better + 1e-12 for better, worse in itertools.pairwise(values)), (name, values)
        assert (values[-1] == values[0]) if name in still else (values[-1] < values[0] - 0.02), (name, values)


def test_copying_scores_nothing_on_what_changed():
    states, truths = zip(*ROWS, strict=True)
    found = {name: value for name, (value, _) in means(metrics.forward_values(states, truths, states, TILE)).items()}
    nothing = ("image_exact_match_changed", "image_changed_f1", "image_changed_iou", "image_false_change_rate")
    assert [found[name] for name in nothing] == [0, 0, 0, 0] and found["image_copy_rate"] == 1
    assert found["image_tile_match"] > 0.9 and found["image_ssim_changed"] > 0.7  # and so much there
