"""Losses beyond the common ones: their formulas evaluated literally, their limits, their kin."""

from __future__ import annotations

import math

import pytest
import torch
from loss_samples import CLASSES, build, gradient, sample
from torch.nn.functional import one_hot
from torch.testing import assert_close

import losses

EXACT = dict(smooth_nr=0.0, smooth_dr=0.0)


@pytest.fixture(params=[0, 1, 2], ids=["present", "absent", "rare"])
def case(request):
    """Logits and labels in which every class is present, one is absent, or one is rare."""
    logits, labels = sample(5, 6, batch=3, seed=request.param, dtype=torch.float64)
    if request.param == 1:
        labels[0] = labels[0].clamp_max(CLASSES - 2)
    elif request.param == 2:
        labels[labels == 1] = 0
        labels[:, 2, 2] = 1
    return 2 * logits, labels


def hot(labels, classes=CLASSES):
    return one_hot(labels, classes).movedim(-1, 1).double()


def certain(labels, classes=CLASSES):
    """Logits whose softmax is exactly 0 or 1."""
    return 2000 * hot(labels, classes)


def terms(name, case, **options):
    return build(name, reduction="none", **options)(*case)


# --- distribution --------------------------------------------------------------------------------


def test_balanced_cross_entropy_is_the_mean_over_present_classes_of_their_means(case):
    voxels = build("cross_entropy", reduction="none")(*case)
    means = [voxels[case[1] == c].mean() for c in case[1].unique()]
    assert_close(build("balanced_cross_entropy")(*case), torch.stack(means).mean())


def test_balanced_cross_entropy_of_two_classes_has_the_ratio_of_xie_and_tu():
    logits, labels = sample(5, 6, classes=2, dtype=torch.float64)
    positives = labels.double().mean()
    beta = 1 - positives  # the share of negatives weighs the positives
    voxels = build("cross_entropy", reduction="none")(logits, labels)
    theirs = (torch.where(labels == 1, beta, 1 - beta) * voxels).mean()
    ours = build("balanced_cross_entropy", classes=2)(logits, labels)
    assert_close(theirs, 2 * beta * (1 - beta) * ours)


def test_label_smoothing_of_zero_is_cross_entropy_and_of_some_its_formula(case):
    expected = build("cross_entropy")(*case)
    assert_close(build("label_smoothing_cross_entropy", label_smoothing=0.0)(*case), expected)
    smoothed = 0.7 * hot(case[1]) + 0.3 / CLASSES
    expected = -(smoothed * case[0].log_softmax(1)).sum(1).mean()
    assert_close(build("label_smoothing_cross_entropy", label_smoothing=0.3)(*case), expected)


def test_label_smoothing_is_lowest_where_the_prediction_is_the_smoothed_label(case):
    best = (0.9 * hot(case[1]) + 0.1 / CLASSES).log()
    _, slope = gradient(build("label_smoothing_cross_entropy"), best, case[1])
    assert_close(slope, torch.zeros_like(slope))


def test_generalised_cross_entropy_lies_between_cross_entropy_and_mean_absolute_error(case):
    logits, labels = case
    p = logits.softmax(1).gather(1, labels.unsqueeze(1))
    value = build("generalised_cross_entropy", q=1e-9)(*case)
    assert_close(value, build("cross_entropy")(*case))
    value = build("generalised_cross_entropy", q=1)(*case)
    assert_close(value, (1 - p).mean())
    assert_close(value, (logits.softmax(1) - hot(labels)).abs().sum(1).mean() / 2)
    assert_close(build("generalised_cross_entropy")(*case), ((1 - p**0.7) / 0.7).mean())


@pytest.mark.parametrize("name", ["nacl", "cross_entropy_size_prior"])
def test_without_its_penalty_a_penalised_loss_is_cross_entropy(name, case):
    assert_close(build(name, alpha=0)(*case), build("cross_entropy")(*case))


def test_the_size_prior_is_the_l1_distance_of_the_proportions(case):
    logits, labels = case
    predicted, true = logits.softmax(1).mean((2, 3)), hot(labels).mean((2, 3))
    penalty = (predicted - true).abs().sum(1).mean()
    value = build("cross_entropy_size_prior", alpha=0.7)(*case)
    assert_close(value, build("cross_entropy")(*case) + 0.7 * penalty)


