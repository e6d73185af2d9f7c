"""The paper of a study: a Typst document that reads the study's tables and figures."""

from __future__ import annotations

import json
from pathlib import Path

import typst

from workflow import files
from workflow.reporting import formula
from workflow.reporting.paper_text import statements
from workflow.reporting.study_tables import read_study
from workflow.reporting.wording import readable

FIGURES = ("published_corrected", "collapse")
FORMULA_POINTS = 8.0


def compile(source: Path, study_dir: Path, out: Path) -> Path:
    """Compile `source` (a .typ file) with the tables and figures of a study into a PDF.

    The document sees the study as the folder `study/` beside it: `study/tables/*.csv`,
    `study/figures/*.svg` and `study/statements.json`, the sentences of `paper_text`. It sees no
    other file, so that nothing outside the study can enter the paper.
    """
    source, study_dir, out = Path(source), Path(study_dir), Path(out)
    project = {"main.typ": source.read_bytes()}
    for path in sorted((study_dir / "tables").glob("*.csv")):
        project[f"study/tables/{path.name}"] = path.read_bytes()
    for name in FIGURES:
        project[f"study/figures/{name}.svg"] = (study_dir / "figures" / f"{name}.svg").read_bytes()
    study = read_study(study_dir)
    formulas = []
    for number, card in enumerate(study.cards):
        latex = str(card.get("formula") or "")
        picture = formula.svg(latex, FORMULA_POINTS) if latex else None
        file = f"study/formulas/{number}.svg" if picture else ""
        if picture:
            project[file] = picture
        name = readable(str(card.get("label", "")))
        formulas.append({"name": name, "file": file, "source": latex})
    said = statements(study) | {"formulas": formulas}
    project["study/statements.json"] = json.dumps(said).encode("utf-8")
    # typst's annotations know no project of several files
    pdf = typst.compile(project, ignore_system_fonts=True, timestamp=0)  # type: ignore[call-overload]
    with files.replacing(out) as temporary:
        temporary.write_bytes(pdf)
    return out
