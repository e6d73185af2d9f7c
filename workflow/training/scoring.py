"""The scores of held-out cases: rows of ``cases.csv`` and ``reliability.csv``, and label maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

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
) -> list[dict[str, Any]]:
    """What is found of each case, as a checkpoint can hold it.

    Its name, ``rows`` of ``cases.csv`` without the column checkpoint, its part of the reliability
    table (C, BINS, 3), and its label map (x, y, z).

    ``cases``: of ``prepared``, each with its logits (C, x, y, z); ``nsd_tolerance`` in mm. Scores
    are of the grid of the files, so that they do not depend on the preparation; label maps are of
    the grid of the arrays, as the images are that they are shown on.
    """
    found = []
    for case, logits in cases:
        label = label_map(logits)
        logits = prepared.restored(case, logits)
        predicted = label_map(logits) if case.moved else label
        reference = np.array(prepared.reference_label(case))
        scores = score_case(
            predicted,
            reference,
            classes=prepared.classes,
            spacing=case.spacing,
            nsd_tolerance=nsd_tolerance,
        )
        sure, counted = certainty(logits, reference)
        place = {"test_set": case.dataset, "case": case.name, "subject": case.subject}
        rows = [place | score | certain for score, certain in zip(scores, sure, strict=True)]
        maps = {"reliability": torch.from_numpy(counted), "label": torch.from_numpy(label)}
        found.append({"case": case.name, "rows": rows, **maps})
    return found


def summed_up(
    found: Sequence[dict[str, Any]], classes: Sequence[str]
) -> tuple[list[dict], list[dict], dict[str, np.ndarray]]:
    """Both tables without the column checkpoint, and the label map of each case."""
    table = np.zeros((len(classes), BINS, 3))
    for case in found:
        table += case["reliability"].numpy()
    rows = [row for case in found for row in case["rows"]]
    # the background's place is taken by the top label, which is of no class
    reliability = _reliability_rows(("", *classes[1:]), table)
    return rows, reliability, {case["case"]: case["label"].numpy() for case in found}


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
