"""What the paper says of a study: sentences that hold for whatever the tables contain."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from workflow.reporting import evidence, paper_protocol, text
from workflow.reporting.paper_typesetting import typeset
from workflow.reporting.study_tables import FLOOR, Study
from workflow.reporting.wording import (
    count,
    estimate,
    listing,
    number,
    p_value,
    percent,
    readable,
    shortened,
    signed,
)

PROJECT = "default"
"""The study whose paper is the project's: it tells the reference experiments as well."""
OPEN = ("undecided", "not separable")
"""Verdicts that leave a pair open."""
SPLITS = ("train", "validation", "test")
LOST = ("collapsed", "failed")
DICE_BELOW = 0.05
"""A class whose Dice is lower in most cases is lost: the rule of the comparison room."""
TELLING = 60
"""Letters from which on a reason says something: "The formula is right." does not."""


# Which losses hold


def fate(study: Study, whole: str = "") -> str:
    """How many losses lose a class in most of their runs, and in some; ``whole`` names them.

    A run that diverged or failed has lost them all.
    """
    table = text.trained(study)
    if table.empty:
        return "No loss has a run."
    most = list(table.loc[table["tier"].isin(LOST), "loss"])
    broken = (table["collapsed"] > 0) | (table["diverged"] > 0) | (table["failed"] > 0)
    some = list(table.loc[broken & ~table["tier"].isin(LOST), "loss"])
    losses = whole or count(len(table), "loss", "losses")
    if not most and not some:
        return f"None of {losses} lost a class in any run."
    told = f"{len(most) or 'none'} lost a class in most of their runs"
    also = f" and {len(some)}{' more' if most else ''} in some" if some else ""
    return f"Of {losses}, {told}{also}."


def leaders(study: Study) -> str:
    """The highest mean Dice of the losses that hold, and how many cannot be told from it."""
    table = text.trained(study)
    best = table[(table["tier"] == "best") & table["mean_dice"].notna()] if len(table) else table
    if best.empty:
        return "No loss reached the best tier."
    first = best.iloc[0]
    score = estimate(first["mean_dice"], first["mean_dice_low"], first["mean_dice_high"])
    told = f"The highest mean Dice of the losses that hold is {score} ({readable(first['loss'])})"
    others = len(study.standing) - 1
    if not others:
        return f"{told}; no other loss holds."
    if len(best) == 1:
        return f"{told}; all {others} others that hold are separable from it."
    return (
        f"{told}; {len(best) - 1} of the {others} others that hold, down to "
        f"{number(best['mean_dice'].min())}, {'is' if len(best) == 2 else 'are'} not separable "
        f"from it.{_wide(table, best)}"
    )


def _wide(table: pd.DataFrame, best: pd.DataFrame) -> str:
    """That some losses are in the best tier only because little is known of them."""
    apart = table.loc[table["tier"] == "separable", "mean_dice"].max()
    lower = int((best["mean_dice"] < apart).sum())
    if not lower:
        return ""
    does, whose = ("scores", "its interval is") if lower == 1 else ("score", "their intervals are")
    return f" Of these, {lower} {does} below a loss that is separated from the first: {whose} wide."


def forms(study: Study) -> tuple[int, int]:
    """Forms of Generalized Dice that lost a class in most of their runs, and how many there are."""
    table = text.trained(study)
    found = table[table["name"].str.contains(text.GENERALIZED)] if len(table) else table
    return int(found["tier"].isin(LOST).sum()) if len(found) else 0, len(found)


def generalized(study: Study) -> str:
    """What became of the forms of Generalized Dice."""
    lost, whole = forms(study)
    if whole < 2:
        return ""
    amount = f"All {lost}" if lost == whole else f"{lost or 'None'} of {whole}"
    return (
        f"{amount} forms of Generalized Dice, published, corrected or with cross-entropy, lost a "
        "class in most runs."
    )


def whole(study: Study) -> pd.DataFrame:
    """Rows of the losses that kept every class in every run, the best first."""
    table = text.trained(study)
    if table.empty:
        return table
    return table[(table[["collapsed", "diverged", "failed"]] == 0).all(axis=1)]


