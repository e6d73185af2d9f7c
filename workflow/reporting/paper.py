"""The paper of a study: a Typst document that reads the study's tables and figures."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import typst
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from workflow import files
from workflow.reporting import (
    across,
    formula,
    literature,
    paper_experiments,
    paper_patients,
    paper_protocol,
    paper_summary,
    paper_typesetting,
)
from workflow.reporting.figures import FIGURES
from workflow.reporting.paper_text import PROJECT, statements
from workflow.reporting.study_tables import Study, read_study
from workflow.reporting.style import SETTINGS
from workflow.reporting.text import caption

PARTS = (".typ", ".bib", ".csv")
FORMULA_POINTS = 7.5
PRINT = 6.9  # inches: the width of both columns
LOW, ROW, MARGINS = 3.9, 0.15, 1.15  # inches of a figure that is as wide as that
SMALLEST = 7  # points of a letter in print
LETTER = 0.6  # width of a letter, of its size


def compile(source: Path, study_dir: Path, out: Path) -> Path:
    """Compile `source` (a .typ file) with the tables and figures of a study into a PDF.

    The document sees the files beside `source`, the numbers of other papers (`literature.csv`), the
    study as `study/` and, in the paper of the project's own study, the figures of the experiments
    of `results/reference/` as `reference/<name>/`: `tables/*.csv`, `*.svg` without their headlines,
    and `study/statements.json`, all that is said in words. It sees no other file, so that nothing
    else can enter the paper.
    """
    source, study_dir, out = Path(source), Path(study_dir), Path(out)
    study = read_study(study_dir)
    reference = source.absolute().parent.parent / "results" / "reference"
    told = paper_experiments.read(reference if study.name == PROJECT else None)
    project = {
        path.name: path.read_bytes() for path in source.parent.iterdir() if path.suffix in PARTS
    }
    project["main.typ"] = project.pop(source.name)
    project["literature.csv"] = literature.TABLE.read_bytes()
    project |= _files("study/tables", (study_dir / "tables").glob("*.csv"))
    agreement = files.read_table(study_dir / "tables" / "agreement.csv")
    said = statements(study, agreement) | paper_experiments.statements(told, study)
    said |= paper_summary.statements(told, study)
    said["licence"] = paper_protocol.licence(source.absolute().parent.parent / "CITATION.cff")
    said["figures"] = {
        name: _drawn(project, f"study/figures/{name}.svg", FIGURES[name](study))
        | {"caption": caption(study, name)}
        for name in said["shown"]
    }
    for name, its in told.experiments.items():
        said["experiments"][name]["figures"] = {
            figure: _drawn(
                project,
                f"reference/{name}/{figure}.svg",
                its.chapter.figures[figure](its.experiment),
            )
            | {"caption": its.chapter.captions[figure](its.experiment)}
            for figure in its.figures
        }
    if told.patients.studies:
        both = paper_patients.beside(told.patients, study)
        alike = across.draw(both, across.safe_in(both))
        said["real_figure"] = _drawn(project, "reference/across/ranks.svg", alike)
    said["cards"] = _cards(project, study, project.get("references.bib", b"").decode())
    for number, row in enumerate(said["weights"]):
        row |= _formula(project, f"study/formulas/weight-{number}.svg", row["source"])
    said = paper_typesetting.everywhere(said)
    project["study/statements.json"] = json.dumps(said).encode("utf-8")
    # typst's annotations know no project of several files
    pdf = typst.compile(project, ignore_system_fonts=True, timestamp=0)  # type: ignore[call-overload]
    with files.replacing(out) as temporary:
        temporary.write_bytes(pdf)
    return out


def _files(folder: str, paths: Iterable[Path]) -> dict[str, bytes]:
    return {f"{folder}/{path.name}": path.read_bytes() for path in sorted(paths)}


def _drawn(project: dict[str, bytes], path: str, figure: Figure) -> dict[str, str]:
    """Adds a figure to the project; its headline goes to the caption."""
    headline = " ".join(figure.get_suptitle().split()).rstrip(".")
    project[path] = _svg(figure)
    return {"file": path, "title": f"{headline}."}


def _svg(figure: Figure) -> bytes:
    """A figure without its headline; the same figure always gives the same bytes."""
    figure.suptitle("").set_in_layout(False)
    _fit(figure)
    picture = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None})
    return picture.getvalue()


def _fit(figure: Figure) -> None:
    """As wide as the page and as low as its rows allow, with letters that can be read there."""
    rows = 0
    for axis in figure.axes:
        labels = [label.get_text() for label in axis.get_yticklabels()]
        rows = max(rows, len(labels))
        plain = [paper_typesetting.typeset(label.replace("\n", " ")) for label in labels]
        if plain != labels:
            axis.set_yticks(axis.get_yticks(), plain)
    scale = PRINT / figure.get_figwidth()
    for words in figure.findobj(Text):
        words.set_fontsize(max(SMALLEST, scale * float(words.get_fontsize())))
        words.set_text(paper_typesetting.typeset(words.get_text()))
    height = scale * figure.get_figheight()
    figure.set_size_inches(PRINT, min(height, max(LOW, ROW * rows + MARGINS)))
    for axis in figure.axes:
        axis.tick_params(labelsize=SMALLEST)  # of ticks that are drawn only now
        _turn(axis)
    for legend in list(figure.legends):
        _narrow(figure, legend)


def _turn(axis: Axes) -> None:
    """Words below an axis that would run into each other are turned."""
    labels = axis.get_xticklabels()
    words = [label.get_text() for label in labels]
    if not any(map(str.isalpha, words)) or any(label.get_rotation() for label in labels):
        return
    points = sum(LETTER * SMALLEST * len(word) for word in words)
    if points > 72 * PRINT * axis.get_position().width:
        axis.tick_params(axis="x", labelrotation=90)


def _narrow(figure: Figure, legend: Legend) -> None:
    """A legend below the axes in as many columns as the page has room for."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    if legend.get_window_extent(renderer).width <= figure.bbox.width:
        return
    handles = [handle for handle in legend.legend_handles if handle is not None]
    words = [text.get_text() for text in legend.get_texts()]
    for columns in range(len(words) - 1, 0, -1):
        legend.remove()
        legend = figure.legend(
            handles, words, loc="outside lower center", ncols=columns, fontsize=SMALLEST,
            frameon=False,
        )  # fmt: skip
        if legend.get_window_extent(renderer).width <= figure.bbox.width:
            return


def _cards(project: dict[str, bytes], study: Study, bibliography: str) -> list[dict[str, Any]]:
    """What the tables of formulas show of each card; the pictures go to the project."""
    rows = []
    for number, row in enumerate(paper_experiments.cards(study, bibliography)):
        file = f"study/formulas/{number}.svg"
        rows.append(row | _formula(project, file, str(row["source"])))
    return rows


def _formula(project: dict[str, bytes], file: str, source: str) -> dict[str, str]:
    """Adds a formula to the project; without a picture of it the paper prints its source."""
    # fractions as large as on a line of their own
    picture = formula.svg(source.replace(r"\frac", r"\dfrac"), FORMULA_POINTS) if source else None
    if not picture:
        return {"source": source, "file": ""}
    project[file] = picture
    return {"source": source, "file": file}
