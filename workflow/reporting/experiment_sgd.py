"""Generalized Dice under SGD and AdamW: does the Loss Odyssey's own loss fail, what keeps classes?

The trainer of its code optimises with Adam (AMSGrad); SGD with momentum is nnU-Net's later default.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from workflow.reporting.experiment import Chapter, Experiment, covered
from workflow.reporting.literature import quoted
from workflow.reporting.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILION,
    WIDTH,
    class_colours,
    headline,
    legend_below,
    loss_axis,
    new_figure,
    nothing_to_show,
    styled,
)
from workflow.reporting.wording import (
    count,
    estimate,
    listing,
    number,
    percent,
    readable,
    shortened,
)

ODYSSEY = "historic_generalized_dice_odyssey_v2"
NOTHING, SOME, ALL = "learns nothing", "loses a class", "keeps every class"
ARM_LOOKS = ((VERMILION, "o"), (ORANGE, "s"), (BLUE, "D"), (GREEN, "^"), (PURPLE, "v"))


def said(experiment: Experiment) -> list[str]:
    """The findings."""
    found = [f"{verdict_title(experiment)}.", *_own(experiment)]
    found += [_arm(experiment, arm) for arm in _arms(experiment)]
    found += _rescues(experiment)
    found += [f"{gradient_title(experiment)}.", *_optimisers(experiment)]
    if experiment.summary["seeds"].max() == 1:
        found.append("There is one seed: the intervals speak of further cases, not of other seeds.")
    return found


def verdict_title(experiment: Experiment) -> str:
    """Does the Loss Odyssey's own loss fail, and how many others do under SGD?

    Arms in which the reference loss learns nothing tell nothing of other losses.
    """
    table = experiment.answers["verdicts"].dropna(subset=["mean_dice"])
    if table.empty:
        return "No loss has run"
    standing = [arm for arm in dict.fromkeys(table["arm"]) if _reference_learns(experiment, arm)]
    table = table[table["arm"].isin(standing)]
    own = table[table["name"] == ODYSSEY]
    if own.empty:
        title = (
            f"Whether the {_published()} of the Loss Odyssey is reproduced is open: no arm has "
            f"both its Generalized Dice and {_reference(experiment)} that learns"
        )
    else:
        scores = listing(f"{number(row['mean_dice'])} with {_at(row)}" for _, row in own.iterrows())
        title = (
            f"The Loss Odyssey's own Generalized Dice scores {scores}: its {_published()}, "
            f"published with Adam, is {_reproduced(experiment, own)}"
        )
    others = table[
        (table["optimizer"] == "sgd")
        & table["role"].isin(("published", "rule"))
        & (table["name"] != ODYSSEY)
    ]
    failing = _failing(experiment, others)["loss"].nunique()
    if failing:
        forms = count(others["loss"].nunique(), "other form")
        title += f"; under SGD {failing} of {forms} {'learns' if failing == 1 else 'learn'} nothing"
    return title


def _reproduced(experiment: Experiment, own: pd.DataFrame) -> str:
    failing = _failing(experiment, own)
    if len(failing) == len(own):
        return "reproduced"
    if len(failing):
        return f"reproduced with {listing(_at(row) for _, row in failing.iterrows())}"
    shown = "" if (own["verdict"] != NOTHING).all() else "shown to be "
    return f"not {shown}reproduced"


def rescue_title(experiment: Experiment, arm: str) -> str:
    """What keeps every class in an arm where Generalized Dice learns nothing."""
    table = _of(experiment.answers["verdicts"], arm)
    kept = table[table["verdict"] == ALL]
    parts = []
    for role, words in (
        ("rule", "the weight rule alone"),
        ("published", "the published form alone"),
        ("compound", "a cross-entropy term"),
    ):
        names = [readable(label) for label in kept.loc[kept["role"] == role, "loss"]]
        if names:
            parts.append(f"{words} ({shortened(names)})")
    start = f"With {_words(experiment, arm)}, where forms of Generalized Dice learn nothing, "
    if not parts:
        return f"{start}none that was tried keeps every class"
    return f"{start}every class is kept by {listing(parts)}"


def gradient_title(experiment: Experiment) -> str:
    """How much smaller the gradients of Generalized Dice are at the start."""
    table = _start(experiment)
    if table.empty:
        return "No gradient norms were recorded to compare"
    naive = table[table["role"].isin(("published", "rule"))]
    if naive.empty:
        return "No Generalized Dice loss has gradient norms to compare"
    small = naive["norm_ratio"].median()
    return (
        f"At the start the gradient norm of Generalized Dice is {_digits(small)} times that of "
        f"{_reference(experiment)} (median of {count(naive['loss'].nunique(), 'loss', 'losses')}, "
        f"{_digits(naive['norm_ratio'].min())} to {_digits(naive['norm_ratio'].max())}): "
        "AdamW divides that factor away, SGD does not"
    )


def _own(experiment: Experiment) -> list[str]:
    """How the Loss Odyssey's own loss fares."""
    table = experiment.answers["verdicts"]
    table = table[table["name"] == ODYSSEY].dropna(subset=["mean_dice"])
    if table.empty:
        return []
    scores = [f"{_estimate(row)} with {_at(row)}" for _, row in table.iterrows()]
    return [
        f"The Generalized Dice of its code scores {listing(scores)}; published for the multi-organ "
        f"task, with Adam: {_published()}, and {number(quoted('odyssey_dice'), 3)} for Dice."
    ]


