"""Soft counts of a prediction and a label map: the only statistics that region losses need."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class SoftCounts(NamedTuple):
    """Sums over the valid voxels of each image, shape (B, C), or (1, C) once pooled.

    With p the predicted probability of a class and g its indicator (1 where it is the label):
    """

    overlap: Tensor
    """sum of p g: the soft true positives"""
    predicted: Tensor
    """sum of p (or of p^2): the soft volume predicted"""
    reference: Tensor
    """sum of g: the volume in the reference, in voxels"""

    @property
    def false_positive(self) -> Tensor:
        """sum of p (1 - g), kept from falling below 0 by rounding."""
        return (self.predicted - self.overlap).clamp_min(0)

    @property
    def false_negative(self) -> Tensor:
        """sum of (1 - p) g, kept from falling below 0 by rounding."""
        return (self.reference - self.overlap).clamp_min(0)

    @property
    def counted(self) -> Tensor:
        """(B, 1): True for images with at least one valid voxel."""
        return self.reference.sum(1, keepdim=True) > 0

    def pooled(self) -> SoftCounts:
        """The counts of the whole batch, as if it were one image."""
        return SoftCounts(*(count.sum(0, keepdim=True) for count in self))


def soft_counts(
    logits: Tensor, labels: Tensor, valid: Tensor | None = None, *, squared: bool = False
) -> SoftCounts:
    """Counts of softmax(logits) against a label map, for each image and class.

    The reference is compared class by class as bool: a one-hot map in floating point is never
    kept for the backward pass, and no scatter makes the result depend on the device's scheduling.

    Args:
        logits: (B, C, *spatial), float32 or float64.
        labels: (B, *spatial), int64 in 0 .. C-1.
        valid: (B, *spatial), bool; voxels that are False are left out.
        squared: ``predicted`` sums p^2 instead of p.
    """
    probabilities = logits.flatten(2).softmax(1)
    classes = torch.arange(logits.shape[1], device=logits.device).unsqueeze(1)
    reference = labels.flatten(1).unsqueeze(1) == classes
    predicted = probabilities.square() if squared else probabilities
    if valid is not None:
        kept = valid.flatten(1).unsqueeze(1)
        reference = reference & kept
        predicted = predicted * kept
    return SoftCounts(
        overlap=(probabilities * reference).sum(2),
        predicted=predicted.sum(2),
        reference=reference.sum(2).to(probabilities.dtype),
    )
