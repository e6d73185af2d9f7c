"""From terms to the value of a loss, for losses with a term for each voxel."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import weighted_mean


def reduced(terms: Tensor, weights: Tensor | None, kept: Tensor | None, reduction: str) -> Tensor:
    """The weighted "mean" or "sum" of terms, or ("none") the terms, 0 where they are not kept.

    Args:
        terms: a term for each voxel, or each voxel and class.
        weights: broadcast against the terms, 0 where they are not kept; None if all are 1.
        kept: bool, broadcast against the terms; None if all are kept.
        reduction: "mean", "sum" or "none".
    """
    if reduction == "none":
        return terms if kept is None else terms * kept
    if reduction == "sum":
        return (terms if weights is None else terms * weights).sum()
    return weighted_mean(terms, weights)


def reduced_voxels(
    terms: Tensor,
    labels: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    reduction: str = "mean",
) -> Tensor:
    """Terms (B, *spatial) reduced, each weighted by the class weight of its voxel's label."""
    return reduced(terms, voxel_weights(labels, valid, weight), valid, reduction)


def voxel_weights(labels: Tensor, valid: Tensor | None, weight: Tensor | None) -> Tensor | None:
    """Weight of each voxel: that of its label, 0 where ignored; None if all are 1.

    With soft labels it is the mean weight of the label.
    """
    if weight is None:
        return valid
    if labels.is_floating_point():
        return torch.einsum("bc...,c->b...", labels, weight)
    return weight[labels] if valid is None else weight[labels] * valid
