"""Losses that weigh an error by its distance to the boundary of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .base import NO_OPTIONS, About, SegmentationLoss, check_count, check_flag, check_number
from .counts import class_masks
from .distance_maps import distances, signed_distances
from .morphology import eroded
from .overlap import DICE_DEFAULTS, Dice
from .probabilities import cross_entropies, probabilities
from .reduction import reduced, reduced_voxels
from .sums import Sum

_FOREGROUND = (
    "left out: boundaries are those of foreground structures, as in the paper's code; a class "
    "like any other with include_background=True"
)
_MEAN = (
    "mean over the valid voxels of the batch and over classes, class-weighted if weight is given"
)


class BoundaryLoss(SegmentationLoss):
    """A loss with a term for each voxel and class, which :meth:`terms` gives.

    Reductions: ``"mean"`` is the mean over valid voxels and classes, weighted by class weight;
    ``"sum"`` the sum of weight times term; ``"none"`` gives the terms without class weights, (B,
    C, *spatial), C - 1 classes without background, 0 at ignored voxels.

    Args:
        include_background: give class 0 a boundary of its own as well.
        weight: class weights of the mean, one for each class, background first, also when
            ``include_background=False`` leaves the first one without effect.
        ignore_index: label of voxels to leave out; no distance is measured to them.
        reduction: "mean", "sum" or "none".
    """

    reductions = ("mean", "sum", "none")

    def __init__(
        self,
        *,
        include_background: bool = False,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)
        self.include_background = check_flag("include_background", include_background)

    def terms(self, p: Tensor, labels: Tensor, valid: Tensor | None, classes: range) -> Tensor:
        """(B, len(classes), *spatial): the term of each voxel and class, p its probability."""
        raise NotImplementedError

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        classes = range(0 if self.include_background else 1, logits.shape[1])
        p = probabilities(logits)[:, classes.start :]
        kept = weights = None if valid is None else valid.unsqueeze(1)
        weight = self.per_class("weight", logits)
        if weight is not None:
            weights = weight[classes.start :]
            weights = weights.view(-1, *[1] * (labels.ndim - 1))
            weights = weights if kept is None else weights * kept
        return reduced(self.terms(p, labels, valid, classes), weights, kept, self.reduction)


def indicators(labels: Tensor, classes: range) -> Tensor:
    """(B, len(classes), *spatial): 1 where a class is the label, else 0."""
    masks = class_masks(labels, classes.stop)[:, classes.start :]
    return masks.view(len(labels), len(classes), *labels.shape[1:]).byte()


class Boundary(BoundaryLoss):
    """Boundary loss: the predicted probability, weighted by the signed distance to the boundary.

    Distances are in voxels: phi is 0 at the rim of a structure (whose voxels so cost as little as
    background), 1 just outside, and below 0 deeper inside, as in the paper's code. The gradient
    flows through the prediction only, and nothing holds a thin structure: meant as a small term
    beside a region loss (dice_boundary), with a factor that the paper changes every epoch. The
    loss has no such schedule: it is the trainer's.

    Args:
        **options: those of BoundaryLoss.
    """

    name = "boundary"
    about = About(
        title="Boundary loss",
        family="boundary",
        formula=r"L = \frac{1}{N C} \sum_{i,c} \phi_c(i) \, p_{ic}",
        paper="Kervadec, H., Bouchtiba, J., Desrosiers, C., Granger, E., Dolz, J., Ben Ayed, I. "
        "(2019). Boundary loss for highly unbalanced segmentation. MIDL, PMLR 102, 285-296. "
        "arXiv:1812.07032; extended in Medical Image Analysis 67 (2021), "
        "doi:10.1016/j.media.2020.101851",
        reduction=_MEAN + "; the factor beside a region loss, which the paper changes every epoch, "
        "is the trainer's matter",
        smoothing="none",
        defaults_from="include_background False: the authors' code's, and the Loss Odyssey's",
        background=_FOREGROUND,
        absent_class="a class without a boundary in the image, absent or filling it, has distance "
        "0 everywhere, as in the paper's code: no term and no gradient, so its false positives "
        "cost nothing of their own",
        value_range="the mean of min(phi, 0) to the mean of max(phi, 0); the perfect prediction "
        "has the lowest value, which is below 0 for a structure more than 2 voxels thick",
    )

    def terms(self, p: Tensor, labels: Tensor, valid: Tensor | None, classes: range) -> Tensor:
        signed = signed_distances(labels, valid, classes)
        return (signed + (signed < 0)) * p  # phi is 0 at the rim of a class, 1 just outside


class HausdorffDT(BoundaryLoss):
    """Hausdorff distance loss by distance transforms of the reference and of the prediction.

    Distances are in voxels; a class is predicted where its probability exceeds 1/2. Distances are
    constants of the gradient, which flows through the squared error only.

    A boundary that does not exist, because a class is absent from or fills the reference or the
    prediction, is as far away as anything in the image can be: its diagonal, which is also what
    evaluations assign to the distance from an empty set. (With a distance of 0 there, as MONAI
    has it, an absent class may be predicted everywhere for nothing, and to predict nothing of a
    class costs less than one right voxel of it.)

    Args:
        alpha: exponent of the distance, > 0.
        **options: those of BoundaryLoss.
    """

    name = "hausdorff_dt"
    about = About(
        title="Hausdorff distance loss (distance transform)",
        family="boundary",
        formula=r"L = \frac{1}{N C} \sum_{i,c} (p_{ic} - g_{ic})^2"
        r" \left( d_{p_c}(i)^{\alpha} + d_{g_c}(i)^{\alpha} \right)",
        paper="Karimi, D., Salcudean, S. E. (2020). Reducing the Hausdorff distance in medical "
        "image segmentation with convolutional neural networks. IEEE Trans. Med. Imaging 39(2), "
        "499-513. doi:10.1109/TMI.2019.2930068, arXiv:1904.10030",
        reduction=_MEAN,
        smoothing="none",
        defaults_from="alpha 2: the paper's; include_background False: MONAI's",
        background=_FOREGROUND,
        absent_class="its boundary in the reference, and in the prediction while no probability "
        "exceeds 1/2, is the diagonal of the image away: errors of an absent class cost the most, "
        "and every probability of it is pushed down (a rule of ours; in MONAI the distance is 0)",
        value_range="[0, inf), in voxels to the power of alpha",
    )

    def __init__(self, *, alpha: float = 2.0, **options: Any) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, 0, above=True)

    def terms(self, p: Tensor, labels: Tensor, valid: Tensor | None, classes: range) -> Tensor:
        # A class is predicted where p > 1/2, so nowhere two: the prediction is a label map as well.
        largest, index = p.detach().max(1)
        prediction = torch.where(largest > 0.5, index + classes.start, classes.stop)
        weights = distances(labels, valid, classes).pow_(self.alpha)
        weights += distances(prediction, valid, classes, keep=False).pow_(self.alpha)
        return (p - indicators(labels, classes)).square() * weights


class HausdorffErosion(BoundaryLoss):
    """Hausdorff distance loss by erosion: an error counts by the erosions that it survives.

    An erosion takes the minimum over a voxel and its 2, 4 or 6 neighbours; what lies beyond the
    image or is ignored erodes nothing. At hard predictions this is the paper's erosion of the
    error's set. For probabilities the paper averages instead of taking the minimum and subtracts
    1/2, which leaves an error below 0.7 without any gradient (and kornia's HausdorffERLoss as well,
    where each erosion is stretched to 0 .. 1 besides).

    An error too thin to survive one erosion is free: meant beside a region loss.

    Args:
        alpha: exponent of the number of erosions, > 0.
        k: number of erosions, an integer >= 1.
        **options: those of BoundaryLoss.
    """

    name = "hausdorff_erosion"
    about = About(
        title="Hausdorff distance loss (erosion)",
        family="boundary",
        formula=r"L = \frac{1}{N C} \sum_{k=1}^{K} k^{\alpha}"
        r" \sum_{i,c} \left( (p_c - g_c)^2 \ominus_k B \right)_i",
        paper=HausdorffDT.about.paper,
        reduction=_MEAN,
        smoothing="none",
        defaults_from="alpha 2: the paper's; k 10: kornia's, and the Loss Odyssey's; "
        "include_background False: as in hausdorff_dt",
        background=_FOREGROUND,
        absent_class="counts like any other class: its false positives are errors to erode",
        value_range="[0, sum of k^alpha]; 0 also for errors that one erosion removes",
    )

    def __init__(self, *, alpha: float = 2.0, k: int = 10, **options: Any) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, 0, above=True)
        self.k = check_count("k", k, 1)

    def terms(self, p: Tensor, labels: Tensor, valid: Tensor | None, classes: range) -> Tensor:
        error = (p - indicators(labels, classes)).square()
        ignored = None if valid is None else ~valid.unsqueeze(1)
        total = torch.zeros_like(error)
        for k in range(1, self.k + 1):
            if ignored is not None:
                error = error.masked_fill(ignored, torch.inf)
            error = eroded(error)
            kept = error if ignored is None else error.masked_fill(ignored, 0)
            total = total + k**self.alpha * kept
        return total


class DistancePenalisedCrossEntropy(SegmentationLoss):
    """Cross-entropy that counts up to twice near the boundary between two labels.

    phi is 1 at a voxel that touches another label, falls linearly with the distance d (in voxels)
    to the nearest voxel of another label, and is 0 in the middle of the region (the deepest voxel
    of that label in the image). It does not depend on the prediction.

    Args:
        weight: class weights of the mean, one for each class.
        ignore_index: label of voxels to leave out; no distance is measured to them.
        reduction: "mean", "sum" (of weighted terms) or "none" (unweighted term of each voxel).
    """

    name = "distance_penalised_cross_entropy"
    about = About(
        title="Distance-penalised cross-entropy",
        family="distribution",
        formula=r"L = -\frac{1}{N} \sum_{i=1}^{N} (1 + \phi_i) \log p_{i, y_i}, \quad"
        r" \phi_i = \frac{\max_{j: y_j = y_i} d_j - d_i}{\max_{j: y_j = y_i} d_j - 1}",
        paper="Caliva, F., Iriondo, C., Martinez, A. M., Majumdar, S., Pedoia, V. (2019). Distance "
        "map loss penalty term for semantic segmentation. MIDL. arXiv:1908.03679; phi normalised "
        "as in the code of Ma, J. et al. (2021). Loss odyssey in medical image segmentation. "
        "doi:10.1016/j.media.2021.102035 (which then returns the unweighted mean)",
        reduction="mean over all valid voxels of the batch, class-weighted if weight is given; not "
        "divided by the sum of 1 + phi",
        smoothing="none",
        defaults_from=NO_OPTIONS,
        background="a class like any other",
        absent_class="no term of its own, as in cross-entropy; an image of one label has phi = 0",
        value_range="[0, inf); between cross-entropy and twice cross-entropy",
    )
    reductions = ("mean", "sum", "none")

    def __init__(
        self,
        *,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        terms = cross_entropies(logits, labels)
        terms = (1 + boundary_nearness(labels, valid, logits.shape[1])) * terms
        return reduced_voxels(
            terms, labels, valid, self.per_class("weight", logits), self.reduction
        )


def boundary_nearness(labels: Tensor, valid: Tensor | None, classes: int) -> Tensor:
    """(B, *spatial), float32: 1 beside another label, 0 deepest inside."""
    depth = (-signed_distances(labels, valid, range(classes))).clamp_min(0)
    deepest = depth.flatten(2).amax(2).unflatten(-1, (classes, *[1] * (labels.ndim - 1)))
    # A region that is all rim has phi = 1 (0 / 1 below); one without a boundary has depth 0.
    nearness = 1 - (depth - 1) / (deepest - 1).masked_fill(deepest <= 1, 1)
    nearness = nearness.masked_fill(depth == 0, 0)
    return nearness.gather(1, labels.unsqueeze(1)).squeeze(1)


class DiceBoundary(Sum, Dice):
    """Dice loss plus boundary loss of the foreground, both of the softmax.

    Args:
        lambda_dice: factor of the Dice loss, >= 0.
        lambda_boundary: factor of the boundary loss, >= 0. The paper starts at 0.01 and raises it
            every epoch. The loss has no such schedule: the trainer sets the attribute of this
            name between epochs.
        **options: those of Dice; ``weight`` acts on both terms, ``reduction`` is "mean".
    """

    name = "dice_boundary"
    about = About(
        title="Dice + boundary loss",
        family="compound",
        formula=r"L = \lambda_D L_{\mathrm{Dice}} + \lambda_B L_{\mathrm{boundary}}",
        paper=Boundary.about.paper,
        reduction="Dice: mean over classes and images; boundary: mean over voxels and foreground "
        "classes; both class-weighted if weight is given",
        smoothing="Dice: smooth_nr above and smooth_dr below the fraction line, 1e-5 each",
        defaults_from="lambda_dice 1, lambda_boundary 1: the Loss Odyssey's; " + DICE_DEFAULTS,
        background="a class like any other in Dice unless include_background=False; not in the "
        "boundary term",
        absent_class="Dice: a term near 1 with almost no gradient; boundary: no term",
        value_range="from lambda_B times the lowest boundary loss, the perfect prediction",
    )

    def __init__(
        self, *, lambda_dice: float = 1.0, lambda_boundary: float = 1.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.set_factors(lambda_dice=lambda_dice, lambda_boundary=lambda_boundary)
        self.boundary = Boundary(weight=self.weight)

    def second(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        return self.boundary.compute(logits, labels, valid)


class DiceHausdorff(Sum, Dice):
    """Dice loss plus Hausdorff distance loss (distance transform) of the foreground.

    Args:
        alpha: exponent of the distance, > 0.
        lambda_dice: factor of the Dice loss, >= 0.
        lambda_hausdorff: factor of the Hausdorff distance loss, >= 0. The paper sets it after each
            epoch so that both terms have the same mean. The loss has no such schedule: the
            trainer sets the attribute of this name.
        **options: those of Dice; ``weight`` acts on both terms, ``reduction`` is "mean".
    """

    name = "dice_hausdorff"
    about = About(
        title="Dice + Hausdorff distance loss",
        family="compound",
        formula=r"L = \lambda_D L_{\mathrm{Dice}} + \lambda_H L_{\mathrm{HD}}",
        paper=HausdorffDT.about.paper,
        reduction="Dice: mean over classes and images; Hausdorff: mean over voxels and foreground "
        "classes; both class-weighted if weight is given",
        smoothing="Dice: smooth_nr above and smooth_dr below the fraction line, 1e-5 each",
        defaults_from="lambda_dice 1, lambda_hausdorff 1: the Loss Odyssey's; alpha 2: the "
        "paper's; " + DICE_DEFAULTS,
        background="a class like any other in Dice unless include_background=False; not in the "
        "Hausdorff term",
        absent_class="Dice: a term near 1 with almost no gradient; Hausdorff: every probability of "
        "it costs its square times the diagonal of the image to the power of alpha",
        value_range="[0, inf)",
    )

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        lambda_dice: float = 1.0,
        lambda_hausdorff: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.set_factors(lambda_dice=lambda_dice, lambda_hausdorff=lambda_hausdorff)
        self.hausdorff = HausdorffDT(alpha=alpha, weight=self.weight)

    def second(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        return self.hausdorff.compute(logits, labels, valid)
