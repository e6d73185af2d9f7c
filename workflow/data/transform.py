"""Crop, normalise and resample one case, and bring what was predicted back to the grid of its file.

Resampling keeps the field of view: voxels of both grids share its outer faces. Images and logits
are interpolated linearly; along an axis that is more than three times as coarse as another (thick
slices) by the nearest voxel, since between two slices far apart there is nothing to interpolate.
Of a label each class is interpolated as an image is, and the largest wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from workflow.data.choices import Choices, Normalisation, coarse_axis
from workflow.data.fingerprint import CLIPPED, Box

if TYPE_CHECKING:
    import torch

SURE = 30.0
"""Logit of the background outside the box that a case was cropped to; the other classes have 0."""


def target_shape(
    shape: Sequence[int], spacing: Sequence[float], target: Sequence[float] | None
) -> tuple[int, int, int]:
    """Voxels of the same field of view at another spacing, at least one along each axis."""
    x, y, z = (
        max(1, round(n * old / new))
        for n, old, new in zip(shape, spacing, target or spacing, strict=True)
    )
    return x, y, z


def cropped(array: np.ndarray, box: Box) -> np.ndarray:
    """The part of an array (..., x, y, z) in the box."""
    x, y, z = (slice(*limits) for limits in box)
    return array[..., x, y, z]


def normalise(image: np.ndarray, choices: Choices) -> np.ndarray:
    """Each channel of an image (channels, x, y, z) by its own rule, as float32.

    - `percentiles`: clipped to the .5 and 99.5 percentile of the image, then mean 0, deviation 1;
    - `zscore`: mean 0, deviation 1; `zscore_nonzero`: of the voxels that are not 0, which stay 0;
    - `ct`: clipped and scaled as `Choices.intensities` says, the same for every image.

    A channel without contrast becomes 0.
    """
    result = np.empty(image.shape, dtype=np.float32)
    for index, kind in enumerate(choices.normalisation):
        limits = choices.intensities[index] if kind == "ct" else None
        result[index] = _normalised(image[index], kind, limits)
    return result


def _normalised(
    channel: np.ndarray, kind: Normalisation, limits: tuple[float, float, float, float] | None
) -> np.ndarray:
    if kind == "percentiles":
        return _percentiles(channel)
    # late, as MONAI takes seconds to import
    from monai.transforms import NormalizeIntensity

    if limits is None:
        scale = NormalizeIntensity(nonzero=kind == "zscore_nonzero")
    else:
        low, high, mean, deviation = limits
        channel = np.clip(channel, low, high)
        scale = NormalizeIntensity(np.array(mean), np.array(deviation or 1.0))
    return np.asarray(scale(channel), dtype=np.float32)


def _percentiles(channel: np.ndarray) -> np.ndarray:
    result = np.empty(channel.shape, dtype=np.float32)
    np.clip(channel, *np.percentile(channel, CLIPPED), out=result)
    mean, deviation = result.mean(dtype=np.float64), result.std(dtype=np.float64)
    result -= mean
    result /= deviation if deviation > 0 else 1.0
    return result


def resample(
    array: torch.Tensor, shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> torch.Tensor:
    """An array (channels, x, y, z) at the ``target`` spacing (mm): (channels, *shape) float32."""
    if tuple(array.shape[1:]) == tuple(shape):
        return array
    import torch
    from monai.transforms import Resize

    # an axis that is thick before or after
    axis = coarse_axis(spacing)
    axis = coarse_axis(target) if axis is None else axis
    fine = [
        n if i == axis else s for i, (n, s) in enumerate(zip(array.shape[1:], shape, strict=True))
    ]
    for size, mode in ((fine, "trilinear"), (list(shape), "nearest-exact")):
        if tuple(array.shape[1:]) != tuple(size):
            array = torch.as_tensor(Resize(size, mode=mode)(array.float()))
    return array


def resample_label(
    label: np.ndarray, shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> np.ndarray:
    """A label map (x, y, z) at the ``target`` spacing; of equal classes the first one wins."""
    if label.shape == tuple(shape):
        return label
    import torch

    best = np.full(shape, -1, dtype=np.float32)
    result = np.zeros(shape, dtype=label.dtype)
    for value in np.unique(label):
        part = torch.from_numpy((label == value).astype(np.float32))[None]
        weight = resample(part, shape, spacing, target)[0].numpy()
        larger = weight > best
        result[larger] = value
        best[larger] = weight[larger]
    return result


def restored(
    logits: torch.Tensor,
    shape: Sequence[int],
    box: Box,
    spacing: Sequence[float],
    target: Sequence[float],
) -> torch.Tensor:
    """Logits (classes, x, y, z) of a prepared case on the grid of its file: (classes, *shape).

    They are interpolated; outside the box nothing was asked of the network, and nothing but
    background can be there.
    """
    inner = [stop - start for start, stop in box]
    logits = resample(logits, inner, target, spacing)
    if tuple(inner) == tuple(shape):
        return logits
    whole = logits.new_zeros((len(logits), *shape))
    whole[0] = SURE
    whole[(slice(None), *(slice(*limits) for limits in box))] = logits
    return whole
