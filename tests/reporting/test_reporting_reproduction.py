"""What the report says of reproduction, and the reference told again without a run."""

import dataclasses
import re
import shutil
from pathlib import Path

import pytest
from test_reporting_report import section

from workflow import files
from workflow.__main__ import main
from workflow.comparison.reproduction import refusal
from workflow.reporting import report
from workflow.reporting.reproduction import holds, summary
from workflow.reporting.study_tables import read_study

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "results" / "reference" / "default"


SCORE = {
    "kind": "score", "loss": "dice", "endpoint": "mean_dice", "reference": 0.7164, "found": 0.6164,
    "difference": -0.1, "low": -0.13, "high": -0.07, "p": 0.0001, "p_holm": 0.0022,
    "detectable": 0.03, "seeds": 3, "largest_run_difference": 0.1, "verdict": "not reproduced",
}  # fmt: skip
COLLAPSE = {
    "kind": "collapse", "loss": "dice", "reference": "none of 3", "found": "<rim> 3/3", "p": 0.01,
    "verdict": "not reproduced",
}  # fmt: skip
TIER = {"kind": "tier", "loss": "focal", "reference": "best", "verdict": "not comparable",
        "reason": "not among the new runs"}  # fmt: skip
CERTIFICATE = {
    "reference": "default", "changed": [], "verdict": "not reproduced", "confidence": 0.95,
    "counts": {"score": {"not reproduced": 1}, "collapse": {"not reproduced": 1},
               "tier": {"not comparable": 1}},
    "losses": ["dice"], "losses_left_out": ["focal"], "losses_unknown": [],
    "seeds": [1], "seeds_left_out": [2, 3], "settings_of_one": [],
    "claims": [SCORE, COLLAPSE, TIER],
}  # fmt: skip


def test_what_is_not_reproduced_and_what_was_left_out_is_told() -> None:
    told = " ".join(summary(CERTIFICATE))
    assert told.startswith("Not reproduced, compared with the reference default: 0 of 1 scores")
    assert "1 claim cannot be compared" in told
    assert "mean Dice of Dice (0.616 instead of 0.716)" in told
    assert "collapse of Dice (<rim> 3/3 instead of none of 3)" in told
    assert "none of 1 loss have the very scores" in told
    assert "these runs leave them out: Focal" in told
    assert "Seeds of the reference that were not run: 2 and 3" in told
    assert not holds(CERTIFICATE)


def test_the_words_turn_with_the_numbers() -> None:
    same = SCORE | {"found": 0.7164, "verdict": "reproduced", "largest_run_difference": 0.0}
    good = CERTIFICATE | {
        "verdict": "reproduced", "counts": {"score": {"reproduced": 1}}, "claims": [same],
        "losses_left_out": [], "seeds_left_out": [],
    }  # fmt: skip
    told = " ".join(summary(good))
    assert told.startswith("Reproduced, compared with the reference default: 1 of 1 scores hold.")
    assert "1 of 1 loss has the very scores" in told
    assert "Not reproduced" not in told and "leave them out" not in told
    assert holds(good)


def test_a_reference_that_was_tampered_with_is_all_that_is_told() -> None:
    found = refusal("default", ["tables/summary.csv: changed"])
    assert summary(found) == [
        "The reference default is not as it was committed, so nothing was compared with it: "
        "tables/summary.csv: changed."
    ]
    assert not holds(found)


def test_the_report_has_the_section_where_there_is_a_certificate(study_dir: Path) -> None:
    report.build(study_dir)
    study = dataclasses.replace(read_study(study_dir), reproduction=CERTIFICATE)
    page = report.render(study, study_dir)
    words = section(page, "reproduction")
    for sentence in summary(CERTIFICATE):
        assert " ".join(sentence.split()) in words
    assert "−0.100 [−0.130, −0.070] 0.002 0.030 not reproduced" in words
    assert "not among the new runs" in words
    assert "<rim>" not in page  # escaped
    assert page.count("<details open>") == 2  # what failed is not folded away


@pytest.fixture(scope="module")
def retold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("retold") / "default"
    assert (
        main(["retell", str(REFERENCE), str(out), "--paper", str(ROOT / "paper" / "paper.typ")])
        == 0
    )
    return out


def test_the_reference_is_told_again_from_its_packed_tables(retold: Path) -> None:
    page = (retold / "report.html").read_text(encoding="utf-8")
    study = read_study(REFERENCE)
    assert len(study.cases) and len(study.curves) and len(study.reliability)
    assert f'data-sort="{study.row("dice_ce")["mean_dice"]}"' in page
    assert study.row("combo")["tier"] in section(page, "ranking")
    assert (retold / "paper.pdf").read_bytes().startswith(b"%PDF")


def test_cases_are_drawn_from_the_slices_of_the_reference(retold: Path) -> None:
    study = read_study(REFERENCE)
    page = (retold / "report.html").read_text(encoding="utf-8")
    shown = section(page, "cases")
    assert "This page has no viewer" not in shown
    cases = dict(study.slices[["kind", "case"]].drop_duplicates().to_numpy().tolist())
    for kind in ("median", "worst"):
        drawn = (retold / "figures" / f"cases_{kind}.svg").read_text()
        assert "No slices of cases" not in drawn
        picture = rf'id="figure-cases_{kind}">\s*<div[^>]*><img src="[^"]+" alt="([^"]+)"'
        title = re.search(picture, page)
        assert f"({cases[kind]})" in title[1]
    # the predictions are those of the runs whose scores are committed
    best = study.cases[study.cases["checkpoint"] == study.checkpoint]
    scores = best.groupby(["loss", "seed", "case"])["dice"].mean()
    for table in (study.slices, files.read_table(REFERENCE / "tables" / "volumes.csv")):
        rows = table[table["role"].isin(study.losses)]
        assert set(rows["role"]) == set(study.losses) and set(rows["kind"]) == {"median", "worst"}
        keys = zip(rows["role"], rows["seed"].astype(int), rows["case"], strict=True)
        assert rows["dice"].to_list() == pytest.approx([scores[key] for key in keys], abs=1e-8)


def test_pictures_that_need_slices_are_the_committed_ones_or_say_so(tmp_path: Path) -> None:
    """Data of patients: the reference has numbers only."""
    reference = shutil.copytree(REFERENCE.parent / "hippocampus_long", tmp_path / "reference")
    assert not (reference / "tables" / "slices.npz").exists()
    committed = (REFERENCE / "figures" / "cases_median.png").read_bytes()
    (reference / "figures" / "cases_median.png").write_bytes(committed)
    out = tmp_path / "retold"
    assert main(["retell", str(reference), str(out)]) == 0
    assert (out / "figures" / "cases_median.png").read_bytes() == committed
    assert "No slices of cases" in (out / "figures" / "cases_worst.svg").read_text()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "This page has no viewer" in section(page, "cases")


def test_a_changed_reference_is_not_told(retold: Path, tmp_path: Path, caplog) -> None:
    table = retold / "tables" / "ranks.csv"
    text = table.read_text()
    place = text.index(",0.") + 3
    table.write_text(f"{text[:place]}{9 - int(text[place])}{text[place + 1 :]}")
    assert main(["retell", str(retold), str(tmp_path / "out")]) == 1
    assert "ranks.csv: changed since it was committed" in caplog.text