def unbroken(study: Study) -> str:
    """The losses that kept every class in every run."""
    if text.trained(study).empty:
        return ""
    names = [readable(label) for label in whole(study)["loss"]]
    if not names:
        return "No loss kept every class in every run."
    verb = "loss kept" if len(names) == 1 else "losses kept"
    return f"{len(names)} {verb} every class in every run: {shortened(names, 12)}."


# How the study was run


def data(study: Study) -> list[str]:
    """Cases, splits and the sizes of the classes."""
    if study.dataset.empty:
        return []
    cases = study.dataset.drop_duplicates("split").set_index("split")["cases"]
    parts = [f"{int(cases[name])} {name}" for name in SPLITS if name in cases.index]
    told = [
        f"The data set has {count(int(cases.max()), 'case')} ({listing(parts)}), split by subject."
    ]
    sizes = study.class_sizes()
    if study.rarest in set(sizes["class"]):
        row = sizes[sizes["class"] == study.rarest].iloc[0]
        told.append(
            f"The rarest class in training, {study.rarest}, fills "
            f"{percent(row['voxel_fraction'], 2)} of all voxels and is in "
            f"{percent(row['prevalence'])} of the cases."
        )
    return told


def foreground(study: Study) -> str:
    """The share of the voxels that the classes fill together in training; "" if unknown."""
    sizes = study.class_sizes("train")
    if sizes.empty or not study.classes:
        return ""
    return percent(sizes.loc[sizes["class"].isin(study.classes), "voxel_fraction"].sum(), 1)


# What was found


def certainty(study: Study) -> list[str]:
    """What the size of the study lets it see; that of its seeds is told among its limits."""
    few = evidence.few_seeds(study)
    return [
        evidence.detectable(study).removesuffix(few).strip(),
        f"{evidence.equivalence_title(study)}.",
        evidence.equivalence_notes(study).removesuffix(few).strip(),
    ]


def order(study: Study) -> list[str]:
    """How firm the order of the losses is."""
    told = [f"{evidence.stability_title(study)}."]
    tests = study.endpoint(study.friedman)
    if len(tests) and math.isfinite(tests["p"].iloc[0]):
        test = tests.iloc[0]
        shown = p_value(test["p"])
        told.append(
            f"Friedman's test over {count(int(test['cases']), 'case')} and "
            f"{count(int(test['losses']), 'loss', 'losses')}, which speaks of these seeds only: p "
            f"{shown if shown.startswith('<') else f'= {shown}'}."
        )
    ranked = set(study.endpoint(study.ranks)["loss"]) if len(study.ranks) else set()
    if lacking := [readable(label) for label in study.losses if label not in ranked]:
        told.append(f"Without a rank, as runs are missing: {shortened(lacking)}.")
    return told


def rates(agreement: pd.DataFrame) -> str:
    """What one learning rate for all losses does to their order."""
    if agreement.empty:
        return ""
    told = [
        f"{estimate(row['kendall_tau'], row['low'], row['high'])} by "
        f"{text_endpoint(row['endpoint'])}"
        for _, row in agreement.iterrows()
    ]
    same = agreement["same_first"].astype(bool)
    first = "the same" if same.all() else "the same by one of them" if same.any() else "another"
    return (
        "When all losses share one learning rate, their order agrees with that of the tuned ones "
        f"to Kendall's tau {listing(told)}; the loss that comes first is {first}."
    )


def text_endpoint(name: str) -> str:
    return {"mean_dice": "mean Dice", "rarest_dice": "the rarest class"}.get(name, name)


def corrections(study: Study) -> list[str]:
    """What correcting gains, told pair by pair for Generalized Dice."""
    if not study.pairs():
        return []
    return [f"{text.correction_title(study)}.", text.verdict(study)[1]]


def breadth(names: Sequence[str]) -> str:
    """The caveat of few data sets, by name."""
    what = "One data set" if len(names) == 1 else f"{len(names)} data sets"
    return f"{what} ({listing(names)}), each with one network: others may rank otherwise."


