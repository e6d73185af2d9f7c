"""The report: one HTML file that opens offline and shows nothing but what the tables hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from workflow import files
from workflow.reporting import (
    answer,
    chart,
    corrections,
    downloads,
    evidence,
    failures,
    figures,
    page,
    preparation,
    provenance,
    ranking,
    reproduction,
    text,
    viewer,
    wording,
)
from workflow.reporting.study_tables import FLOOR, Study, read_study

NOTHING = pd.DataFrame()
# Pictures of voxels are smaller as PNG; everything else stays sharp as SVG.
RASTER = ("cases_median", "cases_worst", "dataset")
TITLES = {
    "ranking": text.ranking_title,
    "published_corrected": text.correction_title,
    "collapse": text.collapse_title,
    "equivalence": evidence.equivalence_title,
    "rank_stability": evidence.stability_title,
    "absent": evidence.absent_title,
    "reliability": evidence.calibration_title,
    "learning_rates": evidence.rates_title,
    "validation_curves": text.curves_title,
    "heldout_dice": text.heldout_title,
    "cases_median": lambda study: text.cases_title(study, "median"),
    "cases_worst": lambda study: text.cases_title(study, "worst"),
    "dataset": text.dataset_title,
    "cost": text.cost_title,
}


def build(study_dir: Path, reference: Path | None = None, logs: Path | None = None) -> Path:
    """Write `report.html` from a study's tables and figures and return its path.

    Figures that are not there yet are drawn first. ``reference`` is the folder of the committed
    results: the study at one learning rate for all and the gallery of gradients are read there.
    ``logs`` is the folder of the runs' logs, by default that of the study.
    """
    study_dir = Path(study_dir)
    if not all((study_dir / "figures" / f"{name}.svg").is_file() for name in TITLES):
        figures.write_all(study_dir)
    out = study_dir / "report.html"
    files.write_text(out, render(read_study(study_dir), study_dir, reference, logs))
    return out


def render(
    study: Study, folder: Path, reference: Path | None = None, logs: Path | None = None
) -> str:
    """The page as text; ``folder`` has the study's figures, logs and tables."""
    gaps = failures.missing(study)
    fixed = read_study(reference / "fixed_rate") if reference else Study("")
    fixed_rate = fixed if ranking.at_one_rate(study, fixed) else None
    gallery = files.read_table(reference / "losses" / "gallery.csv") if reference else NOTHING
    return page.render(
        "report.html.j2",
        study=study,
        question=text.QUESTION,
        answers=answer.answers(study, gaps),
        glance=answer.glance(study),
        carded={card.get("label") for card in study.cards},
        glance_title=answer.glance_title(study),
        asked=text.asked(study),
        rule_name=evidence.rule_name,
        aspects=evidence.ASPECTS,
        figures={name: _figure(study, folder / "figures", name) for name in TITLES},
        ranking=ranking.rows(study, fixed_rate),
        fixed_notes=ranking.fixed_notes(study, fixed_rate) if fixed_rate else [],
        curves=(curves := chart.curves({study.name: study}, study.losses)),
        curve_figures=["validation_curves"],
        library=chart.library() if curves else {},
        pairs=corrections.pairs(study, gallery),
        contrasts=_contrasts(study),
        warnings=failures.warnings(study, gaps),
        missing=gaps,
        troubled=failures.troubled(study, logs or folder / "logs"),
        losses_lost=_collapse(study),
        equivalent=_equivalent(study),
        stability=_records(study.chosen(study.stability)),
        absent=_records(_in_order(study, study.chosen(study.absent))),
        rates=_rates(study),
        told={
            "equivalence": evidence.equivalence_notes(study),
            "stability": evidence.stability_notes(study),
            "rates": evidence.rates_notes(study),
        },
        reproduced=reproduction.section(study.reproduction),
        viewer=viewer.section(study, folder / "tables"),
        sizes=_records(study.dataset),
        preparation=preparation.section(study.preparation),
        digests=provenance.digests(study),
        cost=_records(_in_order(study, study.cost)),
        cards=[_card(card) for card in study.cards],
        rules=text.rules(study),
        scope=text.scope(study),
        made=provenance.section(study),
        downloads=downloads.tables(folder),
        floor=FLOOR,
    )


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")


