"""The paper compiles for any study, holds no typed number, and claims what the tables say."""

import json
import re
import shutil
import tomllib
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import pytest
import typst
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic_study import Loss, write_study

import losses
from workflow import files
from workflow.comparison import collapse, statistics
from workflow.reporting import (
    experiment,
    figures,
    formula,
    literature,
    paper,
    paper_experiments,
    paper_summary,
    paper_text,
    paper_typesetting,
)
from workflow.reporting import experiment_published as published
from workflow.reporting.experiment import Experiment
from workflow.reporting.study_tables import Study, read_study

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
    r"\(auto, 1fr, 1\.1fr\)|\(auto, 1fr, auto|columns: 1\)|level: 1,",  # layout
    r"MNI152|HD95|pytorch-3dunet",
)
NUMERALS = (
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|hundred|half|thirds?"
)
NOUNS = (
    "seeds?|loss(?:es)?|runs?|cases?|class(?:es)?|rules?|pairs?|forms?|percent|times|thirds?|"
    "halves|contrasts?|versions?|patch(?:es)?|rates?|documents?|steps?"
)


def typed_numbers(source: str) -> list[str]:
    """Digits of the prose outside of what is allowed, and numerals beside what is counted."""
    prose = re.sub(r"(?m)^\s*//.*$", "", source)
    for pattern in ALLOWED:
        prose = re.sub(pattern, " ", prose)
    # constants of formulas are whole numbers below ten
    prose = re.sub(
        r"\$[^$]*\$", lambda found: re.sub(r"(?<![\d.])\d(?!\.?\d)", "", found[0]), prose
    )
    spelt = rf"\b(?:{NUMERALS})\s+(?:of\s+)?(?:\w+\s+)?(?:\w+\s+)?(?:{NOUNS})\b"
    return re.findall(r"\S*\d\S*", prose) + re.findall(spelt, prose)


def test_no_number_is_typed_into_the_prose() -> None:
    assert typed_numbers(PROSE) == []
    assert "http" not in PROSE
    assert "@preview" not in PROSE + TEMPLATE


