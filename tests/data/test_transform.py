"""Crop, normalise, resample, and the way back, each against its formula or a peer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing
from scipy.ndimage import zoom

from workflow.data.choices import Choices
from workflow.data.transform import (
    SURE,
    cropped,
    normalise,
    resample,
    resample_label,
    restored,
    target_shape,
)


def ramp(shape: tuple[int, int, int], spacing: tuple[float, ...]) -> torch.Tensor:
    """An image whose value is the place of the voxel's centre along x + 2 y + 3 z, in mm."""
    x, y, z = (
        (torch.arange(n, dtype=torch.float32) + 0.5) * edge
        for n, edge in zip(shape, spacing, strict=True)
    )
    return (x[:, None, None] + 2 * y[:, None] + 3 * z)[None]


def test_the_field_of_view_stays() -> None:
    assert target_shape((10, 20, 9), (1.0, 2.0, 5.0), (2.0, 1.0, 5.0)) == (5, 40, 9)
    assert target_shape((10, 20, 9), (1.0, 2.0, 5.0), None) == (10, 20, 9)
    assert target_shape((2, 2, 2), (1.0, 1.0, 1.0), (9.0, 9.0, 9.0)) == (1, 1, 1)


def test_images_are_interpolated_linearly_in_space() -> None:
    fine, coarse = (1.0, 1.0, 1.0), (1.5, 2.0, 1.2)
    there = resample(ramp((24, 24, 24), fine), (16, 12, 20), fine, coarse)
    inner = (slice(None), *(slice(2, -2),) * 3)  # faces are no linear function of their neighbours
    torch.testing.assert_close(there[inner], ramp((16, 12, 20), coarse)[inner])
    back = resample(there, (24, 24, 24), coarse, fine)
    inner = (slice(None), *(slice(5, -5),) * 3)
    torch.testing.assert_close(back[inner], ramp((24, 24, 24), fine)[inner])


def test_resampling_agrees_with_peers() -> None:
    image = torch.rand(2, 12, 10, 8, generator=torch.Generator().manual_seed(0))
    ours = resample(image, (24, 20, 16), (2.0, 2.0, 2.0), (1.0, 1.0, 1.0))
    scipy = zoom(image.numpy(), (1, 2, 2, 2), order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(ours.numpy(), scipy, atol=1e-5)
    meta = MetaTensor(image, affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])))
    spacing = Spacing((1.0,) * 3, mode="bilinear", padding_mode="border", scale_extent=True)
    np.testing.assert_allclose(ours.numpy(), spacing(meta).numpy(), atol=1e-4)


def test_thick_slices_are_taken_as_they_are() -> None:
    thick, target = (1.0, 1.0, 8.0), (2.0, 2.0, 4.0)
    image = torch.rand(1, 16, 16, 5, generator=torch.Generator().manual_seed(0))
    there = resample(image, (8, 8, 10), thick, target)
    plane = resample(image, (8, 8, 5), (1.0, 1.0, 1.0), (2.0, 2.0, 1.0))
    torch.testing.assert_close(there[..., ::2], plane)
    torch.testing.assert_close(there[..., 1::2], plane)
    # and back: the slices are what they were, not a mean of two
    back = resample(there, (8, 8, 5), target, (2.0, 2.0, 8.0))
    torch.testing.assert_close(back, plane)


def test_labels_are_resampled_by_class() -> None:
    label = np.zeros((20, 20, 20), np.uint8)
    label[4:12, 4:12, 4:12] = 5
    label[12:16, 4:12, 4:12] = 2
    same = (1.0, 1.0, 1.0)
    half = resample_label(label, (10, 10, 10), same, (2.0, 2.0, 2.0))
    np.testing.assert_array_equal(half, label[::2, ::2, ::2])
    back = resample_label(half, (20, 20, 20), (2.0, 2.0, 2.0), same)
    assert 0 < (back != label).sum() <= 16  # corners are rounded, nothing else
    assert half.dtype == np.uint8
    assert resample_label(label, label.shape, same, same) is label


def test_restored_logits_are_background_outside_the_box() -> None:
    logits = torch.zeros(3, 4, 4, 4)
    logits[2] = 1
    box = ((2, 10), (0, 8), (1, 9))
    whole = restored(logits, (12, 8, 10), box, (1.0, 1.0, 1.0), (2.0, 2.0, 2.0))
    assert whole.shape == (3, 12, 8, 10)
    inside = cropped(whole.argmax(0).numpy(), box)
    assert (inside == 2).all()
    assert (whole.argmax(0) == 2).sum() == inside.size
    outside = whole[:, 0, 0, 0]
    assert outside.tolist() == [SURE, 0, 0]
    assert torch.isfinite(torch.log_softmax(whole, 0)).all()
    kept = restored(logits, (4, 4, 4), ((0, 4),) * 3, (1.0,) * 3, (1.0,) * 3)
    assert kept is logits


def only(kind: str, *limits: tuple[float, float, float, float]) -> Choices:
    return Choices(None, "none", (kind,), limits)


def test_normalisations_are_their_formulas() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(300, 50, (1, 12, 12, 12)).astype(np.float32)
    image[0, :4] = 0
    plain = normalise(image, only("zscore"))
    np.testing.assert_allclose(plain, (image - image.mean()) / image.std(), atol=1e-4)
    masked = normalise(image, only("zscore_nonzero"))
    there = image[image != 0]
    assert (masked[0, :4] == 0).all()
    np.testing.assert_allclose(masked[image != 0], (there - there.mean()) / there.std(), atol=1e-4)
    ct = normalise(image, only("ct", (200.0, 400.0, 310.0, 40.0)))
    np.testing.assert_allclose(ct, (image.clip(200, 400) - 310) / 40, atol=1e-4)


@pytest.mark.parametrize("kind", ["zscore", "zscore_nonzero", "percentiles", "ct"])
def test_a_flat_channel_becomes_zero(kind: str) -> None:
    flat = np.full((1, 4, 4, 4), 7, np.float32)
    assert not normalise(flat, only(kind, (7.0, 7.0, 7.0, 0.0))).any()


def test_each_channel_has_its_own_rule() -> None:
    image = np.random.default_rng(0).normal(10, 2, (2, 8, 8, 8)).astype(np.float32)
    limits = (0.0, 20.0, 10.0, 2.0)
    found = normalise(image, Choices(None, "none", ("ct", "zscore"), (limits, limits)))
    np.testing.assert_allclose(found[0], (image[0] - 10) / 2, atol=1e-5)
    assert found[1].mean() == pytest.approx(0, abs=1e-5)
