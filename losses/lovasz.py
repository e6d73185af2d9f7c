"""Lovasz-Softmax: the Jaccard index extended from label maps to probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import About, SegmentationLoss, check_flag


class LovaszSoftmax(SegmentationLoss):
    """Lovasz-Softmax loss: at hard predictions exactly 1 - Jaccard of each present class.

    Args:
        batch: sort the voxels of the whole batch together instead of image by image.
        ignore_index: label of voxels to leave out.
    """

    name = "lovasz_softmax"
    about = About(
        title="Lovasz-Softmax loss",
        family="region",
        formula=r"L = \frac{1}{|C|} \sum_{c \in C} \overline{\Delta_{J_c}}(m(c)), \quad"
        r" m_i(c) = | g_{ic} - p_{ic} |",
        paper="Berman, M., Triki, A. R., Blaschko, M. B. (2018). The Lovasz-Softmax loss: a "
        "tractable surrogate for the optimization of the intersection-over-union measure in "
        "neural networks. CVPR. doi:10.1109/CVPR.2018.00464, arXiv:1705.08790",
        reduction="mean over the classes present in an image, then over images (batch=True: over "
        "the classes present in the batch)",
        smoothing="none",
        background="a class like any other",
        absent_class="left out of the mean, so no term of its own; its probability only takes "
        "from the classes that are present",
        value_range="[0, 1]",
    )

    def __init__(self, *, batch: bool = False, ignore_index: int | None = None) -> None:
        super().__init__(ignore_index=ignore_index)
        self.batch = check_flag("batch", batch)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        classes = logits.shape[1]
        probabilities = logits.flatten(2).softmax(1).transpose(0, 1)  # (C, B, N)
        reference = labels.flatten(1) == torch.arange(classes, device=labels.device).view(-1, 1, 1)
        ignored = None if valid is None else ~valid.flatten(1).expand_as(reference)
        if ignored is not None:
            reference = reference & ~ignored
        if self.batch:
            probabilities, reference = probabilities.flatten(1), reference.flatten(1)
            ignored = None if ignored is None else ignored.flatten(1)

        present = reference.any(-1)  # (C, B), or (C,) for the pooled batch
        reference = reference[present]
        errors = (reference.to(probabilities.dtype) - probabilities[present]).abs()
        if ignored is not None:  # sorted behind every valid voxel, where they cannot count
            errors = errors.masked_fill(ignored[present], -1)
        terms = lovasz_extension(errors, reference)
        # A present class weighs 1 / (classes present in its image); images without a valid voxel
        # have no present class at all.
        per_image = present.sum(0, keepdim=True).expand_as(present)[present]
        images = (present.sum(0) > 0).sum()
        return (terms / per_image).sum() / images


def lovasz_extension(errors: Tensor, reference: Tensor) -> Tensor:
    """Lovasz extension of the Jaccard loss at the errors of each row.

    With errors sorted from the largest, the k-th is multiplied by what the Jaccard loss gains
    when its voxel becomes wrong. In closed form the gain is 1 / U for a reference voxel and
    I / (U (U - 1)) for any other, with U and I the union and intersection after the step: this
    does not subtract nearly equal Jaccard values, which in float32 costs digits in large images.

    Args:
        errors: (R, N), >= 0; below 0 for voxels that do not count.
        reference: (R, N), bool, at least one True in each row.
    """
    errors, order = errors.sort(-1, descending=True)
    foreground = reference.gather(-1, order)
    volume = foreground.sum(-1, keepdim=True, dtype=torch.int32)
    hit = foreground.cumsum(-1, dtype=torch.int32)  # ten times faster than int64 on a CPU
    rank = torch.arange(1, errors.shape[-1] + 1, device=errors.device, dtype=torch.int32)
    union = (volume + rank - hit).to(errors.dtype)
    intersection = (volume - hit).to(errors.dtype)
    gain = torch.where(foreground, 1 / union, intersection / (union * (union - 1).clamp_min(1)))
    return (errors.clamp_min(0) * gain).sum(-1)
