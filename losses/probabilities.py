"""The softmax with an accurate gradient, and the cross-entropy of each voxel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn.functional import cross_entropy


class _Softmax(Function):
    """Softmax along dimension 1.

    The gradient is p_j (h_j - sum_k p_k h_k), where only differences of the h matter. Counted from
    the h of the class that is likelier than 1/2, that class drops out of the sum: what is left is
    as small as the other probabilities, where the difference of two large numbers would be noise.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        p = image_by_image(torch.softmax, logits)
        ctx.save_for_backward(p)
        return p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> Tensor:
        (p,) = ctx.saved_tensors
        likeliest = torch.zeros_like(slopes[:, 0])
        for p_of_class, slope in zip(p.unbind(1), slopes.unbind(1), strict=True):
            likeliest.addcmul_(p_of_class.round(), slope)
        gradient = slopes - likeliest.unsqueeze(1)
        # In its own place: the kernel has read all classes of a voxel before it writes one.
        return torch.ops.aten._softmax_backward_data.out(
            gradient, p, 1, p.dtype, grad_input=gradient
        )


def probabilities(logits: Tensor) -> Tensor:
    """Softmax of logits (B, C, *spatial) over the classes."""
    return _Softmax.apply(logits)


def image_by_image(function: Callable[..., Tensor], logits: Tensor) -> Tensor:
    """softmax or log_softmax over the classes, contiguous.

    Logits in another memory format are copied inside: of one image at a time.
    """
    result = logits.new_empty(logits.shape)
    for of_image, image in zip(logits.split(1), result.split(1), strict=True):
        function(of_image, 1, out=image)
    return result


def spent(ctx: Any, again: Callable[[], Tensor]) -> Tensor:
    """What forward left in ``ctx.kept``, which backward may overwrite with the gradient.

    That saves a tensor as large as the logits, and the time to touch it. A second backward through
    a graph that was retained computes it ``again`` from the logits, which the caller has anyway.
    """
    kept, ctx.kept = ctx.kept, None
    return again() if kept is None else kept


class _CrossEntropies(Function):
    """-log p of the label of each voxel; the gradient p - g takes the place of log p."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        ctx.kept = image_by_image(torch.log_softmax, logits)
        ctx.save_for_backward(logits, labels)
        # squeezed in place: a view could not be changed in place by whoever has the terms
        return ctx.kept.gather(1, labels.unsqueeze(1)).neg_().squeeze_(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple:
        logits, labels = ctx.saved_tensors
        p = spent(ctx, lambda: image_by_image(torch.log_softmax, logits)).exp_()
        slopes = slopes.unsqueeze(1)
        return p.mul_(slopes).scatter_add_(1, labels.unsqueeze(1), -slopes), None


def cross_entropies(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """(B, *spatial): the cross-entropy of each voxel, from a label map or from soft labels.

    Class weights act inside the sum over soft labels; of a label map they are no part of the term.
    Either way the term times the voxel's weight (see reduction.voxel_weights) is the weighted
    cross-entropy.
    """
    if not labels.is_floating_point():
        return _CrossEntropies.apply(logits, labels)
    if weight is None:
        return cross_entropy(logits, labels, reduction="none")
    terms = cross_entropy(logits, labels, weight=weight, reduction="none")
    weights = torch.einsum("bc...,c->b...", labels, weight)
    return terms / weights.masked_fill(weights == 0, 1)
