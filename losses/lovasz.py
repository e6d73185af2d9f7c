"""Lovasz losses: the Jaccard index extended from label maps to probabilities or margins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .base import NO_OPTIONS, About, SegmentationLoss, check_flag
from .counts import class_masks
from .odds import log_odds


class LovaszSoftmax(SegmentationLoss):
    """Lovasz-Softmax loss: at hard predictions exactly 1 - Jaccard of each present class.

    Args:
        batch: sort the voxels of the whole batch together instead of image by image.
        weight: class weights of the mean over the classes present, one for each class.
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
        "the classes present in the batch), class-weighted if weight is given",
        smoothing="none",
        defaults_from=NO_OPTIONS + "; batch=False is ours, the authors' code pools the batch",
        background="a class like any other",
        absent_class="left out of the mean, so no term of its own; its probability only takes "
        "from the classes that are present",
        value_range="[0, 1]",
    )

    def __init__(
        self,
        *,
        batch: bool = False,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(weight=weight, ignore_index=ignore_index)
        self.batch = check_flag("batch", batch)

    def errors(self, logits: Tensor, reference: Tensor) -> Tensor:
        """(B, C, N): how wrong each voxel is; what is below 0 counts as 0."""
        return (reference.to(logits.dtype) - logits.softmax(1)).abs()

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        logits = logits.flatten(2)
        reference = class_masks(labels, logits.shape[1])
        errors = self.errors(logits, reference)
        if valid is not None:  # not in the reference, and no error: where they cannot count
            kept = valid.flatten(1).unsqueeze(1)
            reference, errors = reference & kept, errors.masked_fill(~kept, -1)
        errors, reference = errors.transpose(0, 1), reference.transpose(0, 1)  # (C, B, N)
        if self.batch:
            errors, reference = errors.flatten(1), reference.flatten(1)

        present = reference.any(-1)  # (C, B), or (C,) for the pooled batch
        terms = lovasz_extension(errors[present], reference[present])
        # The weights of the classes present add up to 1 in each image; images without a valid
        # voxel, or with weight 0 throughout, have none and do not take part.
        weight = self.per_class("weight", logits)
        weights = present.to(terms.dtype)
        if weight is not None:
            weights = weights * weight.view(-1, *[1] * (present.ndim - 1))
        sums = weights.sum(0)
        shares = weights / torch.where(sums > 0, sums, 1)
        return (terms * shares[present]).sum() / (sums > 0).sum().clamp_min(1)


class LovaszHinge(LovaszSoftmax):
    """Lovasz hinge of each class against the rest, at the log-odds of the softmax.

    The score of a class is the logarithm of its odds, its logit minus the logsumexp of the others,
    so that classes compete and two classes have the binary hinge of the difference of their logits.

    Args:
        **options: those of LovaszSoftmax.
    """

    name = "lovasz_hinge"
    about = About(
        title="Lovasz hinge loss",
        family="region",
        formula=r"L = \frac{1}{|C|} \sum_{c \in C} \overline{\Delta_{J_c}}(m(c)), \quad"
        r" m_i(c) = \max (0, 1 - (2 g_{ic} - 1) f_{ic}), \quad"
        r" f_{ic} = \log \frac{p_{ic}}{1 - p_{ic}}",
        paper="Berman, M., Triki, A. R., Blaschko, M. B. (2018). The Lovasz-Softmax loss: a "
        "tractable surrogate for the optimization of the intersection-over-union measure in "
        "neural networks. CVPR. doi:10.1109/CVPR.2018.00464, arXiv:1705.08790; Yu, J., Blaschko, "
        "M. B. (2020). The Lovasz hinge: a novel convex surrogate for submodular losses. IEEE "
        "Trans. Pattern Anal. Mach. Intell. 42(3). doi:10.1109/TPAMI.2018.2883039, "
        "arXiv:1512.07797",
        reduction="mean over the classes present in an image, then over images (batch=True: over "
        "the classes present in the batch), class-weighted if weight is given",
        smoothing="none",
        defaults_from=NO_OPTIONS + "; batch=False is the authors' code's (per_image)",
        background="a class like any other",
        absent_class="left out of the mean, so no term of its own; its logit is pushed down where "
        "the classes that are present lack their margin",
        value_range="[0, inf); 0 where every log-odds is beyond the margin of 1",
    )

    def errors(self, logits: Tensor, reference: Tensor) -> Tensor:
        odds = log_odds(logits)
        return 1 - torch.where(reference, odds, -odds)


def lovasz_extension(errors: Tensor, reference: Tensor) -> Tensor:
    """Lovasz extension of the Jaccard loss at the errors of each row.

    With errors sorted from the largest, the k-th is multiplied by what the Jaccard loss gains
    when its voxel becomes wrong. In closed form the gain is 1 / U for a reference voxel and
    I / (U (U - 1)) for any other, with U and I the union and intersection after the step: this
    does not subtract nearly equal Jaccard values, which in float32 costs digits in large images.

    Args:
        errors: (R, N); what is below 0 counts as 0.
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
