"""Sums of a region loss and a voxel loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .base import About, check_number, check_vector, weighted_mean
from .counts import SoftCounts, class_masks
from .distribution import FOCAL_DEFAULTS, TOPK_DEFAULT, focal_terms, topk_mean
from .generalized_dice import GeneralizedDice
from .odds import log_odds
from .overlap import DEFAULTS, DICE_DEFAULTS, Dice, OverlapLoss, power
from .probabilities import cross_entropies
from .reduction import reduced_voxels, voxel_weights
from .sums import Sum


class DiceCE(Sum, Dice):
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
        "arXiv:1904.08128",
        reduction="Dice: mean over classes and images; cross-entropy: mean over voxels",
        smoothing="Dice: smooth_nr above and smooth_dr below the fraction line, 1e-5 each",
        defaults_from="lambda_dice 1, lambda_ce 1: nnU-Net's, and MONAI's; " + DICE_DEFAULTS,
        background="a class like any other; include_background=False leaves it out of Dice only",
        absent_class="Dice: a term near 1 with almost no gradient; cross-entropy pushes its "
        "probability down at every voxel",
        value_range="[0, inf)",
    )
    soft_labels = True

    def __init__(self, *, lambda_dice: float = 1.0, lambda_ce: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.set_factors(lambda_dice=lambda_dice, lambda_ce=lambda_ce)

    def second(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        weight = self.per_class("weight", logits)
        terms = cross_entropies(logits, labels, weight)
        return reduced_voxels(terms, labels, valid, weight)


class DiceFocal(Sum, Dice):
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
        defaults_from=f"lambda_dice 1, lambda_focal 1: MONAI's; {FOCAL_DEFAULTS}; {DICE_DEFAULTS}",
        background="a class like any other; include_background=False leaves it out of Dice only",
        absent_class="Dice: a term near 1 with almost no gradient; focal pushes its probability "
        "down where it is still large",
        value_range="[0, inf)",
    )

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
        self.set_factors(lambda_dice=lambda_dice, lambda_focal=lambda_focal)

    def second(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        terms = focal_terms(cross_entropies(logits, labels), labels, self.gamma, self.alpha)
        return reduced_voxels(terms, labels, valid, self.per_class("weight", logits))


class DiceBCE(Sum, Dice):
    """Dice loss plus the binary cross-entropies of every class of the softmax.

    For two classes the sum is Dice plus cross-entropy, and the binary loss of a sigmoid of the
    difference of the two logits.

    Args:
        lambda_dice: factor of the Dice loss, >= 0.
        lambda_bce: factor of the binary cross-entropy, >= 0.
        **options: those of Dice; ``weight`` acts on Dice, ``reduction`` is "mean".
    """

    name = "dice_bce"
    about = About(
        title="Dice + binary cross-entropy",
        family="compound",
        formula=r"L = \lambda_D L_{\mathrm{Dice}} - \frac{\lambda_{BCE}}{N C} \sum_{i,c} \left("
        r" g_{ic} \log p_{ic} + (1 - g_{ic}) \log (1 - p_{ic}) \right)",
        paper="Zhou, Z., Siddiquee, M. M. R., Tajbakhsh, N., Liang, J. (2018). UNet++: a nested "
        "U-Net architecture for medical image segmentation. DLMIA. "
        "doi:10.1007/978-3-030-00889-5_1, arXiv:1807.10165",
        reduction="Dice: mean over classes and images; cross-entropy: mean over voxels and classes",
        smoothing="Dice: smooth_nr above and smooth_dr below the fraction line, 1e-5 each",
        defaults_from="lambda_dice 1, lambda_bce 1: nnU-Net's; " + DICE_DEFAULTS,
        background="a class like any other; include_background=False leaves it out of Dice only",
        absent_class="Dice: a term near 1 with almost no gradient; cross-entropy pushes its "
        "probability down at every voxel",
        value_range="[0, inf)",
    )

    def __init__(
        self, *, lambda_dice: float = 1.0, lambda_bce: float = 1.0, **options: Any
    ) -> None:
        super().__init__(**options)
        self.set_factors(lambda_dice=lambda_dice, lambda_bce=lambda_bce)

    def second(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        positive, negative = binary_cross_entropies(logits, labels)
        return weighted_mean(positive + negative, valid)


class DiceTopk(Sum, Dice):
    """Dice loss plus the cross-entropy of the hardest k percent of the batch's voxels.

    Args:
        k: percentage of the valid voxels that count, 0 < k <= 100; at least one voxel counts.
        lambda_dice: factor of the Dice loss, >= 0.
        lambda_topk: factor of the cross-entropy, >= 0.
        **options: those of Dice; ``weight`` acts on both terms, ``reduction`` is "mean".
    """

    name = "dice_topk"
    about = About(
        title="Dice + top-k cross-entropy",
        family="compound",
        formula=r"L = \lambda_D L_{\mathrm{Dice}} + \lambda_K L_{\mathrm{TopK}}",
        paper="Ma, J. et al. (2021). Loss odyssey in medical image segmentation. Med. Image Anal. "
        "71, 102035. doi:10.1016/j.media.2021.102035",
        reduction="Dice: mean over classes and images; cross-entropy: mean over the k percent of "
        "voxels where it is largest, pooled over the batch",
        smoothing="Dice: smooth_nr above and smooth_dr below the fraction line, 1e-5 each",
        defaults_from="lambda_dice 1, lambda_topk 1: nnU-Net's, and the Loss Odyssey's; "
        f"{TOPK_DEFAULT}; {DICE_DEFAULTS}",
        background="a class like any other; include_background=False leaves it out of Dice only",
        absent_class="Dice: a term near 1 with almost no gradient; cross-entropy pushes its "
        "probability down at the hardest voxels",
        value_range="[0, inf)",
    )
    soft_labels = True

    def __init__(
        self,
        *,
        k: float = 10.0,
        lambda_dice: float = 1.0,
        lambda_topk: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.k = check_number("k", k, 0, 100, above=True)
        self.set_factors(lambda_dice=lambda_dice, lambda_topk=lambda_topk)

    def second(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        weight = self.per_class("weight", logits)
        terms = cross_entropies(logits, labels, weight)
        weights = voxel_weights(labels, valid, weight)
        return topk_mean(terms, weights, valid, self.k)


class GeneralizedDiceCE(Sum, GeneralizedDice):
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
        defaults_from="lambda_gdl 1, lambda_ce 1: nnU-Net v1's; "
        + GeneralizedDice.about.defaults_from,
        background="a class like any other; include_background=False leaves it out of "
        "Generalized Dice only",
        absent_class="Generalized Dice: set by absent; cross-entropy pushes its probability down "
        "at every voxel",
        value_range="[0, inf)",
    )
    soft_labels = True

    def __init__(self, *, lambda_gdl: float = 1.0, lambda_ce: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.set_factors(lambda_gdl=lambda_gdl, lambda_ce=lambda_ce)

    def second(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        return weighted_mean(cross_entropies(logits, labels), valid)


class GeneralizedDiceFocal(Sum, GeneralizedDice):
    """Generalized Dice loss plus focal loss, both of the softmax.

    Args:
        gamma: strength of the focus, >= 0.
        alpha: as in Focal.
        lambda_gdl: factor of the Generalized Dice loss, >= 0.
        lambda_focal: factor of the focal loss, >= 0.
        **options: those of GeneralizedDice; ``reduction`` is "mean".
    """

    name = "generalized_dice_focal"
    about = About(
        title="Generalized Dice + focal loss",
        family="compound",
        formula=r"L = \lambda_G L_{\mathrm{GDL}} + \lambda_F L_{\mathrm{focal}}",
        paper="Terms: Sudre, C. H. et al. (2017). doi:10.1007/978-3-319-67558-9_28, "
        "arXiv:1707.03237; Lin, T.-Y. et al. (2017). doi:10.1109/ICCV.2017.324, arXiv:1708.02002; "
        "summed as in MONAI",
        reduction="Generalized Dice: mean over images; focal: mean over voxels",
        smoothing="Generalized Dice: smooth_nr above and smooth_dr below the fraction line",
        defaults_from=f"lambda_gdl 1, lambda_focal 1: MONAI's; {FOCAL_DEFAULTS}; "
        f"{GeneralizedDice.about.defaults_from}",
        background="a class like any other; include_background=False leaves it out of "
        "Generalized Dice only",
        absent_class="Generalized Dice: set by absent; focal pushes its probability down where it "
        "is still large",
        value_range="[0, inf)",
    )

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        alpha: float | None = None,
        lambda_gdl: float = 1.0,
        lambda_focal: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.gamma = check_number("gamma", gamma, 0)
        self.alpha = None if alpha is None else check_number("alpha", alpha, 0, 1)
        self.set_factors(lambda_gdl=lambda_gdl, lambda_focal=lambda_focal)

    def second(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        terms = focal_terms(cross_entropies(logits, labels), labels, self.gamma, self.alpha)
        return weighted_mean(terms, valid)


class ExponentialLogarithmic(Sum, Dice):
    """Exponential logarithmic loss: powers of the logarithms of Dice and of the probabilities.

    Args:
        gamma_dice: exponent of -log D, 0 to 1; below 1 what is nearly right keeps a gradient.
        gamma_ce: exponent of -log p, 0 to 1.
        lambda_dice: factor of the Dice term, >= 0.
        lambda_ce: factor of the cross-entropy term, >= 0.
        frequencies: of each class in the training set, in any unit, for the weights of the
            cross-entropy; None takes those of the batch.
        smooth_nr: the paper's pseudocount, added above the fraction line of Dice, > 0.
        smooth_dr: the same, below.
        **options: those of Dice; ``weight`` acts on Dice, ``reduction`` is "mean".
    """

    name = "exponential_logarithmic"
    about = About(
        title="Exponential logarithmic loss",
        family="compound",
        formula=r"L = \frac{\lambda_D}{C} \sum_{c=1}^{C} (-\log D_c)^{\gamma_D} +"
        r" \frac{\lambda_{CE}}{N} \sum_{i=1}^{N} w_{y_i} (-\log p_{i, y_i})^{\gamma_{CE}}, \quad"
        r" w_c = \sqrt{\frac{\sum_k f_k}{f_c}}",
        paper="Wong, K. C. L., Moradi, M., Tang, H., Syeda-Mahmood, T. (2018). 3D segmentation "
        "with exponential logarithmic loss for highly unbalanced object sizes. MICCAI. "
        "doi:10.1007/978-3-030-00931-1_70, arXiv:1809.00076",
        reduction="Dice: mean over classes and images; cross-entropy: mean over voxels of the "
        "weighted terms, not divided by the weights",
        smoothing="Dice: a pseudocount of 1 above and below the fraction line",
        defaults_from="gamma_dice 0.3, gamma_ce 0.3, lambda_dice 0.8, lambda_ce 0.2: the paper's "
        "best; frequencies None: ours, those of the batch; smooth_nr 1, smooth_dr 1: the paper's "
        "pseudocount; squared_pred False: the paper's",
        background="a class like any other; include_background=False leaves it out of Dice only",
        absent_class="Dice: -log D is the logarithm of the predicted volume plus 1, whose gradient "
        "pushes the class down; cross-entropy pushes its probability down at every voxel",
        value_range="[0, inf)",
    )

    def __init__(
        self,
        *,
        gamma_dice: float = 0.3,
        gamma_ce: float = 0.3,
        lambda_dice: float = 0.8,
        lambda_ce: float = 0.2,
        frequencies: Sequence[float] | None = None,
        smooth_nr: float = 1.0,
        smooth_dr: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(
            smooth_nr=check_number("smooth_nr", smooth_nr, 0, above=True),
            smooth_dr=check_number("smooth_dr", smooth_dr, 0, above=True),
            **options,
        )
        if self.smooth_nr > self.smooth_dr:
            raise ValueError(
                f"smooth_nr must be <= smooth_dr ({smooth_dr:g}), got {smooth_nr:g}: D would "
                "exceed 1, where -log D has no root"
            )
        self.gamma_dice = check_number("gamma_dice", gamma_dice, 0, 1, above=True)
        self.gamma_ce = check_number("gamma_ce", gamma_ce, 0, 1, above=True)
        self.set_factors(lambda_dice=lambda_dice, lambda_ce=lambda_ce)
        self.frequencies = (
            None if frequencies is None else check_vector("frequencies", frequencies, above=True)
        )

    def terms(self, counts: SoftCounts) -> Tensor:
        return power(-self.score(counts).log(), self.gamma_dice)

    def second(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        cross = power(cross_entropies(logits, labels), self.gamma_ce)
        weight = self.class_weights(logits, labels if valid is None else labels[valid])
        return weighted_mean(weight[labels] * cross, valid)

    def class_weights(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(C,): root of the inverse frequency of each class."""
        frequencies = self.per_class("frequencies", logits)
        if frequencies is None:  # a class without a voxel has no use for its weight
            volumes = labels.flatten().bincount(minlength=logits.shape[1])
            frequencies = volumes.clamp_min(1).to(logits.dtype)
        return (frequencies.sum() / frequencies).sqrt()


