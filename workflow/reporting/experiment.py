"""The report of an experiment: what its arms show, drawn and told from its tables."""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from matplotlib.figure import Figure

from workflow import files
from workflow.reporting import wording
from workflow.reporting.style import BLUE, ORANGE, WIDTH, headline, new_figure, save, styled, wrap

TEMPLATES = Path(__file__).parent / "templates"


@dataclass
class Experiment:
    """The tables of an experiment: ``raw`` of its runs, ``answers`` for people."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, pd.DataFrame] = field(default_factory=dict)
    answers: dict[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return str(self.config["title"])

    @property
    def confidence(self) -> float:
        return float(self.config["comparison"]["confidence"])

    @property
    def arms(self) -> list[str]:
        """Names of the arms in the order of the study; "" where there is only one."""
        return list(self.raw["arms"]["arm"])

    @property
    def test_set(self) -> str:
        """The test set that decides: the external one, if there is one."""
        external = self.config.get("external") or self.config["dataset"]
        return str(external["name"])

    @cached_property
    def summary(self) -> pd.DataFrame:
        """Rows of ``summary`` for the deciding test set."""
        table = self.answers["summary"]
        return table[table["test_set"] == self.test_set].reset_index(drop=True)

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """Rows of ``comparisons`` for the deciding test set."""
        table = self.answers["comparisons"]
        return table[table["test_set"] == self.test_set].reset_index(drop=True)

    @cached_property
    def classes(self) -> list[str]:
        """Foreground classes in the order of their index."""
        sizes = self.raw["dataset"].drop_duplicates("class").sort_values("class_index")
        return list(sizes["class"])[1:]


@dataclass(frozen=True)
class Chapter:
    """What the module of an experiment adds to its report.

    ``figures``: name -> function that draws it. ``said``: the findings, sentences computed from
    the tables. ``shown``: names of answers that the page prints whole, with their headings.
    """

    figures: Mapping[str, Callable[[Experiment], Figure]]
    captions: Mapping[str, Callable[[Experiment], str]]
    said: Callable[[Experiment], list[str]]
    shown: Mapping[str, str]


def read(folder: Path) -> Experiment:
    """The experiment of ``results/<study>/``."""
    folder = Path(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    environment = folder / "environment.json"
    return Experiment(
        name=folder.resolve().name,
        config=config,
        environment=json.loads(environment.read_text()) if environment.is_file() else {},
        raw=_tables(folder / "tables", ".csv.gz"),
        answers=_tables(folder / "tables" / "answers", ".csv"),
    )


def _tables(folder: Path, suffix: str) -> dict[str, pd.DataFrame]:
    return {
        path.name.removesuffix(suffix): files.read_table(path)
        for path in sorted(folder.glob(f"*{suffix}"))
    }


def build(folder: Path) -> Path:
    """Writes ``figures/`` and ``report.html`` of an experiment and returns the report's path."""
    folder = Path(folder)
    experiment = read(folder)
    chapter = _chapter(experiment)
    pictures = {}
    for name, draw in chapter.figures.items():
        svg, _ = save(draw(experiment), folder / "figures", name)
        data = base64.b64encode(svg.read_bytes()).decode("ascii")
        pictures[name] = {
            "source": f"data:image/svg+xml;base64,{data}",
            "caption": chapter.captions[name](experiment),
        }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(readable=wording.readable)
    page = environment.get_template("experiment.html.j2").render(
        experiment=experiment,
        said=chapter.said(experiment),
        detectable=detectable(experiment),
        pictures=pictures,
        design=_cells(experiment.raw["arms"]) if len(experiment.arms) > 1 else None,
        summary=_cells(_short_summary(experiment)),
        shown={title: _cells(experiment.answers[name]) for name, title in chapter.shown.items()},
        configuration=yaml.safe_dump(experiment.config, sort_keys=False, allow_unicode=True),
    )
    out = folder / "report.html"
    files.write_text(out, page)
    return out


def _chapter(experiment: Experiment) -> Chapter:
    name = experiment.config.get("experiment")
    if name is None:
        return ARMS_ALONE
    return importlib.import_module(f"workflow.reporting.experiment_{name}").CHAPTER