def limits(study: Study) -> list[str]:
    """What this study cannot tell, from its own size."""
    runs, cases = study.runs, study.chosen(study.cases)
    held = int(cases["case"].nunique()) if len(cases) else 0
    told = [
        f"{count(study.seeds, 'seed')} and {count(held, 'held-out case')}: the intervals show what "
        "that leaves open, and a difference that is not separable is not shown to be zero."
    ]
    if ended := rising(study):
        told.append(f"{ended} Scores are those of this budget.")
    if len(runs) and runs["learning_rate"].nunique() == 1:
        told.append(
            "All losses share one learning rate; tuned one by one, some may gain more than others."
        )
    edge = study.trials.loc[study.trials["chosen"], "on_edge"] if len(study.trials) else None
    if edge is not None and edge.any():
        told.append(edges(int(edge.sum()), len(edge)))
    if len(runs) and (runs["status"] != "ok").any():
        told.append(
            "Scores are those of runs that have any, which flatters a loss whose other runs have "
            "none."
        )
    return told


def rising(study: Study) -> str:
    """Whether the runs had ended: what the last fifth of their steps still added on validation."""
    rows = study.curves
    if rows.empty:
        return ""
    rows = rows[
        (rows["split"] == "validation") & (rows["quantity"] == "dice")
        & rows["loss"].isin(study.standing)
    ]  # fmt: skip
    dice = rows.groupby(["loss", "seed", "step"])["value"].mean().unstack("step")
    before = [step for step in dice if step <= 0.8 * study.steps]
    if dice.empty or not before or study.steps not in dice:
        return ""
    gains = (dice[study.steps] - dice[before[-1]]).dropna()
    if gains.empty:
        return ""
    share = percent(1 - before[-1] / study.steps)
    return (
        f"In the last {share} of a run its Dice on validation changed by "
        f"{signed(float(gains.median()))} in the median of the losses that hold "
        f"({signed(float(gains.min()))} to {signed(float(gains.max()))})."
    )


def edges(amount: int, losses: int) -> str:
    """The caveat of a learning rate that may lie further out."""
    return (
        f"For {amount} of {count(losses, 'loss', 'losses')} the best learning rate tried was at an "
        "end of the widened grid: a better one may lie beyond."
    )


# Everything


def shown(study: Study) -> list[str]:
    """The figures that this study has something for, in the order of the paper."""
    return ["ranking", "published_corrected"] if study.pairs() else ["ranking"]


def taus(study: Study) -> list[dict[str, str]]:
    """How the reported ranking agrees with every other rule."""
    return [
        {
            "aspect": evidence.ASPECTS.get(row["aspect"], row["aspect"]),
            "rule": evidence.rule_name(row["against"]),
            "tau": number(row["kendall_tau"]),
            "same_first": "yes" if row["same_first"] else "no",
        }
        for _, row in evidence.against_primary(study).iterrows()
    ]


def tau_losses(study: Study) -> str:
    """Over how many losses the rankings are compared."""
    amounts = sorted(evidence.against_primary(study)["losses"].unique()) if taus(study) else []
    return " to ".join(dict.fromkeys(str(int(x)) for x in (*amounts[:1], *amounts[-1:])))


def differences(study: Study) -> list[dict[str, str]]:
    """Published losses and their corrections, a row a pair, the largest difference first."""
    cards = {str(card.get("label", "")): card for card in study.cards}
    rates = rates_of(study)
    rows: list[tuple[float, dict[str, str]]] = []
    for old, fix in study.pairs():
        found = {
            endpoint: study.contrast("correction", fix, old, endpoint)
            for endpoint in ("mean_dice", "rarest_dice")
        }
        mean = found["mean_dice"]
        known = mean is not None and math.isfinite(mean["difference"])
        size = float(mean["difference"]) if mean is not None and known else -math.inf
        reason = str(cards.get(old, {}).get("reason") or "")
        rows.append((size, {
            "published": readable(old),
            "corrected": readable(fix),
            "reason": summarised(reason, study.losses),
            "rates": both_rates(rates.get(old), rates.get(fix)),
            "verdict": after_holm(_judged(mean, study.confidence), mean),
            **{endpoint: gap(row) for endpoint, row in found.items()},
        }))  # fmt: skip
    return [row for _, row in sorted(rows, key=lambda found: -found[0])]


