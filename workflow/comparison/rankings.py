"""Tables of rankings: how the ranks spread, and what the ranking owes to metric and rule."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd

from workflow.comparison import ranking, statistics
from workflow.comparison.arrays import ENDPOINTS, class_arrays, score_array
from workflow.study import Study

RESAMPLES = 2000
SEED = 20
"""Of the resampling: the same runs give the same tables."""

QUANTILES = {"low": 0.025, "lower_quartile": 0.25, "median": 0.5, "upper_quartile": 0.75,
             "high": 0.975}  # fmt: skip
METRICS = {"dice": 1, "iou": 1, "nsd": 1, "hd95": -1, "sensitivity": 1, "precision": 1,
           "volume_error": -1, "ece": -1, "nll": -1}  # fmt: skip
"""Metrics whose rankings are compared, and whether more is better."""

RANKS = (
    "dataset", "checkpoint", "endpoint", "loss", "rank", "mean_rank", *QUANTILES, "first",
    "seeds", "cases",
)  # fmt: skip
FRIEDMAN = (
    "dataset", "checkpoint", "endpoint", "losses", "cases", "seeds", "statistic", "p",
    "critical_difference",
)  # fmt: skip
RANKINGS = ("dataset", "checkpoint", "aspect", "rule", "loss", "score", "rank")
STABILITY = (
    "dataset", "checkpoint", "aspect", "rule", "against", "losses", "kendall_tau", "same_first",
)  # fmt: skip


def tables(study: Study, cases: pd.DataFrame, rarest: str) -> dict[str, pd.DataFrame]:
    """``ranks``, ``friedman``, ``rankings`` and ``stability``, for both checkpoints."""
    rows: dict[str, list[dict]] = {"ranks": [], "friedman": [], "rankings": [], "stability": []}
    for checkpoint in ("best", "last"):
        chosen = cases[cases["checkpoint"] == checkpoint]
        key = {"dataset": study.dataset.name, "checkpoint": checkpoint}
        for endpoint in ENDPOINTS:
            place = key | {"endpoint": endpoint}
            ranks, friedman = _ranks(study, chosen, endpoint, rarest)
            rows["ranks"] += [place | row for row in ranks]
            rows["friedman"].append(place | friedman)
        for aspect, scores in _scorings(study, chosen, rarest).items():
            place = key | {"aspect": aspect}
            rankings, stability = _compare(list(study.losses), scores)
            rows["rankings"] += [place | row for row in rankings]
            rows["stability"] += [place | row for row in stability]
    columns = {"ranks": RANKS, "friedman": FRIEDMAN, "rankings": RANKINGS, "stability": STABILITY}
    return {name: pd.DataFrame(rows[name], columns=columns[name]) for name in columns}


def _ranks(
    study: Study, cases: pd.DataFrame, endpoint: str, rarest: str
) -> tuple[list[dict], dict]:
    """Ranks of the losses that have every seed of the complete block, and their Friedman test."""
    scores = score_array(cases, endpoint, rarest, list(study.losses))
    block = statistics.complete(scores)
    scores = scores[np.ix_(*block)]
    seeds, number, count = scores.shape
    if not scores.size:
        return [], {"losses": count, "cases": number, "seeds": seeds}
    labels = np.array(list(study.losses))[block[2]]
    # cases are independent of each other given these seeds, seeds x cases are not
    test = ranking.friedman(scores.mean(axis=0), study.comparison.confidence)
    spread = ranking.bootstrap_ranks(scores, RESAMPLES, np.random.default_rng(SEED))
    quantiles = np.quantile(spread, list(QUANTILES.values()), axis=0)
    table = pd.DataFrame({
        "loss": labels,
        "rank": ranking.ranks(scores.mean(axis=(0, 1))),
        "mean_rank": test.mean_ranks,
        **dict(zip(QUANTILES, quantiles, strict=True)),
        "first": (spread == spread.min(axis=1, keepdims=True)).mean(axis=0),
        "seeds": seeds,
        "cases": number,
    })  # fmt: skip
    friedman = {
        "losses": count,
        "cases": number,
        "seeds": seeds,
        "statistic": test.statistic,
        "p": test.p,
        "critical_difference": test.critical_difference,
    }
    return table.sort_values("rank", kind="stable").to_dict("records"), friedman


def _scorings(
    study: Study, cases: pd.DataFrame, rarest: str
) -> dict[str, dict[str, tuple[np.ndarray, int]]]:
    """Scores of the losses, and whether more is better, by aspect and rule."""
    counts = ("tp", "fp", "fn", "predicted_voxels", "reference_voxels")
    arrays = class_arrays(cases, (*METRICS, *counts), list(study.losses))
    # as in the summary: what is lost altogether has no precision, which must not be a gain
    lost = (arrays["predicted_voxels"] == 0) & (arrays["reference_voxels"] > 0)
    arrays["precision"] = np.where(lost, 0.0, arrays["precision"])
    arrays["volume_error"] = np.abs(arrays["volume_error"])

    def over_seeds(by_seed: np.ndarray) -> np.ndarray:
        return ranking.mean_known(by_seed, axis=1)

    of_rarest = class_arrays(cases[cases["class"] == rarest], ["dice"], list(study.losses))
    primary = ranking.AGGREGATIONS[0]
    metric = {
        name: (over_seeds(ranking.aggregate(arrays[name], primary)), sign)
        for name, sign in METRICS.items()
    }
    metric["rarest_dice"] = (over_seeds(ranking.aggregate(of_rarest["dice"], primary)), 1)
    aggregation = {
        rule: (over_seeds(ranking.aggregate(arrays["dice"], rule)), 1)
        for rule in ranking.AGGREGATIONS
    }
    pooled = ranking.pooled_dice(arrays["tp"], arrays["fp"], arrays["fn"])
    aggregation["pooled_voxels"] = (over_seeds(pooled), 1)
    empty = {}
    for rule in ranking.EMPTY_RULES:
        filled = ranking.fill_absent(arrays["dice"], arrays["predicted_voxels"], rule)
        empty[rule] = (over_seeds(ranking.aggregate(filled, primary)), 1)
    return {"metric": metric, "aggregation": aggregation, "empty_rule": empty}


def _compare(
    labels: list[str], scores: dict[str, tuple[np.ndarray, int]]
) -> tuple[list[dict], list[dict]]:
    """The ranking by each rule, and Kendall's tau of each two."""
    rankings, stability = [], []
    for rule, (values, sign) in scores.items():
        known = np.flatnonzero(~np.isnan(values))
        order = ranking.ranks(sign * values[known])
        rankings += [
            {"rule": rule, "loss": labels[i], "score": values[i], "rank": rank}
            for rank, i in sorted(zip(order, known, strict=True))
        ]
    for rule, against in itertools.combinations(scores, 2):
        (first, sign), (second, other) = scores[rule], scores[against]
        both = ~np.isnan(first) & ~np.isnan(second)
        stability.append(
            {
                "rule": rule,
                "against": against,
                "losses": int(both.sum()),
                "kendall_tau": ranking.kendall(sign * first, other * second),
                "same_first": bool(
                    both.any()
                    and np.argmax((sign * first)[both]) == np.argmax((other * second)[both])
                ),
            }
        )
    return rankings, stability
