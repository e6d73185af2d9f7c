"""The paper compiles for any study, holds no typed number, and claims what the tables say."""

import json
import re
import shutil
import tomllib
import zlib
from pathlib import Path

import pandas as pd
import pytest
import typst
import yaml
from synthetic_study import Loss, write_study

import losses
from workflow import files
from workflow.reporting import formula, literature, paper, paper_experiments, paper_text
from workflow.reporting.experiment import Experiment
from workflow.reporting.study_tables import read_study

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "paper" / "paper.typ"
TEMPLATE = SOURCE.with_name("template.typ").read_text(encoding="utf-8")
PROSE = SOURCE.read_text(encoding="utf-8")
BIBLIOGRAPHY = SOURCE.with_name("references.bib").read_text(encoding="utf-8")
REFERENCE = ROOT / "results" / "reference"


def pages(pdf: Path) -> int:
    """Pages of a PDF, from the page tree, which may lie in a compressed stream."""
    data = pdf.read_bytes()
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL):
        try:
            data += zlib.decompress(stream)
        except zlib.error:
            continue
    return len(re.findall(rb"/Type\s*/Page(?![\w])", data))


# It compiles


@pytest.mark.parametrize(
    "options",
    [
        {"tuned": True},
        {"losses": (Loss("dice", "overlap", 0.7, fails=(0, 1)),)},
        {"losses": tuple(Loss(f"loss_{i}", "overlap", 0.7) for i in range(19)), "cases": 3},
    ],
    ids=["6 losses", "everything failed", "a table of formulas in parts"],
)
def test_the_paper_of_any_study_compiles(tmp_path: Path, options: dict) -> None:
    folder = write_study(tmp_path / "study", **options)
    out = paper.compile(SOURCE, folder, tmp_path / "deep" / "paper.pdf")
    assert 3 < pages(out) < 12


def test_the_same_study_makes_the_same_bytes(study_dir: Path, tmp_path: Path) -> None:
    first = paper.compile(SOURCE, study_dir, tmp_path / "a.pdf").read_bytes()
    assert paper.compile(SOURCE, study_dir, tmp_path / "b.pdf").read_bytes() == first


