"""The report of an experiment that has no question of its own: what its arms show."""

import html
import re
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest
import yaml
from browser import Browser, executable

from tests.synthetic_experiment import raw_tables
from workflow import files
from workflow.__main__ import main
from workflow.comparison import experiment as comparison
from workflow.reporting import experiment as reporting
from workflow.reporting import failures
from workflow.reporting.cells import WIDEST
from workflow.reporting.wording import readable
from workflow.study import load

REFERENCE = Path(__file__).parents[2] / "results" / "reference"

EVIL = "<script>alert(1)</script> & {{ 7 * 7 }}"
BASE = {
    "title": "Which batch?",
    "dataset": {"source": "phantom", "name": "p"},
    "external": {"source": "phantom", "name": "e"},
    "comparison": {"reference_loss": "dice"},
    "training": {"steps": 200},
    "seeds": [1, 2],
    "losses": {"dice": {}, "dice_ce": {}, "focal": {}},
    "arms": {
        "one": {"training": {"batch_size": 1}},
        "four": {"training": {"batch_size": 4}, "losses": ["dice", "focal"]},
    },
}


def level(arm, loss, name):
    """Focal depends on the arm, the others do not."""
    return {"dice": 0.7, "dice_ce": 0.75, "focal": 0.2 if arm == "four" else 0.6}[loss]


def write(folder, edit=lambda raw: raw, whole=None, **changes):
    """The folder of an experiment with made-up scores, as `collect` and `analyse` leave it."""
    folder.mkdir(parents=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(BASE | changes, sort_keys=False))
    study = load(path)
    raw = edit(raw_tables(study, level))
    path.write_text((whole or study).as_yaml())
    comparison.write(raw, folder / "tables", ".csv.gz")
    found = comparison.answers(load(path), raw)
    comparison.write(found, folder / "tables" / "answers", ".csv")
    return folder


def text(page):
    """What a reader sees of a page."""
    return html.unescape(re.sub(r"<(style|script).*?</\1>|<[^>]*>", "", page, flags=re.S))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("report") / "batch")


@pytest.fixture(scope="module")
def page(folder):
    return reporting.build(folder).read_text()


def test_the_page_shows_figure_scores_arms_and_provenance(folder, page):
    shown = text(page)
    for words in ("Which batch?", "experiment batch", "training.batch_size", "0a1b2c3", "2.13.0"):
        assert words in shown
    assert "focal" in shown.lower()
    assert page.count('<img src="data:image/svg+xml') == 1
    assert (folder / "figures" / "arms.png").stat().st_size > 0
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    rows = re.search(r'id="summary".*?</table>', page, re.S).group(0).count("<tr>") - 1
    assert rows == 3 + 2
    for name in ("summary.csv", "runs.csv", "cases.csv"):  # of the answers, and raw
        assert f'download="{name}"' in page or f'data-name="{name}"' in page
    assert "snakemake --cores all --configfile batch.yaml" in shown


def test_the_finding_names_the_loss_that_depends_most_on_the_arm(folder, tmp_path):
    experiment = reporting.read(folder)
    found = experiment.summary.set_index(["arm", "loss"])["mean_dice"]
    assert reporting.widest_spread(experiment) == (
        f"Focal depends most on the arm: mean Dice {found['four', 'focal']:.2f} to "
        f"{found['one', 'focal']:.2f}."
    )

    def swap(raw):
        cases = raw["cases"]
        cases.loc[(cases["loss"] == "dice") & (cases["arm"] == "one"), "dice"] = 0.01
        return raw

    flipped = reporting.read(write(tmp_path / "flipped", swap))
    assert reporting.widest_spread(flipped).startswith(
        "Dice depends most on the arm: mean Dice 0.0"
    )


def test_each_arm_is_told_with_its_losses_and_what_they_lost(folder, tmp_path):
    experiment = reporting.read(folder)
    said = reporting.by_arm(experiment)
    assert [sentence.partition(":")[0] for sentence in said] == ["Arm one", "Arm four"]
    for sentence, arm in zip(said, ("one", "four"), strict=True):
        rows = experiment.summary[experiment.summary["arm"] == arm]
        assert f"no losses of {len(rows)} lost a class or diverged" in sentence
        for row in rows.itertuples():
            assert f"{readable(row.loss)} {row.mean_dice:.2f} [" in sentence
        assert [s for s in text(reporting.build(folder).read_text()).split("\n") if sentence in s]
    diverged = reporting.by_arm(reporting.read(write(tmp_path / "failed", fail)))[0]
    assert "1 loss of 3 lost a class or diverged in some run (Dice in 1 of 2 runs)." in diverged


