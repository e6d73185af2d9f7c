"""What the paper says: sentences that hold for whatever the tables contain."""

from __future__ import annotations

from workflow.reporting.evidence import detectable, equivalence_title, stability_title
from workflow.reporting.study_tables import FLOOR, Study
from workflow.reporting.text import (
    asked,
    caption,
    collapse_title,
    correction_title,
    heldout_title,
    ranking_title,
    rules,
    status_line,
    verdict,
)
from workflow.reporting.wording import count, learning_rates, listing, percent, readable

SPLITS = ("train", "validation", "test")


def methods(study: Study) -> list[str]:
    """How the study was run, as the paper tells it: only what the tables and settings hold."""
    told = []
    if len(study.dataset):
        cases = study.dataset.drop_duplicates("split").set_index("split")["cases"]
        parts = [f"{int(cases[name])} {name}" for name in SPLITS if name in cases.index]
        told.append(
            f"The data set {study.dataset_name} has {count(int(cases.max()), 'case')} "
            f"({listing(parts)}), split by subject."
        )
        sizes = study.class_sizes()
        sizes = sizes[sizes["class"].isin(study.classes)]
        shares = [
            f"{row['class']} fills {percent(row['voxel_fraction'], 2)} of the voxels and is in "
            f"{percent(row['prevalence'])} of the cases"
            for _, row in sizes.iterrows()
        ]
        told.append(f"Of the foreground classes, {listing(shares)}.")
    training, network = (study.config.get(key) or {} for key in ("training", "network"))
    if "channels" in network:
        channels = ", ".join(str(width) for width in network["channels"])
        norm = f" and {network['norm']} norm" if "norm" in network else ""
        told.append(f"Every loss trains the same U-Net ({channels} channels{norm}).")
    if "steps" in training:
        batch = f" of {training['batch_size']} patches" if "batch_size" in training else ""
        told.append(
            f"A run takes {training['steps']} steps{batch} {learning_rates(study.runs)}; for one "
            "seed all losses start from the same weights and see the same patches in the same "
            "order."
        )
    return told


def limits(study: Study) -> list[str]:
    """What this study cannot tell, from its own size."""
    told = [f"One data set ({study.dataset_name}) and one network: another may rank otherwise."]
    runs, cases = study.runs, study.chosen(study.cases)
    seeds = int(runs["seed"].nunique()) if len(runs) else 0
    held = int(cases["case"].nunique()) if len(cases) else 0
    told.append(
        f"{count(seeds, 'seed')} and {count(held, 'held-out case')}: the intervals show what "
        "that leaves open, and a difference that is not separable is not shown to be zero."
    )
    told.append(detectable(study))
    if len(runs) and runs["learning_rate"].nunique() == 1:
        told.append(
            "All losses share one learning rate; tuned one by one, some may gain more than others."
        )
    edge = study.trials.loc[study.trials["chosen"], "on_edge"] if len(study.trials) else None
    if edge is not None and edge.any():
        told.append(
            f"For {count(int(edge.sum()), 'loss', 'losses')} the best learning rate tried was at "
            "an end of the widened grid: a better one may lie beyond."
        )
    if len(runs) and (runs["status"] != "ok").any():
        told.append(
            f"{status_line(study)} Scores are those of runs that have any, which flatters a loss "
            "that breaks down."
        )
    return told


def statements(study: Study) -> dict[str, object]:
    """Everything that the paper says in words, computed; the paper adds no claim of its own."""
    return {
        "title": study.title,
        "study": study.name,
        "checkpoint": study.checkpoint,
        "rarest": study.rarest,
        "confidence": percent(study.confidence),
        "floor": FLOOR,
        "names": {label: readable(label) for label in (*study.losses, FLOOR)},
        "asked": asked(study),
        "verdict": verdict(study),
        "status": status_line(study),
        "methods": methods(study),
        "limits": limits(study),
        "results": [
            f"{title(study)}."
            for title in (
                ranking_title,
                collapse_title,
                heldout_title,
                equivalence_title,
                stability_title,
            )
        ],
        "rules": rules(study),
        "captions": {
            "published_corrected": f"{correction_title(study)}. "
            f"{caption(study, 'published_corrected')}",
            "collapse": f"{collapse_title(study)}. {caption(study, 'collapse')}",
        },
    }
