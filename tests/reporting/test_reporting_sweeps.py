"""What the pages on absence and imbalance say and draw: they follow their tables."""

from pathlib import Path

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
        assert (folder / "figures" / f"{figure}.png").stat().st_size > 20_000
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


def test_imbalance_tells_where_each_loss_loses_the_class(imbalance_folder):
    experiment = report.read(imbalance_folder)
    assert imbalance.fraction_title(experiment) == (
        "As it shrinks, the necrotic core is lost by 2 of 3 losses with 0 % of the patches centred "
        "on foreground and by 1 with 67 %"
    )
    span, bare, centred, centring, scaled = imbalance.said(experiment)
    assert "0.45 % at 300 ml and 0.0045 % at 3 ml" in span
    assert "Dice CE holds it at every volume" in bare
    assert "Dice loses it from 0.045 % (30 ml) on down" in bare
    assert "Focal loses it at every volume" in bare
    assert "Dice CE and Dice hold it at every volume; Focal loses it at every volume" in centred
    gains = experiment.answers["centring"].query("test_set == 'middle'")
    most = gains.loc[gains["difference"].idxmax()]
    assert f"to {imbalance.signed(most['difference'])} (Dice at {most['volume']:g} ml)" in centring
    assert "Of 9 combinations of loss and volume most runs lose the class in 5 with 0 %" in centring
    assert "and 3 with 67 %" in centring
    assert "3 of 6 lose the class" in scaled


def test_imbalance_says_so_where_nothing_is_lost(tmp_path):
    folder = write(tmp_path / "i", "imbalance", stays, arms=VOLUMES[:2], losses=["dice"])
    experiment = report.read(folder)
    assert "lost by 0 of 2 losses" in imbalance.fraction_title(experiment)
    said = imbalance.said(experiment)
    assert "0.45 % at 300 ml of lesion" in said[0]
    assert "Dice CE and Dice hold it at every volume" in said[1]


def test_imbalance_of_one_arm_and_one_seed_is_told(tmp_path):
    lost = write(tmp_path / "i", "imbalance", lambda *_: 0.0, arms=VOLUMES[:1], losses=[],
                 seeds=[1])  # fmt: skip
    report.build(lost)
    experiment = report.read(lost)
    assert "Dice CE loses it at every volume" in imbalance.said(experiment)[1]
    assert imbalance.centring_title(experiment) == (
        "Dice of the necrotic core for every volume of the lesions"
    )
