"""Scores of a case: the empty rules, the formulas, and agreement with an independent peer."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import (
    compute_confusion_matrix_metric,
    compute_dice,
    compute_iou,
    get_confusion_matrix,
)

from workflow.evaluation.metrics import SCORES, score_case

CLASSES = ("background", "core", "rim")
SPACING = (1.0, 2.0, 3.0)


def score(prediction, reference):
    rows = score_case(
        np.asarray(prediction, np.uint8),
        np.asarray(reference, np.uint8),
        classes=CLASSES,
        spacing=SPACING,
        nsd_tolerance=1.0,
    )
    return {row["class"]: row for row in rows}


def ball(radius, centre=(8, 8, 8), shape=(16, 16, 16)):
    grid = np.indices(shape) - np.array(centre)[:, None, None, None]
    return (grid**2).sum(0) <= radius**2


@settings(max_examples=30, deadline=None)
@given(*(arrays(np.uint8, (4, 4, 4), elements=st.integers(0, 2)) for _ in range(2)))
def test_counts_and_ratios_follow_their_definitions(prediction, reference):
    for index, name in ((1, "core"), (2, "rim")):
        row = score(prediction, reference)[name]
        p, g = prediction == index, reference == index
        assert row["tp"] == (p & g).sum()
        assert row["fp"] == (p & ~g).sum()
        assert row["fn"] == (~p & g).sum()
        assert row["predicted_voxels"] == p.sum()
        assert row["reference_voxels"] == g.sum()
        if g.any():
            assert row["dice"] == pytest.approx(2 * (p & g).sum() / (p.sum() + g.sum()))
            assert row["iou"] == pytest.approx(row["dice"] / (2 - row["dice"]))
            assert row["volume_error"] == pytest.approx((p.sum() - g.sum()) / g.sum())


def test_a_perfect_prediction_scores_best():
    reference = ball(4).astype(np.uint8)
    row = score(reference, reference)["core"]
    assert [row[s] for s in SCORES] == [1, 1, 1, 1, 1, 0, 0]


def test_an_absent_class_has_no_scores_but_its_false_positives_are_counted():
    reference, prediction = np.zeros((2, 16, 16, 16), np.uint8)
    prediction[:2] = 1
    row = score(prediction, reference)["core"]
    assert all(math.isnan(row[s]) for s in SCORES)
    assert row["predicted_voxels"] == row["fp"] == 2 * 16 * 16


def test_a_missed_structure_costs_the_diagonal_and_never_improves_a_mean():
    row = score(np.zeros((16, 16, 16)), ball(3))["core"]
    assert row["dice"] == row["iou"] == row["sensitivity"] == row["nsd"] == 0
    assert math.isnan(row["precision"])
    assert row["hd95"] == pytest.approx(16 * math.sqrt(1 + 4 + 9))
    assert row["volume_error"] == -1


@pytest.mark.parametrize(
    ("reference", "prediction", "dice", "false_positives"),
    [
        (False, False, None, 0),  # neither 1, which would reward, nor 0, which would punish
        (True, False, 0, 0),
        (False, True, None, 27),  # not hidden: it is counted
        (True, True, 1, 0),
    ],
)
def test_the_empty_rules(reference, prediction, dice, false_positives):
    cube = np.zeros((16, 16, 16), np.uint8)
    cube[4:7, 4:7, 4:7] = 1
    row = score(cube * prediction, cube * reference)["core"]
    assert row["fp"] == false_positives
    for name in ("dice", "iou", "sensitivity", "nsd"):
        assert row[name] == dice if dice is not None else math.isnan(row[name]), name
    assert math.isnan(row["hd95"]) == (not reference)


def test_missing_a_structure_never_improves_the_mean_hd95():
    """Leaving a miss out, or NaN, would let a model that finds less look more exact."""
    far = score(ball(2, centre=(3, 3, 3)), ball(3, centre=(12, 12, 12)))["core"]["hd95"]
    missed = score(np.zeros((16, 16, 16)), ball(3, centre=(12, 12, 12)))["core"]["hd95"]
    assert missed > far


@settings(max_examples=20, deadline=None)
@given(*(arrays(np.uint8, (4, 4, 4), elements=st.integers(0, 2)) for _ in range(2)))
def test_ratios_agree_with_monai_where_both_are_defined(prediction, reference):
    one, other = (
        torch.nn.functional.one_hot(torch.tensor(x).long(), 3).movedim(-1, 0)[None].float()
        for x in (prediction, reference)
    )
    peers = {
        "dice": compute_dice(one, other, include_background=False)[0],
        "iou": compute_iou(one, other, include_background=False)[0],
    }
    matrix = get_confusion_matrix(one, other, include_background=False)[0]
    for name in ("sensitivity", "precision"):
        peers[name] = compute_confusion_matrix_metric(name, matrix)
    for index, class_name in enumerate(CLASSES[1:]):
        row = score(prediction, reference)[class_name]
        if row["reference_voxels"]:
            for name, values in peers.items():
                assert row[name] == pytest.approx(values[index].item(), nan_ok=True), name


def test_counts_become_mm3_by_the_volume_of_a_voxel():
    assert score(ball(2), ball(3))["core"]["voxel_mm3"] == math.prod(SPACING)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2, 2\).*\(3, 3, 3\)"):
        score(np.zeros((2, 2, 2)), np.zeros((3, 3, 3)))
