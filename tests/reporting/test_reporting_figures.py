"""Figures are drawn, filled and the same each time, whatever the study looks like."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_study import Loss, write_study

from workflow.reporting import figures
from workflow.reporting.evidence import against_primary
from workflow.reporting.figures_certainty import draw_absent, draw_reliability
from workflow.reporting.figures_curves import curve_groups, draw_validation_curves
from workflow.reporting.figures_evidence import draw_equivalence, draw_rank_stability
from workflow.reporting.figures_scores import (
    draw_collapse,
    draw_cost,
    draw_heldout_dice,
    draw_published_corrected,
    draw_ranking,
)
from workflow.reporting.figures_slices import draw_cases, draw_dataset, errors
from workflow.reporting.figures_tuning import draw_learning_rates
from workflow.reporting.study_tables import FLOOR, TABLES, Study, read_study
from workflow.reporting.wording import readable


def texts(figure) -> str:
    """All words of a figure."""
    found = [text.get_text() for axis in figure.axes for text in axis.texts]
    found += [label.get_text() for axis in figure.axes for label in axis.get_yticklabels()]
    found += [axis.get_title() for axis in figure.axes]
    return "\n".join([*found, figure.get_suptitle()])


def test_every_figure_is_written_as_svg_and_png(study_dir: Path, tmp_path: Path) -> None:
    copy = write_study(tmp_path / "study")
    written = figures.write_all(copy)
    assert {path.name for path in written} == {
        f"{name}.{ending}" for name in figures.FIGURES for ending in ("svg", "png")
    }
    assert all(path.stat().st_size > 2000 for path in written)
    before = {path.name: path.read_bytes() for path in written}
    figures.write_all(copy)
    assert before == {path.name: path.read_bytes() for path in written}


def test_curves_have_a_row_a_group_and_a_column_a_class(study_dir: Path) -> None:
    study = read_study(study_dir)
    figure = draw_validation_curves(study)
    assert len(figure.axes) == len(curve_groups(study)) * len(study.classes)
    assert all(len(axis.lines) >= 4 for axis in figure.axes)


def test_curves_put_published_losses_beside_their_correction(study_dir: Path) -> None:
    groups = curve_groups(read_study(study_dir))
    assert ["generalized_dice", "published_generalized_dice_graph"] in groups
    assert sorted(label for group in groups for label in group) == sorted(
        {label for group in groups for label in group}
    )


def test_curves_mark_only_the_classes_that_a_run_lost(study_dir: Path) -> None:
    study = read_study(study_dir)
    row = next(i for i, group in enumerate(curve_groups(study)) if "cross_entropy" in group)
    axes = draw_validation_curves(study).axes[row * 3 : row * 3 + 3]
    crosses = [sum(line.get_marker() == "x" for line in axis.lines) for axis in axes]
    assert crosses == [0, 0, 3]


def test_ranking_shows_every_loss_the_floor_and_lost_runs(study_dir: Path) -> None:
    study = read_study(study_dir)
    figure = draw_ranking(study)
    assert len(figure.axes[0].get_yticks()) == len(study.losses)
    assert any(line.get_linestyle() == "--" for line in figure.axes[0].lines)
    assert "1 collapsed, 1 failed of 3" in texts(figure)


def test_heldout_dice_draws_a_dot_for_each_case_with_the_class(study_dir: Path) -> None:
    study = read_study(study_dir)
    figure = draw_heldout_dice(study)
    cases = study.chosen(study.cases)
    for axis, name in zip(figure.axes, study.classes, strict=True):
        present = cases[(cases["class"] == name) & (cases["loss"] == "dice")].dropna(subset="dice")
        drawn = {len(dots.get_offsets()) for dots in axis.collections}
        assert drawn == {present["case"].nunique()}


def test_collapse_grid_names_every_bad_outcome(study_dir: Path) -> None:
    figure = draw_collapse(read_study(study_dir))
    words = texts(figure)
    assert all(outcome in words for outcome in ("partial", "total", "diverged", "failed"))
    assert len(figure.axes[0].patches) == 6 * 3


def test_collapse_has_a_column_a_seed_whatever_the_rates(study_dir: Path) -> None:
    study = read_study(study_dir)
    assert study.runs["learning_rate"].nunique() > 1
    assert len(draw_collapse(study).axes[0].get_xticks()) == study.seeds


def test_collapse_shows_false_structures_of_absent_classes(study_dir: Path) -> None:
    study = read_study(study_dir)
    rows = study.chosen(study.absent)
    drawn = np.concatenate(
        [dots.get_offsets()[:, 0] for dots in draw_collapse(study).axes[1].collections]
    )
    rates = rows.loc[rows["loss"] != FLOOR, "false_structure_rate"]
    assert sorted(drawn) == pytest.approx(sorted(rates))
    assert 0 < rates.mean() < rows["false_positive_rate"].mean()


def test_equivalence_has_a_cell_and_a_margin_for_each_pair_that_holds(study_dir: Path) -> None:
    study = read_study(study_dir)
    axis = draw_equivalence(study).axes[0]
    standing = len(study.standing)
    assert 2 < standing < len(study.losses)
    assert len(axis.patches) == standing * (standing - 1) / 2
    margins = study.endpoint(study.equivalence)["smallest_margin"]
    shown = [text.get_text() for text in axis.texts if text.get_text().startswith(".")]
    assert len(shown) == len(axis.patches)
    assert set(shown) <= {f"{margin:.3f}"[1:] for margin in margins.dropna()}


def test_ranks_have_a_box_a_loss_and_agreement_a_dot_a_rule(study_dir: Path) -> None:
    study = read_study(study_dir)
    left, right = draw_rank_stability(study).axes
    ranks = study.endpoint(study.ranks)
    assert 0 < len(ranks) < len(study.losses)  # without a run, no rank
    assert len(left.patches) == len(ranks)
    assert [tick.get_text() for tick in left.get_yticklabels()] == [
        readable(label) for label in ranks.sort_values("rank", kind="stable")["loss"]
    ]
    assert sum(line.get_marker() == "o" for line in right.lines) == len(against_primary(study))
    assert "critical difference" in texts(left.figure)


def test_absent_classes_have_a_volume_and_a_presence_beside_chance(study_dir: Path) -> None:
    study = read_study(study_dir)
    volume, presence = draw_absent(study).axes
    rows = study.chosen(study.absent)
    drawn = np.concatenate([dots.get_offsets()[:, 0] for dots in volume.collections])
    assert sorted(drawn) == pytest.approx(
        sorted(rows.loc[rows["loss"] != FLOOR, "false_positive_mm3"])
    )
    assert volume.get_xscale() == "symlog"
    assert any(list(line.get_xdata()) == [0.5, 0.5] for line in presence.lines)


def test_reliability_has_a_panel_for_each_loss_that_holds(study_dir: Path) -> None:
    study = read_study(study_dir)
    panels = [axis for axis in draw_reliability(study).axes if axis.axison]
    assert [axis.get_title().replace("\n", " ") for axis in panels] == [
        readable(label) for label in study.standing
    ]
    assert all(len(axis.lines) == 3 for axis in panels)


def test_learning_rates_mark_the_chosen_trial_of_each_loss(study_dir: Path) -> None:
    study = read_study(study_dir)
    panels = [axis for axis in draw_learning_rates(study).axes if axis.axison]
    for axis, label in zip(panels, study.losses, strict=True):
        rows = study.trials[study.trials["loss"] == label]
        chosen = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "D"]
        assert chosen == list(rows.loc[rows["chosen"], "learning_rate"])
        assert bool(axis.texts) == rows["on_edge"].any()
    assert sum(bool(axis.texts) for axis in panels) > 0


def test_the_floor_is_no_run(study_dir: Path) -> None:
    study = read_study(study_dir)
    assert FLOOR not in set(study.runs["loss"])
    assert FLOOR not in study.losses
    assert study.row(FLOOR) is not None


def test_pairs_show_both_scores_and_both_differences(study_dir: Path) -> None:
    study = read_study(study_dir)
    left, right = draw_published_corrected(study).axes
    assert sum(line.get_marker() == "o" for line in left.lines) == 2 * len(study.pairs())
    assert sum(line.get_marker() == "s" for line in right.lines) == len(study.pairs())


def test_cost_has_two_bars_a_loss(study_dir: Path) -> None:
    study = read_study(study_dir)
    assert len(draw_cost(study).axes[0].patches) == 2 * len(study.losses)


def test_cases_show_every_loss_that_has_a_prediction(study_dir: Path) -> None:
    study = read_study(study_dir)
    figure = draw_cases(study, "median")
    rows = study.slices[study.slices["kind"] == "median"]
    assert sum(bool(axis.images) for axis in figure.axes) == len(rows)
    assert "Dice 0.00" in texts(figure)


def test_errors_are_missed_false_alarm_or_wrong_class() -> None:
    wrong = errors(np.array([0, 1, 1, 2, 0]), np.array([0, 1, 0, 1, 2]))
    assert {kind: list(np.flatnonzero(mask)) for kind, mask in wrong.items()} == {
        "missed": [2],
        "alarm": [4],
        "confused": [3],
    }


def test_dataset_legend_tells_fraction_and_prevalence(study_dir: Path) -> None:
    study = read_study(study_dir)
    labels = [entry.get_text() for entry in draw_dataset(study).legends[0].get_texts()]
    row = study.dataset[(study.dataset["class"] == "edema") & (study.dataset["split"] == "all")]
    fraction = 100 * row["voxel_fraction"].item()
    assert f"edema: {fraction:.2f} % of voxels, in 100 % of cases" in labels


ALMOST_ALL_FAILED = (
    Loss("dice_ce", "compound", 0.7),
    Loss("dice", "overlap", 0.7, fails=(0, 1)),
    Loss("published_dice", "overlap", 0.7, twin="dice", fails=(0, 1)),
)


@pytest.mark.parametrize(
    "options",
    [
        {"seeds": 1},
        {"losses": ALMOST_ALL_FAILED},
        {"classes": ("tumour",)},
        {"classes": ("liver", "tumour")},
        {"classes": ("a", "b", "c", "d", "e")},
        {"losses": (Loss("dice_ce", "compound", 0.7),)},
    ],
    ids=["one seed", "failed", "one class", "two classes", "five classes", "one loss"],
)
def test_figures_of_unusual_studies_are_filled(tmp_path: Path, options: dict) -> None:
    check_filled(read_study(write_study(tmp_path / "study", **options)))


def test_figures_of_many_losses_are_filled(large_dir: Path) -> None:
    check_filled(read_study(large_dir))


def check_filled(study: Study) -> None:
    for name, draw in figures.FIGURES.items():
        figure = draw(study)
        assert figure.get_suptitle(), name
        for axis in figure.axes:
            filled = axis.lines or axis.patches or axis.collections or axis.images or axis.texts
            assert filled or not axis.axison, f"{name} has an empty panel"
    assert len(draw_ranking(study).axes[0].get_yticks()) == len(study.losses)


class Watched(Study):
    """Remembers what has been read of it."""

    def __getattribute__(self, name: str) -> object:
        object.__getattribute__(self, "__dict__").setdefault("read", set()).add(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_figure_is_drawn_without_each_table_that_it_reads(study_dir: Path, name: str) -> None:
    draw, study = figures.FIGURES[name], read_study(study_dir)
    watched = Watched(
        **{each.name: getattr(study, each.name) for each in dataclasses.fields(study)}
    )
    draw(watched)
    tables = watched.read & set(TABLES)
    assert tables
    for table in tables:
        assert draw(dataclasses.replace(study, **{table: pd.DataFrame()})).get_suptitle(), table


def test_losses_without_any_score_are_named_not_dropped(tmp_path: Path) -> None:
    study = read_study(write_study(tmp_path / "study", losses=ALMOST_ALL_FAILED))
    assert texts(draw_ranking(study)).count("no score") == 4
    assert "no score" in texts(draw_heldout_dice(study))


def test_names_with_dollar_signs_are_no_mathematics(tmp_path: Path) -> None:
    study = read_study(
        write_study(tmp_path / "study", classes=("a$^b", "c_{$"), case_name="$case_{{{}")
    )
    figures.write_all(tmp_path / "study")
    assert "a$^b" in texts(draw_heldout_dice(study))


def test_study_without_tables_still_has_its_figures(tmp_path: Path) -> None:
    written = figures.write_all(tmp_path / "nothing")
    assert len(written) == 2 * len(figures.FIGURES)
    assert pd.DataFrame().equals(read_study(tmp_path / "nothing").summary)
