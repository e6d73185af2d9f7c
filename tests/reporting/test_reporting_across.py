"""One page over several studies: what holds in all of them, and how alike they rank."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import Browser, executable
from synthetic_study import SMALL, Loss, write_study

from workflow import files
from workflow.__main__ import main
from workflow.comparison.across import Finished, stability
from workflow.reporting import across
from workflow.reporting.study_tables import read_study

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
    """The synthetic study, and another data set on which plain Dice collapses."""
    losses = tuple(
        Loss("dice", "overlap", 0.5, collapse="partial") if loss.label == "dice" else loss
        for loss in SMALL[:5]
    )
    other = write_study(
        tmp_path_factory.mktemp("results") / "other", losses=losses, seeds=2, dataset="another",
        case_name="another_{:03d}",
    )  # fmt: skip
    return {"made_up": study_dir, "other": other}


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


def test_what_is_safe_in_both_studies_is_told(folders: dict[str, Path], page: str) -> None:
    studies = {name: read_study(folder) for name, folder in folders.items()}
    assert set(across.shared(studies)) == {loss.label for loss in SMALL[:5]}
    told = {
        a.about: a.told
        for a in across.answers(studies, pd.DataFrame(columns=["endpoint", "kendall_tau"]))
    }
    assert told["Safe everywhere"] == (
        "Of 5 losses in both 2 studies, 2 kept every class in each run: Dice CE and Generalized "
        "Dice."
    )
    assert "Cross entropy and Generalized Dice graph (published)" in told["Safe nowhere"]
    assert "1 is safe in one study" in told["It depends"]  # plain Dice
    assert told["How alike they rank"].startswith("By mean Dice no two studies can be compared.")
    assert told["Safe everywhere"] in page


def test_the_title_counts_what_broke_down_in_each_study(folders: dict[str, Path]) -> None:
    studies = {name: read_study(folder) for name, folder in folders.items()}
    assert across.title(studies) == (
        "Of 5 losses, 2 on made_up and 3 on other lost a class in some run"
    )


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


@needs_chromium
def test_nothing_was_fetched_and_nothing_complained(browser: Browser, file: Path) -> None:
    assert set(browser.requests) == {file.resolve().as_uri()}
    assert browser.complaints == []
