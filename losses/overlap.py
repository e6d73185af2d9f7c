"""Dice, Jaccard, Tversky and their kin: each a short formula over soft counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import About, SegmentationLoss, check_flag, check_number, weighted_mean
from .counts import SoftCounts, soft_confusion, soft_counts


class RegionLoss(SegmentationLoss):
    """A loss with a term for each image and class.

    Reductions: ``"mean"`` is the mean over classes and images, weighted by class weight (over
    classes of the pooled batch with ``batch=True``); an image whose voxels are all ignored does
    not take part. ``"none"`` gives the terms without class weights: (B, C), or (1, C) with
    ``batch=True``, C - 1 classes without background, 0 for an image that is wholly ignored.

    Args:
        include_background: average over class 0 as well.
        batch: pool the batch before the ratio instead of averaging over images.
        weight: class weights of the mean, one for each class, background first, also when
            ``include_background=False`` leaves the first one without effect.
        ignore_index: label of voxels to leave out.
        reduction: "mean" or "none".
    """

    reductions: ClassVar[tuple[str, ...]] = ("mean", "none")

    def __init__(
        self,
        *,
        include_background: bool = True,
        batch: bool = False,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)
        self.include_background = check_flag("include_background", include_background)
        self.batch = check_flag("batch", batch)

    def reduce(self, terms: Tensor, counted: Tensor) -> Tensor:
        """Terms (B, C), or (1, C) of the pooled batch, reduced as ``reduction`` says.

        ``counted`` (B, 1) is False for images without a valid voxel.
        """
        counted = counted.expand_as(terms)
        weight = self.per_class("weight", terms)
        weights = counted if weight is None else counted * weight
        if not self.include_background:
            terms, counted, weights = terms[:, 1:], counted[:, 1:], weights[:, 1:]
        if self.reduction == "none":
            return terms * counted
        return weighted_mean(terms, weights)


class CountLoss(RegionLoss):
    """A region loss whose terms follow from soft counts.

    Args:
        **options: those of RegionLoss.
    """

    squared = False
    soft_labels = True

    def terms(self, counts: SoftCounts) -> Tensor:
        """(B, C): the term of each image and class."""
        raise NotImplementedError

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        counts = soft_counts(logits, labels, valid, squared=self.squared)
        if self.batch:
            counts = counts.pooled()
        return self.reduce(self.terms(counts), counts.counted)


class OverlapLoss(CountLoss):
    """One minus a smoothed ratio of soft counts, for each image and class.

    Args:
        smooth_nr: added to the numerator, >= 0.
        smooth_dr: added to the denominator, >= 0.
        **options: those of RegionLoss.
    """

    def __init__(self, *, smooth_nr: float = 1e-5, smooth_dr: float = 1e-5, **options: Any) -> None:
        super().__init__(**options)
        self.smooth_nr = check_number("smooth_nr", smooth_nr, 0)
        self.smooth_dr = check_number("smooth_dr", smooth_dr, 0)

    def tversky(self, counts: SoftCounts, alpha: float, beta: float) -> Tensor:
        """(B, C): one minus the Tversky index, alpha for false positives, beta for negatives."""
        errors = alpha * counts.false_positive + beta * counts.false_negative
        total = counts.overlap + errors
        return 1 - ratio(counts.overlap + self.smooth_nr, total + self.smooth_dr)


def power(values: Tensor, exponent: float) -> Tensor:
    """values ** exponent for values >= 0 and an exponent below 1.

    The power has an infinite slope at 0: below rounding it is 0, and so is its gradient.
    """
    rounding = torch.finfo(values.dtype).eps
    return torch.where(values > rounding, values.clamp_min(rounding).pow(exponent), 0.0)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator; 0 / 0 (only without smoothing) is 1: nothing to find, none found."""
    empty = denominator == 0
    return torch.where(empty, 1.0, numerator / denominator.masked_fill(empty, 1))