def test_nacl_holds_logits_near_the_shares_of_the_valid_neighbours():
    logits, labels = sample(4, 5, batch=1, dtype=torch.float64)
    labels[0, 1, 2] = 255
    loss = build("nacl", ignore_index=255)
    distances = []
    for x in range(4):
        for y in range(5):
            if labels[0, x, y] == 255:
                continue
            around = labels[0, max(x - 1, 0) : x + 2, max(y - 1, 0) : y + 2].flatten()
            around = around[around != 255]
            share = torch.bincount(around, minlength=CLASSES) / len(around)
            distances.append((logits[0, :, x, y] - share).abs().mean())
    cross = build("cross_entropy", ignore_index=255)(logits, labels)
    assert_close(loss(logits, labels), cross + 0.1 * torch.stack(distances).mean())


# --- region: functions of Dice and Tversky -------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"batch": True}, {"squared_pred": True}], ids=str)
def test_the_kin_of_dice_are_functions_of_its_terms(case, options):
    dice = terms("dice", case, **options)
    assert_close(terms("log_dice", case, **options), -(1 - dice).log())
    assert_close(terms("log_cosh_dice", case, **options), dice.cosh().log())
    assert_close(terms("focal_dice", case, beta=3, **options), 1 - (1 - dice) ** (1 / 3))
    assert_close(terms("focal_dice", case, beta=1, **options), dice)


def test_log_cosh_dice_keeps_its_digits_near_zero():
    labels = torch.arange(2000).remainder(2)[None]
    value = build("log_cosh_dice", classes=2)(9.0 * hot(labels, 2).float(), labels)
    dice = build("dice", classes=2)(9.0 * hot(labels, 2), labels)
    assert value.item() == pytest.approx(dice.item() ** 2 / 2, rel=0.01)


def test_log_dice_pushes_an_absent_class_down_where_dice_does_not():
    labels = torch.zeros(1, 60, dtype=torch.long)
    logits = torch.zeros(1, 2, 60, dtype=torch.float64)
    with_log = gradient(build("log_dice", classes=2), logits, labels)[1][:, 1]
    without = gradient(build("dice", classes=2), logits, labels)[1][:, 1]
    assert with_log.sum() == pytest.approx(0.5 * 0.5 + 0.5 / 3, rel=1e-3)  # of classes 1 and 0
    assert with_log.sum() > 1.8 * without.sum()


def test_asymmetric_similarity_is_tversky_and_one_minus_f_beta(case):
    beta = 1.5
    recall = beta**2 / (1 + beta**2)
    value = terms("asymmetric_similarity", case, **EXACT)
    assert_close(value, terms("tversky", case, alpha=1 - recall, beta=recall, **EXACT))
    p, g = case[0].softmax(1), hot(case[1])
    tp, fp, fn = ((a * b).sum((2, 3)) for a, b in ((p, g), (p, 1 - g), (1 - p, g)))
    scaled = (1 + beta**2) * tp
    assert_close(value, 1 - scaled / (scaled + beta**2 * fn + fp))
    dice = terms("dice", case, **EXACT)
    assert_close(terms("asymmetric_similarity", case, beta=1, **EXACT), dice)


def test_mcc_of_a_hard_prediction_is_one_minus_the_coefficient():
    _, labels = sample(6, 5, batch=2)
    _, predicted = sample(6, 5, batch=2, seed=1)
    expected = []
    for image in range(2):
        for c in range(CLASSES):
            p, g = (predicted[image] == c).double(), (labels[image] == c).double()
            pairs = torch.stack([p.flatten(), g.flatten()])
            expected.append(1 - torch.corrcoef(pairs)[0, 1])  # for indicators they are the same
    value = build("mcc", smooth_dr=0.0)(certain(predicted), labels)
    assert_close(value, torch.stack(expected).mean())


