"""Generalized Dice and what it does with a class that is absent from the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import (
    About,
    SegmentationLoss,
    check_choice,
    check_flag,
    check_number,
    check_vector,
    weighted_mean,
)
from .counts import soft_confusion, soft_counts

_ABSENT = ("max", "zero", "eps", "relative", "floor", "cap", "skip")


class GeneralizedDice(SegmentationLoss):
    """Generalized Dice loss: one ratio over all classes, each weighted by its inverse volume.

    Args:
        weighting: weight of a class of V voxels: "square" 1/V^2, "simple" 1/V, "uniform" 1.
        volumes: volume of each class in the training set, background first, in any unit. Then V is
            that share of the image's voxels, the same for every image; ``absent`` concerns only a
            class whose volume is given as 0.
        absent: what happens to a class with V = 0. "max": the largest weight of a present class of
            the same image (MONAI's rule). "zero": no weight at all. "eps": the fixed weight
            ``eps``. "relative": ``eps`` times the largest weight of a present class. "floor": every
            V, also of present classes, is raised to ``floor``. "cap": V counts as 1, then every
            weight is lowered to ``cap`` times the smallest weight of a present class. "skip": an
            image without every class does not take part. Soft labels have every class of which
            they hold a trace, and 1/V^2 makes the trace outweigh the rest: "floor" bounds it.
        eps: see ``absent``, >= 0.
        floor: see ``absent``, in voxels, >= 1.
        cap: see ``absent``, >= 1.
        batch: pool the batch, volumes included, instead of averaging over images.
        include_background: let class 0 take part.
        smooth_nr: added to the numerator, >= 0, in voxels of the class with the largest weight:
            the weights are divided by the largest first. (Unscaled, as in MONAI, it meets sums of
            order 1/V, so that its effect grows with the volume of the image.)
        smooth_dr: added to the denominator, >= 0, in the same unit.
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
        smoothing="smooth_nr above and smooth_dr below the fraction line, 1e-5 voxels of the "
        "class with the largest weight each",
        defaults_from="weighting square, volumes None: the paper's, and MONAI's; absent max: "
        "MONAI's; eps 1e-6: the answer of document 004; floor 100, cap 100: ours; smooth_nr "
        "1e-5, smooth_dr 1e-5: MONAI's numbers, in a unit of ours",
        background="class 0 takes part; left out with include_background=False",
        absent_class="set by absent: 'max' gives it the weight of the rarest class present, "
        "'zero' removes it from value and gradient, 'eps' gives it the fixed weight eps, "
        "'relative' eps times that of the rarest, 'floor' that of a class of floor voxels, 'cap' "
        "at most cap times that of the largest, 'skip' leaves the image out; if no weight is left, "
        "value and gradient are 0",
        value_range="[0, 1)",
    )
    reductions: ClassVar[tuple[str, ...]] = ("mean", "none")
    soft_labels = True

    def __init__(
        self,
        *,
        weighting: str = "square",
        volumes: Sequence[float] | None = None,
        absent: str = "max",
        eps: float = 1e-6,
        floor: float = 100.0,
        cap: float = 100.0,
        batch: bool = False,
        include_background: bool = True,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(ignore_index=ignore_index, reduction=reduction)
        self.weighting = check_choice("weighting", weighting, ("square", "simple", "uniform"))
        self.absent = check_choice("absent", absent, _ABSENT)
        self.volumes = None if volumes is None else check_vector("volumes", volumes)
        self.eps = check_number("eps", eps, 0)
        self.floor = check_number("floor", floor, 1)
        self.cap = check_number("cap", cap, 1)
        self.batch = check_flag("batch", batch)
        self.include_background = check_flag("include_background", include_background)
        self.smooth_nr = check_number("smooth_nr", smooth_nr, 0)
        self.smooth_dr = check_number("smooth_dr", smooth_dr, 0)

    def class_weights(self, volumes: Tensor) -> Tensor:
        """Weights (B, C) of classes with these volumes in voxels, the absent ones by ``absent``."""
        present = volumes > 0
        if self.absent == "floor":
            present, volumes = torch.ones_like(present), volumes.clamp_min(self.floor)
        # A soft label can have a volume so small that the inverse of its square is infinite.
        smallest = torch.finfo(volumes.dtype).tiny ** 0.5
        known = torch.where(present, volumes, 1).clamp_min(smallest)
        weights = {"square": known**-2, "simple": 1 / known, "uniform": torch.ones_like(known)}[
            self.weighting
        ]
        if self.absent == "cap":
            lowest = weights.masked_fill(~present, torch.inf).amin(1, keepdim=True)
            return torch.minimum(weights, self.cap * lowest)
        weights = weights * present
        if self.absent == "eps":
            return torch.where(present, weights, self.eps)
        share = {"max": 1, "relative": self.eps}.get(self.absent, 0)
        return torch.where(present, weights, share * weights.amax(1, keepdim=True))

    def weighing_volumes(self, reference: Tensor) -> Tensor:
        """(B, C): V of each class, in voxels of its image, from those of the reference."""
        given = self.per_class("volumes", reference)
        if given is None:
            return reference
        return given / given.sum() * reference.sum(1, keepdim=True)

    def image_losses(self, overlap: Tensor, total: Tensor, weights: Tensor) -> Tensor:
        """(B,): the loss of each image; the arguments (B, C) are sums of p g, p + g and w."""
        numerator = 2 * (weights * overlap).sum(1) + self.smooth_nr
        denominator = (weights * total).sum(1) + self.smooth_dr
        empty = denominator == 0  # only without smoothing: nothing to find, so nothing is lost
        return 1 - torch.where(empty, 1.0, numerator / denominator.masked_fill(empty, 1))

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        counts = soft_counts(logits, labels, valid)
        if self.batch:
            counts = counts.pooled()
        first = 0 if self.include_background else 1
        volumes = self.weighing_volumes(counts.reference)[:, first:]
        overlap, predicted, reference = (count[:, first:] for count in counts)
        counted = counts.counted[:, 0]
        if self.absent == "skip":
            counted = counted & (volumes > 0).all(1)
        weights = self.class_weights(volumes)
        largest = weights.amax(1, keepdim=True)
        weights = weights / largest.masked_fill(largest == 0, 1)
        loss = self.image_losses(overlap, predicted + reference, weights)
        return loss * counted if self.reduction == "none" else weighted_mean(loss, counted)


class PenaltyGeneralizedDice(GeneralizedDice):
    """Generalized Dice loss L of each image, made smaller the better it is: L / (1 + k (1 - L)).

    Near L = 1 the slope is 1 + k, near L = 0 it is 1 / (1 + k).

    Args:
        k: strength of the penalty, >= 0; 0 is Generalized Dice.
        **options: those of GeneralizedDice.
    """

    name = "penalty_generalized_dice"
    about = About(
        title="Penalty Generalized Dice loss",
        family="region",
        formula=r"L = \frac{L_{\mathrm{GDL}}}{1 + k \, (1 - L_{\mathrm{GDL}})}",
        paper="Yang, S., Kweon, J., Kim, Y.-H. (2019). Major vessel segmentation on X-ray coronary "
        "angiography using deep networks with a novel penalty loss function. MIDL, "
        "extended abstract; in this form in Ma, J. et al. (2021). Loss odyssey in medical image "
        "segmentation. doi:10.1016/j.media.2021.102035 (whose code puts -GD where 1 - GD belongs)",
        reduction=GeneralizedDice.about.reduction,
        smoothing=GeneralizedDice.about.smoothing,
        defaults_from="k 2.5: the paper's, and the Loss Odyssey's; "
        + GeneralizedDice.about.defaults_from,
        background=GeneralizedDice.about.background,
        absent_class=GeneralizedDice.about.absent_class,
        value_range="[0, 1)",
    )

    def __init__(self, *, k: float = 2.5, **options: Any) -> None:
        super().__init__(**options)
        self.k = check_number("k", k, 0)

    def image_losses(self, overlap: Tensor, total: Tensor, weights: Tensor) -> Tensor:
        loss = super().image_losses(overlap, total, weights)
        return loss / (1 + self.k * (1 - loss))


class GeneralizedWassersteinDice(SegmentationLoss):
    """Generalised Wasserstein Dice loss: an error costs the distance between the two classes.

    W of a voxel is the mean distance from its label to the predicted classes. Foreground voxels
    earn M_y0 - W, their distance to the background less what was wrong, and every voxel costs W.
    With two classes this is the Dice loss of the foreground.

    Args:
        dist_matrix: distances between classes, C x C, symmetric, >= 0, with 0 on the diagonal, the
            background first; divided by the largest. Required.
        batch: pool the batch before the ratio instead of averaging over images.
        smooth_nr: added to the numerator, >= 0.
        smooth_dr: added to the denominator, >= 0.
        ignore_index: label of voxels to leave out.
        reduction: "mean" over images with a valid voxel, or "none": (B,), with ``batch`` (1,),
            0 for an image that is wholly ignored.
    """

    name = "generalized_wasserstein_dice"
    about = About(
        title="Generalised Wasserstein Dice loss",
        family="region",
        formula=r"L = 1 - \frac{2 \sum_i M_{y_i 0} (M_{y_i 0} - W_i)}"
        r"{2 \sum_i M_{y_i 0} (M_{y_i 0} - W_i) + \sum_i W_i}, \quad"
        r" W_i = \sum_c M_{y_i c} \, p_{ic}",
        paper="Fidon, L. et al. (2018). Generalised Wasserstein Dice score for imbalanced "
        "multi-class segmentation using holistic convolutional networks. BrainLes 2017. "
        "doi:10.1007/978-3-319-75238-9_6, arXiv:1707.00478 (a foreground voxel earns M_y0 - W, "
        "its eq. 9; the weight M_y0 as in NiftyNet. MONAI and the authors' PyTorch code put 1 for "
        "both, the same where every class is at distance 1 from the background)",
        reduction="mean over images; one value of the pooled batch with batch=True",
        smoothing="smooth_nr above and smooth_dr below the fraction line, 1e-5 each",
        defaults_from="dist_matrix required: the task's; smooth_nr 1e-5, smooth_dr 1e-5: MONAI's",
        background="its voxels earn nothing when they are right and cost W when they are wrong",
        absent_class="no term of its own; its probability costs its distance to the label of "
        "each voxel",
        value_range="[0, 1] if no two classes are further apart than each is from the background",
    )
    reductions = ("mean", "none")

    def __init__(
        self,
        *,
        dist_matrix: Sequence[Sequence[float]] | Tensor,
        batch: bool = False,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(ignore_index=ignore_index, reduction=reduction)
        self.dist_matrix = check_distances(dist_matrix)
        self.batch = check_flag("batch", batch)
        self.smooth_nr = check_number("smooth_nr", smooth_nr, 0)
        self.smooth_dr = check_number("smooth_dr", smooth_dr, 0)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        if len(self.dist_matrix) != logits.shape[1]:
            raise ValueError(
                f"dist_matrix has {len(self.dist_matrix)} classes, "
                f"but logits have {logits.shape[1]} classes"
            )
        confusion = soft_confusion(logits, labels, valid)
        if self.batch:
            confusion = confusion.sum(0, keepdim=True)
        matrix = logits.new_tensor(self.dist_matrix)
        depth = matrix[:, 0]  # distance of each label to the background
        wrong = (confusion * matrix).sum(2)  # sums of W over the voxels of each label
        volumes = confusion.detach().sum(2)  # of the labels: no prediction changes them
        right = (volumes * depth - wrong) @ depth
        cost = wrong.sum(1)
        counted = volumes.sum(1) > 0
        denominator = 2 * right + cost + self.smooth_dr
        empty = denominator == 0  # only without smoothing: nothing to find and nothing found
        dice = (2 * right + self.smooth_nr) / denominator.masked_fill(empty, 1)
        loss = 1 - torch.where(empty, 1.0, dice)
        return loss * counted if self.reduction == "none" else weighted_mean(loss, counted)


def check_distances(matrix: Sequence[Sequence[float]] | Tensor) -> tuple[tuple[float, ...], ...]:
    """A matrix of distances between classes, the largest 1, or an error that says what is wrong."""
    wanted = "dist_matrix must be a C x C list of numbers"
    if matrix is None:
        raise TypeError(f"{wanted}, one row for each class, got None")
    try:
        found = torch.as_tensor(matrix, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{wanted}, got {matrix!r}") from error
    if found.ndim != 2 or found.shape[0] != found.shape[1] or len(found) < 2:
        raise ValueError(f"{wanted}, got shape {tuple(found.shape)}")
    if not bool(torch.isfinite(found).all()) or bool((found < 0).any()) or not bool(found.any()):
        raise ValueError(f"dist_matrix must be finite and >= 0, not all 0, got {matrix!r}")
    if bool(found.diagonal().any()) or not torch.equal(found, found.T):
        raise ValueError(f"dist_matrix must be symmetric with 0 on the diagonal, got {matrix!r}")
    return tuple(tuple(row) for row in (found / found.max()).tolist())
