"""Soft counts of a prediction and a reference: the only statistics that region losses need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from .probabilities import image_by_image, spent

_PIECE = 2**17  # elements worked on at once, because they stay in a core's own cache


class SoftCounts(NamedTuple):
    """Sums over the valid voxels of each image, shape (B, C), or (1, C) once pooled.

    With p the predicted probability of a class and g its indicator (1 where it is the label), or
    its soft label:
    """

    overlap: Tensor
    """sum of p g: the soft true positives"""
    predicted: Tensor
    """sum of p (or of p^2): the soft volume predicted"""
    reference: Tensor
    """sum of g (or of g^2): the volume in the reference, in voxels"""

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
    """Counts of softmax(logits) against a label map or soft labels, for each image and class.

    A one-hot map of the labels is never whole: forward and backward form it a few voxels (on a GPU
    an image) at a time.

    Args:
        logits: (B, C, *spatial), float32 or float64.
        labels: (B, *spatial), int64 in 0 .. C-1; or soft labels, (B, C, *spatial), of the dtype
            of the logits.
        valid: (B, *spatial), bool; voxels that are False are left out. Not for soft labels.
        squared: ``predicted`` sums p^2 instead of p, ``reference`` g^2 instead of g.
    """
    logits = logits.flatten(2)
    if labels.is_floating_point():
        p, g = logits.softmax(1), labels.flatten(2)
        sums = ((p * g), p.square() if squared else p, g.square() if squared else g)
        return SoftCounts(*(values.sum(2) for values in sums))
    valid = None if valid is None else valid.flatten(1)
    return SoftCounts(*_Counts.apply(logits, labels.flatten(1), valid, squared))


def soft_confusion(logits: Tensor, labels: Tensor, valid: Tensor | None = None) -> Tensor:
    """(B, C, C): row k, column c is the sum of the probability of c over the voxels labelled k.

    The rows add up to the volumes in the reference; the arguments are those of soft_counts.
    """
    if labels.is_floating_point():
        return torch.einsum("bkn,bcn->bkc", labels.flatten(2), logits.flatten(2).softmax(1))
    valid = None if valid is None else valid.flatten(1)
    return _Confusion.apply(logits.flatten(2), labels.flatten(1), valid)


def class_masks(labels: Tensor, classes: int) -> Tensor:
    """(B, C, N), bool: True where the label is the class."""
    return torch.stack([labels.flatten(1) == label for label in range(classes)], 1)


def _prepare(logits: Tensor, labels: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Probabilities (B, C, N) and labels (B, N), the latter in as few bytes as they need.

    Ignored voxels have the label of no class and the probabilities 0: they add nothing to a sum,
    and have no gradient.
    """
    p, classes = image_by_image(torch.softmax, logits), logits.shape[1]
    # fewer bytes, because they are compared with every class; 255 is left for the ignored ones
    labels = labels.to(torch.uint8 if classes < 256 else torch.int64)
    if valid is None:
        return p, labels
    return p.masked_fill_(~valid.unsqueeze(1), 0), labels.masked_fill(~valid, classes)


def _pieces(p: Tensor, labels: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The image, its p and its one-hot labels, (C, n) each: on a CPU a few voxels at a time.

    All one-hot labels are written into one piece of memory.
    """
    classes = torch.arange(p.shape[1], dtype=labels.dtype, device=labels.device).unsqueeze(1)
    voxels = labels.shape[1]
    if p.device.type == "cpu":
        voxels = min(voxels, max(1, _PIECE // len(classes)))
    memory = p.new_empty(len(classes), voxels)
    for image, (of_image, labels_of_image) in enumerate(zip(p, labels, strict=True)):
        pieces = of_image.split(voxels, 1), labels_of_image.split(voxels)
        for piece, label in zip(*pieces, strict=True):
            yield image, piece, torch.eq(label, classes, out=memory[:, : len(label)])


def _softmax_backward_(p: Tensor, slopes: Tensor) -> None:
    """Turns probabilities (C, n) into the gradient for the logits; slopes: that for p."""
    p.mul_(slopes - (p * slopes).sum(0))


class _Counts(Function):
    """Overlap, predicted and reference."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, valid: Tensor | None, squared: bool
    ) -> tuple[Tensor, ...]:
        p, labels = _prepare(logits, labels, valid)
        overlap, predicted, reference = (p.new_zeros(p.shape[:2]) for _ in range(3))
        for image, piece, g in _pieces(p, labels):
            reference[image] += g.sum(1)
            overlap[image] += g.mul_(piece).sum(1)
            predicted[image] += (piece.square() if squared else piece).sum(1)
        ctx.kept = p
        ctx.save_for_backward(logits, labels, valid)
        ctx.squared = squared
        ctx.mark_non_differentiable(reference)
        return overlap, predicted, reference

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, overlap: Tensor, predicted: Tensor, _: Tensor) -> tuple:
        logits, labels, valid = ctx.saved_tensors
        p = spent(ctx, lambda: _prepare(logits, labels, valid)[0])
        overlap, predicted = overlap.unsqueeze(2), predicted.unsqueeze(2)
        for image, piece, g in _pieces(p, labels):
            slopes = g.mul_(overlap[image])
            if ctx.squared:
                slopes.addcmul_(piece, predicted[image], value=2)
            else:
                slopes.add_(predicted[image])
            _softmax_backward_(piece, slopes)
        return p, None, None, None


class _Confusion(Function):
    """The soft confusion matrix."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        p, labels = _prepare(logits, labels, valid)
        batch, classes = p.shape[:2]
        confusion = p.new_zeros(batch, classes, classes)
        for image, piece, g in _pieces(p, labels):
            confusion[image].addmm_(g, piece.T)
        ctx.kept = p
        ctx.save_for_backward(logits, labels, valid)
        return confusion

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, rows: Tensor) -> tuple:
        logits, labels, valid = ctx.saved_tensors
        p = spent(ctx, lambda: _prepare(logits, labels, valid)[0])
        for image, piece, g in _pieces(p, labels):
            _softmax_backward_(piece, rows[image].T @ g)
        return p, None, None