def test_mcc_of_a_class_that_is_absent_or_everywhere_is_one_without_gradient():
    logits, _ = sample(6, 5, classes=3, dtype=torch.float64)
    labels = torch.zeros(2, 6, 5, dtype=torch.long)
    value, slope = gradient(build("mcc", smooth_dr=0.0), logits, labels)
    assert value == 1
    assert (slope == 0).all()


@pytest.mark.parametrize("rare", [0, 1, 27])
def test_mcc_has_its_value_in_single_precision_where_one_class_fills_the_image(rare):
    """N TP - P G, the usual short form, is off by 1 % here, 20 % in 128^3 voxels.

    Without a rare voxel it is up to 1e6, if threads sum overlap and volume in different orders.
    """
    labels = torch.zeros(1, 61, 67, 53, dtype=torch.long)
    labels.view(-1)[:rare] = 1
    noise = torch.randn(1, 2, *labels.shape[1:], generator=torch.Generator().manual_seed(0))
    logits = noise + 14 * one_hot(labels, 2).movedim(-1, 1)
    loss = build("mcc", classes=2, reduction="none")
    assert_close(loss(logits, labels).double(), loss(logits.double(), labels), rtol=1e-4, atol=0)


# --- region: differences -------------------------------------------------------------------------


def test_sensitivity_specificity_is_its_formula(case):
    p, g = case[0].softmax(1), hot(case[1])
    error = (g - p) ** 2
    inside = (error * g).sum((2, 3)) / g.sum((2, 3)).clamp_min(1)
    outside = (error * (1 - g)).sum((2, 3)) / (1 - g).sum((2, 3))
    expected = (0.05 * inside + 0.95 * outside).mean()
    assert_close(build("sensitivity_specificity")(*case), expected)


def test_noise_robust_dice_at_two_is_squared_dice_and_at_one_an_absolute_error(case):
    p, g = case[0].softmax(1), hot(case[1])
    value = terms("noise_robust_dice", case, gamma=2)
    assert_close(value, terms("dice", case, squared_pred=True))
    below = (p**2 + g**2).sum((2, 3)) + 1e-5
    value = terms("noise_robust_dice", case, gamma=1)
    assert_close(value, (p - g).abs().sum((2, 3)) / below)
    assert_close(terms("noise_robust_dice", case), ((p - g).abs() ** 1.5).sum((2, 3)) / below)


@pytest.mark.parametrize("name", ["dice", "jaccard"])
@pytest.mark.parametrize("batch", [False, True])
def test_a_metric_loss_is_its_plain_loss_for_hard_labels(name, batch, case):
    plain, metric = build(name, batch=batch), build(f"{name}_metric", batch=batch)
    for logits in (case[0], certain(case[1].roll(1))):
        value, slope = gradient(metric, logits, case[1])
        plain_value, plain_slope = gradient(plain, logits, case[1])
        assert_close(value, plain_value)
        assert_close(slope, plain_slope)


@pytest.mark.parametrize("name", ["dice_metric", "jaccard_metric"])
def test_a_metric_loss_is_zero_at_soft_labels_and_nowhere_lower(name, case):
    soft = 0.8 * hot(case[1]) + 0.2 / CLASSES
    loss = build(name, label_smoothing=0.2)
    assert loss(soft.log(), case[1]) == pytest.approx(0, abs=1e-12)
    for other in (case[0], certain(case[1])):
        assert loss(other, case[1]) > 0.01


# --- region: neighbours --------------------------------------------------------------------------


def square(side, size=14):
    labels = torch.zeros(1, size, size, dtype=torch.long)
    labels[:, 2 : 2 + side, 2 : 2 + side] = 1
    return labels


@pytest.mark.parametrize(("side", "alpha"), [(1, 0.0), (4, 0.0), (10, 1 - 2 * 36 / 100)])
def test_boundary_dou_discounts_the_overlap_of_large_classes(side, alpha):
    labels = square(side)
    logits = sample(14, 14, batch=1, classes=2, dtype=torch.float64)[0]
    p, g = logits.softmax(1)[:, 1], (labels == 1).double()
    squares, overlap = (p**2 + g**2).sum(), (p * g).sum()
    expected = (squares - 2 * overlap) / (squares - (1 + alpha) * overlap)
    value = build("boundary_dou", classes=2, reduction="none", **EXACT)(logits, labels)[0, 1]
    assert_close(value, expected)


