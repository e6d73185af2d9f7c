"""What a run needs of a machine, whatever the patch, the batch and the network.

The network is traced on torch's ``meta`` device, which knows shapes and holds no numbers: so the
operations of a step and the bytes that it keeps for its gradient are counted. Measured constants
turn them into megabytes and minutes of one CPU core.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from workflow.data.prepare import Prepared
from workflow.evaluation.predict import VOXELS_PER_BATCH
from workflow.needs import START, Needs, minutes
from workflow.study import Network, RunSettings, Splits
from workflow.training import network as networks

WINDOWS = 4
"""Windows that the inference predicts at a time."""

BASE = 700
"""MB of a process that has loaded its code."""

KEPT_HELD = 4
"""Resident bytes at the peak of a step for each byte kept for its gradient."""

PREDICTION_HELD = 1.5
"""The same of a prediction, for each byte that training would keep on its windows."""

LOGITS_HELD = 6
"""Arrays like the logits that the scoring of a volume holds at a time."""

OPERATIONS = 16e9
"""Of a step, a second: the default study's network on one core, the loss included."""

SCORING = 4e-7
"""Seconds that the metrics of a predicted case take a voxel."""


class Step(NamedTuple):
    """A step of training: multiplications and additions, and bytes kept for the gradient."""

    operations: int
    kept: int


@functools.cache
def step(
    network: Network, channels: int, classes: int, batch_size: int, patch_size: tuple[int, ...]
) -> Step:
    """Traces a step, forward and backward, without its loss."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that no other gets its number
        return tensor

    with torch.device("meta"):
        built = networks.build(channels, classes, seed=0, **network.model_dump())
        images = torch.empty(batch_size, channels, *patch_size)
        with (
            FlopCounterMode(display=False) as counter,
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            built(images).sum().backward()
    return Step(counter.get_total_flops(), sum(storage.nbytes() for storage in kept.values()))


def of_run(settings: RunSettings, splits: Splits, prepared: Prepared) -> Needs:
    """What a run of the study on these data needs, whatever its loss.

    Memory covers the resident set at its peak, minutes a core that is much slower than the
    one measured.
    """
    training, geometry = settings.training, settings.geometry(prepared)
    network = settings.network.model_copy(update={"strides": geometry.strides})
    channels, classes = len(prepared.channels), len(prepared.classes)
    trained = step(network, channels, classes, training.batch_size, geometry.patch_size)
    predicted = step(network, channels, classes, WINDOWS, geometry.window)
    # the network sees the arrays, the metrics the grid of the files
    voxels = [max(map(math.prod, (case.shape, case.file_shape))) for case in prepared.cases]
    together = max(VOXELS_PER_BATCH, *voxels)  # volumes that are predicted at a time
    volumes = together * 4 * (channels + LOGITS_HELD * classes)
    held = max(KEPT_HELD * trained.kept, PREDICTION_HELD * predicted.kept + volumes)

    # a third of a step is its forward pass
    one_window = predicted.operations / WINDOWS / 3 / OPERATIONS
    ours = external = 0.0
    for case, size in zip(prepared.cases, voxels, strict=True):
        windows = _windows(case.shape, geometry.window, settings.evaluation.overlap)
        seconds = windows * one_window + size * SCORING
        if case.dataset == prepared.name:
            ours += seconds
        else:
            external += seconds
    validations = 1 + math.ceil(training.steps / training.validate_every)
    seconds = (
        START
        + training.steps * trained.operations / OPERATIONS
        + validations * splits.validation * ours
        + 2 * (splits.test * ours + external)
    )
    return Needs(
        mem_mb=math.ceil(BASE + held / 1e6),
        minutes=minutes(seconds),
    )


def _windows(shape: Sequence[int], window: Sequence[int], overlap: float) -> int:
    """Windows that cover a volume."""
    return math.prod(
        1 + math.ceil(max(0, size - length) / max(1, int(length * (1 - overlap))))
        for size, length in zip(shape, window, strict=True)
    )
