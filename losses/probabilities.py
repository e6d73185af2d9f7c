"""The softmax with an accurate gradient, and the cross-entropy of each voxel."""

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


def cross_entropies(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """(B, *spatial): the cross-entropy of each voxel, from a label map or from soft labels.

    Class weights act inside the sum over soft labels; of a label map they are no part of the term.
    Either way the term times the voxel's weight (see reduction.voxel_weights) is the weighted
    cross-entropy.
    """
    if weight is None or not labels.is_floating_point():
        return cross_entropy(logits, labels, reduction="none")
    terms = cross_entropy(logits, labels, weight=weight, reduction="none")
    weights = torch.einsum("bc...,c->b...", labels, weight)
    return terms / weights.masked_fill(weights == 0, 1)
