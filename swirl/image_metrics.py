"""How near a predicted frame is to the recorded one, defined once.

A frame is a uint8 array (H, W, 3) of RGB. A prediction that is no frame (`None`), or one of another size than the
recorded next state, is unreadable: as wrong as can be by every metric, never skipped, never resized.

Two pixels are the same where no channel differs by more than `tolerance` levels of 255. 0 is right where frames come
from a simulator. Recordings from video or JPEG differ a little everywhere, and so do frames that a learned tokenizer
drew: there give a tolerance, or every pixel has changed and *where* says nothing.

Metrics of the changed region are over *cells*, squares of `tile` pixels, those at the right and lower edge smaller
where the size is no multiple; a cell is right where all its pixels are. As in `swirl.metrics`, copying the state earns
nothing there, and headlines are over *changed* transitions, whose recorded frames differ.
"""

from collections.abc import Iterable
from typing import TypeGuard

import numpy as np

from swirl.metrics import Values

Frame = np.ndarray
"""uint8 (H, W, 3), RGB."""

PSNR_CAP = 60.0
"""Decibels of a perfect frame, whose PSNR is infinite. An error above it is finer than rounding to 8 bits, 58.9 dB."""
SSIM_WINDOW = 11
"""Pixels; a frame that no window fits into has no SSIM."""


def differs(one: Frame, other: Frame, tolerance: int = 0) -> np.ndarray:
    """Which pixels of the second frame differ from the first; all of them where the sizes differ.

    Returns:
        bool (H, W), of the second frame.
    """
    if one.shape != other.shape:
        return np.ones(other.shape[:2], bool)
    return (np.maximum(one, other) - np.minimum(one, other)).max(-1) > tolerance


def cells(pixels: np.ndarray, tile: int) -> np.ndarray:
    """Which cells hold a marked pixel.

    Args:
        pixels: bool (H, W).
        tile: Side of a cell, in pixels.

    Returns:
        bool (ceil(H / tile), ceil(W / tile)).
    """
    height, width = pixels.shape
    rows = np.logical_or.reduceat(pixels, np.arange(0, height, tile), axis=0)
    return np.logical_or.reduceat(rows, np.arange(0, width, tile), axis=1)


def changed(state: Frame, next_state: Frame, tolerance: int = 0) -> bool:
    """Whether any pixel differs."""
    return bool(differs(state, next_state, tolerance).any())


def cell_match(truth: Frame, prediction: Frame | None, tile: int = 1, tolerance: int = 0) -> float:
    """Share of cells that are right; of pixels with cells of 1. In [0, 1], 0 for an unreadable prediction."""
    if not _readable(prediction, truth):
        return 0.0
    return 1 - float(cells(differs(truth, prediction, tolerance), tile).mean())


def changed_f1(state: Frame, truth: Frame, prediction: Frame | None, tile: int = 1, tolerance: int = 0) -> float:
    """How well the prediction shows *what* changes: F1 over the cells that the step changes, by their content.

    With D(y) = {(cell, its content in y): cells where y differs from the state},
    F1 = 2 |D(truth) ∩ D(prediction)| / (|D(truth)| + |D(prediction)|), and 1 where both are empty: a cell that changes,
    but to something wrong, counts against the prediction twice, as in `swirl.metrics.changed_facts_f1`. Cells that
    stay as they were earn nothing, so a copy of the state scores 0 on every changed transition.

    Returns:
        A value in [0, 1]; 0 for an unreadable prediction.
    """
    if not _readable(prediction, truth):
        return 0.0
    true, predicted = (cells(differs(state, frame, tolerance), tile) for frame in (truth, prediction))
    right = true & predicted & ~cells(differs(truth, prediction, tolerance), tile)
    total = int(true.sum() + predicted.sum())
    return 2 * int(right.sum()) / total if total else 1.0