def test_one_arm_depends_on_nothing(tmp_path):
    one = reporting.read(write(tmp_path / "one", arms={"only": {}}))
    assert reporting.by_arm(one) == []
    best = one.summary.set_index("loss")["mean_dice"]
    assert reporting.widest_spread(one) == (
        f"Dice CE scores highest: mean Dice {best['dice_ce']:.2f}."
    )


def fail(raw):
    runs = raw["runs"]
    lost = (runs["arm"] == "four") & (runs["loss"] == "focal")
    runs.loc[lost, ["status", "reason", "collapse"]] = ["failed", f"ValueError: {EVIL}", ""]
    cases = raw["cases"]
    raw["cases"] = cases[~((cases["arm"] == "four") & (cases["loss"] == "focal"))]
    runs.loc[0, ["status", "reason"]] = ["diverged", "the loss is nan at step 7"]
    runs.loc[0, "commit"] = "fffffff"
    return raw


def test_failures_come_first_with_their_reasons_as_text(tmp_path):
    folder = write(tmp_path / "failed", fail)
    page = reporting.build(folder).read_text()
    assert EVIL not in page
    assert "<script>alert" not in page
    shown = text(page)
    failed = "2 of 10 runs failed: Focal in four (2)."
    diverged = "1 of 10 runs diverged: Dice in one (1)."
    assert failed in shown
    assert diverged in shown
    scores = shown.index("Mean Dice and Dice of each class")
    assert shown.index(failed) < shown.index(diverged) < scores
    rows = cells(page, "failures")
    assert rows == [
        ["four", "Focal", "1", "failed", f"ValueError: {EVIL}"],
        ["four", "Focal", "2", "failed", f"ValueError: {EVIL}"],
        ["one", "Dice", "1", "diverged", "the loss is nan at step 7"],
    ]
    assert reporting.made_by(reporting.read(folder)) == [
        "9 runs: commit 0a1b2c3, torch 2.13.0",
        "1 run: commit fffffff, torch 2.13.0",
    ]


def cells(page, section):
    """Text of the cells of the first table of a section, row by row."""
    found = re.search(rf'<section id="{section}">.*?</section>', page, re.S).group(0)
    body = re.search(r"<tbody>(.*?)</tbody>", found, re.S).group(1)
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.S)
    return [[text(cell) for cell in re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row)] for row in rows]


def test_the_end_of_a_log_stands_beside_the_reason(tmp_path):
    """Two arms share a run: its log lies in the folder of the first."""

    def stop(raw):
        raw["runs"].loc[raw["runs"]["loss"] == "dice", ["status", "reason"]] = ["failed", "no"]
        raw["runs"]["learning_rate"] = 0.003162  # tables keep four digits
        return raw

    arms = {"one": {}, "same": {"losses": ["dice"]}}
    folder = write(tmp_path / "study", stop, arms=arms, seeds=[1])
    logs = folder / "arms" / "one" / "logs" / "train" / "p"
    logs.mkdir(parents=True)
    lines = [f"{EVIL} {number}" for number in range(30)]
    (logs / "dice-lr-0.0031622776-seed-1.log").write_text("\n".join(lines))
    (logs / "dice-lr-0.01-seed-1.log").write_text("of another rate")
    (logs / "dice-lr-0.0031622776-seed-2.log").write_text("of another seed")
    assert main(["tell", str(folder / "config.yaml")]) == 0
    page = (folder / "report.html").read_text()
    assert "<script>alert" not in page
    ends = re.findall(r"End of its log.*?<pre.*?>(.*?)</pre>", page, re.S)
    assert [html.unescape(end).splitlines() for end in ends] == [lines[-failures.LINES :]] * 2
    reporting.build(folder)  # told without the runs, as of a merged study
    assert "End of its log" not in (folder / "report.html").read_text()


def test_where_nothing_failed_the_page_says_so(page):
    assert "None of 10 runs failed or diverged." in text(page)
    assert "not in these tables" not in text(page)
    assert "<tbody>" not in re.search(r'id="failures".*?</section>', page, re.S).group(0)