def rates_of(study: Study) -> dict[str, float]:
    """The learning rate of each loss."""
    if study.runs.empty:
        return {}
    found = study.runs.groupby("loss")["learning_rate"].first()
    return {str(label): float(rate) for label, rate in found.items()}


def both_rates(published: float | None, corrected: float | None) -> str:
    """The learning rates of a pair: one where it is the same."""
    told = [f"{rate:g}" for rate in (published, corrected) if rate is not None]
    return " → ".join(dict.fromkeys(told))


def after_holm(verdict: str, row: pd.Series | None) -> str:
    """A verdict of all pairs at once where the interval of this pair alone leaves out zero."""
    alone = row is not None and (row["low"] > 0 or row["high"] < 0)
    return f"{verdict} after Holm" if alone and verdict in OPEN else verdict


def summarised(reason: str, labels: Collection[str] = ()) -> str:
    """The first sentences of what is wrong with a loss, as many as say more than a few words.

    ``labels``: losses that the reason may name by their label.
    """
    sentences = re.split(r"(?<=\.)\s+(?=[A-Z])", reason)
    told = sentences[0]
    for sentence in sentences[1:]:
        if len(told) >= TELLING:
            break
        told += f" {sentence}"
    return typeset(named(told, labels))


def named(reason: str, labels: Collection[str] = ()) -> str:
    """A text with losses as people write them."""
    for label in sorted((x for x in labels if "_" in x), key=len, reverse=True):
        reason = re.sub(rf"\b{re.escape(label)}\b", readable(label), reason)
    return re.sub(r"published_\w+", lambda found: readable(found[0]), reason)


def gap(row: pd.Series | None) -> str:
    """A paired difference with its interval."""
    if row is None or not math.isfinite(row["difference"]):
        return number(math.nan)
    return estimate(row["difference"], row["low"], row["high"], sign=True)


def _judged(row: pd.Series | None, confidence: float) -> str:
    decided = text.separable(row, confidence)
    if row is None or decided is None:
        return "not judged"
    return "not separable" if not decided else "costs" if row["difference"] > 0 else "gains"


def statements(study: Study, agreement: pd.DataFrame) -> dict[str, Any]:
    """Everything that the paper says of the study in words; the paper adds no claim of its own."""
    return {
        "title": study.title,
        "study": study.name,
        "dataset": study.dataset_name,
        "phantom": (study.config.get("dataset") or {}).get("source") == "phantom",
        "checkpoint": study.checkpoint,
        "reference": readable(study.reference_loss) if study.reference_loss else "",
        "rarest": study.rarest,
        "confidence": percent(study.confidence),
        "floor": FLOOR,
        "names": {label: readable(label) for label in (*study.losses, FLOOR)},
        "rates": {label: f"{rate:g}" for label, rate in rates_of(study).items()},
        "status": text.status_line(study),
        "data": data(study),
        "foreground": foreground(study),
        "methods": paper_protocol.methods(study),
        "optimizer": (study.config.get("training") or {}).get("optimizer", ""),
        "few_seeds": evidence.few_seeds(study),
        "fate": [x for x in (fate(study), generalized(study), unbroken(study)) if x],
        "leaders": [leaders(study), f"{text.heldout_title(study)}."],
        "corrections": corrections(study),
        "certainty": certainty(study),
        "order": order(study),
        "fixed_rate": rates(agreement),
        "absent": f"{evidence.absent_title(study)}. {evidence.false_structures(study)}".strip(),
        "calibration": f"{evidence.calibration_title(study)}.",
        "cost": f"{text.cost_title(study)}.",
        "limits": limits(study),
        "provenance": paper_protocol.provenance(study),
        "rules": text.rules(study),
        "shown": shown(study),
        "taus": taus(study),
        "tau_losses": tau_losses(study),
        "scope": text.scope(study),
    }
