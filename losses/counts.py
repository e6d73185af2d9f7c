"""Soft counts of a prediction and a reference: the only statistics that region losses need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable


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

    A label map is compared class by class, forward and backward: a one-hot map is never formed.

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
    p, classes = logits.softmax(1), logits.shape[1]
    # fewer bytes, because they are compared with every class; 255 is left for the ignored ones
    labels = labels.to(torch.uint8 if classes < 256 else torch.int64)
    if valid is None:
        return p, labels
    return p.masked_fill_(~valid.unsqueeze(1), 0), labels.masked_fill(~valid, classes)


def _indicators(labels: Tensor, like: Tensor) -> Iterator[Tensor]:
    """(N) for each class in turn: 1 where it is the label, all in one piece of memory."""
    memory = like.new_empty(labels.shape)
    for label in range(like.shape[1]):
        yield torch.eq(labels, label, out=memory)


def _softmax_backward(gradient: Tensor, p: Tensor) -> Tensor:
    """The gradient for the logits from that for the probabilities, in its place.

    The kernel has read all classes of a voxel before it writes one.
    """
    return torch.ops.aten._softmax_backward_data.out(gradient, p, 1, p.dtype, grad_input=gradient)


class _Counts(Function):
    """Overlap, predicted and reference.

    Image by image and class by class, because a row of voxels stays in the cache of a core.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, valid: Tensor | None, squared: bool
    ) -> tuple[Tensor, ...]:
        p, labels = _prepare(logits, labels, valid)
        predicted = (p.square() if squared else p).sum(2)
        overlap, reference = torch.empty_like(predicted), torch.empty_like(predicted)
        for image, of_image in enumerate(labels):
            for label, g in enumerate(_indicators(of_image, p)):
                reference[image, label] = g.sum()
                overlap[image, label] = g.mul_(p[image, label]).sum()
        ctx.save_for_backward(p, labels)
        ctx.squared = squared
        ctx.mark_non_differentiable(reference)
        return overlap, predicted, reference

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, overlap: Tensor, predicted: Tensor, _: Tensor) -> tuple:
        p, labels = ctx.saved_tensors
        gradient = p.new_empty(p.shape)  # overlap g + predicted (or 2 predicted p)
        for image, of_image in enumerate(labels):
            for label, g in enumerate(_indicators(of_image, p)):
                slope, row = predicted[image, label], gradient[image, label]
                torch.mul(g, overlap[image, label], out=row)
                row.add_(2 * slope * p[image, label] if ctx.squared else slope)
        return _softmax_backward(gradient, p), None, None, None


class _Confusion(Function):
    """The soft confusion matrix."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        p, labels = _prepare(logits, labels, valid)
        batch, classes = p.shape[:2]
        confusion = p.new_empty(batch, classes, classes)
        for image, of_image in enumerate(labels):
            for label, g in enumerate(_indicators(of_image, p)):
                confusion[image, label] = p[image] @ g
        ctx.save_for_backward(p, labels)
        return confusion

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, rows: Tensor) -> tuple:
        p, labels = ctx.saved_tensors
        gradient = p.new_empty(p.shape)
        masks = torch.empty_like(p[0])  # of one image at a time
        for image, of_image in enumerate(labels):
            for label in range(len(masks)):
                torch.eq(of_image, label, out=masks[label])
            torch.mm(rows[image].T, masks, out=gradient[image])
        return _softmax_backward(gradient, p), None, None