_UNIFIED = (
    "Yeung, M., Sala, E., Schonlieb, C.-B., Rundo, L. (2022). Unified Focal loss: generalising "
    "Dice and cross entropy-based losses to handle class imbalanced medical image segmentation. "
    "Comput. Med. Imaging Graph. 95, 102026. doi:10.1016/j.compmedimag.2021.102026, "
    "arXiv:2102.04525"
)


class UnifiedFocal(OverlapLoss):
    """Unified focal loss, symmetric: focal plus focal Tversky with shared parameters.

    It is lambda_focal Focal(gamma, alpha=delta) + (1 - lambda_focal) FocalTversky(1 / (1 - gamma),
    alpha=1 - delta, beta=delta), for any number of classes. The focal exponent is gamma, as in the
    code of the authors; their symmetric formula has 1 - gamma there, the same at the default.

    Args:
        delta: share of false negatives against false positives, and of every foreground class
            against the background in the focal loss, 0 to 1.
        gamma: strength of the focus, 0 to 1 (below 1).
        lambda_focal: share of the focal loss, 0 to 1; focal Tversky has the rest.
        **options: those of OverlapLoss; ``weight`` acts on both terms, ``reduction`` is "mean".
    """

    name = "unified_focal"
    about = About(
        title="Unified focal loss (symmetric)",
        family="compound",
        formula=r"L = \frac{\lambda}{N} \sum_{i=1}^{N} \delta_{y_i}"
        r" (1 - p_{i, y_i})^{\gamma} (-\log p_{i, y_i}) + \frac{1 - \lambda}{C} \sum_{c=1}^{C}"
        r" \left( 1 - \frac{TP_c}{TP_c + \delta FN_c + (1 - \delta) FP_c} \right)^{1 - \gamma}",
        paper=_UNIFIED,
        reduction="focal: mean over voxels; focal Tversky: mean over classes and images",
        smoothing="Tversky: smooth_nr above and smooth_dr below the fraction line, 1e-5 each",
        defaults_from="delta 0.6, gamma 0.5, lambda_focal 0.5: the paper's (delta is 0.7 in "
        "MONAI); " + DEFAULTS,
        background="focal: its factor is 1 - delta, that of the others delta; Tversky: like the "
        "others, or left out with include_background=False",
        absent_class="Tversky: a term near 1 with almost no gradient; focal pushes its probability "
        "down where it is still large",
        value_range="[0, inf)",
    )
    reductions = ("mean",)
    soft_labels = False

    def __init__(
        self,
        *,
        delta: float = 0.6,
        gamma: float = 0.5,
        lambda_focal: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.delta = check_number("delta", delta, 0, 1)
        self.gamma = check_number("gamma", gamma, 0, 1)
        if self.gamma == 1:
            raise ValueError("gamma must be below 1: the exponent of Tversky is 1 - gamma")
        self.lambda_focal = check_number("lambda_focal", lambda_focal, 0, 1)

    def terms(self, counts: SoftCounts) -> Tensor:
        return power(self.tversky(counts, 1 - self.delta, self.delta), 1 - self.gamma)

    def focal(self, cross: Tensor, labels: Tensor) -> Tensor:
        """The focal term of each voxel from its cross-entropy; shapes (B, *spatial)."""
        return focal_terms(cross, labels, self.gamma, self.delta)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        tversky = super().compute(logits, labels, valid)
        weight = self.per_class("weight", logits)
        focal = self.focal(cross_entropies(logits, labels), labels)
        focal = reduced_voxels(focal, labels, valid, weight)
        return self.lambda_focal * focal + (1 - self.lambda_focal) * tversky


class AsymmetricUnifiedFocal(UnifiedFocal):
    """Unified focal loss, asymmetric: only background is suppressed, only foreground enhanced.

    Foreground classes have plain cross-entropy and focal Tversky, the background focal loss and
    plain Tversky.

    Args:
        **options: those of UnifiedFocal.
    """

    name = "asymmetric_unified_focal"
    about = About(
        title="Unified focal loss (asymmetric)",
        family="compound",
        formula=r"L = \frac{\lambda}{N} \left( - \delta \sum_{i: y_i > 0} \log p_{i, y_i}"
        r" - (1 - \delta) \sum_{i: y_i = 0} (1 - p_{i0})^{\gamma} \log p_{i0} \right)"
        r" + \frac{1 - \lambda}{C} \left( T_0 + \sum_{c=1}^{C-1} T_c^{1 - \gamma} \right), \quad"
        r" T_c = 1 - \frac{TP_c}{TP_c + \delta FN_c + (1 - \delta) FP_c}",
        paper=_UNIFIED,
        reduction="focal: mean over voxels; focal Tversky: mean over classes and images",
        smoothing="Tversky: smooth_nr above and smooth_dr below the fraction line, 1e-5 each",
        defaults_from=UnifiedFocal.about.defaults_from,
        background="the one class that is suppressed in the focal loss (factor 1 - delta) and not "
        "enhanced in Tversky; left out of Tversky with include_background=False",
        absent_class="Tversky: a term near 1 with almost no gradient; cross-entropy pushes its "
        "probability down where foreground is, focal elsewhere",
        value_range="[0, inf)",
    )

    def terms(self, counts: SoftCounts) -> Tensor:
        tversky = self.tversky(counts, 1 - self.delta, self.delta)
        return torch.cat([tversky[:, :1], power(tversky[:, 1:], 1 - self.gamma)], 1)

    def focal(self, cross: Tensor, labels: Tensor) -> Tensor:
        return torch.where(labels > 0, self.delta * cross, super().focal(cross, labels))


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
        defaults_from="alpha 0.5, beta 0.5: ours, equal shares; " + DICE_DEFAULTS,
        background="a class like any other; include_background=False leaves it out of Dice only",
        absent_class="Dice: a term near 0 with almost no gradient; cross-entropy pushes its "
        "probability down at every voxel",
        value_range="[alpha - 1, inf); alpha - 1 only for the perfect prediction",
    )
    reductions = ("mean",)
    soft_labels = False

    def __init__(self, *, alpha: float = 0.5, beta: float = 0.5, **options: Any) -> None:
        super().__init__(**options)
        self.alpha = check_number("alpha", alpha, 0, 1)
        self.beta = check_number("beta", beta, 0, 1)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        dice = 1 - super().compute(logits, labels, valid)
        positive, negative = binary_cross_entropies(logits, labels)
        terms = self.beta * positive + (1 - self.beta) * negative
        return self.alpha * weighted_mean(terms, valid) - (1 - self.alpha) * dice


def binary_cross_entropies(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(B, *spatial) each: means over classes of -g log p and of -(1 - g) log(1 - p)."""
    classes = logits.shape[1]
    positive = cross_entropies(logits, labels)  # -log p of the label's class
    masks = class_masks(labels, classes).view_as(logits)
    negative = softplus(log_odds(logits)).masked_fill(masks, 0).sum(1)
    return positive / classes, negative / classes
