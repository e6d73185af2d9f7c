"""The Generalized Dice family: weights, absent classes, penalty and Wasserstein forms."""

from __future__ import annotations

import itertools

import monai
import pytest
import torch
from loss_samples import CLASSES, build, gradient, sample
from torch.testing import assert_close

EXACT = dict(smooth_nr=0.0, smooth_dr=0.0)
ABSENT = ["max", "zero", "eps", "relative", "floor", "cap", "skip"]
POWER = {"square": 2, "simple": 1, "uniform": 0}


def absent_sample(spatial=(5, 4, 3), batch=3):
    """Every class in image 0, class 2 missing from image 1, only background in image 2."""
    logits, labels = sample(*spatial, batch=batch, dtype=torch.float64)
    labels[1][labels[1] == 2] = 0
    labels[2] = 0
    return logits, labels


def weights(volumes, weighting, absent, eps=0.01, floor=7.0, cap=5.0):
    """Weights of one image, class by class, in words of the docstring."""
    power = POWER[weighting]
    if absent == "floor":
        return [max(v, floor) ** -power for v in volumes]
    present = [v**-power for v in volumes if v > 0]
    if absent == "cap":
        limit = cap * min(present, default=float("inf"))
        return [min(max(v, 1) ** -power, limit) for v in volumes]
    largest = max(present, default=0.0)
    instead = {"max": largest, "eps": eps, "relative": eps * largest}.get(absent, 0.0)
    return [v**-power if v > 0 else instead for v in volumes]


def literal(logits, labels, weighting, absent, batch, include_background, volumes):
    """The loss, image by image, in plain loops."""
    if batch:
        logits, labels = logits.movedim(1, 0).flatten(1)[None], labels.flatten()[None]
    values = []
    for z, y in zip(logits.flatten(2), labels.flatten(1), strict=True):
        p = z.softmax(0)
        classes = range(0 if include_background else 1, CLASSES)
        found = [(y == c).sum().item() for c in classes]
        used = found
        if volumes is not None:
            used = [volumes[c] / sum(volumes) * y.numel() for c in classes]
        if absent == "skip" and min(used) == 0:
            continue
        w = weights(used, weighting, absent)
        top = sum(a * p[c][y == c].sum() for a, c in zip(w, classes, strict=True))
        below = sum(a * (p[c].sum() + v) for a, c, v in zip(w, classes, found, strict=True))
        values.append(1 - 2 * top / below if below > 0 else torch.zeros(()).double())
    return torch.stack(values).mean() if values else torch.zeros(()).double()


@pytest.mark.parametrize("absent", ABSENT)
@pytest.mark.parametrize("weighting", POWER)
def test_every_combination_of_options_is_its_formula(weighting, absent):
    logits, labels = absent_sample()
    given = (None, (50.0, 8.0, 3.0, 1.0), (50.0, 8.0, 0.0, 1.0))
    for batch, background, volumes in itertools.product([False, True], [False, True], given):
        options = dict(weighting=weighting, absent=absent, batch=batch)
        options |= dict(include_background=background, volumes=volumes)
        loss = build("generalized_dice", eps=0.01, floor=7.0, cap=5.0, **options, **EXACT)
        value, slope = gradient(loss, logits, labels)
        assert_close(value, literal(logits, labels, **options))
        assert torch.isfinite(slope).all()


def test_defaults_are_those_of_the_study():
    logits, labels = absent_sample()
    plain = build("generalized_dice")
    given = build(
        "generalized_dice",
        weighting="square",
        volumes=None,
        absent="max",
        eps=1e-6,
        batch=False,
        include_background=True,
        smooth_nr=1e-5,
        smooth_dr=1e-5,
    )
    assert torch.equal(plain(logits, labels), given(logits, labels))
    with_nothing_absent = sample(5, 4, 3)
    for absent in ("zero", "eps", "relative", "skip"):
        same = build("generalized_dice", absent=absent)(*with_nothing_absent)
        assert torch.equal(same, plain(*with_nothing_absent))


def test_relative_weights_lead_from_zero_to_max():
    logits, labels = absent_sample()

    def value(absent, eps=0.0):
        return build("generalized_dice", absent=absent, eps=eps)(logits, labels)

    assert_close(value("relative", 0.0), value("zero"))
    assert_close(value("relative", 1.0), value("max"))


def test_relative_weights_do_not_depend_on_the_size_of_the_image():
    logits, labels = absent_sample()
    double = logits.repeat_interleave(2, 2), labels.repeat_interleave(2, 1)
    for absent, same in [("relative", True), ("max", True), ("cap", False), ("eps", False)]:
        loss = build("generalized_dice", absent=absent, eps=0.01, cap=1e9, **EXACT)
        unchanged = torch.isclose(loss(*double), loss(logits, labels), rtol=1e-9)
        assert bool(unchanged) is same, absent


def test_a_wide_cap_and_a_low_floor_change_nothing_where_all_classes_are_present():
    logits, labels = sample(5, 4, 3)
    expected = build("generalized_dice")(logits, labels)
    assert_close(build("generalized_dice", absent="cap", cap=1e9)(logits, labels), expected)
    assert_close(build("generalized_dice", absent="floor", floor=1.0)(logits, labels), expected)


