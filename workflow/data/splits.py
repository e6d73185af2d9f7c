"""Divide the subjects into training, validation and test, alike in which classes they have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from workflow.data.faults import DataError
from workflow.data.prepare import Prepared

TRAIN = "train"
EXTERNAL = "external"
"""Split of the cases of another data set than that of training."""


def make_splits(
    cases: Sequence[tuple[str, str, frozenset[str]]],
    fractions: Mapping[str, float],
    seed: int,
    classes: Iterable[str] = (),
) -> pd.DataFrame:
    """Columns case, subject, split; sorted by case, whatever the order of `cases`.

    All cases of a subject go together. Subjects are placed one after the other, the rarest pattern
    of present classes first, each into the split whose misfit (chi-square over the patterns, and
    over each class's presence and absence) falls most. The number of subjects of a split is its
    fraction rounded up or down, but never 0.

    Args:
        cases: name, subject and present foreground classes.
        fractions: share of the subjects of each split; they sum to 1.
        seed: decides between subjects that are alike.
        classes: foreground classes that training must have, even if no case has them.

    Raises:
        DataError: fractions that do not sum to 1, fewer subjects than splits, a case listed twice,
            a class that no training case has.
    """
    total = sum(fractions.values())
    if abs(total - 1) > 1e-6 or min(fractions.values(), default=0) < 0:
        raise DataError(f"splits: the fractions {dict(fractions)} must be positive and sum to 1")
    twice = [name for name, count in Counter(case[0] for case in cases).items() if count > 1]
    if twice:
        raise DataError([f"splits: the case '{name}' is listed twice" for name in sorted(twice)])
    present: dict[str, frozenset[str]] = defaultdict(frozenset)
    for _, subject, found in cases:
        present[subject] |= found
    capacity = _sizes(len(present), fractions)
    split_of = _place(dict(sorted(present.items())), fractions, capacity, seed)
    rows = [(name, subject, split_of[subject]) for name, subject, _ in sorted(cases)]
    frame = pd.DataFrame(rows, columns=["case", "subject", "split"])
    known = set(classes).union(*present.values())
    _check_classes(frame, {case[0]: case[2] for case in cases}, known)
    return frame


def check_splits(splits: pd.DataFrame, prepared: Prepared) -> None:
    """Compare a table of splits, perhaps edited by hand, with the prepared cases.

    Raises:
        DataError: a missing column, a subject in two splits, a case that is unknown, missing,
            listed twice or given another subject, a case of the external test set in another split
            (or another case in its), a class that no training case has.
    """
    missing = [name for name in ("case", "subject", "split") if name not in splits.columns]
    if missing:
        raise DataError([f"splits: the column '{name}' is missing" for name in missing])
    faults = []
    cases = {case.name: case for case in prepared.cases}
    for name, count in splits["case"].value_counts().sort_index().items():
        if name not in cases:
            faults.append(f"splits: the case '{name}' is not in the data set '{prepared.name}'")
        elif count > 1:
            faults.append(f"splits: the case '{name}' is listed {count} times")
    listed = set(splits["case"])
    faults += [
        f"splits: the case '{name}' is missing" for name in sorted(cases) if name not in listed
    ]
    for row in splits.itertuples():
        if row.case in cases and cases[row.case].subject != row.subject:
            faults.append(
                f"splits: the case '{row.case}' belongs to '{cases[row.case].subject}', "
                f"not to '{row.subject}'"
            )
        if row.case in cases:
            source = cases[row.case].dataset
            if (source != prepared.name) != (row.split == EXTERNAL):
                faults.append(
                    f"splits: the case '{row.case}' is of the data set '{source}', it cannot be in "
                    f"the split '{row.split}'"
                )
    for subject, group in splits.groupby("subject")["split"]:
        if group.nunique() > 1:
            where = " and ".join(sorted(group.unique()))
            faults.append(f"splits: the subject '{subject}' is in {where}")
    if faults:
        raise DataError(faults)
    _check_classes(
        splits, {name: case.present for name, case in cases.items()}, prepared.classes[1:]
    )


def _check_classes(
    splits: pd.DataFrame, present: Mapping[str, frozenset[str]], classes: Iterable[str]
) -> None:
    training = splits.loc[splits["split"] == TRAIN, "case"]
    seen = frozenset().union(*(present[name] for name in training))
    absent = sorted(set(classes) - seen)
    if TRAIN in set(splits["split"]) and absent:
        raise DataError([f"splits: no training case has the class '{name}'" for name in absent])


def _sizes(subjects: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Subjects of each split, by largest remainder; a split that is wanted gets one at least."""
    wanted = {name: fraction for name, fraction in fractions.items() if fraction > 0}
    if subjects < len(wanted):
        raise DataError(
            f"splits: {subjects} subjects, but {', '.join(wanted)} need {len(wanted)} or more"
        )
    ideal = {name: fraction * subjects for name, fraction in wanted.items()}
    sizes = {name: max(1, int(size + 1e-9)) for name, size in ideal.items()}
    while sum(sizes.values()) != subjects:
        step = 1 if sum(sizes.values()) < subjects else -1
        open_ = [name for name in sizes if sizes[name] + step >= 1]
        best = max(open_, key=lambda name: step * (ideal[name] - sizes[name]))
        sizes[best] += step
    return sizes


def _place(
    present: Mapping[str, frozenset[str]],
    fractions: Mapping[str, float],
    capacity: dict[str, int],
    seed: int,
) -> dict[str, str]:
    """The split of each subject."""
    classes = sorted(frozenset().union(*present.values()))

    def traits(found: frozenset[str]) -> list[object]:
        return [found, *((name, name in found) for name in classes)]

    count = Counter(trait for found in present.values() for trait in traits(found))
    target = {
        (split, trait): fractions[split] * number
        for split in capacity
        for trait, number in count.items()
    }
    lacking = dict(target)

    def gain(split: str, mine: list[object]) -> float:
        """How much chi-square, the misfit to the targets, falls when the split gets one more."""
        return sum((2 * lacking[split, trait] - 1) / target[split, trait] for trait in mine)

    free = dict(capacity)
    order = np.random.default_rng(seed).permutation(len(present))
    subjects = [list(present)[index] for index in order]
    subjects.sort(key=lambda subject: (count[present[subject]], sorted(present[subject])))
    placed = {}
    taught: frozenset[str] = frozenset()
    for subject in subjects:
        mine = traits(present[subject])
        open_ = [split for split in free if free[split] > 0]
        # Training first gets one subject of each class: what it never sees cannot be compared.
        teaches = TRAIN in open_ and not present[subject] <= taught
        best = TRAIN if teaches else max(open_, key=lambda split: gain(split, mine))
        if best == TRAIN:
            taught |= present[subject]
        placed[subject] = best
        free[best] -= 1
        for trait in mine:
            lacking[best, trait] -= 1
    return placed
