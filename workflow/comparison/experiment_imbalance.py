"""What a loss does as the lesions shrink, and what patches centred on them hide."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from workflow.comparison import statistics, sweeps
from workflow.study import Study

DIALS = ("arm", "volume", "centred")
COLLAPSE = (
    "test_set", "centred", "loss", "arms", "collapsed_arms", "volume", "fraction", "least_held",
    "verdict",
)  # fmt: skip
CENTRING = ("test_set", "loss", "volume", "centred", "against_centred", *sweeps.DIFFERENCE)


def answers(
    study: Study, raw: Mapping[str, pd.DataFrame], generic: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """``imbalance``, ``collapse`` and ``centring``.

    ``imbalance``: the rows of ``sweeps.points`` for each ``volume`` of the lesions in ml, share of
    ``centred`` patches, test set and loss. ``collapse``: for each test set, share of centred
    patches and loss the ``volume`` and training ``fraction`` at which most runs lose the rarest
    class for the first time as it shrinks, and the smallest fraction at which they do not.
    ``centring``: each share of centred patches against the smallest, Dice of the rarest class,
    paired; Holm's correction over the rows of one test set. ``p_holm`` is NaN where both lost the
    class: what is left of it tells nothing of centring.
    """
    confidence = study.comparison.confidence
    table = sweeps.points(_dials(study), raw, generic["summary"], confidence)
    rarest = sweeps.rarest_class(raw["dataset"])
    cases = raw["cases"][raw["cases"]["class"] == rarest]
    return {
        "imbalance": table,
        "collapse": _collapse(table),
        "centring": _centring(table, cases, confidence),
    }


def _dials(study: Study) -> pd.DataFrame:
    rows = [
        (name, arm.dataset.phantom.lesion_volume, arm.training.foreground_share)
        for name, arm in study.variants.items()
    ]
    return pd.DataFrame(rows, columns=DIALS)


def _collapse(table: pd.DataFrame) -> pd.DataFrame:
    """``verdict``: ``holds``, ``everywhere``, ``from`` there on down, or ``in places`` only."""
    rows = []
    for key, its in table.groupby(["test_set", "centred", "loss"], sort=False):
        its = its[its["runs"] > 0].sort_values("fraction", ascending=False)
        lost, held = its[its["collapsed"]], its[~its["collapsed"]]
        first = lost.iloc[0] if len(lost) else None
        rows.append(
            dict(zip(("test_set", "centred", "loss"), key, strict=True))
            | {
                "arms": len(its),
                "collapsed_arms": len(lost),
                "volume": first["volume"] if first is not None else math.nan,
                "fraction": first["fraction"] if first is not None else math.nan,
                "least_held": held["fraction"].min(),
                "verdict": _spread(list(its["collapsed"])),
            }
        )
    return pd.DataFrame(rows, columns=COLLAPSE)


def _spread(collapsed: list[bool]) -> str:
    """From the largest class to the smallest."""
    if not collapsed:
        return "not measured"
    if not any(collapsed):
        return "holds"
    if all(collapsed):
        return "everywhere"
    return "from" if collapsed == sorted(collapsed) else "in places"


def _centring(table: pd.DataFrame, cases: pd.DataFrame, confidence: float) -> pd.DataFrame:
    rows, one_held = [], []
    for (test_set, loss, volume), alike in table.groupby(["test_set", "loss", "volume"]):
        its = cases[(cases["test_set"] == test_set) & (cases["loss"] == loss)]
        least, *more = alike.sort_values("centred").itertuples()
        for arm in more:
            one_held.append(not (arm.collapsed and least.collapsed))
            rows.append(
                {"test_set": test_set, "loss": loss, "volume": volume}
                | {"centred": arm.centred, "against_centred": least.centred}
                | sweeps.difference(its, arm.arm, least.arm, confidence)
            )
    found = pd.DataFrame(rows, columns=CENTRING)
    tested = found["p"].where(pd.Series(one_held, dtype=bool))
    found["p_holm"] = tested.groupby(found["test_set"]).transform(statistics.holm)
    return found
