"""Losses as five documents published them, behaving as their code behaves when it runs.

Nothing here is recommended for training. Each class keeps the defects of its source, with the
source's smoothing and constants, and its card names the corrected twin and the reason. The
documents (kept as 000 to 004) are articles and a question with its answer, in Chinese.

Only the interface is ours: ``loss(logits, labels)`` with a channel for each class. A binary loss
serves C classes one-vs-rest: the sigmoid of each channel against ``labels == c``, averaged over all
C classes, background included, because the prediction is the argmax over all channels. Where the
source does not handle ignored voxels, they are left out of every sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits, nll_loss

from .base import NO_OPTIONS, About, SegmentationLoss, check_number, weighted_mean

_ONE_VS_REST = (
    "one-vs-rest: each class, background too, has a sigmoid and a loss of its own; their mean"
)
_OVER_BATCH = "each class over all voxels of the batch, flattened; mean over classes"
_ABSENT_FLAT = (
    "a class absent from the batch has the term 1 - smooth / (sum p + smooth): it goes to 0 as its "
    "predicted volume falls below the smoothing of 1 voxel, and its gradient is small above that"
)
_SMOOTH_1 = "1 above and 1 below the fraction line"
_SMOOTH_DEFAULT = "smooth 1: the document's"
_KERAS = ", in PyTorch (1e-6 in the Keras code of 001)"


def reference_masks(labels: Tensor, valid: Tensor | None, classes: int) -> Tensor:
    """(B, C, N): True where a valid voxel has the label of the class."""
    masks = labels.flatten(1).unsqueeze(1) == torch.arange(classes, device=labels.device).unsqueeze(
        1
    )
    return masks if valid is None else masks & valid.flatten(1).unsqueeze(1)


class PublishedLoss(SegmentationLoss):
    """A loss without options of its own.

    Args:
        ignore_index: label of voxels to leave out.
    """

    def __init__(self, *, ignore_index: int | None = None) -> None:
        super().__init__(ignore_index=ignore_index)


class SmoothedLoss(PublishedLoss):
    """A ratio with the same number added above and below its fraction line.

    Args:
        smooth: added above and below the fraction line.
        ignore_index: label of voxels to leave out.
    """

    def __init__(self, *, smooth: float = 1.0, ignore_index: int | None = None) -> None:
        super().__init__(ignore_index=ignore_index)
        self.smooth = check_number("smooth", smooth, 0, above=True)


class BinaryLoss(PublishedLoss):
    """A binary loss used one-vs-rest; ``one_class`` is the source's function of one class."""

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        logits = logits.flatten(2)
        masks = reference_masks(labels, valid, logits.shape[1]).to(logits.dtype)
        kept = None if valid is None else valid.flatten(1)
        per_class = [
            self.one_class(scores, targets, kept)
            for scores, targets in zip(logits.unbind(1), masks.unbind(1), strict=True)
        ]
        return torch.stack(per_class).mean()

    def one_class(self, scores: Tensor, targets: Tensor, kept: Tensor | None) -> Tensor:
        """Value for one class: scores (B, N) before the sigmoid, targets (B, N) 0 or 1.

        ``kept`` (B, N) is False at ignored voxels, whose target is 0; None if there are none.
        """
        raise NotImplementedError


def probabilities(scores: Tensor, kept: Tensor | None) -> Tensor:
    """Sigmoid, set to 0 at ignored voxels so that they drop out of every sum."""
    inputs = scores.sigmoid()
    return inputs if kept is None else inputs * kept


def softmax_counts(
    logits: Tensor, labels: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, C): sums of p g, p and g over each image; p of the softmax, 0 at ignored voxels."""
    inputs = logits.flatten(2).softmax(1)
    targets = reference_masks(labels, valid, logits.shape[1])
    if valid is not None:
        inputs = inputs * valid.flatten(1).unsqueeze(1)
    return (inputs * targets).sum(2), inputs.sum(2), targets.sum(2).to(inputs.dtype)


def flat_counts(
    scores: Tensor, targets: Tensor, kept: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of p g, p and g over the flattened batch."""
    inputs = probabilities(scores, kept)
    return (inputs * targets).sum(), inputs.sum(), targets.sum()


def flat_dice(scores: Tensor, targets: Tensor, kept: Tensor | None, smooth: float) -> Tensor:
    """Dice coefficient of the flattened batch."""
    intersection, predicted, reference = flat_counts(scores, targets, kept)
    return (2 * intersection + smooth) / (predicted + reference + smooth)


def mean_bce(scores: Tensor, targets: Tensor, kept: Tensor | None) -> Tensor:
    """Mean binary cross-entropy of the sigmoid, whose logarithm torch clamps at -100."""
    terms = binary_cross_entropy(scores.sigmoid(), targets, reduction="none")
    return weighted_mean(terms, kept)


