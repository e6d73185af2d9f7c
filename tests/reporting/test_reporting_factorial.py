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
    assert "0.50 to 0.75" in said and "12 cells" in said
    assert said.endswith("highest over the batch with smoothing 1 and background out")


def test_the_effects_that_hold_are_named_and_no_others(tmp_path):
    found = write(tmp_path, dice=lambda row: 0.7 - 0.1 * (row["background"] == "out"), spread=0.02)
    assert "background on mean Dice" in effects_title(found)
    assert "smoothing" not in effects_title(found)
    sentence = next(s for s in CHAPTER.said(found) if s.startswith("Mean Dice"))
    assert "background out vs in changes it by −0.1" in sentence and "reduction" not in sentence
    flat = write(tmp_path / "flat", spread=0.05)
    assert any("No main effect on mean Dice holds" in s for s in CHAPTER.said(flat))
    assert interactions_title(flat).startswith("No two-way interaction holds")


def test_an_interaction_that_holds_is_told(tmp_path):
    found = write(
        tmp_path,
        dice=lambda row: 0.7 - 0.3 * (row["reduction"] == "batch" and row["background"] == "out"),
        spread=0.01,
    )
    assert "reduction and background on mean Dice (batch vs image, out vs in: −0.3" in (
        interactions_title(found)
    )


@pytest.mark.parametrize(
    ("false", "verdict", "counts"),
    [
        # fewer where the push is stronger: over the batch, more smoothing, background in
        (
            lambda row: round(500 - 100 * (row["reduction"] == "batch") - row["smoothing"]
                              + 40 * (row["background"] == "out")),
            "follow in part",
            "rate 0 of 4 main effects as predicted; volume (ml) 4 of 4 main effects as predicted",
        ),
        (
            lambda row: round(300 + 100 * (row["reduction"] == "batch") + row["smoothing"]),
            "go against",
            "rate 0 of 4 main effects as predicted; "
            "volume (ml) 0 of 4 main effects as predicted, 3 against",
        ),
        (lambda row: 7, "are not shown to follow", "volume (ml) 0 of 4"),
    ],
)  # fmt: skip
def test_the_verdict_on_absent_classes_turns_with_the_data(tmp_path, false, verdict, counts):
    found = write(tmp_path, false=false)
    title = absence_title(found)
    assert verdict in title and counts in title
    assert any(title in sentence for sentence in CHAPTER.said(found))


def test_a_lost_class_is_told(tmp_path):
    found = write(tmp_path, dice=lambda row: 0.7 * (row["smoothing"] < 100))
    assert any(
        s.startswith("20 runs of 60 lost a class: over the image") for s in CHAPTER.said(found)
    )


def test_one_seed_is_told(tmp_path):
    found = write(tmp_path, spread=0.05, changes={"seeds": [1]})
    assert any(s.startswith("There is one seed") for s in CHAPTER.said(found))


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
