"""What every segmentation loss shares: input checks, ignored voxels, precision, weighted means."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from inspect import cleandoc
from typing import ClassVar

import torch
from torch import Tensor, nn

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

NO_OPTIONS = "no option of its own"
"""How ``About.defaults_from`` starts for a loss that has only the options all losses share."""


@dataclass(frozen=True, kw_only=True)
class About:
    """What a loss says about itself on its card, in words.

    ``formula`` is LaTeX that matplotlib's mathtext and latex2mathml both read. ``defaults_from``
    says whose each default is, as ``"alpha 0.3, beta 0.7: the paper's; k 10: ours"``. The last
    four are for losses as published: the document, the corrected loss, why it is corrected, and
    whether the document's code runs.
    """

    title: str
    family: str
    formula: str = ""
    paper: str = ""
    reduction: str = ""
    smoothing: str = ""
    defaults_from: str = ""
    background: str = ""
    absent_class: str = ""
    value_range: str = ""
    seed: str | None = None
    twin: str | tuple[str, ...] | None = None
    reason: str | None = None
    runs_as_is: str | None = None


class SegmentationLoss(nn.Module):
    """Base of all losses: ``loss(logits, labels)`` on 1-D, 2-D or 3-D images.

    A subclass sets ``name`` (its name in the catalogue) and ``about`` (the texts of its card) and
    implements :meth:`compute`. It is then found by the catalogue: there is no list to edit.

    Shapes:
        logits: (B, C, \\*spatial), floating point, C >= 2; the activation is part of the loss.
        labels: (B, \\*spatial) or (B, 1, \\*spatial), integer, 0 .. C-1 or ``ignore_index``. A loss
            with ``soft_labels`` also takes (B, C, \\*spatial), floating point: the probability of
            each class, which add up to 1 at each voxel.

    Ignored voxels change neither the value nor the gradient, whatever their logits are (NaN
    included). If every voxel is ignored, the value is 0 and so is every gradient.

    Half-precision logits are converted to float32 before anything is summed; float64 stays.

    Errors:
        TypeError: a tensor of the wrong kind or dtype, an option of the wrong type.
        ValueError: shapes that do not match, labels out of range, an option out of range.
    """

    name: ClassVar[str | None] = None
    about: ClassVar[About | None] = None
    reductions: ClassVar[tuple[str, ...]] = ("mean",)
    soft_labels: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        about = vars(cls).get("about")
        if about is not None:  # formula and source are written once, in ``about``
            cls.__doc__ = (
                f"{cleandoc(cls.__doc__ or about.title)}\n\n"
                f"Formula:\n    {about.formula}\n\n"
                f"Source:\n    {about.paper}\n\n"
                "Shapes and errors: see SegmentationLoss."
            )

    def __init__(
        self,
        *,
        weight: Sequence[float] | Tensor | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.ignore_index = check_index("ignore_index", ignore_index)
        self.reduction = check_choice("reduction", reduction, self.reductions)
        self.weight = None if weight is None else check_vector("weight", weight)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Value of the loss; see the class for shapes and errors."""
        logits, labels = check_tensors(logits, labels, soft=self.soft_labels)
        if logits.dtype != torch.float64:
            logits = logits.float()
        if labels.is_floating_point():
            if self.ignore_index is not None:
                raise ValueError("soft labels cannot be ignored: ignore_index must be None")
            check_soft_labels(labels)
            with torch.autocast(logits.device.type, enabled=False):
                return self.compute(logits, labels.to(logits.dtype), None)

        valid = None if self.ignore_index is None else labels != self.ignore_index
        if valid is not None and bool(valid.all()):
            valid = None
        if valid is not None:
            labels = labels.masked_fill(~valid, 0)
        check_labels(labels, logits.shape[1], self.ignore_index)
        with torch.autocast(logits.device.type, enabled=False):
            if valid is None:
                return self.compute(logits, labels, None)
            # Filled, not multiplied: 0 * NaN is NaN, and a filled voxel has gradient exactly 0.
            clean = logits.masked_fill(~valid.unsqueeze(1), 0)
            if self.reduction != "none" and not bool(valid.any()):
                return clean.sum()
            return self.compute(self.before_masking(logits, clean), labels, valid)

    def before_masking(self, logits: Tensor, clean: Tensor) -> Tensor:
        """Which logits :meth:`compute` sees; only a loss that leaks ignored voxels differs."""
        return clean

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        """Value from checked input.

        Args:
            logits: (B, C, *spatial), float32 or float64, 0 at ignored voxels.
            labels: (B, *spatial), int64, 0 .. C-1, 0 at ignored voxels; or soft labels, (B, C,
                *spatial), of the dtype of the logits, if the class has ``soft_labels``.
            valid: (B, *spatial), bool, False at ignored voxels; None if there are none.
        """
        raise NotImplementedError

    def per_class(self, name: str, like: Tensor) -> Tensor | None:
        """(C,): an option with a number for each class, for logits ``like``; None if not given."""
        values = getattr(self, name)
        if values is None:
            return None
        if len(values) != like.shape[1]:
            raise ValueError(
                f"{name} has {len(values)} values, but logits have {like.shape[1]} classes"
            )
        return like.new_tensor(values)

    def extra_repr(self) -> str:
        options = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "training"}
        return ", ".join(f"{name}={value!r}" for name, value in options.items())


