"""The report of an experiment that has no question of its own: what its arms show."""

import html
import re

import pandas as pd
import pytest
import yaml
from browser import Browser, executable

from tests.synthetic_experiment import raw_tables
from workflow import files
from workflow.comparison import experiment as comparison
from workflow.reporting import experiment as reporting
from workflow.study import load

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


def test_columns_of_numbers_sort_as_numbers():
    table = pd.DataFrame({
        "rate": [0.003, 1e-4], "loss": ["dice", "1st"], "score": ["0.50 [0.1, 0.9]", "\u2013"],
    })  # fmt: skip
    assert reporting._cells(table)["numeric"] == [True, False, True]


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


def test_one_arm_depends_on_nothing(tmp_path):
    one = reporting.read(write(tmp_path / "one", arms={"only": {}}))
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
    failed = f"2 of 10 runs failed: Focal in four (2; ValueError: {EVIL})."
    diverged = "1 of 10 runs diverged: Dice in one (1; the loss is nan at step 7)."
    assert failed in shown
    assert diverged in shown
    scores = shown.index("Mean Dice and Dice of each class")
    assert shown.index(failed) < shown.index(diverged) < scores
    assert reporting.made_by(reporting.read(folder)) == [
        "9 runs: commit 0a1b2c3, torch 2.13.0",
        "1 run: commit fffffff, torch 2.13.0",
    ]


def test_where_nothing_failed_the_page_says_so(page):
    assert "None of 10 runs failed or diverged." in text(page)
    assert "planned are not in these tables" not in text(page)


def test_runs_that_are_not_there_are_counted(folder, tmp_path):
    whole = load(folder / "config.yaml")
    part = write(tmp_path / "part", whole=whole, seeds=[1], arms={"one": BASE["arms"]["one"]})
    said = reporting.fates(reporting.read(part))
    assert said == [
        "None of 3 runs failed or diverged.",
        "7 of 10 runs planned are not in these tables.",
    ]
    reporting.build(part)


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
    assert f"{seen.median():.2f} in mean Dice" in reporting.detectable(experiment)


def test_tables_are_read_as_they_were_written(folder):
    experiment = reporting.read(folder)
    for name, table in experiment.answers.items():
        path = folder / "tables" / "answers" / f"{name}.csv"
        pd.testing.assert_frame_equal(table, files.read_table(path))
    assert (experiment.test_set, experiment.arms) == ("e", ["one", "four"])
    assert experiment.classes == ["edema", "necrotic core", "enhancing rim"]
    assert set(experiment.summary["test_set"]) == {"e"}


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