def test_a_cap_of_one_and_a_high_floor_are_uniform_weights():
    logits, labels = absent_sample()
    expected = build("generalized_dice", weighting="uniform", absent="floor", **EXACT)
    for options in (dict(absent="cap", cap=1.0), dict(absent="floor", floor=1e4)):
        loss = build("generalized_dice", **options, **EXACT)
        assert_close(loss(logits, labels), expected(logits, labels))


def test_uniform_weights_of_the_batch_are_pooled_dice_for_every_policy_but_skip():
    logits, labels = sample(5, 4, 3, dtype=torch.float64)
    p_true = logits.softmax(1).gather(1, labels.unsqueeze(1)).mean()
    for absent in ABSENT:
        loss = build("generalized_dice", weighting="uniform", batch=True, absent=absent, **EXACT)
        assert_close(loss(logits, labels), 1 - p_true)  # = 1 - 2 sum p g / sum (p + g)


def test_volumes_of_the_training_set_weigh_every_image_alike():
    logits, labels = absent_sample()
    volumes = [4000.0, 300.0, 20.0, 100.0]
    loss = build("generalized_dice", volumes=volumes, reduction="none")
    expected = loss(logits, labels)
    scaled = build("generalized_dice", volumes=[7 * v for v in volumes], reduction="none")
    assert_close(scaled(logits, labels), expected)  # any unit
    for absent in ABSENT:  # no class is unknown, so there is nothing to decide
        if absent not in {"floor", "cap"}:
            other = build("generalized_dice", volumes=volumes, absent=absent, reduction="none")
            assert_close(other(logits, labels), expected)
    one = build("generalized_dice", volumes=volumes, reduction="none")(logits[1:2], labels[1:2])
    assert_close(one, expected[1:2])


def test_volumes_equal_to_those_of_the_image_change_nothing():
    logits, labels = sample(5, 4, 3, batch=1)
    volumes = labels.flatten().bincount().tolist()
    expected = build("generalized_dice")(logits, labels)
    assert_close(build("generalized_dice", volumes=volumes)(logits, labels), expected)


def test_skip_leaves_out_images_without_every_class():
    logits, labels = absent_sample()
    value, slope = gradient(build("generalized_dice", absent="skip"), logits, labels)
    assert_close(value, build("generalized_dice")(logits[:1], labels[:1]))
    assert (slope[1:] == 0).all()
    value, slope = gradient(build("generalized_dice", absent="skip"), logits[1:], labels[1:])
    assert value == 0
    assert (slope == 0).all()


@pytest.mark.parametrize("name", ["generalized_dice", "penalty_generalized_dice"])
def test_wrong_volumes_are_refused(name):
    for wrong, error in [
        ("1, 2", TypeError),
        (3, TypeError),
        ([1, "2"], TypeError),
        ([1, -2], ValueError),
        ([0, 0], ValueError),
        ([1], ValueError),
    ]:
        with pytest.raises(error, match="volumes must"):
            build(name, volumes=wrong)
    with pytest.raises(ValueError, match="volumes has 3 values, but logits have 4 classes"):
        build(name, volumes=[1, 2, 3])(*sample(4, 5))


@pytest.mark.parametrize("absent", ABSENT)
def test_half_precision_and_ignored_voxels_work_with_every_policy(absent):
    logits, labels = absent_sample()
    labels[:, 3:] = 255
    volumes = [4e6, 3e5, 2e4, 1e5]
    loss = build("generalized_dice", absent=absent, ignore_index=255, volumes=volumes)
    value, slope = gradient(loss.half(), logits.half(), labels)
    assert torch.isfinite(slope).all()
    assert (slope[:, :, 3:] == 0).all()
    cropped = build("generalized_dice", absent=absent, volumes=volumes)
    assert_close(value, cropped(logits.half()[:, :, :3], labels[:, :3]))


# --- penalty -------------------------------------------------------------------------------------


def test_penalty_is_its_formula_for_each_image():
    logits, labels = absent_sample()
    plain = build("generalized_dice", absent="zero", reduction="none")(logits, labels)
    loss = build("penalty_generalized_dice", absent="zero", k=2.0)
    assert_close(loss(logits, labels), (plain / (1 + 2 * (1 - plain))).mean())
    none = build("penalty_generalized_dice", absent="zero", k=0.0, reduction="none")
    assert_close(none(logits, labels), plain)


# --- Wasserstein ---------------------------------------------------------------------------------

# Tumour classes are nearer to each other than to the background.
TREE = [[0, 1, 1, 1], [1, 0, 0.6, 0.5], [1, 0.6, 0, 0.7], [1, 0.5, 0.7, 0]]


def test_wasserstein_dice_of_two_classes_is_the_dice_of_the_foreground():
    logits, labels = sample(5, 4, 3, classes=2, dtype=torch.float64)
    for batch in (False, True):
        dice = build("dice", include_background=False, batch=batch)
        loss = build("generalized_wasserstein_dice", classes=2, batch=batch)
        ours, theirs = gradient(loss, logits, labels), gradient(dice, logits, labels)
        assert_close(ours, theirs)