def test_boundary_dou_without_discount_is_the_jaccard_loss_of_squares(case):
    dice = terms("dice", case, squared_pred=True, **EXACT)
    value = terms("boundary_dou", case, max_alpha=0, **EXACT)
    assert_close(value, 1 - (1 - dice) / (1 + dice))


def test_the_edge_of_an_image_is_no_boundary():
    labels = torch.zeros(1, 9, dtype=torch.long)
    labels[:, 4:] = 1  # 1 boundary voxel of 5, so alpha = .6; of 4, so alpha = .5
    logits = sample(9, batch=1, classes=2, dtype=torch.float64)[0]
    p, g = logits.softmax(1), hot(labels, 2)
    squares, overlap = (p**2 + g**2).sum(2), (p * g).sum(2)
    alpha = torch.tensor([0.5, 0.6], dtype=torch.float64)
    expected = (squares - 2 * overlap) / (squares - (1 + alpha) * overlap)
    value = build("boundary_dou", classes=2, **EXACT)(logits, labels)
    assert_close(value, expected.mean())


def line(*gaps):
    labels = torch.zeros(1, 9, 30, dtype=torch.long)
    labels[:, 3:6, 2:28] = 1
    for gap in gaps:
        labels[:, :, gap] = 0
    return labels


def test_cl_dice_is_its_formula_on_thin_lines_which_are_their_own_skeletons():
    labels, predicted = torch.zeros(2, 1, 7, 20, dtype=torch.long)
    labels[:, 3, 2:18] = 1
    predicted[:, 3, 10:20] = 1
    # 8 of the 10 predicted voxels lie in the reference, 8 of its 16 in the prediction
    precision, sensitivity = (8 + 1) / (10 + 1), (8 + 1) / (16 + 1)
    expected = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    value = build("cl_dice", classes=2)(certain(predicted, 2), labels)
    assert value.item() == pytest.approx(expected)


def test_cl_dice_looks_at_skeletons_and_dice_at_volumes():
    labels, thin = line(), torch.zeros(1, 9, 30, dtype=torch.long)
    thin[:, 4, 2:28] = 1  # the centre line alone

    def value(name, predicted):
        loss = build(name, classes=2, include_background=False)
        return loss(certain(predicted, 2), labels).item()

    assert value("cl_dice", thin) < 0.1 < 0.4 < value("dice", thin)
    assert value("cl_dice", line()) == pytest.approx(0)
    assert value("cl_dice", line()) < value("cl_dice", line(12)) < value("cl_dice", line(8, 12, 20))


def test_more_iterations_than_the_radius_change_nothing():
    labels, logits = line(9), sample(9, 30, batch=1, classes=2, dtype=torch.float64)[0]
    few = build("cl_dice", classes=2, iterations=30)(logits, labels)
    assert_close(build("cl_dice", classes=2, iterations=40)(logits, labels), few)
    for wrong, error in [(2.5, TypeError), (True, TypeError), (-1, ValueError)]:
        with pytest.raises(error, match="iterations must be"):
            build("cl_dice", iterations=wrong)


# --- region: Lovasz hinge ------------------------------------------------------------------------


def test_lovasz_hinge_of_predictions_at_the_margin_is_twice_the_jaccard_loss():
    _, labels = sample(6, 5, batch=2, classes=2)
    _, predicted = sample(6, 5, batch=2, classes=2, seed=1)
    logits = hot(predicted, 2)  # so the log-odds are 1 or -1: errors are 0 or 2
    jaccard = []
    for image in range(2):
        for c in range(2):
            p, g = predicted[image] == c, labels[image] == c
            jaccard.append(1 - (p & g).sum() / (p | g).sum())
    value = build("lovasz_hinge", classes=2)(logits, labels)
    assert_close(value, 2 * torch.stack(jaccard).double().mean(), rtol=1e-6, atol=1e-7)


