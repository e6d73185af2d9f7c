"""Region losses that look at a voxel's neighbours: soft skeletons, and the share of boundary.

The edge of the image, and ignored voxels, are the end of the world: a structure that reaches them
has no boundary there, because its true extent is unknown.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .base import About, check_count, check_number
from .counts import class_masks, soft_counts
from .morphology import dilated, eroded
from .overlap import BACKGROUND, DEFAULTS, REDUCTION, OverlapLoss, RegionLoss, ratio
from .probabilities import probabilities


class ClDice(RegionLoss):
    """Centre-line Dice: how much of each skeleton, predicted and true, lies in the other volume.

    It judges skeletons only, so it is made to be added to a loss of the volume, such as Dice.

    Args:
        iterations: erosions of the soft skeleton, >= 0: at least the largest radius in voxels.
        smooth: added above and below the fraction lines of both terms, > 0.
        include_background: average over class 0 as well; a background has no meaningful skeleton.
        **options: those of RegionLoss.
    """

    name = "cl_dice"
    about = About(
        title="Centre-line Dice (clDice) loss",
        family="region",
        formula=r"L = 1 - \frac{1}{C} \sum_{c=1}^{C} \frac{2 T_p T_s}{T_p + T_s}, \quad"
        r" T_p = \frac{\sum_i S(p)_i g_i}{\sum_i S(p)_i}, \quad"
        r" T_s = \frac{\sum_i S(g)_i p_i}{\sum_i S(g)_i}",
        paper="Shit, S. et al. (2021). clDice: a novel topology-preserving loss function for "
        "tubular structure segmentation. CVPR. doi:10.1109/CVPR46437.2021.01629, arXiv:2003.07311",
        reduction=REDUCTION,
        smoothing="smooth above and below the fraction lines of both terms, 1 voxel",
        defaults_from="iterations 10: ours (3 in the authors' code and in MONAI); smooth 1: the "
        "authors' code's, and MONAI's; include_background False: the authors' code's",
        background="left out; include_background=True counts class 0 like the others",
        absent_class="T_s is 1 and T_p = smooth / (sum S(p) + smooth): the predicted skeleton is "
        "pushed down until it is shorter than the smoothing of 1 voxel",
        value_range="[0, 1)",
    )

    def __init__(
        self,
        *,
        iterations: int = 10,
        smooth: float = 1.0,
        include_background: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(include_background=include_background, **options)
        self.iterations = check_count("iterations", iterations, 0)
        self.smooth = check_number("smooth", smooth, 0, above=True)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        first = 0 if self.include_background else 1
        classes = torch.arange(first, logits.shape[1], device=labels.device)
        p = probabilities(logits)[:, first:]
        g = labels.unsqueeze(-1).eq(classes).movedim(-1, 1)
        kept = None if valid is None else valid.unsqueeze(1)
        g = (g if kept is None else g & kept).to(p.dtype)
        in_reference = self.share(soft_skeleton(p, kept, self.iterations), g)
        with torch.no_grad():
            skeleton = soft_skeleton(g, kept, self.iterations)
        in_prediction = self.share(skeleton, p)
        terms = 1 - 2 * in_reference * in_prediction / (in_reference + in_prediction)
        terms = pad(terms, (first, 0))  # a column for the background that is left out
        counted = (
            labels.new_ones(len(labels), 1) if valid is None else valid.flatten(1).any(1, True)
        )
        return self.reduce(terms, counted.any(0, keepdim=True) if self.batch else counted)

    def share(self, skeleton: Tensor, volume: Tensor) -> Tensor:
        """(B, C), or (1, C) of the pooled batch: share of a skeleton that lies in a volume."""
        inside, length = (skeleton * volume).flatten(2).sum(2), skeleton.flatten(2).sum(2)
        if self.batch:
            inside, length = inside.sum(0, keepdim=True), length.sum(0, keepdim=True)
        return (inside + self.smooth) / (length + self.smooth)


def soft_skeleton(images: Tensor, kept: Tensor | None, iterations: int) -> Tensor:
    """Skeleton of images (B, C, *spatial) in [0, 1], 0 at voxels that are not ``kept``.

    At each radius the skeleton is what a morphological opening would remove; with r_k what is
    removed at radius k it is 1 - prod_k (1 - r_k). Erosion takes the smallest value among the
    neighbours along the axes, dilation the largest of the whole neighbourhood, diagonals included.
    """
    outside = torch.ones_like(images)
    for _ in range(iterations + 1):
        smaller = eroded(images if kept is None else images.masked_fill(~kept, 1))
        opened = dilated(smaller if kept is None else smaller.masked_fill(~kept, 0))
        outside = outside - outside * (images - opened).relu()
        images = smaller
    skeleton = 1 - outside
    return skeleton if kept is None else skeleton * kept


class BoundaryDou(OverlapLoss):
    """Boundary difference over union: squared Jaccard in which the interior of a class counts less.

    The overlap is discounted by 1 - alpha, where alpha grows with the size of a class against its
    boundary: of a large class mostly the boundary is left, of a small one everything.

    Args:
        max_alpha: largest alpha, 0 to 1; with 0 the loss is the Jaccard loss of squared sums.
        **options: those of OverlapLoss.
    """

    name = "boundary_dou"
    squared = True
    about = About(
        title="Boundary difference over union loss",
        family="region",
        formula=r"L = \frac{1}{C} \sum_{c=1}^{C} \frac{\sum_i p_{ic}^2 + \sum_i g_{ic}^2 -"
        r" 2 \sum_i p_{ic} g_{ic}}{\sum_i p_{ic}^2 + \sum_i g_{ic}^2 -"
        r" (1 + \alpha_c) \sum_i p_{ic} g_{ic}}, \quad \alpha_c = 1 - \frac{2 B_c}{V_c}",
        paper="Sun, F., Luo, Z., Li, S. (2023). Boundary difference over union loss for medical "
        "image segmentation. MICCAI. arXiv:2308.00220",
        reduction=REDUCTION + "; B boundary voxels of V, alpha kept within [0, max_alpha]",
        smoothing="of 1 - L: smooth_nr above and smooth_dr below the fraction line, 1e-5 each",
        defaults_from="max_alpha 0.8: the authors' code's; " + DEFAULTS,
        background=BACKGROUND,
        absent_class="counts like any other class: the term is near 1 unless its predicted volume "
        "falls below the smoothing; until then its gradient is almost 0",
        value_range="[0, 1)",
    )

    soft_labels = False

    def __init__(self, *, max_alpha: float = 0.8, **options: Any) -> None:
        super().__init__(**options)
        self.max_alpha = check_number("max_alpha", max_alpha, 0, 1)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        counts = soft_counts(logits, labels, valid, squared=True)
        on_boundary = boundary(labels, valid).flatten(1).unsqueeze(1)
        length = (class_masks(labels, logits.shape[1]) & on_boundary).sum(2)
        if self.batch:
            counts, length = counts.pooled(), length.sum(0, keepdim=True)
        alpha = (1 - 2 * length / counts.reference.clamp_min(1)).clamp(0, self.max_alpha)
        inner = (1 - alpha) * counts.overlap
        difference = (counts.predicted - counts.overlap) + (counts.reference - counts.overlap)
        terms = 1 - ratio(inner + self.smooth_nr, difference + inner + self.smooth_dr)
        return self.reduce(terms, counts.counted)


def boundary(labels: Tensor, valid: Tensor | None) -> Tensor:
    """(B, *spatial), bool: True where a valid neighbour along an axis has another label."""
    found = torch.zeros_like(labels, dtype=torch.bool)
    for axis in range(1, labels.ndim):
        length = labels.shape[axis] - 1
        left, right = labels.narrow(axis, 0, length), labels.narrow(axis, 1, length)
        edge = left != right
        if valid is not None:
            edge = edge & valid.narrow(axis, 0, length) & valid.narrow(axis, 1, length)
        found.narrow(axis, 0, length).logical_or_(edge)
        found.narrow(axis, 1, length).logical_or_(edge)
    return found
