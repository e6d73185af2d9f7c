"""Why Generalized Dice collapses: which rule learns which class, what training told each class,
and whether a cross-entropy term or an output bias rescues it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

import losses
from workflow.comparison import collapse, contrasts, signals, statistics
from workflow.comparison.arrays import score_array
from workflow.comparison.signals import EVERY, RUN
from workflow.study import Study, StudyError

Table = dict[str, pd.DataFrame]

GRAPH = "published_generalized_dice_graph"
TUNED, FAMILIES, BIASED = "tuned", "families", "families+bias"
"""Arms of ``config/mechanism.yaml``; the others have one learning rate for all rules."""

WITH_CE = {
    "dice": "dice_ce",
    "generalized_dice": "generalized_dice_ce",
    "generalized_dice_zero": "gdl_zero_ce",
}
"""Labels of the same loss without and with a cross-entropy term."""

RESAMPLES = 2000
SEED = 0
GROUPS = 5
"""Fewest groups that are resampled for an interval."""

RULES = (
    "arm", "loss", "learning_rate", "class", "seeds", "learnt", "share", "low", "high", "dice",
    "dice_low", "dice_high", "ok", "diverged", "failed",
)  # fmt: skip
IDENTITY = (
    "shown", "loss", "compared", "value", "one_minus_p", "median_difference", "largest_difference",
    "within_sampling",
)  # fmt: skip
PREDICTION = (
    "output_bias", "class", "predictor", "compared", "lost", "learnt", "groups", "auc", "low",
    "high",
)  # fmt: skip
RESCUE = (
    "family", "treatment", "loss", "arm", "class", "difference", "low", "high", "p", "p_holm",
    "seeds", "cases", "runs", "learnt_plain", "learnt", "lowest_slope_plain", "lowest_slope",
)  # fmt: skip


def answers(study: Study, raw: Mapping[str, pd.DataFrame], generic: Table) -> Table:
    """The tables of the experiment; ``signals`` holds what its words mean.

    A run has learnt a class if it ended ``ok`` and the class did not collapse by the stated
    definition; runs that failed count nowhere. The class ``every class`` stands for all foreground
    classes at once, and its Dice is the mean over those of a case.

    - ``rules``: seeds in which each class was learnt, with Wilson's interval, and its Dice, for
      every arm and loss.
    - ``verdict``: a line for each loss at its tuned rate, with and without the output bias.
    - ``gradients``, ``updates``: see :mod:`workflow.comparison.signals`.
    - ``identity``: the loss as executed in graph mode against 1 - mean p of the true class.
    - ``early``, ``saturation``: the first 200 steps of each run and of each loss.
    - ``prediction``: do they tell which class is lost? See :func:`predicted`.
    - ``rescue``: a CE term and an output bias against the plain loss, paired by seed and case.

    Raises ``StudyError`` if the runs left no signals.
    """
    if "signals" not in raw:
        raise StudyError("experiment 'mechanism' needs training.signals_every > 0")
    judged = raw["cases"].dropna(subset=["dice"])["class"].unique()
    sizes = raw["dataset"].drop_duplicates("class").sort_values("class_index")
    classes = [name for name in sizes["class"][1:] if name in judged]
    learnt = learnt_classes(raw["runs"], classes)
    rules = _rules(study, raw["runs"], learnt, generic["summary"])
    batches = signals.batches(raw["signals"])
    early = _early(study, batches, raw["curves"], learnt)
    return {
        "rules": rules,
        "verdict": _verdict(study, rules, classes),
        "gradients": signals.gradients(
            batches[batches["arm"].isin((TUNED, FAMILIES, BIASED))]
        ),
        "updates": signals.updates(batches[batches["arm"] == TUNED]),
        "identity": _identity(study, batches, raw["curves"]),
        "early": early,
        "saturation": _saturation(early),
        "prediction": predicted(early, study.comparison.confidence),
        "rescue": _rescue(study, raw["cases"], learnt, early, classes),
    }  # fmt: skip


def learnt_classes(runs: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """A row for each run that did not fail and class, also ``every class``: was it ``learnt``?"""
    runs = runs[runs["status"] != "failed"]
    lost = [set(str(names).split(";")) for names in runs["collapsed_classes"].fillna("")]
    ok = (runs["status"] == "ok").to_numpy()
    found = {name: ok & [name not in gone for gone in lost] for name in classes}
    found[EVERY] = np.logical_and.reduce(list(found.values()))
    key = runs[[*RUN, "learning_rate"]]
    return pd.concat(
        [key.assign(**{"class": name, "learnt": there}) for name, there in found.items()],
        ignore_index=True,
    )


def _rules(
    study: Study, runs: pd.DataFrame, learnt: pd.DataFrame, summary: pd.DataFrame
) -> pd.DataFrame:
    by_run = dict(list(learnt.groupby(["arm", "loss", "class"], sort=False)))
    states = runs.groupby(["arm", "loss"])["status"].value_counts()
    scored = summary.set_index(["arm", "test_set", "loss"])
    rows = []
    for (arm, loss, name), table in by_run.items():
        place = arm, study.variants[arm].test_set, loss
        column = "mean_dice" if name == EVERY else f"dice_{name}"
        seeds, count = len(table), int(table["learnt"].sum())
        low, high = statistics.wilson(count, seeds, study.comparison.confidence)
        rows.append(
            {"arm": arm, "loss": loss, "class": name, "seeds": seeds, "learnt": count}
            | {"learning_rate": table["learning_rate"].median()}
            | {"share": count / seeds, "low": low, "high": high}
            | {f"dice{end}": scored.at[place, f"{column}{end}"] for end in ("", "_low", "_high")}
            | {s: states.get((arm, loss, s), 0) for s in ("ok", "diverged", "failed")}
        )
    return _ordered(study, pd.DataFrame(rows, columns=RULES))


def _ordered(study: Study, table: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of the study's arms and losses."""
    places = {
        "arm": {name: index for index, name in enumerate(study.variants)},
        "loss": {name: index for index, name in enumerate(study.losses)},
    }
    by = [column for column in places if column in table]
    return table.sort_values(
        by, key=lambda column: column.map(places[column.name]), kind="stable", ignore_index=True
    )


