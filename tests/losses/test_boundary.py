"""Boundary losses: distances worked out by hand or by brute force, identities and peers."""

from __future__ import annotations

import itertools

import monai
import numpy as np
import pytest
import torch
from loss_samples import CLASSES, build, gradient, sample
from scipy.ndimage import distance_transform_edt as edt
from torch.nn.functional import one_hot
from torch.testing import assert_close

from losses import distance_maps
from losses.distance_maps import distances, signed_distances
from losses.morphology import dilated, eroded

IGNORED = 255


def brute_force(labels, valid, classes):
    """Signed distances of one image by comparing every voxel with every other."""
    voxels = list(itertools.product(*map(range, labels.shape)))
    maps = torch.zeros(len(classes), *labels.shape)
    for signed, c in zip(maps, classes, strict=True):
        inside = [v for v in voxels if valid[v] and labels[v] == c]
        outside = [v for v in voxels if valid[v] and labels[v] != c]
        if inside and outside:
            for v in inside + outside:
                others = outside if v in inside else inside
                distance = min(
                    torch.dist(torch.tensor(v).float(), torch.tensor(o).float()) for o in others
                )
                signed[v] = -distance if v in inside else distance
    return maps


def blobs(*spatial, classes=CLASSES, batch=2, seed=0, dtype=torch.float64):
    """Logits, and labels in blocks of 3 voxels, so that structures have an inside."""
    coarse = [(size + 2) // 3 for size in spatial]
    _, labels = sample(*coarse, batch=batch, classes=classes, seed=seed)
    for axis in range(len(spatial)):
        labels = labels.repeat_interleave(3, axis + 1)
    labels = labels[(slice(None), *[slice(size) for size in spatial])]
    return sample(*spatial, batch=batch, classes=classes, seed=seed, dtype=dtype)[0], labels


@pytest.mark.parametrize("ignored", [0, 0.2, 0.6])
@pytest.mark.parametrize("spatial", [(11,), (6, 7), (4, 3, 5)])
def test_distances_are_those_of_a_comparison_of_all_voxels(spatial, ignored):
    _, labels = blobs(*spatial, batch=1, seed=4)
    valid = torch.rand(labels.shape, generator=torch.Generator().manual_seed(2)) >= ignored
    expected = brute_force(labels[0], valid[0], range(CLASSES + 1))  # the last class is absent
    assert_close(signed_distances(labels, valid, range(CLASSES + 1))[0], expected)


def test_a_class_that_is_absent_or_fills_the_image_has_distance_zero():
    labels = torch.ones(1, 4, 4, dtype=torch.long)
    assert (signed_distances(labels, None, range(3)) == 0).all()
    labels[0, 0] = 2
    valid = labels == 1  # ... or fills what is valid
    assert (signed_distances(labels, valid, range(3)) == 0).all()


@pytest.mark.parametrize("spatial", [(200,), (31, 40), (13, 9, 11), (3, 1, 230)])
@pytest.mark.parametrize("share", [0.5, 0.02])
def test_distances_are_those_of_scipy(spatial, share):
    generator = torch.Generator().manual_seed(0)
    inside = (torch.rand(spatial, generator=generator) < share).numpy()
    inside.flat[0], inside.flat[-1] = True, False
    expected = edt(~inside) - edt(inside)
    labels = torch.from_numpy(inside).long()[None]
    signed = signed_distances(labels, None, range(1, 2), keep=False)[0, 0]
    assert_close(signed, torch.from_numpy(expected).float())


def test_the_cache_keeps_what_was_used_last_within_its_bytes():
    one = np.zeros(100, np.float32)
    cache = distance_maps.MapCache(3 * one.nbytes)
    made = []
    for key in "abcadaeb":
        cache.get((key,), lambda key=key: made.append(key) or one)
        assert cache.size <= cache.limit
    assert made == list("abcdeb")  # a was used between, b had to go for d
    assert cache.get(("large",), lambda: np.zeros(1000, np.float32)).shape == (1000,)
    assert cache.size <= cache.limit


def test_maps_computed_beforehand_are_found_by_the_losses(monkeypatch):
    logits, labels = blobs(7, 8, seed=11)
    signed_distances(labels, None, range(1, CLASSES))
    calls = []
    monkeypatch.setattr(distance_maps, "_map", lambda *image: calls.append(image))
    build("boundary")(logits, labels.to(torch.uint8).unsqueeze(1))
    assert not calls


def test_maps_of_a_label_map_are_computed_once(monkeypatch):
    logits, labels = blobs(8, 9)
    labels[0, 0, 0] = (labels[0, 0, 0] + 1) % CLASSES  # not seen by another test
    calls = []
    original = distance_maps._distance_to
    monkeypatch.setattr(
        distance_maps, "_distance_to", lambda mask: calls.append(1) or original(mask)
    )
    first = build("boundary")(logits, labels)
    computed = len(calls)
    assert computed > 0
    assert torch.equal(build("boundary")(logits, labels.clone()), first)
    assert len(calls) == computed


def test_label_maps_of_the_same_bytes_and_another_shape_have_maps_of_their_own():
    labels = torch.arange(24).reshape(1, 4, 6) % 5 // 4
    signed_distances(labels, None, range(1, 2))
    other = labels.view(1, 6, 4)
    expected = signed_distances(other, None, range(1, 2), keep=False)
    assert torch.equal(signed_distances(other, None, range(1, 2)), expected)


def test_a_label_map_changed_in_place_gets_new_maps():
    logits, labels = blobs(8, 9)
    loss = build("dice_boundary")
    before = loss(logits, labels)
    labels.copy_(labels.roll(3, 1))
    after = loss(logits, labels)
    assert not torch.isclose(before, after, rtol=1e-6)
    assert torch.equal(after, build("dice_boundary")(logits, labels.clone()))


def test_boundary_of_a_square_is_what_paper_and_pencil_give():
    labels = torch.zeros(1, 5, dtype=torch.long)
    labels[0, 1:4] = 1
    phi = torch.tensor([1.0, 0, -1, 0, 1])
    p = sample(5, batch=1, classes=2)[0].softmax(1)
    value = build("boundary", classes=2)(p.log(), labels)
    assert_close(value, (phi * p[0, 1]).sum() / 5)
    both = build("boundary", classes=2, include_background=True)(p.log(), labels)
    phi_of_background = torch.tensor([0.0, 1, 2, 1, 0])
    assert_close(both, ((phi * p[0, 1]) + phi_of_background * p[0, 0]).sum() / 10)


def test_boundary_falls_where_a_false_positive_comes_nearer():
    labels = torch.zeros(1, 12, dtype=torch.long)
    labels[0, :4] = 1
    values = []
    for place in range(11, 4, -1):
        prediction = labels.clone()
        prediction[0, place] = 1
        hot = one_hot(prediction, 2).movedim(-1, 1)
        values.append(build("boundary", classes=2)(50.0 * hot, labels).item())
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)


