"""Which loss of ours is which of MONAI and kornia, and the options that make them the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import monai.losses
from torch import Tensor

import losses
from benchmarks.patches import CLASSES
from workflow.comparison.gallery import example_options

try:
    import kornia.losses as kornia
except ImportError:  # an extra of the tests: without it MONAI is the only peer
    kornia = None

Loss = Callable[[Tensor, Tensor], Tensor]

ONE_HOT = dict(softmax=True, to_onehot_y=True)


@dataclass(frozen=True)
class Pair:
    """A loss of ours and, unless ``library`` is empty, the same loss of another library.

    Attributes:
        loss: its name in our catalogue.
        library: where the peer is from.
        peer: its name there.
        make: builds the peer; it takes labels with a channel, as MONAI does.
        options: what ours is built with.
        classes: of the patch.
        factor: the peer's value times this is ours.
        differs: why the values are not the same, empty where they are.
        same_patch: every step sees the same patch, so that what ours keeps of it is used again.
    """

    loss: str
    library: str = ""
    peer: str = ""
    make: Callable[[], Loss] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: int = CLASSES
    factor: float = 1.0
    differs: str = ""
    same_patch: bool = False

    def ours(self) -> Loss:
        """Our loss."""
        needed = example_options(self.loss, self.classes)
        return losses.create(self.loss, **{**needed, **self.options})

    @property
    def label(self) -> str:
        """What tells it from the others of its library."""
        return f"{self.loss} (same labels)" if self.same_patch else self.loss


def _monai(loss: str, peer: str, options: Mapping[str, Any] | None = None, **more: Any) -> Pair:
    """The peer with one-hot labels and softmax inside, unless other options are given."""
    theirs = ONE_HOT if options is None else options

    def make() -> Loss:
        return getattr(monai.losses, peer)(**theirs)

    return Pair(loss, "MONAI", peer, make, **more)


def _kornia(loss: str, peer: str, call: Loss, **more: Any) -> Pair:
    """The peer as ``call(logits, labels)``, labels with a channel."""
    return Pair(loss, "kornia", peer, lambda: call, **more)


def _flat(tensor: Tensor) -> Tensor:
    """(B, C, X, Y * Z): kornia's region losses are two-dimensional."""
    return tensor.flatten(3)


def _probabilities(peer: Loss) -> Loss:
    """A peer that leaves the softmax to its caller."""
    return lambda logits, labels: peer(logits.softmax(1), labels)


def _unified_focal() -> Loss:
    options = dict(to_onehot_y=True, weight=0.5, gamma=0.5, delta=0.6)
    return _probabilities(monai.losses.AsymmetricUnifiedFocalLoss(**options))


def _nacl() -> Loss:
    peer = monai.losses.NACLLoss(classes=CLASSES, dim=3)
    return lambda logits, labels: peer(logits, labels[:, 0])


_DISTANCES = Tensor(example_options("generalized_wasserstein_dice", CLASSES)["dist_matrix"])
_SIGMOID = "MONAI's focal term is one-vs-rest sigmoid although softmax=True (its issue 8242)"

MONAI = (
    _monai("dice", "DiceLoss"),
    _monai("jaccard", "DiceLoss", {**ONE_HOT, "jaccard": True}),
    _monai("tversky", "TverskyLoss", {**ONE_HOT, "alpha": 0.3, "beta": 0.7}),
    _monai("generalized_dice", "GeneralizedDiceLoss"),
    _monai(
        "generalized_wasserstein_dice",
        "GeneralizedWassersteinDiceLoss",
        {"dist_matrix": _DISTANCES},
    ),
    _monai("mcc", "MCCLoss"),
    _monai(
        "cl_dice",
        "SoftclDiceLoss",
        {**ONE_HOT, "iter_": 10, "include_background": False},
        differs="MONAI sums the skeletons over the classes before it divides",
    ),
    _monai(
        "focal", "FocalLoss", dict(to_onehot_y=True, use_softmax=True, gamma=2.0), factor=CLASSES
    ),
    Pair(
        "nacl", "MONAI", "NACLLoss", _nacl,
        differs="MONAI counts voxels outside the image as neighbours of no class",
    ),
    _monai("dice_ce", "DiceCELoss"),
    _monai("dice_focal", "DiceFocalLoss", differs=_SIGMOID),
    _monai("generalized_dice_focal", "GeneralizedDiceFocalLoss", differs=_SIGMOID),
    Pair(
        "asymmetric_unified_focal", "MONAI", "AsymmetricUnifiedFocalLoss", _unified_focal,
        classes=2, differs="MONAI knows two classes only and halves the focal term (issue 8603)",
    ),
    _monai(
        "boundary", "BoundaryLoss", {**ONE_HOT, "include_background": False},
    ),
    _monai("hausdorff_dt", "HausdorffDTLoss"),
    _monai("hausdorff_dt", "HausdorffDTLoss", same_patch=True),
)  # fmt: skip

KORNIA = () if kornia is None else (
    _kornia(
        "dice", "dice_loss",
        lambda z, y: kornia.dice_loss(_flat(z), _flat(y)[:, 0], average="macro"),
    ),
    _kornia(
        "tversky", "tversky_loss",
        lambda z, y: kornia.tversky_loss(_flat(z), _flat(y)[:, 0], alpha=0.3, beta=0.7),
    ),
    _kornia(
        "focal", "focal_loss",
        lambda z, y: kornia.focal_loss(z, y[:, 0], alpha=None, gamma=2.0, reduction="mean"),
        factor=CLASSES,
    ),
    _kornia(
        "lovasz_softmax", "lovasz_softmax_loss",
        lambda z, y: kornia.lovasz_softmax_loss(_flat(z), _flat(y)[:, 0]),
    ),
    _kornia(
        "hausdorff_erosion", "HausdorffERLoss3D", _probabilities(kornia.HausdorffERLoss3D()),
        options={"include_background": True},
        differs="kornia averages neighbours and stretches each erosion to 0 .. 1",
    ),
)  # fmt: skip

ALONE = tuple(Pair(name) for name in losses.available())
