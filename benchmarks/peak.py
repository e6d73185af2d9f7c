"""Peak resident memory, by a module that loads nothing that would add to it."""

from __future__ import annotations

import resource
import sys


def peak_mib(who: int = resource.RUSAGE_SELF) -> float:
    """Of this process so far, or of the largest of its children (``RUSAGE_CHILDREN``)."""
    # kilobytes, but bytes on a Mac
    return resource.getrusage(who).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
