"""One page over several studies: what holds in all of them, and how alike they rank the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from workflow import files
from workflow.reporting import (
    answer,
    chart,
    corrections,
    downloads,
    failures,
    page,
    provenance,
    ranking,
    text,
)
from workflow.reporting.figures_curves import draw_validation_curves
from workflow.reporting.study_tables import FLOOR, Study, read_study
from workflow.reporting.style import (
    BLACK,
    FAINT,
    GREY,
    LINE_COLOURS,
    WIDTH,
    headline,
    legend_below,
    new_figure,
    nothing_to_show,
    save,
    styled,
)
from workflow.reporting.wording import (
    count,
    interval,
    listing,
    number,
    readable,
    shortened,
)

QUESTION = "Which losses survive class imbalance in every one of these studies?"
NAMED = 10
RANKS = (
    "Place of each loss that all studies have, by mean Dice; names at the left in the order of the "
    "first study, at the right in that of the last. A cross: a run of the loss lost a class, "
    "diverged or failed there. Dashed: as published."
)


def build(out: Path, folders: Mapping[str, Path]) -> Path:
    """Write `report.html` of a comparison, whose `tables/stability.csv` is there, into `out`.

    ``folders``: the folder of each study by the name that the page calls it.
    """
    studies = {name: read_study(folder) for name, folder in folders.items()}
    table = scores(studies)
    files.write_table(out / "tables" / "scores.csv", table)
    stability = files.read_table(out / "tables" / "stability.csv")
    pairs = corrections.in_studies(studies)
    files.write_table(out / "tables" / "corrections.csv", corrections.table(pairs))
    safe = safe_in(studies)
    losses = _losses(studies, safe)
    curves = chart.curves(studies, [row["loss"] for row in losses])
    figures = {"ranks": _ranks(studies, safe, out / "figures"), **_curves(studies, out / "figures")}
    code = page.render(
        "across.html.j2",
        question=QUESTION,
        studies=studies,
        of_what={name: _of_what(study) for name, study in studies.items()},
        answers=answers(studies, safe, pairs, stability),
        losses=losses,
        stability=stability.to_dict("records"),
        endpoints={"mean_dice": "mean Dice", "rarest_dice": "rarest class"},
        figures=figures,
        curves=curves,
        curve_figures=[name for name in figures if name != "ranks"],
        library=chart.library() if curves else {},
        pairs=pairs,
        warnings={
            name: failures.warnings(study, failures.missing(study))
            for name, study in studies.items()
        },
        made={name: _made(study) for name, study in studies.items()},
        downloads=downloads.tables(out),
    )
    files.write_text(out / "report.html", code)
    return out / "report.html"


def shared(studies: Mapping[str, Study]) -> list[str]:
    """The losses that all studies have, in the order of their mean place."""
    found = [set(study.losses) for study in studies.values()]
    labels = set.intersection(*found) if found else set()
    places = [{label: i for i, label in enumerate(s.losses)} for s in studies.values()]
    return sorted(labels, key=lambda label: (sum(place[label] for place in places), label))


def scores(studies: Mapping[str, Study]) -> pd.DataFrame:
    """Mean Dice and place of each loss in each study."""
    columns = ["mean_dice", "mean_dice_low", "mean_dice_high", "rarest_dice", "rarest_dice_low",
               "rarest_dice_high", "collapse_rate", "tier"]  # fmt: skip
    tables = []
    for name, study in studies.items():
        table = text.trained(study)
        if len(table):
            table = table[["loss", *columns]].assign(place=range(1, len(table) + 1))
            table.insert(0, "study", name)
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def safe_in(studies: Mapping[str, Study]) -> dict[str, set[str]]:
    """The losses that kept every class in each run, by study."""
    return {name: set(answer.safe(study)) for name, study in studies.items()}


def answers(
    studies: Mapping[str, Study],
    safe: Mapping[str, Set[str]],
    pairs: Sequence[Mapping[str, Any]],
    stability: pd.DataFrame,
) -> list[answer.Answer]:
    """What is safe everywhere or nowhere, what correcting gains, how alike the rankings are."""
    labels = shared(studies)
    everywhere = [x for x in labels if all(x in kept for kept in safe.values())]
    nowhere = [x for x in labels if not any(x in kept for kept in safe.values())]
    among = (
        f"{count(len(labels), 'loss', 'losses')} in {'both' if len(studies) == 2 else 'all'} "
        f"{len(studies)} studies"
    )
    depends = [readable(x) for x in labels if x not in {*everywhere, *nowhere}]
    return [
        answer.Answer("Safe everywhere", _named(everywhere, among, "kept every class in each run")),
        answer.Answer(
            "Safe nowhere", _named(nowhere, among, "lost a class in a run of each study")
        ),
        answer.Answer(
            "It depends",
            f"Of {among}, {len(depends) or 'none'} {'is' if len(depends) == 1 else 'are'} safe in "
            "one study and not in another"
            + (f": {shortened(depends, NAMED)}." if depends else "."),
        ),
        answer.Answer("What correcting gains", _gains(pairs, len(studies))),
        answer.Answer("How alike they rank", " ".join(_alike(stability))),
    ]


def _named(labels: Sequence[str], among: str, what: str) -> str:
    if not labels:
        return f"Of {among}, none {what}."
    names = shortened([readable(label) for label in labels], NAMED)
    return f"Of {among}, {len(labels)} {what}: {names}."


def _gains(pairs: Sequence[Mapping[str, Any]], studies: int) -> str:
    """Which corrections score higher, and which lower, and in which of the studies."""
    everywhere = [pair for pair in pairs if len(pair["costs"]) == studies]
    if not everywhere:
        return "No published loss was trained beside its correction in every study."
    told = []
    for sign in (1, -1):
        having: dict[str, list[str]] = {}  # in which studies -> losses
        for pair in everywhere:
            names = [
                name for name, cost in pair["costs"].items()
                if (found := cost["differences"]["mean_dice"]) is not None
                and found["separable"] and sign * found["difference"] > 0
            ]  # fmt: skip
            where = "every study" if len(names) == studies else listing(names)
            having.setdefault(where, []).append(readable(pair["labels"][0]))
        having.pop("", None)
        parts = [f"for {shortened(labels, NAMED)} in {where}" for where, labels in having.items()]
        told.append("; ".join(parts) or "for none of them in any study")
    every = shortened([readable(pair["labels"][0]) for pair in everywhere], NAMED)
    return (
        f"{count(len(everywhere), 'published loss was', 'published losses were')} trained beside "
        f"the correction in every study: {every}. The correction has a separably higher mean Dice "
        f"{told[0]}, and a separably lower one {told[1]}."
    )


def _alike(stability: pd.DataFrame) -> list[str]:
    """Kendall's tau of the least and the most alike pair of studies, by endpoint."""
    told = []
    for endpoint, words in (("mean_dice", "mean Dice"), ("rarest_dice", "the rarest class")):
        rows = stability[stability["endpoint"] == endpoint]
        rows = rows[rows["kendall_tau"].notna()].sort_values("kendall_tau", kind="stable")
        if rows.empty:
            told.append(f"By {words} no two studies can be compared.")
            continue
        pairs = [rows.iloc[0]] if len(rows) == 1 else [rows.iloc[0], rows.iloc[-1]]
        parts = [
            f"{number(row['kendall_tau'])} {interval(row['low'], row['high'])} between "
            f"{row['study']} and {row['other']}"
            for row in pairs
        ]
        verb = "is" if len(parts) == 1 else "runs from"
        told.append(f"Kendall's tau by {words} {verb} {' to '.join(parts)}.")
    return told


