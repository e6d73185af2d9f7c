"""The errata of the five documents: the published number, the number that follows, the reason.

Published examples that are right are here as well, so that the errata are not one-sided.
"""

from __future__ import annotations

import math

import pytest
import torch
from loss_samples import build, gradient, sample
from torch.testing import assert_close

from losses.counts import soft_counts


def binary(values, targets):
    """Logits with these probabilities in channel 1 (sigmoid of a channel, softmax of both)."""
    p = torch.tensor(values, dtype=torch.float64).flatten()
    logit = p.logit()
    labels = torch.tensor(targets).flatten().long()
    return torch.stack([torch.zeros_like(logit), logit])[None], labels[None]


# --- document 000 --------------------------------------------------------------------------------

PROBABILITIES_000 = [
    [0.5322, 0.4932, 0.1764],
    [0.3107, 0.5297, 0.1604],
    [0.3841, 0.3537, 0.3574],
    [0.3323, 0.8301, 0.6436],
]
TARGETS_000 = [[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]]


def test_000_intersection_and_predicted_volume_are_right():
    p, g = torch.tensor(PROBABILITIES_000), torch.tensor(TARGETS_000)
    assert (p * g).sum().item() == pytest.approx(2.9012, abs=5e-5)
    assert p.sum().item() == pytest.approx(5.1038, abs=5e-5)


def test_000_dice_example_counts_eight_ones_where_the_grid_has_six():
    published_dice, published_loss, published_volume = 0.5901, 0.4099, 8
    assert torch.tensor(TARGETS_000).sum() == 6 != published_volume
    recomputed = (2 * 2.9012 + 1) / (5.1038 + 6 + 1)
    assert round(recomputed, 4) == 0.5620
    assert round(1 - recomputed, 4) == 0.4380
    assert recomputed != pytest.approx(published_dice, abs=0.02)
    assert 1 - recomputed != pytest.approx(published_loss, abs=0.02)
    # Its own 8 does not give the published number either.
    assert round((2 * 2.9012 + 1) / (5.1038 + 8 + 1), 4) == 0.4823

    # The published loss gives the recomputed value for this image: term of channel 1.
    logits, labels = binary(PROBABILITIES_000, TARGETS_000)
    other = 1 - (2 * 0.5 * 6 + 1) / (0.5 * 12 + 6 + 1)  # channel 0: sigmoid of 0 everywhere
    value = build("published_dice_per_image", classes=2)(logits, labels)
    assert 2 * value.item() - other == pytest.approx(0.4380, abs=5e-5)


def test_000_code_does_not_run():
    with pytest.raises(AttributeError):
        _ = torch.nn.Model  # what the class derives from


# --- document 001 --------------------------------------------------------------------------------


def test_001_focal_factor_of_the_mean_does_not_tell_easy_from_hard_voxels():
    # One hard voxel among 99 easy ones, all negative for class 1.
    easy, hard = -4.0, 2.0
    logits = torch.full((1, 2, 100), easy, dtype=torch.float64)
    logits[:, 0] = 4.0
    logits[0, 1, 0] = hard
    labels = torch.zeros(1, 100, dtype=torch.long)

    def share(name, **options):
        """Gradient of an easy voxel over that of the hard voxel, relative to cross-entropy."""
        _, slope = gradient(build(name, classes=2, **options), logits, labels)
        bce_share = torch.tensor(easy).sigmoid() / torch.tensor(hard).sigmoid()
        return (slope[0, 1, 1] / slope[0, 1, 0]).item() / bce_share.item()

    assert share("published_focal_mean_bce") == pytest.approx(1)  # one factor for all voxels
    assert share("published_focal_alpha_t") < 0.01  # per voxel, as Lin et al. have it