def weighted_mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Sum of weights * values over sum of weights; 0 where the weights sum to 0.

    The one convention for class weights, ignored voxels and images without any valid voxel.
    ``weights`` is broadcast against ``values``; None is the plain mean.
    """
    if weights is None:
        return values.mean()
    weights = weights.to(values.dtype).expand_as(values)
    total = weights.sum()
    return (weights * values).sum() / torch.where(total > 0, total, torch.ones_like(total))


def check_tensors(logits: Tensor, labels: Tensor, *, soft: bool) -> tuple[Tensor, Tensor]:
    """Logits and int64 labels of shape (B, *spatial), or an error that says what is wrong.

    With ``soft`` the labels may also be floating point if they have the shape of the logits.
    """
    for given, what in ((logits, "logits"), (labels, "labels")):
        if not isinstance(given, Tensor):
            raise TypeError(f"{what} must be a torch.Tensor, got {type(given).__name__}")
    # Subclasses (MONAI's MetaTensor) would add their bookkeeping to every operation.
    if type(logits) is not Tensor:
        logits = logits.as_subclass(Tensor)
    if type(labels) is not Tensor:
        labels = labels.as_subclass(Tensor)
    if logits.dtype not in _FLOATS:
        raise TypeError(f"logits must be floating point, got {logits.dtype}")
    soft = soft and labels.dtype in _FLOATS and labels.shape == logits.shape
    if labels.dtype not in _INTEGERS and not soft:
        raise TypeError(
            f"labels must be integer class indices, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}; convert with labels.long()"
        )
    if logits.ndim < 3:
        raise ValueError(f"logits must be (B, C, *spatial), got shape {tuple(logits.shape)}")
    if logits.shape[1] < 2:
        raise ValueError(
            "logits need at least 2 channels, one for each class with the background, "
            f"got shape {tuple(logits.shape)}"
        )
    batch, _, *spatial = logits.shape
    allowed = ((batch, *spatial), (batch, 1, *spatial))
    if not soft and tuple(labels.shape) not in allowed:
        raise ValueError(
            f"labels must have shape {allowed[0]} or {allowed[1]} to go with logits of shape "
            f"{tuple(logits.shape)}, got {tuple(labels.shape)}"
        )
    if logits.numel() == 0:
        raise ValueError(f"logits hold no voxel: shape {tuple(logits.shape)}")
    if labels.device != logits.device:
        raise ValueError(f"logits are on {logits.device}, but labels are on {labels.device}")
    return logits, labels if soft else labels.reshape(allowed[0]).long()


def check_soft_labels(labels: Tensor) -> None:
    """Raise ValueError unless each voxel has probabilities: >= 0, with the sum 1.

    The sum may be off by 1e-3, or by what their own dtype rounds if that is more (bfloat16).
    """
    if not bool((labels >= 0).all()):  # also if NaN
        raise ValueError("soft labels must be probabilities >= 0, but some are below 0 or NaN")
    error = (labels.sum(1, dtype=torch.float32) - 1).abs().max().item()
    if error > max(1e-3, torch.finfo(labels.dtype).eps):
        raise ValueError(f"soft labels must add up to 1 at each voxel, but one is off by {error:g}")


def check_labels(labels: Tensor, classes: int, ignore_index: int | None) -> None:
    """Raise ValueError unless all labels are 0 .. classes-1 (ignored voxels already set to 0)."""
    low, high = torch.stack(torch.aminmax(labels)).tolist()  # one transfer from the device
    if low < 0 or high >= classes:
        found = torch.unique(labels)
        wrong = found[(found < 0) | (found >= classes)].tolist()
        ignored = "no ignore_index is set" if ignore_index is None else f"ignored: {ignore_index}"
        raise ValueError(
            f"labels must be 0 to {classes - 1}, because logits have {classes} classes ({ignored});"
            f" got {', '.join(map(str, wrong[:8]))}{', ...' if len(wrong) > 8 else ''}"
        )


def check_number(
    name: str,
    value: float,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    above: bool = False,
) -> float:
    """``value`` as float if low <= value <= high (low < value with ``above``), else an error."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value) or not low <= value <= high or (above and value == low):
        sign = ">" if above else ">="
        upper = "" if high == math.inf else f" and <= {high:g}"
        raise ValueError(f"{name} must be {sign} {low:g}{upper}, got {value!r}")
    return float(value)


def check_count(name: str, value: int, low: int) -> int:
    """``value`` if it is an integer >= low, else an error."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < low:
        raise ValueError(f"{name} must be >= {low}, got {value!r}")
    return value


def check_flag(name: str, value: bool) -> bool:
    """``value`` if it is True or False, else TypeError."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def check_choice(name: str, value: str, allowed: Sequence[str]) -> str:
    """``value`` if it is one of ``allowed``, else ValueError."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def check_index(name: str, value: int | None) -> int | None:
    """``value`` if it is an integer or None, else TypeError."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise TypeError(f"{name} must be an integer label or None, got {value!r}")
    return value


def check_vector(
    name: str, values: Sequence[float] | Tensor, *, above: bool = False
) -> tuple[float, ...]:
    """Numbers, one for each class: finite, >= 0, not all 0; with ``above`` all > 0."""
    try:
        vector = torch.as_tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} must be a list of numbers, got {values!r}") from error
    if vector.ndim == 0:
        raise TypeError(f"{name} must be a list of numbers, got {values!r}")
    if vector.ndim != 1 or len(vector) < 2:
        raise ValueError(f"{name} must hold one number for each class, got {values!r}")
    low = (vector <= 0) if above else (vector < 0)
    if not bool(vector.isfinite().all()) or bool(low.any()) or not bool(vector.any()):
        wanted = "> 0" if above else ">= 0, not all 0"
        raise ValueError(f"{name} must be finite and {wanted}, got {values!r}")
    return tuple(vector.tolist())
