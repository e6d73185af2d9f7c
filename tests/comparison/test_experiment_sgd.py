"""Generalized Dice under SGD: verdicts, gradient ratios and the optimisers against hand counts."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.synthetic_experiment import raw_tables
from workflow.comparison import experiment, experiment_sgd, statistics
from workflow.comparison.agreement import agreement
from workflow.comparison.experiment_sgd import ALL, NOTHING, SOME, answers, role
from workflow.study import load

FILE = Path(__file__).parents[2] / "config" / "sgd.yaml"
LOSSES = ["dice_ce", "generalized_dice", "gdl_uniform"]
STUDY = load(FILE, {"losses": LOSSES})


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """The spread of tau from 20 draws: 2,000 would be most of these tests' time."""
    quick = functools.partial(agreement, resamples=20)
    monkeypatch.setattr(experiment_sgd, "agreement", quick)


def told(level, study=STUDY, norms=None, **options):
    """All answers to scores ``level(arm, loss, class)`` and gradient norms by loss."""
    raw = raw_tables(study, level, **options)
    if norms is not None:
        raw["curves"] = pd.concat([raw["curves"], _norms(raw["runs"], norms)])
    generic = experiment.answers(study.model_copy(update={"experiment": None}), raw)
    return answers(study, raw, generic), raw


def _norms(runs, norms):
    first = runs[["arm", "loss", "learning_rate", "seed"]].assign(
        split="train", quantity="gradient_norm", **{"class": ""}
    )
    values = [norms[row.loss] * row.seed for row in first.itertuples()]
    # what comes later is no start
    return pd.concat([first.assign(step=200, value=9.0), first.assign(step=100, value=values)])


def test_the_study_has_one_optimiser_an_arm_and_one_rate_for_all():
    study = load(FILE)
    arms = {
        name: (arm.training.optimizer, {arm.rate(label) for label in arm.losses})
        for name, arm in study.variants.items()
    }
    assert arms == {
        "rate=0.01": ("sgd", {"0.01"}),
        "rate=0.1": ("sgd", {"0.1"}),
        "adamw": ("adamw", {"0.003"}),
    }
    adamw, default = study.variants["adamw"].training, load(FILE.parent / "default.yaml").training
    assert adamw == default.model_copy(update={"signals_every": adamw.signals_every})


def test_an_arm_may_have_a_rate_for_each_loss():
    rates = {"dice_ce": 0.01, "generalized_dice": 0.003, "gdl_uniform": 0.001}
    study = load(FILE, {"losses": LOSSES, "arms": {"adamw": {"rates": rates}}})
    found, _ = told(lambda *_: 0.6, study, cases=4)
    adamw = found["verdicts"].set_index("arm").loc["adamw"]
    assert dict(zip(adamw["loss"], adamw["learning_rate"], strict=True)) == rates


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("dice_ce", "control"),
        ("dice", "control"),
        ("generalized_dice", "rule"),
        ("generalized_dice_ce", "compound"),
        ("published_generalized_dice_graph", "published"),
        ("historic_generalized_dice_odyssey_v2", "published"),
        ("published_dice_flat", "control"),
        ("my_loss.py:MyLoss", "control"),
    ],
)
def test_roles_come_from_the_catalogue(name, wanted):
    assert role(name) == wanted


def test_verdicts_are_nothing_some_and_all():
    levels = {"dice_ce": [0.6] * 3, "generalized_dice": [0.6, 0, 0.6], "gdl_uniform": [0.04, 0, 0]}
    order = ["edema", "necrotic core", "enhancing rim"]
    found, _ = told(lambda arm, loss, name: levels[loss][order.index(name)], cases=5, spread=0.0)
    table = found["verdicts"].set_index(["arm", "loss"])
    assert len(table) == 9
    for arm in STUDY.arms:
        assert list(table.loc[arm]["verdict"]) == [ALL, SOME, NOTHING]
        assert list(table.loc[arm]["collapsed_classes"]) == ["", order[1], ";".join(order)]
    row = table.loc["rate=0.1", "generalized_dice"]
    assert row["difference"] == pytest.approx(0.4 - 0.6)
    assert (row["optimizer"], row["learning_rate"], row["role"]) == ("sgd", 0.1, "rule")
    assert np.isnan(table.loc["adamw", "dice_ce"]["difference"])  # the reference itself


