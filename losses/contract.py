"""What every loss must do on any input, as checks that say in words what fails.

The same checks run on the catalogue in the tests, and on a loss of the user's own:

>>> from losses import contract
>>> for result in contract.check(contract.subject("my_loss.py:MyLoss")):
...     print(result)

A check takes a :class:`Subject` (a loss and how to build it) and a :class:`Case` (an input), and
raises :class:`Finding` if the loss breaks the promise, :class:`NotApplicable` if the loss does not
make it. Its name is that of its function, and what it promises is the docstring of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from . import catalogue
from .base import SegmentationLoss
from .catalogue import Loss

IGNORED = 255
LARGEST = 1e4
"""Logits up to this size must give a finite value and gradient."""

GAPS = (20.0, 50.0, 90.0)
"""By how much one class exceeds the others where it is predicted everywhere.

From about 17 on, 1 - p is 0 in single precision; at 50, so is p^2 of the others; at 90, so is p.
"""


class Finding(AssertionError):
    """What a loss breaks, in words."""


class NotApplicable(Exception):
    """Why a check does not concern a loss, in words."""


@dataclass(frozen=True)
class Case:
    """An input, made from its description: normally distributed logits and a label map.

    In every other image the classes are slabs, in the others they are scattered.

    Args:
        present: for each image, the classes that its labels have.
        ignored: share of the voxels that are ignored.
        scale: standard deviation of the logits.
    """

    spatial: tuple[int, ...] = (4, 5)
    classes: int = 4
    present: tuple[tuple[int, ...], ...] = ((0, 1, 2, 3), (0, 1, 2, 3))
    ignored: float = 0.0
    scale: float = 1.0
    seed: int = 0

    def __str__(self) -> str:
        absent = (set(range(self.classes)) - set(classes) for classes in self.present)
        words = [
            f"images: {len(self.present)} of {' x '.join(map(str, self.spatial))} voxels",
            f"{self.classes} classes",
            *(
                f"class {', '.join(map(str, sorted(missing)))} absent from image {image}"
                for image, missing in enumerate(absent)
                if missing
            ),
        ]
        if self.ignored:
            words.append(f"{self.ignored:.0%} of the voxels ignored")
        return ", ".join([*words, f"logits about {self.scale:g}, seed {self.seed}"])

    @cached_property
    def _drawn(self) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(self.seed)
        shape = (len(self.present), *self.spatial)
        logits = self.scale * torch.randn(
            (len(self.present), self.classes, *self.spatial), generator=generator
        )
        choice = torch.randint(0, 2**20, shape, generator=generator)
        labels = torch.stack(
            [torch.tensor(own)[c % len(own)] for own, c in zip(self.present, choice, strict=True)]
        )
        for image, own in zip(labels.flatten(1), self.present, strict=True):
            image[: len(own)] = torch.tensor(own)[: len(image)]
        labels.flatten(1)[::2] = labels.flatten(1)[::2].sort().values  # classes with an inside
        return logits, labels, torch.rand(shape, generator=generator) < self.ignored

    @property
    def logits(self) -> Tensor:
        """(B, C, *spatial), float32."""
        return self._drawn[0]

    @property
    def labels(self) -> Tensor:
        """(B, *spatial), int64, of classes only."""
        return self._drawn[1]

    @property
    def mask(self) -> Tensor:
        """(B, *spatial), True where a voxel is to be ignored."""
        return self._drawn[2]

    def with_classes(self, classes: int) -> Case:
        """The same input with another number of classes."""
        kept = tuple(tuple(c for c in own if c < classes) or (0,) for own in self.present)
        return replace(self, classes=classes, present=kept)


CASES = (
    Case(),
    Case((3, 4, 3), 3, ((0, 1, 2), (0, 2)), ignored=0.2, seed=1),
    Case((5, 4), 2, ((0,), (0, 1)), seed=2),
    Case((4, 3, 2), 5, ((0, 1, 2, 3, 4), (0,), (3, 1)), ignored=0.3, scale=3.0, seed=3),
    Case((6, 1), 2, ((1,),), scale=0.1, seed=5),
)
"""The inputs of a check by hand; the tests draw many more."""

LARGE = Case((260, 260), 2, ((0, 1),))
"""More voxels than float16 can count."""


@dataclass(frozen=True)
class Subject:
    """A loss to check.

    Args:
        build: ``build(classes, **options)`` gives the loss for that number of classes, any
            callable ``loss(logits, labels)``.
        options: names of the options that ``build`` takes.
        classes: the only number of classes that the loss is meant for, if there is one.
        excepted: names of checks that are not meant to hold, each with the reason.
    """

    build: Callable[..., Loss]
    options: Collection[str] = ()
    classes: int | None = None
    excepted: Mapping[str, str] = field(default_factory=dict)

    def on(self, case: Case) -> tuple[Loss, Tensor, Tensor]:
        """The loss and its input; voxels are ignored if the loss can ignore any."""
        if "ignore_index" not in self.options or not case.ignored:
            return self.build(case.classes), case.logits, case.labels
        loss = self.build(case.classes, ignore_index=IGNORED)
        return loss, case.logits, case.labels.masked_fill(case.mask, IGNORED)

    def ignoring(self, case: Case) -> Loss:
        """The loss that ignores voxels, or NotApplicable."""
        if "ignore_index" not in self.options:
            raise NotApplicable("the loss has no option ignore_index")
        return self.build(case.classes, ignore_index=IGNORED)


FOR_CLASSES: Mapping[str, Callable[[int], Any]] = {
    "weight": lambda classes: [1.0 + c for c in range(classes)],
    "dist_matrix": lambda classes: [
        [float(a != b) for a in range(classes)] for b in range(classes)
    ],
}
"""A value for each option that must be given and has an entry a class."""


def subject(name: str, *, classes: int | None = None, **options: Any) -> Subject:
    """A loss of the catalogue or of the user's own, with the given options.

    Errors:
        ValueError, TypeError: no such loss; an option that it does not have, lacks or refuses.
    """
    known = catalogue.options(name)

    def build(classes: int, **more: Any) -> Loss:
        given = {**options, **more}
        needed = {
            key: FOR_CLASSES[key](classes)
            for key, default in known.items()
            if default is catalogue.REQUIRED and key not in given and key in FOR_CLASSES
        }
        return catalogue.create(name, **needed, **given)

    build(classes or CASES[0].classes)
    excepted = {check: reasons[name] for check, reasons in EXCEPTIONS.items() if name in reasons}
    return Subject(build, tuple(known), classes, excepted)


# --- evaluation ----------------------------------------------------------------------------------


def evaluate(
    loss: Loss,
    logits: Tensor,
    labels: Tensor,
    arrange: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> tuple[Tensor, Tensor]:
    """Value and gradient on copies of the input, which ``arrange`` lays out in memory.

    As in training, the loss gets logits that were computed, which it could change in place.
    """
    leaf = logits.detach().clone().requires_grad_()
    value = loss(arrange(leaf.clone()), arrange(labels.clone()))
    _is_scalar(value)
    (slope,) = torch.autograd.grad(value, leaf, allow_unused=True)
    return value.detach(), torch.zeros_like(leaf) if slope is None else slope


def _is_scalar(value: object) -> None:
    if not isinstance(value, Tensor):
        raise Finding(f"returns {type(value).__name__}, expected a scalar torch.Tensor")
    if value.ndim:
        raise Finding(
            f"returns a tensor of shape {tuple(value.shape)}, expected a scalar: "
            "take the mean over voxels, classes and images"
        )
    if not value.requires_grad:
        raise Finding(
            "the value has no gradient: something on the way from the logits is not "
            "differentiable (argmax, a comparison) or detached (item, detach, numpy)"
        )


def _is_finite(value: Tensor, slope: Tensor, where: str) -> None:
    if not torch.isfinite(value):
        raise Finding(f"{where}, the value is {value.item()}, expected a finite one")
    wrong = slope[~torch.isfinite(slope)]
    if len(wrong):
        raise Finding(
            f"{where}, the gradient is {wrong[0].item()} at {len(wrong)} of {slope.numel()} "
            "logits, expected a finite one"
        )


def _is_double(value: Tensor) -> None:
    if value.dtype != torch.float64:
        raise NotApplicable(f"the value of float64 logits is {value.dtype}: too coarse to compare")


def _agree(
    got: tuple[Tensor, Tensor],
    expected: tuple[Tensor, Tensor],
    what: str,
    *,
    rtol: float = 1e-4,
    slope_rtol: float = 1e-3,
    slope_atol: float = 1e-9,
) -> None:
    """Values within ``rtol``, gradients within ``slope_rtol`` of the largest derivative."""
    (value, slope), (other, other_slope) = got, expected
    if not torch.isclose(value.double(), other.double(), rtol=rtol, atol=1e-6, equal_nan=True):
        raise Finding(f"{what} the value is {value.item():.7g}, expected {other.item():.7g}")
    slope, other_slope = slope.double(), other_slope.double()
    largest = other_slope.abs().max().item()
    off = (slope - other_slope).abs().max().item()
    if not off <= slope_rtol * largest + slope_atol:
        raise Finding(
            f"{what} the gradient is off by up to {off:.3g}, its largest entry is {largest:.3g}"
        )


# --- the checks ----------------------------------------------------------------------------------


def scalar(subject: Subject, case: Case) -> None:
    """Logits and a label map give a scalar with a gradient."""
    loss, logits, labels = subject.on(case)
    try:
        _, slope = evaluate(loss, logits, labels)
    except Finding:
        raise
    except Exception as error:
        hot = one_hot(case.labels, case.classes).movedim(-1, 1)
        for targets in (hot, hot.float()):
            try:
                evaluate(loss, logits, targets)
            except Exception:
                continue
            raise Finding(
                "the loss wants one-hot labels, but a study gives the label map (B, *spatial): "
                "begin with torch.nn.functional.one_hot(labels, logits.shape[1]).movedim(-1, 1)"
            ) from error
        raise
    everything = all(len(own) == case.classes for own in case.present)
    if everything and not case.ignored and not slope.any():
        raise Finding("the gradient is 0 at every logit, so that nothing is learnt")


def finite(subject: Subject, case: Case) -> None:
    """Value and gradient are finite for logits up to +-1e4."""
    loss, logits, labels = subject.on(case)
    right = one_hot(case.labels, case.classes).movedim(-1, 1).float()
    random = logits / logits.abs().max()
    for size, extreme, words in (
        (100.0, random, "random logits"),
        (LARGEST, random, "random logits"),
        (LARGEST, random.sign(), "logits of random sign"),
        (LARGEST, 2 * right - 1, "the right class predicted by logits"),
        (LARGEST, 1 - 2 * right, "the right class excluded by logits"),
    ):
        value, slope = evaluate(loss, size * extreme, labels)
        _is_finite(value, slope, f"with {words} up to {size:g}")


def gradient(subject: Subject, case: Case) -> None:
    """In float64 the gradient is the derivative of the value (central differences)."""
    loss, logits, labels = subject.on(case)
    logits = logits.double() / case.scale  # far out, rounding would drown the differences
    value, slope = evaluate(loss, logits, labels)
    _is_double(value)
    step = 1e-6
    generator = torch.Generator().manual_seed(case.seed)
    for entry in torch.randperm(logits.numel(), generator=generator)[:6].tolist():
        shift = torch.zeros_like(logits)
        shift.view(-1)[entry] = step
        with torch.no_grad():
            rise = loss(logits + shift, labels.clone()) - loss(logits - shift, labels.clone())
        expected, got = rise.item() / (2 * step), slope.flatten()[entry].item()
        if not abs(got - expected) <= 1e-5 * slope.abs().max().item() + 1e-8:
            raise Finding(
                f"the derivative by one logit is {got:.7g}, but differences of the value give "
                f"{expected:.7g}"
            )


def half_precision(subject: Subject, case: Case) -> None:
    """float16 and bfloat16 logits give what float32 gives, as exactly as the value's own dtype."""
    loss, logits, labels = subject.on(case)
    for dtype in (torch.float16, torch.bfloat16):
        rounded = logits.to(dtype)
        value, slope = evaluate(loss, rounded, labels)
        where = f"with {dtype} logits".replace("torch.", "")
        _is_finite(value, slope, where)
        _agree(
            (value, slope),
            evaluate(loss, rounded.float(), labels),
            where,
            rtol=8 * torch.finfo(value.dtype).eps,
            slope_rtol=0.05,
            slope_atol=torch.finfo(dtype).smallest_normal,
        )


