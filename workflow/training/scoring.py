"""The scores of held-out cases: rows of ``cases.csv`` and ``reliability.csv``, and label maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from workflow.data.prepare import Prepared, PreparedCase
from workflow.evaluation.calibration import BINS, CERTAINTY, certainty
from workflow.evaluation.metrics import COUNTS, SCORES, score_case
from workflow.evaluation.predict import label_map

CASE_COLUMNS = ("checkpoint", "test_set", "case", "subject", "class", *COUNTS, *SCORES, *CERTAINTY)
RELIABILITY_COLUMNS = ("checkpoint", "class", "bin", "voxels", "confidence", "accuracy")


def score(
    cases: Iterable[tuple[PreparedCase, torch.Tensor]], prepared: Prepared, nsd_tolerance: float
) -> tuple[list[dict], list[dict], dict[str, np.ndarray]]:
    """Both tables without the column checkpoint, and the label map of each case.

    ``cases``: of ``prepared``, each with its logits (C, x, y, z); ``nsd_tolerance`` in mm. Scores
    are of the grid of the files, so that they do not depend on the preparation; label maps are of
    the grid of the arrays, as the images are that they are shown on.
    """
    classes, rows, predictions = prepared.classes, [], {}
    table = np.zeros((len(classes), BINS, 3))
    for case, logits in cases:
        predictions[case.name] = label_map(logits)
        logits = prepared.restored(case, logits)
        predicted = label_map(logits) if case.moved else predictions[case.name]
        reference = np.array(prepared.reference_label(case))
        scores = score_case(
            predicted,
            reference,
            classes=classes,
            spacing=case.spacing,
            nsd_tolerance=nsd_tolerance,
        )
        sure, counted = certainty(logits, reference)
        table += counted
        place = {"test_set": case.dataset, "case": case.name, "subject": case.subject}
        rows += [place | score | certain for score, certain in zip(scores, sure, strict=True)]
    # the background's place is taken by the top label, which is of no class
    return rows, _reliability_rows(("", *classes[1:]), table), predictions


def _reliability_rows(names: Sequence[str], table: np.ndarray) -> list[dict]:
    """Bins that hold a voxel; ``accuracy`` is the share of hits."""
    return [
        {
            "class": name,
            "bin": index,
            "voxels": int(voxels),
            "confidence": confidence / voxels,
            "accuracy": hits / voxels,
        }
        for name, bins in zip(names, table, strict=True)
        for index, (voxels, confidence, hits) in enumerate(bins)
        if voxels
    ]
