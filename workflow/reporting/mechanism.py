"""What the figures and the sentences of the experiment ``mechanism`` both say of its tables."""

from __future__ import annotations

from typing import Any

import pandas as pd

from workflow.reporting.experiment import Experiment
from workflow.reporting.wording import interval, listing, percent, readable

TUNED, FAMILIES, BIASED = "tuned", "families", "families+bias"
EVERY = "every class"


FLAGS = ("generalized", "works", "present", "output_bias", "saturated")


WEIGHED = (
    "published_generalized_dice_graph", "published_generalized_dice_written",
    "published_generalized_dice_answer", "generalized_dice", "generalized_dice_zero", "dice",
)  # fmt: skip
"""Losses whose weights and gradients are drawn."""


def answer(experiment: Experiment, name: str) -> pd.DataFrame:
    """A table of answers; its flags are flags also where the file holds no row to show it."""
    table = experiment.answers[name]
    return table.astype({flag: bool for flag in FLAGS if flag in table})


def rarest(experiment: Experiment) -> str:
    """The class with the fewest voxels in training."""
    dataset = experiment.raw["dataset"]
    return str(dataset.loc[dataset["rarest"], "class"].iloc[0])


def rare(experiment: Experiment) -> list[str]:
    """Foreground classes but the most frequent one in training."""
    dataset = experiment.raw["dataset"]
    sizes = dataset[dataset["split"] == "train"].groupby("class")["voxel_fraction"].mean()
    most = sizes[experiment.classes].idxmax()
    return [name for name in experiment.classes if name != most]


def fixed_rates(experiment: Experiment) -> list[str]:
    """Arms in which all rules have one learning rate."""
    table = answer(experiment, "rules")
    others = (TUNED, FAMILIES, BIASED)
    return [arm for arm in table["arm"].unique() if arm not in others]


def rules_at(experiment: Experiment, arm: str) -> pd.DataFrame:
    """Lines of ``verdict`` of the Generalized Dice losses of an arm."""
    table = answer(experiment, "verdict")
    return table[(table["arm"] == arm) & table["generalized"]]


def distinct(experiment: Experiment) -> pd.DataFrame:
    """``early``, in which a run that stands in two arms counts once."""
    key = ["output_bias", "loss", "learning_rate", "seed", "class"]
    return answer(experiment, "early").drop_duplicates(key)


def named(row: Any) -> str:
    """A loss of ``verdict`` with its start."""
    bias = " with output bias" if row.arm == BIASED else ""
    return f"{readable(row.loss)}{bias}"


def of_seeds(row: Any) -> str:
    """`Dice (9 of 10 seeds, [0.60, 0.98])`."""
    found = f"{row.learnt_every} of {row.seeds} seeds"
    spread = interval(row.low, row.high)
    return f"{named(row)} ({', '.join(filter(None, (found, spread)))})"


def ending(plain: int, treated: int, runs: int) -> str:
    """In how many seeds a class was learnt, before and after."""
    return f"{plain} \u2192 {treated} of {runs}"


def rescued(experiment: Experiment) -> pd.DataFrame:
    """Rows of ``rescue``: rare classes whose gain holds after Holm's correction."""
    table = answer(experiment, "rescue")
    firm = (table["p_holm"] < 1 - experiment.confidence) & (table["difference"] > 0)
    return table[firm & table["class"].isin(rare(experiment))]


def predictions(experiment: Experiment, predictor: str, compared: str) -> pd.DataFrame:
    """Rows of ``prediction`` for the rare classes, of runs that start without an output bias."""
    table = answer(experiment, "prediction")
    return table[
        ~table["output_bias"] & (table["predictor"] == predictor)
        & (table["compared"] == compared) & table["class"].isin(rare(experiment))
        & table["auc"].notna()
    ]  # fmt: skip