def test_001_focal_factor_of_the_mean_is_not_the_mean_of_focal_terms():
    bce = torch.tensor([0.01, 3.0])
    of_mean = (1 - (-bce.mean()).exp()) ** 2 * bce.mean()
    per_voxel = ((1 - (-bce).exp()) ** 2 * bce).mean()
    assert of_mean.item() == pytest.approx(0.9102, abs=1e-3)
    assert per_voxel.item() == pytest.approx(1.3544, abs=1e-3)


@pytest.mark.parametrize(
    ("exponent", "published_ratio"), [(2.0, 9.0), (3 / 4, 0.58)], ids=["published", "corrected"]
)
def test_001_focal_tversky_exponent_decides_which_classes_get_the_gradient(
    exponent, published_ratio
):
    index = torch.tensor([0.1, 0.9], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(((1 - index) ** exponent).sum(), index)
    assert (slope[0] / slope[1]).item() == pytest.approx(published_ratio, abs=0.005)


def test_001_focal_tversky_losses_have_these_exponents():
    logits, labels = sample(4, 5, batch=1, classes=2, dtype=torch.float64)
    logits[:, 0] = -logits[:, 1]
    labels[0, :2], labels[0, 2:] = 0, 1
    logits[:, :, 2:] = -logits[:, :, :2]  # both classes have the same counts, so the same index
    tversky = build("published_tversky", classes=2)(logits, labels)
    assert_close(build("published_focal_tversky", classes=2)(logits, labels), tversky**2)
    terms = build("tversky", classes=2, reduction="none")(logits, labels)
    corrected = build("focal_tversky", classes=2, reduction="none")(logits, labels)
    assert_close(corrected, terms**0.75)


def test_001_combo_with_its_sign_prefers_the_worst_prediction():
    _, labels = sample(6, 6)
    hot = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).float()
    right, wrong = 8 * hot - 4, 4 - 8 * hot
    published, corrected = build("published_combo"), build("combo")
    assert published(wrong, labels) < published(torch.zeros_like(hot), labels)
    assert published(torch.zeros_like(hot), labels) < published(right, labels)
    assert corrected(right, labels) < corrected(torch.zeros_like(hot), labels)
    assert corrected(torch.zeros_like(hot), labels) < corrected(wrong, labels)
    # A step downhill from an undecided prediction lowers the probability of the true class.
    _, slope = gradient(published, torch.zeros_like(hot), labels)
    assert ((-slope * hot).sum(1) < 0).all()
    _, slope = gradient(corrected, torch.zeros_like(hot), labels)
    assert ((-slope * hot).sum(1) > 0).all()


def test_001_combo_alpha_multiplies_both_terms():
    # Without any negative voxel, alpha should be all that weighs the positives; without any
    # positive one, it should not matter except through 1 - alpha. As published it scales both.
    p, g = 0.3, torch.tensor([1.0, 0.0])
    log_p, log_q = math.log(p), math.log(1 - p)
    for alpha in (0.2, 0.8):
        published = -(alpha * (g * log_p + (1 - alpha) * (1 - g) * log_q))
        meant = -(alpha * g * log_p + (1 - alpha) * (1 - g) * log_q)
        assert published[0] == meant[0]
        assert published[1].item() == pytest.approx(alpha * meant[1].item())


def test_001_combo_clamp_does_not_protect_in_float32():
    assert 1 - torch.tensor(1e-9) == 1
    logits = torch.tensor([[[20.0, -20.0], [-20.0, 20.0]]])
    labels = torch.tensor([[0, 1]])
    assert torch.isnan(build("published_combo", classes=2)(logits, labels))
    assert torch.isfinite(build("published_combo", classes=2)(logits.double(), labels))
    assert torch.isfinite(build("combo", classes=2)(logits, labels))


def test_001_tversky_at_its_default_is_dice_with_twice_the_smoothing():
    logits, labels = sample(4, 5)
    dice = build("published_dice_flat", smooth=2.0)(logits, labels)
    assert_close(build("published_tversky")(logits, labels), dice)


