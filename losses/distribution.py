"""Cross-entropy and its kin: a term for each voxel, averaged over voxels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable
from torch.nn.functional import cross_entropy

from .base import NO_OPTIONS, About, SegmentationLoss, check_number, weighted_mean
from .probabilities import cross_entropies
from .reduction import reduced_voxels, voxel_weights

_WEIGHTED_MEAN = (
    "mean over all valid voxels of the batch, class-weighted if weight is given; "
    'reduction="none" gives the terms without weights'
)

# Shared with the cards of sums that have the loss as a term.
FOCAL_DEFAULTS = "gamma 2: Lin et al.'s; alpha None: MONAI's (Lin et al. have 0.25)"
TOPK_DEFAULT = "k 10: nnU-Net's, and the Loss Odyssey's"


class VoxelLoss(SegmentationLoss):
    """A loss with a term for each voxel.

    Reductions: ``"mean"`` is the mean over the valid voxels of the batch, weighted by the class
    weight of each voxel's label; ``"sum"`` the sum of weight times term; ``"none"`` gives the
    terms without class weights, (B, *spatial), 0 at ignored voxels. With soft labels the
    weights act inside the sum over classes, as in torch, and a voxel weighs their mean.
    """

    reductions = ("mean", "sum", "none")

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(B, *spatial): the term of each voxel."""
        raise NotImplementedError

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        terms = self.terms(logits, labels)
        weight = self.per_class("weight", logits)
        return reduced_voxels(terms, labels, valid, weight, self.reduction)


class _Focal(Function):
    """(1 - p)^gamma -log p from -log p; its derivative is computed with it, and alone kept."""

    @staticmethod
    def forward(ctx: Any, cross: Tensor, gamma: float) -> Tensor:
        # -expm1(-x) is 1 - p without cancellation; the floor keeps 0 / 0 out of the slope at p = 1.
        wrong = cross.neg().expm1_().neg_().clamp_min_(torch.finfo(cross.dtype).tiny)
        power = wrong.pow(gamma)
        # power (1 + gamma cross p / (1 - p)), where p / (1 - p) = 1 / wrong - 1
        slope = torch.div(cross, wrong, out=wrong).sub_(cross).mul_(gamma).add_(1).mul_(power)
        ctx.save_for_backward(slope)
        return power.mul_(cross)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple:
        (slope,) = ctx.saved_tensors
        return slope * slopes, None


def focal_terms(cross: Tensor, labels: Tensor, gamma: float, alpha: float | None) -> Tensor:
    """The focal loss of each voxel, from its cross-entropy; shapes (B, *spatial)."""
    terms = _Focal.apply(cross, gamma)
    if alpha is None:
        return terms
    return torch.where(labels > 0, alpha, 1 - alpha).to(terms.dtype) * terms


class CrossEntropy(VoxelLoss):
    """Cross-entropy of the softmax, averaged over valid voxels.

    Args:
        ignore_index: label of voxels to leave out.
        reduction: "mean", "sum" or "none" (term of each voxel, 0 where ignored).
    """

    name = "cross_entropy"
    about = About(
        title="Cross-entropy",
        family="distribution",
        formula=r"L = -\frac{1}{N} \sum_{i=1}^{N} \log p_{i, y_i}",
        paper="Good, I. J. (1952). Rational decisions. J. R. Stat. Soc. B 14(1), 107-114. "
        "doi:10.1111/j.2517-6161.1952.tb00104.x",
        reduction="mean over all valid voxels of the batch",
        smoothing="none; log-softmax is computed in one stable step",
        defaults_from=NO_OPTIONS,
        background="a class like any other",
        absent_class="no term of its own; its probability is pushed down at every other voxel",
        value_range="[0, inf); ln C for a uniform prediction",
    )
    soft_labels = True

    def __init__(self, *, ignore_index: int | None = None, reduction: str = "mean") -> None:
        super().__init__(ignore_index=ignore_index, reduction=reduction)

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropies(logits, labels)


