"""What the pages on absence and imbalance say and draw: they follow their tables."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.synthetic_experiment import raw_tables
from workflow.comparison import experiment as compare
from workflow.reporting import experiment as report
from workflow.reporting import experiment_absence as absence
from workflow.reporting import experiment_imbalance as imbalance
from workflow.study import load

CONFIG = Path(__file__).parents[2] / "config"
POOLED = "published_generalized_dice_written"
CORES = [
    "core=0.25,batch=1", "core=0.25,batch=4", "core=1,batch=1", "core=1,batch=4",
    "core=1,batch=1,steps=800", "core=1,batch=4,steps=200",
]  # fmt: skip
VOLUMES = [f"volume={v},centred={share}" for v in ("300", "30", "3") for share in ("0", "2of3")]


def write(folder, name, level, *, arms, losses, seeds=(1, 2, 3), change=lambda raw: raw):
    """A results folder of some arms of an experiment, as the commands leave it."""
    chosen = {"arms": list(arms), "losses": ["dice_ce", *losses], "seeds": list(seeds)}
    study = load(CONFIG / f"{name}.yaml", chosen)
    raw = change(raw_tables(study, level, cases=5, spread=0.01))
    compare.write(raw, folder / "tables", ".csv.gz")
    compare.write(compare.answers(study, raw), folder / "tables" / "answers", ".csv")
    config = yaml.safe_dump(study.model_dump(mode="json"))
    (folder / "config.yaml").write_text(config, encoding="utf-8")
    return folder


def discarded(raw):
    """Batches without every class have no gradient for the pooled loss."""
    step = ["arm", "loss", "seed", "step"]
    gone = raw["signals"].groupby(step)["images"].transform("min") == 0
    gone &= raw["signals"]["loss"] == POOLED
    raw["signals"].loc[gone, ["gradient_inside", "gradient_outside"]] *= 1e-6
    return raw


def falls(arm, loss, name):
    share = {(True, True): 0.53, (True, False): 0.12, (False, True): 0.98, (False, False): 0.49}
    return 0.6 * share["core=0.25" in arm, "batch=4" in arm] if loss == POOLED else 0.6


def stays(arm, loss, name):
    return 0.6


def shrinks(arm, loss, name):
    """Without centred patches Dice loses the core from 30 ml on; focal loses it always."""
    lost = {"dice": ("volume=30,centred=0", "volume=3,centred=0"), "focal": VOLUMES}
    core = name == "necrotic core"
    return 0.0 if core and arm in lost.get(loss, ()) else 0.6


@pytest.fixture(scope="module")
def absence_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "absence"
    return write(folder, "absence", falls, arms=CORES, losses=["dice", POOLED], change=discarded)


@pytest.fixture(scope="module")
def imbalance_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "imbalance"
    return write(folder, "imbalance", shrinks, arms=VOLUMES, losses=["dice", "focal"])


@pytest.mark.parametrize("name", ["absence", "imbalance"])
def test_the_page_holds_figures_findings_and_tables(name, request):
    folder = request.getfixturevalue(f"{name}_folder")
    page = report.build(folder).read_text(encoding="utf-8")
    chapter = {"absence": absence, "imbalance": imbalance}[name].CHAPTER
    assert chapter.figures.keys() == chapter.captions.keys()
    for figure in chapter.figures:
        assert f'id="figure-{figure}"' in page
        assert (folder / "figures" / f"{figure}.png").stat().st_size > 8_000
    for heading in chapter.shown.values():
        assert heading in page
    assert "nan" not in " ".join(chapter.said(report.read(folder)))


def test_absence_tells_the_follower_from_the_others(absence_folder):
    experiment = report.read(absence_folder)
    assert absence.title(experiment, "rarest") == (
        "Dice of the necrotic core: 1 of 3 losses falls as predicted and 2 keep the score"
    )
    prediction, updates, rarest, others, *_ = absence.said(experiment)
    assert "pools the batch (Generalized Dice written (published) here)" in prediction
    assert "in 25 % of the training cases" in prediction
    assert "Generalized Dice written (published) moves at the predicted steps" in updates
    assert "Dice CE and Dice move at nearly every step" in updates
    assert "Generalized Dice written (published) falls as predicted" in rarest
    assert "Dice CE and Dice keep the score" in others
    assert "as many training cases in every arm" in others


def test_absence_says_the_opposite_of_the_opposite_data(tmp_path):
    folder = write(tmp_path / "a", "absence", stays, arms=CORES, losses=["dice", POOLED])
    experiment = report.read(folder)
    assert absence.title(experiment, "rarest").endswith(": 3 of 3 losses keep the score")
    assert absence.title(experiment, "updates").endswith("move at nearly every step")
    assert "No loss loses the necrotic core" in absence.said(experiment)[-1]


def test_absence_sums_up_what_batches_change(absence_folder):
    experiment = report.read(absence_folder)
    (sentence,) = (s for s in absence.said(experiment) if s.startswith("Batches of 4 instead of 1"))
    # 25 % was not run at equal samples
    assert "with it in 100 % of the subjects" in sentence
    table = experiment.answers["batches"].query("prevalence == 1")
    for budget, its in table.groupby("budget"):
        middle = absence.signed(its["difference"].median())
        assert f"at equal {budget} by {middle}" in sentence
        assert f"of {len(its)} differences" in sentence


def test_every_difference_between_batches_lies_in_its_panel(absence_folder):
    """The panels share an axis: the last one must not cut it for the others."""
    experiment = report.read(absence_folder)
    whole = experiment.answers["batches"].query("prevalence == 1")
    table = pd.concat(
        whole.assign(prevalence=share, difference=gap, low=gap, high=gap)
        for share, gap in ((0.25, 0.9), (1.0, -0.9))
    )
    changed = replace(experiment, answers=experiment.answers | {"batches": table})
    for axis in absence.draw_batches(changed).axes:
        low, high = axis.get_xlim()
        assert low < -0.9 and high > 0.9


def test_absence_of_the_other_classes_is_admitted(absence_folder):
    experiment = report.read(absence_folder)
    dataset = experiment.raw["dataset"]
    dataset.loc[(dataset["arm"] == CORES[0]) & (dataset["class"] == "edema"), "prevalence"] = 0.5
    assert "They, too, are in fewer training cases" in absence.said(experiment)[3]


def test_absence_of_one_arm_and_one_seed_is_told(tmp_path):
    lost = write(tmp_path / "a", "absence", lambda *_: 0.0, arms=CORES[1:2], losses=[], seeds=[1])
    report.build(lost)
    experiment = report.read(lost)
    said = " ".join(absence.said(experiment))
    assert "Dice CE has no prediction" in said
    assert "Most runs lose the necrotic core altogether: Dice CE in 1 of 1 arm." in said
    assert "All combinations have 1 seed only" in said
    assert absence.batch_title(experiment) == "No two batch sizes can be compared"


def test_imbalance_tells_the_smallest_share_that_each_loss_learns(imbalance_folder):
    experiment = report.read(imbalance_folder)
    assert imbalance.fraction_title(experiment) == (
        "Smallest share of the voxels at which a loss still learns the necrotic core: 0.0045 % to "
        "0.45 % (none by 1 of 3 losses) with 0 % of the patches centred on foreground and 0.0045 % "
        "(none by 1 of 3 losses) with 67 %"
    )
    span, bare, centred, centring, transfer = imbalance.said(experiment)
    assert "0.45 % at 300 ml and 0.0045 % at 3 ml" in span
    assert bare.endswith("is 0.0045 % with Dice CE; 0.45 % with Dice; none with Focal.")
    assert centred.endswith("is 0.0045 % with Dice CE and Dice; none with Focal.")
    gains = experiment.answers["centring"].query("test_set == 'phantom' and loss != 'focal'")
    most = gains.loc[gains["difference"].idxmax()]
    assert f"to {imbalance.signed(most['difference'])} (Dice at {most['volume']:g} ml)" in centring
    middle = imbalance.signed(gains["difference"].median())
    assert f"changes Dice of the necrotic core by {middle} in the median" in centring
    assert ". 3 pairs in which both lost it are left out. " in centring
    assert "of 6 differences" in centring
    assert transfer.endswith("at every volume they lose the class as often as lesions as large as "
                             "in training.")  # fmt: skip


def lost_elsewhere(raw):
    """On the lesions that are the same for all arms, networks of the largest lose the core."""
    its = raw["cases"]["arm"].str.startswith("volume=300,") & (raw["cases"]["test_set"] == "middle")
    raw["cases"].loc[its & (raw["cases"]["class"] == "necrotic core"), "dice"] = 0.0
    return raw


def test_imbalance_calls_a_change_of_size_no_imbalance(tmp_path, imbalance_folder):
    folder = write(tmp_path / "i", "imbalance", shrinks, arms=VOLUMES, losses=["dice", "focal"],
                   change=lost_elsewhere)  # fmt: skip
    experiment, before = report.read(folder), report.read(imbalance_folder)
    assert imbalance.fraction_title(experiment) == imbalance.fraction_title(before)
    assert imbalance.said(experiment)[1:4] == imbalance.said(before)[1:4]
    assert imbalance.said(experiment)[4].endswith(
        "trained at 300 ml, 6 of 6 combinations of loss and centring lose the class there, against "
        "2 on lesions as large as in training."
    )


def test_imbalance_names_its_rows_once(imbalance_folder):
    figure = imbalance.draw_fraction(report.read(imbalance_folder))
    titles = [axis.get_title(loc="left") for axis in figure.axes[::2]]
    assert titles == [
        "Test lesions as large as in training", "The same test lesions for all arms (transfer)",
    ]  # fmt: skip
    assert not any(axis.get_ylabel() for axis in figure.axes)
    assert figure.get_supylabel() == "Dice of the necrotic core"


def test_imbalance_tells_a_class_lost_at_a_larger_share_only(tmp_path):
    def in_places(arm, loss, name):
        return 0.0 if loss == "dice" and arm.startswith("volume=30,") else 0.6

    folder = write(tmp_path / "i", "imbalance", in_places, arms=VOLUMES, losses=["dice"])
    said = imbalance.said(report.read(folder))
    assert said[1].endswith(
        "is 0.0045 % with Dice CE and Dice; lost at a larger share as well by Dice."
    )


def test_imbalance_says_so_where_nothing_is_lost(tmp_path):
    folder = write(tmp_path / "i", "imbalance", stays, arms=VOLUMES[:2], losses=["dice"])
    experiment = report.read(folder)
    assert imbalance.fraction_title(experiment).endswith(
        ": 0.45 % with 0 % as with 67 % of the patches centred on foreground"
    )
    said = imbalance.said(experiment)
    assert "0.45 % at 300 ml of lesion" in said[0]
    assert said[1].endswith("is 0.45 % with Dice CE and Dice.")
    assert not any("left out" in sentence for sentence in said)


def test_imbalance_of_one_arm_and_one_seed_is_told(tmp_path):
    lost = write(tmp_path / "i", "imbalance", lambda *_: 0.0, arms=VOLUMES[:1], losses=[],
                 seeds=[1])  # fmt: skip
    report.build(lost)
    experiment = report.read(lost)
    assert imbalance.said(experiment)[1].endswith("is none with Dice CE.")
    assert imbalance.fraction_title(experiment).endswith(
        "the necrotic core: none with 0 % of the patches centred on foreground"
    )
    assert imbalance.centring_title(experiment) == (
        "Dice of the necrotic core for every volume of the lesions"
    )
