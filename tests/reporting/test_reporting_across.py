"""One page over several studies: what holds in all of them, and how alike they rank."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from browser import Browser, executable
from synthetic_study import SMALL, Loss, write_study
from test_reporting_browser import choose, show_curves
from test_reporting_report import section

from workflow import files
from workflow.__main__ import main
from workflow.comparison.across import Finished, stability
from workflow.reporting import across
from workflow.reporting.study_tables import Study, read_study

LOSSES = ("a", "b", "c", "d")


def cases(levels: dict[str, float], names: list[str], seeds: int = 3) -> pd.DataFrame:
    """Cases whose scores are the level of their loss and hardly anything else."""
    noise = np.random.default_rng(0)
    return pd.DataFrame([
        {"loss": loss, "seed": seed, "case": name, "subject": name, "class": "rare",
         "dice": level + 1e-4 * noise.random()}
        for loss, level in levels.items()
        for seed in range(seeds)
        for name in names
    ])  # fmt: skip


UP = dict(zip(LOSSES, (0.2, 0.4, 0.6, 0.8), strict=True))
DOWN = dict(zip(LOSSES, (0.8, 0.6, 0.4, 0.2), strict=True))


@pytest.mark.parametrize(
    ("levels", "tau"), [(UP, 1.0), (DOWN, -1.0), ({**UP, "a": 0.5}, 2 / 3), ({"e": 0.1}, np.nan)]
)
def test_tau_is_that_of_the_mean_scores_whatever_the_cases(
    levels: dict[str, float], tau: float
) -> None:
    # b < a = 0.5 < c: one of six pairs of losses changes its order, (5 - 1) / 6
    for names, paired in ((["x", "y"], True), (["z", "u", "v"], False)):
        studies = {
            "one": Finished(cases(UP, ["x", "y"]), "rare"),
            "two": Finished(cases(levels, names), "rare"),
        }
        found = stability(studies, 0.95, resamples=20)
        assert list(found["endpoint"]) == ["mean_dice", "rarest_dice"]
        assert found["kendall_tau"].to_numpy() == pytest.approx([tau, tau], nan_ok=True)
        assert set(found["paired"]) == {paired}
        if np.isfinite(tau):
            assert found["low"].to_numpy() == pytest.approx([tau, tau])
            assert list(found["same_first"]) == [levels == UP or levels.get("d") == 0.8] * 2


def test_every_two_of_three_studies_are_compared() -> None:
    studies = {name: Finished(cases(UP, [name]), "rare") for name in "xyz"}
    found = stability(studies, 0.95, resamples=5)
    assert list(zip(found["study"], found["other"], strict=True))[::2] == [
        ("x", "y"), ("x", "z"), ("y", "z"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def folders(study_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The synthetic study, and another data set and classes, on which plain Dice collapses."""
    losses = tuple(
        Loss("dice", "overlap", 0.5, collapse="partial") if loss.label == "dice" else loss
        for loss in SMALL[:5]
    )
    other = write_study(
        tmp_path_factory.mktemp("results") / "other", losses=losses, seeds=2, dataset="another",
        case_name="another_{:03d}", classes=("edema", "rim"),
    )  # fmt: skip
    return {"made_up": study_dir, "other": other}


