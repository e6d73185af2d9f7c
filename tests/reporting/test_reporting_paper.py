"""The paper compiles to two pages and its formulas, and its numbers are those of the tables."""

import json
import re
import zlib
from pathlib import Path

import pandas as pd
import pytest
import typst
from synthetic_study import Loss, write_study

import losses
from workflow.reporting import figures, formula, paper
from workflow.reporting.study_tables import read_study
from workflow.reporting.style import save

SOURCE = Path(__file__).parents[2] / "paper" / "paper.typ"


def pages(pdf: Path) -> int:
    """Pages of a PDF, from the page tree, which may lie in a compressed stream."""
    data = pdf.read_bytes()
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL):
        try:
            data += zlib.decompress(stream)
        except zlib.error:
            continue
    return len(re.findall(rb"/Type\s*/Page(?![\w])", data))


@pytest.mark.parametrize(
    "options",
    [{"tuned": True}, {"losses": (Loss("dice", "overlap", 0.7, fails=(0, 1)),)}],
    ids=["6 losses", "everything failed"],
)
def test_paper_has_two_pages_and_its_formulas(tmp_path: Path, options: dict) -> None:
    check_pages(write_study(tmp_path / "study", **options), tmp_path)


def test_paper_of_many_losses_has_two_pages_and_its_formulas(
    large_dir: Path, tmp_path: Path
) -> None:
    check_pages(large_dir, tmp_path, expected=4)


def check_pages(folder: Path, tmp_path: Path, *, expected: int = 3) -> None:
    for name in paper.FIGURES:
        save(figures.FIGURES[name](read_study(folder)), folder / "figures", name)
    out = paper.compile(SOURCE, folder, tmp_path / "deep" / "paper.pdf")
    assert pages(out) == expected
    before = out.read_bytes()
    assert paper.compile(SOURCE, folder, out).read_bytes() == before


def test_numbers_of_the_paper_are_rounded_as_in_the_table(study_dir: Path) -> None:
    """Typst's own formatting of every score, asked for by a query, against Python's."""
    summary = pd.read_csv(study_dir / "tables" / "summary.csv")
    values = [*summary["mean_dice"].dropna(), -0.004, -0.126, 0.0, 1.0, 0.996, 12.3]
    source = SOURCE.read_text(encoding="utf-8")
    numbers = source[source.index("#let known") : source.index("#let estimate")]
    asked = ", ".join(f'fixed("{value!r}")' for value in map(float, values))
    project = {"main.typ": f"{numbers}\n#metadata(({asked},)) <shown>".encode()}
    shown = typst.query(project, "<shown>", field="value", one=True)
    expected = [f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−") for value in values]
    assert json.loads(shown) == expected


def test_no_score_is_typed_into_the_paper() -> None:
    prose = re.sub(r"//.*|#(let|set|show)[^\n]*", "", SOURCE.read_text(encoding="utf-8"))
    assert not re.search(r"(?<![\w.])0\.\d{2,}(?!em|pt|cm)", prose)
    assert "http" not in prose
    assert "@preview" not in prose


@pytest.mark.parametrize("name", losses.available())
def test_the_formula_of_every_card_is_drawn_as_the_card_has_it(name: str) -> None:
    assert formula.svg(losses.card(name).formula, 8.0).startswith(b"<?xml")


def test_a_formula_that_cannot_be_drawn_is_left_to_its_source() -> None:
    assert formula.svg(r"\frac{1", 8.0) is None
