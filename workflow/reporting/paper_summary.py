"""How the paper begins and ends: its abstract and its conclusion, computed like all else."""

from __future__ import annotations

import re
from typing import Any

from workflow.reporting import across, paper_experiments, paper_patients, paper_text, text
from workflow.reporting import experiment_published as published
from workflow.reporting.paper_experiments import Reference, Told
from workflow.reporting.paper_text import DICE_BELOW, LOST
from workflow.reporting.study_tables import Study
from workflow.reporting.wording import count, listing, number, readable


def statements(reference: Reference, study: Study) -> dict[str, Any]:
    """The first and the last of what is said; the paper adds only what no table decides."""
    return {"abstract": abstract(reference, study), "conclusion": conclusion(reference, study)}


# Abstract


def abstract(reference: Reference, study: Study) -> list[str]:
    """What was done and found, in counts: names and intervals are in the sections."""
    told = reference.experiments
    sentences = [_done(study), _lost(study), _kept(study)]
    if "mechanism" in told:
        sentences.append(paper_experiments.rules_told(told["mechanism"].experiment))
    if "normalisation" in told:
        sentences.append(paper_experiments.without_clipping(told["normalisation"].experiment))
    sentences += [_corrected(reference, study), _patients(reference, study)]
    return [sentence for sentence in sentences if sentence]


def _done(study: Study) -> str:
    as_published = int(study.ranked["published"].sum()) if len(study.ranked) else 0
    of_them = f", {as_published} of them as published," if as_published else ""
    phantom = (study.config.get("dataset") or {}).get("source") == "phantom"
    where = "semi-synthetic lesions" if phantom else study.dataset_name
    tuned = len(study.runs) and study.runs["learning_rate"].nunique() > 1
    rate = "each at a rate tuned alike" if tuned else "at one learning rate"
    seeds = f", with {count(study.seeds, 'seed')}" if study.seeds else ""
    return (
        f"Here {count(len(study.losses), 'loss', 'losses')}{of_them} train one network on "
        f"{where or 'one data set'} from the same weights and patches, {rate}{seeds}."
    )


def _lost(study: Study) -> str:
    lost = paper_text.fate(study, "these")
    defined = f"lost a class (Dice below {DICE_BELOW:g} in most cases)"
    gone, forms = paper_text.forms(study)
    if not gone or forms < 2:
        return lost.replace("lost a class", defined, 1)
    amount = f"all {forms}" if gone == forms else f"{gone} of {forms}"
    return (
        f"{lost.replace('lost a class', defined, 1)} Among the former are {amount} forms of "
        "Generalized Dice."
    )


def _kept(study: Study) -> str:
    table = paper_text.whole(study)
    if len(table) < 2:
        return ""
    scores = table["mean_dice"]
    return (
        f"Of the {len(scores)} that kept every class in every run, mean Dice is "
        f"{number(scores.min())} to {number(scores.max())}."
    )


def _corrected(reference: Reference, study: Study) -> str:
    its = reference.experiments.get("published")
    if its is not None:
        return _verdicts(its)
    return f"{text.correction_title(study)}." if study.pairs() else ""


def _verdicts(its: Told) -> str:
    """How many published forms do worse than their correction, and how many stay open."""
    verdicts = published.defects(its.experiment, "mean_dice")["verdict"]
    if verdicts.empty:
        return ""
    lower = int(verdicts.isin(("breaks down", "costs")).sum())
    does = "breaks down or scores" if lower < 2 else "break down or score"
    stay = int((verdicts == "undecided").sum())
    return (
        f"Of {count(len(verdicts), 'published form')} {lower or 'none'} {does} separably lower "
        f"than the correction, and the verdict on {stay or 'none'} is open."
    )


def _patients(reference: Reference, study: Study) -> str:
    """Without the statistics, which stand in the section."""
    told = paper_patients.headline(reference.patients, study)
    return re.sub(r" \(Kendall's tau [^()]*\)", "", told)


# Conclusion


def conclusion(reference: Reference, study: Study) -> list[str]:
    """Which losses lost no class, which to avoid, what correcting does, and what stays open."""
    told = [_safe(reference, study), _avoid(study), *_correcting(reference, study)]
    if "normalisation" in reference.experiments:
        its = reference.experiments["normalisation"].experiment
        told.append(paper_experiments.without_clipping(its))
    return [sentence for sentence in (*told, _open(reference, study)) if sentence]


def _safe(reference: Reference, study: Study) -> str:
    names = [readable(label) for label in paper_text.whole(study)["loss"]] if study.losses else []
    both = paper_patients.beside(reference.patients, study)
    if len(both) == 1:
        kept = listing(names) or "none"
        return (
            f"Of {count(len(study.losses), 'loss', 'losses')} {kept} kept every class in each run."
        )
    shared = across.shared(both)
    safe = across.safe_in(both)
    everywhere = [readable(x) for x in shared if all(x in kept for kept in safe.values())]
    patients = listing(name for name in both if name != paper_patients.OWN)
    return (
        f"On the {paper_patients.OWN} {len(names) or 'none'} of "
        f"{count(len(study.losses), 'loss', 'losses')} kept every class in each run; of the "
        f"{len(shared)} that were trained on {patients} as well, these kept every class in each "
        f"run of all: {listing(everywhere) or 'none'}."
    )


def _avoid(study: Study) -> str:
    """Losses that lost a class in most runs, though nobody calls them defective."""
    table = text.trained(study)
    if table.empty:
        return ""
    lost = table[table["tier"].isin(LOST)]
    names = [readable(label) for label in lost.loc[~lost["published"].astype(bool), "loss"]]
    as_published = len(lost) - len(names)
    also = f", and so did {as_published} of the published forms" if as_published else ""
    if not names:
        return ""
    return (
        f"Where classes are as rare as here, and missing from some cases, we would not use "
        f"{listing(names)}: {'it' if len(names) == 1 else 'each'} lost a class in most runs{also}."
    )


def _correcting(reference: Reference, study: Study) -> list[str]:
    told = []
    its = reference.experiments.get("published")
    if its is not None:
        told.append(_verdicts(its))
    lost = {}
    for _, fix in study.pairs():
        row = study.row(fix)
        if row is not None and row["tier"] in LOST:
            lost[readable(fix)] = f"{int(row['collapsed'])} of {count(int(row['runs']), 'run')}"
    if lost:
        names = listing(f"{name} ({runs})" for name, runs in lost.items())
        told.append(f"A correction is no safe loss for that: {names} lost a class all the same.")
    return told


def _open(reference: Reference, study: Study) -> str:
    """What the data do not decide."""
    left = []
    best = len(study.standing) and (text.trained(study)["tier"] == "best").sum()
    if best > 1:
        left.append(f"which of {best} losses that are not separated from the first is best")
    pairs = paper_patients.verdict(reference.patients, study)
    if "not shown" in pairs:
        left.append("whether patients rank them alike")
    left.append("what a longer budget and a larger network change")
    return f"What stays open is {listing(left)}."
