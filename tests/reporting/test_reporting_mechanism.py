"""What the page of the experiment ``mechanism`` says flips when its tables do."""

import functools
import html
from pathlib import Path

import pandas as pd
import pytest
import yaml
from synthetic_experiment import raw_tables

from workflow import study as studies
from workflow.comparison import experiment as tables
from workflow.reporting import experiment as reports
from workflow.reporting import experiment_mechanism as mechanism
from workflow.reporting.experiment import Experiment
from workflow.reporting.mechanism import (
    rescue_title,
    rules_title,
    support,
    traces_title,
    weights_title,
)

ROOT = Path(__file__).parents[2]
LOSSES = [
    "dice", "published_generalized_dice_graph", "published_generalized_dice_written",
    "generalized_dice", "dice_ce", "generalized_dice_ce",
]  # fmt: skip
FIGURES = {"rules", "weights", "traces", "rescue"}


def helped(arm, loss, name):
    """Generalized Dice loses the rim unless it has a CE term and the output bias."""
    rescued = loss.endswith("_ce") and arm == "families+bias"
    return 0.5 if loss in ("dice", "dice_ce") or rescued or name == "edema" else 0.0


def all_learnt(arm, loss, name):
    return 0.5


def none_learnt(arm, loss, name):
    return 0.0


@functools.cache
def experiment(level=helped, **overrides):
    path = ROOT / "config" / "mechanism.yaml"
    known = yaml.safe_load(path.read_text())["losses"]
    keys = {"rates": dict.fromkeys(known, 0.003), "losses": LOSSES, "seeds": [1, 2, 3]}
    study = studies.load(path, keys | {key: list(value) for key, value in overrides.items()})
    raw = raw_tables(study, level)
    return Experiment("mechanism", yaml.safe_load(study.as_yaml()), {}, raw,
                      tables.answers(study, raw))  # fmt: skip


def changed(known, name, **columns):
    """The experiment with columns of one answer replaced."""
    answers = known.answers | {name: known.answers[name].assign(**columns)}
    return Experiment(known.name, known.config, {}, known.raw, answers)


def text(known):
    return "\n".join(mechanism.said(known))


def write(known, folder):
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(known.config))
    tables.write(known.raw, folder / "tables", ".csv.gz")
    tables.write(known.answers, folder / "tables" / "answers", ".csv")
    return folder


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"arms": ("rate=0.001",), "seeds": (1,)},
        {"arms": ("families", "families+bias"), "seeds": (1,)},
        {"arms": ("tuned",), "losses": ("dice",)},
    ],
    ids=["all", "rate", "families", "control"],
)
def test_the_page_has_every_figure_also_of_a_shard(overrides, tmp_path):
    known = experiment(**overrides)
    folder = write(known, tmp_path / "mechanism")
    page = html.unescape(reports.build(folder).read_text())
    assert set(mechanism.CHAPTER.figures) == set(mechanism.CHAPTER.captions) == FIGURES
    for name in FIGURES:
        assert f'id="figure-{name}"' in page
        assert (folder / "figures" / f"{name}.png").stat().st_size > 1000
    for title in mechanism.CHAPTER.shown.values():
        heading, _, rest = title.partition(": ")  # what follows stands below the heading
        assert f"<h2>{heading}</h2>" in page
        assert rest[1:] in page
    rates = mechanism.CHAPTER.captions["rules"](known)
    assert ("one rate for all" in rates) == any(arm.startswith("rate=") for arm in known.arms)
    # what is told from files is what is told from tables
    assert mechanism.said(reports.read(folder)) == mechanism.said(known)
    assert "nan" not in text(known)


def test_the_verdict_follows_the_runs():
    told = text(experiment())
    assert "Of 3 rules of Generalized Dice, each at its tuned learning rate, none learns" in told
    assert "none does in any" in told
    assert "a ratio for each class, learns every class in 3 of 3 seeds." in told
    assert "Generalized Dice CE with output bias (3 of 3 seeds, [0.44, 1.00])" in told
    assert rules_title(experiment()).startswith("None of 3 rules")
    told = text(experiment(all_learnt))
    assert "3 learn every foreground class in most seeds: Generalized Dice graph" in told
    assert rules_title(experiment(all_learnt)).startswith("3 of 3 rules")
    told = text(experiment(none_learnt))
    assert "none of 3 combinations with Generalized Dice learns every class in most seeds." in told
    assert "learns every class in 0 of 3 seeds." in told


def test_each_class_is_told_with_the_rules_that_learn_it():
    told = text(experiment())
    assert "edema by all; necrotic core, the rarest in training, by none;" in told
    assert "(0.001, 0.003 and 0.01): every class is learnt in most seeds by none" in told
    told = text(experiment(all_learnt))
    assert "Generalized Dice (0.001, 0.003 and 0.01)" in told


def test_discarded_updates_are_named_only_where_there_are_some():
    known = experiment()
    assert "Every update was effective with every loss." in text(known)
    updates = known.answers["updates"]
    hit = (updates["loss"] == "published_generalized_dice_written") & (
        updates["class"] == "every class"
    )
    known = changed(
        known, "updates", effective=updates["effective"].mask(hit, 0.8),
        incomplete=updates["incomplete"].mask(hit, 2e-9),
    )  # fmt: skip
    told = text(known)
    assert (
        "Not every update was effective with Generalized Dice written (published) (80 %; 2e-09 of "
        "it): in brackets the share that was, and how much of its usual gradient a loss had in "
        "batches that lack a class. The other 3 losses used every" in told
    )
    assert weights_title(known) == (
        "A batch that lacks a class leaves Generalized Dice written (published) 2e-09 of its usual "
        "gradient"
    )
    assert "about as much" in weights_title(changed(known, "updates", incomplete=1.0))