def test_wasserstein_dice_is_that_of_monai():
    # Of 1.6 and later: before, it mixed up the images of a batch (issue 4650).
    logits, labels = absent_sample()
    matrix = torch.tensor(TREE, dtype=torch.float64)
    ours = gradient(build("generalized_wasserstein_dice", dist_matrix=TREE), logits, labels)
    peer = monai.losses.GeneralizedWassersteinDiceLoss(dist_matrix=matrix)
    theirs = gradient(peer, logits, labels)
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b.double(), rtol=1e-6, atol=1e-9)


def test_wasserstein_dice_differs_from_monai_where_a_class_is_near_the_background():
    # MONAI puts 1 where the paper has the distance of the label to the background.
    matrix = torch.tensor([[0, 0.5, 1], [0.5, 0, 1], [1, 1, 0]], dtype=torch.float64)
    logits, labels = sample(5, 4, 3, classes=3, dtype=torch.float64)
    p = logits.softmax(1).flatten(2).movedim(1, 2)
    terms = []
    for q, y in zip(p, labels.flatten(1), strict=True):
        w = (matrix[y] * q).sum(1)
        right = (matrix[y, 0] * (matrix[y, 0] - w)).sum()
        terms.append(1 - 2 * right / (2 * right + w.sum()))
    loss = build("generalized_wasserstein_dice", classes=3, dist_matrix=matrix, **EXACT)
    assert_close(loss(logits, labels), torch.stack(terms).mean())
    peer = monai.losses.GeneralizedWassersteinDiceLoss(dist_matrix=matrix)
    assert not torch.isclose(loss(logits, labels), peer(logits, labels).double(), rtol=1e-3)


def test_wasserstein_dice_charges_less_for_a_nearer_class():
    labels = torch.tensor([[0, 0, 0, 1, 1, 1, 2, 3]])
    loss = build("generalized_wasserstein_dice", dist_matrix=TREE)

    def value(mistake):
        prediction = labels.clone()
        prediction[0, 3] = mistake
        hot = torch.nn.functional.one_hot(prediction, 4).movedim(-1, 1)
        return loss(60.0 * hot, labels).item()

    assert value(1) < value(3) < value(2) < value(0)  # distances 0, .5, .6, 1


def test_only_ratios_of_class_distances_matter():
    logits, labels = absent_sample()
    scaled = [[3 * d for d in row] for row in TREE]
    assert_close(
        build("generalized_wasserstein_dice", dist_matrix=scaled)(logits, labels),
        build("generalized_wasserstein_dice", dist_matrix=TREE)(logits, labels),
    )


def test_wasserstein_terms_and_pooling():
    logits, labels = absent_sample()
    labels[1] = 255
    options = dict(dist_matrix=TREE, ignore_index=255)
    terms = build("generalized_wasserstein_dice", reduction="none", **options)(logits, labels)
    assert terms.shape == (3,)
    assert terms[1] == 0
    mean = build("generalized_wasserstein_dice", **options)(logits, labels)
    assert_close(mean, terms[[0, 2]].mean())
    one = logits.movedim(1, 0).flatten(1)[None], labels.flatten()[None]
    pooled = build("generalized_wasserstein_dice", batch=True, **options)(logits, labels)
    assert_close(pooled, build("generalized_wasserstein_dice", **options)(*one))


def test_wrong_class_distances_are_refused():
    for wrong, error, message in [
        (None, TypeError, "C x C list of numbers"),
        ("tree", TypeError, "C x C list of numbers"),
        ([[0, 1], [1]], TypeError, "C x C list of numbers"),
        ([[0, 1, 1], [1, 0, 1]], ValueError, r"shape \(2, 3\)"),
        ([[0, -1], [-1, 0]], ValueError, "finite and >= 0"),
        ([[0, 0], [0, 0]], ValueError, "not all 0"),
        ([[1, 1], [1, 0]], ValueError, "0 on the diagonal"),
        ([[0, 1], [2, 0]], ValueError, "symmetric"),
    ]:
        with pytest.raises(error, match=message):
            build("generalized_wasserstein_dice", dist_matrix=wrong)
    with pytest.raises(ValueError, match="dist_matrix has 4 classes, but logits have 3 classes"):
        build("generalized_wasserstein_dice", dist_matrix=TREE)(*sample(4, 5, classes=3))


@pytest.mark.parametrize("absent", ABSENT)
def test_smoothing_does_not_grow_with_the_image(absent):
    """The same picture with every voxel 8 x 8 voxels: 1/V^2 shrinks by 4096, the loss does not."""
    logits, labels = absent_sample()
    if absent in ("eps", "floor"):  # their number for an absent class does not scale
        logits, labels = logits[:1], labels[:1]
    loss = build("generalized_dice", absent=absent, floor=1.0)
    large = [t.repeat_interleave(8, 2).repeat_interleave(8, 3) for t in (logits, labels[:, None])]
    assert_close(loss(*large), loss(logits, labels), rtol=1e-5, atol=1e-6)
