"""Imbalance: Dice of the rarest class as it shrinks, and what centred patches hide."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from workflow.reporting import sweeps
from workflow.reporting.experiment import Chapter, Experiment
from workflow.reporting.style import (
    BLACK,
    FAINT,
    LINE_COLOURS,
    WIDTH,
    headline,
    legend_below,
    new_figure,
    styled,
)
from workflow.reporting.wording import count, number, percent, readable, signed

MARKS = ("o", "s", "^", "D", "v", "P", "*")
COLOURS = "Blues"
DODGE = 0.035  # decades between the points of neighbouring losses


def _matched(experiment: Experiment) -> str:
    """The test set whose lesions are as large as in training; losses are judged on it.

    On the fixed one a loss may fail because sizes differ, however rare the class was.
    """
    own = str(experiment.config["dataset"]["name"])
    return own if own in set(experiment.answers["imbalance"]["test_set"]) else experiment.test_set


def _table(experiment: Experiment, name: str) -> pd.DataFrame:
    """Rows of an answer for the matched test set."""
    table = experiment.answers[name]
    return table[table["test_set"] == _matched(experiment)]


def _class(experiment: Experiment) -> str:
    return str(experiment.answers["imbalance"]["class"].iloc[0])


def _test_sets(experiment: Experiment) -> list[str]:
    """The matched test set first."""
    found = dict.fromkeys(experiment.answers["imbalance"]["test_set"])
    return sorted(found, key=lambda name: name != _matched(experiment))


def _test_set_title(experiment: Experiment, name: str) -> str:
    if name == str(experiment.config["dataset"]["name"]):
        return "Test lesions as large as in training"
    return "The same test lesions for all arms (transfer)"


def _fraction(value: float) -> str:
    """A share of voxels for people: two significant digits of a percentage."""
    return f"{100 * value:.2g} %"


def fraction_title(experiment: Experiment) -> str:
    """The smallest share that losses learn, at the least and the largest share of centring."""
    table = _table(experiment, "collapse")
    table = table[table["verdict"] != "not measured"]
    if table.empty:
        return f"No run tells at which share the {_class(experiment)} is learnt"
    told: dict[str, list[str]] = {}
    for share in dict.fromkeys((table["centred"].min(), table["centred"].max())):
        learnt = _least_learnt(table[table["centred"] == share])
        told.setdefault(learnt, []).append(f"with {percent(share)}")
    first, *more = [f"{learnt} {' as '.join(shares)}" for learnt, shares in told.items()]
    return (
        f"Smallest share of the voxels at which a loss still learns the {_class(experiment)}: "
        f"{' and '.join([f'{first} of the patches centred on foreground', *more])}"
    )


def _least_learnt(rows: pd.DataFrame) -> str:
    held = rows["least_held"].dropna()
    if held.empty:
        return "none"
    learnt = " to ".join(dict.fromkeys(_fraction(end) for end in (held.min(), held.max())))
    never = f" (none by {len(rows) - len(held)} of {count(len(rows), 'loss', 'losses')})"
    return f"{learnt}{never if len(held) < len(rows) else ''}"


@styled
def draw_fraction(experiment: Experiment) -> Figure:
    """Dice against the class's share of the training voxels; columns: centring, rows: test set."""
    table = experiment.answers["imbalance"]
    table = table.rename(columns={"dice_low": "low", "dice_high": "high"})
    sets, shares = _test_sets(experiment), sorted(table["centred"].unique())
    labels = list(dict.fromkeys(table["loss"]))
    figure = new_figure(WIDTH, 1.3 + 2.6 * len(sets))
    grid = figure.subplots(len(sets), len(shares), sharex=True, sharey=True, squeeze=False)
    for line, name in zip(grid, sets, strict=True):
        for axis, share in zip(line, shares, strict=True):
            _voxel_axis(axis, table["fraction"])
            axis.set_ylim(-0.03, 1)
            for place, label in enumerate(labels):
                rows = table[(table["test_set"] == name) & (table["centred"] == share)]
                dodge = DODGE * (place - (len(labels) - 1) / 2)
                sweeps.curve(axis, rows[rows["loss"] == label], "fraction", "dice",
                             LINE_COLOURS[place % len(LINE_COLOURS)], MARKS[place % len(MARKS)],
                             dodge)  # fmt: skip
        line[0].set_title(_test_set_title(experiment, name), loc="left", fontsize=9)
    figure.supylabel(f"Dice of the {_class(experiment)}", fontsize=9)
    _name_axes(grid, shares, "share of the training voxels")
    handles = [
        Line2D([], [], color=LINE_COLOURS[place % len(LINE_COLOURS)], markersize=4.5,
               marker=MARKS[place % len(MARKS)], label=readable(label))
        for place, label in enumerate(labels)
    ]  # fmt: skip
    legend_below(figure, handles + [sweeps.LOST] * bool(table["collapsed"].any()), columns=4)
    headline(figure, fraction_title(experiment))
    return figure