@pytest.mark.parametrize(
    "statistic",
    ["mean Dice 0.72", "in 9 runs", "42 %", "three seeds", "nine of ten losses", "$0.72$",
     "$p < 0.05$", "$95 %$", "a factor of 130", "seven published forms",
     "two thirds of the patches", "a third of the patches", "half of the cases",
     "in two contrasts", "three rates", "five documents"],
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
    """A copy of the answers that claims rest on, which a test may alter."""
    for name in ("mechanism", "published"):
        shutil.copytree(REFERENCE / name, tmp_path / name)
    return tmp_path


def claims(folder: Path) -> dict[str, bool]:
    return paper_experiments.claims(paper_experiments.read(folder).experiments)


def test_every_claim_of_the_prose_is_computed_and_holds() -> None:
    held = paper_experiments.claims(whole()[0].experiments)
    assert set(re.findall(r'#claim\("([^"]+)"\)', PROSE)) == set(held)
    assert all(held.values())


WRITTEN, ANSWER = "published_generalized_dice_written", "published_generalized_dice_answer"
ALTERED = {
    "the control learns every class": ("verdict", "loss == 'dice'", "works", False),
    "rules that discard nothing lose a class too": ("verdict", "generalized", "works", True),
    "the written loss discards updates": (
        "updates", "loss == 'published_generalized_dice_written'", "effective", 1.0,
    ),
    "graph mode is one minus the mean probability": (
        "identity", "shown == 'exact'", "largest_difference", 0.1,
    ),
    "an absent class outweighs all others": (
        "gradients", f"loss == '{WRITTEN}' and not present", "weight", 0.4,
    ),
    "the fixed weight is large against the background's": (
        "gradients", f"loss == '{ANSWER}'", "weight", 0.25,
    ),
    "most defects raise no error": ("twins", "published != ''", "published_diverged", 3),
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERED)
def test_a_claim_falls_with_its_table(name: str, reference: Path) -> None:
    table, where, column, value = ALTERED[name]
    folder = "published" if table == "twins" else "mechanism"
    path = reference / folder / "tables" / "answers" / f"{table}.csv"
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


# Beginning and end


def told_of(folder: Path) -> tuple[paper_experiments.Reference, Study]:
    return paper_experiments.read(folder), read_study(folder / paper.PROJECT)


@cache
def whole() -> tuple[paper_experiments.Reference, Study]:
    """The committed reference, which is long to read: not to be altered."""
    return told_of(REFERENCE)


def test_the_abstract_is_short_and_names_no_list() -> None:
    found = paper_summary.abstract(*whole())
    typed = PROSE[PROSE.index("abstract: [") + len("abstract: ") : PROSE.index("= Introduction")]
    typed = re.sub(r"#if [^\[]*|#tell\([^)]*\)", " ", typed)
    typed = re.sub(r'#\w+(?:\("[^"]*"\)|\.\w+)?|[\[\]()]', " ", typed)
    assert len(f"{typed} {' '.join(found)}".split()) <= 220
    assert all(sentence.count(",") < 6 for sentence in found)
    assert f"below {collapse.DICE_BELOW:g} in most cases" in " ".join(found)


def test_the_abstract_and_the_conclusion_turn_with_the_tables(tmp_path: Path) -> None:
    fine, other = Loss("dice", "overlap", 0.7), Loss("dice_ce", "compound", 0.7)
    lost = Loss("dice_ce", "compound", 0.7, collapse="total")
    twin = Loss("published_combo", "compound", 0.4, twin="dice_ce")
    write_study(tmp_path / "good" / paper.PROJECT, losses=(fine, other))
    write_study(tmp_path / "bad" / paper.PROJECT, losses=(fine, lost, twin))
    good, bad = (
        " ".join(paper_summary.conclusion(*told_of(tmp_path / name))) for name in ("good", "bad")
    )
    assert "Dice and Dice CE kept every class" in good or "Dice CE and Dice kept every" in good
    assert "would not use" not in good and "no safe loss" not in good
    assert "we would not use Dice CE: it lost a class in most runs" in bad
    assert "A correction is no safe loss for that: Dice CE (" in bad
    good, bad = (
        " ".join(paper_summary.abstract(*told_of(tmp_path / name))) for name in ("good", "bad")
    )
    assert "Of the 2 that kept every class in every run" in good
    assert "1 lost a class (Dice below" in bad and "1 pair" in bad and "pair" not in good


def test_rules_of_the_comparison_room_are_those_that_the_paper_tells() -> None:
    """Reporting reads tables and may not import them."""
    assert paper_text.DICE_BELOW == collapse.DICE_BELOW
    assert paper_experiments.POWER == statistics.POWER


def test_a_loss_whose_interval_is_wide_is_told_beside_the_best(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path / "s"))
    table = study.ranked.assign(tier="best")
    table.loc[1, "tier"] = "separable"
    study.__dict__["ranked"] = table
    last = table["mean_dice"].notna().sum() - (table["loss"] == "all_background").sum()
    told = paper_text.leaders(study)
    assert f"Of these, {last - 2} score below a loss that is separated from the first" in told
    study.__dict__["ranked"] = table.assign(tier="best")
    assert "wide" not in paper_text.leaders(study)


# How it is printed


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("Holm's p is 1e-16, not 7.5e-10", "Holm’s p is 10⁻¹⁶, not 7.5 × 10⁻¹⁰"),
        ("a 32^3 patch, p^w of reduction x smoothing", "a 32³ patch, pʷ of reduction × smoothing"),
        ("'max' gives 1 - Dice", "‘max’ gives 1 − Dice"),
        ("commit 52e4f85, 3x3, smooth_1e5b", "commit 52e4f85, 3x3, smooth_1e5b"),
    ],
)
def test_signs_are_those_of_printers(written: str, printed: str) -> None:
    assert paper_typesetting.typeset(written) == printed


def test_a_sentence_opens_with_a_word() -> None:
    opened = paper_typesetting.sentences
    assert opened("9 losses hold. 21 of 30 do not.") == "Nine losses hold. Twenty-one of 30 do not."
    assert opened("At 0.05 no 3 do. 67 % do.") == "At 0.05 no 3 do. 67 % do."
    assert [paper_typesetting.spelled(n) for n in (0, 19, 20, 99)] == [
        "zero", "nineteen", "twenty", "ninety-nine",
    ]  # fmt: skip


def test_keys_paths_and_formulas_are_printed_as_they_are() -> None:
    kept = {"file": "it's.svg", "source": "x^2", "keys": ["it's"]}
    assert paper_typesetting.everywhere(kept) == kept
    said = {"it's": ("it's", 3, None)}
    assert paper_typesetting.everywhere(said) == {"it's": ["it’s", 3, None]}


