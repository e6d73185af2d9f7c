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


def _by_image(
    logits: Tensor, labels: Tensor, valid: Tensor | None
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """For each image its index, probabilities (1, C, N) and labels (N).

    The probabilities are always in the same piece of memory. Ignored voxels have the label of no
    class and the probabilities 0: they add nothing to a sum, and have no gradient.
    """
    classes = logits.shape[1]
    p = logits.new_empty(1, *logits.shape[1:])  # contiguous, as the kernel takes for granted
    for image in range(len(logits)):
        torch.softmax(logits[image : image + 1], 1, out=p)
        # in as few bytes as they need, because they are compared with every class
        of_image = labels[image].to(torch.uint8 if classes < 256 else torch.int64)
        if valid is not None:
            ignored = ~valid[image]
            p.masked_fill_(ignored, 0)
            of_image = of_image.masked_fill(ignored, classes)
        yield image, p, of_image


def _indicators(labels: Tensor, like: Tensor) -> Iterator[Tensor]:
    """(N) for each class in turn: 1 where it is the label, all in one piece of memory."""
    memory = like.new_empty(labels.shape)
    for label in range(like.shape[1]):
        yield torch.eq(labels, label, out=memory)


def _softmax_backward(gradient: Tensor, p: Tensor) -> None:
    """Turns the gradient for the probabilities into that for the logits, in its place.

    The kernel has read all classes of a voxel before it writes one.
    """
    torch.ops.aten._softmax_backward_data.out(gradient, p, 1, p.dtype, grad_input=gradient)


class _Counts(Function):
    """Overlap, predicted and reference.

    Nothing of the size of the logits is kept for the backward pass: to compute the softmax again
    takes less time than to write it to memory and to read it there.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, valid: Tensor | None, squared: bool
    ) -> tuple[Tensor, ...]:
        overlap = logits.new_empty(logits.shape[:2])
        predicted, reference = torch.empty_like(overlap), torch.empty_like(overlap)
        for image, p, of_image in _by_image(logits, labels, valid):
            predicted[image] = (p.square() if squared else p).sum(2)[0]
            for label, g in enumerate(_indicators(of_image, p)):
                reference[image, label] = g.sum()
                overlap[image, label] = g.mul_(p[0, label]).sum()
        ctx.save_for_backward(logits, labels, valid)
        ctx.squared = squared
        ctx.mark_non_differentiable(reference)
        return overlap, predicted, reference

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, overlap: Tensor, predicted: Tensor, _: Tensor) -> tuple:
        logits, labels, valid = ctx.saved_tensors
        gradient = logits.new_empty(logits.shape)  # overlap g + predicted (if squared, 2 p of it)
        for image, p, of_image in _by_image(logits, labels, valid):
            for label, g in enumerate(_indicators(of_image, p)):
                slope = predicted[image, label]
                torch.mul(g, overlap[image, label], out=gradient[image, label])
                gradient[image, label].add_(2 * slope * p[0, label] if ctx.squared else slope)
            _softmax_backward(gradient[image : image + 1], p)
        return gradient, None, None, None


class _Confusion(Function):
    """The soft confusion matrix; see _Counts for what is kept."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        batch, classes = logits.shape[:2]
        confusion = logits.new_empty(batch, classes, classes)
        for image, p, of_image in _by_image(logits, labels, valid):
            for label, g in enumerate(_indicators(of_image, p)):
                confusion[image, label] = p[0] @ g
        ctx.save_for_backward(logits, labels, valid)
        return confusion

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, rows: Tensor) -> tuple:
        logits, labels, valid = ctx.saved_tensors
        gradient = logits.new_zeros(logits.shape)
        for image, p, of_image in _by_image(logits, labels, valid):
            for label, g in enumerate(_indicators(of_image, p)):
                gradient[image].addr_(rows[image, label], g)
            _softmax_backward(gradient[image : image + 1], p)
        return gradient, None, None