def test_001_keras_dot_of_two_vectors_is_a_number_only_by_contraction():
    """K.dot is matrix multiplication: NumPy and torch contract vectors, Keras wants matrices."""
    p, g = torch.rand(6), torch.rand(6)
    with pytest.raises(RuntimeError):
        torch.mm(p, g)
    assert_close(torch.dot(p, g), (p * g).sum())  # what was meant


# --- document 002 --------------------------------------------------------------------------------


def test_002_size_check_misses_a_mismatch_in_one_dimension():
    def resizes(size, target):
        (h, w), (ht, wt) = size, target
        return {"published": h != ht and w != wt, "corrected": h != ht or w != wt}

    assert resizes((4, 4), (8, 8)) == {"published": True, "corrected": True}
    assert resizes((4, 8), (8, 8)) == {"published": False, "corrected": True}
    logits, labels = sample(4, 8)
    with pytest.raises(ValueError, match="labels must have shape"):
        build("published_weighted_cross_entropy")(logits, labels[:, :2])


def test_002_focal_takes_a_power_of_the_probability_for_the_probability():
    p, weight, alpha, gamma = 0.7, 3.0, 0.5, 2.0
    logits, labels = binary([p], [1])
    value = build("published_focal_weighted_probability", weight=[1.0, weight])(logits, labels)
    as_published = -((1 - p**weight) ** gamma) * alpha * weight * math.log(p)
    meant = -((1 - p) ** gamma) * alpha * weight * math.log(p)
    by_the_text = -((1 - p * alpha) ** gamma) * math.log(p)
    assert value.item() == pytest.approx(as_published)
    assert as_published / meant == pytest.approx((1 - p**3) ** 2 / (1 - p) ** 2)
    assert as_published / meant > 4.7
    assert by_the_text not in (pytest.approx(as_published), pytest.approx(meant))
    # Without class weights the probability is right.
    plain = build("published_focal_weighted_probability", alpha=None)(logits, labels)
    assert_close(plain, build("focal")(logits, labels))


def test_002_focal_keeps_ignored_voxels_in_the_divisor():
    logits, labels = sample(4, 6)
    labels[..., 3:] = 9
    half = build("published_focal_weighted_probability", alpha=None, ignore_index=9)
    assert_close(half(logits, labels), build("focal", ignore_index=9)(logits, labels) / 2)


PREDICTED_002 = torch.tensor([[0.2, 0.2, 0.6], [0.8, 0.1, 0.1], [0.9, 0.1, 0.0]])
TARGET_002 = torch.tensor([2, 0, 0])


def test_002_soft_counts_example_is_right():
    logits = PREDICTED_002.double().log().T[None]  # softmax gives the probabilities back
    counts = soft_counts(logits, TARGET_002[None])
    for found, published in [
        (counts.overlap, [1.7, 0.0, 0.6]),
        (counts.false_positive, [0.2, 0.4, 0.1]),
        (counts.false_negative, [0.3, 0.0, 0.4]),
    ]:
        expected = torch.tensor([published], dtype=torch.float64)
        assert_close(found, expected, rtol=0, atol=1e-6)


def test_002_dice_counts_predictions_on_ignored_voxels_as_false_positives():
    _, labels = sample(4, 6, batch=1)
    perfect = 40.0 * torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).float()
    labels[..., 3:] = 9
    volume = torch.tensor([(labels == c).sum() for c in range(4)]).float()
    predicted = perfect.softmax(1).sum((0, 2, 3))
    leaking = 1 - ((2 * volume + 1e-5) / (volume + predicted + 1e-5)).mean()
    value = build("published_fbeta_dice", ignore_index=9)(perfect, labels)
    assert_close(value, leaking)
    assert value > 0.1
    right = build("dice", batch=True, ignore_index=9)(perfect, labels)
    assert right.item() == pytest.approx(0, abs=1e-5)


def test_002_dice_without_ignored_voxels_is_pooled_dice():
    logits, labels = sample(4, 6)
    pooled = build("dice", batch=True)(logits, labels)
    assert_close(build("published_fbeta_dice")(logits, labels), pooled, rtol=1e-5, atol=1e-6)


