"""Each published loss against a literal, slow evaluation of its document's formula."""

from __future__ import annotations

import math

import pytest
import torch
from loss_samples import CLASSES, PUBLISHED, build, gradient, sample
from torch.testing import assert_close

import losses


def flat(logits, labels):
    """(sigmoid p, indicator g) of each class as lists over the flattened batch."""
    p = logits.sigmoid()
    for c in range(logits.shape[1]):
        yield p[:, c].flatten().tolist(), (labels == c).flatten().double().tolist()


def per_class(function):
    """One-vs-rest: the mean of a function of (p, g) over all classes, background included."""

    def naive(logits, labels):
        values = [function(p, g) for p, g in flat(logits, labels)]
        return sum(values) / len(values)

    return naive


def total(*lists):
    """Sum of the elementwise product."""
    return math.fsum(math.prod(values) for values in zip(*lists, strict=True))


def dice(p, g, smooth=1.0):
    return (2 * total(p, g) + smooth) / (total(p) + total(g) + smooth)


def bce(p, g):
    return [-math.log(a if b == 1 else 1 - a) for a, b in zip(p, g, strict=True)]


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values)


def focal_mean_bce(p, g):
    b = mean(bce(p, g))
    return 0.8 * (1 - math.exp(-b)) ** 2 * b


def focal_alpha_t(p, g):
    terms = zip(bce(p, g), g, strict=True)
    return mean((0.25 if t == 1 else 0.75) * (1 - math.exp(-b)) ** 2 * b for b, t in terms)


def iou(p, g):
    return 1 - (total(p, g) + 1) / (total(p) + total(g) - total(p, g) + 1)


def tversky(p, g):
    fp = total([1 - b for b in g], p)
    fn = total(g, [1 - a for a in p])
    return 1 - (total(p, g) + 1) / (total(p, g) + 0.5 * fp + 0.5 * fn + 1)


def combo(p, g):
    out = [
        -(0.5 * (b * math.log(a) + (1 - 0.5) * (1 - b) * math.log(1 - a)))
        for a, b in zip(p, g, strict=True)
    ]
    return -(0.5 * mean(out) - (1 - 0.5) * dice(p, g))


def by_image(function):
    return lambda logits, labels: mean(
        function(z, y) for z, y in zip(logits.split(1), labels.split(1), strict=True)
    )


def softmax_dice(logits, labels):
    p = logits.softmax(1)
    return mean(
        1 - dice(p[:, c].flatten().tolist(), (labels == c).flatten().double().tolist())
        for c in range(CLASSES)
    )


def lovasz_hinge(logits, labels):
    values = []
    for c in range(CLASSES):
        f = logits[:, c].flatten().tolist()
        g = (labels == c).flatten().long().tolist()
        errors = [1 - a * (2 * b - 1) for a, b in zip(f, g, strict=True)]
        order = sorted(range(len(f)), key=lambda i: -errors[i])
        value, before = 0.0, 0.0
        for k in range(1, len(f) + 1):
            wrong = set(order[:k])
            kept = sum(g[i] for i in range(len(f)) if i not in wrong)
            union = sum(g) + sum(1 - g[i] for i in wrong)
            value += max(errors[order[k - 1]], 0) * (1 - kept / union - before)
            before = 1 - kept / union
        values.append(value)
    return mean(values)


def true_probabilities(logits, labels):
    p = logits.softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
    return list(zip(p.flatten().tolist(), labels.flatten().tolist(), strict=True))


WEIGHT = [0.5, 1.0, 2.0, 3.0]


def focal_weighted(logits, labels):
    terms = []
    for p, y in true_probabilities(logits, labels):
        logpt = WEIGHT[y] * math.log(p)
        terms.append(-((1 - math.exp(logpt)) ** 2) * (logpt * 0.5))
    return mean(terms)


def weighted_cross_entropy(logits, labels):
    pairs = true_probabilities(logits, labels)
    return -math.fsum(WEIGHT[y] * math.log(p) for p, y in pairs) / math.fsum(
        WEIGHT[y] for _, y in pairs
    )