def support(experiment: Experiment) -> str:
    """The verdict of the saturation criterion: "" without any class both lost and learnt.

    The criterion compares losses, which differ in more than slopes; so what only the seed decides,
    among runs of one loss, is told with it.
    """
    table = predictions(experiment, "lowest_slope", "all runs")
    if table.empty:
        return ""
    known = table[table["low"].notna()]
    above = known[known["low"] > 0.5]
    if known.empty:
        return "not testable with so few losses that learn a class and losses that lose it"
    if above.empty:
        return "contradicted" if (known["high"] < 0.5).all() else "not supported"
    across = "" if len(above) == len(known) else f" for {listing(above['class'])} only"
    alone = predictions(experiment, "lowest_slope", "same loss")
    alone = list(alone.loc[alone["low"] > 0.5, "class"])
    if set(above["class"]) <= set(alone):
        return f"supported across losses{across} and within one"
    within = f"within one for {listing(alone)} only" if alone else "but not within one"
    return f"supported across losses{across}, {within}"


def rules_title(experiment: Experiment) -> str:
    rules = rules_at(experiment, TUNED)
    if rules.empty:
        return "No Generalized Dice ran at a tuned learning rate"
    works = int(rules["works"].sum())
    total = len(rules)
    hardest = min(
        (name for name in experiment.classes if f"learnt_{name}" in rules),
        key=lambda name: rules[f"learnt_{name}"].sum(),
    )
    share = int(rules[f"learnt_{hardest}"].sum()), int(rules["seeds"].sum())
    counted = f"{works or 'None'} of {total} rules of Generalized Dice"
    return (
        f"{counted} {'learns' if works < 2 else 'learn'} every class in most seeds; what they "
        f"lose most is the {hardest}, learnt in {share[0]} of {share[1]} runs"
    )


def weights_title(experiment: Experiment) -> str:
    table = answer(experiment, "updates")
    table = table[
        (table["arm"] == TUNED) & (table["class"] == EVERY) & (table["phase"] == "first")
        & table["incomplete"].notna() & table["loss"].isin(WEIGHED)
    ]  # fmt: skip
    if table.empty:
        return "Weight and gradient of each class, by its volume"
    worst = table.loc[table["incomplete"].idxmin()]
    if worst["incomplete"] > 0.5:
        return "A batch that lacks a class trains every rule about as much as one that has them all"
    return (
        f"A batch that lacks a class leaves {readable(worst['loss'])} "
        f"{part(worst['incomplete'])} its usual gradient"
    )


def part(ratio: float) -> str:
    """How much there is of something: `none of`, `7e-10 of`, `80 % of`, `all of`, `2 times`."""
    if ratio == 0:
        return "none of"
    if ratio >= 0.995:
        return "all of" if ratio < 1.05 else f"{ratio:.2g} times"
    return f"{percent(ratio)} of" if ratio >= 0.001 else f"{ratio:.0e} of"


def traces_title(experiment: Experiment) -> str:
    judgement = support(experiment)
    if not judgement:
        return (
            "Probability and slope of the rare classes in the first 200 steps; no class was "
            "learnt in some runs and lost in others"
        )
    return f"Saturation hypothesis {judgement}, by the slopes of the first 200 steps"


def rescue_title(experiment: Experiment) -> str:
    table = answer(experiment, "rescue")
    table = table[table["class"] == EVERY]
    shared = table[table["family"].str.startswith("generalized")]
    if shared.empty:
        return "A cross-entropy term and an output bias against the plain loss"
    works = shared[shared["learnt"] > shared["runs"] / 2]
    told = works if len(works) else shared.nlargest(1, "learnt")
    ways = listing(
        f"{readable(row.family)} + {row.treatment} "
        f"({ending(row.learnt_plain, row.learnt, row.runs)})"
        for row in told.itertuples()
    )
    if works.empty:
        return (
            f"None of {len(shared)} ways to rescue Generalized Dice learns every class in most "
            f"seeds; the nearest is {ways}"
        )
    return (
        f"{len(works)} of {len(shared)} ways to rescue Generalized Dice "
        f"{'learns' if len(works) == 1 else 'learn'} every class in most seeds: {ways}"
    )
