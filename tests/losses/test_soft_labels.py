"""Soft labels: a probability of each class at each voxel instead of a label."""

from __future__ import annotations

import pytest
import torch
from loss_samples import CLASSES, NAMES, build, gradient, sample
from torch.nn.functional import one_hot
from torch.testing import assert_close

import losses

SOFT = [name for name in NAMES if type(build(name)).soft_labels]
WEIGHTED = [name for name in SOFT if "weight" in losses.options(name)]


def soft(labels, dtype=torch.float64, blur=0.0):
    """One-hot labels of which a share is spread over all classes."""
    return (one_hot(labels, CLASSES).movedim(-1, 1) * (1 - blur) + blur / CLASSES).to(dtype)


def test_the_losses_whose_formula_allows_soft_labels():
    assert {"dice", "generalized_dice", "cross_entropy", "dice_ce", "dice_metric"} <= set(SOFT)
    assert {"focal", "lovasz_softmax", "hausdorff_dt", "generalized_wasserstein_dice"}.isdisjoint(
        SOFT
    )


@pytest.mark.parametrize(
    ("name", "weight"),
    [(name, None) for name in SOFT] + [(name, [1.0, 3.0, 0.0, 2.0]) for name in WEIGHTED],
)
def test_certain_soft_labels_are_labels(name, weight):
    options = {} if weight is None else {"weight": weight}
    logits, labels = sample(5, 4, 3, dtype=torch.float64)
    labels[1][labels[1] == 2] = 0
    loss = build(name, **options)
    hard = gradient(loss, logits, labels)
    for dtype in (torch.float64, torch.float16):
        assert_close(gradient(loss, logits, soft(labels, dtype)), hard)


@pytest.mark.parametrize("name", ["cross_entropy", "dice_metric", "jaccard_metric"])
def test_the_least_loss_is_at_the_soft_label(name):
    logits, labels = sample(5, 4, 3, dtype=torch.float64)
    target = soft(labels, blur=0.3)
    loss = build(name)
    value, slope = gradient(loss, target.log(), target)
    for shift in (logits, -logits):
        assert loss(target.log() + 0.1 * shift, target) > value
    if name == "cross_entropy":  # the others have a kink there
        assert_close(slope, torch.zeros_like(slope))


def test_smoothed_labels_are_label_smoothing():
    logits, labels = sample(5, 4, 3, dtype=torch.float64)
    expected = build("label_smoothing_cross_entropy", label_smoothing=0.2)(logits, labels)
    assert_close(build("cross_entropy")(logits, soft(labels, blur=0.2)), expected)
    expected = build("dice_metric", label_smoothing=0.2)(logits, labels)
    assert_close(build("dice_metric")(logits, soft(labels, blur=0.2)), expected)


def test_soft_dice_follows_its_formula():
    logits, labels = sample(5, 4, 3, dtype=torch.float64)
    p, g = logits.softmax(1).flatten(2), soft(labels, blur=0.4).flatten(2)
    exact = dict(smooth_nr=0.0, smooth_dr=0.0)
    expected = 1 - (2 * (p * g).sum(2) / (p.sum(2) + g.sum(2))).mean()
    assert_close(build("dice", **exact)(logits, g.view_as(logits)), expected)
    expected = 1 - (2 * (p * g).sum(2) / (p**2 + g**2).sum(2)).mean()
    assert_close(build("dice", squared_pred=True, **exact)(logits, g.view_as(logits)), expected)


@pytest.mark.parametrize("name", SOFT)
def test_wrong_soft_labels_are_refused(name):
    logits, labels = sample(5, 4)
    good = soft(labels, torch.float32)
    loss = build(name)
    for wrong, error, message in [
        (
            good[:, :3],
            TypeError,
            r"integer class indices, got torch\.float32 of shape \(2, 3, 5, 4",
        ),
        (good * 0.9, ValueError, "add up to 1 at each voxel, but one is off by 0.1"),
        (good - 0.1, ValueError, "below 0 or NaN"),
        (good * float("nan"), ValueError, "below 0 or NaN"),
    ]:
        with pytest.raises(error, match=message):
            loss(logits, wrong)
    with pytest.raises(ValueError, match="soft labels cannot be ignored"):
        build(name, ignore_index=0)(logits, good)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", SOFT)
def test_soft_labels_in_half_precision_may_miss_the_sum_by_their_rounding(name, dtype):
    logits, _ = sample(5, 4)
    thirds = torch.full_like(logits, 1 / 3).to(dtype)
    thirds[:, 3] = 0
    exact = thirds.float() / thirds.float().sum(1, keepdim=True)
    loss = build(name)
    assert_close(loss(logits, thirds), loss(logits, exact), rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("name", [name for name in SOFT if "generalized" in name])
@pytest.mark.parametrize("weighting", ["square", "simple"])
def test_a_trace_of_a_class_is_finite(name, weighting):
    """1/V^2 of a volume below 1e-19, which a teacher's softmax gives, is infinite in float32."""
    logits, labels = sample(5, 4, 3)
    teacher = logits.double()
    teacher[:, 3] -= 60
    loss = build(name, weighting=weighting)
    value, slope = gradient(loss, logits, teacher.softmax(1).float())
    assert_close(value.double(), loss(logits.double(), teacher.softmax(1)), rtol=1e-4, atol=1e-6)
    assert torch.isfinite(slope).all()
    given = build(name, weighting=weighting, volumes=[1.0, 1.0, 1.0, 1e-30])
    assert torch.isfinite(given(logits, labels))


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SOFT)))
def test_other_losses_ask_for_a_label_map(name):
    logits, labels = sample(5, 4)
    with pytest.raises(
        TypeError, match=r"labels must be integer class indices, got torch\.float32"
    ):
        build(name)(logits, soft(labels, torch.float32))


@pytest.mark.parametrize("name", ["weighted_cross_entropy", "dice_ce"])
def test_class_weights_act_inside_the_sum_over_soft_labels(name):
    """As in torch; a class of weight 0 does not pull."""
    logits, labels = sample(5, 4, 3, dtype=torch.float64)
    g, weight = soft(labels, blur=0.4), [0.0, 1.0, 3.0, 2.0]
    options = {} if name == "weighted_cross_entropy" else {"lambda_dice": 0.0}
    w = torch.tensor(weight, dtype=torch.float64).view(1, -1, 1, 1, 1)
    expected = -(w * g * logits.log_softmax(1)).sum() / (w * g).sum()
    assert_close(build(name, weight=weight, **options)(logits, g), expected)
