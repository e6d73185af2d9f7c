"""How many flipped and exchanged labels are noticed, and how often a sound one is suspected.

    python -m benchmarks.evidence                 # thirteen phantoms, from easy to very faint
    python -m benchmarks.evidence FOLDER ...      # and data sets of yours (dataset.json inside)

A sixth of the labels is damaged at a time, until each has been: mirrored left-right, or exchanged
with the next case's of the same shape. ``evidence.csv`` has a row a data set; ``docs/faults.md``
quotes it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from workflow import files
from workflow.data import dataset as datasets
from workflow.data.evidence import Thumbnail, mismatches, thumbnail
from workflow.data.phantom import PhantomSettings, make_subject, subject_name

TABLE = Path(__file__).parent / "evidence.csv"
CASES = 24
TURNS = 6
PHANTOMS: dict[str, dict[str, float]] = {
    "default": {},
    "much deformed": {"deformation": 8.0},
    "uneven field": {"bias": 0.5},
    "uneven tissue": {"texture": 0.15},
    "many distractors": {"distractors": 12.0},
    "varied contrast": {"contrast_spread": 0.4},
    "small lesions": {"lesion_volume": 20.0},
    "tiny lesions": {"lesion_volume": 4.0},
    "noisy": {"noise": 0.15},
    "very noisy": {"noise": 0.3},
    "faint": {"contrast": 0.5},
    "fainter": {"contrast": 0.25},
    "hardly visible": {"contrast": 0.1},
}


class Case(NamedTuple):
    """Image (channels, x, y, z), label (x, y, z) and affine."""

    name: str
    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray

    def small(self, label: np.ndarray | None = None) -> Thumbnail:
        """What the evidence is looked for in; with another label, if one is given."""
        own = self.label if label is None else label
        return thumbnail(self.name, self.image, own, self.affine)


def phantom(changes: dict[str, float], cases: int = CASES) -> list[Case]:
    settings = PhantomSettings(subjects=cases, **changes)  # type: ignore[arg-type]
    affine = np.diag([settings.spacing] * 3 + [1])
    made = (make_subject(settings, index) for index in range(cases))
    return [Case(subject_name(k), image, label, affine) for k, (image, label) in enumerate(made)]


def folder(root: Path) -> list[Case]:
    """Every case of a data set."""
    found = []
    for case in datasets.read(root).cases:
        image, affine, _ = datasets.load_image(case)
        found.append(Case(case.name, image, datasets.load_label(case)[0], affine))
    return found


def flipped(cases: Sequence[Case], chosen: Iterable[int]) -> dict[int, np.ndarray]:
    """The damaged labels by position: mirrored left-right."""
    return {index: np.flip(cases[index].label, 0) for index in chosen}


def exchanged(cases: Sequence[Case], chosen: Iterable[int]) -> dict[int, np.ndarray]:
    """The damaged labels by position: each chosen one and the next of its shape."""
    damaged: dict[int, np.ndarray] = {}
    for index in chosen:
        shape = cases[index].label.shape
        others = (k % len(cases) for k in range(index + 1, index + len(cases)))
        free = (k for k in others if k not in damaged and cases[k].label.shape == shape)
        if index not in damaged and (other := next(free, None)) is not None:
            damaged |= {index: cases[other].label, other: cases[index].label}
    return damaged


def suspected(small: Sequence[Thumbnail]) -> set[str]:
    return {line.partition(": ")[0] for line in mismatches(small)}


def measure(cases: Sequence[Case]) -> dict[str, int]:
    """Labels damaged, those told, and sound ones suspected: in the sound set and beside damage."""
    sound = [case.small() for case in cases]
    row = {"cases": len(cases), "suspected": len(suspected(sound))}
    kinds: dict[str, Callable] = {"flipped": flipped, "exchanged": exchanged}
    for kind, damage in kinds.items():
        count = told = wrong = 0
        for turn in range(TURNS):
            labels = damage(cases, range(turn, len(cases), TURNS))
            small = [
                cases[k].small(labels[k]) if k in labels else one for k, one in enumerate(sound)
            ]
            names = {cases[k].name for k in labels}
            found = suspected(small)
            count, told, wrong = (
                count + len(names), told + len(found & names), wrong + len(found - names)
            )  # fmt: skip
        row |= {kind: count, f"{kind}_told": told, f"{kind}_beside": wrong}
    return row


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*", help="data sets to measure as well")
    folders = parser.parse_args(arguments).folders
    rows = [{"data": name} | measure(phantom(changes)) for name, changes in PHANTOMS.items()]
    files.write_table(TABLE, pd.DataFrame(rows))
    rows += [{"data": root.name} | measure(folder(root)) for root in folders]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    total = table.drop(columns="data").sum()
    print(f"{total['suspected']} of {total['cases']} sound labels suspected")
    for kind in ("flipped", "exchanged"):
        print(f"{total[f'{kind}_told']} of {total[kind]} {kind} labels told")


if __name__ == "__main__":
    main()