class WeightedCrossEntropy(VoxelLoss):
    """Cross-entropy with a weight for each class, normalised by the weights that occurred.

    Args:
        weight: one number >= 0 for each class, background first; only ratios matter. Required.
        ignore_index: label of voxels to leave out.
        reduction: "mean", "sum" (of weighted terms) or "none" (unweighted term of each voxel).
    """

    name = "weighted_cross_entropy"
    about = About(
        title="Weighted cross-entropy",
        family="distribution",
        formula=r"L = -\frac{\sum_i w_{y_i} \log p_{i, y_i}}{\sum_i w_{y_i}}",
        paper="Ronneberger, O., Fischer, P., Brox, T. (2015). U-Net: convolutional networks for "
        "biomedical image segmentation. MICCAI. doi:10.1007/978-3-319-24574-4_28, arXiv:1505.04597",
        reduction="weighted mean over all valid voxels of the batch",
        smoothing="none",
        defaults_from="weight required: the task's",
        background="a class like any other, with its own weight",
        absent_class="no term and no share of the normalisation: the weights of the other classes "
        "are normalised among themselves",
        value_range="[0, inf)",
    )
    soft_labels = True

    def __init__(
        self,
        *,
        weight: Sequence[float] | Tensor,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        if weight is None:
            raise TypeError("weighted_cross_entropy needs weight: one number for each class")
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropies(logits, labels, self.per_class("weight", logits))


class Focal(VoxelLoss):
    """Focal loss of the softmax: voxels that are already right count less.

    The mean is over voxels, so gamma = 0 is cross-entropy. (MONAI and kornia also divide by C.)

    Args:
        gamma: strength of the focus, >= 0.
        alpha: factor of every foreground class, 1 - alpha being that of class 0; None for none.
            It scales the loss and is not normalised, unlike ``weight``.
        weight: class weights of the mean, one for each class.
        ignore_index: label of voxels to leave out.
        reduction: "mean", "sum" or "none" (term of each voxel with alpha, without weight).
    """

    name = "focal"
    about = About(
        title="Focal loss",
        family="distribution",
        formula=r"L = -\frac{1}{N} \sum_{i=1}^{N}"
        r" \alpha_{y_i} (1 - p_{i, y_i})^{\gamma} \log p_{i, y_i}",
        paper="Lin, T.-Y., Goyal, P., Girshick, R., He, K., Dollar, P. (2017). Focal loss for "
        "dense object detection. ICCV. doi:10.1109/ICCV.2017.324, arXiv:1708.02002",
        reduction=_WEIGHTED_MEAN,
        smoothing="none",
        defaults_from=FOCAL_DEFAULTS,
        background="a class like any other; 1 - alpha is its factor if alpha is given",
        absent_class="no term of its own, as in cross-entropy",
        value_range="[0, inf)",
    )

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        alpha: float | None = None,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)
        self.gamma = check_number("gamma", gamma, 0)
        self.alpha = None if alpha is None else check_number("alpha", alpha, 0, 1)

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        return focal_terms(cross_entropies(logits, labels), labels, self.gamma, self.alpha)


class TopkCrossEntropy(SegmentationLoss):
    """Cross-entropy over the hardest k percent of the batch's voxels.

    Args:
        k: percentage of the valid voxels that count, 0 < k <= 100; at least one voxel counts.
        weight: class weights of the mean, one for each class; the hardest voxels are those of the
            largest weighted cross-entropy.
        ignore_index: label of voxels to leave out.
    """

    name = "topk_cross_entropy"
    about = About(
        title="Top-k cross-entropy",
        family="distribution",
        formula=r"L = -\frac{1}{|K|} \sum_{i \in K} \log p_{i, y_i}, \quad |K| = \frac{k N}{100}",
        paper="Wu, Z., Shen, C., van den Hengel, A. (2016). Bridging category-level and "
        "instance-level semantic image segmentation. arXiv:1605.06885",
        reduction="mean over the k percent of voxels with the largest cross-entropy, pooled over "
        "the batch, class-weighted if weight is given",
        smoothing="none",
        defaults_from=TOPK_DEFAULT,
        background="a class like any other; easy background drops out of the mean",
        absent_class="no term of its own, as in cross-entropy",
        value_range="[0, inf); without weight never below cross-entropy",
    )
    soft_labels = True

    def __init__(
        self,
        *,
        k: float = 10.0,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index)
        self.k = check_number("k", k, 0, 100, above=True)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        weight = self.per_class("weight", logits)
        terms = cross_entropies(logits, labels, weight)
        return topk_mean(terms, voxel_weights(labels, valid, weight), valid, self.k)


def topk_mean(terms: Tensor, weights: Tensor | None, valid: Tensor | None, k: float) -> Tensor:
    """Weighted mean of the terms of those k percent of valid voxels, at least one, where the
    weighted term is largest."""
    terms = terms.flatten() if valid is None else terms[valid]
    hardest = max(1, int(len(terms) * k / 100))
    if weights is None or weights is valid:
        return terms.topk(hardest, sorted=False).values.mean()
    weights = weights.flatten() if valid is None else weights[valid]
    chosen = (weights * terms).detach().topk(hardest, sorted=False).indices
    return weighted_mean(terms[chosen], weights[chosen])