def test_hausdorff_of_one_false_positive_is_what_paper_and_pencil_give():
    labels = torch.zeros(1, 8, dtype=torch.long)
    labels[0, :2] = 1
    prediction = labels.clone()
    prediction[0, 6] = 1  # 5 from the reference, 1 from its own boundary
    hot = one_hot(prediction, 2).movedim(-1, 1).double()
    for alpha in (1.0, 2.0):
        value = build("hausdorff_dt", classes=2, alpha=alpha)(2000 * hot, labels)
        assert_close(value, torch.tensor((5**alpha + 1) / 8, dtype=torch.float64))


def erosions(error, k):
    """The error's mask eroded k times with the cross; nothing is eroded from beyond the image."""
    from scipy.ndimage import binary_erosion, generate_binary_structure

    cross = generate_binary_structure(error.ndim, 1)
    return torch.tensor(binary_erosion(error.numpy(), cross, iterations=k, border_value=1))


@pytest.mark.parametrize("spatial", [(14,), (11, 13), (9, 8, 7)])
def test_erosion_of_hard_predictions_is_binary_erosion_of_the_error(spatial):
    generator = torch.Generator().manual_seed(1)
    labels = torch.zeros(1, *spatial, dtype=torch.long)
    prediction = (torch.rand(1, *spatial, generator=generator) > 0.03).long()
    hot = one_hot(prediction, 2).movedim(-1, 1).double()
    error = (prediction == 1)[0]
    expected = sum(k**2 * erosions(error, k).double().mean() for k in range(1, 5))
    value = build("hausdorff_erosion", classes=2, k=4)(2000 * hot, labels)
    assert_close(value, expected)


