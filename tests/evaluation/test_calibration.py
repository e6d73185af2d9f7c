"""Calibration and presence, against their formulas, a simulation and independent peers."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_roc_auc
from monai.metrics.calibration import calibration_binning

from workflow.evaluation.calibration import (
    BINS,
    calibration_error,
    certainty,
    foreground_box,
    presence_auc,
    presence_log_odds,
    reliability,
)

SHAPE = (10, 12, 14)


def case(seed=0, classes=3, scale=2.0):
    """Logits and a reference with foreground in one corner."""
    generator = np.random.default_rng(seed)
    reference = np.zeros(SHAPE, np.uint8)
    reference[2:6, 3:6, 4:9] = generator.integers(0, classes, (4, 3, 5))
    reference[2, 3, 4] = reference[5, 5, 8] = 1
    logits = scale * torch.tensor(generator.normal(size=(classes, *SHAPE)), dtype=torch.float32)
    return logits, reference


def test_the_box_is_twice_as_large_as_the_foreground_and_ends_with_the_image():
    _, reference = case()
    # 4 x 3 x 5 voxels grow by 2, 1 and 2 on either side
    assert foreground_box(reference) == (slice(0, 8), slice(2, 7), slice(2, 11))
    reference[0] = 2
    box = foreground_box(reference)
    assert box[0].start == 0
    assert reference[box].shape == (9, 12, 14)
    assert foreground_box(np.zeros(SHAPE, np.uint8)) is None


def test_nll_and_ece_follow_their_formulas_within_the_box():
    logits, reference = case()
    rows, _ = certainty(logits, reference)
    inside, labels = logits[:, 0:8, 2:7, 2:11], reference[0:8, 2:7, 2:11]
    nll = torch.nn.functional.cross_entropy(inside[None], torch.tensor(labels)[None].long()).item()
    p = torch.softmax(inside.double(), 0).numpy()
    confidence, hit = p.max(0), p.argmax(0) == labels
    ece = 0.0
    for b in range(BINS):
        chosen = (confidence >= b / BINS) & (confidence < (b + 1) / BINS)
        if chosen.any():
            ece += chosen.mean() * abs(hit[chosen].mean() - confidence[chosen].mean())
    assert len(rows) == 2
    for row in rows:
        assert row["nll"] == pytest.approx(nll, rel=1e-5)
        assert row["ece"] == pytest.approx(ece, rel=1e-5)


def test_what_lies_outside_the_box_does_not_count():
    logits, reference = case()
    changed = logits.clone()
    changed[:, 8:] = 0
    before, after = certainty(logits, reference), certainty(changed, reference)
    assert [row["ece"] for row in after[0]] == [row["ece"] for row in before[0]]
    assert (after[1] == before[1]).all()


def test_the_bins_of_a_class_are_those_of_monai():
    logits, reference = case()
    p = torch.softmax(logits, 0)
    table = reliability(p.flatten(1).numpy(), reference.ravel())
    truth = torch.nn.functional.one_hot(torch.tensor(reference).long(), 3).movedim(-1, 0)
    # MONAI's `right` closes bins on the left, as ours are
    confidence, accuracy, counts = (
        x[0].numpy() for x in calibration_binning(p[None], truth[None].float(), BINS, right=True)
    )
    for c in (1, 2):
        voxels, sums, hits = table[c].T
        assert voxels.tolist() == counts[c].tolist()
        held = voxels > 0
        assert sums[held] / voxels[held] == pytest.approx(confidence[c][held], rel=1e-5)
        assert hits[held] / voxels[held] == pytest.approx(accuracy[c][held], rel=1e-5)


def test_labels_drawn_from_the_probabilities_are_calibrated_and_boasting_is_not():
    generator = np.random.default_rng(1)
    p = generator.dirichlet([1, 1, 1], 50_000).T
    labels = (generator.random(50_000) > p.cumsum(0)).sum(0)
    assert calibration_error(reliability(p, labels)[0]) < 0.01
    boasting = np.full((2, 1000), [[0.9], [0.1]])
    right = np.repeat([0, 1], [600, 400])
    assert calibration_error(reliability(boasting, right)[0]) == pytest.approx(0.3)
    assert calibration_error(reliability(boasting, right)[1]) == pytest.approx(0.3)


def test_certain_voxels_fall_into_the_outer_bins():
    table = reliability(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1]))
    assert table[0, :, 0].tolist() == [0] * (BINS - 1) + [2]
    assert table[1, :, 0].tolist() == [1] + [0] * (BINS - 2) + [1]


def test_tables_of_cases_add_up_to_that_of_the_run():
    parts = [case(seed) for seed in (1, 2)]
    tables = [certainty(*part)[1] for part in parts]
    boxes = [foreground_box(reference) for _, reference in parts]
    voxels = sum(reference[box].size for (_, reference), box in zip(parts, boxes, strict=True))
    assert sum(tables)[:, :, 0].sum(1).tolist() == [voxels] * 3


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_not_scored(number):
    logits, reference = case()
    logits[1, 3, 4, 5] = number
    rows, table = certainty(logits, reference)
    assert all(math.isnan(value) for row in rows for value in row.values())
    assert table.sum() == 0


def test_a_case_without_foreground_has_no_calibration_but_says_what_it_sees():
    logits, reference = case()
    rows, table = certainty(logits, np.zeros_like(reference))
    assert all(math.isnan(row["ece"]) and math.isnan(row["nll"]) for row in rows)
    assert table.sum() == 0
    assert [row["presence_log_odds"] for row in rows] == presence_log_odds(logits)


def test_presence_is_the_log_odds_of_the_highest_probability():
    logits, _ = case()
    highest = torch.softmax(logits.double(), 0).flatten(1).amax(1)
    assert presence_log_odds(logits) == pytest.approx(torch.logit(highest)[1:].tolist(), rel=1e-4)


@pytest.mark.parametrize("size", [30.0, -30.0])
def test_presence_tells_apart_what_single_precision_rounds_to_one(size):
    logits = torch.tensor([0.0, size])[:, None, None, None]
    assert torch.softmax(logits, 0).max() == 1
    assert presence_log_odds(logits) == pytest.approx([size])


def test_presence_stays_finite():
    log_odds = presence_log_odds(torch.tensor([0.0, -500.0, 500.0])[:, None, None, None])
    assert log_odds == pytest.approx([-87.3, 87.3], abs=1)


def test_presence_auc_is_that_of_its_peers_ties_included():
    generator = np.random.default_rng(3)
    scores, present = generator.integers(0, 8, 40).astype(float), generator.random(40) < 0.6
    auc = presence_auc(scores, present)
    assert auc == pytest.approx(compute_roc_auc(torch.tensor(scores), torch.tensor(present)))
    pairs = np.subtract.outer(scores[present], scores[~present])
    assert auc == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_presence_auc_needs_cases_of_both_kinds_and_does_not_drop_what_is_undefined():
    assert math.isnan(presence_auc([1.0, 2.0], [True, True]))
    assert math.isnan(presence_auc([1.0, 2.0], [False, False]))
    assert presence_auc([math.nan] * 4, [True, False, True, False]) == 0.5
    assert presence_auc([math.nan, 1.0], [True, False]) == 0
