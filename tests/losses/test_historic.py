"""Generalized Dice as other code computes it: formulas, and what an absent class does to each."""

from __future__ import annotations

import monai
import pytest
import torch
from loss_samples import CLASSES, HISTORIC, build, gradient, sample
from torch.testing import assert_close

import losses

PREFIX = "historic_generalized_dice_"
WASSERSTEIN = "historic_generalized_wasserstein_dice_monai"


def each(weigh):
    """The weight of every class from its own volume."""
    return lambda volumes: [weigh(v) for v in volumes]


def rarest(volumes):
    """1/V^2, and for an absent class that of the rarest class present."""
    return [1 / (v or min(u for u in volumes if u)) ** 2 for v in volumes]


def ratio(above=0.0, below=0.0):
    """Generalized Dice from weights, sums of p g and sums of p + g."""

    def score(w, tp, total):
        top = 2 * sum(a * t for a, t in zip(w, tp, strict=True)) + above
        return top / (sum(a * s for a, s in zip(w, total, strict=True)) + below)

    return score


def mean_of_ratios(w, tp, total):
    pairs = zip(w, tp, total, strict=True)
    return sum((2 * a * t + 1e-5) / (a * s + 1e-5) for a, t, s in pairs) / len(w)


def at_least_one_voxel(w, tp, total):
    return ratio()(w, tp, [max(s, 1) for s in total])


def a_fifth_of_a_voxel_more(w, tp, total):
    return ratio()(w, tp, [s + 0.2 for s in total])


def at_least_a_millionth(w, tp, total):
    below = sum(max(a * s, 1e-6) for a, s in zip(w, total, strict=True))
    return 2 * sum(a * t for a, t in zip(w, tp, strict=True)) / below


PLAIN = dict(smooth_nr=0.0, smooth_dr=0.0)
# How code has weighted a class of V voxels: who, the loss that does the same, its options, the
# weights from the volumes, the ratio they enter, and whether the batch is one image.
ROWS = {
    "MONAI": (PREFIX + "monai", {}, rarest, ratio(1e-5, 1e-5), False),
    "MONAI, unsmoothed": ("generalized_dice", PLAIN, rarest, ratio(), False),
    "MONAI 1.1": (PREFIX + "monai_1_1", {}, rarest, mean_of_ratios, False),
    "NiftyNet": (PREFIX + "niftynet", {}, rarest, at_least_one_voxel, False),
    "NiftyNet before October 2017": (
        PREFIX + "niftynet_2017",
        {},
        each(lambda v: (v + 0.1) ** -2),
        a_fifth_of_a_voxel_more,
        True,
    ),
    "LIVIAETS": (
        PREFIX + "liviaets",
        {},
        each(lambda v: (v + 1e-10) ** -2),
        ratio(2e-10, 1e-10),
        False,
    ),
    "SegLossOdyssey V1": (
        PREFIX + "odyssey_v1",
        {},
        each(lambda v: (v + 1e-10) ** -2),
        ratio(2e-5, 1e-5),
        False,
    ),
    "SegLossOdyssey V2": (
        PREFIX + "odyssey_v2",
        {},
        each(lambda v: 1 / max(v**2, 1e-5)),
        ratio(),
        True,
    ),
    "pytorch-3dunet": (
        PREFIX + "pytorch3dunet",
        {},
        each(lambda v: 1 / max(v**2, 1e-6)),
        at_least_a_millionth,
        True,
    ),
    "nnU-Net v1": (PREFIX + "nnunet_v1", {}, each(lambda v: 1 / (v + 1e-6)), ratio(1, 1), False),
    "nnU-Net v1, squared": (
        PREFIX + "nnunet_v1",
        dict(square_volumes=True),
        each(lambda v: 1 / (v + 1e-6) ** 2),
        ratio(1, 1),
        False,
    ),
    "nobrainer": (
        "generalized_dice",
        dict(absent="eps", eps=1e-7, **PLAIN),
        each(lambda v: 1 / v**2 if v else 1e-7),
        ratio(),
        False,
    ),
    "document 004, as executed": (
        "published_generalized_dice_graph",
        {},
        each(lambda v: 1 / (0**2 + 1e-5)),
        ratio(),
        True,
    ),
    "document 004, as written": (
        "published_generalized_dice_written",
        {},
        each(lambda v: 1 / (v**2 + 1e-5)),
        ratio(),
        True,
    ),
    "document 004, as answered": (
        "published_generalized_dice_answer",
        {},
        each(lambda v: 1 / v**2 if v else 1e-6),
        ratio(),
        False,
    ),
}
POOLED = {name.removeprefix(PREFIX) for name, *_, pooled in ROWS.values() if pooled}


