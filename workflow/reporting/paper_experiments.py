"""What the project's paper tells beside its study: the reference experiments."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from workflow import files
from workflow.reporting import experiment, paper_patients, paper_protocol, paper_text
from workflow.reporting import experiment_published as published
from workflow.reporting import mechanism as mechanisms
from workflow.reporting.experiment import Chapter, Experiment
from workflow.reporting.paper_patients import Patients
from workflow.reporting.study_tables import Study
from workflow.reporting.wording import count, listing, number, percent, readable

# name of an experiment: the figures of its report that the paper has room for
FIGURES = {
    "mechanism": ("weights",),
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
# what the paper calls the arms of the experiment on weights
ARMS = {
    mechanisms.TUNED: "rules at tuned rates",
    mechanisms.FAMILIES: "families of losses",
    mechanisms.BIASED: "families with an output bias",
}
POWER = 0.8
"""With which the comparison room computes what a study finds."""
WRITTEN, ANSWER = "published_generalized_dice_written", "published_generalized_dice_answer"
WEIGHTS = {"square": "1 / V_c^2", "simple": "1 / V_c", "uniform": "1"}
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
    tried = trials(reference.folder, study)
    return patients | {
        "experiments": {
            name: {
                "shard": shard(its.experiment),
                "said": sentences(name, its),
                "made_by": [
                    re.sub(r"\b([0-9a-f]{10})[0-9a-f]{30}\b", r"\1", line)
                    for line in experiment.made_by(its.experiment)
                ],
            }
            for name, its in told.items()
        },
        "detectable": [row for name, its in told.items() if (row := detectable(name, its))],
        "power": percent(POWER),
        "documents": documents(told, study),
        "classes": told["mechanism"].experiment.classes if "mechanism" in told else [],
        "weights": weights(told["mechanism"].experiment, study) if "mechanism" in told else [],
        "centred": centred(told["imbalance"].experiment) if "imbalance" in told else "",
        "clipping": clipping(told["normalisation"].experiment, study)
        if "normalisation" in told
        else "",
        "same_rate": same_rate(told["published"].experiment) if "published" in told else "",
        "claims": claims(told),
        "defects": parts(defects),
        "library": library(reference.folder),
        "tuning": paper_protocol.tuning(study, tried),
        "noisy": paper_protocol.noisy(study, tried),
        "edges": edges(reference.folder, study),
        "elsewhere": paper_protocol.elsewhere(study, reference.folder),
    }


# Experiments


def shard(its: Experiment) -> str:
    """Which of the planned runs these tables hold."""
    outcomes, runs = its.answers["outcomes"], its.raw["runs"]
    planned, missing = int(outcomes["runs"].sum()), int(outcomes["missing"].sum())
    if not missing:
        return f"All {planned} planned runs are in these tables."
    ran = sorted(runs["seed"].unique())
    seeds = f"{'seed' if len(ran) == 1 else 'seeds'} {listing(map(str, ran))}"
    arms = [arm for arm in its.arms if arm and (runs["arm"] == arm).any()]
    where = ""
    if len(arms) < len([arm for arm in its.arms if arm]):
        names = listing(ARMS.get(arm, arm) for arm in arms)
        where = f" of the {'arm' if len(arms) == 1 else 'arms'} {names}"
    return f"Part of the planned runs: {planned - missing} of {planned}, {seeds}{where}."


def sentences(name: str, its: Told) -> list[str]:
    """What the paper tells of an experiment, with names where the tables have labels."""
    found = its.chapter.said(its.experiment)[: SENTENCES.get(name)]
    arms = clips(its.experiment) if name == "normalisation" else {}
    for arm, clipped in arms.items():
        told = f"{'With' if clipped else 'Without'} clipping:"
        found = [sentence.replace(f"Arm {arm}:", told) for sentence in found]
    return paragraphs(found)


def paragraphs(sentences: Iterable[str]) -> list[str]:
    """The sentences in their order, a short one in a paragraph with the one before it."""
    found: list[str] = []
    for sentence in sentences:
        if found and len(sentence) < SHORT:
            found[-1] += f" {sentence}"
        else:
            found.append(sentence)
    return found


def rules_told(its: Experiment) -> str:
    """What became of the rules for the weights of Generalized Dice; "" where none has run."""
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
        f"{told}; with cross-entropy, an output bias or both, "
        f"{helps or 'none'} of {count(len(helped), 'combination')} "
        f"{'does' if helps < 2 else 'do'}."
    )


def clips(its: Experiment) -> dict[str, bool]:
    """The arms of the experiment on intensities, and whether they clip."""
    arms: Mapping[str, dict] = its.config.get("arms") or {}
    return {arm: paper_protocol.clips(its.config | keys) for arm, keys in arms.items()}


def clipping(its: Experiment, study: Study) -> str:
    """What the study does with extreme intensities, and what the other arm does instead."""
    own = (
        "The study clips the extreme intensities of each image before they are standardised, which "
        "is common; the other arm only standardises them."
        if paper_protocol.clips(study.config)
        else "The study only standardises the intensities of each image; in the other arm the "
        "extreme ones are clipped first, which is common."
    )
    runs = its.raw["runs"]
    rates = runs.groupby("loss")["learning_rate"].unique()
    ours = paper_text.rates_of(study)
    if all(len(found) == 1 and ours.get(str(loss)) == found[0] for loss, found in rates.items()):
        own += (
            " Rates are those of the study in both arms, so that the arm that is prepared "
            "otherwise has none of its own."
        )
    return own


def without_clipping(its: Experiment) -> str:
    """Of the losses that lose a class where intensities are clipped, how many do not without.

    "" unless an arm of each kind has run.
    """
    kinds = {clipped: arm for arm, clipped in clips(its).items()}
    lost = {
        arm: dict(zip(rows["loss"], rows["collapsed"] > 0, strict=True))
        for arm, rows in its.summary.groupby("arm")
    }
    if set(kinds) != {True, False} or set(lost) != set(kinds.values()):
        return ""
    unclipped = lost[kinds[False]]
    clipped = [loss for loss, gone in lost[kinds[True]].items() if gone and loss in unclipped]
    saved = sum(not unclipped[loss] for loss in clipped)
    return (
        f"Of {count(len(clipped), 'loss', 'losses')} that lost a class in some run where "
        f"intensities were clipped, {saved or 'none'} lost none without clipping."
    )


def claims(told: Mapping[str, Told]) -> dict[str, bool]:
    """What the prose takes for granted of experiments; the paper refuses to compile without."""
    found: dict[str, bool] = {}
    if "mechanism" in told:
        found |= _claims_of_weights(told["mechanism"].experiment)
    if "published" in told:
        pairs = published.twins(told["published"].experiment)
        broken = (pairs[["published_diverged", "published_failed"]] > 0).any(axis=1)
        found["most defects raise no error"] = bool(broken.mean() < 0.5)
    return found


def _claims_of_weights(its: Experiment) -> dict[str, bool]:
    verdict = mechanisms.answer(its, "verdict").query("arm == @mechanisms.TUNED")
    rules = mechanisms.rules_at(its, mechanisms.TUNED)
    updates = mechanisms.answer(its, "updates")
    updates = updates[
        (updates["arm"] == mechanisms.TUNED) & (updates["phase"] == "first")
        & (updates["class"] == mechanisms.EVERY)
    ].set_index("loss")["effective"]  # fmt: skip
    undisturbed = rules[rules["loss"].map(updates).ge(0.99)]
    written = updates.get(WRITTEN)
    identity = mechanisms.answer(its, "identity")
    graph = identity[
        (identity["loss"] == "published_generalized_dice_graph") & (identity["shown"] == "exact")
    ]
    shares = mechanisms.answer(its, "gradients").query("batch == 'incomplete'")
    shares = shares[shares["arm"] == mechanisms.TUNED]
    absent = shares[~shares["present"]].groupby("loss")["weight"].median()
    background = shares[~shares["class"].isin(its.classes)].groupby("loss")["weight"].median()
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
        "an absent class outweighs all others": bool(absent.get(WRITTEN, 0) > 0.99),
        "the fixed weight is large against the background's": bool(
            absent.get(ANSWER, 0) > 10 * background.get(ANSWER, math.inf)
        ),
    }


def differences(its: Experiment) -> list[dict[str, str]]:
    """The published losses of the experiment with what is wrong and what correcting gains."""
    mean, rare = (published.defects(its, name) for name in ("mean_dice", "rarest_dice"))
    wrong = its.answers["mechanisms"].set_index("published")["mechanism"]
    pairs = published.twins(its)
    return [
        {
            "published": readable(label),
            "corrected": readable(row["corrected"]),
            "reason": paper_text.summarised(str(wrong[label]), its.config["losses"]),
            "rates": paper_text.both_rates(
                *(pairs.loc[label, f"{side}_learning_rate"] for side in published.SIDES)
            ),
            "verdict": paper_text.after_holm(str(row["verdict"]), row),
            "mean_dice": paper_text.gap(row),
            "rarest_dice": paper_text.gap(rare.loc[label]),
        }
        for label, row in mean.iterrows()
    ]


def same_rate(its: Experiment) -> str:
    """How many of the forms that score lower were trained at the rate of their correction."""
    table = published.defects(its, "mean_dice")
    lower = list(table.index[table["verdict"].isin(("breaks down", "costs"))])
    if not lower:
        return ""
    pairs = published.twins(its).loc[lower]
    same = pairs.index[pairs["published_learning_rate"] == pairs["corrected_learning_rate"]]
    names = f" ({listing(map(readable, same))})" if len(same) else ""
    does = "has" if len(same) == 1 else "have"
    return (
        f"Of the {len(lower)} that score lower or break down, {len(same) or 'none'} {does} the "
        f"learning rate of the correction{names}; of the others rate and form changed together."
    )


def documents(told: Mapping[str, Told], study: Study) -> list[dict[str, str]]:
    """The documents that published the forms, by number, with the forms of each."""
    sources = (
        told["published"].experiment.answers["mechanisms"].set_index("published")["source"]
        if "published" in told
        else pd.Series({
            card["label"]: str(card["seed"]) for card in study.cards if card.get("seed")
        }, dtype=str)
    )  # fmt: skip
    forms: dict[str, list[str]] = {}
    for label, source in sources.items():
        for document in re.findall(r"\b\d{3}\b", source):
            forms.setdefault(document, []).append(readable(str(label)).removesuffix(" (published)"))
    return [{"number": key, "forms": listing(names)} for key, names in sorted(forms.items())]


def weights(its: Experiment, study: Study) -> list[dict[str, str]]:
    """The rules for the weights of Generalized Dice, as options and cards have them."""
    cards_of = {str(card["label"]): card for card in study.cards}
    own = cards_of.get("generalized_dice", {}).get("defaults") or {}
    rows = []
    for row in mechanisms.rules_at(its, mechanisms.TUNED).to_dict("records"):
        options = its.config["losses"][row["loss"]]
        if options["name"] == "generalized_dice" and own:
            told = _rule(own | options)
        elif card := cards_of.get(row["loss"]):
            told = {
                "source": str(card["formula"]).split("\\quad")[-1].rstrip(". ").split("=", 1)[-1],
                "absent": str(card["absent_class"]),
                "over": "batch" if "batch" in str(card["reduction"]) else "image",
            }
        else:
            continue
        seen = " / ".join(str(row[f"learnt_{name}"]) for name in its.classes)
        learnt = f"{seen}, all {row['learnt_every']} of {row['seeds']}"
        rows.append({"name": readable(row["loss"]), "learnt": learnt} | told)
    return rows


def _rule(options: Mapping[str, Any]) -> dict[str, str]:
    """A rule of the library's Generalized Dice from its options."""
    given = options["volumes"] is not None
    absent = {
        "max": "the largest weight of a present class",
        "zero": "no weight",
        "eps": f"the weight {options['eps']:g}",
        "relative": f"{options['eps']:g} times the largest weight of a present class",
        "floor": f"every volume counts as at least {options['floor']:g} voxels",
        "cap": f"any weight is at most {options['cap']:g} times the smallest of a present class",
        "skip": "the image is left out",
    }[options["absent"]]
    over = "batch" if options["batch"] else "image"
    return {
        "source": WEIGHTS[options["weighting"]],
        "absent": "as if present: volumes are those of the training set" if given else absent,
        "over": over if options["include_background"] else f"{over}, without background",
    }


