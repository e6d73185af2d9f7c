"""What compound losses share: a region loss plus a second term of the same logits."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from .base import SegmentationLoss, check_number


class Sum(SegmentationLoss):
    """The sum of the region loss it is mixed in before and of a second term of the same logits."""

    reductions: ClassVar[tuple[str, ...]] = ("mean",)
    soft_labels = False

    def set_factors(self, **factors: float) -> None:
        """The factors of the region loss and of the second term, kept under these names."""
        self._factors = tuple(factors)
        for name, value in factors.items():
            setattr(self, name, check_number(name, value, 0))

    def second(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        """The second term, from the arguments of compute."""
        raise NotImplementedError

    def compute(self, logits: Tensor, labels: Tensor, valid: Tensor | None) -> Tensor:
        first, second = (getattr(self, name) for name in self._factors)
        region = super().compute(logits, labels, valid)
        return first * region + second * self.second(logits, labels, valid)