def title(studies: Mapping[str, Study], safe: Mapping[str, Set[str]]) -> str:
    """What the figure shows, as a sentence."""
    labels = shared(studies)
    if not labels:
        return "The studies share no loss"
    losses = count(len(labels), "loss", "losses")
    broken = {name: len(set(labels) - kept) for name, kept in safe.items()}
    if not any(broken.values()):
        return f"None of {losses} lost a class in any run of {len(studies)} studies"
    parts = [f"{amount or 'none'} on {name}" for name, amount in broken.items()]
    return f"Of {losses}, {listing(parts)} lost a class in some run"


@styled
def draw(studies: Mapping[str, Study], safe: Mapping[str, Set[str]]) -> Figure:
    """The place of each shared loss from study to study; a cross where it lost a class in one."""
    labels = shared(studies)
    if not labels:
        return nothing_to_show(title(studies, safe), "No loss is in all of them.")
    figure = new_figure(WIDTH, 1.6 + 0.27 * max(len(labels), 4))
    axis = figure.subplots()
    names = list(studies)
    orders = {name: [x for x in study.losses if x in labels] for name, study in studies.items()}
    for index, label in enumerate(orders[names[0]]):
        colour = LINE_COLOURS[index % len(LINE_COLOURS)]
        places = [orders[name].index(label) + 1 for name in names]
        dash = "--" if label.startswith("published_") else "-"
        axis.plot(range(len(names)), places, dash, color=colour, linewidth=1.6, zorder=2)
        for x, (name, place) in enumerate(zip(names, places, strict=True)):
            mark = "o" if label in safe[name] else "x"
            axis.plot(x, place, mark, color=colour, markersize=6, markeredgewidth=2, zorder=3)
    axis.set_xticks(range(len(names)), names)
    axis.set_ylim(len(labels) + 0.6, 0.4)
    axis.set_yticks(range(1, len(labels) + 1), [readable(x) for x in orders[names[0]]])
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x", color=FAINT)
    right = axis.secondary_yaxis("right")
    right.set_yticks(range(1, len(labels) + 1), [readable(x) for x in orders[names[-1]]])
    right.tick_params(axis="y", length=0, colors=BLACK)
    for side in ("left", "bottom"):
        axis.spines[side].set_visible(False)
    right.spines["right"].set_visible(False)
    line = partial(Line2D, [], [], color=GREY, linewidth=1.6)
    handles = [
        line(marker="o", label="kept every class in each run"),
        line(marker="x", markeredgewidth=2, linestyle="", label="did not, in some run"),
        line(linestyle="--", label="as published"),
    ]
    legend_below(figure, handles[: 3 if any(x.startswith("published_") for x in labels) else 2])
    headline(figure, title(studies, safe))
    return figure


