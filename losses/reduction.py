"""From terms to the value of a loss, for losses with a term for each voxel."""

from __future__ import annotations

from collections.abc import Sequence

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
    weight: Sequence[float] | Tensor | None,
    reduction: str,
) -> Tensor:
    """Terms (B, *spatial) reduced, each weighted by the class weight of its voxel's label."""
    weights = valid
    if weight is not None:
        weights = torch.as_tensor(weight).to(terms)[labels]
        weights = weights if valid is None else weights * valid
    return reduced(terms, weights, valid, reduction)