def fbeta_dice(logits, labels, beta=1, smooth=1e-5):
    p = logits.softmax(1)
    scores = []
    for c in range(CLASSES):
        tp = p[:, c][labels == c].sum().item()
        fp = p[:, c].sum().item() - tp
        fn = (labels == c).sum().item() - tp
        top = (1 + beta**2) * tp + smooth
        scores.append(top / (top + beta**2 * fn + fp))
    return 1 - mean(scores)


def generalized_dice(weigh):
    def naive(logits, labels):
        p = logits.softmax(1)
        top = bottom = 0.0
        for c in range(CLASSES):
            volume = (labels == c).sum().item()
            w = weigh(volume)
            top += w * p[:, c][labels == c].sum().item()
            bottom += w * (p[:, c].sum().item() + volume)
        return 1 - 2 * top / bottom

    return naive


NAIVE = {
    "published_dice_per_image": by_image(per_class(lambda p, g: 1 - dice(p, g))),
    "published_dice_softmax": by_image(softmax_dice),
    "published_dice_flat": per_class(lambda p, g: 1 - dice(p, g)),
    "published_bce_dice": per_class(lambda p, g: mean(bce(p, g)) + 1 - dice(p, g)),
    "published_iou": per_class(iou),
    "published_focal_mean_bce": per_class(focal_mean_bce),
    "published_focal_alpha_t": per_class(focal_alpha_t),
    "published_focal_weighted_probability": focal_weighted,
    "published_tversky": per_class(tversky),
    "published_focal_tversky": per_class(lambda p, g: tversky(p, g) ** 2),
    "published_lovasz_hinge": by_image(lovasz_hinge),
    "published_combo": per_class(combo),
    "published_weighted_cross_entropy": weighted_cross_entropy,
    "published_fbeta_dice": fbeta_dice,
    "published_generalized_dice_graph": generalized_dice(lambda v: 1 / (0**2 + 0.00001)),
    "published_generalized_dice_written": generalized_dice(lambda v: 1 / (v**2 + 0.00001)),
    "published_generalized_dice_answer": by_image(
        generalized_dice(lambda v: 1 / v**2 if v else 1e-6)
    ),
}


def test_every_published_loss_is_evaluated_here():
    assert sorted(NAIVE) == PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("absent", [False, True])
def test_a_published_loss_is_its_documents_formula(name, absent):
    logits, labels = sample(4, 3, seed=7, dtype=torch.float64)
    if absent:
        labels[0] = labels[0].clamp_max(2)
    options = {"weight": WEIGHT} if "weight" in losses.options(name) else {}
    expected = torch.tensor(NAIVE[name](logits, labels), dtype=torch.float64)
    assert_close(build(name, **options)(logits, labels), expected, rtol=1e-6, atol=1e-9)


def test_fbeta_dice_weighs_recall_with_beta():
    logits, labels = sample(4, 3, dtype=torch.float64)
    expected = torch.tensor(fbeta_dice(logits, labels, beta=2), dtype=torch.float64)
    assert_close(build("published_fbeta_dice", beta=2)(logits, labels), expected)


def test_published_lovasz_hinge_of_an_absent_class_is_its_worst_voxel():
    logits, _ = sample(4, 3, batch=1, dtype=torch.float64)
    _, slope = gradient(
        build("published_lovasz_hinge"), logits, torch.zeros(1, 4, 3, dtype=torch.long)
    )
    assert ((slope[0, 1:].flatten(1) != 0).sum(1) == 1).all()


def test_saturated_bce_of_a_false_positive_has_no_gradient_left():
    labels = torch.zeros(1, 6, dtype=torch.long)
    logits = torch.zeros(1, 2, 6)
    logits[:, 1] = 20.0  # confidently wrong everywhere
    _, slope = gradient(build("published_bce_dice"), logits, labels)
    assert slope[:, 1].abs().max() < 1e-8
    _, slope = gradient(build("dice_ce"), logits, labels)
    assert slope[:, 1].abs().min() > 0.05