@pytest.fixture(scope="module")
def studies(folders: dict[str, Path]) -> dict[str, Study]:
    return {name: read_study(folder) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def file(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compare")
    assert main(["compare", *map(str, folders.values()), "--out", str(out)]) == 0
    table = files.read_table(out / "tables" / "stability.csv")
    assert len(table) == 2 and table["losses"].max() <= 5
    return out / "report.html"


@pytest.fixture(scope="module")
def page(file: Path) -> str:
    return file.read_text(encoding="utf-8")


NOTHING_ALIKE = pd.DataFrame(columns=["endpoint", "kendall_tau"])


def test_what_is_safe_in_both_studies_is_told(studies: dict[str, Study], page: str) -> None:
    assert set(across.shared(studies)) == {loss.label for loss in SMALL[:5]}
    told = {
        a.about: a.told for a in across.answers(studies, across.safe_in(studies), [], NOTHING_ALIKE)
    }
    assert told["Safe everywhere"] == (
        "Of 5 losses in both 2 studies, 2 kept every class in each run: Dice CE and Generalized "
        "Dice."
    )
    assert "Cross entropy and Generalized Dice graph (published)" in told["Safe nowhere"]
    assert "1 is safe in one study and not in another: Dice." in told["It depends"]
    assert told["How alike they rank"].startswith("By mean Dice no two studies can be compared.")
    assert told["Safe everywhere"] in page
    assert across._of_what(studies["other"]) == "another, 2 seeds, 8 held-out cases"
    assert "<b>other</b>: another, 2 seeds, " in page


def test_the_title_counts_what_broke_down_in_each_study(studies: dict[str, Study]) -> None:
    assert across.title(studies, across.safe_in(studies)) == (
        "Of 5 losses, 2 on made_up and 3 on other lost a class in some run"
    )


# difference and whether it is separable, of each pair in each study
@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([[(0.1, True), (0.2, True)], [(0.1, True), (0.2, False)], [(0.1, True)]],
         "2 published losses were trained beside the correction in every study: Loss 0 and Loss "
         "1. The correction has a separably higher mean Dice for Loss 0 in every study; for Loss "
         "1 in one, and a separably lower one for none of them in any study."),
        ([[(-0.1, True), (0.1, None)]],
         "1 published loss was trained beside the correction in every study: Loss 0. The "
         "correction has a separably higher mean Dice for none of them in any study, and a "
         "separably lower one for Loss 0 in one."),
        ([[(0.1, True)]], "No published loss was trained beside its correction in every study."),
    ],
)  # fmt: skip
def test_what_correcting_gains_is_counted_over_the_pairs_of_every_study(
    studies: dict[str, Study], found: list, told: str
) -> None:
    pairs = [
        {"labels": (f"loss_{number}", "dice"), "costs": {
            name: {"differences": {"mean_dice": {"difference": gap, "separable": clear}}}
            for name, (gap, clear) in zip(("one", "other"), row, strict=False)
        }}
        for number, row in enumerate(found)
    ]  # fmt: skip
    answers = across.answers(studies, across.safe_in(studies), pairs, NOTHING_ALIKE)
    assert {a.about: a.told for a in answers}["What correcting gains"] == told


def test_each_study_has_its_learning_curves(studies: dict[str, Study], page: str) -> None:
    data = re.search(r'id="curves-data">(.*?)</script>', page, re.S)
    found = json.loads(data[1])
    labels = [loss["label"] for loss in found["losses"]]
    assert labels == [*across.shared(studies), "published_combo"]
    assert [entry["name"] for entry in found["studies"]] == list(studies)
    for entry, study in zip(found["studies"], studies.values(), strict=True):
        assert [c["name"] for c in entry["classes"]] == study.classes
        rows = study.curves[study.curves["quantity"] == "dice"]
        rows = rows[rows["loss"].isin(study.losses)]
        expected = rows.groupby(["loss", "seed", "class"])["value"].apply(list).to_dict()
        shown = {
            (labels[run["loss"]], run["seed"], name): dice
            for run in entry["runs"]
            for name, dice in run["dice"].items()
        }
        assert shown.keys() == expected.keys()
        for key, dice in shown.items():
            assert dice == pytest.approx(expected[key], abs=5e-5), key
    # and as figures that print
    drawn = re.findall(
        r'<figure id="figure-validation_curves_(\w+)">\s*<div class="wide">'
        r'<img src="[^"]+" alt="(\w+)',
        page,
    )
    assert drawn == [(name, name) for name in studies]


