"""From the fingerprint of a data set to its preparation, and to patch and strides of the network.

The rules are those of nnU-Net (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z), for a voxel
budget in place of a graphics card: what a study leaves to ``auto`` follows from the fingerprint
alone, whatever the loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

ANISOTROPIC = 3.0  # an axis this many times coarser than the others is treated on its own
MASKED = 0.75  # images of which less than this is not zero are normalised without the zeros
SMALLEST = 4  # voxels along an axis that may be left at the coarsest level of the network

Spacing = tuple[float, float, float]
Steps = tuple[int, int, int]
Normalisation = Literal["percentiles", "zscore", "zscore_nonzero", "ct"]


@dataclass(frozen=True)
class Wishes:
    """What a study asks of the preparation; see ``preparation`` in ``config/README.md``."""

    spacing: Spacing | Literal["native", "auto"] = "native"
    crop: Literal["none", "nonzero", "auto"] = "none"
    normalisation: Normalisation | tuple[Normalisation, ...] | Literal["auto"] = "percentiles"
    patch_voxels: int = 32**3


@dataclass(frozen=True)
class Choices:
    """A preparation without anything left open.

    Attributes:
        spacing: of the arrays in mm; None keeps that of each case.
        crop: to the box of what is not zero, or not at all.
        normalisation: of each channel.
        intensities: of each channel the limits, mean and deviation that `ct` takes from the
            annotated voxels of the data set; empty where no channel is normalised so.
    """

    spacing: Spacing | None
    crop: Literal["none", "nonzero"]
    normalisation: tuple[Normalisation, ...]
    intensities: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True)
class Geometry:
    """The sizes of a network and of what it sees, in voxels along x, y and z."""

    patch_size: Steps
    strides: tuple[int | Steps, ...]
    window: Steps


def settled(wishes: Wishes, channels: int) -> Choices | None:
    """The choices, where they can be made without the fingerprint."""
    words = wishes.normalisation
    kinds = (words,) * channels if isinstance(words, str) else words
    if wishes.spacing == "auto" or wishes.crop == "auto" or {"auto", "ct"} & set(kinds):
        return None
    if len(kinds) != channels:
        return None  # `choose` refuses it
    return Choices(
        spacing=None if wishes.spacing == "native" else wishes.spacing,
        crop=wishes.crop,
        normalisation=kinds,  # type: ignore[arg-type]  # without auto
    )


def choose(fingerprint: dict[str, Any], wishes: Wishes) -> Choices:
    """The preparation that a study asks for, ``auto`` decided from the fingerprint.

    Raises:
        ValueError: as many words of normalisation as the data set has not channels; `ct` for a
            data set without annotated voxels.
    """
    channels = fingerprint["channels"]
    crop = wishes.crop
    if crop == "auto":
        margins = fingerprint["extent_cropped"] != fingerprint["extent"]
        crop = "nonzero" if margins else "none"
    spacing: Spacing | None
    if wishes.spacing == "auto":
        spacing = target_spacing(fingerprint)
    else:
        spacing = None if wishes.spacing == "native" else wishes.spacing
    words = wishes.normalisation
    if words == "auto":
        masked = crop == "nonzero" and fingerprint["kept"] < MASKED
        other: Normalisation = "zscore_nonzero" if masked else "zscore"
        kinds = tuple("ct" if c["modality"] == "CT" else other for c in channels)
    else:
        kinds = (words,) * len(channels) if isinstance(words, str) else words
    if len(kinds) != len(channels):
        names = ", ".join(channel["name"] for channel in channels)
        raise ValueError(
            f"preparation.normalisation: {len(kinds)} words for {len(channels)} channels ({names})"
        )
    intensities: tuple = ()
    if "ct" in kinds:
        if channels[0]["mean"] is None:
            raise ValueError("preparation.normalisation: ct needs annotated voxels, there are none")
        intensities = tuple((c["low"], c["high"], c["mean"], c["deviation"]) for c in channels)
    return Choices(spacing, crop, kinds, intensities)


def target_spacing(fingerprint: dict[str, Any]) -> Spacing:
    """The median spacing; a coarse axis with few slices gets the finest tenth of its spacings.

    So slices are not thinned to those of the coarsest half of the cases.
    """
    median = fingerprint["spacing"]["median"]
    size = [extent / edge for extent, edge in
            zip(fingerprint["extent"]["median"], median, strict=True)]  # fmt: skip
    worst = max(range(3), key=lambda axis: median[axis])
    others = [axis for axis in range(3) if axis != worst]
    coarse = median[worst] > ANISOTROPIC * max(median[axis] for axis in others)
    few = size[worst] * ANISOTROPIC < min(size[axis] for axis in others)
    target = list(median)
    if coarse and few:
        finest = fingerprint["spacing"]["percentile_10"][worst]
        target[worst] = max(finest, *(median[axis] for axis in others))
    x, y, z = target
    return x, y, z


def coarse_axis(spacing: Sequence[float]) -> int | None:
    """The one axis that is more than three times as coarse as another; None if there is none."""
    worst = max(range(3), key=lambda axis: spacing[axis])
    others = [spacing[axis] for axis in range(3) if axis != worst]
    if spacing[worst] <= ANISOTROPIC * min(others) or spacing[worst] == max(others):
        return None
    return worst


def typical(fingerprint: dict[str, Any], choices: Choices) -> tuple[Spacing, tuple[float, ...]]:
    """Spacing (mm) and size (voxels) of the median prepared case."""
    spacing = choices.spacing or tuple(fingerprint["spacing"]["median"])
    extent = fingerprint["extent_cropped" if choices.crop == "nonzero" else "extent"]["median"]
    return spacing, tuple(e / s for e, s in zip(extent, spacing, strict=True))


def geometry(
    spacing: Sequence[float],
    size: Sequence[float],
    *,
    levels: int,
    patch_size: Steps | Literal["auto"],
    strides: Sequence[int | Steps] | Literal["auto"],
    window: Steps | None,
    patch_voxels: int,
) -> Geometry:
    """Patch, strides and window, ``auto`` decided from spacing and size of the median case.

    Args:
        spacing: in mm.
        size: voxels of the median case.
        levels: of the network, the first included.
        patch_size: of the study.
        strides: of the study.
        window: of the study; None is the patch.
        patch_voxels: most voxels of a patch that is chosen here.

    Raises:
        ValueError: a patch or window that is no multiple of the strides; more levels than the
            patch can be halved.
    """
    wanted: Sequence[int]
    if patch_size == "auto":
        # a root may end just below a whole number
        ideal = _ideal_patch(spacing, size, patch_voxels)
        wanted = [max(1, math.floor(edge + 1e-6)) for edge in ideal]
    else:
        wanted = patch_size
    steps = (
        _strides(spacing, wanted, levels, exact=patch_size != "auto")
        if strides == "auto"
        else tuple(strides)
    )
    divisor = multiples(steps)
    patch = _fitting(wanted, size, divisor, patch_voxels) if patch_size == "auto" else patch_size
    check_multiples("training.patch_size", patch, divisor)
    check_multiples("evaluation.window", window or patch, divisor)
    return Geometry(patch, steps, window or patch)


def check_multiples(key: str, lengths: Steps, divisor: Steps) -> None:
    """Raises ``ValueError`` where the network's strides do not divide a patch or window."""
    if any(length % step for length, step in zip(lengths, divisor, strict=True)):
        raise ValueError(
            f"{key}: {list(lengths)} must be multiples of the network's strides {list(divisor)}"
        )


