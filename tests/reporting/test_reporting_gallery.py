"""The gallery's pages: who stands where, and what the title says."""

import pandas as pd
import pytest

from workflow.comparison import gallery
from workflow.reporting import figures_gallery as figures


def answers(loss, family="region", twin="", left=1.0, lost=2.0, gone=0.5):
    """Responses of a made-up loss: ``left`` of its gradient stays once the class is absent, and
    its value goes from 1 to ``lost`` in every course, to ``gone`` with the class absent."""
    return [
        {
            "loss": loss, "family": family, "twin": twin, "course": course, "reference": which,
            "error": error,
            "value": 1 + error * ((gone if which == "absent" else lost) - 1),
            "gradient": 0.1 * (left if which == "absent" else 1),
        }
        for course in gallery.COURSES
        for which in gallery.REFERENCES
        for error in (0.0, 0.5, 1.0)
    ]  # fmt: skip


def test_the_title_names_the_losses_that_are_blind_to_an_absent_class():
    table = pd.DataFrame(answers("dice") + answers("log_dice", left=1e-3))
    said = figures.message(table, ["dice", "log_dice"])
    assert "1 of 2 keeps less than 1 % of the gradient against a false positive (Log Dice)" in said
    assert "rewarded" not in said and "punished" not in said
    said = figures.message(table, ["dice"])
    assert "weakest: Dice, with 100 % of the gradient" in said


def test_the_title_names_the_losses_that_rise_where_they_should_fall():
    table = pd.DataFrame(answers("published_combo", lost=0.5) + answers("dice", gone=1.5))
    said = figures.message(table, ["published_combo", "dice"])
    assert said.endswith("rewarded by Combo; the end of a false positive is punished by Dice")


def test_a_long_family_is_parted_and_corrections_stay_together():
    rows = [answers(f"published_{n:02}", "as published", "b" if n % 2 else "a") for n in range(17)]
    table = pd.DataFrame(sum(rows, answers("dice")))
    found = list(figures.pages(table))
    assert [name for name, _, _ in found] == ["as_published_1", "as_published_2", "region"]
    assert found[0][1] == "Losses as published (1 of 2)"
    published = found[0][2] + found[1][2]
    assert len(published) == 17
    twins = table.drop_duplicates("loss").set_index("loss")["twin"][published].tolist()
    assert twins == sorted(twins)


def test_a_page_has_six_panels_a_loss_and_shows_the_corrected_one_behind():
    table = pd.DataFrame(answers("dice") + answers("published_dice", "as published", "dice"))
    page = figures.draw_page(table, gallery.pictures(), "Losses", ["published_dice"])
    pictures, panels = page.axes[:6], page.axes[6:]
    assert [axis.get_title() for axis in pictures] == 2 * list(gallery.COURSES)
    assert len(panels) == 6
    assert {len(axis.lines) for axis in panels} == {4}


def test_a_gradient_of_zero_is_drawn_at_the_bottom():
    table = pd.DataFrame(answers("dice", left=0.0))
    page = figures.draw_page(table, gallery.pictures(), "Losses", ["dice"])
    absent = page.axes[7].lines[1]
    assert absent.get_ydata() == pytest.approx([figures.LOWEST] * 3)


def test_every_page_is_written_as_svg_and_png(tmp_path):
    table = pd.DataFrame(answers("dice") + answers("focal", "distribution"))
    written = figures.write_gallery(table, gallery.pictures(), tmp_path)
    assert {path.name for path in written} == {
        f"gallery_{name}.{ending}"
        for name in ("region", "distribution")
        for ending in ("svg", "png")
    }
    assert all(path.stat().st_size > 1000 for path in written)