def test_the_identity_is_claimed_only_where_it_holds():
    known = experiment()
    name = "Generalized Dice graph (published)"
    assert f"{name} is 1 \u2212 mean probability of the true class" in text(known)
    known = changed(known, "identity", largest_difference=0.02)
    assert f"{name} is not 1 \u2212 mean probability" in text(known)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        ((0.6, 0.7), (0.8, 0.9), "supported across losses, but not within one"),
        (
            (0.6, 0.4),
            (0.8, 0.9),
            "supported across losses for necrotic core only, but not within one",
        ),
        ((0.4, 0.3), (0.8, 0.9), "not supported"),
        ((0.1, 0.2), (0.3, 0.4), "contradicted"),
        ((None, None), (None, None), "not testable with so few losses"),
    ],
)
def test_the_hypothesis_stands_and_falls_with_its_interval(low, high, verdict):
    known = experiment()
    rows = [
        {"output_bias": bias, "class": name, "predictor": "lowest_slope", "compared": "all runs",
         "lost": 9, "learnt": 9, "groups": 9, "auc": 0.5, "low": below, "high": above}
        for bias in (False, True)
        for name, below, above in zip(known.classes[1:], low, high, strict=True)
    ]  # fmt: skip
    frame = pd.DataFrame(rows).astype({"low": float, "high": float})
    answers = known.answers | {"prediction": frame}
    known = Experiment(known.name, known.config, {}, known.raw, answers)
    assert support(known).startswith(verdict)
    assert f"it is {verdict}" in text(known)
    assert traces_title(known).startswith(f"Saturation hypothesis {verdict}")


@pytest.mark.parametrize(
    ("within", "words"),
    [
        ((0.6, 0.6), "supported across losses and within one"),
        ((0.6, 0.4), "supported across losses, within one for necrotic core only"),
        ((0.6, None), "supported across losses, within one for necrotic core only"),
        ((None, 0.2), "supported across losses, but not within one"),
    ],
)
def test_losses_that_differ_do_not_stand_for_runs_of_one_loss(within, words):
    """The same slopes among all runs; what runs of one loss say decides the rest of the verdict."""
    known = experiment()
    rows = [
        {"output_bias": False, "class": name, "predictor": "lowest_slope", "compared": compared,
         "lost": 9, "learnt": 9, "groups": 3, "auc": 0.7, "low": low, "high": 0.9}
        for compared, lows in (("all runs", (0.6, 0.6)), ("same loss", within))
        for name, low in zip(known.classes[1:], lows, strict=True)
    ]  # fmt: skip
    frame = pd.DataFrame(rows).astype({"low": float, "high": float})
    known = Experiment(
        known.name, known.config, {}, known.raw, known.answers | {"prediction": frame}
    )
    assert support(known) == words
    assert ("(3 losses)" in text(known)) == (None in within)


def test_without_a_class_both_lost_and_learnt_nothing_is_tested():
    known = experiment(all_learnt)
    assert support(known) == ""
    assert "Hypothesis" not in text(known)
    assert "no class was learnt in some runs and lost in others" in traces_title(known)


def test_rescue_names_what_gains_separably_and_its_slope():
    known = experiment()
    told = text(known)
    assert "enhancing rim under Generalized Dice (CE and bias, 0 \u2192 3 of 3)" in told
    assert "ways to rescue Generalized Dice" in rescue_title(known)
    assert "Generalized Dice + CE and bias (0 \u2192 3 of 3)" in rescue_title(known)
    assert "Generalized Dice + bias" not in rescue_title(known)
    nothing = rescue_title(changed(known, "rescue", learnt=0))
    assert nothing.startswith("None of ")
    assert "0 \u2192 0 of 3" in nothing
    raised = changed(known, "rescue", lowest_slope=0.2, lowest_slope_plain=0.1)
    assert "In 2 of these 2 the lowest slope" in text(raised)
    sunk = changed(known, "rescue", lowest_slope=0.1, lowest_slope_plain=0.2)
    assert "In 0 of these 2 the lowest slope" in text(sunk)
    assert "makes a rare class gain separably" in text(changed(known, "rescue", p_holm=1.0))


def test_saturated_classes_that_come_back_are_counted_by_family():
    known = experiment()
    assert "No rare class was saturated" in text(known)
    assert (
        "from the usual start, 0 of 54 for Generalized Dice (one ratio for all classes), "
        "0 of 6 for Generalized Dice with CE and 18 of 18 for Dice and Tversky"
    ) in text(changed(known, "early", saturated=True))


def test_saturation_is_counted_for_lost_and_learnt_classes():
    known = experiment()
    early = known.answers["early"]
    known = changed(known, "early", saturated=~early["learnt"])
    told = text(known)
    assert "first 200 steps: 60 of 60 that were lost in the end and 0 of 24 that" in told
    assert "Of those lost, 60 were never found at a validation" in told
    seen = early["last_found"].where(early["loss"] != "generalized_dice", 300.0)
    assert "18 had been found at some." in text(changed(known, "early", last_found=seen))