def test_published_and_corrected_are_measured_in_each_study_that_has_both(
    studies: dict[str, Study], file: Path, page: str
) -> None:
    rows = re.findall(
        r'<tr><th scope="row"><span class="loss" title="(\w+)">.*?title="(\w+)".*?</th>'
        r"<td>(\w+)</td>(.*?)</tr>", re.search(r'id="correction-table".*?</table>', page, re.S)[0],
        re.S,
    )  # fmt: skip
    wanted = [(*pair, name) for name, study in studies.items() for pair in study.pairs()]
    assert len(wanted) == 3  # Combo and its correction are in one study only
    assert sorted(row[:3] for row in rows) == sorted(wanted)
    table = files.read_table(file.parent / "tables" / "corrections.csv")
    for old, fix, name, cells in rows:
        for endpoint in ("mean_dice", "rarest_dice"):
            measured = studies[name].contrast("correction", fix, old, endpoint)
            assert f'data-sort="{measured["difference"]}"' in cells
            kept = table[
                (table["study"] == name) & (table["published"] == old)
                & (table["corrected"] == fix) & (table["endpoint"] == endpoint)
            ]  # fmt: skip
            columns = ["difference", "low", "high", "p_holm"]
            assert kept[columns].to_numpy() == pytest.approx(
                measured[columns].to_numpy(float)[None], nan_ok=True
            )
    told = section(page, "correction")
    assert "2 of 2 runs 0 of 2 runs" in told  # Generalized Dice graph in the other study
    assert told.count("what the correction changes") == 2


def test_every_study_says_how_to_run_it_again(folders: dict[str, Path], page: str) -> None:
    told = section(page, "provenance")
    for name, folder in folders.items():
        assert f"git checkout 0a1b2c3 snakemake --cores all --configfile {name}.yaml" in told
        link = re.search(rf'download="{name}.yaml" href="data:[^,]*base64,([^"]+)"', page)
        assert yaml.safe_load(base64.b64decode(link[1])) == yaml.safe_load(
            (folder / "config.yaml").read_text()
        )