def centred(its: Experiment) -> str:
    """The shares of patches that the arms centre on foreground."""
    shares = sorted(its.raw["arms"]["training.foreground_share"].unique())
    return " or ".join([", ".join(percent(x) for x in shares[:-1]), percent(shares[-1])])


# What an experiment can find


def detectable(name: str, its: Told) -> list[str]:
    """A row of the table of differences that an experiment finds; nothing where it compares none.

    Median, least and most over its comparisons with the reference loss. Two losses that differ
    equally in every case and run have no spread to find a difference in.
    """
    table = its.experiment.comparisons
    table = table[(table["contrast"] == "reference") & (table["loss"] != "all_background")]
    cells = [
        _sizes(table.loc[table["endpoint"] == endpoint, "minimum_detectable_difference"].dropna())
        for endpoint in ("mean_dice", "rarest_dice")
    ]
    if not any(cells):
        return []
    seeds = its.experiment.raw["runs"]["seed"].nunique()
    return [name, against(its.experiment), str(seeds), *(cell or "–" for cell in cells)]


def _sizes(sizes: pd.Series) -> str:
    varying = sizes[sizes > experiment.ROUNDING]
    if varying.empty:
        return ""
    median, least, most = (_size(x) for x in (varying.median(), varying.min(), varying.max()))
    return f"{median} ({least} to {most})"


