"""The report in a real browser: nothing is fetched, nothing complains, and what moves works."""

import csv
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, executable

from workflow.reporting import report
from workflow.reporting.study_tables import Study, read_study

pytestmark = pytest.mark.skipif(executable() is None, reason="no Chromium is installed")

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
WIDTHS = ((1366, 768), (768, 1024), (390, 844))
ROWS = "[...document.querySelectorAll('#ranking-table tbody tr')].filter(row => !row.hidden)"


@pytest.fixture(scope="module")
def study(study_dir: Path) -> Study:
    return read_study(study_dir)


@pytest.fixture(scope="module")
def browser(study_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    page = report.build(study_dir, REFERENCE)
    browser = Browser(tmp_path_factory.mktemp("profile"))
    browser.screen(1366, 768)
    browser.open(page)
    yield browser
    browser.close()


def labels(browser: Browser) -> list[str]:
    return browser.value(f"{ROWS}.map(row => row.querySelector('.loss').title)")


def choose(browser: Browser, selector: str, value: str) -> None:
    """Sets a control as a reader does: with an event that bubbles."""
    browser.value(
        f"(() => {{ const control = document.querySelector({selector!r}); "
        "if (['checkbox', 'radio'].includes(control.type)) control.checked = true; "
        f"else control.value = {value!r}; "
        "control.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )


def show_curves(browser: Browser) -> None:
    browser.value("document.querySelector('#curves').scrollIntoView({ behavior: 'instant' })")
    browser.until("document.querySelector('#curves.interactive')")


@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_page_fits_its_window_in_light_and_dark(
    browser: Browser, width: int, height: int, tmp_path: Path
) -> None:
    backgrounds = set()
    for dark in (False, True):
        browser.screen(width, height, dark)
        browser.open(browser.file)
        assert browser.value("document.documentElement.scrollWidth") <= width
        backgrounds.add(browser.value("getComputedStyle(document.body).backgroundColor"))
        assert browser.picture(tmp_path / "page.png").stat().st_size > 10_000
    assert len(backgrounds) == 2


def test_nothing_is_fetched_and_nothing_complains(browser: Browser) -> None:
    browser.screen(1366, 768)
    browser.open(browser.file)
    show_curves(browser)
    browser.value("new Promise(done => setTimeout(done, 300))")
    assert set(browser.requests) == {browser.file.resolve().as_uri()}
    assert browser.complaints == []


def test_first_screen_holds_question_answer_and_figure(browser: Browser) -> None:
    browser.screen(1366, 768)
    browser.open(browser.file)
    for selector in ("h1", ".answer dt", ".glance table"):
        top = browser.value(f"document.querySelector('{selector}').getBoundingClientRect().top")
        assert 0 < top < 400, selector
    assert browser.value("document.querySelectorAll('.glance tbody tr').length") == 6


def test_ranking_sorts_by_mouse_and_by_keyboard(browser: Browser, study: Study) -> None:
    browser.open(browser.file)
    assert labels(browser)[: len(study.losses)] == study.losses
    column = "[...document.querySelectorAll('#ranking-table thead th')]"
    mean = f"{column}.find(th => th.textContent === 'Mean Dice')"
    browser.value(f"{mean}.querySelector('button').click()")
    assert browser.value(f"{mean}.getAttribute('aria-sort')") == "descending"
    browser.value(f"{mean}.querySelector('button').focus()")
    browser.press("Enter")
    assert browser.value(f"{mean}.getAttribute('aria-sort')") == "ascending"
    scored = study.ranked.dropna(subset=["mean_dice"]).sort_values("mean_dice", kind="stable")
    shown = [label for label in labels(browser) if label in set(scored["loss"])]
    scores = scored.set_index("loss")["mean_dice"]
    assert [scores[label] for label in shown] == sorted(scores)
    name = f"{column}[0]"
    browser.value(f"{name}.querySelector('button').click()")
    names = browser.value(f"{ROWS}.map(row => row.cells[0].textContent.trim())")
    assert names == sorted(names, key=str.lower)


def test_ranking_filters_by_kind_family_tier_and_words(browser: Browser, study: Study) -> None:
    browser.open(browser.file)
    form = "form.filters"
    choose(browser, f"{form} [name=kind]", "published")
    published = {label for label in study.losses if label.startswith("published_")}
    assert set(labels(browser)) == published
    told = browser.value(f"document.querySelector('{form} output').textContent")
    assert told == f"{len(published)} of {len(study.ranked)} rows"
    choose(browser, f"{form} [name=kind]", "")
    choose(browser, f"{form} [name=words]", "combo")
    assert labels(browser) == ["published_combo"]
    choose(browser, f"{form} [name=words]", "")
    tier = study.row("dice")["tier"]
    choose(browser, f"{form} [name=tier]", tier)
    assert set(labels(browser)) == set(study.ranked.loc[study.ranked["tier"] == tier, "loss"])
    choose(browser, f"{form} [name=family]", "overlap")
    assert labels(browser) == ["dice"]


def test_columns_that_are_left_out_can_be_shown(browser: Browser) -> None:
    browser.open(browser.file)
    shown = "[...document.querySelectorAll('#ranking-table thead th')].filter(th => th.offsetWidth)"
    before = browser.value(f"{shown}.map(th => th.textContent)")
    choose(browser, "form.filters [name=columns]", "on")
    after = browser.value(f"{shown}.map(th => th.textContent)")
    assert "NSD" in after and "NSD" not in before and set(before) < set(after)


def test_curves_show_what_is_hovered(browser: Browser, study: Study) -> None:
    browser.screen(1366, 900)
    browser.open(browser.file)
    show_curves(browser)
    choose(browser, ".chart [name=class]", study.classes[0])
    browser.value("document.querySelector('.canvas').scrollIntoView({ behavior: 'instant' })")
    # where a point of the first loss lies in the window
    place = browser.value(
        "(async () => {"
        " const view = Object.values(Bokeh.index.roots ?? Bokeh.index)[0];"
        " const frame = view.frame, box = view.el.getBoundingClientRect();"
        " const points = view.model.renderers[1].data_source.data;"
        " const x = frame.x_scale.compute(points.x[4]), y = frame.y_scale.compute(points.y[4]);"
        " return [box.left + x, box.top + y, points.loss[4], points.y[4]]; })()"
    )
    x, y, loss, dice = place
    browser.move(x - 3, y)
    browser.move(x, y)
    browser.until(f"({TOOLTIPS})().includes({loss!r})")
    assert f"{dice:.3f}" in browser.value(f"({TOOLTIPS})()")


# the text of every tooltip, which Bokeh draws below shadow roots
TOOLTIPS = """() => {
  const found = [];
  const walk = (root) => {
    for (const node of root.querySelectorAll("*")) {
      if (node.shadowRoot) {
        const shown = node.getClientRects().length && node.className.includes?.("Tooltip");
        if (shown) found.push(node.shadowRoot.textContent);
        walk(node.shadowRoot);
      }
    }
  };
  walk(document);
  return found.join(" ");
}"""


def test_curves_follow_the_choice_of_losses_classes_and_seeds(
    browser: Browser, study: Study
) -> None:
    browser.open(browser.file)
    show_curves(browser)
    lines = (
        "Object.values(Bokeh.index.roots ?? Bokeh.index)[0].model.renderers"
        ".map(r => (r.data_source.data.xs ?? r.data_source.data.x).length)"
    )
    chosen = browser.value("document.querySelectorAll('.chart [name=loss]:checked').length")
    assert browser.value(lines)[0] == chosen > 1
    browser.value("document.querySelector('.chart [name=none]').click()")
    assert browser.value(lines) == [0, 0, 0]
    place = study.losses.index("cross_entropy")
    choose(browser, f".chart [name=loss][value='{place}']", "on")
    assert browser.value(lines)[0] == 1
    choose(browser, ".chart [name=lines][value=seeds]", "on")
    assert browser.value(lines)[0] == 3
    # the rare class that it lost in every run, and the frequent one that it kept
    for name, crosses in ((study.classes[-1], 3), (study.classes[0], 0)):
        choose(browser, ".chart [name=class]", name)
        assert browser.value(lines)[2] == crosses
        across = (
            "Object.values(Bokeh.index.roots ?? Bokeh.index)[0].model.renderers[2]"
            ".data_source.data.x"
        )
        places = browser.value(across)
        assert all(abs(a - b) > 8 for a, b in itertools.combinations(places, 2))
    choose(browser, ".chart [name=class]", study.classes[-1])
    choose(browser, ".chart [name=lines][value=median]", "on")
    assert browser.value(lines)[2] == 1  # one mark a loss
    choose(browser, ".chart [name=class]", study.classes[0])
    spoken = browser.value("document.querySelector('.chart output').textContent")
    assert spoken.startswith(f"1 loss drawn, {study.classes[0]}: Cross entropy 0.")
    assert not browser.value("document.querySelector('.readout').ariaLive")
    assert browser.value("document.querySelector('.canvas').getAttribute('role')") == "group"
    told = browser.value("document.querySelector('.readout tbody').textContent")
    assert told.startswith("Cross entropy") and "3 runs, none lost" in told


def test_a_large_table_comes_out_as_it_went_in(browser: Browser, study_dir: Path) -> None:
    browser.open(browser.file)
    name = "cases.csv"
    content = browser.value(
        f"unpack(document.querySelector('button[data-name=\"{name}\"]').dataset.packed)"
    )
    expected = (study_dir / "tables" / name).read_text(encoding="utf-8")
    assert list(csv.reader(io.StringIO(content))) == list(csv.reader(io.StringIO(expected)))
    caught = (
        "new Promise(done => { HTMLAnchorElement.prototype.click = function () "
        "{ done([this.download, this.href.slice(0, 5)]); }; "
        f"document.querySelector('button[data-name=\"{name}\"]').click(); }})"
    )
    assert browser.value(caught) == [name, "blob:"]


def test_paper_shows_the_drawn_curves_and_what_was_folded(browser: Browser) -> None:
    browser.open(browser.file)
    show_curves(browser)
    assert browser.value("document.querySelector('#curves .static').offsetHeight") == 0
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.value("document.querySelector('#curves .static').offsetHeight") > 100
    assert browser.value("document.querySelector('#curves .chart').offsetHeight") == 0
    browser.value("dispatchEvent(new Event('beforeprint'))")
    folded = "[...document.querySelectorAll('details:not([open])')]"
    assert set(browser.value(f"{folded}.map(entry => 'long' in entry.dataset)")) == {True}
    browser.value("dispatchEvent(new Event('afterprint'))")
    assert False in browser.value(f"{folded}.map(entry => 'long' in entry.dataset)")
    browser.call("Emulation.setEmulatedMedia", media="")


def test_nothing_of_a_card_is_cut_on_paper_and_headings_of_tables_are_repeated(
    browser: Browser,
) -> None:
    browser.screen(700, 1000)  # a page of A4
    browser.open(browser.file)
    browser.call("Emulation.setEmulatedMedia", media="print")
    cut = (
        "[...document.querySelectorAll('.pair, .pair .effects > *, .pair .scroll')]"
        ".filter(box => box.scrollWidth > box.clientWidth).length"
    )
    assert browser.value(cut) == 0
    heads = browser.value(
        "[...document.querySelectorAll('table.sortable thead')].map(head => {"
        " const { display, breakInside } = getComputedStyle(head);"
        " const button = getComputedStyle(head.querySelector('button')).display;"
        " return `${display} ${breakInside} ${button}`; })"
    )
    # Chromium repeats only headings that cannot be broken and have no box of a button in them
    assert set(heads) == {"table-header-group avoid contents"}
    browser.call("Emulation.setEmulatedMedia", media="")


def test_a_loss_of_the_first_screen_leads_to_its_card(browser: Browser) -> None:
    browser.screen(1366, 768)
    browser.open(browser.file)
    assert browser.value("document.querySelectorAll('.glance th a').length") == 6
    card = "document.getElementById('card-cross_entropy')"
    assert not browser.value(f"{card}.open")
    browser.value("document.querySelector('.glance a[href=\"#card-cross_entropy\"]').click()")
    browser.until(f"{card}.open")
    assert browser.value(f"{card}.querySelector('code').textContent") == "cross_entropy"
    browser.call("Page.navigate", url=browser.file.resolve().as_uri())  # without the fragment


def test_controls_are_large_enough_for_a_finger_and_figures_to_be_read_on_a_phone(
    browser: Browser,
) -> None:
    browser.screen(360, 800)
    browser.open(browser.file)
    show_curves(browser)
    browser.value("document.querySelectorAll('details').forEach(entry => { entry.open = true; })")
    small = (
        "[...document.querySelectorAll('button, select, summary, label, nav a, .glance a, "
        ".downloads a')].filter(one => one.offsetHeight && one.offsetHeight < 24)"
        ".map(one => one.outerHTML.slice(0, 80))"
    )
    assert browser.value(small) == []
    glance = "document.querySelector('.glance')"
    assert browser.value(f"{glance}.scrollWidth <= {glance}.clientWidth")
    shown = browser.value(f"{glance}.querySelector('tbody tr').innerText")
    assert shown.startswith("Dice CE") and re.search(r"0\.\d\d$", shown.strip())
    assert browser.value("getComputedStyle(document.querySelector('.losses')).maxHeight") == "none"
    widths = browser.value("[...document.querySelectorAll('.wide img')].map(x => x.offsetWidth)")
    assert all(width >= 660 for width in widths if width)
    assert browser.value("document.documentElement.scrollWidth") <= 360


def test_without_scripts_the_figure_and_every_row_are_there(browser: Browser) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.call("Page.navigate", url=browser.file.resolve().as_uri())
    try:
        browser.until("document.querySelector('#tables')")
        assert browser.value("document.querySelector('#curves .static').offsetHeight") > 100
        assert browser.value("document.querySelector('form.filters').offsetHeight") == 0
        assert len(labels(browser)) == 7
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_text_stands_out_from_its_background_by_day_and_night(browser: Browser) -> None:
    """The contrast of WCAG 2 for text: 4.5 to 1."""
    for dark in (False, True):
        browser.screen(1366, 768, dark)
        browser.open(browser.file)
        for ink in ("--ink", "--soft", "--blue", "--orange", "--red"):
            for paper in ("--paper", "--card"):
                ratio = browser.value(f"({CONTRAST})({ink!r}, {paper!r})")
                assert ratio >= 4.5, (ink, paper, dark, ratio)


def test_what_became_of_a_run_has_a_colour_of_its_own(browser: Browser) -> None:
    browser.open(browser.file)
    ink = browser.value("getComputedStyle(document.querySelector('#failures td')).color")
    colours = browser.value(
        "Object.fromEntries([...document.querySelectorAll('#failures .outcome')]"
        ".map(told => [told.textContent, getComputedStyle(told).color]))"
    )
    assert set(colours) == {"failed", "diverged", "total", "partial"}
    assert ink not in colours.values()


CONTRAST = """(one, other) => {
  const light = (name) => {
    const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const parts = [1, 3, 5].map((i) => Number.parseInt(hex.slice(i, i + 2), 16) / 255);
    const [r, g, b] = parts.map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}"""


def test_the_page_is_walked_by_keyboard(browser: Browser) -> None:
    browser.screen(1366, 768)
    browser.open(browser.file)
    browser.press("Tab")
    assert browser.value("document.activeElement.className") == "skip"
    browser.press("Tab")
    assert browser.value("document.activeElement.getAttribute('href')") == "#answer"
    headings = "[...document.querySelectorAll('.sortable thead th')]"
    assert browser.value(f"{headings}.every(heading => heading.querySelector('button'))")


def test_what_scrolls_on_a_phone_is_reached_by_keyboard_and_has_a_name(browser: Browser) -> None:
    browser.screen(390, 844)
    browser.open(browser.file)
    browser.value("document.querySelectorAll('details').forEach(entry => { entry.open = true; })")
    wide = (
        "[...document.querySelectorAll('.scroll, .glance, .wide')]"
        ".filter(frame => frame.scrollWidth > frame.clientWidth)"
    )
    assert browser.value(f"{wide}.length") > 3
    browser.until(f"{wide}.every(frame => frame.tabIndex === 0)")
    unnamed = f"{wide}.filter(frame => !frame.ariaLabel && !frame.matches('figure')).length"
    assert browser.value(unnamed) == 0