def test_every_historic_loss_is_evaluated_here():
    rows = {name for name, *_ in ROWS.values()} | {WASSERSTEIN}
    assert sorted(name for name in rows if name.startswith("historic")) == HISTORIC
    for name in HISTORIC:
        card = losses.card(name)
        assert card.reason
        assert card.runs_as_is
        assert ("arXiv:1707.00478" if name == WASSERSTEIN else "arXiv:1707.03237") in card.paper
        assert not card.published


def test_the_published_losses_of_document_004_are_rows():
    published = {name for name in losses.available() if name.startswith("published_generalized")}
    assert published <= {name for name, *_ in ROWS.values()}


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("absent", [False, True], ids=["present", "absent"])
def test_a_row_of_weights_is_a_loss(row, absent):
    """Value and gradient: where an absent class takes over, the value is 1 whatever its weight."""
    name, options, weigh, score, pooled = ROWS[row]
    logits, labels = sample(4, 3, 2, dtype=torch.float64)
    if absent:
        labels = labels.clamp_max(2)

    def by_hand(logits, labels):
        images = zip(logits.flatten(2), labels.flatten(1), strict=True)
        if pooled:
            images = [(logits.movedim(1, 0).flatten(1), labels.flatten())]
        values = []
        for z, y in images:
            p = z.softmax(0)
            volumes = [(y == c).sum().item() for c in range(CLASSES)]
            tp = [p[c][y == c].sum() for c in range(CLASSES)]
            total = [p[c].sum() + volumes[c] for c in range(CLASSES)]
            values.append(1 - score(weigh(volumes), tp, total))
        return torch.stack(values).mean()

    value, slope = gradient(build(name, **options), logits, labels)
    expected_value, expected_slope = gradient(by_hand, logits, labels)
    assert_close(value, expected_value)
    # Relative to the largest, so that the weight 1e20 is told from 1e19.
    assert_close(slope, expected_slope, rtol=1e-6, atol=1e-6 * expected_slope.abs().max().item())


@pytest.mark.parametrize("lacking", [None, 0, 1], ids=["none", "first", "second"])
def test_monai_is_monai(lacking):
    logits, labels = sample(5, 4, 3, dtype=torch.float64)
    if lacking is not None:
        labels[lacking][labels[lacking] == 2] = 0
    peer = monai.losses.GeneralizedDiceLoss(softmax=True, to_onehot_y=True)
    value, slope = gradient(build(PREFIX + "monai"), logits, labels)
    peer_value, peer_slope = gradient(peer, logits, labels.unsqueeze(1))
    assert_close(value, peer_value)
    assert_close(slope, peer_slope)


def test_monai_depends_on_the_size_of_the_voxels():
    logits, labels = sample(6, 6, 6, dtype=torch.float64)

    def finer(tensor):
        """The same image with every voxel cut into 8^3."""
        for axis in (-1, -2, -3):
            tensor = tensor.repeat_interleave(8, axis)
        return tensor

    def change(loss):
        return (loss(finer(logits), finer(labels)) / loss(logits, labels) - 1).item()

    assert change(build(PREFIX + "monai")) < -0.02
    assert abs(change(build("generalized_dice", **PLAIN))) < 1e-12