def _name_axes(grid: np.ndarray, shares: list[float], across: str) -> None:
    """The share of centred patches above each column, what runs along x below it."""
    for first, last, share in zip(grid[0], grid[-1], shares, strict=True):
        # the empty line is the title of the row
        first.set_title(f"{percent(share)} of the patches centred\n", fontsize=9)
        last.set_xlabel(across, fontsize=9)


def _voxel_axis(axis: Axes, fractions: pd.Series) -> None:
    """Logarithmic, with a tick at every fraction that there is."""
    places = sorted(set(fractions))
    axis.set_xscale("log")
    axis.set_xticks(places, [_fraction(value) for value in places], fontsize=7, rotation=35)
    axis.minorticks_off()
    axis.set_xlim(places[0] / 2, places[-1] * 2)


def centring_title(experiment: Experiment) -> str:
    """What centring the largest share of patches changes."""
    rows = _widest(experiment)
    if rows.empty:
        return f"Dice of the {_class(experiment)} for every volume of the lesions"
    ends = [rows.loc[rows["difference"].idxmin()], rows.loc[rows["difference"].idxmax()]]
    told = [
        f"{signed(row['difference'])} ({readable(row['loss'])} at {row['volume']:g} ml)"
        for row in ends
    ]
    centred, against = percent(rows["centred"].iloc[0]), percent(rows["against_centred"].iloc[0])
    return (
        f"Centring {centred} instead of {against} of the patches changes Dice of the "
        f"{_class(experiment)} by {signed(rows['difference'].median())} in the median, from "
        f"{' to '.join(told)}"
    )


def _widest(experiment: Experiment) -> pd.DataFrame:
    """Differences between the largest and the smallest share of centred patches."""
    rows = _pairs(experiment)
    return rows[~_both_lost(rows)]


def _pairs(experiment: Experiment) -> pd.DataFrame:
    table = _table(experiment, "centring").dropna(subset=["difference"])
    return table[(table["centred"] == table["centred"].max())
                 & (table["against_centred"] == table["against_centred"].min())]  # fmt: skip


def _both_lost(rows: pd.DataFrame) -> pd.Series:
    return rows["p"].notna() & rows["p_holm"].isna()


@styled
def draw_map(experiment: Experiment) -> Figure:
    """Dice for each loss and volume, a field each; hatched where most runs lose the class."""
    table = experiment.answers["imbalance"]
    sets, shares = _test_sets(experiment), sorted(table["centred"].unique())
    labels, volumes = list(dict.fromkeys(table["loss"])), sorted(table["volume"].unique())
    figure = new_figure(WIDTH, 1.3 + len(sets) * (0.6 + 0.3 * max(len(labels), 3)))
    grid = figure.subplots(len(sets), len(shares), sharex=True, sharey=True, squeeze=False)
    for line, name in zip(grid, sets, strict=True):
        for axis, share in zip(line, shares, strict=True):
            rows = table[(table["test_set"] == name) & (table["centred"] == share)]
            fields = rows.pivot(index="loss", columns="volume", values="dice")
            fields = fields.reindex(index=labels, columns=volumes)
            image = axis.imshow(fields, cmap=COLOURS, vmin=0, vmax=1, aspect="auto")
            for row in rows[rows["collapsed"].astype(bool)].itertuples():
                x, y = volumes.index(row.volume), labels.index(row.loss)
                axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="////",
                                         edgecolor="#7A7A7A", linewidth=0))  # fmt: skip
            _tell_fields(axis, fields)
            axis.set_xticks(range(len(volumes)), [f"{volume:g}" for volume in volumes])
            axis.set_yticks(range(len(labels)), [readable(label) for label in labels])
            axis.tick_params(length=0)
        line[0].set_title(_test_set_title(experiment, name), loc="left", fontsize=9)
    _name_axes(grid, shares, "lesions in training (ml)")
    figure.colorbar(image, ax=grid, label=f"Dice of the {_class(experiment)}", aspect=40)
    hatched = Patch(facecolor="white", edgecolor="#7A7A7A", hatch="////", linewidth=0,
                    label="class lost in most runs")  # fmt: skip
    legend_below(figure, [hatched])
    headline(figure, centring_title(experiment))
    return figure


def _tell_fields(axis: Axes, fields: pd.DataFrame) -> None:
    """The number of each field, and grey where no run has finished."""
    for (y, x), value in np.ndenumerate(fields.to_numpy(float)):
        if np.isnan(value):
            axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=FAINT, linewidth=0))
            continue
        # a patch of the field's colour keeps the hatching out of the number
        field = matplotlib.colormaps[COLOURS](value)
        axis.text(x, y, number(value), ha="center", va="center", fontsize=7,
                  color="white" if value > 0.6 else BLACK,
                  bbox={"facecolor": field, "linewidth": 0, "pad": 1})  # fmt: skip


