"""The loss of a run, with what its options take from the training cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import losses
from workflow.data.faults import one_line
from workflow.study import TRAINING_SET_WORDS, Loss, StudyError


def create(loss: Loss, class_voxels: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss itself; ``class_voxels`` of the training cases resolve options in words."""
    options = dict(loss.options)
    for name, value in (
        ("weight", inverse_frequency(class_voxels)),
        ("volumes", list(class_voxels)),
    ):
        if options.get(name) == TRAINING_SET_WORDS[name]:
            options[name] = value
    return losses.create(loss.name, **options)


def inverse_frequency(class_voxels: Sequence[int]) -> list[float]:
    """Weight of each class: 1 / voxels in the training cases, scaled to mean 1.

    >>> inverse_frequency([300, 100])
    [0.5, 1.5]
    """
    inverse = [1 / voxels for voxels in class_voxels]
    return [len(inverse) * value / sum(inverse) for value in inverse]


def judge(value: Tensor) -> None:
    """Raises ``ValueError`` for a value of a loss that no training can follow."""
    if value.ndim:
        raise ValueError(f"the loss must be a scalar, its shape is {tuple(value.shape)}")
    if value.is_complex():
        raise ValueError(f"the loss must be a real number, it is {value.dtype}")


LONGEST_REASON = 500
"""Signs of what a loss says when it raises: it stands in a table and in the report."""


def reason(error: BaseException) -> str:
    """What a loss raised, in one line that can be written and is not too long to be read."""
    try:
        said = str(error)
    except Exception:
        said = "what it says cannot be read"
    return one_line(" ".join(f"{type(error).__name__}: {said}".split()))[:LONGEST_REASON]


TRIAL_SIDE = 32
"""Patches of a trial are at most this long along each axis, so that it takes little time."""


def trial(
    entries: dict[str, Loss], class_voxels: Sequence[int], patch_size: Sequence[int]
) -> dict[str, float]:
    """The value of each loss on a batch of two small patches, forward and backward.

    Raises ``StudyError`` with one line for each loss that raises, is no scalar or has no gradient:
    what would fail in every run should fail before the first.
    """
    generator = torch.Generator().manual_seed(0)
    classes = len(class_voxels)
    shape = tuple(min(TRIAL_SIDE, length) for length in patch_size)
    logits = torch.randn((2, classes, *shape), generator=generator)
    slabs = torch.arange(shape[0]) * classes // shape[0]  # every class where it has the room
    labels = slabs[:, None, None].expand(2, *shape).contiguous()
    values, faults = {}, []
    for label, entry in entries.items():
        try:
            leaf = logits.clone().requires_grad_()
            value = create(entry, class_voxels)(leaf, labels)
            judge(value)
            torch.autograd.grad(value, leaf)
            values[label] = value.item()
        except (Exception, SystemExit) as error:
            faults.append(f"losses.{label}: on a trial batch of {classes} classes: {reason(error)}")
    if faults:
        raise StudyError("\n".join(faults))
    return values
