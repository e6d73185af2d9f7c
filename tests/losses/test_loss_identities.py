"""Identities between losses, and values that follow from a formula without any code."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_samples import CLASSES, build, gradient, sample
from torch.testing import assert_close

EXACT = dict(smooth_nr=0.0, smooth_dr=0.0)

random_case = given(
    seed=st.integers(0, 10_000),
    classes=st.integers(2, 5),
    batch=st.integers(1, 3),
    pooled=st.booleans(),
)
few = settings(max_examples=25, deadline=None, derandomize=True)


def random_sample(seed, classes, batch):
    """Like sample, but classes may be absent from images."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, classes, 4, 5, generator=generator, dtype=torch.float64)
    present = int(torch.randint(1, classes + 1, (), generator=generator))
    return logits, torch.randint(0, present, (batch, 4, 5), generator=generator)


def hard(prediction, classes=CLASSES):
    """Logits whose softmax is 1 at the predicted label and 0 elsewhere, in float64 exactly."""
    return 2000.0 * torch.nn.functional.one_hot(prediction, classes).movedim(-1, 1).double()


@few
@random_case
def test_tversky_at_one_half_is_dice_and_at_one_is_jaccard(seed, classes, batch, pooled):
    logits, labels = random_sample(seed, classes, batch)
    options = dict(batch=pooled, **EXACT)
    half = build("tversky", alpha=0.5, beta=0.5, **options)(logits, labels)
    one = build("tversky", alpha=1, beta=1, **options)(logits, labels)
    assert_close(half, build("dice", **options)(logits, labels))
    assert_close(one, build("jaccard", **options)(logits, labels))


@few
@random_case
def test_focal_tversky_at_gamma_one_is_tversky(seed, classes, batch, pooled):
    logits, labels = random_sample(seed, classes, batch)
    focal = build("focal_tversky", gamma=1, batch=pooled)(logits, labels)
    assert_close(focal, build("tversky", batch=pooled)(logits, labels))


@few
@random_case
def test_dice_follows_from_jaccard(seed, classes, batch, pooled):
    logits, labels = random_sample(seed, classes, batch)
    options = dict(batch=pooled, reduction="none", **EXACT)
    jaccard = build("jaccard", **options)(logits, labels)
    assert_close(build("dice", **options)(logits, labels), jaccard / (2 - jaccard))


@few
@random_case
def test_focal_at_gamma_zero_and_top_all_are_cross_entropy(seed, classes, batch, pooled):
    logits, labels = random_sample(seed, classes, batch)
    expected = build("cross_entropy")(logits, labels)
    assert_close(build("focal", gamma=0)(logits, labels), expected)
    assert_close(build("topk_cross_entropy", k=100)(logits, labels), expected)
    assert_close(build("weighted_cross_entropy", weight=[2] * classes)(logits, labels), expected)


@few
@random_case
def test_uniform_generalized_dice_of_the_batch_is_pooled_dice(seed, classes, batch, pooled):
    logits, labels = random_sample(seed, classes, batch)
    loss = build("generalized_dice", weighting="uniform", batch=True, **EXACT)
    p = logits.softmax(1)
    g = torch.nn.functional.one_hot(labels, classes).movedim(-1, 1)
    assert_close(loss(logits, labels), 1 - 2 * (p * g).sum() / (p + g).sum())


@few
@random_case
def test_graph_mode_generalized_dice_is_one_minus_mean_true_probability(
    seed, classes, batch, pooled
):
    logits, labels = random_sample(seed, classes, batch)
    p_true = logits.softmax(1).gather(1, labels.unsqueeze(1))
    value = build("published_generalized_dice_graph")(logits, labels)
    assert_close(value, 1 - p_true.mean())
    uniform = build("generalized_dice", weighting="uniform", batch=True, **EXACT)
    assert_close(value, uniform(logits, labels))  # so removing its weights changes nothing


@few
@random_case
def test_lovasz_at_hard_predictions_is_one_minus_jaccard_of_present_classes(
    seed, classes, batch, pooled
):
    _, labels = random_sample(seed, classes, batch)
    _, prediction = random_sample(seed + 1, classes, batch)
    images = [(prediction, labels)] if pooled else list(zip(prediction, labels, strict=True))
    expected = []
    for predicted, reference in images:
        present = reference.unique().tolist()
        pairs = [(predicted == c, reference == c) for c in present]
        losses = [1 - (p & g).sum() / (p | g).sum() for p, g in pairs]
        expected.append(sum(losses) / len(present))
    value = build("lovasz_softmax", batch=pooled)(hard(prediction, classes), labels)
    assert_close(value, torch.stack(expected).mean().double(), rtol=1e-6, atol=1e-6)