class PublishedDicePerImage(SmoothedLoss, BinaryLoss):
    """Binary Dice of each image.

    Args:
        smooth: added above and below the fraction line.
        ignore_index: label of voxels to leave out.
    """

    name = "published_dice_per_image"
    about = About(
        title="Binary Dice per image, as published",
        family="as published",
        formula=r"L = 1 - \frac{1}{B} \sum_{b=1}^{B}"
        r" \frac{2 \sum_i p_{bi} g_{bi} + 1}{\sum_i p_{bi} + \sum_i g_{bi} + 1}",
        paper="Document 000, BinaryDiceLoss",
        reduction="mean over images, then over classes",
        smoothing=_SMOOTH_1,
        defaults_from=_SMOOTH_DEFAULT,
        background=_ONE_VS_REST,
        absent_class="a class absent from an image has the term 1 - 1 / (sum p + 1): it goes to 0 "
        "as its predicted volume falls below 1 voxel, and its gradient is small above that",
        value_range="[0, 1)",
        seed="000",
        twin="dice",
        reason="The formula is Dice, but a smoothing of 1 voxel is large against small structures "
        "and makes the value depend on resolution; one-vs-rest sigmoids are trained although the "
        "prediction is an argmax.",
        runs_as_is="No: the class derives from nn.Model, which does not exist, and the ratio is "
        "stored as N_dice_eff but read as dice_eff. With nn.Module and one name it is this loss.",
    )

    def one_class(self, scores: Tensor, targets: Tensor, kept: Tensor | None) -> Tensor:
        inputs = probabilities(scores, kept)
        dice = (2 * (inputs * targets).sum(1) + self.smooth) / (
            inputs.sum(1) + targets.sum(1) + self.smooth
        )
        return weighted_mean(1 - dice, None if kept is None else kept.any(1))


class PublishedDiceSoftmax(SmoothedLoss):
    """Multi-class Dice: the binary Dice of each image on the channels of the softmax.

    Args:
        smooth: added above and below the fraction line.
        ignore_index: label of voxels to leave out.
    """

    name = "published_dice_softmax"
    about = About(
        title="Multi-class Dice, as published",
        family="as published",
        formula=r"L = \frac{1}{C} \sum_{c=1}^{C} \left( 1 - \frac{1}{B} \sum_{b=1}^{B}"
        r" \frac{2 \sum_i p_{bic} g_{bic} + 1}{\sum_i p_{bic} + \sum_i g_{bic} + 1} \right)",
        paper="Document 000, MultiClassDiceLoss",
        reduction="mean over images, then over classes",
        smoothing=_SMOOTH_1,
        defaults_from=_SMOOTH_DEFAULT,
        background="a class like any other",
        absent_class="a class absent from an image has the term 1 - 1 / (sum p + 1): it goes to 0 "
        "as its predicted volume falls below 1 voxel, and its gradient is small above that",
        value_range="[0, 1)",
        seed="000",
        twin="dice",
        reason="The formula is Dice with a smoothing of 1 voxel, which is large against small "
        "structures. The source accepts weight and ignore_index and never uses them: class "
        "weights have no effect, and ignored voxels count.",
        runs_as_is="No: it calls BinaryDiceLoss (nn.Model, an unbound name) and a function one_hot "
        "that is not given. With these mended it is this loss; ignore_index, dead in the source, "
        "works here, and weight is not offered.",
    )

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        overlap, predicted, reference = softmax_counts(logits, labels, valid)
        dice = (2 * overlap + self.smooth) / (predicted + reference + self.smooth)
        images = None if valid is None else valid.flatten(1).any(1, keepdim=True)
        return weighted_mean(1 - dice, images)


class PublishedDiceFlat(SmoothedLoss, BinaryLoss):
    """Binary Dice of the flattened batch.

    Args:
        smooth: added above and below the fraction line.
        ignore_index: label of voxels to leave out.
    """

    name = "published_dice_flat"
    about = About(
        title="Flattened Dice, as published",
        family="as published",
        formula=r"L = 1 - \frac{2 \sum_i p_i g_i + 1}{\sum_i p_i + \sum_i g_i + 1}",
        paper="Document 001, DiceLoss; document 003, dice_loss",
        reduction=_OVER_BATCH,
        smoothing=_SMOOTH_1,
        defaults_from=_SMOOTH_DEFAULT + _KERAS,
        background=_ONE_VS_REST,
        absent_class=_ABSENT_FLAT,
        value_range="[0, 1)",
        seed="001, 003",
        twin="dice",
        reason="The formula is Dice of the whole batch (batch=True), so that large structures hide "
        "errors in small ones of other images; smoothing 1 and one-vs-rest sigmoids as in "
        "published_dice_per_image.",
        runs_as_is="The PyTorch code runs. The Keras code of 001 takes K.dot of two flattened "
        "tensors, which is not defined for vectors; with K.sum(targets * inputs) it is this loss "
        "with smooth=1e-6.",
    )

    def one_class(self, scores: Tensor, targets: Tensor, kept: Tensor | None) -> Tensor:
        return 1 - flat_dice(scores, targets, kept, self.smooth)


