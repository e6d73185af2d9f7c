"""The report is one file that needs nothing else, and shows data as text and never as code."""

import dataclasses
import html
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from synthetic_study import Loss, write_study

from workflow.reporting import evidence, report
from workflow.reporting.answer import answers
from workflow.reporting.formula import mathml
from workflow.reporting.study_tables import TABLES, read_study

EVIL = "<script>alert(1)</script>"
REFERENCE = Path(__file__).parents[2] / "results" / "reference"


class Page(HTMLParser):
    """Tags with their attributes, and the visible text."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words = ""
        self.feed(code)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def page(study_dir: Path) -> str:
    return report.build(study_dir, REFERENCE).read_text(encoding="utf-8")


def test_report_fetches_nothing(page: str) -> None:
    for tag, attributes in Page(page).tags:
        for name in ("src", "href", "data", "poster", "srcset"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, attributes[name][:60])
    assert "@import" not in page
    assert not re.search(r"url\(\s*['\"]?http", page)
    assert len(page) < 15_000_000


def test_report_has_its_sections_in_order(page: str) -> None:
    wanted = ["answer", "ranking", "curves", "correction", "failures", "cases", "contrasts",
              "equivalence", "stability", "absent", "calibration", "rates", "data", "cost",
              "cards", "reading", "provenance", "tables"]  # fmt: skip
    sections = [attributes["id"] for tag, attributes in Page(page).tags if tag == "section"]
    assert sections == wanted


def test_headings_do_not_skip_a_level(page: str) -> None:
    levels = [int(tag[1]) for tag, _ in Page(page).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_report_tells_the_answer_failures_and_environment(page: str, study_dir: Path) -> None:
    words = Page(page).words
    for answer in answers(read_study(study_dir), []):
        assert answer.told in words
    assert "MemoryError: killed" in words
    assert "the loss became nan at step 310" in words
    assert "all background" in words
    assert "2.13.0" in words
    assert "learning_rate: 0.003" in words


def test_scores_in_the_report_are_those_of_the_table(page: str, study_dir: Path) -> None:
    study = read_study(study_dir)
    row = study.row("dice_ce")
    assert f"[{row['mean_dice_low']:.2f}, {row['mean_dice_high']:.2f}]" in page
    assert f'data-sort="{row["mean_dice"]}"' in page


def section_code(page: str, name: str) -> str:
    code = page[page.index(f'<section id="{name}"') :]
    return code[: code.index("</section>")]


def section(page: str, name: str) -> str:
    """The words of one section, with a space between two cells."""
    words = re.sub("<[^>]+>", " ", section_code(page, name))
    return " ".join(html.unescape(words).split())


def test_contrasts_tell_what_they_detect_and_what_holds_for_these_seeds(
    page: str, study_dir: Path
) -> None:
    study = read_study(study_dir)
    words = section(page, "contrasts")
    found = study.contrast("reference", "dice", "dice_ce", "mean_dice")
    detectable, freedom = found["minimum_detectable_difference"], found["degrees_of_freedom"]
    assert f"{detectable:.3f} {freedom:.1f} df" in words
    assert "these seeds only (Holm)" in words
    assert evidence.detectable(study) in section(page, "answer")


def test_collapse_is_told_as_k_of_n_with_wilsons_interval(page: str) -> None:
    words = section(page, "failures")
    # 3 of 3 collapsed: 0.4385 is Wilson's lower bound, n / (n + z^2)
    low = 3 / (3 + 1.959964**2)
    assert f"3 of 3 [{100 * low:.0f} %, 100 %]" in words
    assert f"0 of 3 [0 %, {100 * (1 - low):.0f} %]" in words
    assert "all background" not in words
    above, _, folded = words.partition("Losses of which no run lost a class or diverged (3)")
    for name, broken in (("Dice CE", False), ("Cross entropy", True), ("Combo (published)", True)):
        assert (name in above.partition("Any class lost")[2]) is broken
        assert name in (above if broken else folded)


def test_no_p_is_shown_where_the_margin_is_too_small(page: str, study_dir: Path) -> None:
    pairs = evidence.standing_pairs(read_study(study_dir))
    small = pairs[pairs["verdict"] == "margin too small"]
    assert len(small)
    cells = re.findall(r"<td>margin too small</td>.*?<td class=\"n\">–</td><td class=\"n\">–</td>",
                       page)  # fmt: skip
    assert len(cells) == len(small)


def test_calibration_and_absence_are_those_of_the_summary(page: str, study_dir: Path) -> None:
    row = read_study(study_dir).row("dice")
    words = section(page, "calibration")
    assert f"Dice best {row['ece']:.3f} {row['nll']:.3f} {row['presence_auc']:.2f}" in words
    assert "False-positive volume, mean (mm³)" in section(page, "absent")


def test_learning_rates_are_told_with_and_without_trials(page: str, tmp_path: Path) -> None:
    words = section(page, "rates")
    assert "widened" in words and "Still best at an end" in words
    untuned = report.build(write_study(tmp_path / "study", losses=(Loss("dice", "x", 0.7),)))
    plain = section(untuned.read_text(encoding="utf-8"), "rates")
    assert "0.003" in plain and "no rate was tuned in this study" in plain
    assert "Trials" in words and "Trials" not in plain


def test_each_split_has_its_digest(page: str, study_dir: Path) -> None:
    study = read_study(study_dir)
    dataset = study.dataset
    words = section(page, "data")
    for split in ("train", "validation", "test"):
        digest = dataset.loc[dataset["split"] == split, "sha256"].iloc[0]
        assert f"{split} {digest[:12]}" in words
        assert f'<code title="{digest}">{digest[:12]}</code>' in page
    older = dataclasses.replace(study, dataset=dataset.drop(columns="sha256"))
    assert "SHA-256" not in section(report.render(older, study_dir), "data")


def test_every_table_has_a_name_of_its_own(page: str) -> None:
    tables = re.findall("<table.*?</table>", page, re.S)
    names = [re.search("<caption[^>]*>([^<]+)</caption>", table) for table in tables]
    assert len(tables) > 15 and all(names)
    ours = [name.group(1) for name in names if name and name.group(1) != "What else differs"]
    assert len(set(ours)) == len(ours)


def test_units_and_abbreviations_are_spelt_out(page: str) -> None:
    assert "HD95 (mm)" in section(page, "ranking")
    assert "Volume error (predicted / true − 1)" in section(page, "ranking")
    assert "fewest voxels" in section(page, "ranking") and "fewest" in section(page, "answer")
    words = section(page, "calibration")
    assert "expected calibration error (ECE)" in words and "log-likelihood (NLL)" in words


def test_images_have_alternative_texts(page: str) -> None:
    images = [attributes for tag, attributes in Page(page).tags if tag == "img"]
    assert len(images) == len(report.TITLES)
    assert all(image["alt"] for image in images)


def test_formulas_are_mathml(page: str) -> None:
    assert section_code(page, "cards").count("<math ") == 6


def test_hostile_names_are_shown_not_run(tmp_path: Path) -> None:
    losses = (
        Loss("dice_ce", "compound", 0.7),
        Loss(f"x{EVIL}", EVIL, 0.6, twin="dice_ce", fails=(1,)),
    )
    folder = write_study(tmp_path / "study", losses=losses, classes=(f"a{EVIL}", "b"),
                         case_name=f"{{}}{EVIL}", dataset=EVIL)  # fmt: skip
    tables = folder / "tables"
    runs = pd.read_csv(tables / "runs.csv")
    runs["reason"] = f"\"'>{EVIL}"
    runs.to_csv(tables / "runs.csv", index=False)
    cards = json.loads((tables / "cards.json").read_text())
    cards[0] |= {"formula": rf"\text{{{EVIL}}}", "title": EVIL, "options": {EVIL: EVIL}}
    (tables / "cards.json").write_text(json.dumps(cards))
    (folder / "environment.json").write_text(json.dumps({EVIL: {EVIL: EVIL}}))
    code = report.build(folder).read_text(encoding="utf-8")
    assert EVIL not in code
    kinds = [attributes.get("type") for tag, attributes in Page(code).tags if tag == "script"]
    assert kinds.count(None) == 2  # ours, which hold nothing of the study
    assert set(kinds) <= {None, "application/json", "text/plain"}
    assert EVIL in Page(code).words


@pytest.mark.parametrize(
    "latex",
    [rf"\text{{{EVIL}}}", "a & b < c", r"\frac{1", EVIL, "", r"\href{javascript:alert(1)}{x}"],
)
def test_formulas_cannot_carry_markup(latex: str) -> None:
    code = mathml(latex)
    assert "<script" not in code
    assert "javascript:" not in re.sub(r"<code>.*</code>", "", code)


def test_formula_that_cannot_be_converted_is_shown_as_source() -> None:
    assert mathml(r"\left(<b>") == r"<code>\left(&lt;b&gt;</code>"
    assert mathml(r"$\frac{1}{2}$").startswith("<math ")


@pytest.mark.parametrize(
    "options",
    [{"seeds": 1}, {"losses": (Loss("dice", "overlap", 0.7, fails=(0, 1)),)}],
    ids=["one seed", "everything failed"],
)
def test_report_of_a_poor_study_is_still_built(tmp_path: Path, options: dict) -> None:
    folder = write_study(tmp_path / "study", **options)
    words = Page(report.build(folder).read_text(encoding="utf-8")).words
    assert not re.search(r"\bnan\b(?! at step)", words)


@pytest.mark.parametrize("table", TABLES)
def test_report_is_made_without_a_table(page: str, study_dir: Path, table: str) -> None:
    study = dataclasses.replace(read_study(study_dir), **{table: pd.DataFrame()})
    words = Page(report.render(study, study_dir)).words
    assert not re.search(r"\bnan\b(?! at step)", words)


def test_study_without_tables_still_has_a_report(tmp_path: Path) -> None:
    words = Page(report.build(tmp_path).read_text(encoding="utf-8")).words
    assert "No run has been recorded" in words
