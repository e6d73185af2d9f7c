"""What a step tells each class: where it is, how probable it is there, and its gradient."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence

import torch

COLUMNS = (
    "step", "class", "images", "voxels", "probability", "slope", "gradient_inside",
    "gradient_outside", "weight",
)  # fmt: skip


@torch.no_grad()
def measure(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    logits: torch.Tensor,
    gradient: torch.Tensor,
    labels: torch.Tensor,
    names: Sequence[str],
) -> Iterator[tuple]:
    """``COLUMNS`` without the step, a row for each class.

    Args:
        loss: gives ``weight`` if it has ``class_weights(volumes)``, (B, C) -> (B, C) or (1, C).
        logits: (B, C, *spatial).
        gradient: of the loss by the logits, the same shape.
        labels: (B, *spatial).
        names: of the C classes.

    ``images`` of the batch have the class, in ``voxels`` in all. Over these voxels,
    ``probability`` is the mean softmax p of the class and ``slope`` the mean p (1 - p), which
    every gradient through a softmax has as a factor; both are NaN where there are none.
    ``gradient_inside`` and ``gradient_outside`` are the sums of the absolute gradient of the
    class's own logit over its voxels and over all others. ``weight``: mean of the class's share
    of the sum of weights, over the images that the loss gives a weight at all.
    """
    p = logits.softmax(1)
    volumes = torch.stack([(labels == c).flatten(1).sum(1) for c in range(len(names))], 1)
    weights = _weights(loss, volumes.to(logits.dtype))
    for c, name in enumerate(names):
        inside = labels == c
        own, slope_of = p[:, c][inside], gradient[:, c].abs()
        yield (
            name,
            int((volumes[:, c] > 0).sum()),
            int(volumes[:, c].sum()),
            own.mean().item() if len(own) else math.nan,
            (own * (1 - own)).mean().item() if len(own) else math.nan,
            slope_of[inside].sum().item(),
            slope_of[~inside].sum().item(),
            weights[c].item() if weights is not None else math.nan,
        )


def _weights(loss: object, volumes: torch.Tensor) -> torch.Tensor | None:
    """Share (C,) of each class in the weights that the loss gives to these volumes (B, C)."""
    weigh = getattr(loss, "class_weights", None)
    # others have an attribute or a method of that name that takes something else
    if not callable(weigh) or list(inspect.signature(weigh).parameters) != ["volumes"]:
        return None
    if getattr(loss, "batch", False):
        volumes = volumes.sum(0, keepdim=True)
    if weighing := getattr(loss, "weighing_volumes", None):
        volumes = weighing(volumes)
    first = 0 if getattr(loss, "include_background", True) else 1
    volumes = volumes[:, first:]
    if getattr(loss, "absent", "") == "skip":
        volumes = volumes[(volumes > 0).all(1)]
    weights = weigh(volumes)
    shares = (weights / weights.sum(1, keepdim=True)).nanmean(0)
    return torch.cat([shares.new_zeros(first), shares])