class PublishedBceDice(SmoothedLoss, BinaryLoss):
    """Mean binary cross-entropy plus Dice of the flattened batch.

    Args:
        smooth: added above and below the fraction line of Dice.
        ignore_index: label of voxels to leave out.
    """

    name = "published_bce_dice"
    about = About(
        title="BCE + Dice, as published",
        family="as published",
        formula=r"L = \frac{1}{N} \sum_i H(p_i, g_i) + 1 -"
        r" \frac{2 \sum_i p_i g_i + 1}{\sum_i p_i + \sum_i g_i + 1}",
        paper="Document 001, DiceBCELoss; document 003, bce_dice_loss",
        reduction=_OVER_BATCH,
        smoothing=_SMOOTH_1 + " of Dice; log p is clamped at -100",
        defaults_from=_SMOOTH_DEFAULT + _KERAS,
        background=_ONE_VS_REST,
        absent_class=_ABSENT_FLAT + "; the cross-entropy pushes it down everywhere",
        value_range="[0, 101)",
        seed="001, 003",
        twin="dice_ce",
        reason="The code is a sound binary loss; the formula printed in 001 adds the Dice "
        "coefficient where the code adds 1 - Dice. The sigmoid before the logarithm saturates: in "
        "float32 a confident false positive (logit above 17) loses its gradient.",
        runs_as_is="The PyTorch code runs. The Keras code of 001 fails on K.dot, as in "
        "published_dice_flat.",
    )

    def one_class(self, scores: Tensor, targets: Tensor, kept: Tensor | None) -> Tensor:
        dice_loss = 1 - flat_dice(scores, targets, kept, self.smooth)
        return mean_bce(scores, targets, kept) + dice_loss


class PublishedIou(SmoothedLoss, BinaryLoss):
    """Jaccard loss of the flattened batch.

    Args:
        smooth: added above and below the fraction line.
        ignore_index: label of voxels to leave out.
    """

    name = "published_iou"
    about = About(
        title="IoU loss, as published",
        family="as published",
        formula=r"L = 1 - \frac{\sum_i p_i g_i + 1}"
        r"{\sum_i p_i + \sum_i g_i - \sum_i p_i g_i + 1}",
        paper="Document 001, IoULoss; document 003, iou_loss",
        reduction=_OVER_BATCH,
        smoothing=_SMOOTH_1,
        defaults_from=_SMOOTH_DEFAULT + _KERAS,
        background=_ONE_VS_REST,
        absent_class=_ABSENT_FLAT,
        value_range="[0, 1)",
        seed="001, 003",
        twin="jaccard",
        reason="The formula is right; pooling over the batch, smoothing 1 and one-vs-rest sigmoids "
        "are what differs from the corrected loss.",
        runs_as_is="The PyTorch code runs. The Keras code of 001 fails on K.dot, as in "
        "published_dice_flat.",
    )

    def one_class(self, scores: Tensor, targets: Tensor, kept: Tensor | None) -> Tensor:
        intersection, predicted, reference = flat_counts(scores, targets, kept)
        union = predicted + reference - intersection
        return 1 - (intersection + self.smooth) / (union + self.smooth)


class PublishedFocalMeanBce(BinaryLoss):
    """Focal factor of the mean binary cross-entropy.

    Args:
        alpha: constant factor.
        gamma: exponent of the focal factor, >= 1.
        ignore_index: label of voxels to leave out.
    """

    name = "published_focal_mean_bce"
    about = About(
        title="Focal loss of the mean BCE, as published",
        family="as published",
        formula=r"L = \alpha (1 - e^{-\bar{H}})^{\gamma} \bar{H}, \quad"
        r" \bar{H} = \frac{1}{N} \sum_i H(p_i, g_i)",
        paper="Document 001, FocalLoss",
        reduction=_OVER_BATCH,
        smoothing="none (the argument smooth is never used); log p is clamped at -100",
        defaults_from="alpha 0.8, gamma 2: the document's",
        background=_ONE_VS_REST,
        absent_class="its mean cross-entropy falls towards 0, and the focal factor switches the "
        "whole class off",
        value_range="[0, 100 alpha)",
        seed="001",
        twin="focal",
        reason="The focal factor is computed from the mean cross-entropy, one number for all "
        "voxels, so easy voxels are not discounted against hard ones; it only rescales the "
        "gradient of plain cross-entropy and turns it off once the mean is small, which "
        "imbalanced data reach with nothing but background.",
        runs_as_is="Yes. The Keras version applies the factor to each voxel before the mean.",
    )

    def __init__(
        self, *, alpha: float = 0.8, gamma: float = 2.0, ignore_index: int | None = None
    ) -> None:
        super().__init__(ignore_index=ignore_index)
        self.alpha = check_number("alpha", alpha, 0)
        self.gamma = check_number("gamma", gamma, 1)

    def one_class(self, scores: Tensor, targets: Tensor, kept: Tensor | None) -> Tensor:
        bce = mean_bce(scores, targets, kept)
        return self.alpha * (1 - torch.exp(-bce)) ** self.gamma * bce