def test_runs_that_are_not_there_are_counted(folder, tmp_path):
    whole = load(folder / "config.yaml")
    part = write(tmp_path / "part", whole=whole, seeds=[1], arms={"one": BASE["arms"]["one"]})
    said = reporting.fates(reporting.read(part))
    assert said == [
        "None of 3 runs failed or diverged.",
        "7 of 10 runs planned are not in these tables.",
    ]
    assert cells(reporting.build(part).read_text(), "failures") == [
        ["one", "all 3", "2", "3"],
        ["four", "all 2", "1, 2", "4"],
    ]


def test_missing_runs_stand_together_as_far_as_they_are_alike():
    config = {
        "losses": {"a": {}, "b": {}, "c": {}},
        "seeds": [1, 2],
        "arms": {
            "x": {},
            "y": {"training": {"steps": 9}},
            "own": {"losses": ["c"], "seeds": [7]},
            "more": {"losses": {"b": {"square": True}, "d": {}}},
        },
    }
    there = [("x", "a", 1), ("y", "a", 1), ("own", "c", 7)]
    there += [("more", loss, seed) for loss in "abc" for seed in (1, 2)]
    runs = pd.DataFrame(there, columns=["arm", "loss", "seed"])
    assert failures.gaps(config, runs) == [
        failures.Gap(("x", "y"), ("a",), (2,), False),
        failures.Gap(("x", "y"), ("b", "c"), (1, 2), False),
        failures.Gap(("more",), ("d",), (1, 2), False),
    ]
    assert [gap.runs for gap in failures.gaps(config, runs)] == [2, 8, 2]
    (gap,) = failures.gaps(config | {"arms": {}}, runs.iloc[:0])
    assert gap == failures.Gap(("",), ("a", "b", "c"), (1, 2), True)


COMMITTED = sorted(path.parents[1].name for path in REFERENCE.glob("*/tables/answers"))


@pytest.mark.parametrize("name", COMMITTED)
def test_the_missing_runs_of_a_reference_are_those_that_its_answers_count(name):
    experiment = reporting.read(REFERENCE / name)
    counted = experiment.answers["outcomes"].set_index("arm")["missing"]
    found = dict.fromkeys(counted.index, 0)
    for gap in failures.gaps(experiment.config, experiment.raw["runs"]):
        for arm in gap.arms:
            found[arm] += len(gap.losses) * len(gap.seeds)
    assert found == counted.to_dict()


def test_a_reference_is_told_in_a_copy_and_stays_as_it_is(folder, tmp_path, caplog):
    reference = tmp_path / "reference" / "batch"
    shutil.copytree(folder / "tables", reference / "tables")
    shutil.copy2(folder / "config.yaml", reference)
    out = tmp_path / "told"
    assert main(["retell", str(reference), str(out)]) == 1
    assert "SHA256SUMS: No such file" in caplog.text
    main(["seal", str(reference.parent)])
    before = {path: path.read_bytes() for path in reference.rglob("*") if path.is_file()}
    (out / "tables").mkdir(parents=True)
    (out / "tables" / "stale.csv").write_text("of an earlier reference\n1\n")
    assert main(["retell", str(reference), str(out)]) == 0
    assert "experiment told" in text((out / "report.html").read_text())
    assert "stale.csv" not in (out / "report.html").read_text()
    assert (out / "figures" / "arms.svg").is_file()
    for place in (reference, reference / "told"):
        assert main(["retell", str(reference), str(place)]) == 1
        assert "outside the reference" in caplog.messages[-1]
    assert {path: path.read_bytes() for path in reference.rglob("*") if path.is_file()} == before
    answers = reference / "tables" / "answers" / "summary.csv"
    answers.write_text(answers.read_text().replace("0.7", "0.8", 1))
    assert main(["retell", str(reference), str(out)]) == 1
    assert "tables/answers/summary.csv: changed since it was committed" in caplog.messages[-1]


def test_a_reference_older_than_the_report_says_so(tmp_path, caplog):
    out = tmp_path / "told"
    assert main(["retell", str(REFERENCE / "fixed_rate"), str(out)]) == 1
    assert "lack columns that reports now read" in caplog.messages[-1]
    assert not out.exists()


def test_every_run_failed(tmp_path):
    def lose(raw):
        raw["runs"][["status", "reason", "collapse"]] = ["failed", "RuntimeError: no", ""]
        raw["cases"] = raw["cases"].iloc[:0]
        return raw

    folder = write(tmp_path / "lost", lose)
    shown = text(reporting.build(folder).read_text())
    assert "10 of 10 runs failed" in shown
    assert "No loss has a score." in shown
    assert reporting.detectable(reporting.read(folder)) == ""