def collapsed(subject: Subject, case: Case) -> None:
    """Where one class is predicted everywhere, float32 has the gradient of float64.

    Compared are the derivatives by the logits of the other classes, which have to bring these
    back. (That of the predicted class is minus their sum, which the softmax of float32 cannot
    resolve.) What is small in float32 beside 1 / voxels, the derivative of a mean, may be lost.
    """
    loss, logits, labels = subject.on(case)
    floor = torch.finfo(torch.float32).eps / max(1, (labels != IGNORED).sum().item())
    predicted = case.seed % case.classes
    others = torch.arange(case.classes) != predicted
    for gap in GAPS:
        one_class = torch.zeros_like(logits)
        one_class[:, predicted] = gap
        where = f"with class {predicted} predicted everywhere by a gap of {gap:g} in float32"
        value, slope = evaluate(loss, one_class, labels)
        _is_finite(value, slope, where)
        expected, wanted = evaluate(loss, one_class.double(), labels)
        _is_double(expected)
        _agree(
            (value, slope[:, others]),
            (expected, wanted[:, others]),
            f"{where},",
            slope_atol=floor,
        )


def ignored_voxels(subject: Subject, case: Case) -> None:
    """Ignored voxels have gradient 0, and their logits change nothing, NaN and inf included."""
    loss = subject.ignoring(case)
    labels = case.labels.masked_fill(case.mask, IGNORED)
    ignored = case.mask.unsqueeze(1).expand_as(case.logits)
    value, slope = evaluate(loss, case.logits, labels)
    if slope[ignored].any():
        raise Finding(
            f"the gradient at ignored voxels is up to {slope[ignored].abs().max():.3g}, expected 0"
        )
    for poison in (torch.nan, torch.inf, -torch.inf):
        other, other_slope = evaluate(loss, case.logits.masked_fill(ignored, poison), labels)
        if not torch.equal(other, value):
            raise Finding(
                f"with {poison:g} as logits of ignored voxels the value is {other.item():.7g}, "
                f"expected {value.item():.7g} as before"
            )
        if not torch.equal(other_slope, slope):
            raise Finding(f"with {poison:g} as logits of ignored voxels the gradient changes")