class PublishedFocalAlphaT(BinaryLoss):
    """Focal loss of each voxel with alpha on positives and 1 - alpha on negatives.

    Args:
        alpha: factor of positives.
        gamma: exponent of the focal factor, >= 1.
        ignore_index: label of voxels to leave out.
    """

    name = "published_focal_alpha_t"
    about = About(
        title="Focal loss with alpha_t, as published",
        family="as published",
        formula=r"L = \frac{1}{N} \sum_i \alpha_{t,i} (1 - p_{t,i})^{\gamma} H(p_i, g_i), \quad"
        r" p_{t,i} = e^{-H(p_i, g_i)}",
        paper="Document 003, focal_loss",
        reduction=_OVER_BATCH,
        smoothing="none",
        defaults_from="alpha 0.25, gamma 2: the document's",
        background=_ONE_VS_REST + "; alpha then also multiplies the positives of the background",
        absent_class="no positive term; pushed down where it is still probable",
        value_range="[0, inf)",
        seed="003",
        twin="focal",
        reason="The code is the binary focal loss of Lin et al.; the text is wrong: it says that "
        "alpha = 0.25 on positives favours the rare class, but 0.25 against 0.75 divides the "
        "positives' share by three, and pays only together with gamma.",
        runs_as_is="Yes.",
    )

    def __init__(
        self, *, alpha: float = 0.25, gamma: float = 2.0, ignore_index: int | None = None
    ) -> None:
        super().__init__(ignore_index=ignore_index)
        self.alpha = check_number("alpha", alpha, 0, 1)
        self.gamma = check_number("gamma", gamma, 1)

    def one_class(self, scores: Tensor, targets: Tensor, kept: Tensor | None) -> Tensor:
        bce = binary_cross_entropy_with_logits(scores, targets, reduction="none")
        p_t = torch.exp(-bce)
        alpha_t = torch.where(targets == 1, self.alpha, 1 - self.alpha)
        return weighted_mean(alpha_t * (1 - p_t) ** self.gamma * bce, kept)


class PublishedFocalWeightedProbability(SegmentationLoss):
    """Focal loss whose probability contains the class weight as an exponent.

    Args:
        alpha: constant factor; None for none.
        gamma: exponent of the focal factor, >= 1.
        weight: class weights, one for each class (the source's cls_weights), not normalised.
        ignore_index: label of voxels that add nothing, but stay in the divisor of the mean.
    """

    name = "published_focal_weighted_probability"
    about = About(
        title="Focal loss with the class weight inside the probability, as published",
        family="as published",
        formula=r"L = -\frac{1}{N} \sum_i (1 - p_{i, y_i}^{w_{y_i}})^{\gamma}"
        r" \alpha w_{y_i} \log p_{i, y_i}",
        paper="Document 002, Focal_Loss",
        reduction="mean over all voxels, the ignored ones included in their number",
        smoothing="none",
        defaults_from="alpha 0.5, gamma 2: the document's",
        background="a class like any other",
        absent_class="no term of its own, as in cross-entropy",
        value_range="[0, inf)",
        seed="002",
        twin="focal",
        reason="The class weight multiplies log p before the exponential, so the focal factor sees "
        "p^w instead of the probability: a large weight makes a class look harder than it is. "
        "The text's formula, (1 - p alpha)^gamma, is a third variant. Ignored voxels stay in the "
        "divisor, so that the scale depends on how many there are.",
        runs_as_is="Yes, at equal sizes: the test before resizing joins its two comparisons by "
        "'and' where 'or' is needed, so a mismatch in one dimension only is not resized. Here "
        "sizes must match.",
    )

    def __init__(
        self,
        *,
        alpha: float | None = 0.5,
        gamma: float = 2.0,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index)
        self.alpha = None if alpha is None else check_number("alpha", alpha, 0)
        self.gamma = check_number("gamma", gamma, 1)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        log_pt = logits.log_softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
        weight = self.per_class("weight", logits)
        if weight is not None:
            log_pt = log_pt * weight[labels]
        if valid is not None:
            log_pt = log_pt * valid  # as cross-entropy's ignore_index does: 0, but counted
        pt = torch.exp(log_pt)
        if self.alpha is not None:
            log_pt = log_pt * self.alpha
        return (-((1 - pt) ** self.gamma) * log_pt).mean()


