"""What training told each class: the raw table ``signals``, batch by batch and run by run.

Pure functions on the rows that ``workflow/training/signals.py`` leaves, with a column ``arm``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

FIRST = 200
"""Steps of the first phase, in which the saturation hypothesis says that classes are lost."""

WINDOW = 50
"""Steps over which a class's probability is averaged before the lowest is taken: one batch may
hold a handful of its voxels."""

EFFECTIVE = 0.01
"""Least share of a loss's usual gradient that counts as an update; see :func:`updates`."""

SATURATED = 0.1
"""A class is saturated below this share of the slope it has where all classes are equally likely;
see :func:`early`."""

EVERY = "every class"
"""In place of a class, in rows that speak of all of them."""

RUN = ["arm", "loss", "seed"]
PHASES = ("start", "first", "later")


def batches(signals: pd.DataFrame) -> pd.DataFrame:
    """``signals`` with three more columns.

    ``phase``: ``start`` (step 0, where all losses of a seed have the same weights and patches),
    ``first`` (below step 200) or ``later``. ``batch``: ``complete`` if every image has every class,
    ``mixed`` if only the batch has, ``incomplete`` otherwise. ``present``: the row's class is in
    the batch.
    """
    table = signals.copy()
    table["phase"] = np.select([table["step"] == 0, table["step"] < FIRST], PHASES[:2], PHASES[2])
    images = table.groupby([*RUN, "step"])["images"]
    # the background is in every patch, so the most frequent class counts the images
    fewest, most = images.transform("min"), images.transform("max")
    table["batch"] = np.select([fewest == most, fewest > 0], ["complete", "mixed"], "incomplete")
    table["present"] = table["voxels"] > 0
    return table


def gradients(table: pd.DataFrame) -> pd.DataFrame:
    """Weight and gradient of each class, by phase and by what the batch held.

    ``table``: of :func:`batches`. Medians over the batches of all seeds: ``voxels`` of the class in
    the batch, ``weight`` (its share of the rule's weights), and the L1 norms of the gradient of its
    own logit over its voxels (``gradient_inside``) and over all others (``gradient_outside``).
    """
    key = ["arm", "loss", "phase", "batch", "class", "present"]
    found = table.groupby(key, sort=False).agg(
        batches=("step", "size"),
        **{
            name: (name, "median")
            for name in (
                "voxels", "weight", "probability", "gradient_inside", "gradient_outside",
            )
        },
    )  # fmt: skip
    return found.reset_index()


def updates(table: pd.DataFrame) -> pd.DataFrame:
    """The share of effective updates of each loss, by phase (``start`` is part of ``first``).

    Definition, made before any run was looked at. Adam divides by the size of recent gradients, so
    a gradient counts relative to what is usual *for that loss*; the usual one is the median over
    its complete batches of the first 200 steps (all seeds of the arm). There every image has every
    class, so that no rule has anything to discard, whether it is computed for each image or pooled
    over the batch. An update is **effective for a class** if the L1 gradient of the class's logit
    over its own voxels is at least 1 % of that class's usual one: what calls the class in where it
    is. A batch without the class is never effective for it. An update is **effective** (rows
    ``every class``) if the gradient of all logits over all voxels is at least 1 % of its usual
    size. Where no batch was complete, nothing is usual, and the share is NaN.

    Columns: ``holding``, the share of batches with the class (with every class);
    ``complete``, that with every class in every image; ``usual``; ``incomplete``, the median
    gradient of batches that lack a class as a multiple of it; ``effective``; and ``lowest`` and
    ``highest``, the effective share of single seeds. Late in training a gradient may also be small
    because the class is learnt.
    """
    rows = table.assign(
        phase=table["phase"].replace("start", "first"),
        gradient=table["gradient_inside"],
    )
    whole = (
        rows.assign(gradient=rows["gradient_inside"] + rows["gradient_outside"])
        .groupby([*RUN, "step", "phase", "batch"], sort=False)
        .agg(gradient=("gradient", "sum"), present=("present", "all"))
        .reset_index()
    )
    whole["class"] = EVERY
    both = pd.concat([rows, whole], ignore_index=True)
    usual = (
        both[(both["phase"] == "first") & (both["batch"] == "complete")]
        .groupby(["arm", "loss", "class"])["gradient"]
        .median()
        .rename("usual")
    )
    both = both.join(usual, on=["arm", "loss", "class"])
    large = (both["gradient"] > 0) & (both["gradient"] >= EFFECTIVE * both["usual"])
    both["effective"] = large.astype(float).where(both["usual"].notna())
    both["complete"] = both["batch"] == "complete"
    key = ["arm", "loss", "phase", "class"]
    found = both.groupby(key, sort=False).agg(
        batches=("step", "size"),
        holding=("present", "mean"),
        complete=("complete", "mean"),
        usual=("usual", "first"),
        effective=("effective", "mean"),
    )
    lacking = both[both["batch"] == "incomplete"].groupby(key)["gradient"].median()
    found.insert(4, "incomplete", lacking / found["usual"])
    seeds = both.groupby([*key, "seed"])["effective"].mean().groupby(key).agg(["min", "max"])
    seeds.columns = ["lowest", "highest"]
    return found.join(seeds).reset_index()


def early(table: pd.DataFrame) -> pd.DataFrame:
    """What each run told each class in the first 200 steps: a row for each run and class.

    Over records whose batch has the class: ``start_probability`` and ``start_slope``, those of the
    first; ``lowest_probability``, the lowest mean over 50 steps of its p at its own voxels, and
    ``lowest_slope``, the mean of p (1 - p) in those 50 steps (the slope is also small where a class
    is surely right, which is no saturation); ``ratio``, the median of its gradient inside over
    that outside. ``saturated``: the lowest slope is below a tenth of (1 - 1 / C) / C, the slope of
    C equally likely classes, with the probability below a half.
    """
    rows = table[(table["step"] < FIRST) & table["present"]].sort_values("step", kind="stable")
    rows = rows.assign(
        window=rows["step"] // WINDOW,
        ratio=rows["gradient_inside"]
        / rows["gradient_outside"].where(rows["gradient_outside"] > 0),
    )
    key = [*RUN, "class"]
    windows = rows.groupby([*key, "window"])[["probability", "slope"]].mean()
    lowest = windows.loc[windows.groupby(key, sort=False)["probability"].idxmin()]
    lowest = lowest.droplevel("window").add_prefix("lowest_")
    start = rows.groupby(key, sort=False)[["probability", "slope"]].first().add_prefix("start_")
    ratio = rows.groupby(key, sort=False)["ratio"].median()
    found = start.join([lowest, ratio]).reset_index()
    classes = table["class"].nunique()
    little = found["lowest_slope"] < SATURATED * (1 - 1 / classes) / classes
    found["saturated"] = little & (found["lowest_probability"] < 0.5)
    return found
