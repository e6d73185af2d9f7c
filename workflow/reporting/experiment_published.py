"""What the defects of published losses cost: figures and sentences from its tables."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from workflow.reporting.experiment import Chapter, Experiment
from workflow.reporting.style import (
    BLACK,
    BLUE,
    FAINT,
    GREEN,
    GREY,
    OUTCOMES,
    PURPLE,
    VERMILION,
    WIDTH,
    headline,
    legend_below,
    loss_axis,
    new_figure,
    nothing_to_show,
    styled,
)
from workflow.reporting.wording import (
    MINUS,
    count,
    interval,
    listing,
    number,
    percent,
    readable,
    signed,
)

# verdict: colour, marker, and what one or several losses do
VERDICTS = {
    "breaks down": (BLACK, "X", "breaks down", "break down"),
    "costs": (PURPLE, "o", "scores separably lower", "score separably lower"),
    "equivalent": (BLUE, "D", "costs nothing", "cost nothing"),
    "gains": (GREEN, "s", "scores separably higher", "score separably higher"),
    "undecided": (GREY, "o", "stays undecided", "stay undecided"),
}
ENDPOINTS = {"mean_dice": "mean Dice", "rarest_dice": "Dice of the rarest class"}
SIDES = {"published": "its", "corrected": "the corrected loss's"}
# what the verdict on the rarest class adds to that on the mean
RAREST = {
    "breaks down": "",
    "costs": " (separable)",
    "equivalent": " (equivalent)",
    "gains": " (separable)",
    "undecided": " (undecided)",
}
DIGITS = 3
PAIR = 0.42  # inches a pair


# Tables


def defects(experiment: Experiment, endpoint: str) -> pd.DataFrame:
    """The pairs at one endpoint, indexed by the published loss; the worst in mean Dice first."""
    table = experiment.answers["defects"]
    mean = table[table["endpoint"] == "mean_dice"]
    order = mean.sort_values("difference", ascending=False, kind="stable")["published"]
    return table[table["endpoint"] == endpoint].set_index("published").loc[list(order)]


def twins(experiment: Experiment) -> pd.DataFrame:
    """What became of the runs of all pairs, indexed by the published loss."""
    return experiment.answers["twins"].set_index("published")


def rarest(experiment: Experiment) -> str:
    dataset = experiment.raw["dataset"]
    return str(dataset.loc[dataset["rarest"], "class"].iloc[0])


# Words


def title(experiment: Experiment) -> str:
    """The verdicts on mean Dice, counted."""
    table = defects(experiment, "mean_dice")
    if table.empty:
        return "No published loss was trained beside its correction"
    told = [f"{amount} {does}" for does, amount in _counts(table)]
    if not (table["verdict"] == "equivalent").any():
        told.append("for none is equivalence shown")
    return f"Of {count(len(table), 'published loss', 'published losses')}, {listing(told)}"


def _counts(table: pd.DataFrame) -> list[tuple[str, int]]:
    """What losses do, and how many of them, by their verdict."""
    amounts = [(rule, int((table["verdict"] == name).sum())) for name, rule in VERDICTS.items()]
    return [(one if n == 1 else many, n) for (_, _, one, many), n in amounts if n]


def said(experiment: Experiment) -> list[str]:
    """The findings: counts, the worst, the rarest class, what stays open."""
    table = defects(experiment, "mean_dice")
    if table.empty:
        return [f"{title(experiment)}."]
    rare_counts = listing(f"{n} {does}" for does, n in _counts(defects(experiment, "rarest_dice")))
    found = [
        f"In mean Dice, {_names(table)}.",
        f"{_worst(table)} By the rarest class, {rarest(experiment)}, {rare_counts}.",
        _undecided(experiment, table),
        _design(table, twins(experiment)),
    ]
    return [sentence for sentence in found if sentence]


def each(experiment: Experiment) -> dict[str, list[str]]:
    """What one defect costs and how it comes about, the worst first."""
    table, rare = (defects(experiment, endpoint) for endpoint in ENDPOINTS)
    pairs = twins(experiment)
    mechanism = experiment.answers["mechanisms"].set_index("published")["mechanism"]
    found = {}
    for label, row in table.iterrows():
        line = f"{readable(label)}: {row['verdict']}"
        if math.isfinite(row["difference"]):
            line = f"{line}, {_gap(row)}"
        found[line] = [_one(label, row, rare.loc[label], pairs.loc[label]), mechanism[label]]
    return found


def _names(table: pd.DataFrame) -> str:
    """Counts of the verdicts with the names."""
    told = []
    for verdict, (_, _, one, many) in VERDICTS.items():
        labels = list(table.index[table["verdict"] == verdict])
        if labels:
            names = listing(_short(label) for label in labels)
            told.append(f"{len(labels)} {one if len(labels) == 1 else many} ({names})")
        elif verdict == "equivalent":
            told.append("for none is equivalence shown")
    total = count(len(table), "published loss", "published losses")
    return f"of {total} against their corrections, {listing(told)}"


def _short(label: str) -> str:
    """A published loss's name where it is plain that it is published."""
    return readable(label).removesuffix(" (published)")


