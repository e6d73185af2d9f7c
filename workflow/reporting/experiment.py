"""The report of an experiment: what its arms show, drawn and told from its tables."""

from __future__ import annotations

import errno
import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib.figure import Figure

from workflow import files
from workflow.reporting import downloads, failures, page, preparation, provenance, wording
from workflow.reporting.cells import columns
from workflow.reporting.study_tables import FLOOR
from workflow.reporting.style import (
    FAINT,
    LINE_COLOURS,
    WIDTH,
    headline,
    new_figure,
    save,
    styled,
    wrap,
)

BEYOND = "no difference that a Dice can have"
ROUNDING = 1e-9  # of differences that are all the same


@dataclass
class Experiment:
    """The tables of an experiment: ``raw`` of its runs, ``answers`` for people."""

    name: str
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, pd.DataFrame] = field(default_factory=dict)
    answers: dict[str, pd.DataFrame] = field(default_factory=dict)
    preparation: dict[str, Any] = field(default_factory=dict)

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
    the tables. ``shown``: names of answers that the page prints whole, with their headings; what
    follows a colon in one stands below it.
    ``each``: what is told of one thing after the other, folded under a line each.
    """

    figures: Mapping[str, Callable[[Experiment], Figure]]
    captions: Mapping[str, Callable[[Experiment], str]]
    said: Callable[[Experiment], list[str]]
    shown: Mapping[str, str]
    each: Callable[[Experiment], dict[str, list[str]]] = lambda _: {}


def read(folder: Path) -> Experiment:
    """The experiment of ``results/<study>/``."""
    folder = Path(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    environment, plans = (
        json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        for file in (folder / "environment.json", folder / "preparation.json")
    )
    return Experiment(
        name=folder.resolve().name,
        config=config,
        environment=environment,
        preparation=plans,
        raw=_tables(folder / "tables", ".csv.gz"),
        answers=_tables(folder / "tables" / "answers", ".csv"),
    )


def _tables(folder: Path, suffix: str) -> dict[str, pd.DataFrame]:
    return {
        path.name.removesuffix(suffix): files.read_table(path)
        for path in sorted(folder.glob(f"*{suffix}"))
    }


def build(folder: Path, logs: failures.Logs | None = None) -> Path:
    """Writes ``figures/`` and ``report.html`` of an experiment and returns the report's path.

    ``logs`` tells where those of a run lie; where its shards were merged there are none.
    Raises ``FileNotFoundError`` where there are no answers yet.
    """
    folder = Path(folder)
    experiment = read(folder)
    if not experiment.answers:
        raise FileNotFoundError(
            errno.ENOENT, "no answers of an experiment here", str(folder / "tables" / "answers")
        )
    chapter = chapter_of(experiment)
    in_words = partial(columns, losses={*experiment.config["losses"], FLOOR})
    pictures = {}
    for name, draw in chapter.figures.items():
        figure = draw(experiment)
        svg, _ = save(figure, folder / "figures", name)
        pictures[name] = {
            "source": page.address(svg),
            "headline": " ".join(figure.get_suptitle().split()).removesuffix("."),
            "caption": chapter.captions[name](experiment),
        }
    content = page.render(
        "experiment.html.j2",
        experiment=experiment,
        fates=fates(experiment),
        stopped=failures.stopped(experiment.raw["runs"], logs),
        gaps=failures.gaps(experiment.config, experiment.raw["runs"]),
        covered=covered(experiment),
        said=chapter.said(experiment),
        each=chapter.each(experiment),
        detectable=detectable(experiment),
        pictures=pictures,
        design=in_words(experiment.raw["arms"]) if len(experiment.arms) > 1 else None,
        preparations=preparation.of_arms(experiment.preparation),
        summary=in_words(_short_summary(experiment)),
        shown=[
            {"columns": in_words(experiment.answers[name]), **_headed(title)}
            for name, title in chapter.shown.items()
        ],
        made_by=made_by(experiment),
        again=provenance.again(experiment),
        downloads=downloads.tables(folder),
    )
    out = folder / "report.html"
    files.write_text(out, content)
    return out


def _headed(title: str) -> dict[str, str]:
    """The heading of a table, which the navigation repeats, and what it says beyond a colon."""
    heading, _, rest = title.partition(": ")
    return {"heading": heading, "rest": rest[:1].upper() + rest[1:]}


def chapter_of(experiment: Experiment) -> Chapter:
    name = experiment.config.get("experiment")
    if name is None:
        return ARMS_ALONE
    return importlib.import_module(f"workflow.reporting.experiment_{name}").CHAPTER


def fates(experiment: Experiment) -> list[str]:
    """What became of the planned runs, failures first."""
    table, runs = experiment.answers["outcomes"], experiment.raw["runs"]
    done = int(table["runs"].sum() - table["missing"].sum())
    said = []
    for status, verb in (("failed", "failed"), ("diverged", "diverged")):
        rows = runs[runs["status"] == status]
        if len(rows):
            said.append(f"{len(rows)} of {_runs(done)} {verb}: {_by_loss(experiment, rows)}.")
    if not said:
        said.append(f"None of {_runs(done)} failed or diverged.")
    if lacking := int(table["missing"].sum()):
        planned = _runs(int(table["runs"].sum()))
        said.append(f"{lacking} of {planned} planned are not in these tables.")
    return said


def _runs(number: int) -> str:
    return wording.count(number, "run")


def _by_loss(experiment: Experiment, rows: pd.DataFrame) -> str:
    """Losses and arms of some runs, and how many of each."""
    found = []
    for (loss, arm), its in rows.groupby(["loss", "arm"], sort=False):
        place = f" in {arm}" if len(experiment.arms) > 1 else ""
        found.append(f"{wording.readable(loss)}{place} ({len(its)})")
    return wording.shortened(found)


def made_by(experiment: Experiment) -> list[str]:
    """Commits and versions of torch that the runs were made with, those of most runs first."""
    made = experiment.raw["runs"].groupby(["commit", "torch"]).size()
    return [
        f"{_runs(number)}: commit {commit}, torch {torch}"
        for (commit, torch), number in made.sort_values(ascending=False, kind="stable").items()
    ]


def detectable(experiment: Experiment) -> str:
    """The difference that the experiment's size lets it see, for both endpoints."""
    table = experiment.comparisons
    table = table[(table["contrast"] == "reference") & (table["loss"] != "all_background")]
    table = table[table["minimum_detectable_difference"].notna()]
    clauses = [
        clause
        for endpoint, words in (
            ("mean_dice", "mean Dice"),
            ("rarest_dice", "Dice of the rarest class"),
        )
        if (clause := _seen(table[table["endpoint"] == endpoint], words))
    ]
    if not clauses:
        return ""
    several = len(experiment.arms) > 1
    reference = wording.readable(str(experiment.config["comparison"]["reference_loss"]))
    reference += " in the same arm" if several else ""
    starts = ""
    if table["seeds"].min() == 1:
        starts = " and for these starts"
        starts += " alone where there is one seed" if table["seeds"].max() > 1 else ""
    return (
        f"With a power of 80 %, before correction{starts}, this study finds, against {reference}, "
        f"{' and '.join(clauses)}: median over the losses{' and arms' if several else ''}, "
        "in brackets least and most."
    )


