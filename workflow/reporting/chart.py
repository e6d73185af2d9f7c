"""The interactive learning curves: what the page's script draws, and the library it draws with."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

import pandas as pd

from workflow.reporting.downloads import packed
from workflow.reporting.study_tables import Study
from workflow.reporting.style import BLACK, LINE_COLOURS, VERMILION
from workflow.reporting.wording import readable

CHOSEN = 6  # losses that are drawn before the reader chooses


@cache
def library() -> dict[str, str]:
    """Bokeh's script, packed, with its version: from the installed package, for a page offline.

    It is BSD-3-Clause; of the libraries that draw such charts it is the smallest that needs no
    network and no server (0.35 MB packed).
    """
    from bokeh.resources import Resources

    parts = Resources(mode="inline", components=["bokeh", "bokeh-api"], minified=True)
    code = "\n".join(parts.js_raw)
    return {"packed": packed(code.encode()), "version": version("bokeh")}


def curves(studies: Mapping[str, Study], labels: Sequence[str]) -> dict[str, Any]:
    """Validation Dice of every run of these losses, by study; empty without a curve.

    ``labels``: the losses in the order of the page, the same for every study. Runs are
    ``{loss, seed, steps, dice: {class: [..]}, lost: [class, ..], outcome}``, ``loss`` an index of
    ``losses``; a value that is missing is None. Studies without a curve are left out.
    """
    found = []
    for name, study in studies.items():
        if runs := _runs(study, labels):
            classes = [{"name": x, "rarest": x == study.rarest} for x in study.classes]
            found.append({"name": name, "classes": classes, "runs": runs})
    if not found:
        return {}
    return {
        "studies": found,
        "losses": [
            {"label": label, "name": readable(label), "published": label.startswith("published_")}
            for label in labels
        ],
        "chosen": [labels.index(label) for label in first_shown(studies.values(), labels)],
        # the page's own ink, which is white at night, stands for black; vermilion is collapse
        "colours": [
            "" if colour == BLACK else colour for colour in LINE_COLOURS if colour != VERMILION
        ],
    }


def _runs(study: Study, labels: Sequence[str]) -> list[dict[str, Any]]:
    rows = study.curves
    if rows.empty or study.runs.empty:
        return []
    wanted = (rows["split"] == "validation") & (rows["quantity"] == "dice")
    rows = rows[wanted & rows["class"].isin(study.classes) & rows["loss"].isin(labels)]
    place = {label: index for index, label in enumerate(labels)}
    known = {
        (run["loss"], run["learning_rate"], run["seed"]): run for _, run in study.runs.iterrows()
    }
    runs = []
    for key, part in rows.groupby(["loss", "learning_rate", "seed"], sort=False):
        run = known.get(key)
        table = part.pivot_table(index="step", columns="class", values="value")
        runs.append({
            "loss": place[key[0]],
            "seed": int(key[2]),
            "steps": [int(step) for step in table.index],
            "dice": {name: _values(table, name) for name in study.classes},
            "lost": [] if run is None else sorted(study.lost_classes(run)),
            "outcome": "" if run is None else study.outcome(run),
        })  # fmt: skip
    return sorted(runs, key=lambda run: (run["loss"], run["seed"]))


def _values(table: pd.DataFrame, name: str) -> list[float | None]:
    if name not in table:
        return [None] * len(table)
    return [round(float(x), 4) if math.isfinite(x) else None for x in table[name]]


def first_shown(studies: Collection[Study], labels: Sequence[str]) -> list[str]:
    """The first loss, the references, and as many of the pairs as there is room for."""
    pairs = [pair for study in studies for pair in study.pairs()]
    pairs.sort(key=lambda pair: "generalized_dice" not in pair[0])
    wanted = [*labels[:1], *(study.reference_loss for study in studies)]
    wanted += [label for old, fix in pairs for label in (fix, old)]
    return [label for label in dict.fromkeys(wanted) if label in labels][:CHOSEN]