def _arm(experiment: Experiment, arm: str) -> str:
    table = _of(experiment.answers["verdicts"], arm)
    label = experiment.config["comparison"]["reference_loss"]
    reference = table[table["loss"] == label].dropna(subset=["mean_dice"])
    start = f"With {_words(experiment, arm)}"
    if len(reference):
        row = reference.iloc[0]
        fate = row["verdict"]
        if fate == SOME:
            fate = f"loses {listing(row['collapsed_classes'].split(';'))}"
        start += f", {_reference(experiment)} scores {_estimate(row)} and {fate}"
    naive = table[table["role"].isin(("published", "rule"))].dropna(subset=["mean_dice"])
    if naive.empty:
        return f"{start}; no Generalized Dice loss has a score."
    clauses = []
    for verdict in (NOTHING, SOME, ALL):
        its = naive[naive["verdict"] == verdict]
        if len(its):
            ends = dict.fromkeys(
                number(x) for x in (its["mean_dice"].min(), its["mean_dice"].max())
            )
            clauses.append(f"{len(its)} {_plural(verdict, len(its))} ({' to '.join(ends)})")
    below = len(naive[_below(experiment, naive)])
    return (
        f"{start}; of {count(len(naive), 'Generalized Dice loss', 'Generalized Dice losses')} "
        f"without cross-entropy {listing(clauses)}; {below or 'none'} "
        f"{'is' if below == 1 else 'are'} separably below {_reference(experiment)}."
    )


def _plural(verdict: str, amount: int) -> str:
    if amount == 1:
        return f"{verdict} in most runs" if verdict == SOME else verdict
    words = {NOTHING: "learn nothing", SOME: "lose a class in most runs", ALL: "keep every class"}
    return words[verdict]


def _rescues(experiment: Experiment) -> list[str]:
    table = _sgd(experiment)
    failing = _failing(experiment, table[table["role"].isin(("published", "rule"))])
    arms = [arm for arm in failing["arm"].unique() if _reference_learns(experiment, arm)]
    return [f"{rescue_title(experiment, arm)}." for arm in arms]


def _failing(experiment: Experiment, table: pd.DataFrame) -> pd.DataFrame:
    """Losses that fail as in the Loss Odyssey: they learn nothing, the reference more."""
    return table[(table["verdict"] == NOTHING) & _below(experiment, table)]


def _below(experiment: Experiment, table: pd.DataFrame) -> pd.Series:
    return (table["p_holm"] < 1 - experiment.confidence) & (table["difference"] < 0)


def _optimisers(experiment: Experiment) -> list[str]:
    """What AdamW changes."""
    table = experiment.answers["optimisers"]
    if table.empty or table["difference"].isna().all():
        return []
    found = []
    taus = experiment.answers["agreement"]
    for (arm, against), its in table.dropna(subset=["difference"]).groupby(
        ["arm", "against"], sort=False
    ):
        holds = its["p_holm"] < 1 - experiment.confidence
        worse, better = (its[holds & (its["difference"] * sign > 0)] for sign in (-1, 1))
        widest = its.loc[its["difference"].abs().idxmax()]
        rank = taus[
            (taus["arm"] == arm) & (taus["against"] == against) & (taus["endpoint"] == "mean_dice")
        ].dropna(subset=["kendall_tau"])
        tail = (
            f"; their rankings agree with Kendall's tau {number(rank['kendall_tau'].iloc[0])}"
            if len(rank)
            else ""
        )
        found.append(
            f"Against {_words(experiment, against)}, {_words(experiment, arm)} is separably worse "
            f"for {len(worse)} and better for {len(better)} of {count(len(its), 'loss', 'losses')} "
            f"(largest change: {readable(widest['loss'])}, "
            f"{estimate(widest['difference'], widest['low'], widest['high'], sign=True)} in mean "
            f"Dice){tail}."
        )
    return found


