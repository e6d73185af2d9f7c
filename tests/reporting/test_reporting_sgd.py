"""The page on SGD: the Loss Odyssey's own loss fails or not, as its tables have it."""

import functools
from pathlib import Path

import pandas as pd
import pytest

from tests.synthetic_experiment import raw_tables
from workflow.comparison import experiment as comparison
from workflow.comparison import experiment_sgd
from workflow.comparison.agreement import agreement
from workflow.reporting import experiment as reporting
from workflow.reporting import experiment_sgd as page
from workflow.reporting.experiment_sgd import (
    CHAPTER,
    draw_classes,
    draw_gradients,
    gradient_title,
    rescue_title,
    verdict_title,
)
from workflow.study import load

FILE = Path(__file__).parents[2] / "config" / "sgd.yaml"
LOSSES = ["dice_ce", page.ODYSSEY, "gdl_batch", "generalized_dice_ce"]


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """The spread of tau from 20 draws: 2,000 would be most of these tests' time."""
    quick = functools.partial(agreement, resamples=20)
    monkeypatch.setattr(experiment_sgd, "agreement", quick)


def write(folder, scores, *, losses=LOSSES, arms=None, norms=None, **options):
    """An experiment whose losses score what ``scores`` says: {loss: Dice} or {(arm, loss): Dice}.

    A pair is the Dice of edema and of the other classes.
    """
    overrides = {"losses": losses} | ({"arms": arms} if arms else {})
    study = load(FILE, overrides | options.pop("changes", {}))

    def level(arm, loss, name):
        value = scores.get((arm, loss), scores.get(loss, 0.6))
        if isinstance(value, tuple):
            return value[name != "edema"]
        return value

    raw = raw_tables(study, level, **({"cases": 6, "spread": 0.02} | options))
    if norms:
        first = raw["runs"][["arm", "loss", "learning_rate", "seed"]].assign(
            step=100, split="train", quantity="gradient_norm", **{"class": ""}
        )
        first["value"] = [norms.get(loss, 1.0) for loss in first["loss"]]
        raw["curves"] = pd.concat([raw["curves"], first], ignore_index=True)
    comparison.write(raw, folder / "tables", ".csv.gz")
    comparison.write(comparison.answers(study, raw), folder / "tables" / "answers", ".csv")
    (folder / "config.yaml").write_text(study.as_yaml())
    return reporting.read(folder)


def test_both_sides_call_a_verdict_the_same():
    ours = {page.NOTHING, page.SOME, page.ALL}
    assert ours == {experiment_sgd.NOTHING, experiment_sgd.SOME, experiment_sgd.ALL}


def test_the_page_has_every_figure_and_sentence(tmp_path):
    found = write(tmp_path, {page.ODYSSEY: 0.0}, norms={page.ODYSSEY: 0.02})
    text = reporting.build(tmp_path).read_text()
    for name in CHAPTER.figures:
        assert f'id="figure-{name}"' in text
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 10_000
    assert set(CHAPTER.captions) == set(CHAPTER.figures)
    assert set(CHAPTER.shown) <= set(found.answers)
    assert "nan" not in " ".join(CHAPTER.said(found))


OWN = "The Loss Odyssey's own Generalized Dice scores"


def test_it_is_reproduced_at_one_rate_and_the_weight_rule_keeps_every_class(tmp_path):
    found = write(tmp_path, {("rate=0.01", page.ODYSSEY): 0.0}, spread=0.0)
    assert verdict_title(found) == (
        f"{OWN} 0.00 with SGD at 0.01, 0.60 with SGD at 0.1 and 0.60 with AdamW at 0.003: its "
        "0.013, published with Adam, is reproduced with SGD at 0.01"
    )
    said = CHAPTER.said(found)
    assert rescue_title(found, "rate=0.01") == (
        "With SGD at 0.01, where forms of Generalized Dice learn nothing, every class is kept by "
        "the weight rule alone (GDL batch) and a cross-entropy term (Generalized Dice CE)"
    )
    assert sum("every class is kept by" in sentence for sentence in said) == 1
    assert any("scores 0.00 [0.00, 0.00] with SGD at 0.01" in sentence for sentence in said)
    found = write(tmp_path / "both", {page.ODYSSEY: 0.0})
    assert verdict_title(found).endswith(
        "with AdamW at 0.003: its 0.013, published with Adam, is reproduced"
    )


def test_other_forms_that_fail_reproduce_nothing(tmp_path):
    found = write(tmp_path, {page.ODYSSEY: 0.2, "gdl_batch": 0.0}, spread=0.0)
    assert verdict_title(found) == (
        f"{OWN} 0.20 with SGD at 0.01, 0.20 with SGD at 0.1 and 0.20 with AdamW at 0.003: its "
        "0.013, published with Adam, is not reproduced; under SGD 1 of 1 other form learns nothing"
    )


def test_nothing_fails(tmp_path):
    found = write(tmp_path, {("rate=0.1", "gdl_batch"): 0.3})
    assert verdict_title(found).endswith("its 0.013, published with Adam, is not reproduced")
    assert not any("every class is kept by" in sentence for sentence in CHAPTER.said(found))


