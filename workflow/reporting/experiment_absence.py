"""Absence: the score of a loss against the share of steps that hold every class."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from workflow.reporting import sweeps
from workflow.reporting.experiment import Chapter, Experiment
from workflow.reporting.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    LINE_COLOURS,
    ORANGE,
    VERMILION,
    WIDTH,
    headline,
    height_for,
    legend_below,
    loss_axis,
    new_figure,
    nothing_to_show,
    small_multiples,
    styled,
)
from workflow.reporting.wording import count, listing, number, percent, signed

COLOURS = (BLUE, ORANGE, VERMILION, GREEN, *LINE_COLOURS)
MARKS = ("o", "s", "^", "D", "v", "P", "*")
BUDGETS = {"steps": (BLUE, "o", "equal steps"), "samples": (ORANGE, "s", "equal samples")}
SCORES = {
    "follows": ("falls as predicted", "fall as predicted"),
    "below": ("falls further than predicted", "fall further than predicted"),
    "above": ("loses score, but less than predicted", "lose score, but less than predicted"),
    "unaffected": ("keeps the score", "keep the score"),
    "cannot tell": ("is not put to a test", "are not put to a test"),
    "nothing to lose": ("never learns it", "never learn it"),
    "not measured": ("has no prediction", "have no prediction"),
}
UPDATES = {
    "follows": ("moves at the predicted steps", "move at the predicted steps"),
    "below": ("moves at fewer steps than predicted", "move at fewer steps than predicted"),
    "above": ("moves at more steps than predicted", "move at more steps than predicted"),
    "unaffected": ("moves at nearly every step", "move at nearly every step"),
    "cannot tell": SCORES["cannot tell"],
    "not measured": SCORES["not measured"],
}


def _class(experiment: Experiment) -> str:
    return str(experiment.answers["absence"]["class"].iloc[0])


def _verdicts(experiment: Experiment, endpoint: str) -> pd.DataFrame:
    table = experiment.answers["verdicts"]
    return table[table["endpoint"] == endpoint]


def _subject(experiment: Experiment, endpoint: str) -> str:
    name = _class(experiment)
    return {
        "updates": "Steps with an effective gradient",
        "rarest": f"Dice of the {name}",
        "others": "Dice of the other classes",
    }[endpoint]


def title(experiment: Experiment, endpoint: str) -> str:
    """What the losses do at an endpoint, counted."""
    phrases = UPDATES if endpoint == "updates" else SCORES
    found = sweeps.counted(_verdicts(experiment, endpoint), phrases)
    return f"{_subject(experiment, endpoint)}: {found}"


@styled
def _draw(experiment: Experiment, endpoint: str) -> Figure:
    """Measured and predicted against prevalence, a panel for each loss, a line a batch size."""
    steps = experiment.config["training"]["steps"]
    table = experiment.answers["predicted"]
    table = table[(table["endpoint"] == endpoint) & (table["steps"] == steps)]
    lost = experiment.answers["absence"][["arm", "loss", "collapsed"]]
    table = table.merge(lost, on=["arm", "loss"])
    if table.empty:
        return nothing_to_show(title(experiment, endpoint))
    if endpoint != "rarest":  # the mark says that the rarest class is lost
        table["collapsed"] = False
    labels, batches = list(dict.fromkeys(table["loss"])), sorted(table["batch"].unique())
    upwards = "share of steps" if endpoint == "updates" else "Dice"
    across = f"cases with {_class(experiment)}"
    figure, panels = small_multiples(labels, across, upwards, columns=4)
    for axis, label in zip(panels, labels, strict=True):
        axis.set_ylim(-0.03, 1.03)
        axis.set_xlim(0, 1.06)
        axis.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
        axis.tick_params(axis="x", labelsize=7)
        for place, batch in enumerate(batches):
            rows = table[(table["loss"] == label) & (table["batch"] == batch)]
            rows = rows.sort_values("training_prevalence")
            colour, dodge = COLOURS[place], 0.014 * (place - (len(batches) - 1) / 2)
            axis.plot(rows["training_prevalence"], rows["predicted"], color=colour,
                      linestyle=(0, (3, 2)), linewidth=1.0, zorder=1)  # fmt: skip
            sweeps.curve(axis, rows, "training_prevalence", "measured", colour, MARKS[place],
                         dodge)  # fmt: skip
    legend_below(figure, _legend(batches, table["collapsed"].any()), columns=6)
    headline(figure, title(experiment, endpoint))
    return figure


def _legend(batches: list[int], lost: bool) -> list[Line2D]:
    handles = [
        Line2D([], [], color=COLOURS[place], marker=MARKS[place], markersize=4,
               label=f"batch of {batch}")
        for place, batch in enumerate(batches)
    ]  # fmt: skip
    handles.append(Line2D([], [], color=GREY, linestyle=(0, (3, 2)), label="predicted"))
    return handles + [sweeps.LOST] * bool(lost)


def draw_rarest(experiment: Experiment) -> Figure:
    """Dice of the rarest class, measured and predicted."""
    return _draw(experiment, "rarest")


def draw_others(experiment: Experiment) -> Figure:
    """Mean Dice of the other classes, measured and predicted."""
    return _draw(experiment, "others")


def draw_updates(experiment: Experiment) -> Figure:
    """Share of steps with an effective gradient, measured and predicted."""
    return _draw(experiment, "updates")


def _widest(experiment: Experiment) -> pd.DataFrame:
    """The rows of ``batches`` for the largest batch against the smallest.

    Where some prevalences have both budgets, only those: else the budgets would differ in them too.
    """
    table = experiment.answers["batches"].dropna(subset=["difference"])
    table = table[(table["batch"] == table["batch"].max())
                  & (table["against_batch"] == table["against_batch"].min())]  # fmt: skip
    budgets = table.groupby("prevalence")["budget"].transform("nunique")
    return table[budgets == budgets.max()]


def _pair(rows: pd.DataFrame) -> str:
    return f"Batches of {rows['batch'].iloc[0]} instead of {rows['against_batch'].iloc[0]}"


def batch_title(experiment: Experiment) -> str:
    """What the largest batch changes at either budget."""
    rows = _widest(experiment)
    if rows.empty:
        return "No two batch sizes can be compared"
    medians = rows.groupby("budget", sort=False)["difference"].median()
    told = listing([f"{signed(value)} at equal {budget}" for budget, value in medians.items()])
    return f"{_pair(rows)} change Dice of the {_class(experiment)} by {told} (medians)"


@styled
def draw_batches(experiment: Experiment) -> Figure:
    """Differences of the largest batch from the smallest at both budgets."""
    rows = _widest(experiment)
    if rows.empty:
        return nothing_to_show(batch_title(experiment))
    shown = sorted(rows["prevalence"].unique())
    order = dict.fromkeys(experiment.answers["absence"]["loss"])
    labels = [loss for loss in order if loss in set(rows["loss"])]
    figure = new_figure(WIDTH, height_for(len(labels), 1.7))
    axes = figure.subplots(1, len(shown), sharex=True, sharey=True, squeeze=False)[0]
    for axis, prevalence in zip(axes, shown, strict=True):
        for place, (budget, (colour, mark, _)) in enumerate(BUDGETS.items()):
            its = rows[(rows["prevalence"] == prevalence) & (rows["budget"] == budget)]
            its = its.set_index("loss").reindex(labels)
            error = [its["difference"] - its["low"], its["high"] - its["difference"]]
            y = [index + 0.24 * (place - 0.5) for index in range(len(labels))]
            axis.errorbar(its["difference"], y, xerr=error, fmt=mark, color=colour, markersize=4.5,
                          elinewidth=1)  # fmt: skip
        loss_axis(axis, labels)
        axis.axvline(0, color=BLACK, linewidth=0.8)
        axis.set_title(f"{_class(experiment)} in {percent(prevalence)} of the cases", fontsize=9)
        axis.set_xlabel("difference in Dice")
    # once all panels are drawn: they share the axis
    low, high = axes[0].get_xlim()
    axes[0].set_xlim(max(low, -1), min(high, 1))
    for axis in axes[1:]:
        axis.tick_params(labelleft=False)
    handles = [
        Line2D([], [], color=colour, marker=mark, linestyle="-", markersize=4.5, label=name)
        for colour, mark, name in BUDGETS.values()
    ]
    legend_below(figure, handles)
    headline(figure, batch_title(experiment))
    return figure


def _caption(experiment: Experiment, endpoint: str) -> str:
    steps = experiment.config["training"]["steps"]
    against = f"Against the share of training cases that have the {_class(experiment)}"
    complete = (
        "a complete set: an image with every class for a loss that is a mean over images, a batch "
        "with every class for a loss that pools it"
    )
    if endpoint == "updates":
        least = percent(experiment.answers["absence"]["effective_from"].iloc[0])
        return (
            f"{against}: solid, the share of the steps, in runs of {steps}, whose gradient by the "
            f"logits is at least {least} of the median of the same loss over complete batches; "
            f"dashed, the predicted share, that of steps with {complete}."
        )
    whose = {
        "rarest": "the class. Crosses: most runs lose it",
        "others": f"the {_class(experiment)}",
    }[endpoint]
    return (
        f"{against}: {_subject(experiment, endpoint)} after {steps} steps, on a test set that is "
        "the same for all arms. Points: means over seeds and test cases, bars: their "
        f"{percent(experiment.confidence)} intervals. Dashed: predicted from the patches alone, in "
        f"proportion to the share of steps with {complete}; it starts from the score where every "
        f"training case has {whose}."
    )


def _batch_caption(experiment: Experiment) -> str:
    rows = _widest(experiment)
    pair = f"{_pair(rows)}: difference" if len(rows) else "Difference"
    return (
        f"{pair} in Dice of the {_class(experiment)}, paired by seed and test case, "
        f"means with their {percent(experiment.confidence)} intervals. At equal steps the larger "
        "batch sees more samples, at equal samples it takes fewer steps."
    )


def said(experiment: Experiment) -> list[str]:
    """The findings."""
    return [
        _prediction(experiment),
        _about(experiment, "updates"),
        _about(experiment, "rarest"),
        _about(experiment, "others"),
        *_batches(experiment),
        _lost(experiment),
        *sweeps.few_seeds(experiment.answers["absence"]["seeds"]),
    ]


def _prediction(experiment: Experiment) -> str:
    table = experiment.answers["absence"]
    arms = table.drop_duplicates("arm")
    shares = arms.groupby(["training_prevalence", "batch"])["complete_batches"].mean().reset_index()
    clauses = []
    for prevalence in dict.fromkeys((arms["training_prevalence"].max(),
                                     arms["training_prevalence"].min())):  # fmt: skip
        its = shares[shares["training_prevalence"] == prevalence]
        told = [
            f"{percent(row.complete_batches)} of the batches of {row.batch}"
            for row in its.itertuples()
        ]
        clauses.append(
            f"with the {_class(experiment)} in {percent(prevalence)} of the training cases "
            f"{listing(told)} hold every class"
        )
    pooling = list(dict.fromkeys(table.loc[table["reduction_set"] == "batch", "loss"]))
    pools = f"{sweeps.names(pooling)} here" if pooling else "none here"
    return (
        "The prediction: a step teaches only if it holds every class in one image or, for a loss "
        f"that pools the batch ({pools}), in the batch; and the score grows in proportion to the "
        f"steps that teach. The patches say how many those are: {'; '.join(clauses)}."
    )


def _about(experiment: Experiment, endpoint: str) -> str:
    verdicts = _verdicts(experiment, endpoint)
    found = sweeps.by_verdict(verdicts, UPDATES if endpoint == "updates" else SCORES)
    tolerance = number(verdicts["tolerance"].max())
    criterion = {
        "updates": f"A prediction counts as right if its mean error is at most {tolerance} of all "
        "steps.",
        "rarest": f"Right is a mean error of at most {tolerance} of the score where all cases have "
        "the class; learning saturates, so less than predicted does not show that incomplete "
        "sets teach.",
        "others": _why_others(experiment),
    }[endpoint]
    errors = _errors(verdicts)
    return f"{_subject(experiment, endpoint)}: {found}{errors}. {criterion}"


def _why_others(experiment: Experiment) -> str:
    table = experiment.raw["dataset"].query("split == 'train'")
    others = table[table["class"] != _class(experiment)]
    if others.groupby("class")["prevalence"].nunique().max() > 1:
        return "They, too, are in fewer training cases of some arms."
    return (
        "They are in as many training cases in every arm: what they lose is lost with the steps in "
        "which another class was absent."
    )


def _errors(verdicts: pd.DataFrame) -> str:
    known = verdicts.dropna(subset=["error"])
    if known.empty:
        return ""
    least, most = number(known["error"].min()), number(known["error"].max())
    spread = least if least == most else f"{least} to {most}"
    return f" (mean error of the prediction {spread})"


def _batches(experiment: Experiment) -> list[str]:
    rows = _widest(experiment)
    if rows.empty:
        return []
    clauses = []
    for budget, its in rows.groupby("budget", sort=False):
        clauses.append(
            f"at equal {budget} by {signed(its['difference'].median())} "
            f"({signed(its['difference'].min())} to {signed(its['difference'].max())} over losses "
            f"and these shares; {sweeps.separable(its, experiment.confidence)})"
        )
    where = listing(percent(value) for value in sorted(rows["prevalence"].unique()))
    return [
        f"{_pair(rows)} change Dice of the {_class(experiment)}, with it in {where} of the "
        f"subjects, in the median {listing(clauses)}."
    ]


def _lost(experiment: Experiment) -> str:
    table = experiment.answers["absence"]
    lost = table[table["collapsed"].astype(bool)]
    name = _class(experiment)
    if lost.empty:
        return f"No loss loses the {name} in most runs of any arm."
    arms = table.groupby("loss", sort=False)["arm"].nunique()
    told = [
        f"{sweeps.names([loss])} in {len(its)} of {count(arms[loss], 'arm')}"
        for loss, its in lost.groupby("loss", sort=False)
    ]
    return f"Most runs lose the {name} altogether: {listing(told)}."


CHAPTER = Chapter(
    figures={
        "rarest": draw_rarest,
        "others": draw_others,
        "updates": draw_updates,
        "batches": draw_batches,
    },
    captions={
        "rarest": lambda experiment: _caption(experiment, "rarest"),
        "others": lambda experiment: _caption(experiment, "others"),
        "updates": lambda experiment: _caption(experiment, "updates"),
        "batches": _batch_caption,
    },
    said=said,
    shown={
        "verdicts": "Prediction and measurement",
        "absence": "Updates, scores and collapse of every arm",
        "batches": "Batch sizes at equal steps and at equal samples",
    },
)