def test_a_run_that_diverged_is_no_other_collapse() -> None:
    source = TEMPLATE[TEMPLATE.index("#let known") : TEMPLATE.index("#let fixed")]
    source += TEMPLATE[TEMPLATE.index("#let count(") : TEMPLATE.index("#let tiers")]
    rows = [
        '(loss: "a", collapsed: "3", diverged: "3", failed: "0", runs: "3")',
        '(loss: "b", collapsed: "2", diverged: "1", failed: "1", runs: "4")',
        '(loss: "c", collapsed: "0", diverged: "0", failed: "", runs: "3")',
        '(loss: "floor", collapsed: "1", diverged: "", failed: "", runs: "1")',
    ]
    shown = f"#metadata(({', '.join(rows)}).map(outcome)) <shown>"
    project = {"main.typ": f'#let said = (floor: "floor")\n{source}\n{shown}'.encode()}
    assert json.loads(typst.query(project, "<shown>", field="value", one=True)) == [
        "3 diverged of 3",
        "1 collapsed, 1 diverged, 1 failed of 4",
        "–",
        "not trained",
    ]


@pytest.mark.parametrize("name", ["ranking", "published_corrected"])
def test_a_figure_is_drawn_at_the_width_of_the_page_with_letters_to_read(
    study_dir: Path, name: str
) -> None:
    figure = figures.FIGURES[name](read_study(study_dir))
    svg = paper._svg(figure).decode()
    width = float(re.search(r'width="([\d.]+)pt"', svg)[1])
    assert width == pytest.approx(72 * paper.PRINT)
    letters = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert letters and min(text.get_fontsize() for text in letters) >= paper.SMALLEST
    assert "alt: its.title" in TEMPLATE


def test_a_legend_keeps_within_the_page() -> None:
    figure = Figure(figsize=(paper.PRINT, 3), layout="constrained")
    (line,) = figure.subplots().plot([0, 1])
    names = [f"a rather long name of a class, number {n}" for n in range(6)]
    figure.legend([line] * 6, names, loc="outside lower center", ncols=6)
    paper._svg(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == names
    box = legend.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    assert box.width <= figure.bbox.width


# Experiments and long tables


def test_the_paper_has_a_section_for_every_experiment() -> None:
    names = {
        path.stem
        for path in (ROOT / "config").glob("*.yaml")
        if re.search(r"(?m)^(experiment|arms):", path.read_text())
    }
    assert names == set(paper_experiments.FIGURES)
    assert set(re.findall(r'#experiment\("(\w+)"', PROSE)) == names


def arms_of_clipping(rows: list[tuple]) -> Experiment:
    table = pd.DataFrame(rows, columns=["arm", "loss", "collapsed"]).assign(test_set="p")
    arms = {name: {"preparation": {"normalisation": name}} for name in ("percentiles", "zscore")}
    runs = table[["arm", "loss"]].assign(learning_rate=0.01)
    config = {"dataset": {"name": "p"}, "arms": arms}
    return Experiment("n", config, raw={"runs": runs}, answers={"summary": table})


def test_what_clipping_has_a_part_in_is_counted() -> None:
    rows = [("percentiles", "dice", 0), ("percentiles", "focal", 2), ("percentiles", "iou", 1)]
    rows += [("zscore", "dice", 1), ("zscore", "focal", 0), ("zscore", "iou", 3)]
    assert paper_experiments.without_clipping(arms_of_clipping(rows)) == (
        "Of 2 losses that lost a class in some run where intensities were clipped, 1 lost none "
        "without clipping."
    )
    assert paper_experiments.without_clipping(arms_of_clipping(rows[:3])) == ""


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({}, "The study clips the extreme intensities"),
        ({"preparation": {"normalisation": "percentiles"}}, "The study clips the extreme"),
        ({"preparation": {"normalisation": "zscore"}}, "The study only standardises"),
    ],
)
def test_which_arm_clips_is_told_from_the_study(study_dir: Path, own: dict, told: str) -> None:
    study = read_study(study_dir)
    study.config = {key: study.config[key] for key in study.config if key != "preparation"} | own
    its = arms_of_clipping([("percentiles", "dice", 0), ("zscore", "dice", 1)])
    for rate in (0.01, 0.5):
        study.runs = study.runs.assign(learning_rate=rate)
        found = paper_experiments.clipping(its, study)
        assert found.startswith(told)
        assert ("none of its own" in found) == (rate == 0.01)


def test_a_shard_says_which_it_is(reference: Path) -> None:
    its = paper_experiments.read(reference).experiments["mechanism"].experiment
    runs = len(its.raw["runs"])
    outcomes = its.answers["outcomes"]
    outcomes["missing"] = 0
    assert "planned runs are in these tables" in paper_experiments.shard(its)
    outcomes.loc[0, "missing"] = int(outcomes["runs"].sum()) - runs
    its.raw["runs"] = its.raw["runs"].assign(seed=7, arm="tuned")
    told = paper_experiments.shard(its)
    assert f"Part of the planned runs: {runs} of {outcomes['runs'].sum()}, seed 7 of" in told
    assert told.endswith("of the arm rules at tuned rates.")