class PublishedTversky(SmoothedLoss, BinaryLoss):
    """Tversky loss of the flattened batch.

    Args:
        alpha: cost of false positives.
        beta: cost of false negatives.
        **options: those of SmoothedLoss.
    """

    name = "published_tversky"
    about = About(
        title="Tversky loss, as published",
        family="as published",
        formula=r"L = 1 - \frac{TP + 1}{TP + \alpha FP + \beta FN + 1}",
        paper="Document 001, TverskyLoss",
        reduction=_OVER_BATCH,
        smoothing=_SMOOTH_1,
        defaults_from="alpha 0.5, beta 0.5: the document's; " + _SMOOTH_DEFAULT + _KERAS,
        background=_ONE_VS_REST,
        absent_class="a class absent from the batch has the term 1 - smooth / (alpha sum p + "
        "smooth): it goes to 0 as its predicted volume falls below smooth / alpha voxels, and its "
        "gradient is small above that",
        value_range="[0, 1)",
        seed="001",
        twin="tversky",
        reason="The formula is right, but with its default alpha = beta = 0.5 it is Dice (with "
        "twice the smoothing) and gives missed voxels no more weight than false ones, which is "
        "what the loss was proposed for.",
        runs_as_is="Yes, in PyTorch and in Keras (there with smooth=1e-6).",
    )

    def __init__(self, *, alpha: float = 0.5, beta: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, 0)
        self.beta = check_number("beta", beta, 0)

    def one_class(self, scores: Tensor, targets: Tensor, kept: Tensor | None) -> Tensor:
        inputs = probabilities(scores, kept)
        tp = (inputs * targets).sum()
        fp = ((1 - targets) * inputs).sum()
        fn = (targets * (1 - inputs)).sum()
        tversky = (tp + self.smooth) / (tp + self.alpha * fp + self.beta * fn + self.smooth)
        return 1 - tversky


class PublishedFocalTversky(PublishedTversky):
    """Tversky loss of the flattened batch, raised to gamma.

    Args:
        gamma: exponent, >= 1.
        **options: those of PublishedTversky.
    """

    name = "published_focal_tversky"
    about = About(
        title="Focal Tversky loss with exponent 2, as published",
        family="as published",
        formula=r"L = \left( 1 - \frac{TP + 1}{TP + \alpha FP + \beta FN + 1} \right)^{\gamma}",
        paper="Document 001, FocalTverskyLoss",
        reduction=_OVER_BATCH,
        smoothing=_SMOOTH_1,
        defaults_from="gamma 2: the document's; " + PublishedTversky.about.defaults_from,
        background=_ONE_VS_REST,
        absent_class="as in published_tversky, squared: near 0 its gradient fades as well",
        value_range="[0, 1)",
        seed="001",
        twin="focal_tversky",
        reason="Abraham and Khan raise to 1 / gamma with gamma = 4/3; the exponent 2 has the slope "
        "2 (1 - TI), which fades for nearly solved classes (9 : 1 between TI = 0.1 and 0.9) where "
        "3/4 emphasises them slightly (0.58 : 1).",
        runs_as_is="Yes, in PyTorch and in Keras (there with smooth=1e-6).",
    )

    def __init__(self, *, gamma: float = 2.0, **options: Any) -> None:
        super().__init__(**options)
        self.gamma = check_number("gamma", gamma, 1)

    def one_class(self, scores: Tensor, targets: Tensor, kept: Tensor | None) -> Tensor:
        return super().one_class(scores, targets, kept) ** self.gamma


class PublishedLovaszHinge(BinaryLoss):
    """Lovasz hinge of each image: on logits, without a sigmoid.

    Args:
        ignore_index: label of voxels to leave out; an image without valid voxels counts as 0.
    """

    name = "published_lovasz_hinge"
    about = About(
        title="Lovasz hinge, as published",
        family="as published",
        formula=r"L = \overline{\Delta_J}(m), \quad"
        r" m_i = \max (0, 1 - f_i (2 g_i - 1))",
        paper="Document 001, lovasz_hinge, copied there from the code of Berman et al.",
        reduction="mean over images, then over classes",
        smoothing="none",
        defaults_from=NO_OPTIONS,
        background="one-vs-rest: each class, background too, has a hinge of its own; their mean",
        absent_class="the loss of the image is the largest hinge error alone, so one voxel gets "
        "the whole gradient",
        value_range="[0, inf)",
        seed="001",
        twin="lovasz_hinge",
        reason="The hinge itself is right. One-vs-rest hinges do not compete as classes of a "
        "softmax do, and a class absent from an image hands the whole gradient to its worst "
        "voxel; lovasz_hinge takes the log-odds of the softmax and the classes that are present. "
        "The multi-class code beside it (lovasz_softmax here) tests classes is 'present', which "
        "rests on string identity.",
        runs_as_is="Yes, with its line breaks restored and where torch.autograd.Variable is still "
        "accepted.",
    )

    def one_class(self, scores: Tensor, targets: Tensor, kept: Tensor | None) -> Tensor:
        losses = []
        for image in range(len(scores)):
            f, g = scores[image], targets[image]
            if kept is not None:
                f, g = f[kept[image]], g[kept[image]]
            if len(g) == 0:
                losses.append(f.sum() * 0)
                continue
            errors, order = torch.sort(1 - f * (2 * g - 1), descending=True)
            losses.append((errors.relu() * lovasz_gradient(g[order])).sum())
        return torch.stack(losses).mean()