def test_lovasz_hinge_is_the_published_one_at_the_log_odds_where_every_class_is_present():
    logits, labels = sample(5, 6, dtype=torch.float64)
    p = logits.softmax(1)
    published = build("published_lovasz_hinge")(p.logit(), labels)
    assert_close(build("lovasz_hinge")(logits, labels), published, rtol=1e-6, atol=1e-7)


def test_lovasz_hinge_gives_an_absent_class_no_worst_voxel_and_keeps_far_errors():
    logits = sample(5, 6, batch=1, dtype=torch.float64)[0]
    labels = torch.zeros(1, 5, 6, dtype=torch.long)
    _, slope = gradient(build("lovasz_hinge"), logits, labels)
    assert ((slope[0, 1:] != 0).flatten(1).sum(1) > 5).all()
    far = torch.zeros(1, 2, 4)
    far[:, 1] = 500.0  # confidently wrong everywhere: the sigmoid would have no gradient left
    _, slope = gradient(build("lovasz_hinge", classes=2), far, torch.zeros(1, 4, dtype=torch.long))
    assert_close(slope[:, 1].sum(), torch.tensor(1.0))


# --- compound ------------------------------------------------------------------------------------


def test_the_new_compounds_are_the_sums_of_their_terms(case):
    def value(name, **options):
        return build(name, **options)(*case)

    dice = value("dice", batch=True)
    expected = 0.5 * dice + 3 * value("topk_cross_entropy", k=20)
    assert_close(value("dice_topk", k=20, batch=True, lambda_dice=0.5, lambda_topk=3), expected)
    options = dict(gamma=1.5, alpha=0.3)
    expected = 2 * value("generalized_dice", absent="zero") + 3 * value("focal", **options)
    factors = dict(lambda_gdl=2, lambda_focal=3)
    assert_close(value("generalized_dice_focal", absent="zero", **options, **factors), expected)
    p, g = case[0].softmax(1), hot(case[1])
    binary = -(g * p.log() + (1 - g) * (1 - p).log()).mean()
    value_ = value("dice_bce", batch=True, lambda_dice=0.5, lambda_bce=3)
    assert_close(value_, 0.5 * dice + 3 * binary)
    assert_close(value("dice_bce", lambda_bce=0.5), 2 * value("combo") + 1)


def test_dice_bce_of_two_classes_is_dice_ce():
    logits, labels = sample(5, 6, classes=2, dtype=torch.float64)
    expected = build("dice_ce", classes=2)(logits, labels)
    assert_close(build("dice_bce", classes=2)(logits, labels), expected)


def test_exponential_logarithmic_is_its_formula(case):
    logits, labels = case
    p, g = logits.softmax(1), hot(labels)
    dice = (2 * (p * g).sum((2, 3)) + 1) / ((p + g).sum((2, 3)) + 1)
    frequencies = torch.tensor([8.0, 4.0, 2.0, 2.0], dtype=torch.float64)
    weight = (16 / frequencies).sqrt()
    cross = -p.gather(1, labels.unsqueeze(1)).squeeze(1).log()
    expected = 0.8 * ((-dice.log()) ** 0.3).mean() + 0.2 * (weight[labels] * cross**0.3).mean()
    loss = build("exponential_logarithmic", frequencies=frequencies.tolist())
    assert_close(loss(*case), expected)
    volumes = labels.flatten().bincount(minlength=CLASSES).tolist()
    if min(volumes) > 0:
        from_batch = build("exponential_logarithmic")(*case)
        assert_close(build("exponential_logarithmic", frequencies=volumes)(*case), from_batch)


def test_exponential_logarithmic_has_log_dice_and_cross_entropy_as_its_limits(case):
    def value(**options):
        plain = dict(gamma_dice=1, gamma_ce=1, frequencies=[1] * CLASSES)
        return build("exponential_logarithmic", **plain, **options)(*case)

    smooth = dict(smooth_nr=1.0, smooth_dr=1.0)
    log_dice = build("log_dice", **smooth)(*case)
    assert_close(value(lambda_dice=1, lambda_ce=0), log_dice)
    cross = math.sqrt(CLASSES) * build("cross_entropy")(*case)
    assert_close(value(lambda_dice=0, lambda_ce=1), cross)
    assert_close(value(), 0.8 * log_dice + 0.2 * cross)