def _verdict(study: Study, rules: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """One line a loss at its tuned rate; ``works``: it learns every class in most seeds.

    ``fixed_learnt`` of ``fixed_runs`` runs learnt every class in the arms whose rate is one for
    all. ``generalized``: the loss is a Generalized Dice, alone or in a sum.
    """
    rows = []
    chosen = rules[rules["arm"].isin((TUNED, FAMILIES, BIASED))]
    standing = set(chosen.loc[chosen["arm"] == TUNED, "loss"])
    for (arm, loss), table in chosen.groupby(["arm", "loss"], sort=False):
        if arm == FAMILIES and loss in standing:
            continue  # the same runs, fewer of them
        of = table.set_index("class")
        other = rules[
            (rules["loss"] == loss) & (rules["class"] == EVERY) & ~rules["arm"].isin(chosen["arm"])
        ]
        if arm != TUNED:
            other = other[:0]
        every = of.loc[EVERY]
        rows.append(
            {"arm": arm, "loss": loss, "learning_rate": every["learning_rate"]}
            | {"generalized": "generalized_dice" in study.losses[loss].name}
            | {"seeds": every["seeds"]}
            | {f"learnt_{name}": of.at[name, "learnt"] for name in classes}
            | {"learnt_every": every["learnt"], "low": every["low"], "high": every["high"]}
            | {"works": bool(every["share"] > 0.5)}
            | {"fixed_learnt": other["learnt"].sum(), "fixed_runs": other["seeds"].sum()}
        )
    columns = ["arm", "loss", "learning_rate", "generalized", "seeds"]
    columns += [f"learnt_{name}" for name in (*classes, "every")]
    columns += ["low", "high", "works", "fixed_learnt", "fixed_runs"]
    return pd.DataFrame(rows, columns=columns)


def _identity(study: Study, batches: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Loss against 1 - mean p of the true class: the graph-mode loss, and its corrected twin.

    ``exact``: both computed here in double precision, on drawn logits (standard deviations 1, 3
    and 10) and label maps with the class volumes of the study's own batches; where a voxel lies
    changes neither. ``training``: the mean loss between two validations against the mean of
    1 - p over the few batches recorded among them; ``within_sampling`` is the share of these spans
    in which they differ by no more than two standard errors of that sample.
    """
    rows = []
    for label, entry in study.losses.items():
        its = batches[batches["loss"] == label]
        if entry.name != GRAPH or its.empty:
            continue
        names = {label: GRAPH}
        if twin := contrasts.corrected_label(study, label):
            names[twin] = study.losses[twin].name
        volumes = _volumes(its)
        for loss, name in names.items():
            rows.append({"shown": "exact", "loss": loss} | _exact(losses.create(name), volumes))
            spans = _spans(study, batches, curves, loss)
            if len(spans):
                rows.append({"shown": "training", "loss": loss} | _compared(spans))
    return pd.DataFrame(rows, columns=IDENTITY)


def _volumes(batches: pd.DataFrame) -> np.ndarray:
    """(batches, classes) voxels of the first run's batches of the first phase."""
    rows = batches[batches["phase"] != signals.PHASES[-1]]
    rows = rows[(rows[RUN] == rows[RUN].head(1).to_numpy()).all(axis=1)]
    return rows.pivot(index="step", columns="class", values="voxels").to_numpy()


def _exact(
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], volumes: np.ndarray
) -> dict[str, float]:
    generator = torch.Generator().manual_seed(SEED)
    found = []
    for index, counts in enumerate(volumes):
        labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        shape = (1, len(counts), len(labels), 1)
        logits = (
            torch.randn(shape, generator=generator, dtype=torch.float64) * (1, 3, 10)[index % 3]
        )
        labels = labels[None, :, None]
        p = logits.softmax(1).gather(1, labels[:, None]).mean()
        found.append((loss(logits, labels).item(), 1 - p.item()))
    return _compared(pd.DataFrame(found, columns=["value", "one_minus_p"]))


def _spans(study: Study, batches: pd.DataFrame, curves: pd.DataFrame, loss: str) -> pd.DataFrame:
    """Mean loss and 1 - p between two validations of the loss's runs at their tuned rate."""
    arm = next(a for a in (TUNED, *study.variants) if a in set(batches["arm"]))
    curve = curves[(curves["arm"] == arm) & (curves["loss"] == loss)]
    curve = curve[(curve["split"] == "train") & (curve["quantity"] == "loss")]
    rows = batches[(batches["arm"] == arm) & (batches["loss"] == loss)]
    right = (rows["voxels"] * rows["probability"].fillna(0)).groupby([rows["seed"], rows["step"]])
    p = (right.sum() / rows.groupby(["seed", "step"])["voxels"].sum()).rename("p").reset_index()
    training = study.variants[arm].training
    every = training.validate_every
    p["end"] = np.minimum((p["step"] // every + 1) * every, training.steps)
    spans = p.groupby(["seed", "end"])["p"].agg(["mean", "std", "size"]).reset_index()
    spans = spans.merge(curve, left_on=["seed", "end"], right_on=["seed", "step"])
    steps = spans["end"] - np.maximum(spans["end"] - 1, 0) // every * every
    unseen = np.sqrt((1 - spans["size"] / steps).clip(lower=0))
    return pd.DataFrame({
        "value": spans["value"], "one_minus_p": 1 - spans["mean"],
        "error": spans["std"] / np.sqrt(spans["size"]) * unseen,
    })  # fmt: skip


def _compared(pairs: pd.DataFrame) -> dict[str, float]:
    apart = (pairs["value"] - pairs["one_minus_p"]).abs()
    found = {
        "compared": len(pairs), "value": pairs["value"].mean(),
        "one_minus_p": pairs["one_minus_p"].mean(),
        "median_difference": apart.median(), "largest_difference": apart.max(),
    }  # fmt: skip
    if "error" in pairs:
        found["within_sampling"] = (apart <= 2 * pairs["error"]).mean()
    return found


def _early(
    study: Study, batches: pd.DataFrame, curves: pd.DataFrame, learnt: pd.DataFrame
) -> pd.DataFrame:
    """``signals.early`` of foreground classes, with the outcome of each run.

    ``last_found``: the last validation in training at which the Dice of the class was at least
    that below which a class counts as missed; NaN if it was never found.
    """
    found = signals.early(batches).merge(learnt, on=[*RUN, "class"])
    seen = curves[(curves["split"] == "validation") & (curves["quantity"] == "dice")]
    seen = seen[(seen["value"] >= collapse.DICE_BELOW) & (seen["step"] > 0)]
    last = seen.groupby([*RUN, "class"])["step"].max().rename("last_found")
    bias = {name: arm.training.output_bias != "random" for name, arm in study.variants.items()}
    found = found.join(last, on=[*RUN, "class"])
    found["output_bias"] = found["arm"].map(bias)
    return _ordered(study, found)


def _saturation(early: pd.DataFrame) -> pd.DataFrame:
    """``early`` by loss: medians over seeds, and how many runs were saturated, learnt or both.

    ``found``: the class was found on some validation; ``recovered``: saturated, yet learnt.
    """
    table = early.assign(
        found=early["last_found"].notna(), recovered=early["saturated"] & early["learnt"]
    )
    medians = (
        "start_probability", "start_slope", "lowest_probability", "lowest_slope", "ratio",
    )  # fmt: skip
    counts = ("saturated", "found", "learnt", "recovered")
    key = ["arm", "output_bias", "loss", "class"]
    found = table.groupby(key, sort=False).agg(
        runs=("seed", "size"),
        **{name: (name, "median") for name in medians},
        **{name: (name, "sum") for name in counts},
    )
    return found.reset_index()


def predicted(early: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Does what a class was told in the first 200 steps tell whether it is lost in the end?

    ``predictor``: its lowest slope; or, as a rival, the ratio of its gradient inside to outside.
    ``auc``: the probability that it was lower in a run that lost the class than in one that learnt
    it, ties counting half; .5 tells nothing. ``compared``: ``all runs``, which any difference
    between losses may explain, and runs of the ``same loss`` at the same rate, where only the seed
    differs. The criterion, fixed beforehand: saturation predicts that the interval of the lowest
    slope lies above .5 among ``all runs`` without an output bias. The interval is the bootstrap's
    over losses (``same loss``: over losses at a rate), NaN with fewer than five that take part. A
    run that stands in two arms counts once.
    """
    runs = early.drop_duplicates(["output_bias", "loss", "learning_rate", "seed", "class"])
    rows = []
    for (bias, name), table in runs.groupby(["output_bias", "class"], sort=False):
        for predictor in ("lowest_slope", "ratio"):
            known = table.dropna(subset=[predictor])
            for compared, key in (
                ("all runs", ["loss"]),
                ("same loss", ["loss", "learning_rate"]),
            ):
                rows.append(
                    {"output_bias": bias, "class": name, "predictor": predictor}
                    | {"compared": compared, "lost": int((~known["learnt"]).sum())}
                    | {"learnt": int(known["learnt"].sum())}
                    | separation(
                        known[predictor].to_numpy(),
                        ~known["learnt"].to_numpy(bool),
                        known.groupby(key).ngroup().to_numpy(),
                        within=compared == "same loss",
                        confidence=confidence,
                    )
                )
    return pd.DataFrame(rows, columns=PREDICTION)


def separation(
    values: np.ndarray, lost: np.ndarray, groups: np.ndarray, *, within: bool, confidence: float
) -> dict[str, float]:
    """Probability that a lost run has a lower value than one that is not, ties counting half.

    ``groups``: numbers from 0, of what is resampled as a whole; ``within``: only pairs of one
    group are compared. NaN without a pair; the interval is the percentile bootstrap's, NaN where
    fewer than ``GROUPS`` groups take part in a pair.
    """
    members = np.eye(groups.max(initial=-1) + 1)[groups]
    gone, kept = values[lost], values[~lost]
    lower = (gone[:, None] < kept) + 0.5 * (gone[:, None] == kept)
    wins = members[lost].T @ lower @ members[~lost]
    pairs = np.outer(members[lost].sum(axis=0), members[~lost].sum(axis=0))
    if within:
        wins, pairs = np.diag(np.diag(wins)), np.diag(np.diag(pairs))
    partners = int(((pairs.sum(axis=0) + pairs.sum(axis=1)) > 0).sum())
    found = {"groups": partners, "auc": math.nan, "low": math.nan, "high": math.nan}
    if not pairs.sum():
        return found
    found["auc"] = wins.sum() / pairs.sum()
    if partners >= GROUPS:
        generator = np.random.default_rng(SEED)
        drawn = generator.multinomial(len(pairs), [1 / len(pairs)] * len(pairs), RESAMPLES)
        sums = [np.einsum("rg,gh,rh->r", drawn, table, drawn) for table in (wins, pairs)]
        if within:  # a group drawn twice brings its own pairs twice, not four times
            sums = [drawn @ np.diag(table) for table in (wins, pairs)]
        some = sums[1] > 0
        tail = (1 - confidence) / 2
        found["low"], found["high"] = np.quantile(sums[0][some] / sums[1][some], [tail, 1 - tail])
    return found


def _rescue(
    study: Study,
    cases: pd.DataFrame,
    learnt: pd.DataFrame,
    early: pd.DataFrame,
    classes: Sequence[str],
) -> pd.DataFrame:
    """Each treatment of a family against its plain loss without an output bias.

    ``lowest_slope``: median over runs of the lowest slope of the class in the first 200 steps.
    p_holm: over all pairs, for each class.
    """
    pairs = [
        (plain, treatment, loss, arm)
        for plain in study.losses
        if plain not in WITH_CE.values()
        for treatment, loss, arm in (
            ("CE", WITH_CE.get(plain), FAMILIES),
            ("bias", plain, BIASED),
            ("CE and bias", WITH_CE.get(plain), BIASED),
        )
    ]
    ran = set(zip(cases["arm"], cases["loss"], strict=True))
    pairs = [p for p in pairs if {(FAMILIES, p[0]), (p[3], p[2])} <= ran]
    if not pairs:
        return pd.DataFrame(columns=RESCUE)
    scored = cases[cases["test_set"] == study.test_set]
    scored = scored.assign(loss=scored["arm"] + "/" + scored["loss"])
    labels = sorted(scored["loss"].unique())
    counts = learnt.groupby(["arm", "loss", "class"])["learnt"].agg(["sum", "size"])
    slopes = early.groupby(["arm", "loss", "class"])["lowest_slope"].median()
    rows = []
    for name in (*classes, EVERY):
        endpoint = "mean_dice" if name == EVERY else "rarest_dice"
        scores = score_array(scored, endpoint, name, labels)
        for plain, treatment, loss, arm in pairs:
            new, old = (labels.index(f"{a}/{x}") for a, x in ((arm, loss), (FAMILIES, plain)))
            values = contrasts.paired(scores, new, old)
            found = contrasts.mean_difference(values, study.comparison.confidence)
            before, after = (FAMILIES, plain, name), (arm, loss, name)
            rows.append(
                {"family": plain, "treatment": treatment, "loss": loss, "arm": arm, "class": name}
                | contrasts.estimated(found)
                | contrasts.sample_size(values)
                | {"runs": counts["size"].get(after, 0), "learnt": counts["sum"].get(after, 0)}
                | {"learnt_plain": counts["sum"].get(before, 0)}
                | {"lowest_slope_plain": slopes.get(before, math.nan)}
                | {"lowest_slope": slopes.get(after, math.nan)}
            )
    table = pd.DataFrame(rows, columns=RESCUE)
    table["p_holm"] = table.groupby("class")["p"].transform(statistics.holm)
    return table
