"""When a run counts as collapsed, decided before any run was looked at.

A foreground class has collapsed when its Dice is below 0.05 in more than half of the test cases
that have it. A run is graded ``none``, ``partial`` (some classes) or ``total`` (all classes);
a run that diverged is at least ``partial``.
"""

from __future__ import annotations

import pandas as pd

DICE_BELOW = 0.05
SHARE_ABOVE = 0.5


def collapsed_classes(cases: pd.DataFrame) -> list[str]:
    """Names of the collapsed classes in the ``cases`` rows of one run and checkpoint."""
    present = cases.dropna(subset=["dice"])
    share = (present["dice"] < DICE_BELOW).groupby(present["class"], sort=False).mean()
    return list(share.index[share > SHARE_ABOVE])


def grade(collapsed: list[str], classes: int, status: str) -> str:
    """``none``, ``partial`` or ``total`` for a run with ``classes`` foreground classes present."""
    if collapsed and len(collapsed) == classes:
        return "total"
    return "partial" if collapsed or status == "diverged" else "none"
