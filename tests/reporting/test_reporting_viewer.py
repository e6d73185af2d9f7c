"""The viewer of cases: volumes and library inside the page, and the page in Chromium."""

import base64
import gzip
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
import pytest
from browser import Browser, executable
from matplotlib.image import imread
from synthetic_study import CLASSES, SMALL, Loss, write_study

from workflow import files
from workflow.comparison.examples import VOLUME_COLUMNS
from workflow.reporting import page, report, viewer
from workflow.reporting.study_tables import read_study

SHAPE = (22, 26, 18)
# the first axis runs to the left, and the voxels are no cubes
AFFINE = np.array([[-3.0, 0, 0, 30], [0, 2, 0, -40], [0, 0, 4, 10], [0, 0, 0, 1]])
EVIL = "</script><script>alert(1)</script>"


def scene(shift: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels of a head, and in it nested classes that are nearer to its left side."""
    x, y, z = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    head = ((x - 11) / 10) ** 2 + ((y - 13) / 12) ** 2 + ((z - 9) / 8) ** 2 < 1
    radius = np.sqrt((x - 14 + shift) ** 2 + (y - 12) ** 2 + (z - 8 - shift) ** 2)
    label = np.zeros(SHAPE, np.uint8)
    for index in range(classes):
        label[radius < 5 - 1.5 * index] = index + 1
    return (head * (120 + 5 * y)).clip(0, 255).astype(np.uint8), label


def write_volumes(folder: Path, losses: tuple[Loss, ...], case: str = "case") -> dict:
    """`volumes.csv` and `volumes.npz` of two made-up cases; the arrays by kind and role."""
    rows, arrays, made = [], {}, {}

    def add(kind: str, role: str, array: np.ndarray, **told: object) -> None:
        key = f"volume{len(rows)}"
        arrays[key] = made[kind, role] = array
        name = f"{case}_{kind}"
        rows.append({"key": key, "kind": kind, "case": name, "subject": name, "role": role} | told)

    for shift, kind in enumerate(("median", "worst")):
        image, label = scene(shift)
        add(kind, "affine", AFFINE)
        add(kind, "image", image, channel=0)
        add(kind, "image", 255 - image, channel=1)
        add(kind, "reference", label)
        for number, loss in enumerate(losses):
            if not loss.fails:
                predicted = np.roll(label, number + shift, axis=0)
                add(kind, loss.label, predicted, dice=0.9 - number / 10, seed=0)
    files.write_arrays(folder / "tables" / "volumes.npz", arrays)
    files.write_table(folder / "tables" / "volumes.csv", pd.DataFrame(rows, columns=VOLUME_COLUMNS))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("results") / "seen")


@pytest.fixture(scope="module")
def made(folder: Path) -> dict:
    return write_volumes(folder, SMALL)


@pytest.fixture(scope="module")
def section(folder: Path, made: dict) -> dict:
    return viewer.section(read_study(folder), folder / "tables")


def nifti(case: dict, voxels: str) -> nibabel.Nifti1Image:
    """A volume the way the page puts it together."""
    content = base64.b64decode(case["header"]) + gzip.decompress(base64.b64decode(voxels))
    return nibabel.Nifti1Image.from_bytes(content)


def test_the_page_holds_the_volumes_as_nifti(section: dict, made: dict, folder: Path) -> None:
    study = read_study(folder)
    shown = [loss for loss in study.losses if ("median", loss) in made]
    assert len(shown) == len(SMALL) - 1
    for case, kind in zip(section["data"]["cases"], ("median", "worst"), strict=True):
        assert len(case["maps"]) == 1 + len(shown)
        for entry, role in zip(case["maps"], ["reference", *shown], strict=True):
            volume = nifti(case, entry["voxels"])
            np.testing.assert_array_equal(np.asarray(volume.dataobj), made[kind, role])
            np.testing.assert_allclose(volume.affine, AFFINE)
        last = nifti(case, case["images"][1]["voxels"])
        np.testing.assert_array_equal(np.asarray(last.dataobj), made[kind, "image"])
        assert case["voxel"] == "3 × 2 × 4"


def test_scores_are_those_of_the_tables(section: dict, folder: Path) -> None:
    maps = section["data"]["cases"][0]["maps"]
    best = next(entry for entry in maps if entry["title"] == "Dice CE")
    assert best["mean"] == " (mean Dice 0.90)" and best["score"] == "Mean Dice 0.90, seed 0"
    study = read_study(folder)
    row = study.chosen(study.cases).dropna(subset="dice").iloc[0]
    told = viewer._score(study, pd.Series({"role": row["loss"], **row}))
    assert f"{row['class']} {row['dice']:.2f}" in told


def test_the_crosshair_starts_in_the_foreground(section: dict, made: dict) -> None:
    case = section["data"]["cases"][0]
    place = np.linalg.solve(AFFINE, [*case["focus"], 1])[:3].round().astype(int)
    assert made["median", "reference"][tuple(place)] > 0
    two = np.zeros((9, 9, 9), np.uint8)
    two[0, 0, 0] = two[8, 8, 8] = two[8, 8, 7] = 1  # their middle is background
    assert two[tuple(viewer._focus(two))] == 1
    assert list(viewer._focus(np.zeros((4, 6, 8)))) == [2, 3, 4]


def test_large_volumes_are_thinned_until_they_fit(
    folder: Path, made: dict, section: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = viewer._size(section["data"]["cases"])
    monkeypatch.setattr(viewer, "BUDGET", whole - 1)
    thinned = viewer.section(read_study(folder), folder / "tables")
    case = thinned["data"]["cases"][0]
    assert section["thinned"] == 1 and thinned["thinned"] == 2
    assert viewer._size(thinned["data"]["cases"]) < whole
    volume = nifti(case, case["maps"][0]["voxels"])
    np.testing.assert_array_equal(
        np.asarray(volume.dataobj), made["median", "reference"][::2, ::2, ::2]
    )
    np.testing.assert_allclose(volume.affine, AFFINE @ np.diag([2, 2, 2, 1]))
    assert case["voxel"] == "6 × 4 × 8"


def test_library_comes_from_the_package_with_its_licence() -> None:
    found = viewer.library()
    code = gzip.decompress(base64.b64decode(found.code)).decode()
    assert re.search(r"export\{[^}]*\bNiivue\b", code) and "NVMesh" in code
    assert len(found.code) < 2_000_000
    assert found.package == "ipyniivue" and found.licence == "BSD-2-Clause"
    assert "Redistributions in binary form must reproduce" in found.terms


def test_another_build_of_the_package_is_told_and_no_failure(
    folder: Path, made: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "widget.js"
    other.write_text("export default {}", encoding="utf-8")
    package = SimpleNamespace(version="9.0", locate_file=lambda path: other)
    monkeypatch.setattr(viewer.importlib.metadata, "distribution", lambda name: package)
    study = read_study(folder)
    assert "9.0 does not carry NiiVue" in viewer.section(study, folder / "tables")["reason"]
    other.unlink()
    assert "not installed" in viewer.section(study, folder / "tables")["reason"]


def shown(folder: Path) -> str:
    """The viewer's part of the page."""
    found = viewer.section(read_study(folder), folder / "tables")
    return page.render("viewer.html.j2", viewer=found)


def test_a_study_without_volumes_says_so(study_dir: Path) -> None:
    code = shown(study_dir)
    assert viewer.NO_VOLUMES in code
    assert "<script" not in code and 'id="viewer"' not in code


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    losses = (Loss("dice_ce", "compound", 0.7), Loss(f"x{EVIL}", "x", 0.6))
    hostile = write_study(tmp_path / "study", losses=losses, classes=(f"a{EVIL}", "b"))
    write_volumes(hostile, losses, EVIL)
    code = shown(hostile)
    assert EVIL not in code
    found = re.search(r'<script type="application/json" id="viewer-data">(.*?)</script>', code)
    data = json.loads(found[1])
    assert data["classes"][0]["name"] == f"a{EVIL}"
    assert EVIL in data["cases"][0]["title"] and EVIL in data["cases"][0]["maps"][2]["title"]


# ---- in Chromium ---------------------------------------------------------------------------------

needs_chromium = pytest.mark.skipif(not executable(), reason="no Chromium on the path")
QUIET = "document.getElementById('viewer').getAttribute('aria-busy') === 'false'"


@pytest.fixture(scope="module")
def browser(folder: Path, made: dict, tmp_path_factory: pytest.TempPathFactory):
    chromium = Browser(tmp_path_factory.mktemp("profile"))
    chromium.screen(700, 900)
    open_viewer(chromium, report.build(folder))
    yield chromium
    chromium.close()


def open_viewer(browser: Browser, file: Path) -> None:
    browser.open(file)
    browser.value("document.getElementById('viewer').scrollIntoView({ behavior: 'instant' })")
    browser.until(QUIET)


def pictures(browser: Browser) -> list[np.ndarray]:
    """What both canvases show, once they are drawn."""
    browser.until(QUIET)
    browser.value("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    found = []
    for side in (0, 1):
        box = browser.value(
            f"(() => {{ const box = document.querySelectorAll('#viewer canvas')[{side}]"
            ".getBoundingClientRect(); return { x: box.x + scrollX, y: box.y + scrollY,"
            " width: box.width, height: box.height, scale: 1 }; })()"
        )
        taken = browser.call("Page.captureScreenshot", clip=box, captureBeyondViewport=True)
        found.append(imread(io.BytesIO(base64.b64decode(taken["data"]))))
    return found


def complaints(browser: Browser) -> list[str]:
    """Without those of a driver that has no graphics processor and finds itself slow."""
    return [told for told in browser.complaints if "GL Driver Message" not in told]


def changed(before: list[np.ndarray], after: list[np.ndarray]) -> list[bool]:
    """Which of the two pictures differ visibly."""
    return [
        bool((np.abs(old - new).max(axis=-1) > 0.1).mean() > 0.0005)
        for old, new in zip(before, after, strict=True)
    ]


def choose(browser: Browser, selector: str, index: int, value: str) -> None:
    browser.value(
        f"(() => {{ const found = document.querySelectorAll('#viewer {selector}')[{index}];"
        f" found.value = {value!r};"
        " found.dispatchEvent(new Event('input')); found.dispatchEvent(new Event('change')); })()"
    )


def click(browser: Browser, selector: str, index: int = 0) -> None:
    browser.value(f"document.querySelectorAll('#viewer {selector}')[{index}].click()")


def press(browser: Browser, key: str, modifiers: int = 0) -> None:
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=modifiers)


def words(browser: Browser, selector: str) -> str:
    return browser.value(f"document.querySelector('#viewer {selector}').textContent")


@needs_chromium
def test_viewer_opens_offline_and_shows_the_volumes(browser: Browser) -> None:
    left, right = pictures(browser)
    assert complaints(browser) == []
    assert [address.partition(":")[0] for address in browser.requests] == ["file"]
    assert not browser.value("document.querySelector('.viewer-body').hidden")
    for picture in (left, right):  # three slices in grey, and the colours of the classes on them
        assert len(np.unique(picture[..., :3].reshape(-1, 3), axis=0)) > 50
        assert (np.ptp(picture[..., :3], axis=-1) > 0.2).mean() > 0.005


@needs_chromium
def test_crosshair_starts_in_the_lesion_of_a_mirrored_volume(browser: Browser) -> None:
    click(browser, ".viewer-home")
    found = words(browser, ".viewer-place")
    assert re.search(rf"Reference: ({'|'.join(CLASSES)})\.", found), found
    assert "voxels of 3 × 2 × 4 mm" in found


@needs_chromium
def test_choosing_a_loss_changes_its_view_alone(browser: Browser) -> None:
    before = pictures(browser)
    caption = browser.value("document.querySelectorAll('#viewer figcaption')[1].textContent")
    label = browser.value("document.querySelectorAll('#viewer canvas')[1].ariaLabel")
    choose(browser, ".viewer-pane select", 1, "4")
    assert changed(before, pictures(browser)) == [False, True]
    told = browser.value("document.querySelectorAll('#viewer figcaption')[1].textContent")
    assert told != caption and told.startswith("Mean Dice")
    assert browser.value("document.querySelectorAll('#viewer canvas')[1].ariaLabel") != label
    before = pictures(browser)
    choose(browser, ".viewer-pane select", 1, "")  # the image alone
    after = pictures(browser)
    assert changed(before, after) == [False, True]
    assert "Image alone: no labels" in words(browser, ".viewer-place")
    choose(browser, ".viewer-pane select", 1, "1")


@needs_chromium
def test_errors_are_marked_where_the_prediction_is_wrong(browser: Browser) -> None:
    choose(browser, ".viewer-pane select", 1, "4")
    before = pictures(browser)
    click(browser, ".viewer-errors")
    assert changed(before, pictures(browser)) == [False, True]
    click(browser, ".viewer-errors")
    assert changed(before, pictures(browser)) == [False, False]


@needs_chromium
def test_choosing_case_and_channel_changes_both_views(browser: Browser) -> None:
    before = pictures(browser)
    choose(browser, ".viewer-channel select", 0, "1")
    other = pictures(browser)
    assert changed(before, other) == [True, True]
    click(browser, "[type=radio]", 1)
    assert changed(other, pictures(browser)) == [True, True]
    title = browser.value("document.querySelector('#viewer canvas').ariaLabel")
    assert title.startswith("Worst case: case_worst")
    click(browser, "[type=radio]", 0)
    choose(browser, ".viewer-channel select", 0, "0")
    assert changed(before, pictures(browser)) == [False, False]


@needs_chromium
@pytest.mark.parametrize("key", ["ArrowLeft", "ArrowUp", "PageDown"])
def test_keys_move_the_crosshair_of_both_views_and_home_brings_it_back(
    browser: Browser, key: str
) -> None:
    browser.value("document.querySelector('#viewer canvas').focus()")
    press(browser, "Home")  # from now on the focus has its ring
    before, place = pictures(browser), words(browser, ".viewer-place")
    for _ in range(3):
        press(browser, key)
    assert words(browser, ".viewer-place") != place
    assert changed(before, pictures(browser)) == [True, True]
    press(browser, "Home")
    assert words(browser, ".viewer-place") == place
    assert changed(before, pictures(browser)) == [False, False]


@needs_chromium
def test_shift_and_arrows_turn_the_surface_alone(browser: Browser) -> None:
    browser.value("document.querySelector('#viewer canvas').focus()")
    press(browser, "Home")
    before, place = pictures(browser), words(browser, ".viewer-place")
    turned = browser.value("document.querySelector('.viewer-turn').value")
    press(browser, "ArrowRight", modifiers=8)
    assert changed(before, pictures(browser)) == [True, True]
    assert words(browser, ".viewer-place") == place
    assert browser.value("document.querySelector('.viewer-turn').value") != turned


@needs_chromium
def test_a_click_in_a_slice_moves_both_views(browser: Browser) -> None:
    click(browser, ".viewer-home")
    before, place = pictures(browser), words(browser, ".viewer-place")
    x, y = browser.value(
        "(() => { const box = document.querySelector('#viewer canvas').getBoundingClientRect();"
        " return [box.x + box.width / 4, box.y + box.height / 6]; })()"
    )
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    assert changed(before, pictures(browser)) == [True, True]
    assert words(browser, ".viewer-place") != place


@needs_chromium
def test_every_control_has_a_name_and_the_keyboard_reaches_it(browser: Browser) -> None:
    controls = browser.value(
        "[...document.querySelectorAll('#viewer :is(select, input, button, canvas)')]"
        ".filter((found) => found.tabIndex !== 0 || !(found.ariaLabel || found.textContent.trim()"
        " && found.tagName === 'BUTTON' || found.labels?.[0]?.textContent.trim()))"
        ".map((found) => found.outerHTML)"
    )
    assert controls == []
    assert browser.value("document.querySelectorAll('#viewer canvas').length") == 2


@needs_chromium
def test_nothing_was_complained_of_in_all_this(browser: Browser) -> None:
    assert complaints(browser) == []
    assert [address.partition(":")[0] for address in browser.requests] == ["file"]


@needs_chromium
def test_without_webgl_a_message_and_the_slices_remain(
    folder: Path, made: dict, tmp_path: Path
) -> None:
    chromium = Browser(tmp_path / "profile")
    try:
        chromium.call(
            "Page.addScriptToEvaluateOnNewDocument",
            source="HTMLCanvasElement.prototype.getContext = () => null;",
        )
        chromium.open(report.build(folder))
        chromium.value("document.getElementById('viewer').scrollIntoView()")
        chromium.value("new Promise((done) => setTimeout(done, 500))")
        assert "needs JavaScript and WebGL 2" in words(chromium, ".viewer-message")
        assert not chromium.value("document.querySelector('.viewer-message').hidden")
        assert chromium.value("document.querySelector('.viewer-body').offsetHeight") == 0
        assert not chromium.value("document.querySelector('#viewer[aria-busy=true]')")
        figure = "document.querySelector('#figure-cases_median img')"
        assert chromium.value(f"{figure}.offsetHeight > 50")
    finally:
        chromium.close()