def _ranks(
    studies: Mapping[str, Study], safe: Mapping[str, Set[str]], folder: Path
) -> dict[str, str]:
    """The figure of the places, written into ``folder``, as the page shows it."""
    svg, _ = save(draw(studies, safe), folder, "ranks")
    return {"source": page.address(svg), "title": title(studies, safe), "caption": RANKS}


def _curves(studies: Mapping[str, Study], folder: Path) -> dict[str, dict[str, str]]:
    """The learning curves of each study as figures, by name, for print and without a script."""
    found = {}
    for name, study in studies.items():
        figure = f"validation_curves_{name.replace('/', '_')}"
        svg, _ = save(draw_validation_curves(study), folder, figure)
        found[figure] = {
            "source": page.address(svg),
            "title": f"{name}: {text.curves_title(study)}",
            "caption": f"{name}: {text.caption(study, 'validation_curves')}",
        }
    return found


def _of_what(study: Study) -> str:
    """The data of a study and how much of them stands behind its scores."""
    cases = study.chosen(study.cases)
    held = cases["case"].nunique() if len(cases) else 0
    parts = [study.dataset_name, count(study.seeds, "seed"), count(held, "held-out case")]
    return ", ".join(part for part in parts if part)


def _made(study: Study) -> dict[str, Any]:
    """Where the numbers of a study come from, what it is of first."""
    runs = (
        f"{count(len(study.runs), 'run')} of {count(len(study.losses), 'loss', 'losses')}, "
        f"{count(study.seeds, 'seed')}"
    )
    found = provenance.section(study)
    known = {"Data set": study.dataset_name, "Rarest class": study.rarest or "unknown"}
    return {**found, "facts": {**known, "Runs": runs, **found["facts"]}}


def _losses(studies: Mapping[str, Study], safe: Mapping[str, Set[str]]) -> list[dict[str, Any]]:
    """A row for each loss of any study, those that all have first."""
    labels = shared(studies)
    others = sorted({x for study in studies.values() for x in study.losses} - set(labels))
    rows_of = {
        name: {row["loss"]: row for row in ranking.rows(study, None) if row["loss"] != FLOOR}
        for name, study in studies.items()
    }
    places = {name: {x: i for i, x in enumerate(s.losses, 1)} for name, s in studies.items()}
    found = []
    for label in [*labels, *others]:
        cells = {
            name: {**row, "place": places[name][label], "safe": label in safe[name]}
            for name, rows in rows_of.items()
            if (row := rows.get(label)) is not None
        }
        if cells:
            one = next(iter(cells.values()))
            held = sum(cell["safe"] for cell in cells.values())
            found.append({"loss": label, "family": one["family"], "kind": one["kind"],
                          "cells": cells, "safe": held, "studies": len(cells)})  # fmt: skip
    return found