def test_a_reason_is_cut_to_the_sentences_that_say_it() -> None:
    long = "The sign is flipped: the code returns minus the loss that it names, and so on."
    assert paper_text.summarised(f"{long} Alpha multiplies both. More.") == long
    short = "The formula is right. The test of sizes is not. More."
    assert paper_text.summarised(short) == short
    assert paper_text.summarised(f"It is right. {long} More.") == f"It is right. {long}"
    assert paper_text.summarised("") == ""
    assert paper_text.summarised("lovasz_hinge is meant.", ["lovasz_hinge"]) == (
        "Lovász hinge is meant."
    )


def test_what_shares_its_rate_with_the_correction_is_told_by_name() -> None:
    its = experiment.read(REFERENCE / "published")
    rows = paper_experiments.differences(its)
    lower = [row for row in rows if row["verdict"] in ("costs", "breaks down")]
    same = [row for row in lower if "→" not in row["rates"]]
    told = paper_experiments.same_rate(its)
    assert told.startswith(f"Of the {len(lower)} that score lower or break down, {len(same)} ha")
    assert all(row["published"] in told for row in same)
    pairs = published.twins(its).assign(published_learning_rate=1.0)
    its.answers["twins"] = pairs.reset_index()
    assert "none have the learning rate" in paper_experiments.same_rate(its)


def test_a_verdict_that_the_pairs_own_interval_would_not_give_says_so() -> None:
    clear, open_ = (pd.Series({"low": low, "high": 0.3}) for low in (0.1, -0.1))
    assert paper_text.after_holm("undecided", clear) == "undecided after Holm"
    assert paper_text.after_holm("undecided", open_) == "undecided"
    assert paper_text.after_holm("costs", clear) == "costs"
    assert paper_text.both_rates(0.01, 0.01) == "0.01"
    assert paper_text.both_rates(0.01, 0.003) == "0.01 → 0.003"


def test_every_form_is_listed_with_the_documents_that_published_it() -> None:
    reference, study = whole()
    rows = paper_experiments.documents(reference.experiments, study)
    wrong = reference.experiments["published"].experiment.answers["mechanisms"]
    assert [row["number"] for row in rows] == sorted(
        set(re.findall(r"\d{3}", " ".join(wrong["source"])))
    )
    assert all(re.search(rf'"{row["number"]}": \[', PROSE) for row in rows)
    assert "Combo" in next(row["forms"] for row in rows if row["number"] == "001")
    fewer = paper_experiments.documents({}, study)
    assert {row["number"] for row in fewer} <= {row["number"] for row in rows}


def test_rules_of_generalized_dice_are_told_by_their_options() -> None:
    reference, study = whole()
    its = reference.experiments["mechanism"].experiment
    rows = {row["name"]: row for row in paper_experiments.weights(its, study)}
    assert len(rows) == len(paper_experiments.mechanisms.rules_at(its, "tuned"))
    assert rows["GDL skip"]["absent"] == "the image is left out"
    assert "10 times" in rows["GDL cap 10"]["absent"]
    assert rows["GDL batch"]["over"] == "batch"
    assert "without background" in rows["GDL foreground"]["over"]
    assert rows["GDL simple"]["source"] != rows["Generalized Dice"]["source"]
    assert "V_c^2 + 10^{-5}" in rows["Generalized Dice written (published)"]["source"]


def test_differences_that_can_be_found_are_those_of_the_table() -> None:
    found = {
        name: paper_experiments.detectable(name, its)
        for name, its in whole()[0].experiments.items()
    }
    assert all(len(row) == 5 for row in found.values())
    assert "smoothing" in found["factorial"][1] and "_" not in found["factorial"][1]
    its = experiment.read(REFERENCE / "published")
    rows = its.comparisons.query("contrast == 'reference' and endpoint == 'mean_dice'")
    median = rows["minimum_detectable_difference"].median()
    assert found["published"][3].startswith(f"{median:.2f} (")
    del its.comparisons  # computed again from its table
    its.answers["comparisons"]["minimum_detectable_difference"] = 0.0
    told = replace(whole()[0].experiments["published"], experiment=its)
    assert paper_experiments.detectable("published", told) == []


def test_shares_of_centred_patches_are_those_of_the_arms() -> None:
    arms = pd.DataFrame({"training.foreground_share": [0.25, 0.0, 0.25, 0.5]})
    assert paper_experiments.centred(Experiment("i", raw={"arms": arms})) == "0 %, 25 % or 50 %"


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