def test_the_published_score_is_that_which_the_paper_quotes(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "quoted", {"odyssey_gdl": 0.1234, "odyssey_dice": 0.8}.get)
    found = write(tmp_path, {})
    assert "its 0.123, published with Adam, is not reproduced" in verdict_title(found)
    assert any(
        "task, with Adam: 0.123, and 0.800 for Dice" in sentence for sentence in CHAPTER.said(found)
    )


def test_a_score_near_zero_that_may_be_chance_is_no_finding(tmp_path):
    found = write(tmp_path, {})
    outcomes = found.answers["verdicts"].set_index(["arm", "loss"])
    outcomes["p_holm"] = 1.0
    outcomes.loc[(slice(None), "dice_ce"), "verdict"] = page.SOME
    outcomes.loc[(slice(None), "dice_ce"), "collapsed_classes"] = "edema;enhancing rim"
    outcomes.loc[(slice(None), page.ODYSSEY), ["mean_dice", "verdict"]] = (0.01, page.NOTHING)
    found.answers["verdicts"] = outcomes.reset_index()
    assert verdict_title(found).endswith(
        ": its 0.013, published with Adam, is not shown to be reproduced"
    )
    said = CHAPTER.said(found)
    assert any("and loses edema and enhancing rim; of 2 Generalized" in s for s in said)
    assert not any("every class is kept by" in sentence for sentence in said)


def test_a_failure_under_adamw_alone_is_named_so(tmp_path):
    found = write(tmp_path, {("adamw", page.ODYSSEY): 0.0, ("adamw", "gdl_batch"): 0.0})
    assert verdict_title(found).endswith("published with Adam, is reproduced with AdamW at 0.003")


def test_a_rule_that_loses_a_class_keeps_not_every_class(tmp_path):
    found = write(tmp_path, {page.ODYSSEY: 0.0, "gdl_batch": (0.6, 0.0)})
    assert rescue_title(found, "rate=0.1").endswith(
        "every class is kept by a cross-entropy term (Generalized Dice CE)"
    )
    found = write(tmp_path / "none", {loss: 0.0 for loss in LOSSES[1:]})
    assert rescue_title(found, "rate=0.1").endswith("none that was tried keeps every class")


def test_a_reference_that_learns_nothing_leaves_the_question_open(tmp_path):
    found = write(tmp_path, {"dice_ce": 0.0, page.ODYSSEY: 0.0})
    assert "is open" in verdict_title(found)
    assert not any("every class is kept by" in sentence for sentence in CHAPTER.said(found))
    assert any(
        "Dice CE scores 0.00 [0.00, 0.00] and learns nothing" in s for s in CHAPTER.said(found)
    )


@pytest.mark.parametrize(("norm", "words"), [(0.02, "is 0.02 times"), (3.0, "is 3 times")])
def test_gradient_norms_are_told_as_they_are(tmp_path, norm, words):
    found = write(tmp_path, {}, norms={page.ODYSSEY: norm, "gdl_batch": norm})
    assert words in gradient_title(found) and "that of Dice CE" in gradient_title(found)


def test_optimisers_are_told_in_the_direction_they_have(tmp_path):
    worse = write(tmp_path, {("adamw", loss): 0.8 for loss in LOSSES}, spread=0.01)
    assert any("SGD at 0.1 is separably worse for 4 and better for 0 of 4 losses" in sentence
               for sentence in CHAPTER.said(worse))  # fmt: skip
    better = write(tmp_path / "b", {("adamw", loss): 0.4 for loss in LOSSES}, spread=0.01)
    assert any("separably worse for 0 and better for 4 of 4" in s for s in CHAPTER.said(better))


@pytest.mark.parametrize(
    ("losses", "arms", "seeds"),
    [
        (["dice_ce"], ["rate=0.1"], [1]),
        (["dice_ce", "gdl_uniform"], ["adamw"], [1, 2]),
        (["dice_ce", "gdl_uniform"], ["rate=0.01"], [1]),
    ],
)
def test_a_shard_is_told_as_far_as_it_goes(tmp_path, losses, arms, seeds):
    found = write(tmp_path, {}, losses=losses, arms=arms, changes={"seeds": seeds})
    said = CHAPTER.said(found)
    assert all(said) and "nan" not in " ".join(said)
    assert (len(seeds) == 1) == any("There is one seed" in sentence for sentence in said)
    assert len(draw_classes(found).axes) == 1
    assert len(draw_gradients(found).axes) == 1
    assert "Outcomes" in reporting.build(tmp_path).read_text()


def test_crosses_mark_the_classes_lost(tmp_path):
    found = write(tmp_path, {"gdl_batch": (0.6, 0.0)})
    for axis in draw_classes(found).axes:
        crosses = [line for line in axis.lines if line.get_marker() == "X"]
        assert len(crosses) == 2
        # and the names of the losses stay readable
        assert axis.get_xlim()[0] < min(line.get_xdata()[0] for line in crosses)