def _worst(table: pd.DataFrame) -> str:
    known = table.dropna(subset=["difference"])
    if known.empty or known["difference"].iloc[0] <= 0:
        return "No published loss scores lower than its correction."
    row = known.iloc[0]
    return (
        f"The largest difference is that of {readable(known.index[0])}: its correction, "
        f"{readable(row['corrected'])}, scores higher by {_gap(row)}."
    )


def _gap(row: pd.Series, prefix: str = "") -> str:
    """A difference with its interval, in as many digits as the margin needs."""
    low, high = row[f"{prefix}low"], row[f"{prefix}high"]
    shown = interval(low, high, DIGITS, sign=True)
    return f"{signed(row[f'{prefix}difference'], DIGITS)} {shown}".strip()


def _undecided(experiment: Experiment, table: pd.DataFrame) -> str:
    """What "undecided" does not mean."""
    rows = table[table["verdict"] == "undecided"]
    smallest = rows["smallest_margin"].dropna()
    if rows.empty:
        return ""
    told = (
        "Undecided is not without a cost: with all pairs judged at once, neither a difference nor "
        "equivalence is shown, though the interval of one pair alone may leave out zero."
    )
    if smallest.empty:
        return told
    margin = float(experiment.config["comparison"]["margin"])
    low, high = number(smallest.min(), DIGITS), number(smallest.max(), DIGITS)
    return (
        f"{told} The smallest margin at which equal losses would be called equivalent four times "
        f"in five is {low if low == high else f'{low} to {high}'} for these pairs, and above the "
        f"study's {margin:g} for {int((smallest > margin).sum())} of {len(smallest)}."
    )