def lovasz_gradient(targets: Tensor) -> Tensor:
    """Steps of the Jaccard loss as voxels, sorted by error, become wrong one after another."""
    volume = targets.sum()
    intersection = volume - targets.cumsum(0)
    union = volume + (1 - targets).cumsum(0)
    jaccard = 1 - intersection / union
    return torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])


class PublishedCombo(SmoothedLoss, BinaryLoss):
    """Combo loss with its sign: minimising it lowers Dice and raises the cross-entropy.

    Args:
        alpha: factor of the whole cross-entropy; 1 - alpha multiplies the negatives once more.
        ce_ratio: share of the cross-entropy, 0 to 1; Dice has 1 - ce_ratio.
        eps: probabilities are clamped to [eps, 1 - eps]; in float32, 1 - 1e-9 is 1.
        **options: those of SmoothedLoss, for Dice.
    """

    name = "published_combo"
    about = About(
        title="Combo loss with its sign, as published",
        family="as published",
        formula=r"L = \frac{\alpha r}{N} \sum_i \left( g_i \log p_i +"
        r" (1 - \alpha) (1 - g_i) \log (1 - p_i) \right)"
        r" + (1 - r) \frac{2 \sum_i p_i g_i + 1}{\sum_i p_i + \sum_i g_i + 1}",
        paper="Document 001, ComboLoss",
        reduction=_OVER_BATCH,
        smoothing=_SMOOTH_1 + " of Dice; probabilities clamped to [1e-9, 1 - 1e-9]",
        defaults_from="alpha 0.5, ce_ratio 0.5, eps 1e-9: the document's; " + _SMOOTH_DEFAULT,
        background=_ONE_VS_REST,
        absent_class="like every class it is pushed away from the reference: predicted everywhere",
        value_range="(-inf, 1 - ce_ratio]; highest near the perfect prediction",
        seed="001",
        twin="combo",
        reason="The sign is flipped: the code returns minus the combo loss, so minimising it "
        "raises the cross-entropy and lowers Dice. Alpha multiplies both terms of the "
        "cross-entropy instead of the positive one only. In float32 the clamp at 1 - 1e-9 is 1, "
        "so a saturated sigmoid (logit above 17) gives NaN on a positive voxel (0 log 0) and -inf "
        "on a negative one.",
        runs_as_is="Yes, without an error; the source itself doubts it. The arguments alpha and "
        "beta are never used (the constants ALPHA and CE_RATIO are): alpha here is ALPHA.",
    )

    def __init__(
        self,
        *,
        alpha: float = 0.5,
        ce_ratio: float = 0.5,
        eps: float = 1e-9,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, 0, 1)
        self.ce_ratio = check_number("ce_ratio", ce_ratio, 0, 1)
        self.eps = check_number("eps", eps, 0, 0.5)

    def one_class(self, scores: Tensor, targets: Tensor, kept: Tensor | None) -> Tensor:
        dice = flat_dice(scores, targets, kept, self.smooth)
        inputs = scores.sigmoid().clamp(self.eps, 1 - self.eps)
        positive = targets * torch.log(inputs)
        negative = (1 - self.alpha) * (1 - targets) * torch.log(1 - inputs)
        weighted_ce = weighted_mean(-(self.alpha * (positive + negative)), kept)
        combo = self.ce_ratio * weighted_ce - (1 - self.ce_ratio) * dice
        return -combo


