"""All figures of a study, drawn from its tables and written as SVG and PNG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from workflow.reporting.figures_certainty import draw_absent, draw_reliability
from workflow.reporting.figures_curves import draw_validation_curves
from workflow.reporting.figures_evidence import draw_equivalence, draw_rank_stability
from workflow.reporting.figures_scores import (
    draw_collapse,
    draw_cost,
    draw_heldout_dice,
    draw_published_corrected,
    draw_ranking,
)
from workflow.reporting.figures_slices import draw_cases, draw_dataset
from workflow.reporting.figures_tuning import draw_learning_rates
from workflow.reporting.study_tables import Study, read_study
from workflow.reporting.style import save

FIGURES: dict[str, Callable[[Study], Figure]] = {
    "ranking": draw_ranking,
    "published_corrected": draw_published_corrected,
    "collapse": draw_collapse,
    "equivalence": draw_equivalence,
    "rank_stability": draw_rank_stability,
    "absent": draw_absent,
    "reliability": draw_reliability,
    "learning_rates": draw_learning_rates,
    "validation_curves": draw_validation_curves,
    "heldout_dice": draw_heldout_dice,
    "cases_median": lambda study: draw_cases(study, "median"),
    "cases_worst": lambda study: draw_cases(study, "worst"),
    "dataset": draw_dataset,
    "cost": draw_cost,
}


def write_all(study_dir: Path) -> list[Path]:
    """Write `figures/<name>.svg` and `.png` of a study and return their paths.

    A figure is written even if its table is empty, so that a study whose runs failed still has
    every file that the report and the workflow expect; such a figure says that it has no data.
    """
    study = read_study(Path(study_dir))
    folder = Path(study_dir) / "figures"
    return [path for name, draw in FIGURES.items() for path in save(draw(study), folder, name)]
