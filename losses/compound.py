"""Sums of a region loss and a voxel loss."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .base import About, check_number, weighted_mean
from .distribution import focal_terms, voxel_weights
from .generalized_dice import GeneralizedDice
from .overlap import Dice


class DiceCE(Dice):
    """Dice loss plus cross-entropy, both of the softmax.

    Args:
        lambda_dice: factor of the Dice loss, >= 0.
        lambda_ce: factor of the cross-entropy, >= 0.
        **options: those of Dice; ``weight`` acts on both terms, ``reduction`` is "mean".
    """

    name = "dice_ce"
    about = About(
        title="Dice + cross-entropy",
        family="compound",
        formula=r"L = \lambda_D L_{\mathrm{Dice}} + \lambda_{CE} L_{CE}",
        paper="Isensee, F., Jaeger, P. F., Kohl, S. A. A., Petersen, J., Maier-Hein, K. H. (2021). "
        "nnU-Net: a self-configuring method for deep learning-based biomedical image "
        "segmentation. Nature Methods 18, 203-211. doi:10.1038/s41592-020-01008-z, "
        "arXiv:1809.10486",
        reduction="Dice: mean over classes and images; cross-entropy: mean over voxels",
        smoothing="Dice: smooth_nr above and smooth_dr below the fraction line, 1e-5 each",
        background="a class like any other; include_background=False leaves it out of Dice only",
        absent_class="Dice: a term near 1 with almost no gradient; cross-entropy pushes its "
        "probability down at every voxel",
        value_range="[0, inf)",
    )
    reductions = ("mean",)

    def __init__(self, *, lambda_dice: float = 1.0, lambda_ce: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.lambda_dice = check_number("lambda_dice", lambda_dice, 0)
        self.lambda_ce = check_number("lambda_ce", lambda_ce, 0)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        dice = super().compute(logits, labels, valid)
        terms = cross_entropy(logits, labels, reduction="none")
        cross = weighted_mean(terms, voxel_weights(labels, valid, self.weight))
        return self.lambda_dice * dice + self.lambda_ce * cross


class DiceFocal(Dice):
    """Dice loss plus focal loss, both of the softmax.

    Args:
        gamma: strength of the focus, >= 0.
        alpha: as in Focal.
        lambda_dice: factor of the Dice loss, >= 0.
        lambda_focal: factor of the focal loss, >= 0.
        **options: those of Dice; ``weight`` acts on both terms, ``reduction`` is "mean".
    """

    name = "dice_focal"
    about = About(
        title="Dice + focal loss",
        family="compound",
        formula=r"L = \lambda_D L_{\mathrm{Dice}} + \lambda_F L_{\mathrm{focal}}",
        paper="Zhu, W. et al. (2019). AnatomyNet: deep learning for fast and fully automated "
        "whole-volume segmentation of head and neck anatomy. Medical Physics 46(2), 576-589. "
        "doi:10.1002/mp.13300, arXiv:1808.05238",
        reduction="Dice: mean over classes and images; focal: mean over voxels",
        smoothing="Dice: smooth_nr above and smooth_dr below the fraction line, 1e-5 each",
        background="a class like any other; include_background=False leaves it out of Dice only",
        absent_class="Dice: a term near 1 with almost no gradient; focal pushes its probability "
        "down where it is still large",
        value_range="[0, inf)",
    )
    reductions = ("mean",)

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        alpha: float | None = None,
        lambda_dice: float = 1.0,
        lambda_focal: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.gamma = check_number("gamma", gamma, 0)
        self.alpha = None if alpha is None else check_number("alpha", alpha, 0, 1)
        self.lambda_dice = check_number("lambda_dice", lambda_dice, 0)
        self.lambda_focal = check_number("lambda_focal", lambda_focal, 0)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        dice = super().compute(logits, labels, valid)
        terms = focal_terms(logits, labels, self.gamma, self.alpha)
        focal = weighted_mean(terms, voxel_weights(labels, valid, self.weight))
        return self.lambda_dice * dice + self.lambda_focal * focal


class GeneralizedDiceCE(GeneralizedDice):
    """Generalized Dice loss plus cross-entropy, both of the softmax.

    Args:
        lambda_gdl: factor of the Generalized Dice loss, >= 0.
        lambda_ce: factor of the cross-entropy, >= 0.
        **options: those of GeneralizedDice; ``reduction`` is "mean".
    """

    name = "generalized_dice_ce"
    about = About(
        title="Generalized Dice + cross-entropy",
        family="compound",
        formula=r"L = \lambda_G L_{\mathrm{GDL}} + \lambda_{CE} L_{CE}",
        paper="Terms: Sudre, C. H. et al. (2017). doi:10.1007/978-3-319-67558-9_28, "
        "arXiv:1707.03237; summed with cross-entropy as in Isensee, F. et al. (2021). "
        "doi:10.1038/s41592-020-01008-z",
        reduction="Generalized Dice: mean over images; cross-entropy: mean over voxels",
        smoothing="Generalized Dice: smooth_nr above and smooth_dr below the fraction line",
        background="a class like any other; include_background=False leaves it out of "
        "Generalized Dice only",
        absent_class="Generalized Dice: set by absent; cross-entropy pushes its probability down "
        "at every voxel",
        value_range="[0, inf)",
    )
    reductions = ("mean",)

    def __init__(self, *, lambda_gdl: float = 1.0, lambda_ce: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.lambda_gdl = check_number("lambda_gdl", lambda_gdl, 0)
        self.lambda_ce = check_number("lambda_ce", lambda_ce, 0)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        generalized = super().compute(logits, labels, valid)
        terms = cross_entropy(logits, labels, reduction="none")
        cross = weighted_mean(terms, voxel_weights(labels, valid, None))
        return self.lambda_gdl * generalized + self.lambda_ce * cross


class Combo(Dice):
    """Combo loss: weighted binary cross-entropies of each class minus Dice.

    Args:
        alpha: share of the cross-entropy, 0 to 1; Dice has 1 - alpha.
        beta: weight of false negatives in the cross-entropy, 0 to 1; false positives have
            1 - beta.
        **options: those of Dice; ``weight`` acts on Dice, ``reduction`` is "mean".
    """

    name = "combo"
    about = About(
        title="Combo loss",
        family="compound",
        formula=r"L = -\frac{\alpha}{N C} \sum_{i,c} \left( \beta g_{ic} \log p_{ic} +"
        r" (1 - \beta) (1 - g_{ic}) \log (1 - p_{ic}) \right) - (1 - \alpha) D",
        paper="Taghanaki, S. A. et al. (2019). Combo loss: handling input and output imbalance in "
        "multi-organ segmentation. Comput. Med. Imaging Graph. 75, 24-33. "
        "doi:10.1016/j.compmedimag.2019.04.005, arXiv:1805.02798",
        reduction="cross-entropy: mean over voxels and classes; Dice: mean over classes and "
        "images (the paper adds the classes up)",
        smoothing="Dice: smooth_nr above and smooth_dr below the fraction line, 1e-5 each",
        background="a class like any other; include_background=False leaves it out of Dice only",
        absent_class="Dice: a term near 0 with almost no gradient; cross-entropy pushes its "
        "probability down at every voxel",
        value_range="[alpha - 1, inf); alpha - 1 only for the perfect prediction",
    )
    reductions = ("mean",)

    def __init__(self, *, alpha: float = 0.5, beta: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, 0, 1)
        self.beta = check_number("beta", beta, 0, 1)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        dice = 1 - super().compute(logits, labels, valid)
        positive = cross_entropy(logits, labels, reduction="none")  # -log p of the label's class
        classes = torch.arange(logits.shape[1], device=logits.device)
        is_label = labels.unsqueeze(-1).eq(classes).movedim(-1, 1)
        negative = -log_complement(logits).masked_fill(is_label, 0).sum(1)
        terms = (self.beta * positive + (1 - self.beta) * negative) / logits.shape[1]
        return self.alpha * weighted_mean(terms, valid) - (1 - self.alpha) * dice


def log_complement(logits: Tensor) -> Tensor:
    """log(1 - softmax) along dimension 1, accurate where the softmax rounds to 1.

    1 - p of a class is summed from the probabilities of the other classes, before and after it, so
    nothing cancels and a voxel that is confidently wrong keeps its gradient (in float32 up to a
    logit 87 above the others).
    """
    p = logits.softmax(1).unbind(1)
    before = accumulate(p[:-1], initial=0)
    after = reversed(list(accumulate(p[:0:-1], initial=0)))
    others = torch.stack([b + a for b, a in zip(before, after, strict=True)], 1)
    return others.clamp_min(torch.finfo(others.dtype).tiny).log()
