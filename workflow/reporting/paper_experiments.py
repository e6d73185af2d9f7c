"""What the project's paper tells beside its study: the reference experiments."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from workflow import files
from workflow.reporting import experiment, paper_patients, paper_text
from workflow.reporting import experiment_published as published
from workflow.reporting import mechanism as mechanisms
from workflow.reporting.experiment import Chapter, Experiment
from workflow.reporting.paper_patients import Patients
from workflow.reporting.study_tables import Study
from workflow.reporting.wording import count, listing, readable

# name of an experiment: the figures of its report that the paper has room for
FIGURES = {
    "mechanism": ("rules", "weights"),
    "published": ("cost",),
    "absence": ("rarest",),
    "imbalance": ("fraction",),
    "factorial": ("effects",),
    "sgd": (),
    "normalisation": (),
}
# the first of what its page says: of the mechanism the details of slopes are left to the page, and
# each line of the table of defects is judged in words of its own, told above it
SENTENCES = {"mechanism": 8, "published": 4}
SHORT = 170
"""Letters of a sentence that is no paragraph of its own."""
ROOM = 6000
"""Letters of the reasons in a table of defects that fills a page."""
PLACES = r"(?:doi:|arXiv:)([^\s,;()]+[^\s,;().])"


@dataclass(frozen=True)
class Told:
    """An experiment of the reference and what the paper shows of it."""

    folder: Path
    experiment: Experiment
    chapter: Chapter
    figures: tuple[str, ...]


@dataclass(frozen=True)
class Reference:
    """What lies in ``results/reference/`` beside the study of the paper."""

    folder: Path | None = None
    experiments: dict[str, Told] = field(default_factory=dict)
    patients: Patients = field(default_factory=Patients)


def read(folder: Path | None) -> Reference:
    """The experiments and studies of patients that have tables in ``folder``; none without it."""
    if folder is None:
        return Reference()
    told = {}
    for name, figures in FIGURES.items():
        if not (folder / name / "tables" / "answers").is_dir():
            continue
        found = experiment.read(folder / name)
        told[name] = Told(folder / name, found, experiment.chapter_of(found), figures)
    return Reference(folder, told, paper_patients.read(folder))


def statements(reference: Reference, study: Study) -> dict[str, Any]:
    """The part of the paper's statements that speaks of the reference."""
    told = reference.experiments
    patients = paper_patients.statements(reference.patients, study)
    defects = (
        differences(told["published"].experiment)
        if "published" in told
        else paper_text.differences(study)
    )
    return patients | {
        "experiments": {
            name: {
                "shard": shard(its.experiment),
                "headline": headline(name, its.experiment),
                "said": paragraphs(its.chapter.said(its.experiment)[: SENTENCES.get(name)]),
                "detectable": experiment.detectable(its.experiment),
                "made_by": [
                    re.sub(r"\b([0-9a-f]{10})[0-9a-f]{30}\b", r"\1", line)
                    for line in experiment.made_by(its.experiment)
                ],
            }
            for name, its in told.items()
        },
        "claims": claims(told["mechanism"].experiment) if "mechanism" in told else {},
        "defects": parts(defects),
        "library": library(reference.folder),
        "edges": edges(reference.folder, study),
    }


# Experiments


def shard(its: Experiment) -> str:
    """Which of the planned runs these tables hold."""
    outcomes, runs = its.answers["outcomes"], its.raw["runs"]
    planned, missing = int(outcomes["runs"].sum()), int(outcomes["missing"].sum())
    if not missing:
        return f"All {planned} planned runs are in these tables."
    seeds = listing(str(seed) for seed in sorted(runs["seed"].unique()))
    arms = [arm for arm in its.arms if arm and (runs["arm"] == arm).any()]
    where = ""
    if len(arms) < len([arm for arm in its.arms if arm]):
        where = f" of the {'arm' if len(arms) == 1 else 'arms'} {listing(arms)}"
    return f"Part of the planned runs: {planned - missing} of {planned}, seeds {seeds}{where}."


def paragraphs(sentences: Iterable[str]) -> list[str]:
    """The sentences in their order, a short one in a paragraph with the one before it."""
    found: list[str] = []
    for sentence in sentences:
        if found and len(sentence) < SHORT:
            found[-1] += f" {sentence}"
        else:
            found.append(sentence)
    return found


def headline(name: str, its: Experiment) -> str:
    """The finding of an experiment as one sentence for the abstract; "" where it has none."""
    if name == "published" and len(published.defects(its, "mean_dice")):
        title = published.title(its)
        return f"Trained beside their corrections, {title[0].lower()}{title[1:]}."
    if name == "normalisation":
        return without_clipping(its)
    if name != "mechanism":
        return ""
    rules = mechanisms.rules_at(its, mechanisms.TUNED)
    if rules.empty:
        return ""
    works = int(rules["works"].sum())
    told = (
        f"Of {count(len(rules), 'rule')} for the weights of Generalized Dice, "
        f"{works or 'none'} {'learns' if works < 2 else 'learn'} every class in most seeds"
    )
    verdict = mechanisms.answer(its, "verdict")
    helped = verdict[verdict["generalized"] & (verdict["arm"] != mechanisms.TUNED)]
    helped = helped[helped["arm"].isin((mechanisms.FAMILIES, mechanisms.BIASED))]
    if helped.empty:
        return f"{told}."
    helps = int(helped["works"].sum())
    return (
        f"{told}; with a cross-entropy term, an output bias at the class frequencies or both, "
        f"{helps or 'none'} of {count(len(helped), 'combination')} "
        f"{'does' if helps < 2 else 'do'}."
    )