def all_ignored(subject: Subject, case: Case) -> None:
    """With every voxel ignored, value and gradient are 0; one such image among others is finite."""
    loss = subject.ignoring(case)
    labels = torch.full_like(case.labels, IGNORED)
    for logits in (case.logits, torch.full_like(case.logits, torch.nan)):
        value, slope = evaluate(loss, logits, labels)
        if value != 0 or slope.any():
            raise Finding(
                f"with every voxel ignored the value is {value.item():.7g} and the gradient up to "
                f"{slope.abs().max():.3g}, expected 0"
            )
    labels[1:] = case.labels[1:]
    _is_finite(*evaluate(loss, case.logits, labels), "with every voxel of one image ignored")


def absent_classes(subject: Subject, case: Case) -> None:
    """Value and gradient are finite where classes are absent, or only one is present."""
    loss, logits, labels = subject.on(case)
    _is_finite(*evaluate(loss, logits, labels), "with these classes")
    for only in range(case.classes):
        alone = torch.where(labels == IGNORED, labels, only)
        value, slope = evaluate(loss, logits, alone)
        _is_finite(value, slope, f"with class {only} alone in the labels")
    for predicted in (0, 1):
        everywhere = torch.zeros_like(logits)
        everywhere[:, predicted] = 20
        value, slope = evaluate(loss, everywhere, torch.where(alone == IGNORED, alone, 1))
        _is_finite(value, slope, f"with class 1 alone, class {predicted} predicted everywhere")