def test_the_papers_own_study_brings_the_reference_and_no_other_does(
    study_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its length is that of an article, claims of its prose included."""
    given = []
    told = paper_experiments.read
    monkeypatch.setattr(
        paper_experiments, "read", lambda folder: given.append(folder) or told(folder)
    )
    out = paper.compile(SOURCE, REFERENCE / paper.PROJECT, tmp_path / "paper.pdf")
    assert 8 <= pages(out) <= 14
    paper.compile(SOURCE, study_dir, tmp_path / "other.pdf")
    assert given == [REFERENCE, None]


# No number is typed

ALLOWED = (
    r"@[\w-]+",  # citations and references
    r'"[^"]*"',  # names of tables, rows, labels
    r"#import.*",
    r"\bdigits: \d",
    r"\.len\(\) > 0|number > 0|library > 0",
    r"\n +(?:17|52),(?=\n)",  # rows of a table on a page
    r"MNI152|HD95|pytorch-3dunet",
)
NUMERALS = "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|hundred"
NOUNS = "seeds?|loss(?:es)?|runs?|cases?|class(?:es)?|rules?|pairs?|forms?|percent|times"


def typed_numbers(source: str) -> list[str]:
    """Digits of the prose outside of what is allowed, and numerals beside what is counted."""
    prose = re.sub(r"(?m)^\s*//.*$", "", source)
    for pattern in ALLOWED:
        prose = re.sub(pattern, " ", prose)
    # constants of formulas are whole numbers below ten
    prose = re.sub(
        r"\$[^$]*\$", lambda found: re.sub(r"(?<![\d.])\d(?!\.?\d)", "", found[0]), prose
    )
    spelt = rf"\b(?:{NUMERALS})\s+(?:of\s+\w+\s+)?(?:\w+\s+)?(?:{NOUNS})\b"
    return re.findall(r"\S*\d\S*", prose) + re.findall(spelt, prose)


def test_no_number_is_typed_into_the_prose() -> None:
    assert typed_numbers(PROSE) == []
    assert "http" not in PROSE
    assert "@preview" not in PROSE + TEMPLATE


@pytest.mark.parametrize(
    "statistic",
    ["mean Dice 0.72", "in 9 runs", "42 %", "three seeds", "nine of ten losses", "$0.72$",
     "$p < 0.05$", "$95 %$", "a factor of 130", "seven published forms"],
)  # fmt: skip
def test_a_typed_number_is_found(statistic: str) -> None:
    assert typed_numbers(PROSE.replace("= Data", f"= Data\n\nSo it is {statistic}.", 1))


def test_the_layout_says_nothing() -> None:
    code = re.sub(r"(?m)//.*$|message: \"[^\"]*\"", "", TEMPLATE)
    assert not re.search(r"(?:\b[a-z]{2,} ){5,}[a-z]+", code)


def test_numbers_of_the_paper_are_rounded_as_in_the_table(study_dir: Path) -> None:
    """Typst's own formatting of every score, asked for by a query, against Python's."""
    summary = pd.read_csv(study_dir / "tables" / "summary.csv")
    values = [*summary["mean_dice"].dropna(), -0.004, -0.126, 0.0, 1.0, 0.996, 12.3]
    numbers = TEMPLATE[TEMPLATE.index("#let known") : TEMPLATE.index("#let estimate")]
    for digits in (0, 1, 2, 3):
        asked = ", ".join(f'fixed("{value!r}", digits: {digits})' for value in map(float, values))
        project = {"main.typ": f"{numbers}\n#metadata(({asked},)) <shown>".encode()}
        shown = json.loads(typst.query(project, "<shown>", field="value", one=True))
        expected = [f"{value:.{digits}f}" for value in values]
        # halves go away from zero here and to the even digit there
        near = [abs(float(x.replace("−", "-")) - v) <= 0.5001 * 10**-digits
                for x, v in zip(shown, values, strict=True)]  # fmt: skip
        assert all(near)
        if digits > 1:
            zero = f"{0:.{digits}f}"
            assert shown == [x.replace(f"-{zero}", zero).replace("-", "−") for x in expected]


# Numbers and words of others


def test_numbers_of_other_papers_have_their_source_and_are_used() -> None:
    rows = pd.read_csv(literature.TABLE)
    assert rows["name"].is_unique
    assert set(re.findall(r'#quote\("(\w+)"', PROSE)) == set(rows["name"])
    assert set(rows["source"]) <= set(re.findall(r"@\w+\{(\w+),", BIBLIOGRAPHY))
    for _, row in rows.iterrows():
        assert f"@{row['source']}" in PROSE


def test_every_entry_of_the_bibliography_can_be_found_and_is_cited() -> None:
    entries = dict(re.findall(r"@\w+\{(\w+),(.*?)\n\}", BIBLIOGRAPHY, re.DOTALL))
    assert len(entries) == BIBLIOGRAPHY.count("\n@")
    for key, body in entries.items():
        assert re.search(r"doi = \{10\.|arXiv:\d{4}\.\d{5}|url = \{https://", body), key
        assert "author = " in body and "title = " in body
        assert "year = " in body or "stackexchange" in body
    cited = set(re.findall(r"@(\w+)", PROSE))
    cards = [losses.card(name).paper or "" for name in losses.available()]
    by_place = paper_experiments.sources(BIBLIOGRAPHY)
    by_cards = {key for place, key in by_place.items() if any(place in c.lower() for c in cards)}
    assert set(entries) <= cited | by_cards


def test_cards_and_bibliography_agree_on_the_year_of_a_work() -> None:
    years = {
        key: year
        for key, body in re.findall(r"@\w+\{(\w+),(.*?)\n\}", BIBLIOGRAPHY, re.DOTALL)
        for year in re.findall(r"year = \{(\d{4})\}", body)
    }
    assert all(year in key for key, year in years.items() if re.search(r"(?:19|20)\d\d$", key))
    by_place = paper_experiments.sources(BIBLIOGRAPHY)
    compared = 0
    for name in losses.available():
        card = losses.card(name).paper or ""
        for place in re.finditer(paper_experiments.PLACES, card):
            said = re.findall(r"\((\d{4})\)", card[: place.start()])
            if said and place[1].lower() in by_place:
                assert said[-1] == years[by_place[place[1].lower()]], (name, place[1])
                compared += 1
    assert compared > 20


def test_every_established_loss_of_the_default_study_is_cited() -> None:
    rows = paper_experiments.cards(read_study(REFERENCE / paper.PROJECT), BIBLIOGRAPHY)
    assert [row["name"] for row in rows if not row["published"] and not row["keys"]] == []


@pytest.mark.parametrize("name", losses.available())
def test_the_formula_of_every_card_is_drawn_as_the_card_has_it(name: str) -> None:
    source = losses.card(name).formula.replace(r"\frac", r"\dfrac")
    assert formula.svg(source, 8.0).startswith(b"<?xml")


def test_a_formula_that_cannot_be_drawn_is_left_to_its_source() -> None:
    assert formula.svg(r"\frac{1", 8.0) is None


# Claims


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """A copy of the mechanism's answers that a test may alter."""
    shutil.copytree(REFERENCE / "mechanism", tmp_path / "mechanism")
    return tmp_path


def claims(folder: Path) -> dict[str, bool]:
    return paper_experiments.claims(
        paper_experiments.read(folder).experiments["mechanism"].experiment
    )


def test_every_claim_of_the_prose_is_computed_and_holds() -> None:
    assert set(re.findall(r'#claim\("([^"]+)"\)', PROSE)) == set(claims(REFERENCE))
    assert all(claims(REFERENCE).values())


ALTERED = {
    "the control learns every class": ("verdict", "loss == 'dice'", "works", False),
    "rules that discard nothing lose a class too": ("verdict", "generalized", "works", True),
    "the written loss discards updates": (
        "updates", "loss == 'published_generalized_dice_written'", "effective", 1.0,
    ),
    "graph mode is one minus the mean probability": (
        "identity", "shown == 'exact'", "largest_difference", 0.1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERED)
def test_a_claim_falls_with_its_table(name: str, reference: Path) -> None:
    table, where, column, value = ALTERED[name]
    path = reference / "mechanism" / "tables" / "answers" / f"{table}.csv"
    rows = files.read_table(path)
    rows.loc[rows.query(where).index, column] = value
    rows.to_csv(path, index=False)
    assert not claims(reference)[name]


@pytest.mark.parametrize(("held", "fails"), [("true", False), ("false", True)])
def test_a_claim_that_fell_stops_the_paper(held: str, fails: bool) -> None:
    guard = TEMPLATE[TEMPLATE.index("#let claim") : TEMPLATE.index("#let tell")]
    source = f'#let said = (claims: (a: {held}))\n{guard}\n#claim("a")[so it is]'
    if fails:
        with pytest.raises(typst.TypstError, match="do not support the claim: a"):
            typst.compile({"main.typ": source.encode()})
    else:
        assert typst.compile({"main.typ": source.encode()}).startswith(b"%PDF")


def test_sentences_turn_with_the_tables(tmp_path: Path) -> None:
    fine, other = Loss("dice", "overlap", 0.7), Loss("dice_ce", "compound", 0.7)
    lost = Loss("dice_ce", "compound", 0.7, collapse="total")
    good = read_study(write_study(tmp_path / "good", losses=(fine, other)))
    bad = read_study(write_study(tmp_path / "bad", losses=(fine, lost)))
    assert paper_text.fate(good) == "None of 2 losses lost a class in any run."
    assert paper_text.fate(bad).startswith("Of 2 losses, 1 lost a class in most of their runs")
    assert paper_text.unbroken(good).startswith("2 losses kept every class in every run")
    assert "no other loss holds" in paper_text.leaders(bad)


# Experiments and long tables


def test_the_paper_has_a_section_for_every_experiment() -> None:
    names = {
        path.stem
        for path in (ROOT / "config").glob("*.yaml")
        if re.search(r"(?m)^(experiment|arms):", path.read_text())
    }
    assert names == set(paper_experiments.FIGURES)
    assert set(re.findall(r'#experiment\("(\w+)"', PROSE)) == names


def test_what_clipping_has_a_part_in_is_told_loss_by_loss() -> None:
    rows = [("percentiles", "dice", 0), ("percentiles", "focal", 2), ("percentiles", "iou", 1)]
    rows += [("zscore", "dice", 1), ("zscore", "focal", 0), ("zscore", "iou", 3)]
    table = pd.DataFrame(rows, columns=["arm", "loss", "collapsed"]).assign(test_set="p")
    both = Experiment("n", {"dataset": {"name": "p"}}, answers={"summary": table})
    assert paper_experiments.headline("normalisation", both).endswith(
        "of 2 losses tried that lost a class in some run, Focal lost none without clipping, IoU "
        "still did."
    )
    one = Experiment("n", both.config, answers={"summary": table[table["arm"] == "zscore"]})
    assert paper_experiments.headline("normalisation", one) == ""


def test_a_shard_says_which_it_is(reference: Path) -> None:
    its = paper_experiments.read(reference).experiments["mechanism"].experiment
    runs = len(its.raw["runs"])
    outcomes = its.answers["outcomes"]
    outcomes["missing"] = 0
    assert "planned runs are in these tables" in paper_experiments.shard(its)
    outcomes.loc[0, "missing"] = int(outcomes["runs"].sum()) - runs
    its.raw["runs"] = its.raw["runs"].assign(seed=7, arm="tuned")
    told = paper_experiments.shard(its)
    assert f"Part of the planned runs: {runs} of {outcomes['runs'].sum()}, seeds 7" in told
    assert told.endswith("of the arm tuned.")


def test_a_reason_is_cut_to_the_sentences_that_say_it() -> None:
    long = "The sign is flipped: the code returns minus the loss that it names, and so on."
    assert paper_text.summarised(f"{long} Alpha multiplies both. More.") == long
    short = "The formula is right. The test of sizes is not. More."
    assert paper_text.summarised(short) == short
    assert paper_text.summarised(f"It is right. {long} More.") == f"It is right. {long}"
    assert paper_text.summarised("") == ""


def test_a_short_sentence_is_no_paragraph_and_none_is_lost() -> None:
    long = "x" * paper_experiments.SHORT
    sentences = ["one.", "two.", long, "three.", long, long]
    found = paper_experiments.paragraphs(sentences)
    assert found == ["one. two.", f"{long} three.", long, long]
    assert paper_experiments.paragraphs([]) == []


def test_a_long_table_is_parted_without_loss() -> None:
    rows = [{"reason": "x" * (100 * number)} for number in range(1, 30)]
    parts = paper_experiments.parts(rows)
    assert [row for part in parts for row in part] == rows
    assert len(parts) > 1
    assert all(sum(len(row["reason"]) for row in part) <= paper_experiments.ROOM for part in parts)
    assert paper_experiments.parts([]) == []


# The repository's own entry


def test_the_citation_is_that_of_the_package() -> None:
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert said["version"] == package["version"]
    assert said["license"] == package["license"]
    assert package["name"] in said["title"]