def test_an_error_thicker_than_its_erosions_costs_more():
    values = []
    for thickness in range(1, 8):
        labels = torch.zeros(1, 16, 16, dtype=torch.long)
        prediction = labels.clone()
        prediction[0, 4 : 4 + thickness, 4 : 4 + thickness] = 1
        hot = one_hot(prediction, 2).movedim(-1, 1)
        values.append(build("hausdorff_erosion", classes=2)(50.0 * hot, labels).item())
    assert values[0] == pytest.approx(0, abs=1e-12)  # one erosion removes it
    assert values[2:] == sorted(values[2:])
    assert values[2] > 0


def test_number_of_erosions_is_checked():
    for wrong, error in [(2.5, TypeError), (True, TypeError), (0, ValueError)]:
        with pytest.raises(error, match="k must be"):
            build("hausdorff_erosion", k=wrong)


def test_distance_penalised_cross_entropy_weighs_the_boundary_twice():
    labels = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1]])
    phi = torch.tensor([[0, 0.25, 0.5, 0.75, 1, 1, 0.5, 0]], dtype=torch.float64)
    logits = sample(8, batch=1, classes=3, dtype=torch.float64)[0]
    cross = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    loss = build("distance_penalised_cross_entropy", classes=3)
    value = loss(logits, labels)
    assert_close(value, ((1 + phi) * cross).mean())
    # SegLossOdyssey computes the weighted terms and returns the mean of the plain ones.
    assert value > 1.05 * cross.mean()


def test_distance_penalised_cross_entropy_without_any_boundary_is_cross_entropy():
    logits, _ = sample(5, 6)
    labels = torch.full((2, 5, 6), 2)
    assert_close(
        build("distance_penalised_cross_entropy")(logits, labels),
        build("cross_entropy")(logits, labels),
    )


def test_a_region_that_is_all_rim_counts_twice():
    logits, _ = sample(5, 6)
    labels = torch.arange(30).reshape(1, 5, 6).expand(2, 5, 6) % CLASSES  # no voxel is inside
    assert_close(
        build("distance_penalised_cross_entropy")(logits, labels),
        2 * build("cross_entropy")(logits, labels),
    )


@pytest.mark.parametrize("spatial", [(9, 7), (6, 5, 7)])
@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("name", ["boundary", "hausdorff_dt"])
def test_value_and_gradient_are_those_of_monai(name, include_background, spatial):
    logits, labels = blobs(*spatial)
    if name == "boundary":
        labels[0][labels[0] == 2] = 0  # absent from one image
    else:
        logits *= 3  # each class is predicted in places: see the tests of a missing boundary
    ours = gradient(build(name, include_background=include_background), logits, labels)
    peers = {"boundary": monai.losses.BoundaryLoss, "hausdorff_dt": monai.losses.HausdorffDTLoss}
    other = peers[name](include_background=include_background, softmax=True, to_onehot_y=True)
    theirs = gradient(other, logits, labels.unsqueeze(1))
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b.double(), rtol=1e-5, atol=1e-7)  # MONAI's distances are float32