def _in_order(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of the ranking; what the ranking does not know comes last."""
    if table.empty:
        return table
    order = {label: place for place, label in enumerate([*study.losses, FLOOR])}
    return table.sort_values(
        "loss", key=lambda labels: labels.map(order).fillna(len(order)), kind="stable"
    )


def _figure(study: Study, folder: Path, name: str) -> dict[str, str]:
    return {
        "source": page.address(folder / f"{name}.{'png' if name in RASTER else 'svg'}"),
        "title": TITLES[name](study),
        "caption": text.caption(study, name),
    }


CARD_ROWS = {
    "name": "Catalogue name",
    "family": "Family",
    "paper": "Source",
    "reduction": "Reduction",
    "smoothing": "Smoothing",
    "defaults_from": "Defaults from",
    "background": "Background",
    "absent_class": "Absent class",
    "value_range": "Values",
    "seed": "Document",
    "runs_as_is": "Runs as it is",
    "reason": "What is wrong",
}


def _card(card: Mapping[str, Any]) -> dict[str, Any]:
    """A formula card as the template shows it: a heading, a formula and named rows."""
    published = bool(card.get("seed"))
    rows = {title: str(card[key]) for key, title in CARD_ROWS.items() if card.get(key)}
    twins = card.get("twin") or []
    twins = [twins] if isinstance(twins, str) else list(twins)
    if twins:
        rows["Corrected by" if published else "Corrects"] = ", ".join(twins)
    return {
        "label": card.get("label", ""),
        "title": card.get("title") or wording.readable(str(card.get("label", ""))),
        "formula": str(card.get("formula") or ""),
        "published": published,
        "rows": rows,
        "options": card.get("options") or {},
    }


def _contrasts(study: Study) -> list[dict[str, Any]]:
    """Every loss against the reference loss, with the probability that it scores higher."""
    rows = []
    for endpoint in ("mean_dice", "rarest_dice"):
        chances = study.endpoint(study.improvement, endpoint)
        if len(chances):
            chances = chances[chances["contrast"] == "reference"].set_index("loss")
        for _, row in study.against_reference(endpoint).iterrows():
            chance = dict.fromkeys(("probability", "low", "high"), math.nan)
            if row["loss"] in chances.index:
                chance = {key: chances.at[row["loss"], key] for key in chance}
            decided = text.separable(row, study.confidence)
            rows.append({**row, "separable": decided, "improvement": chance})
    return rows


def _equivalent(study: Study) -> list[dict[str, Any]]:
    """Pairs of losses that hold and could be called equivalent, the firmest first."""
    rows = evidence.standing_pairs(study)
    return _records(rows.sort_values("p", kind="stable")) if len(rows) else []


def _collapse(study: Study) -> list[dict[str, Any]]:
    """For each loss the runs in which each class collapsed; the most collapsed first."""
    rows, table = _records(text.trained(study)), _records(study.collapse)
    for row in rows:
        row["broken"] = bool(row["collapsed"] > 0 or row["diverged"] > 0)
        row["classes"] = {entry["class"]: entry for entry in table if entry["loss"] == row["loss"]}
    return sorted(rows, key=lambda row: -max(row["collapsed"], row["diverged"]))


def _rates(study: Study) -> list[dict[str, Any]]:
    """The learning rate of each loss, and the trial that chose it if there was one."""
    if study.runs.empty:
        return []
    used = study.runs.groupby("loss")["learning_rate"].first()
    rows = []
    for label in study.losses:
        trials = study.trials[study.trials["loss"] == label] if len(study.trials) else None
        row = {"loss": label, "rate": used.get(label, math.nan), "trials": 0}
        if trials is not None and len(trials):
            best = trials[trials["chosen"]].iloc[0]
            widened = bool(trials["widened"].any())
            row |= {"trials": len(trials), "score": best["score"], "widened": widened,
                    "on_edge": bool(best["on_edge"])}  # fmt: skip
        rows.append(row)
    return rows