def single_voxel(subject: Subject, case: Case) -> None:
    """One image of one voxel has a finite value and gradient."""
    loss = subject.build(case.classes)
    ones = [1] * len(case.spatial)
    logits = case.logits[0].flatten(1)[:, 0].reshape(1, case.classes, *ones)
    for only in (0, case.classes - 1):
        value, slope = evaluate(loss, logits, torch.full((1, *ones), only))
        _is_finite(value, slope, f"with one voxel, of class {only}")


def image_order(subject: Subject, case: Case) -> None:
    """The order of the images in the batch does not matter."""
    loss, logits, labels = subject.on(case)
    value, slope = evaluate(loss, logits.flip(0), labels.flip(0))
    _agree(
        (value, slope.flip(0)), evaluate(loss, logits, labels), "with the images in reverse order"
    )


def voxel_order(subject: Subject, case: Case) -> None:
    """The order of the voxels in an image does not matter."""
    loss, logits, labels = subject.on(case)
    generator = torch.Generator().manual_seed(case.seed)
    order = torch.randperm(labels[0].numel(), generator=generator)
    shuffled, shuffled_labels = (
        (tensor.flatten(axis)[..., order].view_as(tensor))
        for tensor, axis in ((logits, 2), (labels, 1))
    )
    value, slope = evaluate(loss, shuffled, shuffled_labels)
    slope = slope.flatten(2)[..., order.argsort()].view_as(logits)
    _agree((value, slope), evaluate(loss, logits, labels), "with the voxels in another order")