def _fraction_caption(experiment: Experiment) -> str:
    return (
        f"Dice of the {_class(experiment)} against its share of the voxels of the training cases: "
        f"means over seeds and test cases with their {percent(experiment.confidence)} intervals, "
        "losses set apart a little; crosses: most runs lose the class. Test lesions that shrink "
        "with those of training decide what a loss learns, though small things score lower anyway; "
        "the same lesions for all arms ask how a network meets another size than it has seen."
    )


def _map_caption(experiment: Experiment) -> str:
    return (
        f"Mean Dice of the {_class(experiment)} for each loss and volume of the training lesions. "
        "Hatched: most runs lose the class. Grey: no run."
    )


def said(experiment: Experiment) -> list[str]:
    """The findings."""
    table = _table(experiment, "collapse")
    return [
        _range(experiment),
        *(_collapse(experiment, share) for share in sorted(table["centred"].unique())),
        *_centring(experiment),
        *_transfer(experiment),
        *sweeps.few_seeds(experiment.answers["imbalance"]["seeds"]),
    ]


def _range(experiment: Experiment) -> str:
    table = experiment.answers["imbalance"]
    ends = [table.loc[table["volume"].idxmax()], table.loc[table["volume"].idxmin()]]
    told = [f"{_fraction(row['fraction'])} at {row['volume']:g} ml" for row in ends]
    return (
        f"The {_class(experiment)} is the rarest class. Its share of the training voxels is "
        f"{' and '.join(dict.fromkeys(told))} of lesion."
    )


def _collapse(experiment: Experiment, share: float) -> str:
    """The smallest share of the class that each loss learns, with this share of centring."""
    table = _table(experiment, "collapse")
    rows = table[table["centred"] == share]
    measured = rows[rows["verdict"] != "not measured"].sort_values("least_held", kind="stable")
    clauses = [
        f"{_fraction(least)} with {sweeps.names(its['loss'])}"
        for least, its in measured.groupby("least_held")
    ]
    for found, words in (
        (measured["least_held"].isna(), "none with"),
        (measured["verdict"] == "in places", "lost at a larger share as well by"),
    ):
        if found.any():
            clauses.append(f"{words} {sweeps.names(measured.loc[found, 'loss'])}")
    if len(measured) < len(rows):
        unknown = sweeps.names(rows.loc[rows["verdict"] == "not measured", "loss"])
        clauses.append(f"no finished run of {unknown}")
    return (
        f"With {percent(share)} of the patches centred on foreground, the smallest share that most "
        f"runs still learn is {'; '.join(clauses)}."
    )


def _centring(experiment: Experiment) -> list[str]:
    pairs, rows = _pairs(experiment), _widest(experiment)
    if rows.empty:
        return []
    gone = len(pairs) - len(rows)
    dropped = (
        f" {count(gone, 'pair')} in which both lost it {'is' if gone == 1 else 'are'} left out."
    )
    separable = sweeps.separable(rows, experiment.confidence)
    return [
        f"{centring_title(experiment)}.{dropped if gone else ''} "
        f"{separable[0].upper()}{separable[1:]}."
    ]


def _transfer(experiment: Experiment) -> list[str]:
    """Where test lesions of one size judge most differently from those as large as in training."""
    sets = _test_sets(experiment)
    if len(sets) < 2:
        return []
    table = experiment.answers["imbalance"]
    table = table[table["runs"] > 0].assign(collapsed=table["collapsed"].astype(bool))
    lost = table.pivot_table(index="volume", columns="test_set", values="collapsed", aggfunc="sum")[
        sets
    ]
    gap = (lost[sets[1]] - lost[sets[0]]).abs()
    start = "Test lesions that are the same for all arms ask for transfer to another size: "
    if not gap.any():
        return [
            f"{start}at every volume they lose the class as often as lesions as large as in "
            "training."
        ]
    volume = gap.idxmax()
    matched, fixed = lost.loc[volume]
    runs = len(table[(table["volume"] == volume) & (table["test_set"] == sets[0])])
    return [
        f"{start}trained at {volume:g} ml, {fixed} of {count(runs, 'combination')} of loss and "
        f"centring lose the class there, against {matched} on lesions as large as in training."
    ]


CHAPTER = Chapter(
    figures={"fraction": draw_fraction, "map": draw_map},
    captions={"fraction": _fraction_caption, "map": _map_caption},
    said=said,
    shown={
        "collapse": "Where the rarest class is lost",
        "imbalance": "Scores and collapse of every arm",
        "centring": "Centred patches against none or fewer",
    },
)
