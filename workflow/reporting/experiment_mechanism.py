"""Why Generalized Dice collapses, in sentences that follow from the tables."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from workflow.reporting import figures_mechanism as figures
from workflow.reporting.experiment import Chapter, Experiment
from workflow.reporting.mechanism import (
    EVERY,
    TUNED,
    answer,
    distinct,
    ending,
    fixed_rates,
    named,
    of_seeds,
    part,
    predictions,
    rare,
    rarest,
    rescued,
    rules_at,
    support,
)
from workflow.reporting.wording import (
    MINUS,
    count,
    estimate,
    listing,
    number,
    percent,
    readable,
    shortened,
)


def said(experiment: Experiment) -> list[str]:
    """The findings; a sentence whose tables are missing in a shard is left out."""
    parts = (
        _verdict, _helped, _by_class, _by_rate, _absent, _discarded, _identity, _saturation,
        _first, _push, _way_back, _rescue, _slopes,
    )  # fmt: skip
    return [text for part in parts if (text := part(experiment))]


def _verdict(experiment: Experiment) -> str:
    rules = rules_at(experiment, TUNED)
    if rules.empty:
        return "No Generalized Dice ran at a tuned learning rate."
    works = rules[rules["works"]]
    total = count(len(rules), "rule") + " of Generalized Dice"
    if len(works):
        verb = "learns" if len(works) == 1 else "learn"
        text = (
            f"Of {total}, each at its tuned learning rate, {len(works)} {verb} every foreground "
            f"class in most seeds: {listing(map(of_seeds, works.itertuples()))}."
        )
    else:
        best = rules.loc[rules["learnt_every"].idxmax()]
        nearest = f"the nearest is {of_seeds(best)}" if best["learnt_every"] else "none does in any"
        text = (
            f"Of {total}, each at its tuned learning rate, none learns every foreground class in "
            f"most seeds; {nearest}."
        )
    control = answer(experiment, "verdict").query("arm == @TUNED and loss == 'dice'")
    if len(control):
        row = control.iloc[0]
        text += (
            f" Plain Dice, the control with a ratio for each class, learns every class in "
            f"{row['learnt_every']} of {count(row['seeds'], 'seed')}."
        )
    return text


def _helped(experiment: Experiment) -> str:
    """Generalized Dice with a CE term, an output bias, or both."""
    table = answer(experiment, "verdict")
    helped = table[table["generalized"] & (table["arm"] != TUNED)]
    if helped.empty:
        return ""
    works, fails = helped[helped["works"]], helped[~helped["works"]]
    if works.empty:
        return (
            "With a cross-entropy term, an output bias at the class frequencies or both, none of "
            f"{count(len(fails), 'combination')} with Generalized Dice learns every class in most "
            "seeds."
        )
    text = (
        "With a cross-entropy term, an output bias at the class frequencies or both, "
        f"{len(works)} of {count(len(helped), 'combination')} with Generalized Dice "
        f"{'learns' if len(works) == 1 else 'learn'} every class in most seeds: "
        f"{listing(map(of_seeds, works.itertuples()))}"
    )
    return text + (f"; not {listing(map(named, fails.itertuples()))}." if len(fails) else ".")


def _by_class(experiment: Experiment) -> str:
    rules = rules_at(experiment, TUNED)
    if rules.empty:
        return ""
    clauses = []
    for name in experiment.classes:
        if f"learnt_{name}" not in rules:
            continue
        most = rules[rules[f"learnt_{name}"] > 0.5 * rules["seeds"]]
        label = f"{name}, the rarest in training," if name == rarest(experiment) else name
        found = [
            f"{readable(row['loss'])} ({row[f'learnt_{name}']} of {row['seeds']})"
            for _, row in most.sort_values(f"learnt_{name}", ascending=False).iterrows()
        ]
        if len(most) == len(rules):
            clauses.append(f"{label} by all")
        else:
            clauses.append(f"{label} by {shortened(found) if found else 'none'}")
    return f"Learnt in most seeds, of the {len(rules)} rules: {'; '.join(clauses)}."


def _by_rate(experiment: Experiment) -> str:
    """At one rate for all rules."""
    rates = fixed_rates(experiment)
    rules = rules_at(experiment, TUNED)["loss"]
    table = answer(experiment, "rules")
    table = table[table["arm"].isin(rates) & table["loss"].isin(rules) & (table["share"] > 0.5)]
    if not rates:
        return ""
    told = []
    for name, words in ((EVERY, "every class"), (rarest(experiment), "the rarest class")):
        found = table[table["class"] == name].groupby("loss", sort=False)["arm"]
        names = [
            f"{readable(loss)} ({listing(a.removeprefix('rate=') for a in arms)})"
            for loss, arms in found
        ]
        told.append(f"{words} is learnt in most seeds by {shortened(names) if names else 'none'}")
    at = listing(arm.removeprefix("rate=") for arm in rates)
    return f"At one learning rate for all rules ({at}): {'; '.join(told)}."


def _first_signals(experiment: Experiment) -> pd.DataFrame:
    """Gradients of the rules in the first 200 steps, the first of all aside."""
    table = answer(experiment, "gradients")
    return table[(table["arm"] == TUNED) & (table["phase"] == "first")]


def _absent(experiment: Experiment) -> str:
    """The share of the weights that a class gets that is not there."""
    table = _first_signals(experiment)
    table = table[(table["batch"] == "incomplete") & table["weight"].notna()]
    absent = table[~table["present"]].groupby("loss", sort=False)["weight"].median()
    if absent.empty:
        return ""
    background = table[~table["class"].isin(experiment.classes)].groupby("loss")["weight"].median()
    absent = absent.sort_values(ascending=False, kind="stable")
    text = "A class that a batch lacks holds this share of the rule's weights (median): " + (
        shortened([f"{readable(loss)} {percent(w, 1)}" for loss, w in absent.items()]) + "."
    )
    answer = "published_generalized_dice_answer"
    if background.get(answer, 0) > 0:
        text += (
            " The fixed weight of the published answer, set on small images, gives it "
            f"{absent[answer] / background[answer]:,.0f} times the weight of the background."
        )
    return text


def _discarded(experiment: Experiment) -> str:
    """Updates that an absent class silences."""
    table = answer(experiment, "updates")
    table = table[(table["arm"] == TUNED) & (table["phase"] == "first")]
    whole = table[(table["class"] == EVERY) & table["effective"].notna()].set_index("loss")
    if whole.empty:
        return ""
    lost = whole[whole["effective"] < 0.99].sort_values("effective", kind="stable")
    first = whole.iloc[0]
    text = (
        f"In the first 200 steps {percent(first['holding'])} of the batches held every class and "
        f"{percent(first['complete'])} held it in every image. "
    )
    if lost.empty:
        return text + "Every update was effective with every loss."
    told = [
        f"{readable(loss)} ({percent(row['effective'])}; {part(row['incomplete'])} it)"
        for loss, row in lost.iterrows()
    ]
    rest = len(whole) - len(lost)
    return text + (
        f"Not every update was effective with {listing(told)}: in brackets the share that was, "
        "and how much of its usual gradient a loss had in batches that lack a class."
        + (f" The other {count(rest, 'loss', 'losses')} used every update." if rest else "")
    )


def _identity(experiment: Experiment) -> str:
    table = answer(experiment, "identity")
    exact = table[table["shown"] == "exact"]
    if exact.empty:
        return ""
    row = exact.iloc[0]
    same = row["largest_difference"] < 1e-9
    text = (
        f"{readable(row['loss'])} {'is' if same else 'is not'} 1 {MINUS} mean probability of "
        f"the true class: over {row['compared']} batches with the class volumes of this study the "
        f"largest difference is {row['largest_difference']:.0e}"
    )
    if len(exact) > 1:
        text += (
            f" (its corrected twin differs by {number(exact.iloc[1]['median_difference'])} in the "
            "median)"
        )
    seen = table[(table["shown"] == "training") & (table["loss"] == row["loss"])]
    if len(seen):
        span = seen.iloc[0]
        text += (
            f"; along training, where only a sample of the batches was recorded, they differ by "
            f"{number(span['median_difference'], 3)} in the median of {span['compared']} spans, "
            f"within two standard errors of that sample in {percent(span['within_sampling'])}"
        )
    return text + "."


def _saturation(experiment: Experiment) -> str:
    """The criterion of ``prediction``, and what else it says."""
    judgement = support(experiment)
    if not judgement:
        return ""
    text = (
        "Hypothesis: a class is lost because its probability saturates early, where the slope "
        f"p (1 {MINUS} p) is gone. By the criterion fixed beforehand it is {judgement}"
    )
    tables = {
        (predictor, compared): _auc(experiment, predictor, compared)
        for predictor in ("lowest_slope", "ratio")
        for compared in ("all runs", "same loss")
    }
    if told := tables["lowest_slope", "all runs"]:
        text += (
            ": probability that the lowest slope of the first 200 steps was lower in a run that "
            f"lost the class than in one that learnt it, {told}"
        )
    text += "."
    if told := tables["lowest_slope", "same loss"]:
        text += f" Among runs of the same loss and rate, where only the seed differs: {told}."
    if told := tables["ratio", "all runs"]:
        text += f" A rival predictor, the ratio of the gradient inside to outside: {told}"
        rival = tables["ratio", "same loss"]
        text += f"; with the same loss and rate {rival}." if rival else "."
    return text + " What comes first need not be the cause."


def _auc(experiment: Experiment, predictor: str, compared: str) -> str:
    """By class; where no interval can be given, of how few losses the figure is."""
    return listing(
        f"{row['class']} {estimate(row['auc'], row['low'], row['high'])}"
        if math.isfinite(row["low"])
        else f"{row['class']} {number(row['auc'])} ({count(int(row['groups']), 'loss', 'losses')})"
        for _, row in predictions(experiment, predictor, compared).iterrows()
    )


def _first(experiment: Experiment) -> str:
    """What came first: saturation, or the end of a class that had been found?"""
    table = distinct(experiment)
    table = table[table["class"].isin(rare(experiment)) & ~table["output_bias"]]
    lost, kept = (table[table["learnt"] == learnt] for learnt in (False, True))
    if lost.empty:
        return ""
    never = int(lost["last_found"].isna().sum())
    return (
        f"Rare classes saturated in the first 200 steps: {int(lost['saturated'].sum())} of "
        f"{len(lost)} that were lost in the end and {int(kept['saturated'].sum())} of {len(kept)} "
        f"that were learnt. Of those lost, {never} were never found at a validation and "
        f"{len(lost) - never} had been found at some."
    )


def _push(experiment: Experiment) -> str:
    """Is a rare class pushed down outside more than it is called in?"""
    table = distinct(experiment)
    table = table[table["class"].isin(rare(experiment)) & ~table["output_bias"]]
    told = []
    for words, rows in _families(experiment, table):
        ratio = (1 / rows["ratio"]).median()
        if pd.notna(ratio):
            told.append(f"{number(ratio, 1)} for {words}")
    if not told:
        return ""
    return (
        "Gradient on the logit of a rare class outside its voxels, over that inside, in the first "
        f"200 steps (median over runs): {listing(told)}. Above 1, suppressing its false positives "
        "outweighs calling it in."
    )


def _families(experiment: Experiment, table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Losses by what a class may fall back on: words, rows."""
    verdict = answer(experiment, "verdict")
    shared = set(verdict.loc[verdict["generalized"], "loss"])
    with_ce = {loss for loss in shared if loss.endswith("_ce")}
    for words, losses in (
        ("Generalized Dice (one ratio for all classes)", shared - with_ce),
        ("Generalized Dice with CE", with_ce),
        ("Dice and Tversky (a ratio for each)", {"dice", "tversky"}),
    ):
        rows = table[table["loss"].isin(losses)]
        if len(rows):
            yield words, rows


