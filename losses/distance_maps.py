"""Signed distances, in voxels, of every voxel to the boundary of every class.

The maps of a label map are kept under its content, so that training on the same patches again, or
two boundary terms in one step, compute them once; a label map that was changed in place is another
key and never meets the maps of its former content. No gradient flows through a distance.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy import ndarray

_IGNORED = -1


def signed_distances(
    labels: Tensor, valid: Tensor | None, classes: range, *, keep: bool = True
) -> Tensor:
    """(B, len(classes), *spatial), float32: > 0 outside a class, < 0 inside it.

    Outside, the distance to the nearest voxel of the class; inside, minus the distance to the
    nearest voxel of anything else, so no voxel is nearer than 1. Ignored voxels belong neither to
    the class nor to anything else, and have distance 0. A class that fills the image or is absent
    from it has no boundary: its map is 0.

    Args:
        labels: (B, *spatial), int64; labels outside ``classes`` are other than each class.
        valid: (B, *spatial), bool, False at ignored voxels; None if there are none.
        classes: the classes that get a map.
        keep: remember the maps (of the last 16 images) for the next time.
    """
    coded = labels if valid is None else labels.masked_fill(~valid, _IGNORED)
    images = coded.detach().to("cpu", torch.int16).numpy()
    maps = _kept_maps if keep else _maps
    found = [maps(image.tobytes(), image.shape, classes) for image in images]
    return torch.stack(found).to(labels.device)


def _maps(data: bytes, shape: tuple[int, ...], classes: range) -> Tensor:
    """(len(classes), *shape): the maps of one image, int16 labels as bytes."""
    import numpy as np  # here, because only boundary losses need NumPy and SciPy

    image = np.frombuffer(data, np.int16).reshape(shape)
    maps = np.zeros((len(classes), *shape), np.float32)
    nothing_ignored = bool((image != _IGNORED).all())
    for signed, label in zip(maps, classes, strict=True):
        inside = image == label
        outside = ~inside & (image != _IGNORED)
        if inside.any() and outside.any():
            signed[outside] = _distance_to(inside)[outside]
            # What is nearest to the inside lies next to the class's box, unless it is ignored.
            box = _box(inside) if nothing_ignored else ...
            signed[box][inside[box]] = -_distance_to(outside[box])[inside[box]]
    return torch.from_numpy(maps)


_kept_maps = lru_cache(maxsize=16)(_maps)


def _box(mask: ndarray) -> tuple[slice, ...]:
    """The smallest box around the True voxels, one voxel wider on each side."""
    return tuple(slice(max(at.min() - 1, 0), at.max() + 2) for at in mask.nonzero())


def _distance_to(mask: ndarray) -> ndarray:
    """Euclidean distance of every voxel to the nearest voxel of the mask."""
    from scipy.ndimage import distance_transform_edt

    return distance_transform_edt(~mask)