def changed_iou(state: Frame, truth: Frame, prediction: Frame | None, tile: int = 1, tolerance: int = 0) -> float:
    """How well the prediction shows *where* something changes: intersection over union of the changed cells.

    With M(y) the cells where y differs from the state: |M(truth) ∩ M(prediction)| / |M(truth) ∪ M(prediction)|, and 1
    where both are empty. What a cell changes to is not asked, so noise everywhere scores the share of changed cells.

    Returns:
        A value in [0, 1]; 0 for an unreadable prediction.
    """
    if not _readable(prediction, truth):
        return 0.0
    true, predicted = (cells(differs(state, frame, tolerance), tile) for frame in (truth, prediction))
    union = int((true | predicted).sum())
    return int((true & predicted).sum()) / union if union else 1.0


def psnr(truth: Frame, prediction: Frame | None) -> float:
    """Peak signal-to-noise ratio, 10 log10(255² / MSE), in dB, with the MSE over all pixels and channels.

    No more than `PSNR_CAP`: a perfect frame's would be infinite and have no mean, and to leave perfect frames out would
    lower the mean of a better model.

    Returns:
        A value in [0, `PSNR_CAP`]; 0, the PSNR of black for white, for an unreadable prediction.
    """
    if not _readable(prediction, truth):
        return 0.0
    error = float(np.mean((truth.astype(np.float64) - prediction) ** 2))
    return min(PSNR_CAP, 10 * np.log10(255**2 / error)) if error else PSNR_CAP


def ssim(truth: Frame, prediction: Frame | None) -> float | None:
    """Structural similarity: torchmetrics' map, of every channel, averaged over the windows that lie in the frame.

    Gaussian windows of 11 pixels, σ 1.5, K1 = 0.01, K2 = 0.03, data range 255, in single precision: good to
    1e-3, in nearly white frames, or better.

    Source: Wang et al., Image quality assessment: from error visibility to structural similarity, IEEE TIP 2004.

    Returns:
        A value in [-1, 1]: 1 for a perfect frame, 0 for an unreadable prediction. `None` where the recorded frame has a
        side under `SSIM_WINDOW` pixels.
    """
    if min(truth.shape[:2]) < SSIM_WINDOW:
        return None
    if not _readable(prediction, truth):
        return 0.0
    if np.array_equal(truth, prediction):
        return 1.0
    import torch  # here, as both take seconds
    from torchmetrics.functional.image import structural_similarity_index_measure

    one, other = (torch.from_numpy(frame.astype(np.float32)).permute(2, 0, 1)[None] for frame in (prediction, truth))
    whole = structural_similarity_index_measure(one, other, data_range=255.0, sigma=1.5, return_full_image=True)[1]
    edge = SSIM_WINDOW // 2  # there the windows look at mirrored pixels
    assert isinstance(whole, torch.Tensor)
    return float(whole[..., edge:-edge, edge:-edge].mean())


def disc_edit(state: Frame, holding: Frame | None, contrary: Frame | None) -> bool:
    """DiscEdit: whether the model changes the state less for an action that holds already than for its contrary.

    Two predictions from one state, with the same random seed: one for an action whose outcome the state shows already
    ("move the cup to the left of the remote", and there it is), one for its contrary ("… to the right …"). Right where
    |holding - state| < |contrary - state|, by the Euclidean norm. A model that copies its input is never right; one
    that does not read the action is right half of the time, if it samples.

    The authors' code takes the norm in the latent space of a diffusion model's autoencoder. Image tokens have none that
    all tokenizers share, so here it is over pixels, and figures cannot be compared with the paper's. As there, every
    sample (the authors draw 4) counts as a row of its own. An unreadable prediction of either makes it wrong.

    Source: arXiv 2407.03471, as `disc_edit.py` and `eval_disc_edit.py` of the repository McGill-NLP/AURORA compute it.
    """
    if not (_readable(holding, state) and _readable(contrary, state)):
        return False
    near, far = (np.linalg.norm(frame.astype(np.float64) - state) for frame in (holding, contrary))
    return bool(near < far)


