"""The factorial's page: what it says is what its tables hold, and it turns round with them."""

from pathlib import Path

import pytest

from tests.synthetic_experiment import raw_tables
from workflow.comparison import experiment as comparison
from workflow.comparison.experiment_factorial import factor_levels
from workflow.reporting import experiment as reporting
from workflow.reporting.experiment_factorial import (
    CHAPTER,
    absence_title,
    draw_absence,
    draw_cells,
    draw_effects,
    effects_title,
    interactions_title,
    scores_title,
)
from workflow.study import load

FILE = Path(__file__).parents[2] / "config" / "factorial.yaml"


def write(folder, *, dice=lambda row: 0.7, false=lambda row: 0, changes=None, **options):
    study = load(FILE, changes)
    levels = factor_levels(study)
    options = {"absent": 0.5, "spread": 0.0} | options
    raw = raw_tables(study, lambda arm, loss, name: dice(levels.loc[loss]), **options)
    cases = raw["cases"]
    cases["predicted_voxels"] = [
        false(levels.loc[row.loss]) if row.reference_voxels == 0 else row.predicted_voxels
        for row in cases.itertuples()
    ]
    comparison.write(raw, folder / "tables", ".csv.gz")
    comparison.write(comparison.answers(study, raw), folder / "tables" / "answers", ".csv")
    (folder / "config.yaml").write_text(study.as_yaml())
    return reporting.read(folder)


def test_the_page_has_every_figure_and_sentence(tmp_path):
    found = write(tmp_path, spread=0.05)
    page = reporting.build(tmp_path).read_text()
    for name in CHAPTER.figures:
        assert f'id="figure-{name}"' in page
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 10_000
    assert set(CHAPTER.captions) == set(CHAPTER.figures)
    assert set(CHAPTER.shown) <= set(found.answers)
    assert "One" not in CHAPTER.said(found)[0]


def test_best_and_worst_cell_are_named(tmp_path):
    found = write(tmp_path, dice=lambda row: 0.7 - 0.2 * (row["smoothing"] == 100)
                  + 0.05 * (row["reduction"] == "batch" and row["background"] == "out"
                            and row["smoothing"] == 1))  # fmt: skip
    said = scores_title(found)
    assert said.startswith("The same Dice loss scores 0.50 (image, smoothing 100, background in)")
    assert said.endswith(" to 0.75 (batch, smoothing 1, background out) in mean Dice")


def test_the_effects_that_hold_are_named_and_no_others(tmp_path):
    found = write(tmp_path, dice=lambda row: 0.7 - 0.1 * (row["background"] == "out"), spread=0.02)
    assert effects_title(found) == (
        "Only background has a main effect that holds, and only on mean Dice and Dice of the "
        "rarest class"
    )
    sentence = next(s for s in CHAPTER.said(found) if s.startswith("Largest"))
    assert "background out vs in on mean Dice (by −0.1" in sentence and "reduction" not in sentence
    flat = write(tmp_path / "flat", spread=0.05)
    assert effects_title(flat) == "No main effect holds after Holm's correction"
    assert any(" a main effect would be found from 0.0" in s for s in CHAPTER.said(flat))
    assert interactions_title(flat).startswith("No two-way interaction holds")


def test_what_one_of_several_starts_shows_is_no_effect(tmp_path):
    found = write(tmp_path, dice=lambda row: 0.7 - 0.1 * (row["background"] == "out"))
    assert "background" in effects_title(found)
    rows = found.answers["effects"]["aspect"] == "background"
    found.answers["effects"].loc[rows, "seeds"] = 1
    assert effects_title(found) == "No main effect holds after Holm's correction"
    assert not any("Largest" in sentence for sentence in CHAPTER.said(found))