def _seen(rows: pd.DataFrame, words: str) -> str:
    """The detectable differences of one endpoint; "" where no comparison varies.

    Two losses that differ equally in every case and run, as where both score zero, have no spread
    to find a difference in, and no Dice differs from another by more than 1.
    """
    every = rows["minimum_detectable_difference"]
    varying = every[every > ROUNDING]
    if varying.empty:
        return ""
    possible = varying[varying <= 1]
    if possible.empty:
        return f"{BEYOND} in {words}"
    notes = [f"{_size(possible.min())} to {_size(possible.max())}"]
    if beyond := len(varying) - len(possible):
        notes.append(f"for {beyond} of {len(varying)} comparisons {BEYOND}")
    if still := len(every) - len(varying):
        notes.append(f"without {wording.count(still, 'comparison')} whose difference does not vary")
    median = varying.median()
    typical = f"a difference of {_size(median)}" if median <= 1 else BEYOND
    return f"{typical} in {words} ({'; '.join(notes)})"


def _size(difference: float) -> str:
    return "less than 0.01" if difference < 0.005 else wording.number(difference)


def _short_summary(experiment: Experiment) -> pd.DataFrame:
    """The columns of ``summary`` that a page has room for."""
    table = experiment.summary
    shown = ["arm"] if len(experiment.arms) > 1 else []
    shown += ["loss", "seeds"]
    for estimate in ("mean_dice", *(f"dice_{name}" for name in experiment.classes)):
        shown += [estimate, f"{estimate}_low", f"{estimate}_high"]
    return table[[*shown, "partial", "total", "diverged", "failed"]]