def test_hostile_names_are_text(tmp_path):
    def rename(raw):
        for name in ("dataset", "cases"):
            raw[name] = raw[name].replace({"class": {"edema": EVIL}})
        return raw

    folder = write(tmp_path / "evil", rename, title=EVIL)
    page = reporting.build(folder).read_text()
    assert "<script>alert" not in page
    assert text(page).count(EVIL) >= 3


def test_the_figure_has_a_labelled_dot_for_each_loss_of_each_arm(folder):
    experiment = reporting.read(folder)
    (axis,) = reporting.draw_arms(experiment).axes
    drawn = [line.get_xdata() for line in axis.lines if len(line.get_xdata()) == 3]
    means = experiment.summary.set_index(["arm", "loss"])["mean_dice"]
    assert drawn[0] == pytest.approx(means["one"].to_numpy())
    assert [t.get_text() for t in axis.texts] == ["one"] * 3 + ["four"] * 2


def test_intervals_say_over_what_they_are(folder, tmp_path):
    assert reporting.covered(reporting.read(folder)) == "seeds and cases"
    one = write(tmp_path / "one", seeds=[1])
    assert "interval over cases, for this one seed" in text(reporting.build(one).read_text())
    arms = {"one": BASE["arms"]["one"], "few": {"seeds": [1]}}
    mixed = reporting.read(write(tmp_path / "mixed", arms=arms))
    assert reporting.covered(mixed) == "seeds and cases (cases alone where there is one seed)"


def test_what_the_study_could_have_found_is_told(folder):
    experiment = reporting.read(folder)
    seen = experiment.comparisons
    seen = seen[(seen["endpoint"] == "mean_dice")]["minimum_detectable_difference"]
    told = reporting.detectable(experiment)
    assert f"a difference of {seen.median():.2f} in mean Dice (" in told
    assert "these starts" not in told


def of_size(mean_dice, rarest_dice=(), seeds=2):
    """An experiment whose comparisons detect these differences."""
    rows = [
        {"contrast": "reference", "loss": f"loss_{number}", "endpoint": endpoint,
         "test_set": "e", "minimum_detectable_difference": size,
         "seeds": 1 if seeds == "mixed" and not number else 2 if seeds == "mixed" else seeds}
        for endpoint, sizes in (("mean_dice", mean_dice), ("rarest_dice", rarest_dice))
        for number, size in enumerate(sizes)
    ]  # fmt: skip
    return reporting.Experiment(
        name="made_up",
        config={"comparison": {"reference_loss": "dice"}, "dataset": {"name": "e"}},
        raw={"arms": pd.DataFrame({"arm": [""]})},
        answers={"comparisons": pd.DataFrame(rows)},
    )


def test_no_detectable_difference_is_larger_than_a_dice_can_have_or_zero():
    told = reporting.detectable(of_size([0.0, 1e-16, 0.002, 0.2, 0.4, 1.3], [1.17, 1.2, 0.3]))
    assert told == (
        "With a power of 80 %, before correction, this study finds, against Dice, a difference of "
        "0.30 in mean Dice (less than 0.01 to 0.40; for 1 of 4 comparisons no difference that a "
        "Dice can have; without 2 comparisons whose difference does not vary) and no difference "
        "that a Dice can have in Dice of the rarest class (0.30 to 0.30; for 2 of 3 comparisons "
        "no difference that a Dice can have): median over the losses, in brackets least and most."
    )
    told = reporting.detectable(of_size([0.1, 0.2], [1.17, 1.2]))
    assert "and no difference that a Dice can have in Dice of the rarest class:" in told
    assert reporting.detectable(of_size([0.0, 0.0])) == ""
    assert "rarest" not in reporting.detectable(of_size([0.1], [0.0, float("nan")]))


def test_with_one_seed_what_is_detectable_is_so_for_these_starts():
    assert ", before correction and for these starts, this" in reporting.detectable(
        of_size([0.1, 0.2], seeds=1)
    )
    assert "for these starts alone where there is one seed, this" in reporting.detectable(
        of_size([0.1, 0.2], seeds="mixed")
    )


@pytest.mark.parametrize("name", COMMITTED)
def test_what_a_reference_detects_is_a_difference_of_two_dice(name):
    told = reporting.detectable(reporting.read(REFERENCE / name))
    sizes = [float(size) for size in re.findall(r"\d+\.\d+", told)]
    assert sizes and all(0 < size <= 1 for size in sizes)


