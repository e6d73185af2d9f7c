"""Scores of one case and class.

Rules for empty masks, decided before any library is called:

- class in the reference: every score is defined; a structure that is missed altogether has
  Dice, IoU, sensitivity and NSD 0, and HD95 is the length of the image's diagonal;
- class not in the reference: the scores are not defined (NaN) and what was predicted is an
  endpoint of its own (``predicted_voxels`` times ``voxel_mm3``), so that a mean can hide nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workflow.evaluation.surfaces import surface_scores

NAN = float("nan")
COUNTS = ("voxel_mm3", "reference_voxels", "predicted_voxels", "tp", "fp", "fn")
SCORES = ("dice", "iou", "sensitivity", "precision", "nsd", "hd95", "volume_error")


def score_case(
    prediction: np.ndarray,
    reference: np.ndarray,
    *,
    classes: Sequence[str],
    spacing: Sequence[float],
    nsd_tolerance: float,
) -> list[dict[str, object]]:
    """One row for each foreground class.

    ``prediction`` and ``reference``: integer label maps (x, y, z); ``spacing`` in mm;
    ``nsd_tolerance`` in mm. ``hd95`` is in mm, ``volume_error`` is
    (predicted - reference) / reference, the other scores lie in 0..1; ``voxel_mm3`` is the volume
    of a voxel, which turns counts into mm^3.
    """
    volume = {"voxel_mm3": float(np.prod(spacing))}
    rows: list[dict[str, object]] = []
    for index, counts in enumerate(confusion_counts(prediction, reference, len(classes))):
        if index == 0:
            continue
        surface = (NAN, NAN)
        if counts["reference_voxels"]:
            surface = surface_scores(
                prediction == index, reference == index, spacing, nsd_tolerance
            )
        rows.append({"class": classes[index], **volume, **counts, **_scores(counts, *surface)})
    return rows


def confusion_counts(
    prediction: np.ndarray, reference: np.ndarray, classes: int
) -> list[dict[str, int]]:
    """Voxels of each class, background included: in reference, prediction, both, or one only."""
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ")
    pairs = reference.ravel().astype(np.int64) * classes + prediction.ravel()
    table = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    in_reference, predicted, tp = table.sum(1), table.sum(0), table.diagonal()
    return [
        {
            "reference_voxels": int(in_reference[c]),
            "predicted_voxels": int(predicted[c]),
            "tp": int(tp[c]),
            "fp": int(predicted[c] - tp[c]),
            "fn": int(in_reference[c] - tp[c]),
        }
        for c in range(classes)
    ]


def dice(counts: dict[str, int]) -> float:
    """2 tp / (2 tp + fp + fn); NaN where the class is not in the reference."""
    tp, fp, fn = counts["tp"], counts["fp"], counts["fn"]
    return 2 * tp / (2 * tp + fp + fn) if tp + fn else NAN


def _scores(counts: dict[str, int], nsd: float, hd95: float) -> dict[str, float]:
    tp, fp, fn = counts["tp"], counts["fp"], counts["fn"]
    if tp + fn == 0:
        return dict.fromkeys(SCORES, NAN)
    return {
        "dice": dice(counts),
        "iou": tp / (tp + fp + fn),
        "sensitivity": tp / (tp + fn),
        "precision": tp / (tp + fp) if tp + fp else NAN,
        "nsd": nsd,
        "hd95": hd95,
        "volume_error": (fp - fn) / (tp + fn),
    }
