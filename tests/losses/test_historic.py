"""Generalized Dice as other code computes it: formulas, and what an absent class does to each."""

from __future__ import annotations

import pytest
import torch
from loss_samples import CLASSES, HISTORIC, build, gradient, sample
from torch.testing import assert_close

import losses

PREFIX = "historic_generalized_dice_"


def ratio(weigh, above=0.0, below=0.0):
    """2 sum w tp / sum w (p + g) with constants added above and below."""

    def score(tp, total, v):
        w = [weigh(volume) for volume in v]
        top = 2 * sum(a * b for a, b in zip(w, tp, strict=True)) + above
        return top / (sum(a * b for a, b in zip(w, total, strict=True)) + below)

    return score


def monai(tp, total, v):
    w = [1 / volume**2 if volume else 1 / min(u for u in v if u) ** 2 for volume in v]
    pairs = zip(w, tp, total, strict=True)
    return sum((2 * a * t + 1e-5) / (a * s + 1e-5) for a, t, s in pairs) / len(v)


def niftynet(tp, total, v):
    w = [1 / volume**2 if volume else 1 / min(u for u in v if u) ** 2 for volume in v]
    below = sum(a * max(s, 1) for a, s in zip(w, total, strict=True))
    return 2 * sum(a * t for a, t in zip(w, tp, strict=True)) / below


def pytorch3dunet(tp, total, v):
    w = [1 / max(volume**2, 1e-6) for volume in v]
    below = sum(max(a * s, 1e-6) for a, s in zip(w, total, strict=True))
    return 2 * sum(a * t for a, t in zip(w, tp, strict=True)) / below


SCORES = {
    "monai_1_1": monai,
    "niftynet": niftynet,
    "liviaets": ratio(lambda v: (v + 1e-10) ** -2, 2e-10, 1e-10),
    "odyssey_v1": ratio(lambda v: (v + 1e-10) ** -2, 2e-5, 1e-5),
    "odyssey_v2": ratio(lambda v: 1 / max(v**2, 1e-5)),
    "pytorch3dunet": pytorch3dunet,
    "nnunet_v1": ratio(lambda v: 1 / (v + 1e-6), 1, 1),
}
POOLED = {"odyssey_v2", "pytorch3dunet"}


def test_every_historic_loss_is_evaluated_here():
    assert sorted(PREFIX + variant for variant in SCORES) == HISTORIC
    for name in HISTORIC:
        card = losses.card(name)
        assert card.reason
        assert card.runs_as_is
        assert "arXiv:1707.03237" in card.paper
        assert not card.published


@pytest.mark.parametrize("variant", SCORES)
@pytest.mark.parametrize("absent", [False, True])
def test_a_historic_loss_is_its_formula(variant, absent):
    logits, labels = sample(4, 3, 2, dtype=torch.float64)
    if absent:
        labels = labels.clamp_max(2)
    images = zip(logits.flatten(2), labels.flatten(1), strict=True)
    if variant in POOLED:
        images = [(logits.movedim(1, 0).flatten(1), labels.flatten())]
    values = []
    for z, y in images:
        p = z.softmax(0)
        v = [(y == c).sum().item() for c in range(CLASSES)]
        tp = [p[c][y == c].sum() for c in range(CLASSES)]
        values.append(1 - SCORES[variant](tp, [p[c].sum() + v[c] for c in range(CLASSES)], v))
    assert_close(build(PREFIX + variant)(logits, labels), torch.stack(values).mean())


def test_weights_cancel_in_monai_1_1_and_leave_dice():
    logits, labels = sample(6, 5, 4, dtype=torch.float64)
    loss = build(PREFIX + "monai_1_1", smooth_nr=1e-12, smooth_dr=1e-12)
    dice = build("dice", smooth_nr=0.0, smooth_dr=0.0)
    assert_close(loss(logits, labels), dice(logits, labels))
    assert not torch.isclose(
        loss(logits, labels), build("generalized_dice")(logits, labels), rtol=1e-3
    )


def test_squared_volumes_of_nnunet_are_generalized_dice_with_smoothing_one():
    logits, labels = sample(6, 5, 4, dtype=torch.float64)
    logits, labels = logits[:1], labels[:1]
    smallest = labels.flatten().bincount().min().item()
    smooth = float(smallest**2)  # 1 beside unscaled weights, in voxels of the largest weight
    loss = build(PREFIX + "nnunet_v1", square_volumes=True)
    plain = build("generalized_dice", smooth_nr=smooth, smooth_dr=smooth)
    assert_close(loss(logits, labels), plain(logits, labels), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", ["niftynet", "liviaets", "odyssey_v2", "pytorch3dunet"])
def test_with_every_class_present_they_agree_with_generalized_dice(variant):
    logits, labels = sample(6, 5, 4, dtype=torch.float64)
    loss = build("generalized_dice", batch=variant in POOLED, smooth_nr=0.0, smooth_dr=0.0)
    assert_close(build(PREFIX + variant)(logits, labels), loss(logits, labels), rtol=1e-6, atol=0)


# L1 gradient on the logits of one 32^3 patch: all classes present, one absent, no foreground.
# The numbers of notes/losses.md, measured on random logits.
MEASURED = {
    ("generalized_dice", "max"): (1.2e-3, 1.4e-2, 0.26),
    ("generalized_dice", "zero"): (1.2e-3, 3.2e-2, 0.39),
    (PREFIX + "liviaets", None): (1.2e-3, 4e-27, 8e-30),
    (PREFIX + "odyssey_v2", None): (1.2e-3, 7e-12, 1e-14),
    (PREFIX + "pytorch3dunet", None): (1.2e-3, 7e-13, 1e-15),
    (PREFIX + "nnunet_v1", None): (4.9e-3, 5e-10, 5e-11),
    ("dice", None): (0.16, 0.16, 0.10),
}


@pytest.fixture(scope="module")
def patches():
    """Random logits, and label maps with all classes, without the rarest, and without any."""
    logits = torch.randn(1, 4, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = []
    for volumes in [(1000, 250, 10), (1000, 250, 0), (0, 0, 0)]:
        labels = torch.zeros(32**3, dtype=torch.long)
        start = 0
        for c, volume in enumerate(volumes, 1):
            labels[start : start + volume] = c
            start += volume
        maps.append(labels.view(1, 32, 32, 32))
    return logits, maps


@pytest.mark.parametrize(("loss", "expected"), MEASURED.items(), ids=lambda v: str(v))
def test_an_absent_class_does_to_the_gradient_what_was_measured(loss, expected, patches):
    name, absent = loss
    options = {} if absent is None else {"absent": absent}
    logits, maps = patches
    slopes = [
        gradient(build(name, **options), logits, labels)[1].abs().sum().item() for labels in maps
    ]
    for slope, measured in zip(slopes, expected, strict=True):
        assert measured / 4 < slope < 4 * measured, (slopes, expected)


def test_first_version_of_the_odyssey_loses_its_gradient_as_well(patches):
    logits, (all_present, one_absent, _) = patches
    loss = build(PREFIX + "odyssey_v1")
    assert gradient(loss, logits, all_present)[1].abs().sum() > 1e-4
    assert gradient(loss, logits, one_absent)[1].abs().sum() < 1e-20


def test_a_batch_with_an_absent_class_is_discarded_only_by_the_historic_weights(patches):
    logits, (_, one_absent, _) = patches
    kept = {PREFIX + "niftynet", PREFIX + "monai_1_1"}
    for name in HISTORIC:
        size = gradient(build(name), logits, one_absent)[1].abs().sum()
        assert (size > 1e-3) if name in kept else (size < 1e-8), name