def _way_back(experiment: Experiment) -> str:
    """Do saturated classes come back?"""
    table = distinct(experiment)
    table = table[table["saturated"] & table["class"].isin(rare(experiment))]
    clauses = []
    for bias, words in ((False, "from the usual start"), (True, "with the output bias")):
        rows = table[table["output_bias"] == bias]
        told = [
            f"{int(found['learnt'].sum())} of {len(found)} for {family}"
            for family, found in _families(experiment, rows)
        ]
        if told:
            clauses.append(f"{words}, {listing(told)}")
    if not clauses:
        return "No rare class was saturated in the first 200 steps of any run."
    return (
        f"Rare classes that were saturated in the first 200 steps and were learnt all the same: "
        f"{'; '.join(clauses)}."
    )


def _rescue(experiment: Experiment) -> str:
    table = answer(experiment, "rescue")
    table = table[(table["class"] == EVERY) & table["family"].str.startswith("generalized")]
    if table.empty:
        return ""
    told = []
    for family, rows in table.groupby("family", sort=False):
        gains = [
            f"{row['treatment']} {estimate(row['difference'], row['low'], row['high'], sign=True)}"
            for _, row in rows.iterrows()
        ]
        told.append(f"{readable(family)}: {', '.join(gains)}")
    return f"Gain in mean Dice, paired by seed and case: {'; '.join(told)}."


