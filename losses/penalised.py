"""Cross-entropy plus a penalty, on the sizes of the classes or on the logits of a neighbourhood."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .base import About, SegmentationLoss, check_number, weighted_mean
from .counts import soft_counts
from .probabilities import cross_entropies
from .reduction import reduced_voxels


class CrossEntropySizePrior(SegmentationLoss):
    """Cross-entropy plus the L1 distance between predicted and true proportions of the classes.

    Args:
        alpha: factor of the distance, >= 0; with 0 this is cross-entropy.
        weight: class weights of the cross-entropy, one for each class; the prior has none.
        ignore_index: label of voxels to leave out.
    """

    name = "cross_entropy_size_prior"
    about = About(
        title="Cross-entropy with a region-size prior",
        family="distribution",
        formula=r"L = -\frac{1}{N} \sum_{i=1}^{N} \log p_{i, y_i} +"
        r" \alpha \sum_{c=1}^{C} | \hat{\pi}_c - \pi_c |, \quad"
        r" \hat{\pi}_c = \frac{1}{N} \sum_i p_{ic}, \quad \pi_c = \frac{1}{N} \sum_i g_{ic}",
        paper="Liu, B., Dolz, J., Galdran, A., Kobbi, R., Ben Ayed, I. (2024). Do we really need "
        "Dice? The hidden region-size biases of segmentation losses. Med. Image Anal. 91, 103015. "
        "doi:10.1016/j.media.2023.103015, arXiv:2104.08717",
        reduction="cross-entropy: mean over valid voxels, class-weighted if weight is given; "
        "prior: sum over classes, mean over images, without weights, because the proportions of "
        "all classes hang together; it has no term for a voxel, hence no other reduction",
        smoothing="none",
        defaults_from="alpha 1: the authors' code's (there of a mean over classes)",
        background="a class like any other",
        absent_class="its predicted proportion is pushed down to 0 as a whole, by cross-entropy "
        "at every voxel as well",
        value_range="[0, inf)",
    )

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index)
        self.alpha = check_number("alpha", alpha, 0)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        terms = cross_entropies(logits, labels)
        cross = reduced_voxels(terms, labels, valid, self.per_class("weight", logits))
        counts = soft_counts(logits, labels, valid)
        voxels = counts.reference.sum(1, keepdim=True).clamp_min(1)
        distance = ((counts.predicted - counts.reference) / voxels).abs().sum(1)
        return cross + self.alpha * weighted_mean(distance, counts.counted.squeeze(1))


class Nacl(SegmentationLoss):
    """Neighbour-aware calibration: logits are held near the class shares of the neighbourhood.

    The paper sums the penalty over classes; here, as in MONAI, it is their mean.

    Args:
        alpha: factor of the penalty, >= 0; with 0 this is cross-entropy.
        weight: class weights of the mean, one for each class.
        ignore_index: label of voxels to leave out.
        reduction: "mean", "sum" (of weighted terms) or "none" (unweighted term of each voxel).
    """

    name = "nacl"
    about = About(
        title="Neighbour-aware calibration loss (NACL)",
        family="distribution",
        formula=r"L = -\frac{1}{N} \sum_{i=1}^{N} \log p_{i, y_i} +"
        r" \frac{\alpha}{N C} \sum_{i,c} | z_{ic} - \tau_{ic} |, \quad"
        r" \tau_{ic} = \frac{1}{|N_i|} \sum_{j \in N_i} g_{jc}",
        paper="Murugesan, B., Adiga, S., Liu, B., Lombaert, H., Ben Ayed, I., Dolz, J. (2023). "
        "Trust your neighbours: penalty-based constraints for model calibration. MICCAI. "
        "arXiv:2303.06268",
        reduction="mean over valid voxels, class-weighted by the voxel's label if weight is given; "
        "N_i is the voxel with its valid neighbours, 3 voxels wide along each axis",
        smoothing="none",
        defaults_from="alpha 0.1: the paper's, and MONAI's",
        background="a class like any other",
        absent_class="its logits are held near 0 and pushed down by cross-entropy",
        value_range="(0, inf): logits cannot be certain and near a share at once",
    )

    reductions = ("mean", "sum", "none")

    def __init__(
        self,
        *,
        alpha: float = 0.1,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index, reduction=reduction)
        self.alpha = check_number("alpha", alpha, 0)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        terms = cross_entropies(logits, labels)
        neighbours = neighbour_counts(torch.ones_like(labels) if valid is None else valid)
        neighbours = neighbours.clamp_min_(1).to(logits.dtype)
        penalty = torch.zeros_like(terms)
        for label, of_class in enumerate(logits.unbind(1)):
            mask = labels == label if valid is None else (labels == label) & valid
            penalty = penalty + (of_class - neighbour_counts(mask) / neighbours).abs()
        terms = terms + self.alpha / logits.shape[1] * penalty
        return reduced_voxels(
            terms, labels, valid, self.per_class("weight", logits), self.reduction
        )


def neighbour_counts(mask: Tensor) -> Tensor:
    """How many of a voxel and its neighbours, 3 voxels wide along each axis, are True: uint8.

    Shape: (B, *spatial), up to 5 spatial axes, the same for the result.
    """
    counts = mask.to(torch.uint8)
    for axis in range(1, counts.ndim):
        length = counts.shape[axis] - 1
        alone, counts = counts, counts.clone()
        counts.narrow(axis, 1, length).add_(alone.narrow(axis, 0, length))
        counts.narrow(axis, 0, length).add_(alone.narrow(axis, 1, length))
    return counts
