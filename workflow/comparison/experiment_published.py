"""What the defects of published losses cost: each against the loss that corrects it, paired."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

import losses
from workflow.comparison import contrasts, statistics, tables
from workflow.comparison.arrays import ENDPOINTS, score_array
from workflow.study import Study, StudyError

OUTCOMES = ("none", "partial", "total", "diverged", "failed")
DEFECTS = (
    "published", "corrected", "endpoint", "verdict", "difference", "low", "high", "p", "p_holm",
    "degrees_of_freedom", "minimum_detectable_difference", "equivalence", "equivalence_p",
    "equivalence_p_holm", "margin", "smallest_margin", "probability", "probability_low",
    "probability_high", "standing_difference", "standing_low", "standing_high", "standing_seeds",
    "seeds", "cases",
)  # fmt: skip


def answers(
    study: Study, raw: Mapping[str, pd.DataFrame], generic: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """``twins``, ``mechanisms`` and ``defects``.

    The first two have a row for each published loss and its corrected one: learning rates and
    outcomes of their runs; which document published it, and what is wrong with it by its card.
    ``defects``: a row for each pair that ran and endpoint, corrected - published, with columns as
    in ``comparisons``, ``equivalence`` and ``improvement`` of a plain study; ``standing_*`` is the
    difference over the seeds at which neither collapsed. Its ``verdict`` is

    - ``breaks down``: the published loss lost every class or diverged in most of its runs;
    - ``costs``, ``gains``: it scores lower, or higher, separably after Holm's correction over all
      pairs;
    - ``equivalent``: two one-sided tests, corrected alike, place the difference within the margin;
    - ``undecided``: none of these.

    Raises ``StudyError`` if the study has arms, or no such pair.
    """
    if study.arms:
        raise StudyError("experiment 'published' pairs losses; it has no arms")
    pairs = {
        label: twin for label in study.losses if (twin := contrasts.corrected_label(study, label))
    }
    if not pairs:
        raise StudyError("experiment 'published': no published loss stands beside its correction")
    twins = _twins(pairs, raw["runs"])
    broken = _broken(twins)
    defects = _defects(study, raw, generic["comparisons"])
    defects["verdict"] = [
        "breaks down" if row.published in broken else _verdict(row, study.comparison.confidence)
        for row in defects.itertuples()
    ]
    return {"defects": defects, "twins": twins, "mechanisms": _mechanisms(study, pairs)}


def _twins(pairs: Mapping[str, str], runs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "published": label,
                "corrected": twin,
                **_fates(runs[runs["loss"] == label], "published"),
                **_fates(runs[runs["loss"] == twin], "corrected"),
            }
            for label, twin in pairs.items()
        ]
    )


def _mechanisms(study: Study, pairs: Mapping[str, str]) -> pd.DataFrame:
    cards = {label: losses.card(study.losses[label].name) for label in pairs}
    return pd.DataFrame(
        [
            # in words, since 000 alone would come back from a file as the number 0
            {"published": label, "source": f"document {card.seed}", "mechanism": card.reason}
            for label, card in cards.items()
        ]
    )


def _fates(runs: pd.DataFrame, side: str) -> dict[str, float]:
    """Learning rate of a loss, and its runs by what became of them; each run counts once."""
    outcome = runs["collapse"].where(runs["status"] == "ok", runs["status"])
    found = {"learning_rate": runs["learning_rate"].median(), "runs": len(runs)}
    found |= {name: int((outcome == name).sum()) for name in OUTCOMES}
    return {f"{side}_{name}": value for name, value in found.items()}


def _broken(twins: pd.DataFrame) -> set[str]:
    lost = twins["published_total"] + twins["published_diverged"]
    finished = twins["published_runs"] - twins["published_failed"]
    return set(twins.loc[2 * lost > finished, "published"])


def _defects(
    study: Study, raw: Mapping[str, pd.DataFrame], comparisons: pd.DataFrame
) -> pd.DataFrame:
    """All columns of ``defects`` but the verdict."""
    ran = set(raw["runs"]["loss"])
    table = comparisons[
        (comparisons["contrast"] == "correction")
        & (comparisons["test_set"] == study.test_set)
        & comparisons["loss"].isin(ran)
        & comparisons["against"].isin(ran)
    ].rename(columns={"loss": "corrected", "against": "published"})
    rarest = tables.rarest_class(raw["dataset"])
    cases = raw["cases"][raw["cases"]["test_set"] == study.test_set]
    standing = raw["runs"].query("status == 'ok' and collapse == 'none'")[["loss", "seed"]]
    labels = list(study.losses)
    scores, standing_scores = (
        {name: score_array(chosen, name, rarest, labels) for name in ENDPOINTS}
        for chosen in (cases, cases.merge(standing))
    )
    confidence, margin = study.comparison.confidence, study.comparison.margin
    rows, tests = [], []
    for corrected, published, endpoint in table[["corrected", "published", "endpoint"]].to_numpy():
        pair = labels.index(corrected), labels.index(published)
        values = contrasts.paired(scores[endpoint], *pair)
        tests.append(
            statistics.equivalence(statistics.crossed_mean(values, confidence), margin, confidence)
        )
        chance = statistics.improvement(values, confidence)
        values = contrasts.paired(standing_scores[endpoint], *pair)
        held = contrasts.mean_difference(values, confidence)
        rows.append(
            _prefixed("probability", chance)
            | _prefixed("standing", held)
            | {"standing_difference": held.mean, "standing_seeds": len(values)}
            | {"probability": chance.mean, "margin": margin}
            | {"equivalence_p": tests[-1].p, "smallest_margin": tests[-1].smallest_margin}
        )
    table = table.reset_index(drop=True).join(pd.DataFrame(rows, index=range(len(rows))))
    table = table.reindex(columns=DEFECTS)
    for _, family in table.groupby("endpoint"):
        table.loc[family.index, "equivalence_p_holm"] = statistics.holm(family["equivalence_p"])
    table["equivalence"] = [
        test._replace(p=p).verdict(margin, 1 - confidence)
        for test, p in zip(tests, table["equivalence_p_holm"], strict=True)
    ]
    return table


def _prefixed(name: str, estimate: statistics.Estimate) -> dict[str, float]:
    return {f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _verdict(row: Any, confidence: float) -> str:
    if row.p_holm < 1 - confidence:
        return "costs" if row.difference > 0 else "gains"
    return "equivalent" if row.equivalence == "equivalent" else "undecided"
