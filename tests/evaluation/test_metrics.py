"""Scores of a case: the empty rules, the formulas, and agreement with an independent peer."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_hausdorff_distance

from workflow.evaluation.metrics import SCORES, score_case, surface_scores

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


@pytest.mark.parametrize("shift", [1, 2, 5])
def test_hd95_agrees_with_monai_where_both_are_defined(shift):
    reference, prediction = ball(4), ball(4, centre=(8 + shift, 8, 8))
    _, hd95 = surface_scores(prediction, reference, SPACING, 1.0)
    peer = compute_hausdorff_distance(
        torch.tensor(prediction)[None, None].float(),
        torch.tensor(reference)[None, None].float(),
        include_background=True,
        percentile=95,
        spacing=list(SPACING),
    ).item()
    # surfaces lie between voxels in surface-distance and on voxels in MONAI: half a voxel
    assert hd95 == pytest.approx(peer, abs=max(SPACING))


def test_nsd_of_a_shifted_cube_loses_the_two_faces_across_the_shift():
    """The other four faces slide along themselves: about two thirds stay within tolerance."""
    reference, prediction = np.zeros((2, 40, 40, 40), bool)
    reference[6:34, 6:34, 6:34] = True
    prediction[9:37, 6:34, 6:34] = True
    nsd, _ = surface_scores(prediction, reference, (1, 1, 1), 1.0)
    assert nsd == pytest.approx(2 / 3, abs=0.05)


def test_nsd_grows_with_its_tolerance():
    values = [surface_scores(ball(4), ball(6), (1, 1, 1), t)[0] for t in (0.5, 1, 2, 4)]
    assert values == sorted(values)
    assert values[0] < 0.5
    assert values[-1] == 1


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2, 2\).*\(3, 3, 3\)"):
        score(np.zeros((2, 2, 2)), np.zeros((3, 3, 3)))
