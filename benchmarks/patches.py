"""The patches that losses are measured on: label maps as training meets them, and predictions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

CLASSES = 4
BALLS = (8.0, 4.0, 2.0)
INITIAL_LOGITS = 0.1


@dataclass(frozen=True)
class Patch:
    """A batch: logits (B, C, *spatial), float32, and labels (B, *spatial), int64."""

    logits: Tensor
    labels: Tensor

    def moved(self, voxels: int) -> Patch:
        """The batch rolled along its last axis: as hard as before, and yet another one.

        Nothing that a loss remembers of the batch before helps with it, as in training.
        """
        return Patch(self.logits.detach().roll(voxels, -1), self.labels.roll(voxels, -1))


def lesions(size: int, classes: int = CLASSES, batch: int = 2, seed: int = 0) -> Patch:
    """A batch of images with ragged lesions, and logits of a network that is half trained.

    Classes are nested, as those of gliomas are, and each is rarer than the one around it (at
    four classes about 2, 0.5 and 0.1 % of the voxels). The logits favour the true class of a
    place up to size / 32 voxels away, with smooth noise, so that predicted regions are compact,
    shifted and sometimes wrong.
    """
    generator = torch.Generator().manual_seed(seed)
    axis = torch.linspace(-1, 1, size)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    labels = torch.zeros(batch, size, size, size, dtype=torch.long)
    for image in labels:
        ragged = 0.12 * smooth_noise((1, 1, size, size, size), size // 8, generator)[0, 0]
        for _ in range(3):
            centre = 0.9 * torch.rand(3, 1, 1, 1, generator=generator) - 0.45
            radius = 0.2 + 0.06 * torch.rand(1, generator=generator)
            depth = 1 - ((grid - centre).norm(dim=0) + ragged) / radius
            for label in range(1, classes):
                image[depth > 0.35 * (label - 1)] = label
    logits = 3 * one_hot(labels.roll(size // 32, 1), classes).movedim(-1, 1).float()
    return Patch(logits + smooth_noise(logits.shape, size // 4, generator), labels)


def smooth_noise(shape: tuple[int, ...], knots: int, generator: torch.Generator) -> Tensor:
    """Normal noise on a grid of knots, interpolated to (B, C, X, Y, Z)."""
    coarse = torch.randn(*shape[:2], knots, knots, knots, generator=generator)
    return interpolate(coarse, shape[2:], mode="trilinear", align_corners=True)


def untrained(seed: int = 0) -> Patch:
    """One image of 32^3 voxels as an untrained network sees it: nested balls, logits near 0.

    The balls of classes 1, 2 and 3 have radii of 8, 4 and 2 voxels (2176, 280 and 32 voxels in
    all); the logits are normal with mean 0 and standard deviation 0.1.
    """
    axis = torch.arange(32) - 15.5
    distance = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    labels = sum((distance <= radius).long() for radius in BALLS)[None]
    shape = (1, CLASSES, *labels.shape[1:])
    generator = torch.Generator().manual_seed(seed)
    return Patch(INITIAL_LOGITS * torch.randn(shape, generator=generator), labels)
