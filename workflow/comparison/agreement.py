"""Do two studies of the same losses rank them alike? Tuned against fixed learning rates, say."""

from __future__ import annotations

import numpy as np
import pandas as pd

from workflow.comparison import ranking, statistics
from workflow.comparison.arrays import ENDPOINTS, score_array
from workflow.comparison.rankings import RESAMPLES, SEED

COLUMNS = ("endpoint", "losses", "seeds", "cases", "kendall_tau", "low", "high", "p",
           "same_first")  # fmt: skip


def agreement(
    first: pd.DataFrame,
    second: pd.DataFrame,
    rarest: str,
    confidence: float,
    resamples: int = RESAMPLES,
) -> pd.DataFrame:
    """Kendall's tau between the rankings of the losses that both tables of cases have.

    The tables hold one checkpoint each. Seeds and cases are those that every one of these losses
    has in both; ``low`` and ``high`` are quantiles of tau over draws of seeds and cases with
    replacement, the same draw for both: how firm the figure is, not a confidence interval. ``p``:
    of Kendall's test over the losses.
    """
    labels = [label for label in first["loss"].unique() if label in set(second["loss"])]
    rows = []
    for endpoint in ENDPOINTS:
        scores = np.concatenate(_aligned(first, second, labels, endpoint, rarest), axis=2)
        seeds, cases, both = statistics.complete(scores)
        kept = [i for i in range(len(labels)) if i in both and i + len(labels) in both]
        twice = np.array([*kept, *(i + len(labels) for i in kept)], dtype=int)
        scores = scores[np.ix_(seeds, cases, twice)]
        row = {"endpoint": endpoint, "losses": len(kept), "seeds": len(seeds), "cases": len(cases)}
        if scores.size:
            means = scores.mean(axis=(0, 1))
            drawn = ranking.bootstrap_ranks(scores, resamples, np.random.default_rng(SEED))
            tau = [ranking.kendall(*halves) for halves in map(_halves, drawn)]
            tail = (1 - confidence) / 2
            ours, theirs = _halves(means)
            row |= {
                "kendall_tau": ranking.kendall(ours, theirs),
                "low": np.nanquantile(tau, tail),
                "high": np.nanquantile(tau, 1 - tail),
                "p": ranking.kendall_p(ours, theirs),
                "same_first": bool(ours.argmax() == theirs.argmax()),
            }
        rows.append(row)
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def _aligned(
    first: pd.DataFrame, second: pd.DataFrame, labels: list[str], endpoint: str, rarest: str
) -> list[np.ndarray]:
    """(seeds, cases, losses) of both tables over the seeds and cases that both have."""
    tables = [table[table["loss"].isin(labels)] for table in (first, second)]
    for axis in ("seed", "case"):
        common = set(tables[0][axis]) & set(tables[1][axis])
        tables = [table[table[axis].isin(common)] for table in tables]
    return [score_array(table, endpoint, rarest, labels) for table in tables]


def _halves(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values[: len(values) // 2], values[len(values) // 2 :]