def test_lovasz_equals_its_definition_by_differences_of_the_jaccard_loss():
    logits, labels = sample(3, 4, batch=1, seed=5, dtype=torch.float64)
    p = logits.softmax(1)[0].flatten(1)
    g = labels.flatten()
    terms = []
    for c in range(CLASSES):
        error = torch.where(g == c, 1 - p[c], p[c])
        order = error.argsort(descending=True)
        term, previous = 0.0, 0.0
        for k in range(1, len(g) + 1):  # Jaccard loss if the k worst voxels are wrong
            wrong = torch.zeros(len(g), dtype=torch.bool)
            wrong[order[:k]] = True
            predicted = (g == c) ^ wrong
            jaccard = 1 - ((g == c) & predicted).sum() / ((g == c) | predicted).sum()
            term += error[order[k - 1]] * (jaccard - previous)
            previous = jaccard
        terms.append(term)
    value = build("lovasz_softmax")(logits, labels)
    assert_close(value, torch.stack(terms).mean(), rtol=1e-6, atol=1e-7)


@few
@random_case
def test_compounds_are_the_sums_of_their_terms(seed, classes, batch, pooled):
    logits, labels = random_sample(seed, classes, batch)
    weight = [1.0 + c for c in range(classes)]

    def value(name, **options):
        return build(name, **options)(logits, labels)

    dice = value("dice", batch=pooled, weight=weight)
    cross = value("weighted_cross_entropy", weight=weight)
    assert_close(value("dice_ce", batch=pooled, weight=weight), dice + cross)
    assert_close(
        value("dice_ce", batch=pooled, weight=weight, lambda_dice=2, lambda_ce=0.5),
        2 * dice + 0.5 * cross,
    )
    focal = value("focal", weight=weight, gamma=1.5, alpha=0.3)
    options = dict(weight=weight, gamma=1.5, alpha=0.3, lambda_dice=0.5, lambda_focal=3)
    assert_close(value("dice_focal", batch=pooled, **options), 0.5 * dice + 3 * focal)
    generalized = value("generalized_dice", batch=pooled, absent="zero")
    assert_close(
        value("generalized_dice_ce", batch=pooled, absent="zero", lambda_gdl=2, lambda_ce=3),
        2 * generalized + 3 * value("cross_entropy"),
    )


@few
@random_case
def test_combo_is_its_formula(seed, classes, batch, pooled):
    logits, labels = random_sample(seed, classes, batch)
    p = logits.softmax(1)
    g = torch.nn.functional.one_hot(labels, classes).movedim(-1, 1)
    cross = -(0.7 * g * p.log() + 0.3 * (1 - g) * (1 - p).log()).mean()
    dice = 1 - build("dice", batch=pooled)(logits, labels)
    value = build("combo", alpha=0.4, beta=0.7, batch=pooled)(logits, labels)
    assert_close(value, 0.4 * cross - 0.6 * dice)


def test_combo_keeps_the_gradient_of_confidently_wrong_voxels():
    labels = torch.zeros(1, 4, dtype=torch.long)
    logits = torch.zeros(1, 2, 4)
    logits[:, 1] = 40.0  # in float32 the softmax is exactly (0, 1), and 1 - p exactly 0
    value, slope = gradient(build("combo", beta=0.0), logits, labels)
    assert_close(value, torch.tensor(0.5 * 40 / 2))
    assert_close(slope[:, 1], torch.full((1, 4), 0.5 / 2 / 4))


def test_focal_alpha_multiplies_foreground_and_its_complement_background():
    logits, labels = sample(4, 5, dtype=torch.float64)
    terms = build("focal", reduction="none")(logits, labels)
    expected = (torch.where(labels > 0, 0.8, 0.2).double() * terms).mean()
    assert_close(build("focal", alpha=0.8)(logits, labels), expected)


@pytest.mark.parametrize("gamma", [0.25, 1.0, 3.0])
def test_focal_is_its_formula(gamma):
    logits, labels = sample(4, 5, dtype=torch.float64)
    p = logits.softmax(1).gather(1, labels.unsqueeze(1))
    expected = -((1 - p) ** gamma * p.log()).mean()
    assert_close(build("focal", gamma=gamma)(logits, labels), expected)


