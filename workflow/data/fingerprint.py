"""What a data set looks like: spacing, size, intensities and class volumes, before any choice.

Each case leaves its `Facts`; `fingerprint` sums them up for the data set. The idea is nnU-Net's
(Isensee et al. 2021, doi:10.1038/s41592-020-01008-z): what may be decided from a data set is
decided from this and from nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SAMPLES = 400  # quantiles of the annotated voxels of a case: every case weighs the same
CLIPPED = (0.5, 99.5)  # percentiles

Box = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Facts:
    """What the fingerprint needs of one case.

    Attributes:
        shape: voxels along x, y and z.
        spacing: in mm.
        box: first voxel and the one after the last along each axis of what is not zero in some
            channel; the whole volume where there is nothing or no margin.
        counts: voxels of each label value.
        samples: intensities (channels, up to 400) of the annotated voxels, at evenly spaced ranks;
            empty without annotated voxels.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    box: Box
    counts: dict[int, int]
    samples: np.ndarray

    @property
    def kept(self) -> float:
        """Share of the voxels that lie in the box."""
        inside = np.prod([stop - start for start, stop in self.box])
        return float(inside / np.prod(self.shape))


def facts(image: np.ndarray, label: np.ndarray, spacing: tuple[float, float, float]) -> Facts:
    """Of an image (channels, x, y, z) and the values of its label (x, y, z)."""
    values, counts = np.unique(label, return_counts=True)
    annotated = np.sort(image[:, label > 0], axis=1)
    ranks = np.linspace(0, annotated.shape[1] - 1, min(SAMPLES, annotated.shape[1]))
    x, y, z = label.shape
    return Facts(
        shape=(x, y, z),
        spacing=spacing,
        box=_box(image),
        counts=dict(zip(values.tolist(), counts.tolist(), strict=True)),
        samples=annotated[:, ranks.round().astype(int)],
    )


def _box(image: np.ndarray) -> Box:
    inside = (image != 0).any(axis=0)
    box = []
    for axis in range(3):
        found = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append((int(found[0]), int(found[-1]) + 1) if len(found) else (0, inside.shape[axis]))
    return tuple(box)


def fingerprint(
    cases: Sequence[Facts],
    channels: Sequence[str],
    classes: Sequence[str],
    lookup: Mapping[int, int],
) -> dict[str, Any]:
    """The data set as numbers that JSON can hold; lengths in mm, volumes in mm^3.

    ``spacing``, ``size`` (voxels), ``extent`` (mm) and ``extent_cropped`` (mm, of the box of what
    is not zero) have ``median``, ``minimum`` and ``maximum`` along x, y and z; ``spacing`` has
    ``percentile_10`` and ``percentile_90`` as well. ``kept`` is the median share of the voxels in
    that box. Intensities of a channel are those of annotated voxels, each case weighing the same;
    they are null where nothing is annotated. Volumes of a class are of the cases that have it.
    """
    spacing = np.array([case.spacing for case in cases])
    size = np.array([case.shape for case in cases])
    box = np.array([[stop - start for start, stop in case.box] for case in cases])
    samples = [case.samples for case in cases if case.samples.size]
    pooled = np.concatenate(samples, axis=1) if samples else None
    return {
        "cases": len(cases),
        "spacing": _spread(spacing)
        | {f"percentile_{p}": np.percentile(spacing, p, axis=0).tolist() for p in (10, 90)},
        "size": _spread(size),
        "extent": _spread(size * spacing),
        "extent_cropped": _spread(box * spacing),
        "kept": float(np.median([case.kept for case in cases])),
        "channels": [
            {"name": name, "modality": modality(name)}
            | _intensities(None if pooled is None else pooled[index])
            for index, name in enumerate(channels)
        ],
        "classes": _classes(cases, classes, lookup),
    }


def modality(channel: str) -> str:
    """`CT`, whose numbers mean the same in every image, or `other`: MRI and all without a unit."""
    return "CT" if channel.strip().lower() == "ct" else "other"


def _spread(values: np.ndarray) -> dict[str, list[float]]:
    """Of each axis, over the cases."""
    return {
        "median": np.median(values, axis=0).tolist(),
        "minimum": values.min(axis=0).tolist(),
        "maximum": values.max(axis=0).tolist(),
    }


def _intensities(values: np.ndarray | None) -> dict[str, float | None]:
    if values is None:
        names = ("mean", "deviation", "median", "low", "high")
        return dict.fromkeys(names)
    low, median, high = np.percentile(values, (CLIPPED[0], 50, CLIPPED[1]))
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "deviation": float(values.std(dtype=np.float64)),
        "median": float(median),
        "low": float(low),
        "high": float(high),
    }


def _classes(
    cases: Sequence[Facts], classes: Sequence[str], lookup: Mapping[int, int]
) -> list[dict[str, Any]]:
    voxels = np.zeros((len(cases), len(classes)))
    for row, case in zip(voxels, cases, strict=True):
        for value, count in case.counts.items():
            row[lookup[value]] += count
    volumes = voxels * [[np.prod(case.spacing)] for case in cases]
    found = []
    for index, name in enumerate(classes):
        there = volumes[voxels[:, index] > 0, index]
        found.append(
            {
                "name": name,
                "prevalence": len(there) / len(cases),
                "voxel_fraction": float(voxels[:, index].sum() / voxels.sum()),
                "median": float(np.median(there)) if len(there) else None,
                "minimum": float(there.min()) if len(there) else None,
                "maximum": float(there.max()) if len(there) else None,
            }
        )
    return found