# What the cards of region losses have in common.
ABSENT = (
    "counts like any other class: the term is near 1 unless its predicted volume falls below the "
    "smoothing; until then its gradient is almost 0, because nothing can overlap"
)
SMOOTHING = "smooth_nr above and smooth_dr below the fraction line, 1e-5 each"
DEFAULTS = "smooth_nr 1e-5, smooth_dr 1e-5: MONAI's, for Dice and its kin"
DICE_DEFAULTS = "squared_pred False: MONAI's; " + DEFAULTS
BACKGROUND = "class 0 counts like the others; left out with include_background=False"
REDUCTION = (
    "mean over classes and images (batch=True: over classes of the pooled batch), class-weighted "
    'if weight is given; reduction="none" gives the terms without weights'
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
        reduction=REDUCTION,
        smoothing=SMOOTHING,
        defaults_from=DICE_DEFAULTS,
        background=BACKGROUND,
        absent_class=ABSENT,
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

    def score(self, counts: SoftCounts) -> Tensor:
        """(B, C): the soft Dice coefficient D."""
        total = counts.predicted + counts.reference
        return ratio(2 * counts.overlap + self.smooth_nr, total + self.smooth_dr)

    def terms(self, counts: SoftCounts) -> Tensor:
        return 1 - self.score(counts)


class LogDice(Dice):
    """Logarithm of the Dice coefficient: a class that is missed has a steep gradient.

    Args:
        **options: those of Dice.
    """

    name = "log_dice"
    about = About(
        title="Logarithmic Dice loss",
        family="region",
        formula=r"L = -\frac{1}{C} \sum_{c=1}^{C} \log D_c, \quad"
        r" D_c = \frac{2 \sum_i p_{ic} g_{ic}}{\sum_i p_{ic} + \sum_i g_{ic}}",
        paper="Wong, K. C. L., Moradi, M., Tang, H., Syeda-Mahmood, T. (2018). 3D segmentation "
        "with exponential logarithmic loss for highly unbalanced object sizes. MICCAI. "
        "doi:10.1007/978-3-030-00931-1_70, arXiv:1809.00076 (its Dice term with exponent 1)",
        reduction=REDUCTION,
        smoothing=SMOOTHING,
        defaults_from=DICE_DEFAULTS,
        background=BACKGROUND,
        absent_class="the smoothed D is smooth_nr / (sum p + smooth_dr), so the term is the "
        "logarithm of the predicted volume over the smoothing: unlike in Dice its gradient, "
        "1 / sum p, does not vanish and pushes the class down",
        value_range="[0, inf)",
    )

    def terms(self, counts: SoftCounts) -> Tensor:
        score = self.score(counts)
        return -score.clamp_min(torch.finfo(score.dtype).tiny).log()


class LogCoshDice(Dice):
    """Logarithm of the hyperbolic cosine of the Dice loss of each image and class.

    Args:
        **options: those of Dice.
    """

    name = "log_cosh_dice"
    about = About(
        title="Log-cosh Dice loss",
        family="region",
        formula=r"L = \frac{1}{C} \sum_{c=1}^{C} \log \cosh (1 - D_c), \quad"
        r" D_c = \frac{2 \sum_i p_{ic} g_{ic}}{\sum_i p_{ic} + \sum_i g_{ic}}",
        paper="Jadon, S. (2020). A survey of loss functions for semantic segmentation. CIBCB. "
        "doi:10.1109/CIBCB48159.2020.9277638, arXiv:2006.14822",
        reduction=REDUCTION,
        smoothing=SMOOTHING,
        defaults_from=DICE_DEFAULTS,
        background=BACKGROUND,
        absent_class=ABSENT.replace("near 1", "near log cosh 1 = 0.43"),
        value_range="[0, log cosh 1) = [0, 0.434)",
    )

    def terms(self, counts: SoftCounts) -> Tensor:
        half = super().terms(counts) / 2
        return torch.log1p(2 * half.sinh().square())  # log cosh x without cancellation near 0


class FocalDice(Dice):
    """Focal Dice loss: the Dice coefficient of each class raised to 1 / beta.

    Args:
        beta: focal parameter, >= 1; with 1 this is Dice. The larger, the more of the gradient goes
            to classes with a low Dice coefficient. The default is ours.
        **options: those of Dice.
    """

    name = "focal_dice"
    about = About(
        title="Focal Dice loss",
        family="region",
        formula=r"L = \frac{1}{C} \sum_{c=1}^{C} \left( 1 - D_c^{1 / \beta} \right), \quad"
        r" D_c = \frac{2 \sum_i p_{ic} g_{ic}}{\sum_i p_{ic} + \sum_i g_{ic}}",
        paper="Wang, P., Chung, A. C. S. (2018). Focal Dice loss and image dilation for brain "
        "tumor segmentation. DLMIA. doi:10.1007/978-3-030-00889-5_14",
        reduction=REDUCTION,
        smoothing=SMOOTHING,
        defaults_from="beta 2: ours (the paper asks for 1 or more); " + DICE_DEFAULTS,
        background=BACKGROUND,
        absent_class="counts like any other class: the term is 1 - (smooth_nr / sum p)^(1 / beta), "
        "with a gradient that grows only as its predicted volume falls to the smoothing",
        value_range="[0, 1)",
    )

    def __init__(self, *, beta: float = 2.0, **options: Any) -> None:
        super().__init__(**options)
        self.beta = check_number("beta", beta, 1)

    def terms(self, counts: SoftCounts) -> Tensor:
        score = self.score(counts)
        return 1 - score.clamp_min(torch.finfo(score.dtype).tiny).pow(1 / self.beta)


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
        reduction=REDUCTION,
        smoothing=SMOOTHING,
        defaults_from=DEFAULTS,
        background=BACKGROUND,
        absent_class=ABSENT,
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
        reduction=REDUCTION,
        smoothing=SMOOTHING,
        defaults_from="alpha 0.3, beta 0.7: the paper's best, and the Loss Odyssey's (MONAI has "
        "0.5 for both); " + DEFAULTS,
        background=BACKGROUND,
        absent_class=ABSENT,
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
        return self.tversky(counts, self.alpha, self.beta)


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
        reduction=REDUCTION,
        smoothing=SMOOTHING,
        defaults_from="gamma 4/3, alpha 0.3, beta 0.7: the paper's, and the Loss Odyssey's; "
        + DEFAULTS,
        background=BACKGROUND,
        absent_class=ABSENT,
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
        return power(super().terms(counts), 1 / self.gamma)


class AsymmetricSimilarity(OverlapLoss):
    """Asymmetric similarity loss: one minus the F-beta score, which weighs recall beta times.

    This is Tversky with alpha = 1 / (1 + beta^2) and beta^2 / (1 + beta^2).

    Args:
        beta: weight of recall against precision, >= 0; with 1 this is Dice.
        **options: those of OverlapLoss.
    """

    name = "asymmetric_similarity"
    about = About(
        title="Asymmetric similarity loss (F-beta)",
        family="region",
        formula=r"L = 1 - \frac{1}{C} \sum_{c=1}^{C}"
        r" \frac{(1 + \beta^2) TP_c}{(1 + \beta^2) TP_c + \beta^2 FN_c + FP_c}",
        paper="Hashemi, S. R. et al. (2019). Asymmetric loss functions and deep densely-connected "
        "networks for highly-imbalanced medical image segmentation: application to multiple "
        "sclerosis lesion detection. IEEE Access 7, 1721-1735. doi:10.1109/ACCESS.2018.2886371, "
        "arXiv:1803.11078",
        reduction=REDUCTION,
        smoothing=SMOOTHING + ", of the fraction with both divided by 1 + beta^2",
        defaults_from="beta 1.5: the paper's best, and the Loss Odyssey's; " + DEFAULTS,
        background=BACKGROUND,
        absent_class=ABSENT,
        value_range="[0, 1)",
    )

    def __init__(self, *, beta: float = 1.5, **options: Any) -> None:
        super().__init__(**options)
        self.beta = check_number("beta", beta, 0)

    def terms(self, counts: SoftCounts) -> Tensor:
        recall = self.beta**2 / (1 + self.beta**2)
        return self.tversky(counts, 1 - recall, recall)


class Mcc(RegionLoss):
    """One minus the Matthews correlation coefficient of each image and class.

    From the confusion matrix, whose entries are only added: the usual short form of TP TN - FP FN,
    which needs no more than N, TP, sum p and sum g, is a small difference of large numbers where a
    class fills nearly all of a large image.

    Args:
        smooth_dr: added under the root of the denominator, >= 0.
        **options: those of RegionLoss.
    """

    name = "mcc"
    about = About(
        title="Matthews correlation coefficient loss",
        family="region",
        formula=r"L = 1 - \frac{1}{C} \sum_{c=1}^{C}"
        r" \frac{TP_c TN_c - FP_c FN_c}{\sqrt{(TP_c + FP_c) (TP_c + FN_c) (TN_c + FP_c)"
        r" (TN_c + FN_c)}}",
        paper="Abhishek, K., Hamarneh, G. (2021). Matthews correlation coefficient loss for deep "
        "convolutional networks: application to skin lesion segmentation. ISBI. "
        "doi:10.1109/ISBI48211.2021.9433782, arXiv:2010.13454",
        reduction=REDUCTION,
        smoothing="smooth_dr, 1e-5, under the root; no smoothing above the fraction line",
        defaults_from="smooth_dr 1e-5: MONAI's",
        background=BACKGROUND,
        absent_class="the coefficient is undefined and taken as 0, as for a class that fills the "
        "image: a term of 1 without a gradient",
        value_range="[0, 2]",
    )

    soft_labels = True

    def __init__(self, *, smooth_dr: float = 1e-5, **options: Any) -> None:
        super().__init__(**options)
        self.smooth_dr = check_number("smooth_dr", smooth_dr, 0)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        confusion = soft_confusion(logits, labels, valid)
        if self.batch:
            confusion = confusion.sum(0, keepdim=True)
        others = 1 - torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)
        wrong = confusion * others
        fp, fn = wrong.sum(1), wrong.sum(2)
        tp = confusion.diagonal(dim1=1, dim2=2)
        tn = (others @ confusion @ others).diagonal(dim1=1, dim2=2)
        variances = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn) + self.smooth_dr
        undefined = variances <= 0
        covariance = (tp * tn - fp * fn).masked_fill(undefined, 0)
        terms = 1 - covariance / variances.masked_fill(undefined, 1).sqrt()
        return self.reduce(terms, confusion.detach().sum((1, 2)).unsqueeze(1) > 0)