def test_topk_takes_the_worst_voxels_of_the_whole_batch():
    logits, labels = sample(5, 5, dtype=torch.float64)
    logits[1] *= 5  # the hardest voxels sit in one image
    worst = build("cross_entropy", reduction="none")(logits, labels).flatten().sort().values
    assert_close(build("topk_cross_entropy")(logits, labels), worst[-5:].mean())
    assert_close(build("topk_cross_entropy", k=0.1)(logits, labels), worst[-1])


def test_uniform_predictions_have_the_values_that_paper_and_pencil_give():
    labels = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1]])
    logits = torch.zeros(1, 2, 8)

    def value(name, **options):
        return build(name, classes=2, **options)(logits, labels).item()

    assert value("cross_entropy") == pytest.approx(math.log(2))
    assert value("focal") == pytest.approx(math.log(2) / 4)
    # tp = (3, 1), p = (4, 4), g = (6, 2)
    assert value("dice", **EXACT) == pytest.approx(1 - (6 / 10 + 2 / 6) / 2)
    assert value("dice", squared_pred=True, **EXACT) == pytest.approx(1 - (6 / 8 + 2 / 4) / 2)
    assert value("jaccard", **EXACT) == pytest.approx(1 - (3 / 7 + 1 / 5) / 2)
    # fp = (1, 3), fn = (3, 1)
    tversky = 1 - torch.tensor([3 / (3 + 0.3 + 2.1), 1 / (1 + 0.9 + 0.7)])
    assert value("tversky", **EXACT) == pytest.approx(tversky.mean().item())
    assert value("focal_tversky", **EXACT) == pytest.approx((tversky**0.75).mean().item())
    gdl = 1 - 2 * (3 / 36 + 1 / 4) / (10 / 36 + 6 / 4)
    assert value("generalized_dice", **EXACT) == pytest.approx(gdl)
    simple = 1 - 2 * (3 / 6 + 1 / 2) / (10 / 6 + 6 / 2)
    assert value("generalized_dice", weighting="simple", **EXACT) == pytest.approx(simple)
    # Lovasz: all errors are 1/2 in every order, so half the Jaccard loss of all being wrong
    assert value("lovasz_softmax") == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("absent", "weight"), [("max", 1 / 4), ("zero", 0.0), ("eps", 0.01)], ids=lambda v: str(v)
)
def test_the_absent_class_of_generalized_dice_weighs_what_absent_says(absent, weight):
    labels = torch.tensor([[0, 0, 0, 0, 0, 0, 1, 1]])
    logits = sample(8, batch=1, classes=3, dtype=torch.float64)[0]
    loss = build("generalized_dice", absent=absent, eps=0.01, **EXACT)
    p = logits.softmax(1)
    weights = torch.tensor([1 / 36, 1 / 4, weight], dtype=torch.float64)
    overlap = torch.stack([p[0, 0, :6].sum(), p[0, 1, 6:].sum(), p.new_zeros(())])
    total = p[0].sum(1) + torch.tensor([6, 2, 0])
    assert_close(loss(logits, labels), 1 - 2 * (weights @ overlap) / (weights @ total))


@pytest.mark.parametrize("absent", ["max", "zero"])
def test_generalized_dice_without_any_foreground_class_is_zero_with_zero_gradient(absent):
    logits, _ = sample(4, 5)
    loss = build("generalized_dice", include_background=False, absent=absent)
    value, slope = gradient(loss, logits, torch.zeros(2, 4, 5, dtype=torch.long))
    assert value == 0
    assert (slope == 0).all()


@pytest.mark.parametrize(
    "name",
    [
        "asymmetric_similarity",
        "boundary_dou",
        "dice",
        "dice_metric",
        "focal_dice",
        "focal_tversky",
        "jaccard",
        "jaccard_metric",
        "log_cosh_dice",
        "log_dice",
        "tversky",
    ],
)
def test_without_smoothing_an_empty_class_that_is_not_predicted_costs_nothing(name):
    labels = torch.zeros(1, 6, dtype=torch.long)
    value, slope = gradient(build(name, **EXACT), hard(labels), labels)
    assert value == 0
    assert torch.isfinite(slope).all()


def test_pooling_makes_one_image_of_the_batch():
    logits, labels = sample(4, 5, batch=3, dtype=torch.float64)
    one = logits.movedim(1, 0).flatten(1)[None], labels.flatten()[None]
    names = ["dice", "jaccard", "tversky", "focal_tversky", "generalized_dice", "lovasz_softmax"]
    for name in names:
        pooled = build(name, batch=True)
        assert_close(pooled(logits, labels), build(name)(*one))
        assert not torch.isclose(pooled(logits, labels), build(name)(logits, labels), rtol=1e-6)
