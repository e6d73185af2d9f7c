"""What the tables say, in words: pure functions from tables to sentences.

Every sentence holds for whatever the tables contain; a claim that they do not support has its
own wording ("cannot be separated", "cannot be judged"), and collapse is told before success.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from workflow.reporting.study_tables import FLOOR, Study
from workflow.reporting.wording import (
    count,
    estimate,
    learning_rates,
    listing,
    number,
    percent,
    readable,
    shortened,
)

GENERALIZED = "generalized_dice"
QUESTION = "Which segmentation loss survives class imbalance?"


# Judgements


def separable(contrast: pd.Series | None, confidence: float = 0.95) -> bool | None:
    """Whether a paired difference is told from zero; None if it cannot be judged.

    The Holm-corrected p decides where there is one, because many losses are compared at once.
    """
    if contrast is None:
        return None
    if math.isfinite(contrast["p_holm"]):
        return bool(contrast["p_holm"] < 1 - confidence)
    if math.isfinite(contrast["low"]) and math.isfinite(contrast["high"]):
        return bool(contrast["low"] > 0 or contrast["high"] < 0)
    return None


def trained(study: Study) -> pd.DataFrame:
    """The ranking without the floor."""
    return study.ranked[study.ranked["loss"] != FLOOR] if len(study.ranked) else study.ranked


def scope(study: Study) -> str:
    """What the intervals speak of: with one seed nothing is known of another."""
    return "seeds and cases" if study.seeds > 1 else "cases, for this one seed"


def status_line(study: Study) -> str:
    """How many runs there are, and what became of those that did not end well."""
    runs = study.runs
    if runs.empty:
        return "No run has been recorded."
    bad = {kind: int((runs["status"] == kind).sum()) for kind in ("diverged", "failed")}
    done = f"{int((runs['status'] == 'ok').sum())} of {count(len(runs), 'run')} finished"
    told = [f"{amount} {kind}" for kind, amount in bad.items() if amount]
    return f"{done}{'; ' + listing(told) if told else ''}."


def verdict(study: Study) -> list[str]:
    """Two sentences: what collapsed and what is in the best tier; what correcting gains."""
    return [_survival(study), _correction(study)]


def _survival(study: Study) -> str:
    table = trained(study)
    where = f"On {study.dataset_name}" if study.dataset_name else "Here"
    if table.empty or table["mean_dice"].notna().sum() == 0:
        return f"{where}, no loss has a held-out score, so there is nothing to rank."
    if len(table) == 1:
        return _only_loss(where, table.iloc[0])
    return f"{where}, {_collapse_clause(table)}; {_best_clause(study, table)}."


def _only_loss(where: str, row: pd.Series) -> str:
    score = estimate(row["mean_dice"], row["mean_dice_low"], row["mean_dice_high"])
    runs = count(int(row["ok"] + row["diverged"]), "run")
    fate = f"collapsed in {int(row['collapsed'])} of {runs}"
    if row["collapsed"] == 0:
        fate = f"did not collapse in {runs}"
    failed = f" ({count(int(row['failed']), 'run')} failed)" if row["failed"] > 0 else ""
    return (
        f"{where}, {readable(row['loss'])}, the only loss of the study, {fate}{failed} and has a "
        f"mean Dice of {score}; there is nothing to rank it against."
    )


def _collapse_clause(table: pd.DataFrame) -> str:
    """Collapse by its grade: losing every class and losing one are not the same word."""
    diverged = table[table["diverged"] > 0]
    whole = table[table["diverged"] == 0]
    wholly = whole[whole["total"] > 0]
    partly = whole[(whole["collapsed"] > 0) & (whole["total"] == 0)]
    told = [
        f"{len(rows)} {verb} ({_fates(rows, grade)})"
        for rows, verb, grade in (
            (diverged, "diverged", "diverged"),
            (wholly, "lost every class", "total"),
            (partly, "lost some class", "collapsed"),
        )
        if len(rows)
    ]
    losses, broken = count(len(table), "loss", "losses"), int(table["failed"].sum())
    clause = f"of {losses}, {listing(told)}" if told else f"none of the {losses} collapsed"
    return f"{clause}, and {count(broken, 'run')} failed" if broken else clause


def _fates(table: pd.DataFrame, grade: str) -> str:
    """Which losses, and in how many of their finished runs."""
    always = table[grade] == table["ok"] + table["diverged"]
    told = []
    if always.any():
        names = shortened([readable(label) for label in table.loc[always, "loss"]], 8)
        told.append(f"{names} in every run")
    told += [
        f"{readable(row['loss'])} in {int(row[grade])} of "
        f"{count(int(row['ok'] + row['diverged']), 'run')}"
        for _, row in table[~always].iterrows()
    ]
    return ", ".join(told)


def _best_clause(study: Study, table: pd.DataFrame) -> str:
    best = table[(table["tier"] == "best") & table["mean_dice"].notna()]
    if best.empty:
        return "no loss reached the best tier"
    first, others = best.iloc[0], [readable(label) for label in best["loss"].iloc[1:]]
    score = estimate(first["mean_dice"], first["mean_dice_low"], first["mean_dice_high"])
    if not others:
        return (
            f"{readable(first['loss'])} stands alone in the best tier with a mean Dice of {score}"
        )
    lowest = number(best["mean_dice"].min())
    lead = f"the highest mean Dice of those that hold, {score} with {readable(first['loss'])}"
    if len(best) == len(table):
        return f"no loss can be separated from {lead} (the lowest is {lowest})"
    return (
        f"{count(len(others), 'other')} cannot be separated from {lead}: "
        f"{shortened(others)} (down to {lowest})"
    )


def _correction(study: Study) -> str:
    pairs = study.pairs()
    if not pairs:
        return "No published loss was trained beside its correction, so nothing is said of defects."
    wanted = [pair for pair in pairs if _is_generalized(study, pair)]
    if not wanted:
        return _all_corrections(study, pairs)
    fixes = dict.fromkeys(corrected for _, corrected in wanted)
    clauses = [_gains(study, [old for old, own in wanted if own == fix], fix) for fix in fixes]
    sentence = f"In mean Dice, {'; '.join(clauses)}"
    for corrected in fixes:
        row = study.row(corrected)
        if row is not None and row["collapsed"] > 0:
            sentence += (
                f"; but {readable(corrected)}, the correction, collapsed itself in "
                f"{int(row['collapsed'])} of {count(int(row['ok'] + row['diverged']), 'run')}"
            )
    return f"{sentence}."


def _is_generalized(study: Study, pair: tuple[str, str]) -> bool:
    row = study.row(pair[0])
    return GENERALIZED in pair[0] or (row is not None and GENERALIZED in str(row["name"]))


def _gains(study: Study, published: Sequence[str], corrected: str) -> str:
    """What one correction gains over each of its published losses, by how sure it is."""
    told: dict[str, list[str]] = {}
    for label in published:
        found = study.contrast("correction", corrected, label, "mean_dice")
        if found is None or not math.isfinite(found["difference"]):
            told.setdefault("cannot be compared with", []).append(readable(label))
            continue
        gap = estimate(found["difference"], found["low"], found["high"], sign=True)
        decided = separable(found, study.confidence)
        if decided is None:
            verb = "differs, with too few runs to judge, from"
        elif not decided:
            # the interval is of this contrast alone
            alone = found["low"] > 0 or found["high"] < 0
            after = " after Holm's correction" if alone else ""
            verb = f"is not separable{after} from"
        else:
            verb = "gains over" if found["difference"] > 0 else "loses to"
        told.setdefault(verb, []).append(f"{readable(label)} ({gap})")
    clauses = [f"{verb} {listing(names)}" for verb, names in told.items()]
    return f"the corrected {readable(corrected)} {', and '.join(clauses)}"


def _all_corrections(study: Study, pairs: Sequence[tuple[str, str]]) -> str:
    gains = losses = open_ = 0
    for published, corrected in pairs:
        found = study.contrast("correction", corrected, published, "mean_dice")
        if found is not None and separable(found, study.confidence):
            gains += int(found["difference"] > 0)
            losses += int(found["difference"] < 0)
        else:
            open_ += 1
    return (
        f"Of {count(len(pairs), 'published loss', 'published losses')} trained beside the "
        f"correction, {gains} gained mean Dice by it, {losses} lost, and {open_} could not be "
        f"separated (no Generalized Dice is among them)."
    )


# Titles and captions of the figures


def curves_title(study: Study) -> str:
    rows = study.curves
    if rows.empty or study.runs.empty:
        return "Validation Dice while training"
    lost = study.runs[study.runs["collapsed"]]
    told = f"{_of_runs(len(lost), len(study.runs))} lost a class or diverged"
    return f"{told}, judged on the held-out cases" if len(lost) else told


def _of_runs(amount: int, runs: int) -> str:
    return f"{amount or 'None'} of {count(runs, 'run')}"


def heldout_title(study: Study) -> str:
    table = trained(study)
    scores = table["rarest_dice"].dropna() if len(table) else table
    if len(scores) == 0:
        return "Held-out Dice of each class and case"
    missed = int((scores < 0.05).sum())
    return (
        f"{missed} of {count(len(scores), 'loss', 'losses')} leave the rarest class "
        f"({study.rarest}) below a Dice of 0.05; the best reaches {number(scores.max())}"
    )


def ranking_title(study: Study) -> str:
    table = trained(study)
    if table.empty or table["mean_dice"].notna().sum() == 0:
        return "No loss has a held-out score"
    best, top = table[table["tier"] == "best"], table.iloc[0]
    if best.empty:
        return (
            f"No loss reaches the best tier; {readable(top['loss'])} has the highest mean Dice "
            f"({number(top['mean_dice'])}) and collapsed"
        )
    top = best.iloc[0]
    if len(best) == 1:
        return f"{readable(top['loss'])} leads with a mean Dice of {number(top['mean_dice'])}"
    return (
        f"{readable(top['loss'])} has the highest mean Dice of the losses that hold "
        f"({number(top['mean_dice'])}); {len(best) - 1} of the {len(study.standing) - 1} others "
        f"that hold {'is' if len(best) == 2 else 'are'} not separable from it"
    )


def collapse_title(study: Study) -> str:
    runs = study.runs
    if runs.empty:
        return "No run has been recorded"
    worst = runs[runs["collapsed"]]
    told = f"{_of_runs(len(worst), len(runs))} collapsed"
    if worst.empty:
        return told
    always = [label for label in study.losses if runs.loc[runs["loss"] == label, "collapsed"].all()]
    if not always:
        return f"{told}; no loss did so on every seed"
    return f"{told}; {count(len(always), 'loss', 'losses')} did so on every seed"


def correction_title(study: Study) -> str:
    pairs = study.pairs()
    if not pairs:
        return "No published loss was trained beside its correction"
    found = [study.contrast("correction", fix, old, "mean_dice") for old, fix in pairs]
    decided = [x for x in found if x is not None and separable(x, study.confidence)]
    gains = sum(item["difference"] > 0 for item in decided)
    lost = len(decided) - gains
    told = f"Correcting gains mean Dice in {gains or 'none'} of {count(len(pairs), 'pair')}"
    told += f", loses it in {lost}" if lost else ""
    rest = len(pairs) - len(decided)
    return f"{told}; {rest} cannot be separated from zero" if rest else told


def cost_title(study: Study) -> str:
    table = study.cost[study.cost["loss"] != FLOOR] if len(study.cost) else study.cost
    if table.empty or table["seconds_per_step"].notna().sum() == 0:
        return "No cost has been measured"
    order = table.dropna(subset=["seconds_per_step"]).sort_values("seconds_per_step")
    low, high = order.iloc[0], order.iloc[-1]
    if len(order) == 1:
        return f"A step with {readable(low['loss'])} takes {milliseconds(low)}"
    return (
        f"A training step takes from {milliseconds(low)} ({readable(low['loss'])}) to "
        f"{milliseconds(high)} ({readable(high['loss'])})"
    )


def milliseconds(row: pd.Series) -> str:
    return f"{number(1000 * row['seconds_per_step'], 0)} ms"


def cases_title(study: Study, kind: str) -> str:
    rows = study.slices[study.slices["kind"] == kind] if len(study.slices) else study.slices
    case = str(rows["case"].iloc[0]) if len(rows) else ""
    scores = rows["dice"].dropna() if len(rows) else pd.Series(dtype=float)
    told = f"The {kind} held-out case ({case})" if case else f"The {kind} held-out case"
    if len(scores) == 0:
        return told
    lowest, highest = number(scores.min()), number(scores.max())
    spread = lowest if lowest == highest else f"from {lowest} to {highest}"
    return f"{told}: mean Dice {spread}"


def dataset_title(study: Study) -> str:
    sizes = study.class_sizes()
    if sizes.empty or not study.rarest:
        return f"The data set {study.dataset_name}".strip()
    row = sizes[sizes["class"] == study.rarest].iloc[0]
    return (
        f"{study.dataset_name}: the rarest class, {study.rarest}, fills "
        f"{percent(row['voxel_fraction'], 2)} of the voxels and is in "
        f"{percent(row['prevalence'])} of {count(int(row['cases']), 'case')}"
    )


CAPTIONS = {
    "ranking": (
        "Held-out Dice of every loss: left the mean over foreground classes, right the rarest "
        "class. A line is the {confidence} interval over {scope}, drawn within 0 and 1; "
        "colour and marker are the tier; the dashed line is the floor, a model that predicts "
        "nothing."
    ),
    "published_corrected": (
        "Every published loss and its correction, trained on the same patches from the same "
        "initial weights. Left: mean Dice of both; right: corrected minus published with its "
        "{confidence} interval over {scope}, for the mean and for the rarest class. Filled where "
        "the Holm-corrected difference is separable from zero."
    ),
    "collapse": (
        "Left: what became of each run. Right: of the cases without the class, the share in which "
        "the model draws a false structure, at least as large as the class is anywhere in the "
        "training cases. A loss that predicts nothing draws none, so read both halves together."
    ),
    "equivalence": (
        "Two one-sided tests on the mean Dice of each pair of losses that hold. Below the diagonal "
        "the verdict at the margin of the study; above it the smallest margin at which the pair "
        "could be shown equivalent with a power of 80 % (black: within the margin of the study). "
        "Where that is above the margin, nothing is claimed."
    ),
    "rank_stability": (
        "Left: ranks of the losses when seeds and cases are drawn again with replacement; it "
        "describes the ranking and is no confidence interval. At the right edge the share of "
        "resamples in which a loss comes first, below Nemenyi's critical difference for the mean "
        "ranks within cases. Right: Kendall's tau between the reported ranking and that by another "
        "metric, aggregation or rule for absent classes."
    ),
    "absent": (
        "What the model says of a class in held-out cases, all runs together. Left: mean volume "
        "predicted in cases without the class (logarithmic above 1 mm³). Right: probability that "
        "a case with the class looks more like it than one without, in the mean of the runs; it "
        "asks for the most probable voxel, also where the class wins none."
    ),
    "reliability": (
        "How often a probability came true, in the foreground box of the held-out cases (the box "
        "of the foreground, doubled along each axis), for losses that hold. Bins are put together "
        "over the runs by their voxels; a larger dot has more of them. Below the dashed line: "
        "overconfident. ECE is the mean over cases of the top label's."
    ),
    "learning_rates": (
        "Mean Dice on the validation cases against the peak learning rate, on a seed that no run "
        "of the study uses; the same number of trials for every loss, and one more where the best "
        "was at an end of the grid. A trial that broke down counts as 0."
    ),
    "validation_curves": (
        "Dice on the validation cases while training; a thin line is a seed, a thick one the "
        "median of the seeds that still run, a cross (at the last step) a class that the run lost "
        "on the held-out cases. "
        "The grey line is the median of {reference}. Dashed: as published. Rows in which a loss "
        "collapsed come first."
    ),
    "heldout_dice": (
        "Held-out Dice of each class, losses sorted by their mean Dice. A dot is a case in which "
        "the class is present, averaged over seeds; the box spans the quartiles, its line is the "
        "median, the diamond the mean."
    ),
    "cases_median": (
        "The held-out case of median score, the same slice for every loss, one seed. Right voxels "
        "have the colour of their class, errors a colour of their own. A loss without a finished "
        "run has no picture."
    ),
    "cases_worst": ("The held-out case of lowest score, drawn in the same way: a mean hides it."),
    "dataset": (
        "Slices of a few subjects with the reference labels. Voxel fraction and prevalence are "
        "those of the whole data set."
    ),
    "cost": (
        "Left: median time of a training step, its dark part spent in the loss. Right: peak memory."
    ),
}


def caption(study: Study, name: str) -> str:
    """What a figure shows and how to read it."""
    return CAPTIONS[name].format(
        confidence=percent(study.confidence),
        reference=readable(study.reference_loss) or "no loss",
        scope=scope(study),
    )


def rules(study: Study) -> dict[str, str]:
    """How to read the report: each rule under its name."""
    level = percent(study.confidence)
    return {
        "Class present": (
            "Dice, surface Dice (NSD), HD95, sensitivity and precision are averaged over the cases "
            "whose reference holds the class. A class that was missed scores 0 (HD95: the "
            "image's diagonal)."
        ),
        "Class absent": (
            "A case without the class has no Dice. Whether the model predicts the class all the "
            "same is an endpoint of its own and never part of a mean Dice."
        ),
        "Collapse": (
            "A run has collapsed if a class that is present scores a Dice below 0.05 in more than "
            "half of its cases, or if its loss became non-finite. Partial: some classes; total: "
            "every foreground class. The rate is of finished runs and has a Wilson interval; where "
            "losses are counted, a run that failed has lost every class."
        ),
        "Intervals": (
            f"{level} intervals come from a random-effects model in which seeds and cases are "
            "crossed, with degrees of freedom between those of the two, at most Satterthwaite's: "
            "they speak of new seeds and new cases. Seeds times cases are never counted as "
            "independent. An interval ends where a Dice or a difference of two cannot go on."
            if study.seeds > 1
            else f"{level} intervals are over cases only: with one seed nothing is known of how "
            "another start would end, and what is separable here may not be with another seed."
        ),
        "Separable": (
            "A difference is called separable if its p, Holm-corrected over the contrasts of its "
            "kind and endpoint, is below the level. Not separable is not the same as equal: with "
            f"{count(study.seeds, 'seed')} even large differences can stay open."
        ),
        "Tier": (
            "Best: not separable from the highest mean Dice of the losses that hold, by a p that "
            "is Holm-corrected over all their pairs; below: separable from it. These two hold; a "
            "loss that collapsed in more than half of its runs does not. To share a tier is not to "
            "be equal."
        ),
        "Equivalent": (
            "Two one-sided tests place the difference within the margin. Nothing is claimed where "
            "the margin is smaller than what the study could show with a power of 80 % if the two "
            "losses were equal."
        ),
        "Checkpoint": (
            f"Scores are those of the {study.checkpoint} checkpoint. The best one is chosen on the "
            "validation cases; the held-out cases are read once, at the end."
        ),
        "Floor": (
            "All background is no training at all: the score of predicting nothing. A loss "
            "beside it has learnt nothing that the score can see."
        ),
    }


def ranking_notes(study: Study) -> str:
    """How much data stand behind the ranking."""
    cases = study.chosen(study.cases)
    seeds = study.runs["seed"].nunique() if len(study.runs) else 0
    held, subjects = (cases[key].nunique() if len(cases) else 0 for key in ("case", "subject"))
    told = count(held, "held-out case")
    if subjects < held:
        told += f" of {count(subjects, 'subject')}"
    return f"{count(int(seeds), 'seed')} and {told} behind each row, unless runs are missing."


def asked(study: Study) -> str:
    """How the question was put, from the configuration and the tables."""
    training = study.config.get("training") or {}
    losses = count(len(study.losses), "loss", "losses")
    seeds = int(study.runs["seed"].nunique()) if len(study.runs) else 0
    told = f"{losses} trained the same network on {study.dataset_name or 'one data set'}, "
    told += f"{count(seeds, 'seed')} each"
    if "steps" in training:
        rates = learning_rates(study.runs, tuned=len(study.trials) > 0)
        told += f", for {training['steps']} steps{f', each {rates}' if rates else ''}"
    return (
        f"{told}. With the same seed every loss starts from the same weights and sees the same "
        "patches in the same order."
    )