def mirrored(subject: Subject, case: Case) -> None:
    """An image and its mirror image have the same value."""
    loss, logits, labels = subject.on(case)
    axis = case.seed % len(case.spatial)
    value, slope = evaluate(loss, logits.flip(2 + axis), labels.flip(1 + axis))
    _agree(
        (value, slope.flip(2 + axis)),
        evaluate(loss, logits, labels),
        f"with spatial axis {axis} mirrored",
    )


def channel_axis(subject: Subject, case: Case) -> None:
    """Labels (B, 1, *spatial) mean the same as labels (B, *spatial)."""
    loss, logits, labels = subject.on(case)
    expected = evaluate(loss, logits, labels)
    try:
        got = evaluate(loss, logits, labels.unsqueeze(1))
    except Exception as error:
        if isinstance(loss, SegmentationLoss):
            raise
        raise NotApplicable(
            "the loss refuses labels (B, 1, *spatial), and a study gives (B, *spatial)"
        ) from error
    _agree(got, expected, "with labels (B, 1, *spatial)")


def memory_layout(subject: Subject, case: Case) -> None:
    """Channels-last and non-contiguous tensors mean the same as contiguous ones."""
    loss, logits, labels = subject.on(case)
    expected = evaluate(loss, logits, labels)
    for arrange, words in (
        (_channels_last, "channels-last"),
        (_transposed, "transposed"),
        (_strided, "strided"),
    ):
        _agree(evaluate(loss, logits, labels, arrange), expected, f"with {words} tensors")


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def _transposed(tensor: Tensor) -> Tensor:
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


def _strided(tensor: Tensor) -> Tensor:
    return tensor.repeat_interleave(2, -1)[..., ::2]


def unchanged_input(subject: Subject, case: Case) -> None:
    """The loss leaves the logits and labels it is given as they are."""
    loss, logits, labels = subject.on(case)
    given, given_labels = logits.clone().requires_grad_().clone(), labels.clone()
    loss(given, given_labels).backward()
    for what, now, before in (("logits", given, logits), ("labels", given_labels, labels)):
        changed = (now != before).sum().item()
        if changed:
            raise Finding(f"the loss changes the {what} in place, {changed} of {now.numel()}")


def deterministic(subject: Subject, case: Case) -> None:
    """The same input gives the same value and gradient, and so does the loss built again."""
    loss, logits, labels = subject.on(case)
    value, slope = evaluate(loss, logits, labels)
    for other, words in ((loss, "called again"), (subject.on(case)[0], "built again")):
        again, slope_again = evaluate(other, logits, labels)
        if not torch.equal(again, value):
            raise Finding(
                f"{words}, the loss is {again.item():.9g}, and was {value.item():.9g}, on the "
                "same input"
            )
        if not torch.equal(slope_again, slope):
            raise Finding(f"{words}, the loss has another gradient on the same input")


