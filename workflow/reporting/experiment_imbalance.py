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
from workflow.reporting.wording import count, listing, number, percent, readable, signed

MARKS = ("o", "s", "^", "D", "v", "P", "*")
COLOURS = "Blues"
DODGE = 0.035  # decades between the points of neighbouring losses


def _table(experiment: Experiment, name: str) -> pd.DataFrame:
    """Rows of an answer for the deciding test set."""
    table = experiment.answers[name]
    return table[table["test_set"] == experiment.test_set]


def _class(experiment: Experiment) -> str:
    return str(experiment.answers["imbalance"]["class"].iloc[0])


def _test_sets(experiment: Experiment) -> list[str]:
    """The deciding test set first."""
    found = dict.fromkeys(experiment.answers["imbalance"]["test_set"])
    return sorted(found, key=lambda name: name != experiment.test_set)


def _test_set_title(experiment: Experiment, name: str) -> str:
    fixed = name == experiment.test_set and len(_test_sets(experiment)) > 1
    return "the same test lesions for all arms" if fixed else "test lesions as large as in training"


def _fraction(value: float) -> str:
    """A share of voxels for people: two significant digits of a percentage."""
    return f"{100 * value:.2g} %"


def _losers(experiment: Experiment, centred: float) -> int:
    table = _table(experiment, "collapse")
    return int((table.loc[table["centred"] == centred, "collapsed_arms"] > 0).sum())


def fraction_title(experiment: Experiment) -> str:
    """How many losses lose the class somewhere, at the least and the largest share of centring."""
    table = _table(experiment, "collapse")
    first, *last = dict.fromkeys((table["centred"].min(), table["centred"].max()))
    losses = count(table["loss"].nunique(), "loss", "losses")
    return (
        f"As it shrinks, the {_class(experiment)} is lost by {_losers(experiment, first)} of "
        f"{losses} with {percent(first)} of the patches centred on foreground"
    ) + "".join(f" and by {_losers(experiment, share)} with {percent(share)}" for share in last)


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
        line[0].set_ylabel(f"Dice of the {_class(experiment)}\n{_test_set_title(experiment, name)}",
                           fontsize=8.5)  # fmt: skip
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
        first.set_title(f"{percent(share)} of the patches centred", fontsize=9)
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
    table = _table(experiment, "centring").dropna(subset=["difference"])
    return table[(table["centred"] == table["centred"].max())
                 & (table["against_centred"] == table["against_centred"].min())]  # fmt: skip


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
        line[0].set_ylabel(_test_set_title(experiment, name), fontsize=8)
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
        "losses set apart a little; crosses: most runs lose the class. Below the fixed test set, "
        "which also asks how a network meets lesions of another size than it has seen, stand test "
        "lesions that shrink with those of training, and small things score lower anyway."
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
        *_scaled(experiment),
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
    """Where each loss loses the class, with this share of centred patches."""
    table = _table(experiment, "collapse")
    rows = table[table["centred"] == share]
    clauses = []
    for (verdict, _), its in rows.fillna({"volume": -1}).groupby(
        ["verdict", "volume"], sort=False, dropna=False
    ):
        first = its.iloc[0]
        several = len(its) > 1
        place = f"{_fraction(first['fraction'])} ({first['volume']:g} ml)"
        clauses.append(
            sweeps.names(its["loss"])
            + {
                "holds": f" {'hold' if several else 'holds'} it at every volume",
                "everywhere": f" {'lose' if several else 'loses'} it at every volume",
                "from": f" {'lose' if several else 'loses'} it from {place} on down",
                "in places": f" {'lose' if several else 'loses'} it at {place} but not at every "
                "smaller share",
                "not measured": f" {'have' if several else 'has'} no finished run",
            }[verdict]
        )
    return (
        f"With {percent(share)} of the patches centred on foreground, counting a class as lost "
        f"where most runs lose it: {'; '.join(clauses)}."
    )


def _centring(experiment: Experiment) -> list[str]:
    rows = _widest(experiment)
    if rows.empty:
        return []
    table = _table(experiment, "imbalance").merge(rows[["loss", "volume"]])
    lost = table[table["collapsed"].astype(bool)]
    counts = listing(
        f"{int((lost['centred'] == share).sum())} with {percent(share)}"
        for share in (rows["against_centred"].iloc[0], rows["centred"].iloc[0])
    )
    separable = _upper(sweeps.separable(rows, experiment.confidence))
    return [
        f"{centring_title(experiment)}. {separable}. Of {count(len(rows), 'combination')} of loss "
        f"and volume most runs lose the class in {counts}."
    ]


def _upper(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _scaled(experiment: Experiment) -> list[str]:
    """The fixed test set against the one whose lesions shrink, for the smallest lesions."""
    sets = _test_sets(experiment)
    if len(sets) < 2:
        return []
    table = experiment.answers["imbalance"]
    rows = table[table["volume"] == table["volume"].min()]
    clauses = []
    for name in sets:
        its = rows[rows["test_set"] == name]
        clauses.append(
            f"{number(its['dice'].median())} on {_test_set_title(experiment, name)} "
            f"({int(its['collapsed'].astype(bool).sum())} of {len(its)} lose the class)"
        )
    return [
        f"Trained on the smallest lesions ({rows['volume'].iloc[0]:g} ml), Dice of the "
        f"{_class(experiment)} is, in the median over losses and shares of centred patches, "
        f"{listing(clauses)}."
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
