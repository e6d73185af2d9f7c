"""Region losses of the difference between p and g at each voxel, which counts cannot express."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .base import About, check_number
from .counts import class_masks
from .overlap import (
    ABSENT,
    BACKGROUND,
    DEFAULTS,
    REDUCTION,
    SMOOTHING,
    OverlapLoss,
    RegionLoss,
    ratio,
)

Total = Callable[[Tensor], Tensor]


class DifferenceLoss(RegionLoss):
    """A region loss whose terms follow from sums over voxels.

    Args:
        **options: those of RegionLoss.
    """

    def voxel_terms(self, p: Tensor, reference: Tensor, total: Total) -> Tensor:
        """(B, C): the term of each image and class.

        Args:
            p: (B, C, N), probabilities.
            reference: (B, C, N), bool, True where the label is the class; or the soft labels.
            total: sums (B, C, N) over valid voxels, and over images if the batch is pooled.
        """
        raise NotImplementedError

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        p = logits.flatten(2).softmax(1)
        soft = labels.is_floating_point()
        reference = labels.flatten(2) if soft else class_masks(labels, logits.shape[1])
        total = partial(voxel_sum, valid=valid, pooled=self.batch)
        counted = total(reference).sum(1, keepdim=True) > 0
        return self.reduce(self.voxel_terms(p, reference, total), counted)


def voxel_sum(values: Tensor, *, valid: Tensor | None, pooled: bool) -> Tensor:
    """(B, C), or (1, C) if pooled: sums of (B, C, N) over valid voxels."""
    if valid is not None:
        values = values * valid.flatten(1).unsqueeze(1)
    sums = values.sum(2)
    return sums.sum(0, keepdim=True) if pooled else sums


class SensitivitySpecificity(DifferenceLoss):
    """Mean squared error inside and outside each class, weighted against each other.

    Args:
        r: share of the error inside the class (sensitivity), 0 to 1; outside has 1 - r.
        **options: those of RegionLoss.
    """

    name = "sensitivity_specificity"
    about = About(
        title="Sensitivity-specificity loss",
        family="region",
        formula=r"L = \frac{1}{C} \sum_{c=1}^{C} \left("
        r" r \frac{\sum_i (g_{ic} - p_{ic})^2 g_{ic}}{\sum_i g_{ic}} +"
        r" (1 - r) \frac{\sum_i (g_{ic} - p_{ic})^2 (1 - g_{ic})}{\sum_i (1 - g_{ic})} \right)",
        paper="Brosch, T., Yoo, Y., Tang, L. Y. W., Li, D. K. B., Traboulsee, A., Tam, R. (2015). "
        "Deep convolutional encoder networks for multiple sclerosis lesion segmentation. MICCAI. "
        "doi:10.1007/978-3-319-24574-4_1",
        reduction=REDUCTION,
        smoothing="none: both denominators count voxels of the reference",
        defaults_from="r 0.05: NiftyNet's (0.1 in the Loss Odyssey's code)",
        background=BACKGROUND,
        absent_class="its sensitivity term is 0; its specificity term pushes its probability down "
        "at every voxel",
        value_range="[0, 1]",
    )

    def __init__(self, *, r: float = 0.05, **options: Any) -> None:
        super().__init__(**options)
        self.r = check_number("r", r, 0, 1)

    def voxel_terms(self, p: Tensor, reference: Tensor, total: Total) -> Tensor:
        inside = total((1 - p).square() * reference) / total(reference).clamp_min(1)
        outside = total(p.square() * ~reference) / total(~reference).clamp_min(1)
        return self.r * inside + (1 - self.r) * outside


class NoiseRobustDice(DifferenceLoss):
    """Noise-robust Dice loss: between Dice (gamma 2) and mean absolute error (gamma 1).

    The denominator is the paper's, sum p^2 + sum g^2. (The code of its authors, PyMIC, has
    sum p + sum g.)

    Args:
        gamma: exponent of the difference, 1 to 2; with 2 this is Dice with squared_pred=True.
        smooth_dr: added to the denominator, > 0.
        **options: those of RegionLoss.
    """

    name = "noise_robust_dice"
    about = About(
        title="Noise-robust Dice loss",
        family="region",
        formula=r"L = \frac{1}{C} \sum_{c=1}^{C} \frac{\sum_i | p_{ic} - g_{ic} |^{\gamma}}"
        r"{\sum_i p_{ic}^2 + \sum_i g_{ic}^2}",
        paper="Wang, G. et al. (2020). A noise-robust framework for automatic segmentation of "
        "COVID-19 pneumonia lesions from CT images. IEEE Trans. Med. Imaging 39(8), 2653-2663. "
        "doi:10.1109/TMI.2020.3000314",
        reduction=REDUCTION,
        smoothing="smooth_dr below the fraction line, 1e-5; nothing above",
        defaults_from="gamma 1.5: the paper's; smooth_dr 1e-5: ours, as in dice",
        background=BACKGROUND,
        absent_class="the term is sum p^gamma over sum p^2: at least 1, and for gamma below 2 "
        "smaller when the class is predicted with more certainty, so that descent raises it, until "
        "sum p^2 falls below the smoothing",
        value_range="[0, inf); [0, 1] for gamma 2",
    )

    def __init__(self, *, gamma: float = 1.5, smooth_dr: float = 1e-5, **options: Any) -> None:
        super().__init__(**options)
        self.gamma = check_number("gamma", gamma, 1, 2)
        self.smooth_dr = check_number("smooth_dr", smooth_dr, 0, above=True)

    def voxel_terms(self, p: Tensor, reference: Tensor, total: Total) -> Tensor:
        difference = torch.where(reference, 1 - p, p)
        return total(difference**self.gamma) / (
            total(p.square()) + total(reference) + self.smooth_dr
        )


class MetricLoss(OverlapLoss, DifferenceLoss):
    """Overlap loss whose true positives are (sum p + sum g - sum |p - g|) / 2.

    For hard labels that is sum p g, and the loss that of Dice or Jaccard. For soft labels it is
    smallest at p = g, which sum p g is not.

    Args:
        label_smoothing: share of each label that is spread evenly over all classes, 0 to 1.
        **options: those of OverlapLoss.
    """

    compute = DifferenceLoss.compute

    def __init__(self, *, label_smoothing: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.label_smoothing = check_number("label_smoothing", label_smoothing, 0, 1)

    def counts(self, p: Tensor, reference: Tensor, total: Total) -> tuple[Tensor, Tensor]:
        """(B, C) each: true positives and sum p + sum g."""
        g = (1 - self.label_smoothing) * reference.to(p.dtype)
        g = g + self.label_smoothing / p.shape[1]
        both = total(p) + total(g)
        return (both - total((p - g).abs())) / 2, both


class DiceMetric(MetricLoss):
    """Dice semimetric loss: Dice for hard labels, and right for soft ones as well.

    Args:
        **options: those of MetricLoss.
    """

    name = "dice_metric"
    about = About(
        title="Dice semimetric loss",
        family="region",
        formula=r"L = 1 - \frac{1}{C} \sum_{c=1}^{C} \frac{2 TP_c}{P_c + G_c}, \quad"
        r" TP_c = \frac{P_c + G_c - \sum_i | p_{ic} - g_{ic} |}{2}",
        paper="Wang, Z., Popordanoska, T., Bertels, J., Lemmens, R., Blaschko, M. B. (2023). Dice "
        "semimetric losses: optimizing the Dice score with soft labels. MICCAI. arXiv:2303.16296",
        reduction=REDUCTION,
        smoothing=SMOOTHING,
        defaults_from="label_smoothing 0: ours, labels as they are; " + DEFAULTS,
        background=BACKGROUND,
        absent_class=ABSENT + "; label_smoothing asks for a share of it at every voxel",
        value_range="[0, 1)",
    )

    def voxel_terms(self, p: Tensor, reference: Tensor, total: Total) -> Tensor:
        overlap, both = self.counts(p, reference, total)
        return 1 - ratio(2 * overlap + self.smooth_nr, both + self.smooth_dr)


class JaccardMetric(MetricLoss):
    """Jaccard metric loss: Jaccard for hard labels, and right for soft ones as well.

    Args:
        **options: those of MetricLoss.
    """

    name = "jaccard_metric"
    about = About(
        title="Jaccard metric loss",
        family="region",
        formula=r"L = 1 - \frac{1}{C} \sum_{c=1}^{C} \frac{TP_c}{P_c + G_c - TP_c}, \quad"
        r" TP_c = \frac{P_c + G_c - \sum_i | p_{ic} - g_{ic} |}{2}",
        paper="Wang, Z., Ning, X., Blaschko, M. B. (2023). Jaccard metric losses: optimizing the "
        "Jaccard index with soft labels. NeurIPS. arXiv:2302.05666",
        reduction=REDUCTION,
        smoothing=SMOOTHING,
        defaults_from=DiceMetric.about.defaults_from,
        background=BACKGROUND,
        absent_class=ABSENT + "; label_smoothing asks for a share of it at every voxel",
        value_range="[0, 1)",
    )

    def voxel_terms(self, p: Tensor, reference: Tensor, total: Total) -> Tensor:
        overlap, both = self.counts(p, reference, total)
        return 1 - ratio(overlap + self.smooth_nr, both - overlap + self.smooth_dr)