def test_a_class_lost_in_one_run_of_three_is_not_lost():
    study = load(FILE, {"losses": LOSSES, "arms": ["rate=0.1"]})
    raw = raw_tables(study, lambda *_: 0.6, cases=5, spread=0.0)
    cases = raw["cases"]
    one = (cases["loss"] == "gdl_uniform") & (cases["seed"] == 1) & (cases["class"] == "edema")
    cases.loc[one, "dice"] = 0.0
    found = experiment.answers(study, raw)["verdicts"].set_index("loss")
    assert found.at["gdl_uniform", "collapse_rate"] == pytest.approx(1 / 3)
    assert found.at["gdl_uniform", "verdict"] == ALL
    assert found.at["gdl_uniform", "collapsed_classes"] == ""


def test_gradients_are_compared_seed_by_seed_at_the_start():
    norms = {"dice_ce": 2.0, "generalized_dice": 0.05, "gdl_uniform": 0.5}
    found, raw = told(lambda *_: 0.6, norms=norms, cases=4)
    table = found["gradients"].set_index(["arm", "loss"])
    for loss, norm in norms.items():
        row = table.loc["rate=0.01", loss]
        assert row["norm"] == pytest.approx(2 * norm)  # times the seeds 1, 2, 3
        assert row["norm_ratio"] == pytest.approx(norm / 2)
    signals = raw["signals"]
    first = signals[(signals["step"] == 0) & (signals["arm"] == "adamw")]
    sums = (
        first.groupby(["loss", "seed"])[["gradient_inside", "gradient_outside"]].sum().sum(axis=1)
    )
    wanted = (sums["gdl_uniform"] / sums["dice_ce"]).median()
    assert table.loc[("adamw", "gdl_uniform"), "logits_ratio"] == pytest.approx(wanted)


def test_the_gradients_of_a_run_on_its_way_to_infinity_are_no_start():
    raw = raw_tables(STUDY, lambda *_: 0.6, cases=4)
    norms = {"dice_ce": 2.0, "generalized_dice": 0.05, "gdl_uniform": 0.5}
    raw["curves"] = pd.concat([raw["curves"], _norms(raw["runs"], norms)])
    lost = (raw["runs"]["arm"] == "rate=0.1") & (raw["runs"]["loss"] == "dice_ce")
    raw["runs"].loc[lost & (raw["runs"]["seed"] == 1), "status"] = "diverged"
    found = experiment_sgd._gradients(STUDY, raw).set_index(["arm", "loss"])
    assert found.loc[("rate=0.1", "dice_ce"), "norm"] == 2.5 * 2.0  # of seeds 2 and 3
    raw["runs"].loc[lost, "status"] = "diverged"
    found = experiment_sgd._gradients(STUDY, raw).set_index(["arm", "loss"])
    assert found.loc["rate=0.1", "norm_ratio"].isna().all()
    assert found.loc["rate=0.01", "norm_ratio"].notna().all()


def test_optimisers_are_compared_case_by_case():
    found, raw = told(lambda arm, loss, name: 0.6 if arm == "adamw" else 0.4, cases=6)
    table = found["optimisers"].set_index(["loss", "arm"])
    assert len(table) == 6 and set(table["against"]) == {"adamw"}
    by_case = raw["cases"].groupby(["arm", "loss", "seed", "case"])["dice"].mean().unstack()
    wanted = statistics.crossed_mean(
        (by_case.loc["rate=0.1", "dice_ce"] - by_case.loc["adamw", "dice_ce"]).to_numpy()
    )
    row = table.loc["dice_ce", "rate=0.1"]
    assert row[["difference", "low", "high", "p"]].tolist() == pytest.approx(
        [*wanted[:3], wanted.p]
    )
    assert table["p_holm"].tolist() == pytest.approx(list(statistics.holm(table["p"])))


def test_rankings_agree_or_are_reversed():
    order = {"dice_ce": 0.7, "generalized_dice": 0.5, "gdl_uniform": 0.3}
    found, _ = told(
        lambda arm, loss, name: 1 - order[loss] if arm == "rate=0.1" else order[loss],
        cases=4,
        spread=0.0,
    )
    taus = found["agreement"].set_index(["arm", "endpoint"])["kendall_tau"]
    assert taus["rate=0.01", "mean_dice"] == pytest.approx(1)
    assert taus["rate=0.1", "mean_dice"] == pytest.approx(-1)


def test_a_shard_without_adamw_or_without_the_signals_has_what_it_has():
    study = load(FILE, {"losses": ["dice_ce", "dice"], "arms": ["rate=0.1"], "seeds": [1]})
    raw = raw_tables(study, lambda *_: 0.6, cases=4)
    del raw["signals"]
    found = experiment.answers(study, raw)
    assert found["optimisers"].empty and found["agreement"].empty
    assert list(found["verdicts"]["verdict"]) == [ALL, ALL]
    assert found["gradients"]["norm_ratio"].isna().all()