def test_headings_skip_no_level(page: str) -> None:
    levels = [int(level) for level in re.findall(r"<h(\d)[ >]", page)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_page_has_a_row_for_every_loss_and_asks_for_nothing(page: str) -> None:
    rows = re.findall(r'<tr data-family="[^"]*" data-kind="(\w+)">', page)
    assert len(rows) == len(SMALL)
    assert "not in it" in page  # Combo as published, which the other study lacks
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("made_up, tier") == 1


def test_one_study_is_refused_and_so_is_a_folder_without_tables(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(["compare", str(folders["other"]), "--out", str(tmp_path)]) == 1
    shutil.copy(folders["other"] / "config.yaml", tmp_path)
    assert main(["compare", *map(str, (folders["other"], tmp_path))]) == 1
    assert "no tables/summary.csv of a finished study" in caplog.text


# ---- in Chromium ---------------------------------------------------------------------------------

needs_chromium = pytest.mark.skipif(not executable(), reason="no Chromium on the path")
ROWS = "[...document.querySelectorAll('#ranking-table tbody tr')].filter(row => !row.hidden)"
LABELS = f"{ROWS}.map(row => row.querySelector('.loss').title)"


@pytest.fixture(scope="module")
def browser(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium = Browser(tmp_path_factory.mktemp("profile"))
    chromium.screen(1366, 768)
    chromium.open(file)
    yield chromium
    chromium.close()


@needs_chromium
@pytest.mark.parametrize("width", [1920, 1366, 390])
def test_page_fits_its_window_by_day_and_night(browser: Browser, width: int) -> None:
    backgrounds = set()
    for dark in (False, True):
        browser.screen(width, 844, dark)
        assert browser.value("document.documentElement.scrollWidth") <= width
        backgrounds.add(browser.value("getComputedStyle(document.body).backgroundColor"))
        picture = "document.querySelector('#answer img')"
        assert browser.value(f"{picture}.complete && {picture}.naturalWidth > 100")
    assert len(backgrounds) == 2


@needs_chromium
def test_rows_sort_by_the_scores_of_any_study(browser: Browser, file: Path) -> None:
    browser.screen(1366, 768)
    table = files.read_table(file.parent / "tables" / "scores.csv").dropna(subset=["mean_dice"])
    for study, rows in table.groupby("study"):
        scores = rows.set_index("loss")["mean_dice"]
        heading = (
            "[...document.querySelectorAll('#ranking-table thead th')]"
            f".find(th => th.textContent === {study!r})"
        )
        browser.value(f"{heading}.querySelector('button').focus()")
        for order in ("descending", "ascending"):
            browser.press("Enter")
            assert browser.value(f"{heading}.getAttribute('aria-sort')") == order
            shown = [scores[label] for label in browser.value(LABELS) if label in scores]
            assert shown == sorted(scores, reverse=order == "descending")


@needs_chromium
def test_rows_are_filtered_by_words(browser: Browser) -> None:
    browser.value(
        "(() => { const words = document.querySelector('form.filters [name=words]');"
        " words.value = 'combo'; words.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )
    assert browser.value(LABELS) == ["published_combo"]
    told = browser.value("document.querySelector('form.filters output').textContent")
    assert told == f"1 of {len(SMALL)} rows"


LINES = (
    "Object.values(Bokeh.index.roots ?? Bokeh.index)[0].model.renderers"
    ".map(r => r.data_source.data)"
)
CLASSES = "[...document.querySelectorAll('.chart [name=class] option')].map(o => o.value)"


@needs_chromium
def test_the_curves_of_another_study_can_be_chosen(
    browser: Browser, studies: dict[str, Study]
) -> None:
    show_curves(browser)
    first, other = studies.values()
    combo = "document.querySelector('.chart [name=loss]:disabled')"
    assert browser.value(CLASSES) == ["", *first.classes]
    assert browser.value(combo) is None
    browser.value("document.querySelector('.chart [name=none]').click()")
    dice = across.shared(studies).index("dice")
    choose(browser, f".chart [name=loss][value='{dice}']", "on")
    choose(browser, ".chart [name=class]", first.rarest)
    lines, _, crosses = browser.value(LINES)
    assert len(lines["xs"]) == 1 and crosses["x"] == []

    choose(browser, ".chart [name=study]", "1")
    assert browser.value(CLASSES) == ["", *other.classes]
    # the rarest stays the rarest, whatever its name; Combo as published is not there
    assert browser.value("document.querySelector('.chart [name=class]').value") == other.rarest
    assert browser.value(f"{combo}.parentElement.textContent").strip() == "Combo (published)"
    others, points, crosses = browser.value(LINES)
    assert others["colour"] == lines["colour"]
    rows = other.curves[
        (other.curves["loss"] == "dice") & (other.curves["quantity"] == "dice")
        & (other.curves["class"] == other.rarest)
    ]  # fmt: skip
    median = rows.groupby("step")["value"].median()
    assert points["x"] == list(median.index)
    assert points["y"] == pytest.approx(median.to_list(), abs=1e-4)
    assert len(crosses["x"]) == 1  # one for the loss, which lost it in every run
    choose(browser, ".chart [name=lines][value=seeds]", "on")
    assert len(browser.value(LINES)[2]["x"]) == other.seeds
    told = browser.value("document.querySelector('.readout tbody').textContent")
    assert f"lost {other.rarest} in 2 of 2 runs" in told


@needs_chromium
def test_a_loss_that_the_chosen_study_lacks_is_told_and_not_drawn(browser: Browser) -> None:
    show_curves(browser)
    browser.value("document.querySelector('.chart [name=none]').click()")
    choose(browser, ".chart [name=study]", "0")
    last = "[...document.querySelectorAll('.chart [name=loss]')].at(-1)"
    browser.value(f"{last}.click()")
    choose(browser, ".chart [name=study]", "1")
    assert browser.value(f"{last}.checked && {last}.disabled")
    told = browser.value("document.querySelector('.readout tbody').lastChild.textContent")
    assert told == "Combo (published)––not in this study"


@needs_chromium
def test_paper_has_the_curves_of_every_study(browser: Browser, studies: dict[str, Study]) -> None:
    show_curves(browser)
    shown = "[...document.querySelectorAll('#curves .static img')].filter(i => i.offsetHeight > 50)"
    assert browser.value(f"{shown}.length") == 0
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.value(f"{shown}.length") == len(studies)
        assert browser.value("document.querySelector('#curves .chart').offsetHeight") == 0
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")


@needs_chromium
def test_nothing_was_fetched_and_nothing_complained(browser: Browser, file: Path) -> None:
    assert set(browser.requests) == {file.resolve().as_uri()}
    assert browser.complaints == []