def forward_values(
    states: Iterable[Frame],
    truths: Iterable[Frame],
    predictions: Iterable[Frame | None],
    tile: int = 1,
    tolerance: int = 0,
    recorded: Iterable[Frame] | None = None,
) -> Values:
    """Metrics of predicted frames row by row, for intervals, in the shape of `swirl.metrics.forward_values`.

    Over all rows: `image_exact_match` (no pixel differs, and so no cell either), `image_pixel_match`,
    `image_tile_match` (where `tile` > 1), `image_psnr`, `image_ssim` (where the frame is large enough),
    `image_unreadable_rate`. Over changed ones: `image_exact_match_changed`, `image_changed_f1`, `image_changed_iou`,
    `image_psnr_changed`, `image_ssim_changed`, and `image_copy_rate`, the share of predictions equal to their state.
    Over unchanged ones: `image_false_change_rate`, the share of predictions that differ from their state, unreadable
    ones among them. A metric over no rows is left out.

    Args:
        states: The frames before the step, read one by one: they need not all be in memory.
        truths: The recorded next frames, row by row.
        predictions: The predicted next frames, row by row; `None` for one that cannot be read.
        tile: Side of a cell, in pixels.
        tolerance: Levels of 255 by which two pixels that are the same may differ.
        recorded: What PSNR and SSIM are against, where the truths are drawings of the recorded frames.

    Raises:
        ValueError: The columns differ in length, or something is no frame.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    columns = [states, truths, predictions, *([] if recorded is None else [recorded])]
    for row, frames in enumerate(zip(*columns, strict=True)):
        for name, value in _of_row(row, tile, tolerance, *frames).items():
            found.setdefault(name, []).extend([] if value is None else [(row, float(value))])
    return {
        name: (np.array([value for _, value in pairs]), np.array([row for row, _ in pairs]))
        for name, pairs in found.items()
        if pairs
    }


def _of_row(
    row: int,
    tile: int,
    tolerance: int,
    state: Frame,
    truth: Frame,
    prediction: Frame | None,
    recorded: Frame | None = None,
) -> dict[str, float | None]:
    """The metrics of one row; `None` for those that it has none of."""
    for name, frame in (("state", state), ("truth", truth), ("prediction", prediction)):
        if frame is not None and (frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size):
            raise ValueError(f"row {row}: a {name} of {frame.dtype} {frame.shape}, expected a frame, uint8 (H, W, 3)")
    readable = _readable(prediction, truth)
    exact = readable and not changed(truth, prediction, tolerance)
    kept = prediction is not None and not changed(state, prediction, tolerance)
    moves = changed(state, truth, tolerance)
    whole = truth if recorded is None else recorded
    values: dict[str, float | None] = {
        "image_exact_match_changed": exact if moves else None,
        "image_exact_match": exact,
        "image_changed_f1": changed_f1(state, truth, prediction, tile, tolerance) if moves else None,
        "image_changed_iou": changed_iou(state, truth, prediction, tile, tolerance) if moves else None,
        "image_false_change_rate": None if moves else not kept,
        "image_copy_rate": kept if moves else None,
        "image_pixel_match": cell_match(truth, prediction, 1, tolerance),
        "image_tile_match": cell_match(truth, prediction, tile, tolerance) if tile > 1 else None,
        "image_psnr": psnr(whole, prediction),
        "image_ssim": ssim(whole, prediction),
        "image_unreadable_rate": not readable,
    }
    values["image_psnr_changed"] = values["image_psnr"] if moves else None
    values["image_ssim_changed"] = values["image_ssim"] if moves else None
    return values


def _readable(prediction: Frame | None, truth: Frame) -> TypeGuard[Frame]:
    return prediction is not None and prediction.shape == truth.shape
