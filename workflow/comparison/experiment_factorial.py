"""Reduction, smoothing and background of the Dice loss as a factorial: ``cells`` and ``effects``.

Every cell is a loss; its levels are read from its options. An effect is a contrast of averages
over cells, taken seed by seed and case by case, so that it is paired like two losses are.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy import stats

import losses
from workflow.comparison import statistics, tables
from workflow.comparison.arrays import ENDPOINTS, case_scores
from workflow.comparison.contrasts import estimated, sample_size
from workflow.study import Loss, Study, StudyError

FACTORS = ("reduction", "smoothing", "background")
ABSENT = ("absent_rate", "absent_ml")
"""Endpoints of the cases that lack a class: is it predicted there, and how much of it (ml)?

Only runs that kept every class are judged: one that predicts a class nowhere has no false
positives either, whatever its loss pushes down.
"""
HIGHEST = dict.fromkeys((*ENDPOINTS, "absent_rate"), 1.0) | {"absent_ml": math.inf}
"""The largest value of an endpoint; the least is 0."""

Weights = dict[str, float]


class Effect(NamedTuple):
    """A contrast: a weight for each cell that takes part; they sum to 0."""

    kind: str
    aspect: str
    contrast: str
    settings: int
    weights: Weights


def answers(
    study: Study, raw: Mapping[str, pd.DataFrame], generic: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """``cells``, ``effects`` and ``prediction``.

    ``cells``: a row a loss with its levels, the mean of every endpoint with its interval, the
    number of runs and of those that lost a class, and its ``push``. Where cases lack a class also
    the median volume predicted of it (``absent_median_ml``) and, of all runs, how many spread a
    class over the background (``flooded``) and how far (``flooded_ml``), see :func:`_flooded`.

    ``effects``: main effects and two-way interactions on every endpoint, with intervals from the
    crossed model and Holm's correction over the effects of an endpoint. A main effect is the mean
    difference of two levels over all ``settings`` of the other factors; an interaction is by how
    much that difference differs between two levels of another factor. Settings in which a level
    has no score are left out. ``push_ratio``: by how much the same contrast multiplies the push.

    ``prediction``: Kendall's tau of the cells' push with their scores where a class is absent, and
    its p; -1: the stronger the push, the fewer false positives.
    """
    cases = raw["cases"][raw["cases"]["test_set"] == study.test_set]
    levels = factor_levels(study)
    levels = levels[[label in set(cases["loss"]) for label in levels.index]]
    absent = _absent(cases, raw["runs"])
    scores = _scores(cases, absent, tables.rarest_class(raw["dataset"]))
    medians = absent.groupby("loss")["absent_ml"].median()
    flooded = _flooded(cases)
    pushes = _pushes(study, cases, list(levels.index))
    summary = generic["summary"].set_index("loss")
    confidence = study.comparison.confidence
    cells, effects = [], []
    for label, setting in levels.iterrows():
        row = {"loss": label} | setting.to_dict()
        for endpoint, by_loss in scores.items():
            found = statistics.crossed_mean(_block(by_loss.get(label)), confidence)
            found = found.within(0, HIGHEST[endpoint])
            names = (endpoint, f"{endpoint}_low", f"{endpoint}_high")
            row |= dict(zip(names, found[:3], strict=True))
        row |= {"runs": summary.at[label, "runs"], "collapsed": summary.at[label, "collapsed"]}
        if (cases["reference_voxels"] == 0).any():
            floods = flooded.loc[flooded["loss"] == label, "ml"]
            row |= {"absent_median_ml": medians.get(label, math.nan)}
            row |= {"flooded": len(floods), "flooded_ml": floods.median()}
        cells.append(row | {"push": pushes.get(label, math.nan)})
    for endpoint, by_loss in scores.items():
        tested = list(contrasts(levels[levels.index.isin(list(by_loss))]))
        rows = [
            effect._asdict() | _difference(effect.weights, by_loss, HIGHEST[endpoint], confidence)
            for effect in tested
        ]
        table = pd.DataFrame(rows).drop(columns="weights", errors="ignore")
        if table.empty:
            continue
        table.insert(0, "endpoint", endpoint)
        table["p_holm"] = statistics.holm(table["p"])
        table["push_ratio"] = [
            _push_ratio(effect.weights, pushes) if endpoint in ABSENT else math.nan
            for effect in tested
        ]
        effects.append(table)
    table = pd.DataFrame(cells)
    return {
        "cells": table,
        "effects": pd.concat(effects, ignore_index=True) if effects else pd.DataFrame(),
        "prediction": _prediction(table),
    }


def factor_levels(study: Study) -> pd.DataFrame:
    """The level of each factor, a row a loss: ``reduction`` over the image or the batch,
    ``smoothing`` of numerator and denominator (voxels), ``background`` in or out.

    Raises ``StudyError`` where a loss has no such options or two losses are the same cell.
    """
    rows = {}
    for label, entry in study.losses.items():
        options = {**losses.options(entry.name), **entry.options}
        try:
            smooth = {options["smooth_nr"], options["smooth_dr"]}
            rows[label] = (
                "batch" if options["batch"] else "image",
                max(smooth),
                "in" if options["include_background"] else "out",
            )
        except KeyError as error:
            raise StudyError(f"losses.{label}: a factorial needs the option {error}") from None
        if len(smooth) > 1:
            raise StudyError(f"losses.{label}: smooth_nr and smooth_dr differ: no one smoothing")
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(FACTORS))
    if (twice := table.duplicated()).any():
        raise StudyError(f"losses.{twice.idxmax()}: another loss has the same levels")
    return table


def contrasts(levels: pd.DataFrame) -> Iterator[Effect]:
    """Main effects, then two-way interactions, of the cells in ``factor_levels``.

    The first level of a factor (image, the least smoothing, background in) is the one that the
    others are compared with.
    """
    cells = {tuple(setting): label for label, *setting in levels.itertuples()}
    order = {name: _ordered(levels[name]) for name in FACTORS}
    for size, kind in ((1, "main"), (2, "interaction")):
        for names in itertools.combinations(FACTORS, size):
            pairs = [[(high, order[n][0]) for high in order[n][1:]] for n in names]
            others = [order[n] for n in FACTORS if n not in names]
            for chosen in itertools.product(*pairs):
                weights, settings = _weights(names, chosen, others, cells)
                if settings:
                    words = [f"{_word(high)} vs {_word(low)}" for high, low in chosen]
                    yield Effect(kind, " x ".join(names), ", ".join(words), settings, weights)


def _ordered(column: pd.Series) -> list:
    first = ("image", "in")
    return sorted(column.unique(), key=lambda level: (level not in first, level))


def _word(level: object) -> str:
    return level if isinstance(level, str) else f"{level:g}".replace("e-0", "e-")


def _weights(
    names: Sequence[str],
    chosen: Sequence[tuple],
    others: Sequence[Sequence],
    cells: Mapping[tuple, str],
) -> tuple[Weights, int]:
    """Weight of each cell in a contrast, and over how many settings of the others it averages."""
    complete = []
    for setting in itertools.product(*others):
        rest = dict(zip((n for n in FACTORS if n not in names), setting, strict=True))
        signed: dict[str, float] = {}
        # the high level of each factor counts +, the low one -, and signs multiply
        for places in itertools.product((0, 1), repeat=len(names)):
            here = {n: pair[i] for n, pair, i in zip(names, chosen, places, strict=True)} | rest
            cell = cells.get(tuple(here[n] for n in FACTORS))
            if cell is None:
                break
            signed[cell] = (-1.0) ** sum(places)
        else:
            complete.append(signed)
    weights = {label: sign / len(complete) for signed in complete for label, sign in signed.items()}
    return weights, len(complete)


def _absent(cases: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The ``ABSENT`` endpoints, a row for each subject of each run that kept every class."""
    kept = runs.loc[runs["collapse"] == "none", ["loss", "seed"]]
    absent = cases[cases["reference_voxels"] == 0].merge(kept, on=["loss", "seed"])
    volume = absent["predicted_voxels"] * absent["voxel_mm3"] / 1000
    absent = absent.assign(absent_rate=1.0 * (volume > 0), absent_ml=volume)
    # a case that lacks two classes is still one case
    return absent.groupby(["loss", "seed", "subject"])[list(ABSENT)].mean().reset_index()


