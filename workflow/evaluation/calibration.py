"""How far the probabilities of a case can be trusted, and how surely they say a class is there.

Calibration is measured in the *foreground box*: the bounding box of the reference's foreground,
doubled along each axis about its centre and cut at the image. Where 99 of 100 voxels are trivial
background, an average over the whole image is small for every network, and smallest for one that
predicts nothing; the box follows from the reference alone, so every loss is judged on the same
voxels, and as it is twice as large as the foreground on each axis, its base rate depends on
neither the field of view nor the size of the structures. A case without foreground has no box.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage, stats

NAN = float("nan")
BINS = 15
"""Bins of equal width over 0..1, as many as Guo et al. 2017, arXiv:1706.04599, took."""

CERTAINTY = ("presence_log_odds", "ece", "nll")


def foreground_box(reference: np.ndarray) -> tuple[slice, ...] | None:
    """The voxels (see above) in which calibration is measured; None without foreground."""
    found = ndimage.find_objects((reference > 0).astype(np.uint8))
    if not found:
        return None
    return tuple(
        slice(max(0, s.start - (s.stop - s.start) // 2), s.stop + (s.stop - s.start) // 2)
        for s in found[0]
    )


def certainty(
    logits: torch.Tensor, reference: np.ndarray
) -> tuple[list[dict[str, float]], np.ndarray]:
    """One row for each foreground class, and the case's part of the run's reliability table.

    ``logits``: (C, x, y, z) float32; ``reference``: label map (x, y, z). Row: ``ece`` and ``nll``
    (nats) of the case's box, the same for each class, and the class's ``presence_log_odds``.
    The second value is what :func:`reliability` gives. Without a box, or where a logit in it is
    not finite, ``ece`` and ``nll`` are NaN and no voxel is counted.
    """
    table = np.zeros((len(logits), BINS, 3))
    ece = nll = NAN
    if box := foreground_box(reference):
        log_p = torch.log_softmax(logits[(slice(None), *box)], 0).flatten(1).cpu().numpy()
        labels = reference[box].ravel()
        if np.isfinite(log_p).all():
            true = np.take_along_axis(log_p, labels[None].astype(np.int64), 0)
            nll = -float(true.mean(dtype=np.float64))
            table = reliability(np.exp(log_p), labels)
            ece = calibration_error(table[0])
    presence = presence_log_odds(logits)
    return [{"presence_log_odds": odds, "ece": ece, "nll": nll} for odds in presence], table


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Voxels, sum of confidences and sum of hits in each bin: (C, BINS, 3).

    ``probabilities`` (C, N), ``labels`` (N,). Row 0 is top-label: confidence is the largest
    probability and a hit is that its class is true. Row c > 0 is foreground class c against the
    rest: confidence is its probability and a hit is that the voxel is of this class.
    """
    top = probabilities.argmax(0)
    questions = [(np.take_along_axis(probabilities, top[None], 0)[0], top == labels)]
    questions += [(p, labels == c) for c, p in enumerate(probabilities) if c]
    table = np.empty((len(questions), BINS, 3))
    for row, (confidence, hit) in zip(table, questions, strict=True):
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        for column, weights in enumerate((None, confidence, hit)):
            row[:, column] = np.bincount(bins, weights, BINS)
    return table


def calibration_error(table: np.ndarray) -> float:
    """Expected calibration error: sum over bins of n_b / N |accuracy_b - confidence_b|.

    ``table``: (BINS, 3) of :func:`reliability`, of one case or summed over many.
    """
    voxels, confidence, hits = table.T
    return float(np.abs(hits - confidence).sum() / voxels.sum())


def presence_log_odds(logits: torch.Tensor) -> list[float]:
    """For each foreground class the highest log p / (1 - p) of any voxel; NaN if one is NaN.

    It orders cases as the highest probability does, but 1 - p is summed from the other classes:
    a probability that rounds to 1 in single precision would tie the cases of a sure network. It
    needs no number of voxels to be chosen, which would favour classes of some size.
    """
    tiny = torch.finfo(logits.dtype).tiny
    exponentials = torch.exp(logits - logits.amax(0)).clamp_min(tiny)
    found = []
    for c in range(1, len(logits)):
        others = sum(other for k, other in enumerate(exponentials) if k != c)
        found.append(float((exponentials[c] / others).max().log()))
    return found


def presence_auc(log_odds: Sequence[float], present: Sequence[bool]) -> float:
    """Probability that a case with the class scores above one without it, ties counting half.

    A score that is NaN ranks lowest, for it finds nothing. NaN unless there are cases of both
    kinds. Hanley and McNeil 1982, doi:10.1148/radiology.143.1.7063747.
    """
    held = np.asarray(present, dtype=bool)
    there, gone = int(held.sum()), int((~held).sum())
    if not there or not gone:
        return NAN
    ranks = stats.rankdata(np.nan_to_num(np.asarray(log_odds, dtype=float), nan=-np.inf))
    return float((ranks[held].sum() - there * (there + 1) / 2) / (there * gone))