def without_clipping(its: Experiment) -> str:
    """What becomes of the losses that lose a class where intensities are clipped, if they are not.

    "" unless both arms have run.
    """
    lost = {
        arm: dict(zip(rows["loss"], rows["collapsed"] > 0, strict=True))
        for arm, rows in its.summary.groupby("arm")
    }
    if set(lost) != {"percentiles", "zscore"}:
        return ""
    unclipped = lost["zscore"]
    clipped = [loss for loss, gone in lost["percentiles"].items() if gone and loss in unclipped]
    still = [readable(loss) for loss in clipped if unclipped[loss]]
    whole = [readable(loss) for loss in clipped if not unclipped[loss]]
    return (
        f"Clipped intensities have a part in it: of {count(len(clipped), 'loss', 'losses')} tried "
        f"that lost a class in some run, {listing(whole) or 'none'} lost none without clipping, "
        f"{listing(still) or 'none'} still did."
    )


def claims(its: Experiment) -> dict[str, bool]:
    """What the prose on the mechanism takes for granted; the paper refuses to compile without."""
    verdict = mechanisms.answer(its, "verdict").query("arm == @mechanisms.TUNED")
    rules = mechanisms.rules_at(its, mechanisms.TUNED)
    updates = mechanisms.answer(its, "updates")
    updates = updates[
        (updates["arm"] == mechanisms.TUNED) & (updates["phase"] == "first")
        & (updates["class"] == mechanisms.EVERY)
    ].set_index("loss")["effective"]  # fmt: skip
    undisturbed = rules[rules["loss"].map(updates).ge(0.99)]
    written = updates.get("published_generalized_dice_written")
    identity = mechanisms.answer(its, "identity")
    graph = identity[
        (identity["loss"] == "published_generalized_dice_graph") & (identity["shown"] == "exact")
    ]
    return {
        "the control learns every class": bool(
            verdict.loc[verdict["loss"] == "dice", "works"].any()
        ),
        "rules that discard nothing lose a class too": bool(
            len(undisturbed) and (~undisturbed["works"]).all()
        ),
        "the written loss discards updates": bool(written is not None and written < 0.99),
        "graph mode is one minus the mean probability": bool(
            len(graph) and (graph["largest_difference"] < 1e-9).all()
        ),
    }


def differences(its: Experiment) -> list[dict[str, str]]:
    """The published losses of the experiment with what is wrong and what it costs."""
    mean, rare = (published.defects(its, name) for name in ("mean_dice", "rarest_dice"))
    wrong = its.answers["mechanisms"].set_index("published")["mechanism"]
    return [
        {
            "published": readable(label),
            "corrected": readable(row["corrected"]),
            "reason": paper_text.summarised(str(wrong[label])),
            "verdict": str(row["verdict"]),
            "mean_dice": paper_text.gap(row),
            "rarest_dice": paper_text.gap(rare.loc[label]),
        }
        for label, row in mean.iterrows()
    ]


def parts(rows: list[dict[str, str]], room: int = ROOM) -> list[list[dict[str, str]]]:
    """A long table in parts that fit a page, by their letters."""
    found: list[list[dict[str, str]]] = []
    used = room
    for row in rows:
        size = max(len(row["reason"]), 150) + 60
        if used + size > room:
            found.append([])
            used = 0
        found[-1].append(row)
        used += size
    return found


# Losses


def library(folder: Path | None) -> int:
    """How many losses the library has, by the gallery that draws them all; 0 if unknown."""
    gallery = files.read_table(folder / "losses" / "gallery.csv") if folder else pd.DataFrame()
    return int(gallery["loss"].nunique()) if len(gallery) else 0


def edges(folder: Path | None, study: Study) -> str:
    """The caveat of rates that were tuned by the reference."""
    trials = files.read_table(folder / "tuning" / "trials.csv") if folder else pd.DataFrame()
    if trials.empty:
        return ""
    chosen = trials[trials["chosen"].astype(bool) & trials["loss"].isin(study.losses)]
    amount = int(chosen["on_edge"].astype(bool).sum())
    return paper_text.edges(amount, len(chosen)) if amount else ""


def cards(study: Study, bibliography: str) -> list[dict[str, Any]]:
    """The cards as the tables of formulas show them; a source by its key in the bibliography."""
    keys = sources(bibliography)
    rows = []
    absent: dict[str, str] = {}
    for card in study.cards:
        name = readable(str(card.get("label", "")))
        rule = str(card.get("absent_class") or "")
        said = f"as {absent[rule]}" if len(rule) > 80 and rule in absent else rule
        absent.setdefault(rule, name)
        places = re.findall(PLACES, str(card.get("paper") or ""))
        rows.append({
            "name": name,
            "source": str(card.get("formula") or ""),
            "absent": paper_text.typeset(f"{said[:1].upper()}{said[1:]}"),
            "published": bool(card.get("seed")),
            "document": str(card.get("seed") or ""),
            "options": _options(card),
            "keys": list(dict.fromkeys(keys[x.lower()] for x in places if x.lower() in keys)),
        })  # fmt: skip
    return rows


def _options(card: dict) -> str:
    """The options in which a loss of the study differs from its defaults."""
    options, defaults = card.get("options") or {}, card.get("defaults") or {}
    return ", ".join(f"{k}: {v}" for k, v in options.items() if v != defaults.get(k))


def sources(bibliography: str) -> dict[str, str]:
    """Key of the bibliography for every DOI and arXiv number in it."""
    found = {}
    for key, body in re.findall(r"@\w+\{(\w+),(.*?)\n\}", bibliography, re.DOTALL):
        for place in re.findall(r"doi = \{([^}]+)\}|arXiv:([\d.]+\d)", body):
            found["".join(place).lower()] = key
    return found