# --- a class without a boundary ------------------------------------------------------------------


def test_a_missing_boundary_is_the_diagonal_away():
    labels = torch.ones(1, 4, 5, dtype=torch.long)
    diagonal = (3**2 + 4**2) ** 0.5  # between the two furthest voxels
    expected = torch.full((1, 3, 4, 5), diagonal)  # absent, filling the image, absent
    assert_close(distances(labels, None, range(3)), expected)
    valid = torch.zeros_like(labels, dtype=torch.bool)
    valid[:, 1:, 2:] = True
    assert_close(distances(labels, valid, range(1)), torch.full((1, 1, 4, 5), 8**0.5))
    assert_close(distances(labels[:, :1, :1], None, range(1)), torch.ones(1, 1, 1, 1))


@pytest.mark.parametrize("present", [False, True], ids=["absent", "filling"])
def test_a_class_that_is_wholly_wrong_costs_the_diagonal_twice_and_has_a_gradient(present):
    """It costs nothing in MONAI, which gives a mask without boundary the distance 0 (1.6.1)."""
    labels = torch.full((1, 6, 5), int(present))
    logits = torch.zeros(1, 2, 6, 5, dtype=torch.float64)
    logits[:, 0 if present else 1] = 3.0
    p = logits.softmax(1)[0, 1, 0, 0]
    error = (1 - p if present else p) ** 2
    value, slope = gradient(build("hausdorff_dt", classes=2), logits, labels)
    assert_close(value, error * 2 * (5**2 + 4**2), rtol=1e-6, atol=0)
    # Descent raises the logit of a class that should be there, and lowers one that should not.
    assert ((slope[:, 1] < 0) if present else (slope[:, 1] > 0)).all()
    peer = monai.losses.HausdorffDTLoss(softmax=True, to_onehot_y=True)
    value, slope = gradient(peer, logits, labels.unsqueeze(1))
    assert value == 0
    assert (slope == 0).all()


def test_an_absent_class_is_pushed_down_where_it_is_likeliest_but_below_one_half():
    """MONAI leaves it there: what is predicted nowhere above 1/2 has no boundary either."""
    labels = torch.zeros(1, 6, 5, dtype=torch.long)
    labels[:, :2] = 1
    logits = torch.zeros(1, 3, 6, 5, dtype=torch.float64)
    logits[:, 2] = 0.5  # p = .45, which is what argmax takes
    _, slope = gradient(build("hausdorff_dt", classes=3), logits, labels)
    assert (slope[:, 2] > 0).all()
    peer = monai.losses.HausdorffDTLoss(softmax=True, to_onehot_y=True)
    _, slope = gradient(peer, logits, labels.unsqueeze(1))
    assert (slope[0, 2, 2:] < 0).all()  # it even grows, at the expense of the false class 1


def test_to_predict_nothing_of_a_class_costs_more_than_a_part_of_it():
    """In MONAI it costs less than one right voxel, from which the others are far away."""
    labels = torch.zeros(1, 12, 12, dtype=torch.long)
    labels[:, 3:9, 3:9] = 1

    def values(loss, labels_of_loss):
        found = []
        for size in (0, 1, 3, 6):
            prediction = torch.zeros_like(labels)
            prediction[:, 3 : 3 + size, 3 : 3 + size] = 1
            hot = one_hot(prediction, 2).movedim(-1, 1)
            found.append(loss(100.0 * hot, labels_of_loss).item())
        return found

    ours = values(build("hausdorff_dt", classes=2), labels)
    assert ours == sorted(ours, reverse=True)
    peer = monai.losses.HausdorffDTLoss(softmax=True, to_onehot_y=True)
    theirs = values(peer, labels.unsqueeze(1))
    assert theirs[0] < theirs[1]
    assert ours[1:] == pytest.approx(theirs[1:])