def _slopes(experiment: Experiment) -> str:
    """Did what rescues a class also lift its slope?"""
    table = rescued(experiment)
    if answer(experiment, "rescue").empty:
        return ""
    if table.empty:
        return "No treatment of any family makes a rare class gain separably (Holm's correction)."
    risen = int((table["lowest_slope"] > table["lowest_slope_plain"]).sum())
    cases = [
        f"{row['class']} under {readable(row['family'])} ({row['treatment']}, "
        f"{ending(row['learnt_plain'], row['learnt'], row['runs'])})"
        for _, row in table.iterrows()
    ]
    return (
        f"Rare classes that gain separably after Holm's correction: {shortened(cases, 8)}. In "
        f"{risen} of these {len(table)} the lowest slope of the first 200 steps was above that of "
        "the plain loss."
    )


def _matrix_caption(experiment: Experiment) -> str:
    rates = ["its tuned rate"] if len(rules_at(experiment, TUNED)) else []
    rates += ["one rate for all"] if fixed_rates(experiment) else []
    return (
        "Each cell: the seeds that learnt a class, of those run (the class did not collapse, and "
        "the run did not diverge); darker is a larger share. Every rule at "
        f"{', then at '.join(rates)}. Dice is the control, with a ratio for each class."
    )


def _weights_caption(experiment: Experiment) -> str:
    return (
        "Share of the rule's weights (above) and L1 gradient of the class's logit over all voxels "
        "(below) against the voxels of the class in the batch; one mark a class and batch, large "
        "at step 0, small up to step 200. Orange: the batch lacks some class; marks in the grey "
        "strip are the class it lacks. Zeros lie on the lower edge."
    )