NEAR = [[0, 0.5, 1, 1], [0.5, 0, 0.7, 0.7], [1, 0.7, 0, 0.2], [1, 0.7, 0.2, 0]]
FAR = [[0, 1, 1, 1], [1, 0, 0.6, 0.2], [1, 0.6, 0, 0.6], [1, 0.2, 0.6, 0]]


@pytest.mark.parametrize("matrix", [NEAR, FAR], ids=["near", "far"])
@pytest.mark.parametrize("absent", [False, True], ids=["present", "absent"])
def test_wasserstein_dice_of_monai_is_its_formula_and_monai(matrix, absent):
    logits, labels = sample(5, 4, 3, dtype=torch.float64)
    if absent:
        labels[0][labels[0] == 2] = 0
    distances = torch.tensor(matrix, dtype=torch.float64)
    value, slope = gradient(build(WASSERSTEIN, dist_matrix=matrix), logits, labels)
    terms = []
    for z, y in zip(logits.flatten(2), labels.flatten(1), strict=True):
        w = torch.stack([distances[label] @ z.softmax(0)[:, i] for i, label in enumerate(y)])
        earned = 2 * (1 - w[y > 0]).sum() + 1e-5
        terms.append(1 - earned / (earned + w.sum()))
    assert_close(value, torch.stack(terms).mean())
    peer = monai.losses.GeneralizedWassersteinDiceLoss(dist_matrix=distances)
    peer_value, peer_slope = gradient(peer, logits, labels)
    assert_close(value, peer_value)
    assert_close(slope, peer_slope)


def test_wasserstein_dice_of_monai_is_right_where_all_classes_are_far_from_the_background():
    logits, labels = sample(5, 4, 3, dtype=torch.float64)
    corrected = build("generalized_wasserstein_dice", dist_matrix=FAR)
    assert_close(build(WASSERSTEIN, dist_matrix=FAR)(logits, labels), corrected(logits, labels))


def test_wasserstein_dice_of_monai_rewards_a_near_class_for_being_given_up():
    labels = torch.ones(1, 8, dtype=torch.long)  # class 1, at 1/2 of the background
    background = torch.zeros(1, CLASSES, 8)
    background[:, 0] = 100.0
    # W = 1/2 at 8 voxels: 2 * 8 / 2 earned, 8 / 2 paid, so Dice 8 / 12 with nothing found.
    historic = build(WASSERSTEIN, dist_matrix=NEAR)(background, labels)
    assert historic.item() == pytest.approx(1 - 8 / 12, abs=1e-5)
    corrected = build("generalized_wasserstein_dice", dist_matrix=NEAR)(background, labels)
    assert corrected.item() == pytest.approx(1, abs=1e-5)


def test_a_dist_matrix_of_another_size_is_an_error():
    with pytest.raises(ValueError, match="dist_matrix has 4 classes, but logits have 3"):
        build(WASSERSTEIN, dist_matrix=NEAR)(*sample(4, 5, classes=3))


def test_weights_cancel_in_monai_1_1_and_leave_dice():
    logits, labels = sample(6, 5, 4, dtype=torch.float64)
    loss = build(PREFIX + "monai_1_1", smooth_nr=1e-12, smooth_dr=1e-12)
    dice = build("dice", smooth_nr=0.0, smooth_dr=0.0)
    assert_close(loss(logits, labels), dice(logits, labels))
    assert not torch.isclose(
        loss(logits, labels), build("generalized_dice")(logits, labels), rtol=1e-3
    )


@pytest.mark.parametrize("variant", ["niftynet", "liviaets", "odyssey_v2", "pytorch3dunet"])
def test_with_every_class_present_they_agree_with_generalized_dice(variant):
    logits, labels = sample(6, 5, 4, dtype=torch.float64)
    loss = build("generalized_dice", batch=variant in POOLED, **PLAIN)
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
    kept = {PREFIX + "niftynet", PREFIX + "monai", PREFIX + "monai_1_1", WASSERSTEIN}
    for name in HISTORIC:
        size = gradient(build(name), logits, one_absent)[1].abs().sum()
        assert (size > 1e-3) if name in kept else (size < 1e-8), name