def test_a_false_positive_costs_most_where_the_class_is_absent():
    values = []
    for reference in (9, 6, 3, 0, None):  # ever farther from the prediction, then nowhere
        labels, prediction = torch.zeros(2, 1, 12, dtype=torch.long)
        prediction[:, 11] = 1
        if reference is not None:
            labels[:, reference] = 1
        hot = one_hot(prediction, 2).movedim(-1, 1)
        loss = build("hausdorff_dt", classes=2, reduction="none")
        values.append(loss(100.0 * hot, labels)[0, 0, 11].item())
    assert values == pytest.approx([d**2 + 1 for d in (2, 5, 8, 11, 11)])


# --- compounds, weights, reductions --------------------------------------------------------------


@pytest.mark.parametrize(
    ("compound", "term", "factor"),
    [
        ("dice_boundary", "boundary", "lambda_boundary"),
        ("dice_hausdorff", "hausdorff_dt", "lambda_hausdorff"),
    ],
)
def test_compounds_are_the_sums_of_their_terms(compound, term, factor):
    logits, labels = blobs(9, 8)
    dice, other = build("dice")(logits, labels), build(term)(logits, labels)
    assert_close(build(compound)(logits, labels), dice + other)
    value = build(compound, lambda_dice=0.5, **{factor: 3})(logits, labels)
    assert_close(value, 0.5 * dice + 3 * other)
    loss = build(compound)
    setattr(loss, factor, 0.01)  # what a schedule does between epochs
    assert_close(loss(logits, labels), dice + 0.01 * other)


def test_no_gradient_flows_through_a_distance():
    logits, labels = blobs(9, 8)
    for name in ("boundary", "hausdorff_dt", "distance_penalised_cross_entropy"):
        torch.autograd.gradcheck(build(name), (logits.requires_grad_(), labels))


@pytest.mark.parametrize("name", ["boundary", "hausdorff_dt", "hausdorff_erosion"])
@pytest.mark.parametrize("include_background", [False, True])
def test_ignored_voxels_are_as_good_as_cropped_away(name, include_background):
    logits, labels = blobs(9, 8)
    masked = labels.clone()
    masked[:, 6:] = IGNORED
    options = dict(include_background=include_background)
    expected = build(name, **options)(logits[:, :, :6], labels[:, :6])
    assert_close(build(name, ignore_index=IGNORED, **options)(logits, masked), expected)


def test_the_perfect_prediction_has_the_lowest_boundary_value_of_all_label_maps():
    labels = torch.tensor([[0, 1, 1, 1, 2, 2, 2, 0]])
    loss = build("boundary", classes=3)

    def value(prediction):
        hot = one_hot(prediction, 3).movedim(-1, 1)
        return loss(60.0 * hot, labels).item()

    lowest = value(labels)
    assert lowest == pytest.approx(-2 / 16)  # the two inner voxels, over 8 voxels and 2 classes
    for voxel, label in itertools.product(range(8), range(3)):
        other = labels.clone()
        other[0, voxel] = label
        assert value(other) >= lowest - 1e-9