class BalancedCrossEntropy(SegmentationLoss):
    """Cross-entropy in which every class present in the batch has the same total weight.

    Args:
        ignore_index: label of voxels to leave out.
    """

    name = "balanced_cross_entropy"
    about = About(
        title="Balanced cross-entropy",
        family="distribution",
        formula=r"L = -\frac{1}{|C|} \sum_{c \in C} \frac{1}{V_c} \sum_{i: y_i = c} \log p_{ic}",
        paper="Xie, S., Tu, Z. (2015). Holistically-nested edge detection. ICCV. "
        "doi:10.1109/ICCV.2015.164, arXiv:1504.06375 (two classes, each weighted with the other's "
        "share; here in the same ratio, for any number of classes, and normalised)",
        reduction="mean over the voxels of each class in the batch, then over the classes present",
        smoothing="none",
        defaults_from=NO_OPTIONS,
        background="a class like any other",
        absent_class="no term and no share of the mean",
        value_range="[0, inf); ln C for a uniform prediction",
    )

    def __init__(self, *, ignore_index: int | None = None) -> None:
        super().__init__(ignore_index=ignore_index)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        counted = labels if valid is None else labels[valid]
        volumes = counted.flatten().bincount(minlength=logits.shape[1])
        weight = 1 / volumes.to(logits.dtype).clamp_min(1)
        terms = cross_entropies(logits, labels)
        return reduced_voxels(terms, labels, valid, weight)


class LabelSmoothingCrossEntropy(VoxelLoss):
    """Cross-entropy against labels of which a share is spread evenly over all classes.

    Args:
        label_smoothing: the share, 0 to 1; with 0 this is cross-entropy.
        weight: class weights of the mean, one for each class.
        ignore_index: label of voxels to leave out.
        reduction: "mean", "sum" or "none" (unweighted term of each voxel, 0 where ignored).
    """

    name = "label_smoothing_cross_entropy"
    about = About(
        title="Cross-entropy with label smoothing",
        family="distribution",
        formula=r"L = -\frac{1}{N} \sum_{i=1}^{N} \left( (1 - \epsilon) \log p_{i, y_i} +"
        r" \frac{\epsilon}{C} \sum_{c=1}^{C} \log p_{ic} \right)",
        paper="Szegedy, C., Vanhoucke, V., Ioffe, S., Shlens, J., Wojna, Z. (2016). Rethinking the "
        "Inception architecture for computer vision. CVPR. doi:10.1109/CVPR.2016.308, "
        "arXiv:1512.00567",
        reduction=_WEIGHTED_MEAN,
        smoothing="of the labels, not of a fraction: label_smoothing, 0.1",
        defaults_from="label_smoothing 0.1: the paper's",
        background="a class like any other",
        absent_class="the smoothed labels ask for a probability of label_smoothing / C of it at "
        "every voxel",
        value_range="[H, inf), H > 0 the entropy of a smoothed label; lowest where p equals it",
    )
    soft_labels = True

    def __init__(
        self,
        *,
        label_smoothing: float = 0.1,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)
        self.label_smoothing = check_number("label_smoothing", label_smoothing, 0, 1)

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)


class GeneralisedCrossEntropy(VoxelLoss):
    """Generalised cross-entropy: between cross-entropy (q to 0) and mean absolute error (q = 1).

    Bounded, so that voxels with a wrong label cannot dominate.

    Args:
        q: 0 < q <= 1. With 1 the loss is 1 - p, which is half the mean absolute error.
        weight: class weights of the mean, one for each class.
        ignore_index: label of voxels to leave out.
        reduction: "mean", "sum" or "none" (unweighted term of each voxel).
    """

    name = "generalised_cross_entropy"
    about = About(
        title="Generalised cross-entropy",
        family="distribution",
        formula=r"L = \frac{1}{N} \sum_{i=1}^{N} \frac{1 - p_{i, y_i}^q}{q}",
        paper="Zhang, Z., Sabuncu, M. R. (2018). Generalized cross entropy loss for training deep "
        "neural networks with noisy labels. NeurIPS. arXiv:1805.07836",
        reduction=_WEIGHTED_MEAN,
        smoothing="none",
        defaults_from="q 0.7: the paper's",
        background="a class like any other",
        absent_class="no term of its own, as in cross-entropy",
        value_range="[0, 1 / q]",
    )

    def __init__(
        self,
        *,
        q: float = 0.7,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)
        self.q = check_number("q", q, 0, 1, above=True)

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_p = -cross_entropies(logits, labels)
        return -torch.expm1(self.q * log_p) / self.q