def test_frequencies_that_do_not_fit_are_refused(case):
    with pytest.raises(ValueError, match="frequencies has 2 values, but logits have 4 classes"):
        build("exponential_logarithmic", frequencies=[1, 2])(*case)
    with pytest.raises(ValueError, match="frequencies must be finite and > 0, got"):
        build("exponential_logarithmic", frequencies=[1, 0, 1, 1])
    with pytest.raises(ValueError, match=r"smooth_nr must be <= smooth_dr \(1\), got 2"):
        build("exponential_logarithmic", smooth_nr=2.0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.8])
def test_unified_focal_is_focal_plus_focal_tversky(gamma, case):
    focal = build("focal", gamma=gamma, alpha=0.6)(*case)
    tversky = build("focal_tversky", gamma=1 / (1 - gamma), alpha=0.4, beta=0.6)(*case)
    value = build("unified_focal", gamma=gamma, lambda_focal=0.3)(*case)
    assert_close(value, 0.3 * focal + 0.7 * tversky)


def test_unified_focal_losses_meet_at_gamma_zero_and_differ_above(case):
    symmetric, asymmetric = (
        [build(name, gamma=gamma)(*case) for gamma in (0, 0.5)]
        for name in ("unified_focal", "asymmetric_unified_focal")
    )
    assert_close(symmetric[0], asymmetric[0])
    assert not torch.isclose(symmetric[1], asymmetric[1], rtol=1e-3)
    tversky = build("tversky", alpha=0.5, beta=0.5)(*case)
    cross = build("cross_entropy")(*case)
    value = build("unified_focal", gamma=0, delta=0.5)(*case)
    assert_close(value, 0.5 * tversky + 0.25 * cross)  # delta halves the cross-entropy as well
    with pytest.raises(ValueError, match="gamma must be below 1"):
        build("unified_focal", gamma=1)


def test_asymmetric_unified_focal_is_its_formula(case):
    logits, labels = case
    p = logits.softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
    background = (1 - 0.6) * (1 - p) ** 0.5
    focal = (torch.where(labels > 0, 0.6, background) * -p.log()).mean()
    tversky = terms("tversky", case, alpha=0.4, beta=0.6)
    tversky = torch.cat([tversky[:, :1], tversky[:, 1:] ** 0.5], 1).mean()
    assert_close(build("asymmetric_unified_focal")(*case), 0.5 * focal + 0.5 * tversky)


# --- collections ---------------------------------------------------------------------------------


def test_collections_name_losses_that_exist():
    assert set(losses.collections) == {"loss_odyssey", "seeds_as_published", "seeds_corrected"}
    for names in losses.collections.values():
        assert set(names) <= set(losses.available())
        assert len(set(names)) == len(names)
    assert len(losses.collections["loss_odyssey"]) == 20


def test_the_seeds_and_their_corrections_are_twins():
    published = losses.collections["seeds_as_published"]
    assert published == tuple(n for n in losses.available() if losses.card(n).published)
    twins = {losses.card(name).twin for name in published}
    assert set(losses.collections["seeds_corrected"]) == twins
    with pytest.raises(TypeError):
        losses.collections["mine"] = ()


@pytest.mark.parametrize("lead", [1.0, 5.0, 17.0])
def test_mcc_has_its_gradient_in_single_precision_where_background_is_predicted_everywhere(lead):
    """N - P rounds to 0 in float32 there, and the gradient was millions of times too large."""
    labels = torch.zeros(1, 48, 48, 48, dtype=torch.long)
    labels.view(-1)[:1000] = 1
    logits = torch.randn(1, 3, 48, 48, 48, generator=torch.Generator().manual_seed(0)).double()
    logits[:, 0] += lead
    size = {}
    for dtype in (torch.float32, torch.float64):
        leaf = logits.to(dtype).requires_grad_()
        (gradient,) = torch.autograd.grad(losses.create("mcc")(leaf, labels), leaf)
        size[dtype] = gradient.abs().sum().item()
    assert size[torch.float32] == pytest.approx(size[torch.float64], rel=0.1)
