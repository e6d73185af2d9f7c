"""Published against corrected: a card for each pair, from formula to measured cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from workflow.reporting import text
from workflow.reporting.drawn import lines, short
from workflow.reporting.figures_gallery import NOTICED, change_as_it_shrinks
from workflow.reporting.formula import compared
from workflow.reporting.study_tables import Study
from workflow.reporting.wording import count, listing, number, percent

COURSE = "shrinks"
FIELDS = {
    "reduction": "Reduction",
    "smoothing": "Smoothing",
    "background": "Background",
    "absent_class": "Absent class",
    "value_range": "Values",
}


def pairs(study: Study, gallery: pd.DataFrame) -> list[dict[str, Any]]:
    """The cards of a study, in the order of the ranking of the corrected losses."""
    return [card(study, old, fix, gallery) for old, fix in study.pairs()]


def in_studies(studies: Mapping[str, Study]) -> list[dict[str, Any]]:
    """The pairs of any study: what the correction changes, and its cost in each that has both.

    Pairs that more studies have come first.
    """
    having: dict[tuple[str, str], list[str]] = {}
    for name, study in studies.items():
        for pair in study.pairs():
            having.setdefault(pair, []).append(name)
    return [
        {
            "labels": pair,
            **change(studies[names[0]], *pair),
            "costs": {name: cost(studies[name], *pair) for name in names},
        }
        for pair, names in sorted(having.items(), key=lambda item: -len(item[1]))
    ]


def table(pairs: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The measured differences of :func:`in_studies`, corrected - published, a row for each."""
    columns = ["study", "published", "corrected", "endpoint", "difference", "low", "high", "p_holm",
               "separable"]  # fmt: skip
    rows = [
        {"study": name, "published": pair["labels"][0], "corrected": pair["labels"][1],
         "endpoint": endpoint, **{key: found[key] for key in columns[4:]}}
        for pair in pairs
        for name, costs in pair["costs"].items()
        for endpoint, found in costs["differences"].items()
        if found is not None
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def card(study: Study, published: str, corrected: str, gallery: pd.DataFrame) -> dict[str, Any]:
    """What a correction changes in the formula, in the gradient and in the scores."""
    before, after = _cards(study, published, corrected)
    old, new = str(before.get("name") or published), str(after.get("name") or corrected)
    unlike = ""
    if others := _options(before, after):
        unlike = f"{listing(name for name, *_ in others)} {_differ(others)} too"
    elif not all(found.get("options") == found.get("defaults") for found in (before, after)):
        unlike = "this study trains them with other options than the catalogue's"
    return {
        **change(study, published, corrected),
        "gradient": gradient(gallery, old, new, unlike),
        **cost(study, published, corrected),
    }


def change(study: Study, published: str, corrected: str) -> dict[str, Any]:
    """What is wrong as published, and what the correction changes in formula and conventions."""
    before, after = _cards(study, published, corrected)
    formulas = str(before.get("formula") or ""), str(after.get("formula") or "")
    found = study.contrast("correction", corrected, published, "mean_dice")
    return {
        "reason": ("" if found is None else found["reason"]) or before.get("reason") or "",
        "formulas": compared(*formulas) if all(formulas) else None,
        "words": [
            (title, str(before[key]), str(after[key]))
            for key, title in FIELDS.items()
            if before.get(key) and after.get(key) and before[key] != after[key]
        ]
        + [(f"Option {name}", *values) for name, *values in _options(before, after)],
        "also": [name for name, *_ in _options(before, after)],
    }


def _cards(study: Study, *labels: str) -> list[dict[str, Any]]:
    """The cards of these losses; without a card an empty one."""
    found = {entry.get("label"): entry for entry in study.cards}
    return [found.get(label, {}) for label in labels]


def _options(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The options that both losses have, with other values: what differs beside the defect."""
    old, new = before.get("options") or {}, after.get("options") or {}
    return [
        (name, _written(old[name]), _written(new[name]))
        for name in old
        if name in new and old[name] != new[name]
    ]


def _written(option: Any) -> str:
    if option is None:
        return "none"
    return f"{option:.4g}" if isinstance(option, float) else str(option)


def _differ(names: Sequence[Any]) -> str:
    return "differs" if len(names) == 1 else "differ"


def cost(study: Study, published: str, corrected: str) -> dict[str, Any]:
    """Scores and runs of both, and the measured differences."""
    contrasts = {
        endpoint: study.contrast("correction", corrected, published, endpoint)
        for endpoint in ("mean_dice", "rarest_dice")
    }
    return {
        "published": study.row(published),
        "corrected": study.row(corrected),
        "collapse": [_collapse(study, label) for label in (published, corrected)],
        "differences": {
            name: None
            if found is None
            else {**found, "separable": text.separable(found, study.confidence)}
            for name, found in contrasts.items()
        },
        "told": measured(study, published, corrected),
    }


def gradient(
    gallery: pd.DataFrame, published: str, corrected: str, unlike: str = ""
) -> dict[str, Any] | None:
    """How both losses pull on a structure that the prediction loses, there and not there.

    ``gallery`` is the table of ``python -m workflow gallery``; None where it lacks one of them.
    ``unlike`` tells why their gradients differ by more than the defect: they are then not
    compared. A loss whose value falls while the prediction loses a structure that is there, or
    rises while it loses one that is not, pulls the wrong way, however hard.
    """
    if gallery.empty:
        return None
    both = gallery[gallery["loss"].isin((published, corrected)) & (gallery["course"] == COURSE)]
    curves = {}
    for label in (published, corrected):
        for reference in ("present", "absent"):
            rows = both[(both["loss"] == label) & (both["reference"] == reference)]
            if rows.empty or not rows["gradient"].map(math.isfinite).all():
                return None
            curves[label, reference] = rows.sort_values("error")["gradient"].to_list()
    told, plots = [], {}
    for reference, sign, where in (
        ("present", 1, "Where the structure is in the image"),
        ("absent", -1, "Where it is not and the prediction has it"),
    ):
        old, new = curves[published, reference], curves[corrected, reference]
        answers = sign * change_as_it_shrinks(both, reference)
        clauses = [
            f"the {kind} loss pulls the wrong way (its value {'falls' if sign > 0 else 'rises'} as "
            "the prediction shrinks)"
            for kind, label in (("published", published), ("corrected", corrected))
            if answers[label] < -NOTICED
        ]
        if not unlike:
            clauses.append(_compared(max(old), max(new)))
        if clauses:
            told.append(f"{where}, {listing(clauses)}.")
        words = (
            f"Absolute gradient on the class while its prediction shrinks, {where.lower()}: "
            f"published from {old[0]:.2g} to {old[-1]:.2g}, corrected from {new[0]:.2g} to "
            f"{new[-1]:.2g}"
        )
        plots[where] = lines([("corrected", new), ("published", old)], words, ("whole", "lost"))
    if unlike:
        return {"told": [*told, f"How hard they pull is not compared: {unlike}."], "plots": plots}
    left = [
        percent(curves[label, "present"][-1] / max(curves[label, "present"]))
        if max(curves[label, "present"]) > 0
        else "none"
        for label in (published, corrected)
    ]
    told.append(
        f"Once the structure is missed altogether {left[0]} of the published loss's largest "
        f"gradient is left, and {left[1]} of the corrected one's."
    )
    return {"told": told, "plots": plots}


def _compared(old: float, new: float) -> str:
    """The largest gradient of the published loss against that of its correction."""
    if new == 0:
        return "the corrected loss has no gradient" + ("" if old else ", nor has the published one")
    ratio = old / new
    if 0.995 <= ratio < 1.005:
        return "the largest gradients of both losses are equal"
    if ratio == 0:
        return "the published loss has no gradient"
    return (
        f"the largest gradient of the published loss is {_times(ratio)} the largest of its "
        "correction"
    )


def _times(ratio: float) -> str:
    if ratio < 0.001:
        return f"{short(ratio)} times"
    return f"{number(ratio, 3 if ratio < 0.1 else 2 if ratio < 10 else 0)} times"


def _collapse(study: Study, label: str) -> str:
    runs = study.runs_of(label)
    scored = [study.outcome(run) for _, run in runs.iterrows() if run["status"] != "failed"]
    broken = sum(outcome != "none" for outcome in scored)
    return f"{broken} of {count(len(scored), 'run')}"


def measured(study: Study, published: str, corrected: str) -> str:
    """The cost of the defect in a sentence: what the correction gains in mean Dice."""
    found = study.contrast("correction", corrected, published, "mean_dice")
    if found is None or not math.isfinite(found["difference"]):
        return "The cost of the defect cannot be told: the two share too few scores."
    gap = text.estimate(found["difference"], found["low"], found["high"], sign=True)
    decided = text.separable(found, study.confidence)
    if decided is None:
        return f"Correcting changes mean Dice by {gap}; there are too few runs to judge it."
    if not decided:
        told = f"Correcting changes mean Dice by {gap}, not separable from no change"
        if found["low"] > 0 or found["high"] < 0:
            told += " after Holm's correction (the interval is of this pair alone)"
        return f"{told}."
    return f"Correcting changes mean Dice by {gap}, separable from no change."