def detectable(experiment: Experiment) -> str:
    """The difference that the experiment's size lets it see, for both endpoints."""
    table = experiment.comparisons
    table = table[(table["contrast"] == "reference") & (table["loss"] != "all_background")]
    clauses = []
    for endpoint, words in (
        ("mean_dice", "mean Dice"),
        ("rarest_dice", "Dice of the rarest class"),
    ):
        seen = table.loc[table["endpoint"] == endpoint, "minimum_detectable_difference"].dropna()
        if len(seen):
            clauses.append(
                f"{wording.number(seen.median(), 2)} in {words} "
                f"({wording.number(seen.min(), 2)} to {wording.number(seen.max(), 2)})"
            )
    if not clauses:
        return ""
    return (
        "Smallest difference between two losses of one arm that this study would find four times "
        f"in five, in the median over losses: {' and '.join(clauses)}."
    )


def _short_summary(experiment: Experiment) -> pd.DataFrame:
    """The columns of ``summary`` that a page has room for."""
    table = experiment.summary
    short = pd.DataFrame({"arm": table["arm"], "loss": table["loss"], "seeds": table["seeds"]})
    for column, title in [("mean_dice", "mean Dice")] + [
        (f"dice_{name}", name) for name in experiment.classes
    ]:
        short[title] = [
            wording.estimate(*values)
            for values in table[[column, f"{column}_low", f"{column}_high"]].itertuples(index=False)
        ]
    for grade in ("partial", "total", "diverged", "failed"):
        short[grade] = table[grade]
    if len(experiment.arms) < 2:
        short = short.drop(columns="arm")
    return short


def _cells(table: pd.DataFrame) -> dict[str, list]:
    """Headings and rows of text."""
    columns = [[_text(value) for value in table[name]] for name in table]
    return {"headings": list(table.columns), "rows": list(zip(*columns, strict=True))}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "–" if pd.isna(value) else f"{value:.3g}"
    return str(value)


def widest_spread(experiment: Experiment) -> str:
    """One sentence: the best arm of the loss that gains most from the choice of the arm."""
    spread = experiment.summary.groupby("loss")["mean_dice"].agg(["min", "max"])
    gain = (spread["max"] - spread["min"]).dropna()
    if gain.empty:
        return "No loss has a score."
    loss = gain.idxmax()
    return (
        f"{wording.readable(loss)} depends most on the arm: mean Dice "
        f"{wording.number(spread.at[loss, 'min'])} to {wording.number(spread.at[loss, 'max'])}."
    )


@styled
def draw_arms(experiment: Experiment) -> Figure:
    """Mean Dice of every loss in every arm."""
    table = experiment.summary
    losses, arms = list(dict.fromkeys(table["loss"])), experiment.arms
    figure = new_figure(WIDTH, 1.4 + 0.2 * len(losses) * max(1, len(arms) / 3))
    axis = figure.subplots()
    for place, arm in enumerate(arms):
        rows = table[table["arm"] == arm].set_index("loss").reindex(losses)
        y = [index + 0.7 * (place + 0.5) / len(arms) - 0.35 for index in range(len(losses))]
        error = [
            rows["mean_dice"] - rows["mean_dice_low"],
            rows["mean_dice_high"] - rows["mean_dice"],
        ]
        colour = BLUE if place % 2 == 0 else ORANGE
        axis.errorbar(rows["mean_dice"], y, xerr=error, fmt="o", ms=3, lw=1, color=colour)
        if len(arms) > 1:
            for x, height in zip(rows["mean_dice_high"], y, strict=True):
                axis.annotate(arm, (x, height), (4, 0), textcoords="offset points", va="center",
                              fontsize=6)  # fmt: skip
    axis.set_yticks(range(len(losses)), [wrap(wording.readable(name), 30) for name in losses])
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_xlabel("mean Dice over the foreground classes, with 95 % interval")
    headline(figure, widest_spread(experiment))
    return figure


ARMS_ALONE = Chapter(
    figures={"arms": draw_arms},
    captions={"arms": lambda experiment: "Mean Dice of each loss in each arm, with its interval."},
    said=lambda experiment: [widest_spread(experiment)],
    shown={},
)
