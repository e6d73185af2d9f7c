"""Generalized Dice as widely used code has computed it, to compare with what is meant.

Not for training. Each class re-implements, from its formula, the class weights, the smoothing and
the pooling of one library; the interface is ours (softmax inside, ``ignore_index``, float32). The
rules for an absent class are what they differ in; ``generalized_dice`` has them as options. The
last class is the Wasserstein form.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .base import NO_OPTIONS, About, SegmentationLoss, check_flag, check_number, weighted_mean
from .counts import soft_counts
from .generalized_dice import check_distances

_SUDRE = (
    "Sudre, C. H. et al. (2017). doi:10.1007/978-3-319-67558-9_28, arXiv:1707.03237; as computed by"
)
_ALL = "a class like any other"
_PER_IMAGE = "mean over images"
_POOLED = "one ratio over the classes of the pooled batch"
_MONAI = "smooth_nr 1e-5, smooth_dr 1e-5: MONAI's"
_TAKES_OVER = (
    "its weight is so large that its predicted volume is all of the denominator: the value stays "
    "at 1 and the gradient of everything vanishes"
)


def _formula(weight: str, above: str = "", below: str = "") -> str:
    return (
        r"L = 1 - \frac{2 \sum_c w_c \sum_i p_{ic} g_{ic}" + above + "}"
        r"{\sum_c w_c \sum_i (p_{ic} + g_{ic})" + below + r"}, \quad w_c = " + weight
    )


class HistoricGeneralizedDice(SegmentationLoss):
    """1 minus a score of each image, or of the pooled batch.

    Args:
        ignore_index: label of voxels to leave out.
    """

    pooled = False

    def __init__(self, *, ignore_index: int | None = None) -> None:
        super().__init__(ignore_index=ignore_index)

    def score(self, overlap: Tensor, total: Tensor, volumes: Tensor) -> Tensor:
        """(B,): from the sums (B, C) of p g, of p + g and of g."""
        raise NotImplementedError

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        counts = soft_counts(logits, labels, valid)
        if self.pooled:
            counts = counts.pooled()
        total = counts.predicted + counts.reference
        return weighted_mean(
            1 - self.score(counts.overlap, total, counts.reference), counts.counted[:, 0]
        )


def largest_if_absent(volumes: Tensor) -> Tensor:
    """1/V^2, for an absent class the largest of its image."""
    weights = torch.where(volumes > 0, volumes.clamp_min(1) ** -2, 0)
    return torch.where(volumes > 0, weights, weights.amax(1, keepdim=True))


class HistoricGeneralizedDiceMonai(HistoricGeneralizedDice):
    """Generalized Dice of MONAI: an absent class has the largest weight, smoothing is not scaled.

    Args:
        smooth_nr: added to the numerator, > 0.
        smooth_dr: added to the denominator, > 0.
        ignore_index: label of voxels to leave out.
    """

    name = "historic_generalized_dice_monai"
    about = About(
        title="Generalized Dice as in MONAI",
        family="historic",
        formula=_formula(r"\frac{1}{V_c^2}", " + s", " + s"),
        paper=f"{_SUDRE} MONAI 1.6.1",
        reduction=_PER_IMAGE,
        smoothing="s = 1e-5 above and below the fraction line, not scaled with the weights",
        defaults_from=_MONAI,
        background=_ALL,
        absent_class="weight of the rarest class present",
        twin="generalized_dice",
        value_range="[0, 1)",
        reason="The rule of generalized_dice(absent='max'). But s meets weighted sums of order "
        "1 / V, with V the volume of the rarest class present, so the value shrinks as structures "
        "grow or voxels get smaller: the loss is not scale-free.",
        runs_as_is="Yes.",
    )

    def __init__(
        self,
        *,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(ignore_index=ignore_index)
        self.smooth_nr = check_number("smooth_nr", smooth_nr, 0, above=True)
        self.smooth_dr = check_number("smooth_dr", smooth_dr, 0, above=True)

    def score(self, overlap: Tensor, total: Tensor, volumes: Tensor) -> Tensor:
        w = largest_if_absent(volumes)
        return (2 * (w * overlap).sum(1) + self.smooth_nr) / ((w * total).sum(1) + self.smooth_dr)


class HistoricGeneralizedDiceMonai11(HistoricGeneralizedDiceMonai):
    """Generalized Dice of MONAI 1.1.0 to 1.2.0: a ratio for each class, in which weights cancel.

    Args:
        smooth_nr: added to the numerator of each class, > 0.
        smooth_dr: added to the denominator of each class, > 0.
        ignore_index: label of voxels to leave out.
    """

    name = "historic_generalized_dice_monai_1_1"
    about = About(
        title="Generalized Dice as in MONAI 1.1",
        family="historic",
        formula=r"L = 1 - \frac{1}{C} \sum_{c=1}^{C} \frac{2 w_c \sum_i p_{ic} g_{ic} + s}"
        r"{w_c \sum_i (p_{ic} + g_{ic}) + s}, \quad w_c = \frac{1}{V_c^2}",
        paper=f"{_SUDRE} MONAI 1.1.0 to 1.2.0 (issue 6765, fixed by pull request 6775; the same "
        "mistake in MONAI 0.1.0, issue 369, and in pytorch-3dunet, issue 14)",
        reduction="mean over classes and images",
        smoothing="s = 1e-5 above and below each fraction line, which shrinks the term of a "
        "class whose V exceeds 1e5",
        defaults_from=_MONAI,
        background=_ALL,
        absent_class="weight of the rarest class present, of V voxels: a term near 1 with almost "
        "no gradient, as in Dice, but falling to 0 once less than about 1e-5 V^2 voxels are "
        "predicted, a smoothing that grows with V",
        twin="generalized_dice",
        value_range="[0, 1)",
        reason="The division comes before the sum over classes, so the weight stands above and "
        "below the same fraction line and cancels: this is Dice, not generalized_dice.",
        runs_as_is="Yes.",
    )

    def score(self, overlap: Tensor, total: Tensor, volumes: Tensor) -> Tensor:
        w = largest_if_absent(volumes)
        return ((2 * w * overlap + self.smooth_nr) / (w * total + self.smooth_dr)).mean(1)


class HistoricGeneralizedDiceNiftynet(HistoricGeneralizedDice):
    """Generalized Dice of NiftyNet, from October 2017: an absent class has the largest weight.

    Args:
        ignore_index: label of voxels to leave out.
    """

    name = "historic_generalized_dice_niftynet"
    about = About(
        title="Generalized Dice as in NiftyNet",
        family="historic",
        formula=r"L = 1 - \frac{2 \sum_c w_c \sum_i p_{ic} g_{ic}}{\sum_c w_c"
        r" \max(\sum_i (p_{ic} + g_{ic}), 1)}, \quad w_c = \frac{1}{V_c^2}",
        paper=f"{_SUDRE} NiftyNet",
        reduction=_PER_IMAGE,
        smoothing="p + g of a class counts at least 1 voxel; no other",
        defaults_from=NO_OPTIONS + "; the 1 voxel is NiftyNet's",
        background=_ALL,
        absent_class="weight of the rarest class present; no gradient once less than 1 voxel of "
        "it is predicted",
        twin="generalized_dice",
        value_range="[0, 1]; above 0 for the perfect prediction if a class is absent",
        reason="The rule of generalized_dice(absent='max'), but an absent class costs at least "
        "one voxel of the rarest class, predicted or not. (The first of these versions lacked "
        "that maximum: they are generalized_dice without smoothing. A score of NaN counts as 1 in "
        "the later ones; it cannot occur with the background taking part.)",
        runs_as_is="Yes.",
    )

    def score(self, overlap: Tensor, total: Tensor, volumes: Tensor) -> Tensor:
        w = largest_if_absent(volumes)
        below = (w * total.clamp_min(1)).sum(1)
        return 2 * (w * overlap).sum(1) / torch.where(below > 0, below, 1)


class HistoricGeneralizedDiceNiftynet2017(HistoricGeneralizedDice):
    """Generalized Dice of NiftyNet, before October 2017: every volume counts 0.1 voxel more.

    Args:
        ignore_index: label of voxels to leave out.
    """

    name = "historic_generalized_dice_niftynet_2017"
    about = About(
        title="Generalized Dice as in NiftyNet before October 2017",
        family="historic",
        formula=r"L = 1 - \frac{2 \sum_c w_c \sum_i p_{ic} g_{ic}}{\sum_c w_c"
        r" (0.2 + \sum_i (p_{ic} + g_{ic}))}, \quad w_c = (V_c + 0.1)^{-2}",
        paper=f"{_SUDRE} the first NiftyNet",
        reduction=_POOLED,
        smoothing="0.1 voxel added to the predicted and to the reference volume of each class, "
        "nothing to their overlap",
        defaults_from=NO_OPTIONS + "; the 0.1 voxel is NiftyNet's",
        background=_ALL,
        absent_class="weight 100: even unpredicted it is nearly all of the denominator, so the "
        "value stays near 1 and the gradient of everything nearly vanishes",
        twin="generalized_dice",
        value_range="(0, 1]",
        reason="0.1 voxel was meant to keep the division defined, and made an absent class weigh "
        "100 against 1e-8 for one of 1e4 voxels. Since October 2017: historic_generalized_dice_"
        "niftynet; the corrected loss is generalized_dice.",
        runs_as_is="Yes, in TensorFlow 1.",
    )
    pooled = True

    def score(self, overlap: Tensor, total: Tensor, volumes: Tensor) -> Tensor:
        w = (volumes + 0.1) ** -2
        return 2 * (w * overlap).sum(1) / (w * (total + 0.2)).sum(1)


class HistoricGeneralizedDiceLiviaets(HistoricGeneralizedDice):
    """Generalized Dice of the boundary loss's authors: weights (V + 1e-10)^-2 of each image.

    Args:
        ignore_index: label of voxels to leave out.
    """

    name = "historic_generalized_dice_liviaets"
    about = About(
        title="Generalized Dice as in LIVIAETS's boundary-loss",
        family="historic",
        formula=_formula(r"(V_c + \epsilon)^{-2}", r" + \epsilon", r" + \epsilon"),
        paper=f"{_SUDRE} the code of Kervadec, H. et al. (2019). arXiv:1812.07032",
        reduction=_PER_IMAGE,
        smoothing="epsilon = 1e-10 in the weight, above (before doubling) and below",
        defaults_from=NO_OPTIONS + "; 1e-10 is the constant of LIVIAETS's code",
        background=_ALL,
        absent_class=f"weight 1e20: {_TAKES_OVER}",
        twin="generalized_dice",
        value_range="[0, 1], less up to 1e-10 V for V voxels of the rarest class",
        reason="The weight of an absent class should not depend on a constant that only keeps "
        "the division defined: see absent of generalized_dice.",
        runs_as_is="Yes.",
    )
    smooth = 1e-10

    def score(self, overlap: Tensor, total: Tensor, volumes: Tensor) -> Tensor:
        w = (volumes + 1e-10) ** -2
        return 2 * ((w * overlap).sum(1) + self.smooth) / ((w * total).sum(1) + self.smooth)


class HistoricGeneralizedDiceOdysseyV1(HistoricGeneralizedDiceLiviaets):
    """Generalized Dice, first version, of the code behind the Loss Odyssey.

    Args:
        ignore_index: label of voxels to leave out.
    """

    name = "historic_generalized_dice_odyssey_v1"
    about = About(
        title="Generalized Dice as in SegLossOdyssey, GDiceLoss",
        family="historic",
        formula=_formula(r"(V_c + 10^{-10})^{-2}", " + s", " + s"),
        paper=f"{_SUDRE} the code of Ma, J. et al. (2021). doi:10.1016/j.media.2021.102035",
        reduction=_PER_IMAGE,
        smoothing="s = 1e-5 above (before doubling) and below; 1e-10 in the weight",
        defaults_from=NO_OPTIONS + "; 1e-5 and 1e-10 are SegLossOdyssey's",
        background=_ALL,
        absent_class=f"weight 1e20: {_TAKES_OVER}",
        twin="generalized_dice",
        value_range="[0, 1], less up to 1e-5 V for V voxels of the rarest class (the code leaves "
        "the constant 1 out)",
        reason="As in historic_generalized_dice_liviaets; the corrected loss is generalized_dice.",
        runs_as_is="Yes.",
    )
    smooth = 1e-5


class HistoricGeneralizedDiceOdysseyV2(HistoricGeneralizedDice):
    """Generalized Dice, second version, of the code behind the Loss Odyssey: its trainer's.

    Args:
        ignore_index: label of voxels to leave out.
    """

    name = "historic_generalized_dice_odyssey_v2"
    about = About(
        title="Generalized Dice as in SegLossOdyssey, GDiceLossV2",
        family="historic",
        formula=_formula(r"\frac{1}{\max(V_c^2, 10^{-5})}"),
        paper=f"{_SUDRE} the code of Ma, J. et al. (2021). doi:10.1016/j.media.2021.102035",
        reduction=_POOLED,
        smoothing="V^2 at least 1e-5 in the weight; the denominator at least 1e-5",
        defaults_from=NO_OPTIONS + "; 1e-5 is SegLossOdyssey's",
        background=_ALL,
        absent_class=f"weight 1e5: {_TAKES_OVER}",
        twin="generalized_dice",
        value_range="[0, 1] (the code leaves the constant 1 out)",
        reason="An absent class weighs 1e5 against 1e-8 for one of 1e4 voxels, so a batch that "
        "lacks a class teaches nothing; the corrected loss is generalized_dice.",
        runs_as_is="Yes.",
    )
    pooled = True

    def score(self, overlap: Tensor, total: Tensor, volumes: Tensor) -> Tensor:
        w = 1 / (volumes**2).clamp_min(1e-5)
        return 2 * (w * overlap).sum(1) / (w * total).sum(1).clamp_min(1e-5)


class HistoricGeneralizedDicePytorch3dunet(HistoricGeneralizedDice):
    """Generalized Dice of pytorch-3dunet: weights 1 / max(V^2, 1e-6), pooled over the batch.

    Args:
        ignore_index: label of voxels to leave out.
    """

    name = "historic_generalized_dice_pytorch3dunet"
    about = About(
        title="Generalized Dice as in pytorch-3dunet",
        family="historic",
        formula=r"L = 1 - \frac{2 \sum_c w_c \sum_i p_{ic} g_{ic}}"
        r"{\sum_c \max(w_c \sum_i (p_{ic} + g_{ic}), \epsilon)}, \quad"
        r" w_c = \frac{1}{\max(V_c^2, \epsilon)}",
        paper=f"{_SUDRE} pytorch-3dunet",
        reduction=_POOLED,
        smoothing="epsilon = 1e-6: least V^2 of the weight, least weighted volume of a class",
        defaults_from=NO_OPTIONS + "; 1e-6 is pytorch-3dunet's",
        background=_ALL,
        absent_class=f"weight 1e6: {_TAKES_OVER}",
        twin="generalized_dice",
        value_range="[0, 1]",
        reason="As in historic_generalized_dice_odyssey_v2, and a class of more than 2e6 voxels "
        "loses its gradient to the second maximum; the corrected loss is generalized_dice.",
        runs_as_is="Yes, with a sigmoid by default; here with the softmax.",
    )
    pooled = True

    def score(self, overlap: Tensor, total: Tensor, volumes: Tensor) -> Tensor:
        w = 1 / (volumes**2).clamp_min(1e-6)
        return 2 * (w * overlap).sum(1) / (w * total).clamp_min(1e-6).sum(1)


class HistoricGeneralizedDiceNnunetV1(HistoricGeneralizedDice):
    """Generalized Dice of nnU-Net v1: weights 1 / (V + 1e-6), smoothing 1 after the weighting.

    Args:
        square_volumes: weights 1 / (V + 1e-6)^2.
        ignore_index: label of voxels to leave out.
    """

    name = "historic_generalized_dice_nnunet_v1"
    about = About(
        title="Generalized Dice as in nnU-Net v1",
        family="historic",
        formula=_formula(r"\frac{1}{V_c + 10^{-6}}", " + 1", " + 1"),
        paper=f"{_SUDRE} nnU-Net v1: Isensee, F. et al. (2021). doi:10.1038/s41592-020-01008-z",
        reduction=_PER_IMAGE,
        smoothing="1 above and below the fraction line, after the weighting; 1e-6 in the weight",
        defaults_from="square_volumes False: nnU-Net v1's, as are the constants 1 and 1e-6",
        background=_ALL,
        absent_class=f"weight 1e6: {_TAKES_OVER}",
        twin="generalized_dice",
        value_range="[0, 1) (the code leaves the constant 1 out)",
        reason="The smoothing meets weighted sums, which are C at most above the line, so it "
        "damps the loss by itself; an absent class weighs 1e6. The corrected loss is "
        "generalized_dice(weighting='simple').",
        runs_as_is="Yes; no trainer used it by default.",
    )

    def __init__(self, *, square_volumes: bool = False, ignore_index: int | None = None) -> None:
        super().__init__(ignore_index=ignore_index)
        self.square_volumes = check_flag("square_volumes", square_volumes)

    def score(self, overlap: Tensor, total: Tensor, volumes: Tensor) -> Tensor:
        w = 1 / (volumes + 1e-6)
        if self.square_volumes:
            w = w**2
        return (2 * (w * overlap).sum(1) + 1) / ((w * total).sum(1) + 1)


class HistoricWassersteinDiceMonai(SegmentationLoss):
    """Generalised Wasserstein Dice of MONAI: 1 stands for every distance to the background.

    Args:
        dist_matrix: distances between classes, C x C, symmetric, >= 0, with 0 on the diagonal, the
            background first; divided by the largest. Required.
        smooth_nr: added to the numerator, > 0.
        smooth_dr: added to the denominator, > 0.
        ignore_index: label of voxels to leave out.
    """

    name = "historic_generalized_wasserstein_dice_monai"
    about = About(
        title="Generalised Wasserstein Dice as in MONAI",
        family="historic",
        formula=r"L = 1 - \frac{2 \sum_{i: y_i > 0} (1 - W_i) + s}"
        r"{2 \sum_{i: y_i > 0} (1 - W_i) + \sum_i W_i + s}, \quad"
        r" W_i = \sum_c M_{y_i c} \, p_{ic}",
        paper="Fidon, L. et al. (2018). doi:10.1007/978-3-319-75238-9_6, arXiv:1707.00478; as "
        "computed by MONAI and by the authors' PyTorch code",
        reduction=_PER_IMAGE,
        smoothing="s = 1e-5 above and below the fraction line",
        defaults_from="dist_matrix required: the task's; " + _MONAI,
        background="its voxels earn nothing when they are right and cost W when they are wrong",
        absent_class="no term of its own; its probability costs its distance to the label of "
        "each voxel",
        twin="generalized_wasserstein_dice",
        value_range="[0, 1)",
        reason="What a foreground voxel earns is its distance to the background less W, times a "
        "weight that is that distance again. The 1 is right where every such distance is 1, as in "
        "the authors' matrices; where one is less, a voxel of that class still earns 1 - M_y0 when "
        "it is given up to the background, so that nothing found is not the worst value.",
        runs_as_is="Yes.",
    )

    def __init__(
        self,
        *,
        dist_matrix: Sequence[Sequence[float]] | Tensor,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(ignore_index=ignore_index)
        self.dist_matrix = check_distances(dist_matrix)
        self.smooth_nr = check_number("smooth_nr", smooth_nr, 0, above=True)
        self.smooth_dr = check_number("smooth_dr", smooth_dr, 0, above=True)

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        if len(self.dist_matrix) != logits.shape[1]:
            raise ValueError(
                f"dist_matrix has {len(self.dist_matrix)} classes, "
                f"but logits have {logits.shape[1]} classes"
            )
        matrix = logits.new_tensor(self.dist_matrix)
        wrong = (matrix[labels].movedim(-1, 1) * logits.softmax(1)).sum(1).flatten(1)
        kept = torch.ones_like(wrong) if valid is None else valid.flatten(1)
        right = ((1 - wrong) * (labels.flatten(1) > 0) * kept).sum(1)
        cost = (wrong * kept).sum(1)
        dice = (2 * right + self.smooth_nr) / (2 * right + cost + self.smooth_dr)
        return weighted_mean(1 - dice, kept.any(1))
