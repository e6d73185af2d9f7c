"""Does a label belong to its image? What no header tells is looked for in the voxels.

A label that is mirrored, or that is another case's, has the right shape and affine. But it then
says nothing of its image: how much of the image's variance a label explains (the correlation ratio
of Roche et al., MICCAI 1998) is compared between the label as it is, its mirror images, and the
labels of the other cases. Images of one grid are often aligned, so the mean image is subtracted
first: what is left belongs to the case alone.

All of this is evidence, never proof: it ends in warnings.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel.orientations import aff2axcodes
from scipy.sparse import csr_array

SIDE = 24  # samples along an axis: enough for evidence, little enough to keep every case
FEWEST = 4  # cases of one grid; the mean image of fewer holds too much of each
TIMES = 4.0  # as much variance must another label explain before it is called better
CHANCE = 10.0  # times what a label explains of noise: its classes over the samples
TOLD_APART = 0.6  # share of the cases in which one label must stand out, right or wrong
ALIKE = 0.999  # correlation of two images of one patient stored twice; of two patients it is < 0.95
MIRRORS = [axes for count in (1, 2, 3) for axes in itertools.combinations(range(3), count)]
"""Axes to mirror; two at once are what confusing the conventions of ITK and NIfTI does."""
AXES = {"R": "left-right", "A": "front-back", "S": "up-down"}
AXES |= {"L": AXES["R"], "P": AXES["A"], "I": AXES["S"]}


@dataclass(frozen=True)
class Thumbnail:
    """A coarse grid of samples of one case.

    `image` (channels, samples) has mean 0 and deviation 1 in each channel, 0 if it is flat.
    """

    case: str
    shape: tuple[int, ...]
    affine: np.ndarray
    image: np.ndarray
    label: np.ndarray


def thumbnail(case: str, image: np.ndarray, label: np.ndarray, affine: np.ndarray) -> Thumbnail:
    """Samples of an image (channels, x, y, z) and its label (x, y, z)."""
    steps = [-(-length // SIDE) for length in label.shape]
    grid = tuple(slice(step // 2, None, step) for step in steps)
    coarse = image[(slice(None), *grid)].reshape(len(image), -1).astype(np.float64)
    coarse -= coarse.mean(axis=1, keepdims=True)
    deviation = coarse.std(axis=1, keepdims=True)
    coarse /= np.where(deviation > 0, deviation, 1)
    small = label[grid].astype(np.uint16)
    return Thumbnail(case, label.shape, affine, coarse.astype(np.float16), small)


def alike(cases: Sequence[Thumbnail]) -> list[tuple[str, str, float]]:
    """Pairs of cases, the later one first, whose images are nearly the same; with the correlation.

    Each case is paired with the most similar one before it.
    """
    found = []
    for group in _by_shape(cases):
        flat = np.stack([case.image.ravel() for case in group]).astype(np.float32)
        norm = np.linalg.norm(flat, axis=1, keepdims=True)
        flat /= np.where(norm > 0, norm, 1)
        similar = np.tril(flat @ flat.T, k=-1)
        for row, column in enumerate(similar.argmax(axis=1)):
            if similar[row, column] > ALIKE:
                pair = group[row].case, group[column].case, min(1.0, float(similar[row, column]))
                found.append(pair)
    return found


def mismatches(cases: Sequence[Thumbnail]) -> list[str]:
    """One line for each case whose label fits worse than its mirror image or another's label.

    The better one must explain four times what the label does, not much less than is usual in the
    data set, and no other image better than this one: a large label explains a little everywhere.
    Nothing is said unless most labels are told apart, as those of faint structures are not.
    """
    warnings = []
    for group in _by_shape(cases):
        if len(group) < FEWEST:
            continue
        images = np.stack([case.image for case in group]).astype(np.float32)
        images -= images.mean(axis=0)
        images -= images.mean(axis=2, keepdims=True)
        norm = np.linalg.norm(images, axis=2, keepdims=True)
        images /= np.where(norm > 0, norm, 1)
        labels = np.array([_explained(images, case.label) for case in group])
        mirrored = np.array(
            [[_explained(images, np.flip(case.label, axes)) for axes in MIRRORS] for case in group]
        )
        own = labels.diagonal()
        usual = np.median(np.maximum(labels.max(axis=0), mirrored.max(axis=(0, 1))))
        said, right = [], 0
        for index, case in enumerate(group):
            chance = len(np.unique(case.label)) / case.label.size
            needed = max(TIMES * own[index], usual / 4, CHANCE * chance)
            singled = np.where(labels.argmax(axis=1) == index, labels[:, index], 0)
            mirror = mirrored[index].max(axis=1).argmax()
            best = mirrored[index, mirror, index]
            if mirrored[index, mirror].argmax() == index and best > max(needed, singled.max()):
                codes = aff2axcodes(case.affine)
                how = " and ".join(AXES[codes[axis]] for axis in MIRRORS[mirror])
                better = f"mirrored {how} it explains {best:.1%}: is it flipped?"
            elif singled.max() > needed:
                other, best = group[singled.argmax()].case, singled.max()
                better = f"that of {other} explains {best:.1%}: are labels exchanged?"
            else:
                right += singled[index] == labels[:, index].max()
                continue
            said.append(
                f"{case.case}: the label explains {own[index]:.1%} of the image's variance, "
                f"{better} Look at both; usual in this data set is {usual:.1%}"
            )
        if right + len(said) >= TOLD_APART * len(group):
            warnings += said
    return warnings


def _by_shape(cases: Sequence[Thumbnail]) -> list[list[Thumbnail]]:
    groups: dict[tuple[int, ...], list[Thumbnail]] = {}
    for case in cases:
        groups.setdefault((len(case.image), *case.shape), []).append(case)
    return list(groups.values())


def _explained(images: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Share of the variance of images (cases, channels, samples) between the classes of a label.

    The mean over the channels; each has mean 0 and norm 1, so the sum of the background is minus
    that of the foreground.
    """
    count, channels, samples = images.shape
    label = label.ravel()
    inside = np.flatnonzero(label)
    if not inside.size or inside.size == samples:
        return np.zeros(count)
    _, classes, sizes = np.unique(label[inside], return_inverse=True, return_counts=True)
    members = csr_array((np.ones(inside.size, np.float32), (classes, np.arange(inside.size))))
    sums = (members @ images[..., inside].reshape(count * channels, -1).T).T
    between = (sums**2 / sizes).sum(axis=1) + sums.sum(axis=1) ** 2 / (samples - inside.size)
    return between.reshape(count, channels).mean(axis=1)