class PublishedWeightedCrossEntropy(SegmentationLoss):
    """Cross-entropy with class weights and an ignored label.

    Args:
        weight: class weights, one for each class (the source's cls_weights); None for none.
        ignore_index: label of voxels to leave out (the source uses the number of classes).
    """

    name = "published_weighted_cross_entropy"
    about = About(
        title="Weighted cross-entropy with an ignored label, as published",
        family="as published",
        formula=r"L = -\frac{\sum_i w_{y_i} \log p_{i, y_i}}{\sum_i w_{y_i}}",
        paper="Document 002, CE_Loss",
        reduction="weighted mean over all valid voxels of the batch",
        smoothing="none",
        defaults_from=NO_OPTIONS + "; no weight is ours, the document asks for one",
        background="a class like any other, with its own weight",
        absent_class="no term of its own and no share of the normalisation",
        value_range="[0, inf)",
        seed="002",
        twin="weighted_cross_entropy",
        reason="At equal sizes the value is right. The test before resizing joins its two "
        "comparisons by 'and' where 'or' is needed, so a mismatch in one dimension only reaches "
        "the loss; a batch whose voxels are all ignored gives NaN in the source (0 here).",
        runs_as_is="Yes, at equal sizes; here sizes must match.",
    )

    def __init__(
        self,
        *,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        terms = nll_loss(logits.log_softmax(1), labels, reduction="none")
        weights = torch.ones_like(terms) if valid is None else valid.to(terms.dtype)
        weight = self.per_class("weight", logits)
        if weight is not None:
            weights = weights * weight[labels]
        return weighted_mean(terms, weights)


class PublishedFbetaDice(SmoothedLoss):
    """F-beta Dice of the pooled batch, in which ignored voxels leak into the false positives.

    Args:
        beta: weight of recall against precision, > 0; 1 is Dice.
        smooth: added above and below the fraction line.
        ignore_index: label of voxels that drop out of the reference, but not of the prediction.
    """

    name = "published_fbeta_dice"
    about = About(
        title="F-beta Dice with the ignored-voxel leak, as published",
        family="as published",
        formula=r"L = 1 - \frac{1}{C} \sum_{c=1}^{C} \frac{(1 + \beta^2) TP_c + s}"
        r"{(1 + \beta^2) TP_c + \beta^2 FN_c + FP_c + s}",
        paper="Document 002, Dice_loss",
        reduction="mean over classes of the pooled batch",
        smoothing="s = 1e-5 above and below the fraction line",
        defaults_from="beta 1, smooth 1e-5: the document's",
        background="a class like any other",
        absent_class="a class absent from the batch has a term near 1 with almost no gradient",
        value_range="[0, 1)",
        seed="002",
        twin="dice",
        reason="Ignored voxels are dropped from TP and from the reference, but not from the "
        "predicted volume, so every prediction there counts as a false positive of some class: "
        "the loss cannot reach 0 and its gradient depends on the ignored voxels. Without ignored "
        "voxels it is Dice of the pooled batch.",
        runs_as_is="Yes, at equal sizes (the test before resizing needs 'or' for its 'and'). The "
        "leak is kept, so here ignored voxels do change the value, unless all voxels are ignored.",
    )

    def __init__(
        self, *, beta: float = 1.0, smooth: float = 1e-5, ignore_index: int | None = None
    ) -> None:
        super().__init__(smooth=smooth, ignore_index=ignore_index)
        self.beta = check_number("beta", beta, 0, above=True)

    def before_masking(self, logits: Tensor, clean: Tensor) -> Tensor:
        return logits

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        inputs = logits.flatten(2).softmax(1)
        targets = reference_masks(labels, valid, logits.shape[1])
        tp = (inputs * targets).sum((0, 2))
        fp = inputs.sum((0, 2)) - tp  # ignored voxels included: the leak
        fn = targets.sum((0, 2)) - tp
        square = self.beta**2
        score = ((1 + square) * tp + self.smooth) / (
            (1 + square) * tp + square * fn + fp + self.smooth
        )
        return 1 - score.mean()


def pooled_generalized_dice(weights: Tensor | float, overlap: Tensor, total: Tensor) -> Tensor:
    """1 - 2 sum w tp / sum w (p + g) over the classes of the pooled batch."""
    return 1 - 2 * (weights * overlap.sum(0)).sum() / (weights * total.sum(0)).sum()


class PublishedGeneralizedDiceGraph(PublishedLoss):
    """Generalized Dice of the question, as executed in graph mode: every weight is 1e5.

    Args:
        ignore_index: label of voxels to leave out.
    """

    name = "published_generalized_dice_graph"
    about = About(
        title="Generalized Dice as executed in graph mode, as published",
        family="as published",
        formula=r"L = 1 - \frac{2 \sum_c w \sum_i p_{ic} g_{ic}}{\sum_c w \sum_i (p_{ic} +"
        r" g_{ic})} = 1 - \frac{1}{N} \sum_i p_{i, y_i}, \quad w = \frac{1}{0 + 10^{-5}}",
        paper="Document 004, generalized_dice_loss_w of the question, on a symbolic tensor",
        reduction="one ratio over the classes of the pooled batch",
        smoothing="1e-5 in the weight; none in the ratio",
        defaults_from=NO_OPTIONS + "; 1e-5 is the document's",
        background="a class like any other, and the largest",
        absent_class="no term: a voxel counts by the probability of its label",
        value_range="[0, 1]",
        seed="004",
        twin="generalized_dice",
        reason="On a symbolic tensor of TensorFlow 1, y_true == 1 compares identities and is "
        "False, so every volume is counted as 0 and every weight is 1e5: nothing is weighted. "
        "With one-hot references and a softmax the loss is exactly 1 - the mean probability of "
        "the true class, for which predicting only background is nearly optimal.",
        runs_as_is="Yes, in Keras on TensorFlow 1; that its author trained in graph mode is "
        "inferred from the symptoms reported.",
    )

    def class_weights(self, volumes: Tensor) -> Tensor:
        """Weights (1, C): the same for all classes, whatever their volumes (B, C)."""
        return torch.full_like(volumes[:1], 1 / (0**2 + 0.00001))

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        overlap, predicted, volumes = softmax_counts(logits, labels, valid)
        weights = self.class_weights(volumes)[0]
        return pooled_generalized_dice(weights, overlap, predicted + volumes)


class PublishedGeneralizedDiceWritten(PublishedLoss):
    """Generalized Dice of the question, as written: weights 1 / (V^2 + 1e-5) of the batch.

    Args:
        ignore_index: label of voxels to leave out.
    """

    name = "published_generalized_dice_written"
    about = About(
        title="Generalized Dice as written, as published",
        family="as published",
        formula=r"L = 1 - \frac{2 \sum_c w_c \sum_i p_{ic} g_{ic}}"
        r"{\sum_c w_c \sum_i (p_{ic} + g_{ic})}, \quad w_c = \frac{1}{V_c^2 + 10^{-5}}",
        paper="Document 004, generalized_dice_loss_w of the question, read as it was meant",
        reduction="one ratio over the classes of the pooled batch",
        smoothing="1e-5 in the weight; none in the ratio",
        defaults_from=NO_OPTIONS + "; 1e-5 is the document's",
        background="a class like any other",
        absent_class="weight 1e5, so that its predicted volume dominates the denominator: the "
        "value stays near 1 and the gradient of everything else vanishes",
        value_range="[0, 1]",
        seed="004",
        twin="generalized_dice",
        reason="A class absent from the batch weighs 1e5 against about 1e-8 for a present class of "
        "1e4 voxels: the loss sits at 1, the gradient vanishes (L1 norm 1e-12 instead of 1e-3), "
        "and the batch is silently discarded.",
        runs_as_is="Yes, on arrays; a graph executes published_generalized_dice_graph instead.",
    )

    def class_weights(self, volumes: Tensor) -> Tensor:
        """Weights (1, C) from the volumes (B, C) of the batch."""
        return 1 / (volumes.sum(0, keepdim=True) ** 2 + 0.00001)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        overlap, predicted, volumes = softmax_counts(logits, labels, valid)
        weights = self.class_weights(volumes)[0]
        return pooled_generalized_dice(weights, overlap, predicted + volumes)


class PublishedGeneralizedDiceAnswer(PublishedLoss):
    """Generalized Dice of the answer: per image, an absent class has the fixed weight eps.

    Args:
        eps: weight of a class absent from an image.
        ignore_index: label of voxels to leave out.
    """

    name = "published_generalized_dice_answer"
    about = About(
        title="Generalized Dice as answered, as published",
        family="as published",
        formula=r"L = \frac{1}{B} \sum_{b=1}^{B} \left( 1 - \frac{2 \sum_c w_{bc} \sum_i p_{bic}"
        r" g_{bic}}{\sum_c w_{bc} \sum_i (p_{bic} + g_{bic})} \right), \quad"
        r" w_{bc} = V_{bc}^{-2}",
        paper="Document 004, gen_dice of the answer",
        reduction="mean over images",
        smoothing="none; a loss that is not finite counts as 0",
        defaults_from="eps 1e-6: the document's",
        background="a class like any other",
        absent_class="fixed weight eps = 1e-6, whatever the size of the image",
        value_range="[0, 1]",
        seed="004",
        twin="generalized_dice",
        reason="The fixed weight is not scale-free: it was set on images of 28 x 28 pixels, where "
        "the background weighs about 1.6e-6, but in a 32^3 patch the background weighs 1e-9, so "
        "an absent class still weighs 1000 times the background.",
        runs_as_is="Yes, on 2-D images; here on any.",
    )

    def __init__(self, *, eps: float = 1e-6, ignore_index: int | None = None) -> None:
        super().__init__(ignore_index=ignore_index)
        self.eps = check_number("eps", eps, 0)

    def class_weights(self, volumes: Tensor) -> Tensor:
        """Weights (B, C) from the volumes (B, C)."""
        weights = 1 / volumes**2
        return torch.where(torch.isfinite(weights), weights, self.eps)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        overlap, predicted, volumes = softmax_counts(logits, labels, valid)
        weights = self.class_weights(volumes)
        numerators = (weights * overlap).sum(1)
        denominators = (weights * (predicted + volumes)).sum(1)
        # 0 / 0 only occurs in an image without valid voxels; dividing by 1 there keeps the
        # gradient finite, and the image is then left out of the mean.
        counted = denominators > 0
        dices = 1 - 2 * numerators / torch.where(counted, denominators, 1.0)
        return weighted_mean(dices, counted)
