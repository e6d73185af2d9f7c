"""How every loss answers one ball that is predicted ever worse: its value and its gradient.

An image of 24^3 voxels holds two balls: one of class 1, always predicted rightly, and one of
class 2, whose prediction shrinks to nothing, shifts away, or stays right while a false positive
of the same class grows beside it. Every course begins with the right prediction. The same
predictions are then shown to the loss with class 2 erased from the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import losses

CLASSES = 3
SIZE = 24
RADIUS, OTHER_RADIUS = 5.0, 3.0
CENTRE, OTHER = (6.5, 11.5, 11.5), (12.0, 3.0, 11.5)
FALSE_CENTRE = (17.5, 11.5, 11.5)
COURSES = ("shrinks", "shifts", "false positive grows")
REFERENCES = ("present", "absent")
STEEPNESS, SUREST = 4.0, 10.0  # of the logits: a voxel, and at most


def example_options(name: str, classes: int) -> dict[str, Any]:
    """A value for every option that a loss must be given: class weights that rise from 1 by 1,
    and label distances that make every confusion as bad as any other."""
    known = {
        "weight": [1.0 + label for label in range(classes)],
        "dist_matrix": [[float(a != b) for a in range(classes)] for b in range(classes)],
    }
    options = losses.options(name)
    return {option: known[option] for option in options if options[option] is losses.REQUIRED}


def balls(course: str, error: float) -> list[tuple[tuple[float, float, float], float]]:
    """Centre and radius (voxels) of what is predicted as class 2; error goes from 0 to 1."""
    if course == "shrinks":
        return [(CENTRE, RADIUS * (1 - error))]
    if course == "shifts":
        return [((CENTRE[0] + 2 * RADIUS * error, *CENTRE[1:]), RADIUS)]
    return [(CENTRE, RADIUS), (FALSE_CENTRE, RADIUS * error)]


def depth(centre: tuple[float, float, float], radius: float) -> Tensor:
    """(SIZE, SIZE, SIZE): how far inside a ball a voxel lies, in voxels; < 0 outside."""
    grid = torch.meshgrid(*[torch.arange(SIZE) - at for at in centre], indexing="ij")
    return radius - torch.stack(grid).norm(dim=0)


def prediction(course: str, error: float) -> Tensor:
    """(1, 3, SIZE, SIZE, SIZE): logits, 0 for the background, sure at 2.5 voxels from the rim."""
    found = torch.stack([depth(*ball) for ball in balls(course, error)]).amax(0)
    logits = torch.stack([torch.zeros_like(found), depth(OTHER, OTHER_RADIUS), found])
    return (STEEPNESS * logits).clamp(-SUREST, SUREST).unsqueeze(0)


def reference(which: str) -> Tensor:
    """(1, SIZE, SIZE, SIZE): labels with class 2 present or absent."""
    labels = (depth(OTHER, OTHER_RADIUS) >= 0).long()
    if which == "present":
        labels[depth(CENTRE, RADIUS) >= 0] = 2
    return labels.unsqueeze(0)


def response(
    loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor
) -> tuple[float, float]:
    """Value, and the sum over the voxels of the absolute gradient on the logit of class 2."""
    logits = logits.requires_grad_()
    value = loss(logits, labels)
    (slope,) = torch.autograd.grad(value, logits)
    return float(value.detach()), float(slope[:, 2].abs().sum())


def responses(points: int = 17) -> pd.DataFrame:
    """A row for each loss, course, reference and error (0 .. 1 in equal steps)."""
    shown = {
        (course, float(error)): prediction(course, float(error))
        for course in COURSES
        for error in np.linspace(0, 1, points)
    }
    labels = {which: reference(which) for which in REFERENCES}
    return pd.DataFrame(_rows(shown, labels))


def _rows(
    shown: dict[tuple[str, float], Tensor], labels: dict[str, Tensor]
) -> Iterator[dict[str, object]]:
    for name in losses.available():
        card = losses.card(name)
        loss = losses.create(name, **example_options(name, CLASSES))
        for which, true in labels.items():
            for (course, error), logits in shown.items():
                value, gradient = response(loss, logits, true)
                yield {
                    "loss": name,
                    "family": card.family,
                    "twin": card.twin if isinstance(card.twin, str) else "",
                    "course": course,
                    "reference": which,
                    "error": error,
                    "value": value,
                    "gradient": gradient,
                }


def pictures() -> pd.DataFrame:
    """What is shown, as balls of a slice (voxels), at the beginning, middle and end of a course."""
    rows = []
    for course in COURSES:
        for error in (0.0, 0.5, 1.0):
            drawn = [("other", OTHER, OTHER_RADIUS)]
            drawn += [("prediction", *ball) for ball in balls(course, error)]
            drawn += [("reference", CENTRE, RADIUS)]
            rows += [
                {"course": course, "error": error, "kind": kind, "x": x, "y": y, "radius": radius}
                for kind, (x, y, _), radius in drawn
            ]
    return pd.DataFrame(rows).assign(size=SIZE)
