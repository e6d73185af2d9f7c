"""What the page on defects says and draws: it follows its tables."""

from pathlib import Path

import pytest
import yaml

from tests.synthetic_experiment import raw_tables
from workflow.comparison import experiment as compare
from workflow.reporting import experiment as report
from workflow.reporting import experiment_published as published
from workflow.study import load

CONFIG = Path(__file__).parents[2] / "config" / "published.yaml"
PAIRS = ("jaccard", "published_iou", "combo", "published_combo", "dice", "published_dice_flat")


def write(folder, levels, *, losses=PAIRS, seeds=(1, 2, 3), drop=()):
    """A results folder whose mean Dice is .7 but where ``levels`` says otherwise."""
    study = load(CONFIG, {"losses": ["dice_ce", *losses], "seeds": list(seeds)})
    raw = raw_tables(study, lambda _arm, loss, _class: levels.get(loss, 0.7), spread=0.01)
    for name in ("runs", "cases"):
        raw[name] = raw[name][~raw[name]["loss"].isin(drop)]
    return keep(folder, study, raw)


def keep(folder, study, raw):
    compare.write(raw, folder / "tables", ".csv.gz")
    compare.write(compare.answers(study, raw), folder / "tables" / "answers", ".csv")
    config = study.model_dump(mode="json")
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    levels = {"published_iou": 0.5, "published_combo": 0.0}
    return write(tmp_path_factory.mktemp("results") / "published", levels)


def test_the_page_holds_figures_findings_and_tables(folder):
    page = report.build(folder).read_text(encoding="utf-8")
    for name in published.CHAPTER.figures:
        assert f'id="figure-{name}"' in page
        assert (folder / "figures" / f"{name}.png").stat().st_size > 10_000
    for heading in published.CHAPTER.shown.values():
        assert heading in page
    assert "pooling over the batch" in page


def everything(experiment) -> str:
    told = published.each(experiment).values()
    return " ".join([*published.said(experiment), *(" ".join(each) for each in told)])


def test_the_headline_counts_the_verdicts(folder):
    title = published.title(report.read(folder))
    assert title == (
        "Of 3 published losses, 1 breaks down, 1 scores separably lower and 1 costs nothing"
    )


def test_each_loss_has_a_sentence_with_its_mechanism(folder):
    told = published.each(report.read(folder))
    combo, iou, flat = told
    assert combo.startswith("Combo (published): breaks down, +0.7")
    assert iou.startswith("IoU (published): costs, +0.2")
    assert flat.startswith("Dice flat (published): equivalent, ")
    cost, mechanism = told[combo]
    assert cost.startswith("Combo (published) breaks down: corrected − published is +0.7")
    assert "collapse: of its 3 runs 3 total; at no seed do both hold" in cost
    assert "The sign is flipped" in mechanism
    cost = told[iou][0]
    assert "scores lower than Jaccard: corrected − published is +0.2" in cost
    assert "in the rarest class (separable)." in cost and "collapse" not in cost
    assert "costs nothing, being equivalent to Dice within ±0.02" in told[flat][0]
    page = report.build(folder).read_text(encoding="utf-8")
    assert all(f"<summary>{line}</summary>" in page for line in told)


def test_the_worst_comes_first_in_text_and_figure(folder):
    experiment = report.read(folder)
    order = ["published_combo", "published_iou", "published_dice_flat"]
    assert list(published.defects(experiment, "mean_dice").index) == order
    assert list(published.defects(experiment, "rarest_dice").index) == order
    axes = published.draw_cost(experiment).axes
    shown = [label.get_text() for label in axes[0].get_yticklabels()]
    assert shown == ["Combo (published)\n→ Combo", "IoU\n→ Jaccard", "Dice flat\n→ Dice"]
    assert "largest difference is that of Combo" in published.said(experiment)[1]


def test_the_text_flips_with_the_data(tmp_path):
    levels = {"jaccard": 0.5, "combo": 0.5, "dice": 0.5}
    experiment = report.read(write(tmp_path, levels))
    said = published.said(experiment)
    assert published.title(experiment) == (
        "Of 3 published losses, 3 score separably higher and for none is equivalence shown"
    )
    assert "IoU (published) scores higher than Jaccard" in everything(experiment)
    assert "No published loss scores lower than its correction." in said[1]
    assert published.classes_title(experiment).count("−0.2") == 3


def test_a_shard_tells_of_the_pairs_that_it_has(tmp_path):
    experiment = report.read(write(tmp_path, {"published_iou": 0.5}, seeds=[1], drop=["combo"]))
    said = everything(experiment)
    assert "1 of 3 pairs did not run" in said
    assert "With one seed" in said and "Combo (published)" not in said
    report.build(tmp_path)


def test_a_loss_without_scores_is_not_compared(tmp_path):
    study = load(CONFIG, {"losses": ["dice_ce", *PAIRS], "seeds": [1, 2, 3]})
    raw = raw_tables(study, lambda *_: 0.7, spread=0.01)
    failed = raw["runs"]["loss"] == "published_combo"
    raw["runs"].loc[failed, ["status", "collapse"]] = "failed", ""
    raw["cases"] = raw["cases"][raw["cases"]["loss"] != "published_combo"]
    experiment = report.read(keep(tmp_path, study, raw))
    combo = published.each(experiment)["Combo (published): undecided"][0]
    assert combo.startswith("Combo (published) cannot be compared with Combo: no seed has scores")
    assert "nan" not in everything(experiment)
    report.build(tmp_path)


def test_without_any_pair_the_page_says_so(tmp_path):
    experiment = report.read(write(tmp_path, {}, drop=["combo", "jaccard", "dice"]))
    assert published.said(experiment) == ["No published loss was trained beside its correction."]
    assert published.each(experiment) == {}
    assert report.build(tmp_path).is_file()


def test_collapsed_seeds_are_left_out_beside(tmp_path):
    folder = write(tmp_path, {"published_iou": 0.5})
    defects = report.read(folder).answers["defects"]
    twins = report.read(folder).answers["twins"]
    twins.loc[twins["published"] == "published_iou", ["published_none", "published_partial"]] = 2, 1
    iou = defects["published"] == "published_iou"
    defects.loc[iou, ["standing_seeds", "standing_difference"]] = 2, 0.123
    experiment = report.read(folder)
    experiment.answers |= {"defects": defects, "twins": twins}
    said = everything(experiment)
    assert "of its 3 runs 1 partial; where both hold (2 seeds) it is +0.123" in said
    labels = [text.get_text() for text in published.draw_cost(experiment).legends[0].get_texts()]
    assert "seeds at which both hold" in labels and "run: partial" in labels
