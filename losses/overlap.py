"""Dice, Jaccard, Tversky and focal Tversky: each a short formula over soft counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .base import About, SegmentationLoss, check_flag, check_number, weighted_mean
from .counts import SoftCounts, soft_counts


class OverlapLoss(SegmentationLoss):
    """A loss with a term for each image and class, computed from soft counts.

    Reductions: ``"mean"`` is the mean over classes and images, weighted by class weight (over
    classes of the pooled batch with ``batch=True``); an image whose voxels are all ignored does
    not take part. ``"none"`` gives the terms without class weights: (B, C), or (1, C) with
    ``batch=True``, C - 1 classes without background, 0 for an image that is wholly ignored.

    Args:
        include_background: average over class 0 as well.
        batch: pool the batch before the ratio instead of averaging over images.
        smooth_nr: added to the numerator, >= 0.
        smooth_dr: added to the denominator, >= 0.
        weight: class weights of the mean, one for each class, background first, also when
            ``include_background=False`` leaves the first one without effect.
        ignore_index: label of voxels to leave out.
        reduction: "mean" or "none".
    """

    reductions = ("mean", "none")
    squared = False

    def __init__(
        self,
        *,
        include_background: bool = True,
        batch: bool = False,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)
        self.include_background = check_flag("include_background", include_background)
        self.batch = check_flag("batch", batch)
        self.smooth_nr = check_number("smooth_nr", smooth_nr, 0)
        self.smooth_dr = check_number("smooth_dr", smooth_dr, 0)

    def terms(self, counts: SoftCounts) -> Tensor:
        """(B, C): the term of each image and class."""
        raise NotImplementedError

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        counts = soft_counts(logits, labels, valid, squared=self.squared)
        if self.batch:
            counts = counts.pooled()
        counted = counts.counted.expand_as(counts.overlap)
        weights = counted if self.weight is None else counted * self.weight
        terms = self.terms(counts)
        if not self.include_background:
            terms, counted, weights = terms[:, 1:], counted[:, 1:], weights[:, 1:]
        if self.reduction == "none":
            return terms * counted
        return weighted_mean(terms, weights)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator; 0 / 0 (only without smoothing) is 1: nothing to find, none found."""
    empty = denominator == 0
    return torch.where(empty, 1.0, numerator / denominator.masked_fill(empty, 1))


_ABSENT = (
    "counts like any other class: the term is near 1 unless its predicted volume falls below the "
    "smoothing; until then its gradient is almost 0, because nothing can overlap"
)
_SMOOTHING = "smooth_nr above and smooth_dr below the fraction line, 1e-5 each"
_BACKGROUND = "class 0 counts like the others; left out with include_background=False"
_REDUCTION = (
    "mean over classes and images (batch=True: over classes of the pooled batch), class-weighted "
    "if weight is given"
)


