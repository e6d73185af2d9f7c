"""Boundary losses: distances worked out by hand or by brute force, identities and peers."""

from __future__ import annotations

import itertools

import monai
import pytest
import torch
from loss_samples import CLASSES, build, gradient, sample
from torch.testing import assert_close

from losses import distance_maps
from losses.distance_maps import signed_distances

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
        hot = torch.nn.functional.one_hot(prediction, 2).movedim(-1, 1)
        values.append(build("boundary", classes=2)(50.0 * hot, labels).item())
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)


def test_hausdorff_of_one_false_positive_is_what_paper_and_pencil_give():
    labels = torch.zeros(1, 8, dtype=torch.long)
    labels[0, :2] = 1
    prediction = labels.clone()
    prediction[0, 6] = 1  # 5 from the reference, 1 from its own boundary
    hot = torch.nn.functional.one_hot(prediction, 2).movedim(-1, 1).double()
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
    hot = torch.nn.functional.one_hot(prediction, 2).movedim(-1, 1).double()
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
        hot = torch.nn.functional.one_hot(prediction, 2).movedim(-1, 1)
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
@pytest.mark.parametrize(
    ("name", "peer"),
    [("boundary", monai.losses.BoundaryLoss), ("hausdorff_dt", monai.losses.HausdorffDTLoss)],
)
def test_value_and_gradient_are_those_of_monai(name, peer, include_background, spatial):
    logits, labels = blobs(*spatial)
    labels[0][labels[0] == 2] = 0  # absent from one image
    logits[:, 1] += 2.0  # predicted in places, so that it has a boundary
    ours = gradient(build(name, include_background=include_background), logits, labels)
    other = peer(include_background=include_background, softmax=True, to_onehot_y=True)
    theirs = gradient(other, logits, labels.unsqueeze(1))
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b.double(), rtol=1e-5, atol=1e-7)  # MONAI's distances are float32


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
        hot = torch.nn.functional.one_hot(prediction, 3).movedim(-1, 1)
        return loss(60.0 * hot, labels).item()

    lowest = value(labels)
    assert lowest == pytest.approx(-2 / 16)  # the two inner voxels, over 8 voxels and 2 classes
    for voxel, label in itertools.product(range(8), range(3)):
        other = labels.clone()
        other[0, voxel] = label
        assert value(other) >= lowest - 1e-9