def _published() -> str:
    return number(quoted("odyssey_gdl"), 3)


def _arms(experiment: Experiment) -> list[str]:
    return list(dict.fromkeys(experiment.answers["verdicts"]["arm"]))


def _of(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    return table[table["arm"] == arm]


def _sgd(experiment: Experiment) -> pd.DataFrame:
    table = experiment.answers["verdicts"]
    return table[table["optimizer"] == "sgd"]


def _reference(experiment: Experiment) -> str:
    return readable(experiment.config["comparison"]["reference_loss"])


def _reference_learns(experiment: Experiment, arm: str) -> bool:
    table = _of(experiment.answers["verdicts"], arm)
    label = experiment.config["comparison"]["reference_loss"]
    return table.loc[table["loss"] == label, "verdict"].isin((SOME, ALL)).any()


OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW"}


def _at(row: pd.Series) -> str:
    """`SGD at 0.01`, of one loss."""
    return f"{OPTIMIZERS[row['optimizer']]} at {row['learning_rate']:g}"


def _words(experiment: Experiment, arm: str) -> str:
    """`SGD at 0.01`, of all losses."""
    its = _of(experiment.answers["verdicts"], arm)
    name = OPTIMIZERS[its["optimizer"].iloc[0]]
    rates = its["learning_rate"].unique()
    return f"{name} at {rates[0]:g}" if len(rates) == 1 else f"{name} at a rate for each loss"


def _estimate(row: pd.Series) -> str:
    return estimate(row["mean_dice"], row["mean_dice_low"], row["mean_dice_high"])


def _digits(ratio: float) -> str:
    """Two digits of a ratio that may be 30 or 1e-12."""
    return f"{ratio:.2g}".replace("e-0", "e-").replace("-", "\u2212")


def _start(experiment: Experiment) -> pd.DataFrame:
    """Gradient ratios under SGD with the roles of the losses."""
    outcomes = experiment.answers["verdicts"][["arm", "loss", "role", "optimizer"]]
    table = experiment.answers["gradients"].merge(outcomes, on=["arm", "loss"])
    return table[table["optimizer"] == "sgd"].dropna(subset=["norm_ratio"])


def _losses(experiment: Experiment) -> list[str]:
    return list(dict.fromkeys(experiment.answers["verdicts"]["loss"]))


@styled
def draw_classes(experiment: Experiment) -> Figure:
    """Dice of each class, a row a loss and a panel an arm; crosses are classes lost."""
    summary, outcomes = experiment.summary, experiment.answers["verdicts"]
    if not summary["mean_dice"].notna().any():
        return nothing_to_show(verdict_title(experiment))
    arms, labels = _arms(experiment), _losses(experiment)
    colours = class_colours(experiment.classes)
    figure = new_figure(WIDTH, 1.6 + 0.42 * max(len(labels), 4))
    axes = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    for axis, arm in zip(axes, arms, strict=True):
        lost = _of(outcomes, arm).set_index("loss")["collapsed_classes"]
        rows = _of(summary, arm).set_index("loss")
        for place, name in enumerate(experiment.classes):
            shift = 0.24 * (place - (len(experiment.classes) - 1) / 2)
            for label, row in rows.iterrows():
                y, column = labels.index(label) + shift, f"dice_{name}"
                ends = row[[f"{column}_low", f"{column}_high"]].astype(float).clip(0, 1)
                axis.plot(ends, [y, y], color=colours[name], linewidth=1.6)
                gone = name in lost[label].split(";")
                look = (
                    {"marker": "X", "ms": 7, "markeredgecolor": VERMILION, "mew": 0.9}
                    if gone
                    else {"marker": "o", "ms": 5.5, "markeredgecolor": "#333333", "mew": 0.5}
                )
                axis.plot(row[column], y, color=colours[name], clip_on=False, **look)
        # a cross at 0 needs room beside the names
        axis.set_xlim(-0.06, 1)
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        axis.set_title(_words(experiment, arm))
        axis.set_xlabel("Dice, held-out")
        loss_axis(axis, labels)
    for axis in axes[1:]:
        axis.tick_params(labelleft=False)
    shared: dict[str, Any] = {"linestyle": "", "markeredgecolor": "#333333"}
    legend_below(figure, [
        *(Line2D([], [], color=colour, marker="o", label=name, **shared)
          for name, colour in colours.items()),
        Line2D([], [], color=GREY, marker="X", linestyle="", markeredgecolor=VERMILION,
               label="lost in most runs"),
    ])  # fmt: skip
    headline(figure, verdict_title(experiment))
    return figure


@styled
def draw_gradients(experiment: Experiment) -> Figure:
    """Gradient norms at the start against the reference's, beside what the optimiser changes."""
    gradients, labels = experiment.answers["gradients"], _losses(experiment)
    ratios = gradients[(gradients["norm_ratio"] > 0) | (gradients.get("logits_ratio", 0) > 0)]
    if ratios.empty:
        return nothing_to_show(gradient_title(experiment))
    changes = experiment.answers["optimisers"]
    changes = changes.dropna(subset=["difference"]) if len(changes) else changes
    figure = new_figure(WIDTH, 1.7 + 0.33 * max(len(labels), 4))
    axes = figure.subplots(1, 2 if len(changes) else 1, sharey=True, squeeze=False)[0]
    looks = dict(zip(_arms(experiment), ARM_LOOKS, strict=False))
    handles = []
    for place, (arm, (colour, marker)) in enumerate(looks.items()):
        shift = 0.2 * (place - (len(looks) - 1) / 2)
        its = _of(ratios, arm)
        axes[0].plot(its["norm_ratio"], [labels.index(x) + shift for x in its["loss"]], marker,
                     color=colour, ms=5.5, clip_on=False)  # fmt: skip
        handles.append(Line2D([], [], color=colour, marker=marker, linestyle="",
                              label=_words(experiment, arm)))  # fmt: skip
        its = _of(changes, arm) if len(changes) else changes
        for row in its.itertuples():
            y = labels.index(row.loss) + shift
            axes[1].plot([row.low, row.high], [y, y], color=colour, linewidth=1.6)
            axes[1].plot(row.difference, y, marker, color=colour, ms=5.5)
    axes[0].set_xscale("log")
    axes[0].xaxis.set_major_formatter(lambda value, _: _digits(value))
    axes[0].tick_params(axis="x", which="minor", bottom=False)
    axes[0].axvline(1, color=GREY, linestyle="--", linewidth=1.1, zorder=0)
    axes[0].set_xlabel(f"gradient norm / that of {_reference(experiment)}\nin the first steps")
    if "logits_ratio" in ratios:
        first = ratios.drop_duplicates("loss")
        axes[0].plot(first["logits_ratio"], [labels.index(x) for x in first["loss"]], "|",
                     color=BLACK, ms=11, markeredgewidth=1.4, clip_on=False)  # fmt: skip
        handles.append(Line2D([], [], color=BLACK, marker="|", linestyle="", ms=9,
                              label="on the logits, first step"))  # fmt: skip
    loss_axis(axes[0], labels)
    if len(changes):
        against = listing([_words(experiment, arm) for arm in changes["against"].unique()])
        axes[1].axvline(0, color=GREY, linestyle="--", linewidth=1.1, zorder=0)
        axes[1].set_xlabel(f"mean Dice less that with {against}")
        loss_axis(axes[1], labels)
        axes[1].tick_params(labelleft=False)
    legend_below(figure, handles)
    headline(figure, gradient_title(experiment))
    return figure


CHAPTER = Chapter(
    figures={"classes": draw_classes, "gradients": draw_gradients},
    captions={
        "classes": lambda experiment: (
            "Dots: mean Dice of each class over the test cases that have it; bars: "
            f"{percent(experiment.confidence)} intervals over {covered(experiment)}; crosses: the "
            "class collapsed in most runs of the loss."
        ),
        "gradients": lambda experiment: (
            "Left: norm of the gradient over all weights, averaged over the steps before the first "
            f"validation, as a multiple of that of {_reference(experiment)} with the same seed; "
            "strokes: the same for the sum of absolute gradients of the logits at the very first "
            "step. Medians over seeds. Right: paired differences in mean Dice from the AdamW arm "
            f"with {percent(experiment.confidence)} intervals over {covered(experiment)}."
        ),
    },
    said=said,
    shown={
        "verdicts": "Outcomes",
        "gradients": "Gradients at the start",
        "optimisers": "SGD against AdamW",
        "agreement": "Agreement of the rankings",
    },
)