def _size(difference: float) -> str:
    return "> 1" if difference > 1 else "< 0.01" if difference < 0.005 else number(difference)


def against(its: Experiment) -> str:
    """The loss that the others of an experiment are compared with, by name or by its options."""
    label = str(its.config["comparison"]["reference_loss"])
    options = its.config["losses"].get(label) or {}
    if options.get("name", label) == label:
        return readable(label)
    chosen = [
        "batch" if options.get("batch") else "image",
        f"smoothing {options['smooth_nr']:g}" if "smooth_nr" in options else "",
        f"background {'in' if options.get('include_background', True) else 'out'}",
    ]
    return f"{readable(options['name'])} ({', '.join(filter(None, chosen))})"


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


def trials(folder: Path | None, study: Study) -> pd.DataFrame:
    """The trials behind the rates of a study: its own, or those of the reference."""
    if len(study.trials) or not folder:
        return study.trials
    return files.read_table(folder / "tuning" / "trials.csv")


def edges(folder: Path | None, study: Study) -> str:
    """The caveat of rates that were tuned by the reference."""
    tried = pd.DataFrame() if len(study.trials) else trials(folder, study)
    if tried.empty:
        return ""
    chosen = tried[tried["chosen"].astype(bool) & tried["loss"].isin(study.losses)]
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
            "absent": paper_text.named(f"{said[:1].upper()}{said[1:]}"),
            "published": bool(card.get("seed")),
            "document": str(card.get("seed") or ""),
            "options": _options(card),
            "keys": list(dict.fromkeys(keys[x.lower()] for x in places if x.lower() in keys)),
        })  # fmt: skip
    return rows


def _options(card: dict) -> str:
    """The options in which a loss of the study differs from its defaults."""
    options, defaults = card.get("options") or {}, card.get("defaults") or {}
    changed = [f"{key}: {value}" for key, value in options.items() if value != defaults.get(key)]
    return ", ".join(changed).replace("_", " ")


def sources(bibliography: str) -> dict[str, str]:
    """Key of the bibliography for every DOI and arXiv number in it."""
    found = {}
    for key, body in re.findall(r"@\w+\{(\w+),(.*?)\n\}", bibliography, re.DOTALL):
        for place in re.findall(r"doi = \{([^}]+)\}|arXiv:([\d.]+\d)", body):
            found["".join(place).lower()] = key
    return found