def _flooded(cases: pd.DataFrame) -> pd.DataFrame:
    """Runs that spread a class over the background, a row a loss and seed: ``ml`` of it.

    That is, in the median over the cases that lack the class, over more voxels than the largest
    that any case has of it.
    """
    largest = cases.groupby("class")["reference_voxels"].max()
    absent = cases[cases["reference_voxels"] == 0]
    ml = absent["predicted_voxels"] * absent["voxel_mm3"] / 1000
    by = absent.assign(ml=ml).groupby(["loss", "seed", "class"])
    found = by[["predicted_voxels", "ml"]].median().reset_index()
    found = found[found["predicted_voxels"] > found["class"].map(largest)]
    return found.groupby(["loss", "seed"])["ml"].max().reset_index()


def _scores(
    cases: pd.DataFrame, absent: pd.DataFrame, rarest: str
) -> dict[str, dict[str, pd.DataFrame]]:
    """Endpoint -> loss -> scores, a row a seed and a column a subject."""
    long = {
        endpoint: case_scores(cases, endpoint, rarest).rename(columns={"dice": endpoint})
        for endpoint in ENDPOINTS
    }
    if len(absent):
        long |= dict.fromkeys(ABSENT, absent)
    return {
        endpoint: {
            loss: rows.pivot(index="seed", columns="subject", values=endpoint)
            for loss, rows in table.groupby("loss")
        }
        for endpoint, table in long.items()
    }