class Dice(OverlapLoss):
    """Soft Dice loss of the softmax, for each image and class.

    Args:
        squared_pred: sums of p^2 and g^2 in the denominator (Milletari) instead of p and g.
        **options: those of OverlapLoss.
    """

    name = "dice"
    about = About(
        title="Dice loss",
        family="region",
        formula=r"L = 1 - \frac{1}{C} \sum_{c=1}^{C}"
        r" \frac{2 \sum_i p_{ic} g_{ic}}{\sum_i p_{ic} + \sum_i g_{ic}}",
        paper="Milletari, F., Navab, N., Ahmadi, S.-A. (2016). V-Net: fully convolutional neural "
        "networks for volumetric medical image segmentation. 3DV. doi:10.1109/3DV.2016.79, "
        "arXiv:1606.04797 (squared); Drozdzal, M. et al. (2016). The importance of skip "
        "connections in biomedical image segmentation. doi:10.1007/978-3-319-46976-8_19, "
        "arXiv:1608.04117 (linear, the default)",
        reduction=_REDUCTION,
        smoothing=_SMOOTHING,
        background=_BACKGROUND,
        absent_class=_ABSENT,
        value_range="[0, 1)",
    )

    def __init__(
        self,
        *,
        squared_pred: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.squared = check_flag("squared_pred", squared_pred)

    def terms(self, counts: SoftCounts) -> Tensor:
        total = counts.predicted + counts.reference
        return 1 - ratio(2 * counts.overlap + self.smooth_nr, total + self.smooth_dr)


class Jaccard(OverlapLoss):
    """Soft Jaccard (intersection over union) loss of the softmax, for each image and class.

    Args:
        **options: those of OverlapLoss.
    """

    name = "jaccard"
    about = About(
        title="Jaccard (IoU) loss",
        family="region",
        formula=r"L = 1 - \frac{1}{C} \sum_{c=1}^{C} \frac{\sum_i p_{ic} g_{ic}}"
        r"{\sum_i p_{ic} + \sum_i g_{ic} - \sum_i p_{ic} g_{ic}}",
        paper="Rahman, M. A., Wang, Y. (2016). Optimizing intersection-over-union in deep neural "
        "networks for image segmentation. ISVC. doi:10.1007/978-3-319-50835-1_22",
        reduction=_REDUCTION,
        smoothing=_SMOOTHING,
        background=_BACKGROUND,
        absent_class=_ABSENT,
        value_range="[0, 1)",
    )

    def terms(self, counts: SoftCounts) -> Tensor:
        union = counts.predicted + counts.reference - counts.overlap
        return 1 - ratio(counts.overlap + self.smooth_nr, union + self.smooth_dr)


class Tversky(OverlapLoss):
    """Tversky loss of the softmax: Dice with separate costs of false positives and negatives.

    Args:
        alpha: cost of false positives, >= 0.
        beta: cost of false negatives, >= 0. With alpha = beta = 1/2 this is Dice, with 1 Jaccard.
        **options: those of OverlapLoss.
    """

    name = "tversky"
    about = About(
        title="Tversky loss",
        family="region",
        formula=r"L = 1 - \frac{1}{C} \sum_{c=1}^{C}"
        r" \frac{TP_c}{TP_c + \alpha FP_c + \beta FN_c}",
        paper="Salehi, S. S. M., Erdogmus, D., Gholipour, A. (2017). Tversky loss function for "
        "image segmentation using 3D fully convolutional deep networks. MLMI. "
        "doi:10.1007/978-3-319-67389-9_44, arXiv:1706.05721",
        reduction=_REDUCTION,
        smoothing=_SMOOTHING,
        background=_BACKGROUND,
        absent_class=_ABSENT,
        value_range="[0, 1)",
    )

    def __init__(
        self,
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, 0)
        self.beta = check_number("beta", beta, 0)

    def terms(self, counts: SoftCounts) -> Tensor:
        errors = self.alpha * counts.false_positive + self.beta * counts.false_negative
        total = counts.overlap + errors
        return 1 - ratio(counts.overlap + self.smooth_nr, total + self.smooth_dr)


class FocalTversky(Tversky):
    """Focal Tversky loss: the Tversky term of each class raised to 1 / gamma.

    Args:
        gamma: focal parameter, >= 1; the exponent is 1 / gamma, so that classes that are already
            good keep a gradient.
        **options: those of Tversky.
    """

    name = "focal_tversky"
    about = About(
        title="Focal Tversky loss",
        family="region",
        formula=r"L = \frac{1}{C} \sum_{c=1}^{C} \left( 1 -"
        r" \frac{TP_c}{TP_c + \alpha FP_c + \beta FN_c} \right)^{1 / \gamma}",
        paper="Abraham, N., Khan, N. M. (2019). A novel focal Tversky loss function with improved "
        "attention U-Net for lesion segmentation. ISBI. doi:10.1109/ISBI.2019.8759329, "
        "arXiv:1810.07842",
        reduction=_REDUCTION,
        smoothing=_SMOOTHING,
        background=_BACKGROUND,
        absent_class=_ABSENT,
        value_range="[0, 1)",
    )

    def __init__(
        self,
        *,
        gamma: float = 4 / 3,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.gamma = check_number("gamma", gamma, 1)

    def terms(self, counts: SoftCounts) -> Tensor:
        # The root has an infinite slope at 0: below rounding the term is 0, and so is its gradient.
        tversky = super().terms(counts)
        rounding = torch.finfo(tversky.dtype).eps
        root = tversky.clamp_min(rounding).pow(1 / self.gamma)
        return torch.where(tversky > rounding, root, 0.0)
