"""Do several studies, of several data sets perhaps, rank the losses they share alike?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from workflow.comparison import ranking, statistics
from workflow.comparison.agreement import COLUMNS, agreement
from workflow.comparison.arrays import ENDPOINTS, score_array
from workflow.comparison.rankings import RESAMPLES, SEED


@dataclass(frozen=True)
class Finished:
    """What is compared of a study: the reported checkpoint's cases, and its rarest class."""

    cases: pd.DataFrame
    rarest: str


def stability(
    studies: Mapping[str, Finished], confidence: float, resamples: int = RESAMPLES
) -> pd.DataFrame:
    """Kendall's tau of each two studies over the losses that both have, by endpoint.

    Two studies of the same cases are compared on seeds and cases that both have
    (:func:`agreement`); studies of different cases by the mean scores of each, ``low`` and
    ``high`` then being quantiles of tau over independent draws of the seeds and cases of both.
    ``paired`` says which; ``p`` is that of Kendall's test over the losses. With different rarest
    classes each study's own is meant.
    """
    tables = []
    for (name, first), (other_name, second) in combinations(studies.items(), 2):
        paired = set(first.cases["case"]) == set(second.cases["case"])
        if paired:
            table = agreement(first.cases, second.cases, first.rarest, confidence, resamples)
        else:
            table = _unpaired(first, second, confidence, resamples)
        table.insert(0, "study", name)
        table.insert(1, "other", other_name)
        tables.append(table.assign(paired=paired))
    return pd.concat(tables, ignore_index=True)


def _unpaired(first: Finished, second: Finished, confidence: float, resamples: int) -> pd.DataFrame:
    shared = set(second.cases["loss"])
    labels = [label for label in first.cases["loss"].unique() if label in shared]
    rows = []
    for endpoint in ENDPOINTS:
        blocks = [score_array(s.cases, endpoint, s.rarest, labels) for s in (first, second)]
        kept = [statistics.complete(block) for block in blocks]
        both = np.intersect1d(kept[0][2], kept[1][2])
        blocks = [
            block[np.ix_(seeds, cases, both)]
            for block, (seeds, cases, _) in zip(blocks, kept, strict=True)
        ]
        row: dict[str, object] = {"endpoint": endpoint, "losses": len(both)}
        if all(block.size for block in blocks):
            generator = np.random.default_rng(SEED)
            means = [block.mean(axis=(0, 1)) for block in blocks]
            drawn = [ranking.bootstrap_ranks(block, resamples, generator) for block in blocks]
            tau = [ranking.kendall(*pair) for pair in zip(*drawn, strict=True)]
            tail = (1 - confidence) / 2
            row |= {
                "seeds": min(len(seeds) for seeds, _, _ in kept),
                "cases": min(len(cases) for _, cases, _ in kept),
                "kendall_tau": ranking.kendall(*means),
                "low": np.nanquantile(tau, tail),
                "high": np.nanquantile(tau, 1 - tail),
                "p": ranking.kendall_p(*means),
                "same_first": bool(means[0].argmax() == means[1].argmax()),
            }
        rows.append(row)
    return pd.DataFrame(rows).reindex(columns=COLUMNS)