# --- document 003 --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("both", "predicted", "reference", "dice", "iou"),
    [(19, 19, 20, 0.97, 0.95), (5, 7, 20, 0.37, 0.23)],
    ids=["good", "poor"],
)
def test_003_dice_and_iou_examples_are_right(both, predicted, reference, dice, iou):
    g = [1] * reference + [0] * (100 - reference)
    p = [1] * both + [0] * (reference - both) + [1] * (predicted - both)
    p += [0] * (100 - len(p))
    labels, prediction = torch.tensor(g)[None], torch.tensor(p)[None]
    logits = 2000.0 * torch.nn.functional.one_hot(prediction, 2).movedim(-1, 1)
    none = dict(classes=2, reduction="none", smooth_nr=0.0, smooth_dr=0.0)
    assert round(1 - build("dice", **none)(logits, labels)[0, 1].item(), 2) == dice
    assert round(1 - build("jaccard", **none)(logits, labels)[0, 1].item(), 2) == iou


def test_003_bce_example_counts_105_pixels_and_false_positives_that_are_not_there():
    published, counted = 0.186, 3 + 97 + 5
    g, p = torch.zeros(10, 10), torch.full((10, 10), 0.1)
    for row, column, probability in [(2, 4, 0.9), (3, 3, 0.8), (6, 5, 0.9)]:
        g[row, column], p[row, column] = 1, probability
    assert counted != g.numel() == 100
    assert not ((g == 0) & (p > 0.5)).any()
    value = torch.nn.functional.binary_cross_entropy(p, g).item()
    assert value == pytest.approx((2 * 0.1054 + 0.2231 + 97 * 0.1054) / 100, abs=1e-4)
    assert round(value, 4) == 0.1065
    its_own_sum = -(100 * math.log(0.9) + 5 * math.log(0.2)) / 100
    assert round(its_own_sum, 3) == published


@pytest.mark.parametrize(("p_t", "published"), [(0.9, 0.00053), (0.6, 0.041)])
def test_003_focal_examples_are_right(p_t, published):
    assert 0.5 * (1 - p_t) ** 2 * -math.log(p_t) == pytest.approx(published, rel=0.01)
    # As the loss: two channels of the same probability, both with alpha = 0.5.
    logit = torch.tensor(p_t, dtype=torch.float64).logit()
    logits = torch.stack([-logit, logit]).view(1, 2, 1)
    value = build("published_focal_alpha_t", alpha=0.5)(logits, torch.tensor([[1]]))
    assert value.item() == pytest.approx(published, rel=0.01)


def test_003_alpha_of_a_quarter_works_against_the_positives():
    logits, labels = torch.zeros(1, 2, 2, dtype=torch.float64), torch.tensor([[0, 1]])
    _, slope = gradient(build("published_focal_alpha_t"), logits, labels)
    positive, negative = slope[0, 1, 1].abs(), slope[0, 1, 0].abs()
    assert (positive / negative).item() == pytest.approx(0.25 / 0.75)
    # It pays only together with gamma: easy negatives fade far more than 3 : 1.
    easy = (1 - 0.99) ** 2
    hard = (1 - 0.5) ** 2
    assert 0.25 * hard > 100 * 0.75 * easy


# --- document 004 --------------------------------------------------------------------------------


