"""Signed distances, in voxels, of every voxel to the boundary of every class.

Exact, on the CPU; no gradient flows through a distance. The maps of a label map are kept under its
content: training on the same patches again, or two boundary terms in one step, compute them once.
To have them computed before a loss is, call :func:`signed_distances` with its labels: every
boundary loss then finds them. A label map that was changed in place has another content and never
meets the maps of its former one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy import ndarray

_IGNORED = -1
_CACHE_BYTES = 64 * 2**20  # 10 batches of 2 patches of 64^3 voxels with 3 foreground classes
_CHUNK = 2**18  # elements worked on at once, because they stay in a core's own cache


class MapCache:
    """Maps by key, the last ones used, as many as fit into a number of bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._maps: OrderedDict[tuple, ndarray] = OrderedDict()
        self._lock = Lock()  # one process may train in several threads

    @property
    def size(self) -> int:
        """Bytes in use."""
        return sum(kept.nbytes for kept in self._maps.values())

    def get(self, key: tuple, compute: Callable[[], ndarray]) -> ndarray:
        """The map kept under the key; computed, and kept if it fits, if there is none."""
        with self._lock:
            found = self._maps.pop(key, None)
        if found is None:
            found = compute()
        with self._lock:
            self._maps[key] = found
            while self.size > self.limit:
                self._maps.popitem(last=False)
        return found


_cache = MapCache(_CACHE_BYTES)


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
        classes: the classes that get a map: for a loss ``range(1, C)``, or ``range(C)`` if its
            background has a boundary as well.
        keep: remember the maps for the next time, up to 64 MiB.
    """
    coded = labels if valid is None else labels.masked_fill(~valid, _IGNORED)
    images = coded.detach().to("cpu", torch.int16).numpy()
    maps = torch.empty(len(images), len(classes), *images.shape[1:])
    for image, of_image in zip(images, maps.numpy(), strict=True):
        content = blake2b(image.tobytes()).digest() if keep else None
        for label, signed in zip(classes, of_image, strict=True):
            compute = partial(_map, image, label)
            key = (content, image.shape, label)
            signed[:] = _cache.get(key, compute) if keep else compute()
    return maps.to(labels.device)


def distances(labels: Tensor, valid: Tensor | None, classes: range, *, keep: bool = True) -> Tensor:
    """(B, len(classes), *spatial), float32: distance to the boundary of each class.

    As in signed_distances, without sign. No boundary is as far away as anything can be: the map of
    a class that fills the image or is absent from it is the largest distance between two voxels
    of the box around the valid ones (at least 1), everywhere.
    """
    maps = signed_distances(labels, valid, classes, keep=keep).abs_()
    missing = maps.flatten(2).amax(2) == 0
    if bool(missing.any()):
        furthest = _diagonals(torch.ones_like(labels) if valid is None else valid)
        furthest = furthest.to(maps.dtype).unsqueeze(1) * missing
        maps += furthest.view(*missing.shape, *[1] * (labels.ndim - 1))
    return maps


def _diagonals(valid: Tensor) -> Tensor:
    """(B,): length of the diagonal of the box around the valid voxels of each image, >= 1."""
    squares = []
    for axis in range(1, valid.ndim):
        found = valid.movedim(axis, 1).unsqueeze(-1).flatten(2).any(2).int()
        squares.append((found.shape[1] - 1 - found.argmax(1) - found.flip(1).argmax(1)) ** 2)
    return torch.stack(squares).sum(0).float().sqrt().clamp_min(1)


def _map(image: ndarray, label: int) -> ndarray:
    """Signed distances of one class of one image (int16), float32."""
    import numpy as np  # here, because only boundary losses need NumPy

    inside = image == label
    ignored = image == _IGNORED
    outside = ~(inside | ignored)
    if not inside.any() or not outside.any():
        return np.zeros(image.shape, np.float32)
    signed = _distance_to(inside)
    signed[ignored] = 0
    # What is nearest to the inside lies next to the class's box, unless it is ignored.
    box = ... if ignored.any() else _box(inside)
    signed[box] -= _distance_to(outside[box]) * inside[box]
    return signed


def _box(mask: ndarray) -> tuple[slice, ...]:
    """The smallest box around the True voxels, one voxel wider on each side."""
    import numpy as np

    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        found = np.flatnonzero(mask.any(others))
        box.append(slice(max(found[0] - 1, 0), found[-1] + 2))
    return tuple(box)


def _distance_to(mask: ndarray) -> ndarray:
    """Euclidean distance of every voxel to the nearest True voxel of the mask, float32.

    The squared distance is a sum over axes, so its minimum can be taken axis by axis. It is an
    integer, of 16 bits, counted from the lowest one, in images up to 128^3: less than half the
    time of 32 bits.
    """
    import numpy as np

    squares = [(length - 1) ** 2 for length in mask.shape]
    furthest = sum(squares)
    short = furthest + max(squares) < 2**16
    integer, zero = (np.int16, -(2**15)) if short else (np.int32, 0)

    # Along the last axis: the distance itself, by steps of 1, 2, 4, ...; ``length`` if too far.
    length = mask.shape[-1]
    line = np.where(mask, integer(0), integer(length))
    step = 1
    while step < length:
        for to, of in (line[..., step:], line[..., :-step]), (line[..., :-step], line[..., step:]):
            np.minimum(to, of + integer(step), out=to)
        step *= 2
    squared = np.where(line < length, line * line + integer(zero), integer(zero + furthest))
    for axis in range(mask.ndim - 1):
        # Lines along the axis do not meet, so they can be taken a few at a time.
        lines = squared.swapaxes(0, axis)
        chunk = max(1, _CHUNK // (lines[:, 0].size))
        for start in range(0, lines.shape[1], chunk):
            some = lines[:, start : start + chunk]
            some[:] = _lowest_parabolas(some, zero)
    return np.sqrt(squared - np.float32(zero), dtype=np.float32)


def _lowest_parabolas(values: ndarray, zero: int) -> ndarray:
    """Minimum over j of values[j] + (i - j)^2 for each i; ``zero`` stands for 0."""
    import numpy as np

    lowest = values.copy(order="K")
    raised = np.empty_like(lowest)
    for shift in range(1, len(values)):
        square = shift**2
        if square >= int(lowest.max()) - zero:  # nothing so far away lowers anything
            break
        np.add(values, values.dtype.type(square), out=raised)
        np.minimum(lowest[:-shift], raised[shift:], out=lowest[:-shift])
        np.minimum(lowest[shift:], raised[:-shift], out=lowest[shift:])
    return lowest
