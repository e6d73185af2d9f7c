"""The softmax with an accurate gradient, and the cross-entropy of each voxel in little memory."""

from __future__ import annotations

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
        p = logits.softmax(1)
        ctx.save_for_backward(p)
        return p

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> Tensor:
        (p,) = ctx.saved_tensors
        slopes = slopes - (p.round() * slopes).sum(1, keepdim=True)
        return torch._softmax_backward_data(slopes, p, 1, p.dtype)


def probabilities(logits: Tensor) -> Tensor:
    """Softmax of logits (B, C, *spatial) over the classes."""
    return _Softmax.apply(logits)


class _LogProbability(Function):
    """log p of the label.

    Of the size of the logits there is only their gradient: the softmax is computed again, image by
    image, and no scatter makes the result depend on the device's scheduling.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        found = logits.new_empty(labels.shape)
        of_image = logits.new_empty(1, *logits.shape[1:])  # contiguous, as the kernel expects
        for image in range(len(logits)):
            torch.ops.aten._log_softmax.out(logits[image : image + 1], 1, False, out=of_image)
            torch.gather(of_image[0], 0, labels[image : image + 1], out=found[image : image + 1])
        ctx.save_for_backward(logits, labels)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple:
        logits, labels = ctx.saved_tensors
        gradient = logits.new_empty(logits.shape)  # (g - p) times the slope
        # in as few bytes as they need, because they are compared with every class
        labels = labels.to(torch.uint8 if logits.shape[1] < 256 else torch.int64)
        g = slopes.new_empty(slopes.shape[1:])
        for image in range(len(logits)):
            torch.softmax(logits[image : image + 1], 1, out=gradient[image : image + 1])
            for label in range(logits.shape[1]):
                torch.eq(labels[image], label, out=g)
                p = gradient[image, label]
                torch.sub(g, p, out=p).mul_(slopes[image])
        return gradient, None


def cross_entropies(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """(B, *spatial): the cross-entropy of each voxel, from a label map or from soft labels.

    Class weights act inside the sum over soft labels; of a label map they are no part of the term.
    Either way the term times the voxel's weight (see reduction.voxel_weights) is the weighted
    cross-entropy.
    """
    if labels.is_floating_point():
        terms = cross_entropy(logits, labels, weight=weight, reduction="none")
        if weight is None:
            return terms
        weights = torch.einsum("bc...,c->b...", labels, weight)
        return terms / weights.masked_fill(weights == 0, 1)
    return -_LogProbability.apply(logits.flatten(2), labels.flatten(1)).view(labels.shape)