def _design(table: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """How the pairs were compared, and which were not."""
    ran = pairs.loc[table.index]
    same = int((ran["published_learning_rate"] == ran["corrected_learning_rate"]).sum())
    seeds = int(table["seeds"].max())
    told = (
        f"Both losses of a pair saw the same patches from the same initial weights, in "
        f"{count(seeds, 'seed')}, each at its own learning rate. The rate is the same in {same} of "
        f"{count(len(ran), 'pair')}; elsewhere a difference is that of loss and rate together."
    )
    if seeds == 1:
        told += " With one seed the intervals are over cases and say nothing of another start."
    if len(pairs) > len(table):
        missing = len(pairs) - len(table)
        told += f" {missing} of {count(len(pairs), 'pair')} did not run."
    return told


def _one(label: str, row: pd.Series, rare: pd.Series, twin: pd.Series) -> str:
    """What one defect costs, as a sentence."""
    name, fix = readable(label), readable(row["corrected"])
    if not math.isfinite(row["difference"]):
        return f"{name} cannot be compared with {fix}: no seed has scores of both."
    does = {
        "breaks down": "breaks down",
        "costs": f"scores lower than {fix}",
        "gains": f"scores higher than {fix}",
        "equivalent": f"costs nothing, being equivalent to {fix} within ±{row['margin']:g}",
        "undecided": f"can be neither told from {fix} nor called equivalent to it",
    }[row["verdict"]]
    within = ""
    if row["verdict"] in ("costs", "gains") and row["equivalence"] == "equivalent":
        within = f", a difference within ±{row['margin']:g}"
    return (
        f"{name} {does}{within}: corrected {MINUS} published is {_gap(row)} in mean Dice and "
        f"{_gap(rare)} in the rarest class{RAREST[rare['verdict']]}{_losses_of_runs(row, twin)}."
    )


def _losses_of_runs(row: pd.Series, twin: pd.Series) -> str:
    """Collapse of both, and the difference without it."""
    told = []
    for side, whose in SIDES.items():
        fates = [
            f"{int(twin[f'{side}_{name}'])} {words}"
            for name, (_, words) in OUTCOMES.items()
            if name != "none" and twin[f"{side}_{name}"]
        ]
        if fates:
            told.append(f"of {whose} {count(int(twin[f'{side}_runs']), 'run')} {listing(fates)}")
    if not told:
        return ""
    held = int(row["standing_seeds"])
    without = "at no seed do both hold"
    if held:
        without = f"where both hold ({count(held, 'seed')}) it is {_gap(row, 'standing_')}"
    return f"; collapse: {' and '.join(told)}; {without}"


# Figures


@styled
def draw_cost(experiment: Experiment) -> Figure:
    """The paired differences of both endpoints, the margin, and what became of the runs."""
    table, pairs = defects(experiment, "mean_dice"), twins(experiment)
    if table.empty:
        return nothing_to_show(title(experiment))
    figure = new_figure(WIDTH, 1.7 + PAIR * max(len(table), 3))
    *axes, outcomes = figure.subplots(1, 3, sharey=True, width_ratios=[1, 1, 0.42])
    for axis, (endpoint, name) in zip(axes, ENDPOINTS.items(), strict=True):
        _draw_differences(axis, defects(experiment, endpoint))
        if endpoint == "rarest_dice":
            name = f"{name} ({rarest(experiment)})"
        axis.set_title(name)
        axis.set_xlabel(f"corrected {MINUS} published")
        loss_axis(axis, list(table.index))
    # one scale for both, and no further than a difference of Dice can reach
    low, high = np.transpose([axis.get_xlim() for axis in axes])
    for axis in axes:
        axis.set_xlim(max(-1, low.min()), min(1, high.max()))
        axis.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    _draw_outcomes(outcomes, pairs.loc[table.index])
    loss_axis(outcomes, list(table.index))
    for axis in (axes[1], outcomes):
        axis.tick_params(labelleft=False)
    # the labels of loss_axis name the published loss; here the row is the pair
    axes[0].set_yticklabels(_pair_names(table))
    legend_below(figure, _legend(experiment, table, pairs), 4)
    headline(figure, title(experiment))
    return figure


def _pair_names(table: pd.DataFrame) -> list[str]:
    """With `(published)` only where the names would be the same."""
    names = []
    for old, fix in table["corrected"].items():
        before = readable(old) if _short(old) == readable(fix) else _short(old)
        names.append(f"{before}\n→ {readable(fix)}")
    return names


def _draw_differences(axis: Axes, table: pd.DataFrame) -> None:
    margin = table["margin"].iloc[0]
    axis.axvspan(-margin, margin, color=FAINT, linewidth=0)
    axis.axvline(0, color=BLACK, linewidth=0.8)
    for place, (_, row) in enumerate(table.iterrows()):
        colour, marker, *_ = VERDICTS[row["verdict"]]
        if row["standing_seeds"] < row["seeds"]:
            _draw_interval(axis, row, "standing_", place + 0.22, GREY, 1)
            axis.plot(row["standing_difference"], place + 0.22, "o", ms=4, color="white",
                      markeredgecolor=GREY)  # fmt: skip
        _draw_interval(axis, row, "", place, colour, 2)
        axis.plot(row["difference"], place, marker, ms=6, color=colour, markeredgecolor="white",
                  markeredgewidth=0.6)  # fmt: skip


def _draw_interval(
    axis: Axes, row: pd.Series, prefix: str, place: float, colour: str, width: float
) -> None:
    ends = row[f"{prefix}low"], row[f"{prefix}high"]
    axis.plot(ends, (place, place), color=colour, linewidth=width)


def _draw_outcomes(axis: Axes, pairs: pd.DataFrame) -> None:
    """A square a run: the published loss on the left, the corrected one on the right."""
    most = int(pairs[[f"{side}_runs" for side in SIDES]].max().max())
    for place, (_, twin) in enumerate(pairs.iterrows()):
        for side, start in zip(SIDES, (0, most + 1), strict=True):
            amounts = [int(twin[f"{side}_{name}"]) for name in OUTCOMES]
            colours = np.repeat([colour for colour, _ in OUTCOMES.values()], amounts)
            for index, colour in enumerate(colours):
                axis.add_patch(_square(start + index, place, colour))
    axis.set_xlim(-0.6, 2 * most + 0.6)
    axis.set_xticks([(most - 1) / 2, most + 1 + (most - 1) / 2], ["published", "corrected"])
    axis.tick_params(axis="x", length=0)
    axis.spines["bottom"].set_visible(False)
    axis.set_title("runs")


def _square(x: float, y: float, colour: str) -> Patch:
    return Rectangle((x - 0.4, y - 0.2), 0.8, 0.4, facecolor=colour, linewidth=0)


def _legend(experiment: Experiment, table: pd.DataFrame, pairs: pd.DataFrame) -> list:
    seen = set(experiment.answers["defects"]["verdict"])
    handles: list = [
        Line2D([], [], color=colour, marker=marker, ms=7, label=one)
        for verdict, (colour, marker, one, _) in VERDICTS.items()
        if verdict in seen
    ]
    handles.append(Patch(color=FAINT, label=f"margin ±{table['margin'].iloc[0]:g}"))
    if (table["standing_seeds"].between(1, table["seeds"] - 1)).any():
        handles.append(Line2D([], [], color=GREY, marker="o", ms=4, markerfacecolor="white",
                              lw=1, label="seeds at which both hold"))  # fmt: skip
    ran = pairs.loc[table.index]
    handles += [
        Patch(color=colour, label=f"run: {words}")
        for name, (colour, words) in OUTCOMES.items()
        if ran[[f"{side}_{name}" for side in SIDES]].to_numpy().any()
    ]
    return handles


def _cost_caption(experiment: Experiment) -> str:
    scope = "seeds and cases" if experiment.raw["runs"]["seed"].nunique() > 1 else "cases"
    return (
        "Every published loss against the loss that corrects it, the largest "
        "difference in mean Dice first. A marker is the paired difference of Dice, a line its "
        f"{percent(experiment.confidence)} interval over {scope}, cut at ±1; right of zero the "
        "correction scores higher. Colour and shape are the verdict: separable if p, "
        "Holm-corrected over the pairs, is below the level; equivalent (costs nothing) if two "
        "one-sided tests, corrected alike, place the difference within the grey margin. A loss "
        "breaks down if it lost every class or diverged in most of its runs. Below a marker, in "
        "grey, the difference over the seeds at which neither loss collapsed, where runs "
        "collapsed and such seeds remain. Right: what became of each run."
    )


def _gains(experiment: Experiment) -> pd.DataFrame:
    """Corrected minus published Dice of each class, a row a pair."""
    table = defects(experiment, "mean_dice")
    scores = experiment.summary.set_index("loss")[[f"dice_{c}" for c in experiment.classes]]
    gained = scores.loc[table["corrected"]].to_numpy() - scores.loc[table.index].to_numpy()
    return pd.DataFrame(gained, index=table.index, columns=experiment.classes)


def classes_title(experiment: Experiment) -> str:
    if defects(experiment, "mean_dice").empty:
        return title(experiment)
    median = _gains(experiment).median().dropna().sort_values(ascending=False, kind="stable")
    if median.empty:
        return "No pair has scores of both losses"
    told = listing(f"{signed(value)} in {name}" for name, value in median.items())
    return f"What correcting changes in the median over the pairs: {told}"


@styled
def draw_classes(experiment: Experiment) -> Figure:
    """Dice of the published and of the corrected loss in each class."""
    table = defects(experiment, "mean_dice")
    if table.empty:
        return nothing_to_show(title(experiment))
    summary = experiment.summary.set_index("loss")
    figure = new_figure(WIDTH, 1.5 + PAIR * max(len(table), 3))
    axes = figure.subplots(1, len(experiment.classes), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, experiment.classes, strict=True):
        for place, (old, fix) in enumerate(table["corrected"].items()):
            before, after = summary.at[old, f"dice_{name}"], summary.at[fix, f"dice_{name}"]
            colour = BLUE if after >= before else VERMILION
            axis.plot([before, after], [place, place], color=colour, linewidth=1.6)
            # the ring is larger than the dot, so that both are seen where they coincide
            axis.plot(before, place, "o", ms=8, color="white", markeredgecolor=colour,
                      markeredgewidth=1.5)  # fmt: skip
            axis.plot(after, place, "o", ms=4.5, color=colour)
        axis.set_xlim(-0.03, 1)
        axis.set_title(f"{name} (rarest)" if name == rarest(experiment) else name)
        axis.set_xlabel("Dice")
        loss_axis(axis, list(table.index))
    for axis in axes[1:]:
        axis.tick_params(labelleft=False)
    axes[0].set_yticklabels(_pair_names(table))
    handles = [
        Line2D([], [], marker="o", linestyle="", color="white", markeredgecolor=BLACK, ms=8,
               markeredgewidth=1.5, label="published"),
        Line2D([], [], marker="o", linestyle="", color=BLACK, ms=4.5, label="corrected"),
        Line2D([], [], color=BLUE, label="correction scores higher"),
        Line2D([], [], color=VERMILION, label="correction scores lower"),
    ]  # fmt: skip
    legend_below(figure, handles)
    headline(figure, classes_title(experiment))
    return figure


CHAPTER = Chapter(
    figures={"cost": draw_cost, "classes": draw_classes},
    captions={
        "cost": _cost_caption,
        "classes": lambda experiment: (
            "Dice of each class over the test cases that have it, in the mean of all runs: the "
            "ring is the published loss, the dot the one that corrects it. Pairs are in the order "
            "of the figure above. Both losses have a learning rate of their own."
        ),
    },
    said=said,
    each=each,
    shown={
        "defects": "Corrected minus published",
        "twins": "Learning rates, and what became of the runs",
    },
)