def _traces_caption(experiment: Experiment) -> str:
    return (
        "Each rare class: mean probability at its own voxels, mean p (1 − p) there, and the "
        "gradient of its logit inside its voxels over that outside, over 20 steps each: median of "
        "the seeds and their range. Solid: usual start; dashed: output bias at the class "
        "frequencies. Above each panel: seeds that learnt the class in the end, from the usual "
        "start and with the bias."
    )


def _rescue_caption(experiment: Experiment) -> str:
    return (
        f"Difference in Dice from the plain loss, paired by seed and case, with "
        f"{experiment.confidence:.0%} intervals of seeds and cases; filled where it holds after "
        "Holm's correction over all pairs. Beside each: seeds that learnt the class without and "
        "with the treatment (mean of classes: that learnt every class)."
    ).replace("%", " %")


CHAPTER = Chapter(
    figures={
        "rules": figures.draw_rules,
        "weights": figures.draw_weights,
        "traces": figures.draw_traces,
        "rescue": figures.draw_rescue,
    },
    captions={
        "rules": _matrix_caption,
        "weights": _weights_caption,
        "traces": _traces_caption,
        "rescue": _rescue_caption,
    },
    said=said,
    shown={
        "verdict": "Which loss learns which class, at its tuned rate",
        "updates": "Effective updates: share whose gradient inside the class (every class: whose "
        "whole gradient) is at least 1 % of the loss's usual one, the median over complete batches "
        "of steps 0 to 199",
        "identity": f"Is graph mode 1 {MINUS} mean p of the true class?",
        "prediction": "AUC: was the value lower where the class was lost than where it was learnt?",
        "rescue": "A CE term and an output bias against the plain loss",
    },
)