def test_an_interaction_that_holds_is_told(tmp_path):
    found = write(
        tmp_path,
        dice=lambda row: 0.7 - 0.3 * (row["reduction"] == "batch" and row["background"] == "out"),
        spread=0.01,
    )
    assert "reduction and background on mean Dice (batch vs image, out vs in: −0.3" in (
        interactions_title(found)
    )


def fewer(row):
    """Fewer false positives where the push is stronger: over the batch, with more smoothing."""
    return round(500 - 100 * (row["reduction"] == "batch") - row["smoothing"])


@pytest.mark.parametrize(
    ("false", "title"),
    [
        (fewer, "follow what the loss's gradient predicts in their volume"),
        (lambda row: 1000 - fewer(row), "go against what the loss's gradient predicts in their "
                                        "volume"),
        (lambda row: 7, "are not shown to follow what the loss's gradient predicts"),
        # smoothing alone is no order of the cells
        (lambda row: round(500 - row["smoothing"] / 10 + 90 * (row["reduction"] == "batch")),
         "are not shown to follow what the loss's gradient predicts"),
    ],
)  # fmt: skip
def test_the_verdict_on_absent_classes_turns_with_the_data(tmp_path, false, title):
    found = write(tmp_path, false=false)
    assert absence_title(found) == f"False positives on absent classes {title}"
    assert any(absence_title(found) in sentence for sentence in CHAPTER.said(found))


def test_effects_without_the_order_of_the_cells_are_no_theory_that_holds(tmp_path):
    found = write(tmp_path, false=fewer)
    assert " follow " in absence_title(found)
    found.answers["prediction"]["p"] = 0.2
    assert "are not shown to follow" in absence_title(found)


def test_a_run_without_the_class_is_no_run_without_false_positives(tmp_path):
    found = write(
        tmp_path,
        dice=lambda row: 0.7 * (row["smoothing"] < 100),
        false=lambda row: 50 * (row["smoothing"] < 100),
    )
    said = CHAPTER.said(found)
    assert said[1] == (
        "A class was lost by 0 of 20 runs with smoothing 1e-5, 0 of 20 runs with smoothing 1 and "
        "20 of 20 runs with smoothing 100."
    )
    assert "are not shown to follow" in absence_title(found)
    (judged,) = (s for s in said if s.startswith("Absent classes are judged"))
    assert "the 40 of 60 runs that kept every class" in judged and "in 100 % to 100 %" in judged
    draw_absence(found)


def test_a_class_that_spreads_over_the_background_is_told(tmp_path):
    found = write(tmp_path, false=lambda row: 60_000 * (row["background"] == "out"))
    assert (
        "With the background out, 30 of 60 runs spread a class over 3840 ml where it is absent, "
        "more than any case has of it."
    ) in CHAPTER.said(found)
    found = write(tmp_path / "less", false=lambda row: 100)
    assert not any("spread" in sentence for sentence in CHAPTER.said(found))


def test_one_seed_is_told(tmp_path):
    found = write(tmp_path, spread=0.05, changes={"seeds": [1]})
    assert any(s.startswith("There is one seed") for s in CHAPTER.said(found))
    assert any("would be found, for these starts, from" in s for s in CHAPTER.said(found))


@pytest.mark.parametrize(
    "losses",
    [["image_1e-5_background"], ["image_1_foreground", "batch_1_foreground"]],
)
@pytest.mark.parametrize("absent", [0.0, 0.5])
def test_a_shard_is_told_as_far_as_it_goes(tmp_path, losses, absent):
    changes = {"losses": losses, "comparison": {"reference_loss": losses[0]}}
    found = write(tmp_path, changes=changes, absent=absent, spread=0.05)
    said = CHAPTER.said(found)
    assert all(said) and "nan" not in " ".join(said)
    assert (len(losses) == 1) == any("Too few cells have run" in s for s in said)
    assert len(draw_cells(found).axes) == 2 * (4 if absent else 2)
    draw_effects(found)
    draw_absence(found)
    assert "Cells" in reporting.build(tmp_path).read_text()