def widest_spread(experiment: Experiment) -> str:
    """One sentence: the loss that depends most on the arm, or the best of one arm."""
    scored = experiment.summary.dropna(subset=["mean_dice"])
    if scored.empty:
        return "No loss has a score."
    if scored["arm"].nunique() < 2:
        best = scored.loc[scored["mean_dice"].idxmax()]
        return (
            f"{wording.readable(best['loss'])} scores highest: "
            f"mean Dice {wording.number(best['mean_dice'])}."
        )
    spread = scored.groupby("loss")["mean_dice"].agg(["min", "max"])
    loss = (spread["max"] - spread["min"]).idxmax()
    return (
        f"{wording.readable(loss)} depends most on the arm: mean Dice "
        f"{wording.number(spread.at[loss, 'min'])} to {wording.number(spread.at[loss, 'max'])}."
    )


def by_arm(experiment: Experiment) -> list[str]:
    """A sentence an arm: the losses that lost a class in some run, and every loss's mean Dice."""
    if len(experiment.arms) < 2:
        return []
    said = []
    for arm, rows in experiment.summary.groupby("arm", sort=False):
        lost = [
            f"{wording.readable(row['loss'])} in {row['collapsed']} of {_runs(row['runs'])}"
            for _, row in rows[rows["collapsed"] > 0].iterrows()
        ]
        amount = f"{len(lost) or 'no'} {'loss' if len(lost) == 1 else 'losses'} of {len(rows)}"
        scores = [
            f"{wording.readable(row['loss'])} "
            + wording.estimate(row["mean_dice"], row["mean_dice_low"], row["mean_dice_high"])
            for _, row in rows.dropna(subset=["mean_dice"])
            .sort_values("mean_dice", ascending=False)
            .iterrows()
        ]
        named = f" ({wording.listing(lost)})" if lost else ""
        said.append(
            f"Arm {arm}: {amount} lost a class or diverged in some run{named}. Mean Dice: "
            f"{wording.listing(scores) or 'none'}."
        )
    return said


@styled
def draw_arms(experiment: Experiment) -> Figure:
    """Mean Dice of every loss in every arm."""
    table = experiment.summary
    losses = list(dict.fromkeys(table["loss"]))
    arms = [arm for arm in experiment.arms if arm in set(table["arm"])]
    figure = new_figure(WIDTH, 1.4 + len(losses) * (0.2 + 0.15 * len(arms)))
    axis = figure.subplots()
    for place, arm in enumerate(arms):
        rows = table[table["arm"] == arm].set_index("loss").reindex(losses)
        y = [index + 0.8 * ((place + 0.5) / len(arms) - 0.5) for index in range(len(losses))]
        error = [
            rows["mean_dice"] - rows["mean_dice_low"],
            rows["mean_dice_high"] - rows["mean_dice"],
        ]
        colour = LINE_COLOURS[place % len(LINE_COLOURS)]
        axis.errorbar(rows["mean_dice"], y, xerr=error, fmt="o", ms=3, lw=1, color=colour)
        if len(arms) > 1:
            # one seed and one case have no interval
            ends = rows["mean_dice_high"].fillna(rows["mean_dice"])
            for x, height in zip(ends, y, strict=True):
                if pd.notna(x):
                    axis.annotate(arm, (x, height), (4, 0), textcoords="offset points",
                                  va="center", fontsize=6.5, color=colour)  # fmt: skip
    for between in range(1, len(losses)):
        axis.axhline(between - 0.5, color=FAINT, lw=0.6)
    axis.set_yticks(range(len(losses)), [wrap(wording.readable(name), 30) for name in losses])
    axis.set_ylim(len(losses) - 0.5, -0.5)
    axis.set_xlim(0, 1)
    axis.set_xlabel("mean Dice over the foreground classes")
    headline(figure, widest_spread(experiment))
    return figure


def covered(experiment: Experiment) -> str:
    """Over what the intervals are: one seed tells nothing of another."""
    seeds = experiment.summary["seeds"]
    if seeds.max() == 1:
        return "cases, for this one seed"
    return "seeds and cases" + (
        " (cases alone where there is one seed)" if seeds.min() == 1 else ""
    )


def _caption(experiment: Experiment) -> str:
    return (
        "Mean Dice of each loss in each arm (dot) and its "
        f"{wording.percent(experiment.confidence)} interval over {covered(experiment)} (bar), on "
        f"the test set {experiment.test_set}."
    )


ARMS_ALONE = Chapter(
    figures={"arms": draw_arms},
    captions={"arms": _caption},
    said=lambda experiment: [widest_spread(experiment), *by_arm(experiment)],
    shown={},
)
