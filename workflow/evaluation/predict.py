"""Logits of whole volumes by MONAI's sliding window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
import torch
from monai.inferers import sliding_window_inference

VOXELS_PER_BATCH = 4 * 64**3
"""Volumes of one shape are predicted together up to this many voxels (memory stays bounded)."""


def batches(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """The cases that are predicted together, by shape and name."""
    for shape, group in groupby(
        sorted(shapes, key=lambda c: (shapes[c], c)), key=shapes.__getitem__
    ):
        cases = list(group)
        size = max(1, VOXELS_PER_BATCH // math.prod(shape))
        yield from (cases[start : start + size] for start in range(0, len(cases), size))


def predict(
    forward: Callable[[torch.Tensor], torch.Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    image: Callable[[str], torch.Tensor],
    *,
    window: Sequence[int],
    overlap: float,
    device: torch.device,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields ``(case, logits)``: (C, x, y, z) float32 on ``device``.

    ``forward`` gives the logits (B, C, *window) float32 of windows (B, channels, *window) on
    ``device``, and ``image(case)`` (channels, x, y, z) float32. Cases of one shape share a batch: a
    single volume is slower on a CPU, because a batch of one has no definite channels-last layout.
    """
    for batch in batches(shapes):
        volumes = torch.stack([image(case) for case in batch]).to(device)
        with torch.inference_mode():
            logits = sliding_window_inference(
                volumes, tuple(window), 4, forward, overlap=overlap, mode="constant"
            )
        yield from zip(batch, logits, strict=True)


def label_map(logits: torch.Tensor) -> np.ndarray:
    """The most probable class of each voxel: (C, x, y, z) -> (x, y, z) uint8."""
    # ``max`` finds it eight times faster than ``argmax`` along a strided dimension
    return logits.max(0).indices.to(torch.uint8).cpu().numpy()
