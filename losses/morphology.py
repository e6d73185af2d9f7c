"""Erosion and dilation of images in [0, 1], with gradients that cost one byte a voxel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable


def eroded(images: Tensor) -> Tensor:
    """(B, C, *spatial): the lowest of each voxel and its neighbours along the axes."""
    return -_Highest.apply(-images, range(2, images.ndim))


def dilated(images: Tensor) -> Tensor:
    """(B, C, *spatial): the highest of each voxel and its neighbours, diagonal ones included."""
    for axis in range(2, images.ndim):
        images = _Highest.apply(images, (axis,))
    return images


class _Highest(Function):
    """The highest of each voxel and its two neighbours along each of some axes.

    Which one it was is all that the gradient needs. Among equals it is the voxel itself, or else
    the first.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, axes: Sequence[int]) -> Tensor:
        highest = images.clone()
        winner = torch.zeros_like(images, dtype=torch.uint8)
        for number, axis, here, there in _neighbours(images.shape, axes):
            place, neighbour = highest.narrow(axis, *here), images.narrow(axis, *there)
            winner.narrow(axis, *here).masked_fill_(neighbour > place, number)
            torch.maximum(place, neighbour, out=place)
        ctx.save_for_backward(winner)
        ctx.axes = axes
        return highest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None]:
        (winner,) = ctx.saved_tensors
        gradient = slopes * (winner == 0)
        for number, axis, here, there in _neighbours(slopes.shape, ctx.axes):
            won = winner.narrow(axis, *here) == number
            gradient.narrow(axis, *there).addcmul_(slopes.narrow(axis, *here), won)
        return gradient, None


def _neighbours(
    shape: Sequence[int], axes: Sequence[int]
) -> Iterator[tuple[int, int, tuple[int, int], tuple[int, int]]]:
    """For each neighbour: its number from 1, its axis, and (start, length) of voxels and theirs."""
    for index, axis in enumerate(axes):
        length = shape[axis] - 1
        yield 2 * index + 1, axis, (0, length), (1, length)
        yield 2 * index + 2, axis, (1, length), (0, length)
