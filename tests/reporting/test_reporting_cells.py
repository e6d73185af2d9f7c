"""Tables as people read them."""

import math

import pandas as pd

from workflow.reporting.cells import WIDEST, columns

NAN = math.nan


def shown(losses=(), **table):
    """Heading -> texts."""
    found = columns(pd.DataFrame(table), losses)
    return {column.heading: [cell.text for cell in column.cells] for column in found}


def test_an_interval_joins_its_estimate_whatever_its_ends_are_called():
    assert shown(
        mean_dice=[0.5, NAN], mean_dice_low=[0.41, NAN], mean_dice_high=[0.6, NAN],
        verdict=["costs", ""],
        difference=[0.1, -0.25], low=[-0.0, NAN], high=[0.2, NAN],
        lost_share=[0.333, 1.0], lost_low=[0.1, 0.4], lost_high=[0.7, 1.0],
    ) == {
        "mean Dice": ["0.500 [0.410, 0.600]", "–"],
        "verdict": ["costs", "–"],
        "difference": ["+0.100 [0.000, +0.200]", "−0.250"],
        "lost share": ["0.333 [0.100, 0.700]", "1.000 [0.400, 1.000]"],
    }  # fmt: skip


def test_what_does_not_lie_in_an_interval_is_not_given_it():
    headings = shown(learnt_every=[3, 2], low=[0.2, 0.1], high=[0.9, 0.8])
    assert headings == {
        "learnt every": ["3", "2"],
        "low": ["0.2", "0.1"],
        "high": ["0.9", "0.8"],
    }


def test_an_end_that_was_rounded_apart_from_its_estimate_is_an_end():
    assert list(shown(share=[0.3333], low=[0.1], high=[0.333])) == ["share"]


def test_losses_have_names_and_other_words_stay_what_they_are():
    found = shown({"dice_ce"}, loss=["dice_ce"], against=["rate=0.01"], name=["dice_ce_2"])
    assert found == {"loss": ["Dice CE"], "against": ["rate=0.01"], "name": ["dice_ce_2"]}


def test_numbers_keep_their_kind():
    assert shown(
        p=[0.00001, 0.04], p_holm=[NAN, 1.0], seeds=[3, 10], rate=[0.0333, 3e-5],
        volume=[12345.6, 4.0], difference=[-0.0001, 200.0], works=[True, False],
    ) == {
        "p": ["< 0.001", "0.040"],
        "p (Holm)": ["–", "1.000"],
        "seeds": ["3", "10"],
        "rate": ["0.0333", "3e−05"],
        "volume": ["12346", "4"],
        "difference": ["0.000", "+200"],
        "works": ["yes", "no"],
    }  # fmt: skip


def test_columns_are_sorted_by_their_numbers_and_not_by_their_text():
    p, loss = columns(pd.DataFrame({"p": [1e-9, NAN], "loss": ["a", "b"]}), ())
    assert p.numeric and [cell.sort for cell in p.cells] == ["1e-09", ""]
    assert not loss.numeric and [cell.sort for cell in loss.cells] == ["", ""]


def test_keys_of_a_study_are_what_one_has_to_write():
    table = {"training.batch_size": [1, 2], "mean_dice": [0.5, 0.6]}
    assert list(shown(**table)) == ["training.batch_size", "mean Dice"]


def test_a_table_without_a_row_has_its_headings():
    assert shown(loss=[], difference=[], low=[], high=[]) == {"loss": [], "difference": []}


def test_of_a_wide_table_what_tells_least_waits_until_it_is_asked_for():
    narrow = {f"number_{i}": [i, 99] for i in range(WIDEST - 3)} | {"seeds": [3, 4]}
    kept = {"arm": ["a", "a"]} | narrow | {"verdict": ["costs", "gains"]}
    assert not any(column.more for column in columns(pd.DataFrame(kept), ()))
    wide = pd.DataFrame(kept | {
        "phase": ["late", "late"], "difference": [0.1, 0.2], "low": [0.0, 0.1], "high": [0.2, 0.3],
        "p": [0.1, 0.2], "number_last": [1, 2],
    })  # fmt: skip
    found = columns(wide, ())
    shown = [column.heading for column in found if not column.more]
    assert len(shown) == WIDEST and shown[0] == "arm"  # which names the row, though all are alike
    assert {"verdict", "difference"} <= set(shown)
    assert [column.heading for column in found if column.more] == [
        "seeds", "phase", "p", "number last"
    ]  # fmt: skip