def _difference(
    weights: Weights, by_loss: Mapping[str, pd.DataFrame], highest: float, confidence: float
) -> dict[str, float]:
    # a seed or case that one of the cells lacks is NaN in the sum
    parts = [weight * by_loss.get(label, pd.DataFrame()) for label, weight in weights.items()]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    values = _block(total)
    most = highest * sum(weight for weight in weights.values() if weight > 0)
    found = statistics.crossed_mean(values, confidence).within(-most, most)
    detectable = statistics.detectable_difference(found, confidence)
    return estimated(found) | {"minimum_detectable_difference": detectable} | sample_size(values)


def _block(table: pd.DataFrame | None) -> np.ndarray:
    """The (seeds, cases) that are complete."""
    if table is None or table.empty:
        return np.empty((0, 0))
    values = table.to_numpy(float)
    seeds, cases, _ = statistics.complete(values[:, :, None])
    return values[np.ix_(seeds, cases)]


def _pushes(study: Study, cases: pd.DataFrame, labels: list[str]) -> dict[str, float]:
    """The push of each loss against false structures as large as the classes that some case lacks
    are where they are, in the median; without such a class there is none."""
    there = cases["reference_voxels"] > 0
    lacking = cases["class"].isin(set(cases.loc[~there, "class"]))
    sizes = cases.loc[there & lacking, "reference_voxels"]
    if sizes.empty:
        return {}
    patch = study.training.patch_size
    assert patch != "auto"  # the arms of this experiment have the phantom's
    voxels = math.prod(patch)
    structure = min(round(sizes.median()), voxels // 2)
    classes = 1 + cases["class"].nunique()
    batch = study.training.batch_size
    return {label: push(study.losses[label], classes, batch, voxels, structure) for label in labels}


def push(loss: Loss, classes: int, batch: int, voxels: int, structure: int) -> float:
    """Mean derivative of the loss by the logit of an absent class over a false structure of it.

    The first image of the batch lacks the class, and the network sees one of ``structure`` voxels
    there, at a probability of .9; the other images have the class there, and it is seen as well.
    All else is background, and the network is sure of it. What is positive is unlearned by
    gradient descent.
    """
    logits = torch.full((batch, classes, voxels), -60.0, dtype=torch.float64)
    logits[:, 0] = 0
    logits[:, 1, :structure] = math.log(9)
    labels = torch.zeros(batch, voxels, dtype=torch.long)
    labels[1:, :structure] = 1
    value = losses.create(loss.name, **loss.options)(logits.requires_grad_(), labels)
    (gradient,) = torch.autograd.grad(value, logits)
    return float(gradient[0, 1, :structure].mean())


def _prediction(cells: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for endpoint in ABSENT:
        known = cells.dropna(subset=["push", endpoint]) if endpoint in cells else cells.head(0)
        if len(known) > 1:
            tau, p = stats.kendalltau(known["push"], known[endpoint])
            rows.append({"endpoint": endpoint, "cells": len(known), "kendall_tau": tau, "p": p})
    return pd.DataFrame(rows, columns=["endpoint", "cells", "kendall_tau", "p"])


def _push_ratio(weights: Weights, pushes: Mapping[str, float]) -> float:
    """The contrast of logarithms, as a factor."""
    if not all(pushes.get(label, 0) > 0 for label in weights):
        return math.nan
    return math.exp(sum(weight * math.log(pushes[label]) for label, weight in weights.items()))
