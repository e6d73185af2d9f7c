from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from workflow.data.choices import Choices
from workflow.data.dataset import DataError
from workflow.data.prepare import Prepared, PreparedCase
from workflow.data.splits import check_splits, make_splits

FRACTIONS = {"train": 0.5, "validation": 0.2, "test": 0.3}
CLASSES = ("a", "b", "c")

subject_lists = st.lists(
    st.tuples(st.integers(1, 3), st.frozensets(st.sampled_from(CLASSES))), min_size=10, max_size=60
)


def cases_of(subjects: list[tuple[int, frozenset[str]]]) -> list[tuple[str, str, frozenset[str]]]:
    return [
        (f"s{number:02d}_{frame}", f"s{number:02d}", found)
        for number, (frames, found) in enumerate(subjects)
        for frame in range(frames)
    ]


@settings(max_examples=60, deadline=None)
@given(subject_lists, st.integers(0, 5), st.randoms())
def test_splits_keep_their_promises(subjects, seed, random) -> None:
    cases = cases_of(subjects)
    splits = make_splits(cases, FRACTIONS, seed)
    assert list(splits["case"]) == sorted(name for name, _, _ in cases)
    assert (splits.groupby("subject")["split"].nunique() == 1).all()
    sizes = splits.groupby("split")["subject"].nunique()
    for name, fraction in FRACTIONS.items():
        assert abs(sizes[name] - fraction * len(subjects)) <= 1
    trained = splits.loc[splits["split"] == "train", "case"]
    found = {name: present for name, _, present in cases}
    assert frozenset().union(*found.values()) == frozenset().union(*(found[n] for n in trained))
    shuffled = random.sample(cases, len(cases))
    pd.testing.assert_frame_equal(make_splits(shuffled, FRACTIONS, seed), splits)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_each_class_is_spread_over_the_splits(data) -> None:
    count = data.draw(st.integers(60, 120))
    subjects = [(1, data.draw(st.frozensets(st.sampled_from(CLASSES)))) for _ in range(count)]
    cases = cases_of(subjects)
    having = {name: sum(name in found for _, found in subjects) for name in CLASSES}
    assume(min(having.values()) >= 20)
    splits = make_splits(cases, FRACTIONS, 0)
    found = {name: present for name, _, present in cases}
    for split, group in splits.groupby("split"):
        for name in CLASSES:
            got = sum(name in found[case] for case in group["case"])
            assert abs(got - FRACTIONS[split] * having[name]) <= 4


def test_another_seed_gives_other_splits() -> None:
    cases = cases_of([(1, frozenset("a"))] * 30)
    first, second = (make_splits(cases, FRACTIONS, seed)["split"] for seed in (0, 1))
    assert list(first) != list(second)


def test_few_subjects_still_give_each_split_one() -> None:
    cases = cases_of([(2, frozenset("a"))] * 4)
    fractions = {"train": 0.8, "validation": 0.1, "test": 0.1}
    splits = make_splits(cases, fractions, 0)
    assert splits.groupby("split")["subject"].nunique().to_dict() == {
        "train": 2,
        "validation": 1,
        "test": 1,
    }


def test_a_split_of_fraction_zero_gets_nobody() -> None:
    cases = cases_of([(1, frozenset("a"))] * 4)
    splits = make_splits(cases, {"train": 0.5, "validation": 0.5, "test": 0.0}, 0)
    assert set(splits["split"]) == {"train", "validation"}


@pytest.mark.parametrize(
    ("cases", "fractions", "classes", "said"),
    [
        (cases_of([(5, frozenset("a"))] * 2), FRACTIONS, (), "2 subjects, but train, validation"),
        (cases_of([(1, frozenset("a"))] * 9), {"train": 0.5, "test": 0.6}, (), "sum to 1"),
        (
            cases_of([(1, frozenset("a"))] * 9),
            FRACTIONS,
            "ab",
            "no training case has the class 'b'",
        ),
        (cases_of([(1, frozenset("a"))]) * 2, FRACTIONS, (), "'s00_0' is listed twice"),
    ],
)
def test_impossible_splits_are_refused(cases, fractions, classes, said) -> None:
    with pytest.raises(DataError, match=said):
        make_splits(cases, fractions, 0, classes)


@pytest.fixture
def prepared() -> Prepared:
    cases = tuple(
        PreparedCase(
            name=name,
            subject=subject,
            shape=(8, 8, 8),
            array_voxels={},
            file_shape=(8, 8, 8),
            spacing=(1.0, 1.0, 1.0),
            affine=((1.0, 0.0, 0.0, 0.0),) * 4,
            voxels={"background": 500, "a": 12 if "a" in found else 0},
            box=((0, 8),) * 3,
            image_sha256="",
            label_sha256="",
            dataset="toy",
            root=Path("x"),
            source=name,
        )
        for name, subject, found in cases_of([(2, frozenset("a"))] * 6)
    )
    return Prepared(
        root=Path("x"),
        name="toy",
        classes=("background", "a"),
        channels=("T1",),
        reference="",
        licence="",
        warnings=(),
        fingerprint={},
        choices=Choices(None, "none", ("percentiles",)),
        patch_voxels=0,
        cases=cases,
    )


def table(prepared: Prepared) -> pd.DataFrame:
    return make_splits([(c.name, c.subject, c.present) for c in prepared.cases], FRACTIONS, 0)


def test_our_own_splits_pass_the_check(prepared: Prepared) -> None:
    check_splits(table(prepared), prepared)


def test_each_fault_of_an_edited_table_is_named(prepared: Prepared) -> None:
    splits = table(prepared).set_index("case", drop=False)
    splits.loc["s00_1", "split"] = "test" if splits.loc["s00_0", "split"] != "test" else "train"
    splits.loc["s02_0", "subject"] = "s03"
    splits = splits.drop("s01_0")
    splits.loc["ghost"] = ["ghost", "ghost", "test"]
    splits = pd.concat([splits, splits.loc[["s04_0"]]])
    with pytest.raises(DataError) as caught:
        check_splits(splits, prepared)
    said = str(caught.value)
    assert "the subject 's00' is in " in said
    assert "the case 's02_0' belongs to 's02', not to 's03'" in said
    assert "the case 's01_0' is missing" in said
    assert "the case 'ghost' is not in the data set 'toy'" in said
    assert "the case 's04_0' is listed 2 times" in said


def test_a_table_without_training_of_a_class_or_without_a_column_is_refused(
    prepared: Prepared,
) -> None:
    with pytest.raises(DataError, match="the column 'split' is missing"):
        check_splits(table(prepared).drop(columns="split"), prepared)
    nobody = Prepared(**{**vars(prepared), "classes": ("background", "a", "b")})
    with pytest.raises(DataError, match="no training case has the class 'b'"):
        check_splits(table(prepared), nobody)