def test_tables_are_read_as_they_were_written(folder):
    experiment = reporting.read(folder)
    for name, table in experiment.answers.items():
        path = folder / "tables" / "answers" / f"{name}.csv"
        pd.testing.assert_frame_equal(table, files.read_table(path))
    assert (experiment.test_set, experiment.arms) == ("e", ["one", "four"])
    assert experiment.classes == ["edema", "necrotic core", "enhancing rim"]
    assert set(experiment.summary["test_set"]) == {"e"}


LONG = "A heading that is far too long for a navigation and does not end before the line does"


@pytest.fixture(scope="module")
def titled(tmp_path_factory):
    """A page with wide tables, of which some have long headings."""
    folder = write(tmp_path_factory.mktemp("report") / "titled")
    shown = {
        "summary": f"{LONG}: and more is said {EVIL}",
        "comparisons": LONG,
        "outcomes": "Outcomes",
    }
    with mock.patch.object(reporting, "ARMS_ALONE", replace(reporting.ARMS_ALONE, shown=shown)):
        return reporting.build(folder)


def test_what_a_heading_says_beyond_its_colon_stands_below_it(titled):
    page = titled.read_text()
    assert f"<h2>{LONG}</h2>\n<p>{html.escape(f'And more is said {EVIL}')}</p>" in page
    nav = re.search("<nav.*?</nav>", page, re.S).group(0)
    assert nav.count(f">{LONG}</a>") == 2 and "more is said" not in nav


def test_every_table_of_the_page_has_a_name_and_rows_that_are_named(titled):
    page = titled.read_text()
    tables = re.findall("<table.*?</table>", page, re.S)
    assert len(tables) == 3 + 2  # scores, arms
    for table in tables:
        assert re.search("<caption[^>]*>[^<]+</caption>", table)
        rows = re.findall("<tr>(.*?)</tr>", table.partition("<tbody>")[2], re.S)
        assert rows and all(row.startswith('<th scope="row"') for row in rows)


def test_a_picture_is_told_by_its_headline_and_not_by_its_caption(folder, page):
    told = re.search('<img [^>]*alt="([^"]*)"', page).group(1)
    assert told.startswith(reporting.widest_spread(reporting.read(folder)).removesuffix("."))
    caption = re.search("<figcaption>(.*?)</figcaption>", page).group(1)
    assert caption not in told and ".." not in told


@pytest.mark.skipif(not executable(), reason="no Chromium on the path")
def test_a_page_with_long_headings_and_wide_tables_fits_its_window(titled, tmp_path):
    browser = Browser(tmp_path / "profile")
    try:
        browser.screen(1280, 800)
        browser.open(titled)
        assert browser.value("document.body.scrollWidth") <= 1280
        assert browser.value("document.querySelector('nav').offsetHeight") < 100
        wide = "document.querySelector('#answers-2')"
        headings = f"[...{wide}.querySelectorAll('thead th')].filter(th => th.offsetWidth).length"
        assert browser.value(headings) == WIDEST
        browser.value(f"{wide}.querySelector('input').click()")
        assert browser.value(headings) == browser.value(f"{wide}.querySelectorAll('th').length") - (
            browser.value(f"{wide}.querySelectorAll('tbody tr').length")
        )
        assert not browser.value("!!document.querySelector('#answers-3 input')")
        assert browser.complaints == []
    finally:
        browser.close()


@pytest.mark.skipif(not executable(), reason="no Chromium on the path")
def test_the_page_sorts_its_scores_and_fits_a_phone(folder, page, tmp_path):
    browser = Browser(tmp_path / "profile")
    try:
        browser.screen(390, 844)
        browser.open(folder / "report.html")
        assert browser.value("document.documentElement.scrollWidth") <= 390
        heading = (
            "[...document.querySelectorAll('#summary thead th')]"
            ".find(th => th.textContent === 'mean Dice')"
        )
        browser.value(f"{heading}.querySelector('button').focus()")
        browser.press("Enter")
        shown = browser.value(
            f"[...document.querySelectorAll('#summary tbody tr')]"
            f".map(row => Number.parseFloat(row.cells[{heading}.cellIndex].textContent))"
        )
        assert len(shown) == 5 and shown == sorted(shown, reverse=True) and shown[0] > shown[-1]
        assert browser.requests == [(folder / "report.html").resolve().as_uri()]
        assert browser.complaints == []
    finally:
        browser.close()
