"""Segmentation losses for imbalanced images: as published, and corrected.

>>> import losses
>>> loss = losses.create("generalized_dice", absent="max", batch=True)
>>> value = loss(logits, labels)  # (B, C, *spatial) float, (B, *spatial) integer
"""

from .base import SegmentationLoss
from .catalogue import REQUIRED, Card, available, card, collections, create, options, sources

__all__ = [
    "REQUIRED",
    "Card",
    "SegmentationLoss",
    "available",
    "card",
    "collections",
    "create",
    "options",
    "sources",
]