Check = Callable[[Subject, Case], None]

CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        scalar,
        finite,
        gradient,
        half_precision,
        collapsed,
        ignored_voxels,
        all_ignored,
        absent_classes,
        single_voxel,
        image_order,
        voxel_order,
        mirrored,
        channel_axis,
        memory_layout,
        unchanged_input,
        deterministic,
    )
}

_LOG_OF_0 = "its defect: log(1 - p) of a probability that rounds to 1, times 0, is NaN"
_LOG_CLAMPED = (
    "its defect: the sigmoid is rounded before its logarithm, so that a confident false positive "
    "(logit above 17) costs 100 and has no gradient"
)
_ROOT_OF_0 = (
    "a root of 1 - p or of 1 - D: float32 rounds what is nearly right to 0, where the root is "
    "steepest and the loss is at its minimum"
)
_DISTANCES = "it measures distances"
_NEIGHBOURS = "it looks at neighbours"

EXCEPTIONS: Mapping[str, Mapping[str, str]] = {
    "finite": {"published_combo": _LOG_OF_0},
    "collapsed": {
        "published_combo": _LOG_OF_0,
        "published_bce_dice": _LOG_CLAMPED,
        "published_focal_mean_bce": _LOG_CLAMPED,
        "exponential_logarithmic": _ROOT_OF_0,
        "unified_focal": _ROOT_OF_0,
        "asymmetric_unified_focal": _ROOT_OF_0,
    },
    "absent_classes": {"published_combo": _LOG_OF_0},
    "ignored_voxels": {
        "published_fbeta_dice": "its defect: predictions at ignored voxels stay in the predicted "
        "volume"
    },
    "voxel_order": {
        "boundary": _DISTANCES,
        "boundary_dou": _NEIGHBOURS,
        "cl_dice": _NEIGHBOURS,
        "dice_boundary": _DISTANCES,
        "dice_hausdorff": _DISTANCES,
        "distance_penalised_cross_entropy": _DISTANCES,
        "hausdorff_dt": _DISTANCES,
        "hausdorff_erosion": _NEIGHBOURS,
        "nacl": _NEIGHBOURS,
    },
}
"""Checks that a loss of the catalogue does fail, because of what it is, and why."""


# --- running them --------------------------------------------------------------------------------


def hold(name: str, subject: Subject, case: Case) -> None:
    """One check on one input; whatever the loss raises is a finding too."""
    try:
        CHECKS[name](subject, case)
    except NotApplicable:
        raise
    except Finding as finding:
        raise Finding(f"{finding} [{case}]") from finding.__cause__
    except Exception as error:
        words = " ".join(f"raises {type(error).__name__}: {error}".split())
        raise Finding(f"{words} [{case}]") from error


@dataclass(frozen=True)
class Result:
    """What came of a check."""

    name: str
    verdict: str
    """ok, FAILS or not applicable"""
    words: str

    def __str__(self) -> str:
        return f"{self.verdict:14}  {self.name}: {self.words}"


def check(subject: Subject) -> Iterator[Result]:
    """Every check on :data:`CASES`; the first input that breaks a promise is the one told."""
    broken = False
    for name, promise in CHECKS.items():
        if broken:
            yield Result(name, "not applicable", "needs a loss that passes the check scalar")
            continue
        result = _result(name, (promise.__doc__ or "").splitlines()[0], subject)
        broken = name == "scalar" and result.verdict == "FAILS"
        yield result


def _result(name: str, promise: str, subject: Subject) -> Result:
    if name in subject.excepted:
        return Result(name, "not applicable", subject.excepted[name])
    cases = (*CASES, LARGE) if name == "half_precision" else CASES
    try:
        for case in cases:
            hold(name, subject, case.with_classes(subject.classes or case.classes))
    except NotApplicable as reason:
        return Result(name, "not applicable", str(reason))
    except Finding as finding:
        return Result(name, "FAILS", str(finding))
    return Result(name, "ok", promise)
