"""What the paper says of patients turns with their tables."""

import shutil
from pathlib import Path

import pytest
from synthetic_study import SMALL, Loss, write_study

from workflow import files
from workflow.__main__ import main
from workflow.reporting import paper, paper_experiments, paper_patients
from workflow.reporting.study_tables import read_study

PAPER = Path(__file__).parents[2] / "paper"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose reference holds the phantom, both studies of patients, and one longer."""
    folder = tmp_path_factory.mktemp("project") / "results" / "reference"
    for name, losses in (
        (paper.PROJECT, SMALL),
        ("acdc", SMALL),
        ("hippocampus", SMALL[::-1]),
        ("acdc_long", SMALL[:2]),
    ):
        write_study(folder / name, losses=losses)
    names = (paper.PROJECT, *paper_patients.STUDIES)
    main(["compare", *(str(folder / name) for name in names), "--out", str(folder / "across")])
    return folder


def said(folder: Path) -> dict:
    own = read_study(folder / paper.PROJECT)
    return paper_experiments.statements(paper_experiments.read(folder), own)


def test_every_study_of_patients_is_told_once(reference: Path) -> None:
    found = said(reference)
    assert [its["name"] for its in found["real"]] == ["ACDC", "Hippocampus"]
    longer = [sum(line.startswith("With ") for line in its["said"]) for its in found["real"]]
    assert longer == [1, 0]
    assert found["real_headline"].startswith("On data of patients (ACDC and Hippocampus)")
    columns = 1 + 3 * len(found["real"])
    assert len(found["real_rows"]) == len(SMALL)
    assert {len(row) for row in found["real_rows"]} == {columns}


@pytest.mark.parametrize(
    ("tau", "p", "verdict"),
    [
        (1.0, 0.01, "holds (Kendall's tau 1.00 and 1.00, p 0.010 and 0.010)"),
        (0.6, 0.01, "holds in part ("),
        (0.6, 0.06, "is not shown to hold ("),
        (-0.6, 0.06, "is not shown to hold ("),
        (-0.6, 0.01, "is turned round in 2 of 2 ("),
    ],
)
def test_the_verdict_on_the_order_is_that_of_the_test_over_losses(
    reference: Path, tmp_path: Path, tau: float, p: float, verdict: str
) -> None:
    folder = shutil.copytree(reference, tmp_path / "reference")
    path = folder / "across" / "tables" / "stability.csv"
    # intervals over seeds and cases that leave out zero do not make few losses many
    table = files.read_table(path).assign(kendall_tau=tau, low=tau - 0.1, high=tau + 0.1, p=p)
    files.write_table(path, table)
    assert verdict in said(folder)["real_headline"]
    sentences = said(folder)["real_alike"]
    assert verdict in sentences[-1]
    assert "between the phantom and ACDC" in sentences[0]
    assert "between ACDC and Hippocampus" in sentences[0]


FORMS = ("published_generalized_dice_written", "published_generalized_dice_graph")


@pytest.mark.parametrize(
    ("written", "prevalence", "told"),
    [
        ("none", 1.0, "absent class, kept every class in "),
        ("total", 1.0, "absent class, lost a class in "),
        ("none", 0.5, ""),
    ],
)
def test_what_a_defect_needs_is_told_where_it_is_not_there(
    tmp_path: Path, written: str, prevalence: float, told: str
) -> None:
    losses = [Loss("dice_ce", "compound", 0.7)]
    losses += [Loss(FORMS[0], "overlap", 0.5, collapse=written), Loss(FORMS[1], "overlap", 0.4)]
    study = read_study(write_study(tmp_path / "acdc", losses=tuple(losses)))
    study.dataset["prevalence"] = prevalence
    found = " ".join(paper_patients.presence({"acdc": study}))
    assert told in found if told else found == ""


def test_a_class_that_more_steps_bring_back_is_told(tmp_path: Path) -> None:
    lost = Loss("dice", "overlap", 0.2, collapse="total")
    kept = Loss("dice", "overlap", 0.8)
    folders = {"default": lost, "default_long": kept, "acdc": kept, "acdc_long": kept}
    for name, loss in folders.items():
        write_study(tmp_path / name, losses=(loss, Loss("dice_ce", "compound", 0.7)))
    found = said(tmp_path)
    assert found["rescued"].startswith("That was so for Dice on phantom (")
    assert found["longer"][0].startswith("With ")
    shutil.rmtree(tmp_path / "default_long")
    less = said(tmp_path)
    assert less["rescued"] == "" and less["longer"] == []


def test_without_tables_nothing_is_said(tmp_path: Path) -> None:
    write_study(tmp_path / paper.PROJECT)
    found = said(tmp_path)
    assert found["real_headline"] == ""
    assert found["real"] == found["real_alike"] == found["real_rows"] == []


def test_the_paper_sets_them(reference: Path) -> None:
    source = shutil.copytree(PAPER, reference.parents[1] / "paper") / "paper.typ"
    out = paper.compile(source, reference / paper.PROJECT, reference.parent / "paper.pdf")
    shutil.rmtree(reference / "acdc")
    shutil.rmtree(reference / "hippocampus")
    less = paper.compile(source, reference / paper.PROJECT, reference.parent / "less.pdf")
    assert out.read_bytes() != less.read_bytes()


def test_more_steps_are_told_by_what_is_lost_and_by_score(tmp_path: Path) -> None:
    lost, kept = Loss("dice", "overlap", 0.2, collapse="total"), Loss("dice", "overlap", 0.8)
    other = Loss("dice_ce", "compound", 0.7)
    once = read_study(write_study(tmp_path / "once", losses=(lost, other)))
    saved = read_study(write_study(tmp_path / "saved", losses=(kept, other)))
    first, scores = paper_patients.longer(once, saved)
    assert first.endswith(" steps none of 2 losses lost a class in some run (before: 1).")
    score = paper_patients.number(once.row("dice_ce")["mean_dice"])
    assert scores.startswith("Mean Dice is then: Dice ") and f"(before: {score})" in scores
    back = paper_patients.longer(saved, once)[0]
    assert " 1 of 2 losses lost a class in some run (before: none): Dice (" in back
    assert paper_patients.longer(once, None) == []