def multiples(strides: Sequence[int | Steps]) -> Steps:
    """Product of the strides along x, y and z."""
    steps = [(s, s, s) if isinstance(s, int) else s for s in strides]
    x, y, z = (math.prod(axis) for axis in zip(*steps, strict=True))
    return x, y, z


def _ideal_patch(
    spacing: Sequence[float], size: Sequence[float], voxels: int
) -> tuple[float, float, float]:
    """The budget as a cube in mm, cut where the median case ends; what is cut goes to the rest."""
    open_axes, edges = {0, 1, 2}, [0.0, 0.0, 0.0]
    while open_axes:
        taken = math.prod(edges[axis] for axis in range(3) if axis not in open_axes)
        volume = voxels / taken * math.prod(spacing[axis] for axis in open_axes)
        edge = volume ** (1 / len(open_axes))
        for axis in open_axes:
            edges[axis] = edge / spacing[axis]
        full = {axis for axis in open_axes if edges[axis] > size[axis]}
        for axis in full:
            edges[axis] = size[axis]
        if not full:
            break
        open_axes -= full
    return edges[0], edges[1], edges[2]


def _strides(
    spacing: Sequence[float], size: Sequence[float], levels: int, exact: bool
) -> tuple[Steps, ...]:
    """Halve, level by level, the axes that are long enough and not yet twice as coarse as another.

    With `exact` an axis is halved only where nothing is left over.
    """
    spacing, size, steps = list(spacing), list(size), []
    for level in range(levels - 1):
        able = [
            axis
            for axis in range(3)
            if size[axis] >= 2 * SMALLEST and not (exact and size[axis] % 2)
        ]
        if not able:
            raise ValueError(
                f"network.channels: {levels} levels, but after {level} halvings no axis of the "
                f"patch can be halved; take fewer levels or a larger patch"
            )
        finest = min(spacing[axis] for axis in able)
        step = [2 if axis in able and spacing[axis] < 2 * finest else 1 for axis in range(3)]
        spacing = [s * k for s, k in zip(spacing, step, strict=True)]
        size = [n / k for n, k in zip(size, step, strict=True)]
        steps.append((step[0], step[1], step[2]))
    return tuple(steps)


def _fitting(wanted: Sequence[float], size: Sequence[float], divisor: Steps, voxels: int) -> Steps:
    """Multiples of the strides near the wanted lengths, as large as the budget allows."""
    patch = [max(1, int(w // d)) * d for w, d in zip(wanted, divisor, strict=True)]
    most = [math.ceil(n / d) * d for n, d in zip(size, divisor, strict=True)]
    while True:
        larger = []
        for axis in range(3):
            longer = patch.copy()
            longer[axis] += divisor[axis]
            if longer[axis] <= most[axis] and math.prod(longer) <= voxels:
                larger.append((patch[axis] / wanted[axis], axis))
        if not larger:
            return patch[0], patch[1], patch[2]
        patch[min(larger)[1]] += divisor[min(larger)[1]]