VOXELWISE = ["boundary", "hausdorff_dt", "hausdorff_erosion"]
WEIGHT = [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("include_background", [False, True])
@pytest.mark.parametrize("name", VOXELWISE)
def test_boundary_losses_give_terms_sum_and_mean(name, include_background):
    logits, labels = blobs(9, 8)
    labels[0, 2:4] = IGNORED
    options = dict(include_background=include_background, ignore_index=IGNORED)
    terms = build(name, reduction="none", **options)(logits, labels)
    first = 0 if include_background else 1
    assert terms.shape == (2, CLASSES - first, 9, 8)
    kept = (labels != IGNORED).unsqueeze(1).expand_as(terms)
    assert (terms[~kept] == 0).all()
    assert_close(build(name, **options)(logits, labels), terms[kept].mean())
    assert_close(build(name, reduction="sum", **options)(logits, labels), terms.sum())
    weights = torch.tensor(WEIGHT[first:]).view(-1, 1, 1) * kept
    weighted = build(name, weight=WEIGHT, **options)(logits, labels)
    assert_close(weighted, (weights * terms).sum() / weights.sum())
    total = build(name, weight=WEIGHT, reduction="sum", **options)(logits, labels)
    assert_close(total, (weights * terms).sum())


@pytest.mark.parametrize("name", ["distance_penalised_cross_entropy", "nacl"])
def test_voxel_terms_are_weighted_by_the_class_of_the_label(name):
    logits, labels = blobs(9, 8)
    labels[0, 2:4] = IGNORED
    options = dict(ignore_index=IGNORED)
    terms = build(name, reduction="none", **options)(logits, labels)
    assert terms.shape == labels.shape
    assert (terms[labels == IGNORED] == 0).all()
    weights = torch.tensor(WEIGHT)[labels % IGNORED] * (labels != IGNORED)
    total = (weights * terms).sum()
    assert_close(build(name, weight=WEIGHT, reduction="sum", **options)(logits, labels), total)
    mean = build(name, weight=WEIGHT, **options)(logits, labels)
    assert_close(mean, total / weights.sum())


def test_the_size_prior_weighs_its_cross_entropy_only():
    logits, labels = blobs(9, 8)
    prior = build("cross_entropy_size_prior")(logits, labels) - build("cross_entropy")(
        logits, labels
    )
    weighted = build("cross_entropy_size_prior", weight=WEIGHT)(logits, labels)
    cross = build("weighted_cross_entropy", weight=WEIGHT)(logits, labels)
    assert_close(weighted, cross + prior)


@pytest.mark.parametrize(
    ("compound", "term"), [("dice_boundary", "boundary"), ("dice_hausdorff", "hausdorff_dt")]
)
def test_weights_of_a_compound_act_on_both_terms(compound, term):
    logits, labels = blobs(9, 8)
    expected = sum(build(name, weight=WEIGHT)(logits, labels) for name in ("dice", term))
    assert_close(build(compound, weight=WEIGHT)(logits, labels), expected)


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [20.0, 50.0])
@pytest.mark.parametrize("certain", range(3))
@pytest.mark.parametrize("name", VOXELWISE)
def test_a_collapsed_prediction_has_the_gradient_of_double_precision(name, certain, gap):
    """One class everywhere, at probabilities that round to 1: slopes as small as the others."""
    _, labels = blobs(9, 8)
    labels[labels == 3] = 0  # absent
    logits = torch.zeros(2, CLASSES, 9, 8, dtype=torch.float64)
    logits[:, certain] = gap
    _, exact = gradient(build(name), logits, labels)
    _, slope = gradient(build(name), logits.float(), labels)
    assert exact.abs().max() > 0
    assert (slope - exact).abs().max() < 1e-3 * exact.abs().max()


@pytest.mark.parametrize("spatial", [(9,), (7, 6), (5, 1, 4)])
def test_erosion_and_dilation_are_extremes_of_the_neighbourhood(spatial):
    images = torch.rand(2, 3, *spatial, dtype=torch.float64, requires_grad=True)
    windows = torch.nn.functional.pad(images.detach(), [1, 1] * len(spatial), value=-1)
    for axis in range(2, images.ndim):
        windows = windows.unfold(axis, 3, 1)
    assert torch.equal(dilated(images), windows.flatten(images.ndim).amax(-1))
    crosses = [images.detach()]
    for axis in range(2, images.ndim):
        size = images.shape[axis] - 1
        for a, b in ((0, 1), (1, 0)):
            shifted = images.detach().clone()
            shifted.narrow(axis, a, size).copy_(images.detach().narrow(axis, b, size))
            crosses.append(shifted)
    assert torch.equal(eroded(images), torch.stack(crosses).amin(0))
    for operation in (eroded, dilated):
        torch.autograd.gradcheck(operation, images)