def imbalanced(size=32, absent=()):
    """A patch like the phantom's: classes 0 to 3 at about .94, .05, .01 and .004."""
    labels = torch.zeros(2, size, size, size, dtype=torch.long)
    side = size // 2
    labels[:, 4 : 4 + side, 4 : 4 + side, 4 : 4 + side // 2] = 1
    labels[:, 6:12, 6:12, 5:11] = 2
    labels[:, 13:18, 13:18, 6:11] = 3
    for c in absent:
        labels[labels == c] = 0
    logits = 0.1 * torch.randn(2, 4, size, size, size, generator=torch.Generator().manual_seed(0))
    return logits.double(), labels


def gradient_norm(name, absent=(), **options):
    """Value, and L1 norm of the gradient on the logits."""
    value, slope = gradient(build(name, **options), *imbalanced(absent=absent))
    return value.item(), slope.abs().sum().item()


def test_004_in_graph_mode_a_volume_of_zero_makes_every_weight_the_same():
    weights = [1 / (volume**2 + 0.00001) for volume in (0, 0, 0, 0)]
    assert weights == pytest.approx([1e5] * 4)  # as printed while TensorFlow built the graph
    logits, labels = sample(6, 6, 6, dtype=torch.float64)
    p_true = logits.softmax(1).gather(1, labels.unsqueeze(1))
    one_hot = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1)
    half_l1 = 0.5 * (one_hot - logits.softmax(1)).abs().sum(1).mean()
    value = build("published_generalized_dice_graph")(logits, labels)
    assert_close(value, 1 - p_true.mean())
    assert_close(value, half_l1)


def test_004_as_executed_all_background_is_nearly_optimal():
    _, labels = imbalanced()
    background = torch.zeros(2, 4, 32, 32, 32)
    background[:, 0] = 30.0
    share = (labels > 0).float().mean().item()
    value = build("published_generalized_dice_graph")(background, labels).item()
    assert value == pytest.approx(share, abs=1e-6)
    assert value < 0.08
    assert build("dice")(background, labels) > 0.7


def test_004_as_written_an_absent_class_takes_the_gradient_of_all_others():
    value, present = gradient_norm("published_generalized_dice_written")
    assert 1 - value > 1e-3
    assert present > 1e-4
    value, absent = gradient_norm("published_generalized_dice_written", absent=[3])
    assert 1 - value < 1e-8
    assert absent < 1e-7 * present
    # The corrected loss and Dice keep learning from the same batch.
    for name in ("generalized_dice", "dice"):
        _, with_all = gradient_norm(name)
        _, without = gradient_norm(name, absent=[3])
        assert without > 0.1 * with_all


def test_004_as_written_the_weights_are_as_small_as_the_question_says():
    weight = 1 / (1e5**2 + 0.00001)  # a class of 1e5 voxels
    assert weight == pytest.approx(1e-10)


@pytest.mark.parametrize(
    ("voxels", "background", "ratio"),
    [(28 * 28, 1.6e-6, 0.6), (32**3, 9.3e-10, 1000)],
    ids=["28x28", "32x32x32"],
)
def test_004_the_answers_fixed_weight_is_not_scale_free(voxels, background, ratio):
    assert 1 / voxels**2 == pytest.approx(background, rel=0.03)
    assert 1e-6 / (1 / voxels**2) == pytest.approx(ratio, rel=0.1)


def test_004_the_answers_value_depends_on_resolution_and_the_corrected_one_does_not():
    logits, labels = imbalanced(absent=[2, 3])

    def finer(tensor):
        """The same image with every voxel doubled along each axis."""
        for axis in (-1, -2, -3):
            tensor = tensor.repeat_interleave(2, axis)
        return tensor

    def change(name, **options):
        loss = build(name, **options)
        return (loss(finer(logits), finer(labels)) - loss(logits, labels)).abs().item()

    assert change("published_generalized_dice_answer") > 0.01
    for absent in ("max", "zero"):
        assert change("generalized_dice", absent=absent, smooth_nr=0.0, smooth_dr=0.0) < 1e-12


def test_004_the_answer_is_generalized_dice_with_a_fixed_weight_for_absent_classes():
    logits, labels = imbalanced(absent=[2])
    twin = build("generalized_dice", absent="eps", eps=1e-6, smooth_nr=0.0, smooth_dr=0.0)
    assert_close(build("published_generalized_dice_answer")(logits, labels), twin(logits, labels))
