"""Generalized Dice and what it does with a class that is absent from the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import About, SegmentationLoss, check_choice, check_flag, check_number, weighted_mean
from .counts import soft_counts


class GeneralizedDice(SegmentationLoss):
    """Generalized Dice loss: one ratio over all classes, each weighted by its inverse volume.

    Args:
        weighting: weight of a class of V voxels: "square" 1/V^2, "simple" 1/V, "uniform" 1.
        absent: weight of a class with V = 0: "max" the largest weight of a present class of the
            same image (MONAI's rule), "zero" none at all, "eps" the fixed number ``eps``.
        eps: weight of an absent class under absent="eps", >= 0.
        batch: pool the batch, volumes included, instead of averaging over images.
        include_background: let class 0 take part.
        smooth_nr: added to the numerator, >= 0. It meets sums of order 1/V, so its effect grows
            with the volume of the rarest class present.
        smooth_dr: added to the denominator, >= 0.
        ignore_index: label of voxels to leave out.
        reduction: "mean" over images with a valid voxel, or "none": (B,), with ``batch`` (1,),
            0 for an image that is wholly ignored.
    """

    name = "generalized_dice"
    about = About(
        title="Generalized Dice loss",
        family="region",
        formula=r"L = 1 - \frac{2 \sum_c w_c \sum_i p_{ic} g_{ic}}"
        r"{\sum_c w_c \sum_i (p_{ic} + g_{ic})}, \quad w_c = \frac{1}{V_c^2}",
        paper="Sudre, C. H., Li, W., Vercauteren, T., Ourselin, S., Cardoso, M. J. (2017). "
        "Generalised Dice overlap as a deep learning loss function for highly unbalanced "
        "segmentations. DLMIA. doi:10.1007/978-3-319-67558-9_28, arXiv:1707.03237",
        reduction="mean over images; one value of the pooled batch with batch=True",
        smoothing="smooth_nr above and smooth_dr below the fraction line, 1e-5 each, not scaled "
        "with the weights",
        background="class 0 takes part; left out with include_background=False",
        absent_class="set by absent: 'max' gives it the weight of the rarest class present, "
        "'zero' removes it from value and gradient, 'eps' gives it the fixed weight eps; if no "
        "class is left, value and gradient are 0",
        value_range="[0, 1)",
    )
    reductions = ("mean", "none")

    def __init__(
        self,
        *,
        weighting: str = "square",
        absent: str = "max",
        eps: float = 1e-6,
        batch: bool = False,
        include_background: bool = True,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(ignore_index=ignore_index, reduction=reduction)
        self.weighting = check_choice("weighting", weighting, ("square", "simple", "uniform"))
        self.absent = check_choice("absent", absent, ("max", "zero", "eps"))
        self.eps = check_number("eps", eps, 0)
        self.batch = check_flag("batch", batch)
        self.include_background = check_flag("include_background", include_background)
        self.smooth_nr = check_number("smooth_nr", smooth_nr, 0)
        self.smooth_dr = check_number("smooth_dr", smooth_dr, 0)

    def class_weights(self, volumes: Tensor) -> Tensor:
        """Weights (B, C) of classes with these volumes in voxels, the absent ones by ``absent``."""
        present = volumes > 0
        known = volumes.clamp_min(1)
        weights = {"square": known**-2, "simple": 1 / known, "uniform": torch.ones_like(known)}[
            self.weighting
        ] * present
        if self.absent == "zero":
            return weights
        if self.absent == "eps":
            return torch.where(present, weights, self.eps)
        return torch.where(present, weights, weights.amax(1, keepdim=True))

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        counts = soft_counts(logits, labels, valid)
        if self.batch:
            counts = counts.pooled()
        first = 0 if self.include_background else 1
        overlap, predicted, reference = (count[:, first:] for count in counts)
        weights = self.class_weights(reference)
        numerator = 2 * (weights * overlap).sum(1) + self.smooth_nr
        denominator = (weights * (predicted + reference)).sum(1) + self.smooth_dr
        empty = denominator == 0  # only without smoothing: nothing to find, so nothing is lost
        loss = 1 - torch.where(empty, 1.0, numerator / denominator.masked_fill(empty, 1))
        counted = counts.counted[:, 0]
        return loss * counted if self.reduction == "none" else weighted_mean(loss, counted)
