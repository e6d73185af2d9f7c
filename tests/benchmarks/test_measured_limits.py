"""What docs/faults.md and docs/promises.md quote is counted rightly."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import determinism, evidence
from workflow import files


@pytest.fixture(scope="module")
def cases():
    return evidence.phantom({"shape": (24, 28, 24), "spacing": 8.0}, cases=8)


def test_each_label_is_damaged_once_and_most_are_told(cases):
    row = evidence.measure(cases)
    assert row["cases"] == row["flipped"] == 8
    assert 8 <= row["exchanged"] <= 2 * 8
    assert row["suspected"] == 0
    assert row["flipped_told"] >= 4
    assert row["exchanged_told"] >= 4


def test_damaged_labels_are_those_of_the_mirror_and_of_another_case(cases):
    flipped = evidence.flipped(cases, [0, 3])
    assert list(flipped) == [0, 3]
    assert np.array_equal(flipped[3][::-1], cases[3].label)
    exchanged = evidence.exchanged(cases, [0, 7])
    assert set(exchanged) == {0, 1, 7, 2}
    assert exchanged[0] is cases[1].label
    assert exchanged[1] is cases[0].label


def test_cases_of_another_shape_are_not_exchanged(cases):
    cut = [case._replace(label=case.label[: 24 - k]) for k, case in enumerate(cases[:2])]
    assert evidence.exchanged(cut, [0, 1]) == {}


def test_the_committed_table_is_of_every_phantom():
    table = files.read_table(evidence.TABLE)
    assert table["data"].tolist() == list(evidence.PHANTOMS)
    assert (table["cases"] == evidence.CASES).all()


def test_differences_of_a_run_and_itself_are_none(tmp_path):
    for name, shift in (("a", 0.0), ("b", 0.0), ("c", 0.1)):
        curve = pd.DataFrame(
            {"step": [0, 20, 120], "split": "validation", "quantity": "loss", "value": 1.0 + shift}
        )
        cases = pd.DataFrame(
            {"checkpoint": "best", "case": ["x", "x", "y"], "class": ["1", "2", "1"],
             "dice": [0.5 + shift, np.nan, 0.5 - shift]}
        )  # fmt: skip
        files.write_table(tmp_path / name / "curve.csv", curve)
        files.write_table(tmp_path / name / "cases.csv", cases)
        files.write_arrays(tmp_path / name / "predictions.npz", {"x": np.zeros(3)})
    same = determinism.differences(tmp_path / "a", tmp_path / "b")
    assert same.pop("identical")
    assert set(same.values()) == {0}
    other = determinism.differences(tmp_path / "a", tmp_path / "c")
    assert not other["identical"]
    assert other["loss_at_20"] == other["loss_at_120"] == pytest.approx(0.1)
    assert other["dice_mean"] == other["dice_most"] == pytest.approx(0.1)
    assert other["dice_of_the_run"] == pytest.approx(0)


def test_the_docs_quote_the_differences():
    table = files.read_table(determinism.TABLE)
    text = (determinism.TABLE.parent.parent / "docs" / "promises.md").read_text()
    for _, row in table[~table["identical"]].iterrows():
        numbers = (f"{row[name]:.3f}"[1:] for name in ("dice_mean", "dice_most", "dice_of_the_run"))
        assert f"| {row['against']} | {' | '.join(numbers)} |" in text
    assert set(table["against"]) == set(determinism.VARIANTS) - {determinism.FIRST}
    assert bool(table.set_index("against").loc["the same again", "identical"])


def test_the_docs_quote_the_table():
    table = files.read_table(evidence.TABLE).set_index("data")
    text = " ".join((evidence.TABLE.parent.parent / "docs" / "faults.md").read_text().split())
    total = table.sum()
    unseen = table.loc[["tiny lesions", "fainter", "hardly visible"]].sum()
    seen = total - unseen
    assert total["suspected"] == total["flipped_beside"] == total["exchanged_beside"] == 0
    assert f"None of {total['cases']} sound labels was suspected" in text
    assert f"{total['flipped_told']} of {total['flipped']} labels mirrored left-right" in text
    assert f"{total['exchanged_told']} of {total['exchanged']} exchanged ones" in text
    shares = [f"{seen[f'{kind}_told'] / seen[kind]:.0%}" for kind in ("flipped", "exchanged")]
    assert f"{shares[0]} and {shares[1]}".replace("%", " %") in text
    assert f"in the other three {unseen['flipped_told'] / unseen['flipped']:.0%} and none".replace(
        "%", " %"
    ) in text  # fmt: skip
    assert unseen["exchanged_told"] == 0
