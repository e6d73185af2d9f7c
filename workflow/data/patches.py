"""Patches for training, drawn in an order that depends on the seeds alone.

Everything random comes from two generators, of places and of augmentation, and is drawn before any
array is touched; no loss, no network and no device has a say. Two runs with the same seeds
therefore see the same patches, and `PatchSampler.sha256` proves it.

Patches are cut on the host, where the memory maps are, and mirrored in the same write; intensities
are changed where they are trained on. Volumes are not kept on the device: memory would grow with
the number of cases, and each of the runs that share a GPU would hold its own copy. What crosses in
a step is one batch, a byte for each label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class _Draw:
    """One patch before it is cut; `corner` may be negative where the volume is padded."""

    case: int
    corner: tuple[int, ...]
    flips: tuple[bool, ...]
    scale: np.ndarray
    shift: np.ndarray

    def record(self) -> bytes:
        return (
            np.array([self.case, *self.corner, *self.flips], dtype="<i8").tobytes()
            + np.concatenate([self.scale, self.shift]).astype("<f8").tobytes()
        )


class PatchSampler:
    """An endless iterator of batches: images (B, C, *patch) float32, labels (B, *patch) int64.

    Each patch comes from a case drawn uniformly. With probability `foreground_share` it is centred
    on a foreground voxel, as in nnU-Net: first a class is drawn among those that the case has, then
    a voxel of it, since drawing among all voxels would favour the large class. Otherwise, and in a
    case without foreground, its place is uniform. A patch never leaves the volume; where the volume
    is smaller the patch is padded on both sides, the image with its minimum, the label with 0.

    Args:
        images: arrays (C, x, y, z), float32; memory maps are welcome.
        labels: arrays (x, y, z) of classes, uint8, 0 is the background.
        foreground: of each case the flat indices of some voxels of each foreground class it has.
            None of the three sequences is read before a patch needs the case, so they may open
            their files when asked.
        patch_size: voxels along x, y and z.
        batch_size: patches of a batch.
        foreground_share: probability of a patch around foreground, 0 to 1.
        flips: mirror along each axis with probability one half.
        intensity: jitter j; each channel is multiplied by 1 + U(-j, j) and shifted by U(-j, j),
            in units of the prepared images' standard deviation. 0 is off.
        order_seed: of cases and places.
        augmentation_seed: of flips and jitter; places stay where they are whatever is augmented.
        device: where batches are given, and their intensities changed.

    Raises:
        ValueError: no cases, or images and labels that do not fit one another.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        labels: Sequence[np.ndarray],
        foreground: Sequence[Sequence[np.ndarray]],
        patch_size: Sequence[int],
        batch_size: int,
        foreground_share: float,
        flips: bool,
        intensity: float,
        order_seed: int,
        augmentation_seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        if not images or not len(images) == len(labels) == len(foreground):
            raise ValueError(
                f"{len(images)} images, {len(labels)} labels and {len(foreground)} lists of "
                "foreground, expected as many"
            )
        self._images, self._labels, self._foreground = images, labels, foreground
        self._shapes: dict[int, tuple[int, ...]] = {}
        self._minima: dict[int, np.ndarray] = {}
        self._patch_size = tuple(int(length) for length in patch_size)
        self._batch_size = batch_size
        self._foreground_share = foreground_share
        self._flips = flips
        self._intensity = intensity
        self._device = torch.device(device)
        self._order = np.random.default_rng(order_seed)
        self._augmentation = np.random.default_rng(augmentation_seed)
        self._digest = hashlib.sha256().hexdigest()

    @property
    def sha256(self) -> str:
        """Digest of every choice so far: case, corner, flips and jitter of each patch."""
        return self._digest

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep so that a resumed run goes on with the same patches."""
        return {
            "order": self._order.bit_generator.state,
            "augmentation": self._augmentation.bit_generator.state,
            "sha256": self._digest,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()` of a sampler with the same arguments."""
        self._order.bit_generator.state = state["order"]
        self._augmentation.bit_generator.state = state["augmentation"]
        self._digest = state["sha256"]

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        draws = [self._draw() for _ in range(self._batch_size)]
        records = b"".join(draw.record() for draw in draws)
        # A chain of digests, not one running hash: a checkpoint can hold the last link.
        self._digest = hashlib.sha256(bytes.fromhex(self._digest) + records).hexdigest()
        # the host need not wait for a copy to a GPU if it is from pinned memory
        pinned = self._device.type == "cuda"
        empty = partial(torch.empty, pin_memory=pinned)
        channels = len(draws[0].scale)
        images = empty(self._batch_size, channels, *self._patch_size)
        labels = empty(self._batch_size, *self._patch_size, dtype=torch.uint8)
        jitter = empty(self._batch_size, 2, channels)
        arrays = (tensor.numpy() for tensor in (images, labels, jitter))
        for draw, image, label, factors in zip(draws, *arrays, strict=True):
            self._cut(draw, image, label)
            factors[:] = draw.scale, draw.shift
        images, labels, jitter = (
            tensor.to(self._device, non_blocking=pinned) for tensor in (images, labels, jitter)
        )
        if self._intensity:
            scale, shift = jitter[..., None, None, None].unbind(1)
            images.mul_(scale).add_(shift)
        return images, labels.long()

    def _draw(self) -> _Draw:
        rng, patch = self._order, self._patch_size
        case = int(rng.integers(len(self._labels)))
        channels, *shape = self._shape(case)
        centred = rng.random() < self._foreground_share
        foreground = self._foreground[case] if centred else ()
        if foreground:
            voxels = foreground[int(rng.integers(len(foreground)))]
            voxel = np.unravel_index(int(voxels[int(rng.integers(len(voxels)))]), shape)
            corner = [
                min(max(int(v) - p // 2, 0), s - p) if s > p else -((p - s) // 2)
                for v, p, s in zip(voxel, patch, shape, strict=True)
            ]
        else:
            corner = [
                int(rng.integers(s - p + 1)) if s > p else -((p - s) // 2)
                for p, s in zip(patch, shape, strict=True)
            ]
        rng = self._augmentation
        flips = tuple(bool(flip) for flip in rng.random(3) < 0.5) if self._flips else (False,) * 3
        scale, shift = self._intensity * rng.uniform(-1, 1, size=(2, channels))
        return _Draw(case, tuple(corner), flips, 1 + scale, shift)

    def _cut(self, draw: _Draw, image: np.ndarray, label: np.ndarray) -> None:
        """Fill one patch, image (C, *patch) and label (*patch), in place."""
        source, target = [], []
        for corner, length, size in zip(
            draw.corner, self._shape(draw.case)[1:], self._patch_size, strict=True
        ):
            start, stop = max(corner, 0), min(corner + size, length)
            source.append(slice(start, stop))
            target.append(slice(start - corner, stop - corner))
        flipped = tuple(axis for axis, flip in enumerate(draw.flips, -3) if flip)
        volume = self._images[draw.case]
        if any(n < p for n, p in zip(volume.shape[1:], self._patch_size, strict=True)):
            image[:] = self._minimum(draw.case, volume)[:, None, None, None]
            label[:] = 0
        # Flipping the target view writes the patch mirrored without a copy.
        np.flip(image, flipped)[:, *target] = volume[:, *source]
        np.flip(label, flipped)[*target] = self._labels[draw.case][*source]

    def _shape(self, case: int) -> tuple[int, ...]:
        """(C, x, y, z) of a case, looked up once."""
        if case not in self._shapes:
            shape, marked = self._images[case].shape, self._labels[case].shape
            if shape[1:] != marked or len(self._patch_size) != len(marked):
                raise ValueError(
                    f"case {case}: image {shape}, label {marked}, patch {self._patch_size}, "
                    "expected (C, x, y, z), (x, y, z) and three lengths"
                )
            self._shapes[case] = shape
        return self._shapes[case]

    def _minimum(self, case: int, image: np.ndarray) -> np.ndarray:
        """Minimum of each channel (C,) of a volume that is smaller than the patch."""
        if case not in self._minima:
            self._minima[case] = np.asarray(image).reshape(len(image), -1).min(axis=1)
        return self._minima[case]
