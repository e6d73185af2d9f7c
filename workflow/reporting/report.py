"""The report: one HTML file that opens offline and shows nothing but what the tables hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from workflow import files
from workflow.reporting import evidence, figures, page, preparation, reproduction, text, wording
from workflow.reporting.formula import mathml
from workflow.reporting.study_tables import FLOOR, Study, read_study

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


def build(study_dir: Path) -> Path:
    """Write `report.html` from a study's tables and figures and return its path.

    Figures that are not there yet are drawn first.
    """
    study_dir = Path(study_dir)
    if not all((study_dir / "figures" / f"{name}.svg").is_file() for name in TITLES):
        figures.write_all(study_dir)
    out = study_dir / "report.html"
    files.write_text(out, render(read_study(study_dir), study_dir / "figures"))
    return out


def render(study: Study, figures_dir: Path) -> str:
    """The page as text."""
    environment = page.environment()
    environment.filters.update(
        number=wording.number,
        signed=wording.signed,
        percent=wording.percent,
        p_value=wording.p_value,
        readable=wording.readable,
        mathml=mathml,
        finite=lambda value: value is not None and math.isfinite(value),
    )
    environment.globals.update(
        estimate=wording.estimate, interval=wording.interval, count=wording.count
    )
    template = environment.get_template("report.html.j2")
    return template.render(
        study=study,
        verdict=text.verdict(study),
        status=text.status_line(study),
        asked=text.asked(study),
        notes=text.ranking_notes(study),
        tier_names={"separable": "below"},
        rule_name=evidence.rule_name,
        aspects=evidence.ASPECTS,
        figures={name: _figure(study, figures_dir, name) for name in TITLES},
        ranking=_records(study.ranked),
        pairs=[_pair(study, old, fix) for old, fix in study.pairs()],
        contrasts=_contrasts(study),
        troubled=_troubled(study),
        losses_lost=_collapse(study),
        equivalent=_equivalent(study),
        stability=_records(study.chosen(study.stability)),
        absent=_records(_in_order(study, study.chosen(study.absent))),
        rates=_rates(study),
        told={
            "detectable": evidence.detectable(study),
            "equivalence": evidence.equivalence_notes(study),
            "stability": evidence.stability_notes(study),
            "rates": evidence.rates_notes(study),
        },
        reproduced=reproduction.section(study.reproduction),
        sizes=_records(study.dataset),
        preparation=preparation.section(study.preparation),
        digests=_digests(study),
        cost=_records(_in_order(study, study.cost)),
        cards=[_card(card) for card in study.cards],
        rules=text.rules(study),
        scope=text.scope(study),
        environment=_flat(study.environment),
        configuration=yaml.safe_dump(study.config, sort_keys=False, allow_unicode=True),
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


def _pair(study: Study, published: str, corrected: str) -> dict[str, Any]:
    endpoints = {
        endpoint: study.contrast("correction", corrected, published, endpoint)
        for endpoint in ("mean_dice", "rarest_dice")
    }
    cards = {card.get("label"): card for card in study.cards}
    reasons = [found["reason"] for found in endpoints.values() if found is not None]
    return {
        "published": study.row(published),
        "corrected": study.row(corrected),
        "reason": next(iter(reasons), "") or cards.get(published, {}).get("reason", ""),
        "differences": {
            name: None
            if found is None
            else {**found, "separable": text.separable(found, study.confidence)}
            for name, found in endpoints.items()
        },
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


def _digests(study: Study) -> dict[str, str]:
    """What identifies the cases of each split; empty for tables that are older than it."""
    if "sha256" not in study.dataset:
        return {}
    by_split = study.dataset[study.dataset["split"] != "all"].groupby("split", sort=False)
    return by_split["sha256"].first().to_dict()


def _troubled(study: Study) -> list[dict[str, Any]]:
    """Runs that failed, diverged or collapsed, the worst first."""
    order = ("failed", "diverged", "total", "partial")
    rows = [{**run, "outcome": study.outcome(run)} for _, run in study.runs.iterrows()]
    rows = [row for row in rows if row["outcome"] in order]
    return sorted(rows, key=lambda row: (order.index(row["outcome"]), row["loss"], row["seed"]))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested dictionary as dotted names and their values."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat
