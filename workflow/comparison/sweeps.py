"""What the experiments share that turn one dial of the data: a row for each arm, pairs of arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from workflow.comparison import contrasts, statistics
from workflow.comparison.arrays import score_array

OUTCOMES = ("lost", "partial", "total", "diverged", "failed")
DIFFERENCE = ("difference", "low", "high", "p", "p_holm", "seeds", "cases")


def rarest_class(dataset: pd.DataFrame) -> str:
    """The foreground class with the fewest training voxels in the mean over arms.

    One class for all arms, also where the dial makes another one rarer in some of them.
    """
    train = dataset[(dataset["split"] == "train") & (dataset["class_index"] > 0)]
    return str(train.groupby("class")["voxel_fraction"].mean().idxmin())


def points(
    dials: pd.DataFrame, raw: Mapping[str, pd.DataFrame], summary: pd.DataFrame, confidence: float
) -> pd.DataFrame:
    """A row for each arm, test set and loss.

    Args:
        dials: the columns ``arm`` and a setting each.
        summary: of the experiment, see ``experiment.answers``.
        confidence: of the interval of ``lost_share``.

    Columns: those of ``dials``; ``class``, the rarest one, the share of training cases that have it
    (``training_prevalence``) and its ``fraction`` of the training voxels; its ``dice`` with
    interval; the numbers of runs that finished (``runs``) and ended in each of ``OUTCOMES``;
    ``lost_share`` of the finished runs lost the class, with Wilson's interval, and ``collapsed``
    says whether most of them did.
    """
    rarest = rarest_class(raw["dataset"])
    train = raw["dataset"].query("split == 'train'")
    train = train[train["class"] == rarest].rename(
        columns={"prevalence": "training_prevalence", "voxel_fraction": "fraction"}
    )
    table = dials.merge(train[["arm", "class", "training_prevalence", "fraction"]], on="arm")
    scores = {f"dice_{rarest}{end}": f"dice{end}" for end in ("", "_low", "_high")}
    scored = summary.rename(columns=scores | {f"lost_{rarest}": "lost"})
    scored["runs"] -= scored["failed"]
    kept = ["arm", "test_set", "loss", "seeds", "runs", *OUTCOMES, *scores.values()]
    table = table.merge(scored[kept], on="arm")
    table["lost_share"] = table["lost"] / table["runs"].replace(0, np.nan)
    intervals = [
        statistics.wilson(lost, runs, confidence)
        for lost, runs in zip(table["lost"], table["runs"], strict=True)
    ]
    table["lost_low"] = [low for low, _ in intervals]
    table["lost_high"] = [high for _, high in intervals]
    table["collapsed"] = table["lost_share"] > 0.5
    return table


def arm_scores(cases: pd.DataFrame, arms: Sequence[str]) -> np.ndarray:
    """Mean Dice over the classes in these rows of one loss, as (seeds, cases, arms)."""
    return score_array(cases.assign(loss=cases["arm"]), "mean_dice", "", arms)


def difference(
    cases: pd.DataFrame, arm: str, against: str, confidence: float, share: float = 1.0
) -> dict[str, float]:
    """``arm`` - ``share`` x ``against`` of one loss, paired by seed and test case.

    Columns ``DIFFERENCE`` without ``p_holm``; NaN where the arms share no seed or case.
    """
    scores = arm_scores(cases, [arm, against]) * [1, share]
    values = contrasts.paired(scores, 0, 1)
    estimate = contrasts.mean_difference(values, confidence)
    return contrasts.estimated(estimate) | contrasts.sample_size(values)
