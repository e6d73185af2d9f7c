"""Distances between the surfaces of two masks, and the two scores made of them.

The definition is that of ``surface-distance`` (Nikolov et al. 2018, arXiv:1809.04430), from whose
table the areas come: a surface element lies between eight voxels that are not all alike and is
weighted by its area. Its own function sorts the elements in Python, which took most of the
evaluation of a loss that predicts too much; here nothing is sorted but an array, and the tests
hold the two equal.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import ndimage

with warnings.catch_warnings():
    # surface-distance 0.1 writes a Windows path with backslashes into a docstring
    warnings.simplefilter("ignore", SyntaxWarning)
    from surface_distance import lookup_tables

PERCENTILE = 95


def surface_scores(
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing: Sequence[float],
    tolerance: float,
) -> tuple[float, float]:
    """Normalised surface Dice at ``tolerance`` and 95th percentile Hausdorff distance, in mm.

    Masks (x, y, z); ``spacing`` in mm. NSD is the area within ``tolerance`` of the other surface,
    of both surfaces together; HD95 is the larger of the two directed percentiles, by area.
    ``reference`` is not empty; an empty ``prediction`` scores 0 and the image's diagonal.
    """
    spacing = tuple(float(edge) for edge in spacing)
    if not prediction.any():
        return 0.0, math.dist((0, 0, 0), np.multiply(reference.shape, spacing))
    box = ndimage.find_objects((prediction | reference).astype(np.uint8))[0]
    surfaces = [_area_map(mask[box], spacing) for mask in (reference, prediction)]
    within = total = hd95 = 0.0
    for surface, other in (surfaces, surfaces[::-1]):
        areas = surface[surface > 0]
        distances = _distances(surface > 0, other > 0, spacing)
        within += areas[distances <= tolerance].sum()
        total += areas.sum()
        hd95 = max(hd95, _percentile(distances, areas))
    return float(within / total), float(hd95)


@lru_cache(maxsize=8)
def _areas(spacing: tuple[float, ...]) -> np.ndarray:
    """Area in mm^2 of the surface within each of the 256 neighbourhoods of eight voxels."""
    return lookup_tables.create_table_neighbour_code_to_surface_area(spacing)


def _area_map(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Area of the surface at each corner of a voxel, one larger than ``mask`` on each axis."""
    codes = ndimage.correlate(
        np.pad(mask, (0, 1)).astype(np.uint8),
        lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL,
        mode="constant",
    )
    return _areas(spacing)[codes]


def _distances(surface: np.ndarray, other: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Distance in mm from each element of one surface to the nearest of the other."""
    nearest = ndimage.distance_transform_edt(
        ~other, sampling=spacing, return_distances=False, return_indices=True
    )
    steps = nearest[:, surface] - np.array(np.nonzero(surface))
    return np.sqrt(((steps * np.array(spacing)[:, None]) ** 2).sum(0))


def _percentile(distances: np.ndarray, areas: np.ndarray) -> float:
    order = np.argsort(distances)
    share = np.cumsum(areas[order]) / areas.sum()
    place = int(np.searchsorted(share, PERCENTILE / 100))
    return distances[order][min(place, len(order) - 1)]
