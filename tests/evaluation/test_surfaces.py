"""Surface scores equal those of the package that defines them, and agree with a second one."""

import math

import numpy as np
import pytest
import surface_distance
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from workflow.evaluation.surfaces import surface_scores

SPACING = (1.0, 2.0, 3.0)
MASKS = arrays(bool, st.tuples(*[st.integers(1, 6)] * 3), elements=st.booleans())


def ball(radius, centre=(8, 8, 8), shape=(16, 16, 16)):
    grid = np.indices(shape) - np.array(centre)[:, None, None, None]
    return (grid**2).sum(0) <= radius**2


def peer(prediction, reference, spacing, tolerance):
    distances = surface_distance.compute_surface_distances(reference, prediction, spacing)
    return (
        surface_distance.compute_surface_dice_at_tolerance(distances, tolerance),
        surface_distance.compute_robust_hausdorff(distances, 95),
    )


@settings(max_examples=50, deadline=None)
@given(MASKS, st.integers(0, 2**32 - 1), st.floats(0, 4))
def test_any_two_masks_score_as_surface_distance_says(reference, seed, tolerance):
    reference.flat[0] = True
    prediction = np.random.default_rng(seed).permuted(reference)
    assert surface_scores(prediction, reference, SPACING, tolerance) == pytest.approx(
        peer(prediction, reference, SPACING, tolerance), rel=1e-9
    )


def test_a_prediction_far_too_large_scores_as_surface_distance_says():
    """The case whose cost is the reason for an implementation of our own."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(24, 28, 24)), 1)
    prediction, reference = noise > np.quantile(noise, 0.6), ball(4, shape=noise.shape)
    assert surface_scores(prediction, reference, SPACING, 2.0) == pytest.approx(
        peer(prediction, reference, SPACING, 2.0), rel=1e-9
    )


@pytest.mark.parametrize("shift", [1, 2, 5])
def test_monai_agrees_where_both_are_defined(shift):
    reference, prediction = ball(4), ball(4, centre=(8 + shift, 8, 8))
    nsd, hd95 = surface_scores(prediction, reference, SPACING, 2.0)
    one, other = (torch.tensor(mask)[None, None].float() for mask in (prediction, reference))
    options = {"include_background": True, "spacing": list(SPACING)}
    # surfaces lie between voxels in surface-distance and on voxels in MONAI: half a voxel
    peer_hd95 = compute_hausdorff_distance(one, other, percentile=95, **options).item()
    assert hd95 == pytest.approx(peer_hd95, abs=max(SPACING))
    peer_nsd = compute_surface_dice(one, other, [2.0], use_subvoxels=True, **options).item()
    assert nsd == pytest.approx(peer_nsd, rel=1e-5)


def test_nsd_of_a_shifted_cube_loses_the_two_faces_across_the_shift():
    """The other four faces slide along themselves: about two thirds stay within tolerance."""
    reference, prediction = np.zeros((2, 40, 40, 40), bool)
    reference[6:34, 6:34, 6:34] = True
    prediction[9:37, 6:34, 6:34] = True
    nsd, _ = surface_scores(prediction, reference, (1, 1, 1), 1.0)
    assert nsd == pytest.approx(2 / 3, abs=0.05)


def test_nsd_grows_with_its_tolerance():
    values = [surface_scores(ball(4), ball(6), (1, 1, 1), t)[0] for t in (0.5, 1, 2, 4)]
    assert values == sorted(values)
    assert values[0] < 0.5
    assert values[-1] == 1


def test_a_miss_costs_the_diagonal_of_the_image_and_not_of_the_structure():
    nsd, hd95 = surface_scores(np.zeros((16, 16, 16), bool), ball(2), SPACING, 1.0)
    assert (nsd, hd95) == (0, pytest.approx(16 * math.sqrt(1 + 4 + 9)))


def test_no_prediction_is_farther_than_nothing_at_all():
    reference, farthest = np.zeros((2, 5, 6, 7), bool)
    reference[0, 0, 0] = farthest[-1, -1, -1] = True
    _, far = surface_scores(farthest, reference, SPACING, 1.0)
    assert far < surface_scores(np.zeros_like(reference), reference, SPACING, 1.0)[1]
