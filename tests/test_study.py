"""Study files: what is accepted, what is refused and in which words."""

import copy
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

import losses
from workflow.study import Data, RunSettings, StudyError, json_schema, load, typed

CONFIG = Path(__file__).parent.parent / "config"
STUDIES = sorted(CONFIG.glob("*.yaml"))
BASE = {
    "dataset": {"source": "phantom", "name": "p"},
    "losses": {"dice_ce": {}, "dice": {}},
}


def write(tmp_path, **changes):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(BASE | changes, sort_keys=False))
    return path


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_of_the_project_is_valid(path):
    study = load(path)
    assert study.comparison.reference_loss in study.losses


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_resolved_study_reads_back_as_itself(path, tmp_path):
    study = load(path)
    resolved = tmp_path / "config.yaml"
    resolved.write_text(study.as_yaml())
    assert load(resolved) == study


def test_the_study_of_all_losses_holds_every_loss():
    names = {entry.name for entry in load(CONFIG / "all.yaml").losses.values()}
    assert names == set(losses.available())


def test_the_default_study_holds_the_generalized_dice_family_and_twenty_losses():
    study = load(CONFIG / "default.yaml")
    assert len(study.losses) >= 20
    assert len(study.seeds) >= 3
    for variant in ("graph", "written", "answer"):
        assert f"published_generalized_dice_{variant}" in study.losses
    assert "generalized_dice" in study.losses


def test_the_table_of_studies_counts_their_runs() -> None:
    """Its column ``runs`` begins with the runs, or for tuning alone the trials, of each study."""
    readme = (CONFIG / "README.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"(?m)^\| `(\w+\.yaml)` \|.*\| (\d+)\b[^|]*\|$", readme))
    found = {"all.yaml": str(len(load(CONFIG / "all.yaml").seeds))}
    for path in set(STUDIES) - {CONFIG / "all.yaml"}:
        arms = load(path).variants.values()
        found[path.name] = str(sum(len(arm.losses) * len(arm.seeds) for arm in arms))
    assert told == found


def test_every_key_is_explained():
    text = (CONFIG / "README.md").read_text()

    def keys(section, prefix=""):
        for name, entry in section["properties"].items():
            choices = [entry, *entry.get("anyOf", [])]
            target = "".join(c.get("$ref", "") for c in choices).rpartition("/")[2]
            if target == "PhantomSettings":
                yield from json_schema()["$defs"][target]["properties"]
            elif target:
                yield from keys(json_schema()["$defs"][target], f"{name}.")
            else:
                yield prefix + name

    missing = [key for key in keys(json_schema()) if f"`{key}`" not in text]
    assert not missing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainig": {}}, "trainig: unknown key; did you mean 'training'"),
        ({"training": {"step": 3}}, "training.step: unknown key; did you mean 'steps'"),
        (
            {"dataset": {"source": "phantom", "name": "p", "phantom": {"subject": 3}}},
            "dataset.phantom.subject: unknown key; did you mean 'subjects'",
        ),
        ({"training": {"steps": "many"}}, "training.steps: .*integer.*'many'"),
        ({"training": {"steps": 0}}, "training.steps: .*greater than or equal to 1.*got 0"),
        ({"training": {"learning_rate": -1}}, "training.learning_rate: .*greater than 0"),
        ({"training": {"learning_rate": float("inf")}}, "training.learning_rate: .*finite"),
        ({"network": {"strides": [0, 2, 2]}}, "network.strides.*greater than or equal to 1"),
        ({"network": {"channels": [0, 8, 8, 8]}}, "network.channels.0: .*equal to 1, got 0"),
        ({"training": {"schedule": "cosine"}}, "training.schedule: .*one_cycle.*'cosine'"),
        ({"training": {"patch_size": [30, 32, 32]}}, r"training.patch_size: \[30, 32, 32\].*mult"),
        ({"evaluation": {"window": [4, 32, 32]}}, r"evaluation.window: \[4, 32, 32\].*\[8, 8, 8\]"),
        ({"network": {"strides": [2, 2]}}, "strides must be one shorter than channels"),
        ({"splits": {"train": 0.9}}, "train \\+ validation \\+ test must be 1, they are 1.45"),
        ({"seeds": []}, "seeds: at least one seed"),
        ({"seeds": [1, 1]}, "lists a seed twice"),
        ({"losses": {}}, "at least one loss"),
        ({"losses": {"dise": {}, "dice_ce": {}}}, "losses.dise: .*dice"),
        ({"losses": {"dice_ce": {}, "dice": {"batsh": True}}}, "losses.dice: .*batsh.*batch"),
        ({"losses": {"dice_ce": {}, "focal": {"gamma": -1}}}, "losses.focal: gamma must be >= 0"),
        ({"losses": {"dice_ce": 3}}, "losses.dice_ce: expected a mapping of options"),
        ({"losses": {"all_background": {"name": "dice"}, "dice_ce": {}}}, "floor of every table"),
        ({"losses": {"../x": {"name": "dice"}, "dice_ce": {}}}, "losses"),
        ({"losses": {"mine": {"name": "nowhere:Loss"}, "dice_ce": {}}}, "losses.mine: .*nowhere"),
        ({"comparison": {"reference_loss": "ce"}}, "reference_loss: 'ce' is no label"),
        ({"tuning": {"grid": [0.1, 0.2]}}, "tuning: .*three rates or more, rising"),
        ({"tuning": {"grid": [0.1, 0.3, 0.2]}}, r"tuning: .*rising, not \[0.1, 0.3, 0.2\]"),
        ({"tuning": {"seed": 2}}, "tuning.seed: 2 is a seed of the study"),
        ({"rates": {"dice": 0.1}}, "rates: no learning rate for dice_ce"),
        ({"rates": {"dice": 0.1, "dice_ce": -1}}, "rates.dice_ce: .*greater than 0, got -1"),
        ({"rates": {"dice": 0.1, "dice_ce": 1}, "tuning": {}}, "one of the two keys"),
        ({"rates": "none.csv"}, "rates: .*none.csv cannot be read"),
        ({"extends": "../other.yaml"}, "extends: expected a study file in the same folder"),
        ({"extends": "nowhere.yaml"}, "nowhere.yaml: no such study file"),
        ({"extends": "study.yaml"}, "extends: .* circle"),
        ({"comparison": {"margin": 0}}, "comparison.margin: .*greater than 0, got 0"),
        ({"dataset": {"source": "folder", "name": "x"}}, "needs the key 'root'"),
        ({"dataset": {"source": "decathlon", "name": "x"}}, "'task' and 'root'"),
        (
            {"dataset": {"source": "folder", "name": "x", "root": "y", "subject": "("}},
            "subject: '\\(' is no regular expression",
        ),
        ({"dataset": {"source": "web", "name": "x"}}, "dataset.source: .*'web'"),
    ],
)
def test_a_fault_names_the_file_the_key_and_what_was_expected(tmp_path, changes, message):
    path = write(tmp_path, **changes)
    with pytest.raises(StudyError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith((str(path), str(tmp_path / "nowhere.yaml")))


def test_all_faults_are_told_in_one_go(tmp_path):
    path = write(tmp_path, training={"step": 1, "batch_size": 0}, network={"norm": "layer"})
    with pytest.raises(StudyError) as caught:
        load(path)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "mapping"),
        ("a: [", "YAML"),
        ("", "mapping"),
        ("? [1, 2]\n: 3\n", "a key must be a word"),
        ("losses:\n  dice: {}\n  dice: {batch: true}\n", "'dice' stands twice in line 3"),
        ("title: 2024-13-45\n", "'2024-13-45' is no timestamp in line 1"),
        ("seeds:\n - 1\n - !!int one\n", "'one' is no int in line 3"),
        ("title: !!bool perhaps\n", "'perhaps' is no bool in line 1"),
        ("title: !!timestamp now\n", "'now' is no timestamp in line 1"),
        (f"seeds: [{'9' * 5000}]\n", r"'9+\.\.\.9+' is no int in line 1"),
        ("[" * 1000, "nested too deeply"),
    ],
)
def test_files_that_are_no_study_are_refused(tmp_path, text, message):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(StudyError, match=message) as caught:
        load(path)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(StudyError, match="no such study file"):
        load(tmp_path / "nowhere.yaml")


def test_numbers_without_a_dot_are_numbers(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text() + "training: {weight_decay: 1e-4}\n")
    text = path.read_text().replace("dice: {}", "dice: {smooth_nr: 1e-5}")
    path.write_text(text)
    study = load(path, {"training": {"learning_rate": "2e-3"}})
    assert study.losses["dice"].options["smooth_nr"] == 1e-5
    assert (study.training.weight_decay, study.training.learning_rate) == (1e-4, 2e-3)


@pytest.mark.parametrize("text", ["[x", "007", "Which: one", "null"])
def test_text_stays_text_whatever_it_looks_like(tmp_path, text):
    dataset = {"source": "phantom", "name": "007", "subject": "[a-z]+\\d"}
    study = load(write(tmp_path), {"title": text, "dataset": dataset})
    assert (study.title, study.dataset.name) == (text, "007")
    assert study.dataset.subject == "[a-z]+\\d"


def test_a_number_where_text_is_wanted_is_its_text(tmp_path):
    assert load(write(tmp_path), {"title": 2024}).title == "2024"


def test_options_of_losses_are_typed_on_the_command_line(tmp_path):
    study = load(write(tmp_path), {"losses": {"dice": {"batch": "true", "smooth_nr": "1e-3"}}})
    assert study.losses["dice"].options == {"batch": True, "smooth_nr": 1e-3}


def test_a_loss_whose_constructor_raises_anything_is_one_line(tmp_path):
    (tmp_path / "mine.py").write_text(
        "class Boom:\n    def __init__(self):\n        raise RuntimeError('boom')\n"
    )
    with pytest.raises(StudyError, match=r"losses\.a: .*RuntimeError: boom"):
        load(write(tmp_path, losses={"dice_ce": {}, "a": {"name": "mine.py:Boom"}}))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_schema_for_editors_accepts_every_study_of_the_project(path):
    jsonschema.validate(typed(path.read_text()), json_schema())


def test_the_schema_for_editors_refuses_a_misspelt_key():
    study = yaml.safe_load((CONFIG / "smoke.yaml").read_text())
    with pytest.raises(jsonschema.ValidationError, match="stepps"):
        jsonschema.validate(study | {"training": {"stepps": 3}}, json_schema())


def test_overrides_replace_single_keys_and_text_is_typed(tmp_path):
    study = load(
        write(tmp_path, training={"steps": 5, "flips": False}),
        {"training": {"steps": "7"}, "seeds": ["4"], "evaluation": {"overlap": "0.5"}},
    )
    assert (study.training.steps, study.training.flips) == (7, False)
    assert study.seeds == (4,)
    assert study.evaluation.overlap == 0.5


def test_a_loss_beside_the_study_is_found_wherever_the_resolved_study_lies(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Mine(torch.nn.Module):\n"
        "    def __init__(self, scale=1.0):\n"
        "        super().__init__()\n"
        "        self.scale = scale\n"
        "    def forward(self, logits, labels):\n"
        "        return self.scale * torch.nn.functional.cross_entropy(logits, labels)\n"
    )
    entries = {
        "dice_ce": {},
        "a": {"name": "mine:Mine", "scale": 2.0},
        "b": {"name": "mine.py:Mine"},
    }
    study = load(write(tmp_path, losses=entries))
    elsewhere = tmp_path / "results" / "config.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(study.as_yaml())
    entry = load(elsewhere).losses["a"]
    assert losses.create(entry.name, **entry.options).scale == 2.0


@pytest.mark.parametrize("word", sorted(losses.collections))
def test_a_collection_is_one_word(tmp_path, word):
    wanted = losses.collections[word]
    path = write(tmp_path, losses=word, comparison={"reference_loss": wanted[0]})
    assert tuple(load(path).losses) == tuple(wanted)


def test_words_can_be_listed_and_a_loss_named_twice_is_one(tmp_path):
    study = load(write(tmp_path, losses=["loss_odyssey", "dice", "mcc"]))
    assert set(study.losses) == {*losses.collections["loss_odyssey"], "mcc"}
    assert study.losses["weighted_cross_entropy"].options == {"weight": "inverse_frequency"}


def test_an_unknown_word_is_told_as_a_loss_is(tmp_path):
    with pytest.raises(StudyError, match=r"losses\.loss_odysey: .*loss_odysey"):
        load(write(tmp_path, losses=["loss_odysey", "dice_ce"]))


def test_a_run_depends_on_its_own_loss_and_not_on_the_title_or_the_other_losses(tmp_path):
    base = load(write(tmp_path))
    steps = load(write(tmp_path, training={"steps": 5}))
    title = load(write(tmp_path, title="another"))
    options = load(write(tmp_path, losses={"dice_ce": {}, "dice": {"batch": True}}))
    assert base.run_settings("dice") == title.run_settings("dice")
    assert base.run_settings("dice") != steps.run_settings("dice")
    assert base.run_settings("dice") != options.run_settings("dice")
    assert base.run_settings("dice_ce") == options.run_settings("dice_ce")


def test_what_a_job_is_given_reads_back_as_it_was(tmp_path):
    study = load(CONFIG / "default.yaml")
    for label in study.losses:
        given = study.run_settings(label)
        assert RunSettings.model_validate_json(given.model_dump_json()) == given
    assert Data.model_validate_json(study.data().model_dump_json()) == study.data()


def test_studies_that_agree_in_their_data_share_it(tmp_path):
    base = load(write(tmp_path)).data().fingerprint()
    assert base == load(write(tmp_path, training={"steps": 5})).data().fingerprint()
    patch = load(write(tmp_path, training={"patch_size": [16, 16, 16]}))
    assert base != patch.data().fingerprint()


def test_a_study_extends_another(tmp_path):
    write(
        tmp_path, training={"steps": 5, "batch_size": 3}, seeds=[4], rates={"dice_ce": 1, "dice": 2}
    )
    (tmp_path / "other.yaml").write_text(
        "extends: study.yaml\ntraining: {steps: 7}\nrates: null\nlosses: {dice_ce: }\n"
    )
    study = load(tmp_path / "other.yaml")
    assert (study.training.steps, study.training.batch_size, study.seeds) == (7, 3, (4,))
    assert list(study.losses) == ["dice_ce"]
    assert study.rates is None


def test_rates_are_read_from_a_table_and_resolved(tmp_path):
    path = write(tmp_path, rates="rates.csv")
    (tmp_path / "rates.csv").write_text("loss,learning_rate\ndice,0.1\ndice_ce,3e-4\nfocal,1\n")
    study = load(path)
    assert (study.rate("dice"), study.rate("dice_ce")) == ("0.1", "0.0003")
    (tmp_path / "resolved.yaml").write_text(study.as_yaml())
    assert load(tmp_path / "resolved.yaml") == study
    (tmp_path / "rates.csv").write_text("label,learning_rate\ndice,0.1\n")
    with pytest.raises(StudyError, match=r"rates.csv has no column 'loss'"):
        load(path)


def test_the_tuning_study_is_the_default_study_on_another_seed():
    default, tuning = load(CONFIG / "default.yaml"), load(CONFIG / "tuning.yaml")
    assert tuning.tuning.seed not in default.seeds
    assert tuning.trial_settings("dice") == default.run_settings("dice")
    same = {"title", "tuning", "rates", "losses"}
    assert default.losses.items() <= tuning.losses.items()
    fixed = load(CONFIG / "fixed_rate.yaml")
    assert default.model_dump(exclude=same) == tuning.model_dump(exclude=same)
    assert default.model_dump(exclude=same) == fixed.model_dump(exclude=same)
    assert fixed.rates is None


ARMS = {
    "plain": None,
    "four": {"training": {"batch_size": 4}, "seeds": [2, 3]},
    "rate=1,own": {"losses": ["dice"], "rates": None, "training": {"learning_rate": 1.0}},
    "options": {"losses": {"dice": {"batch": True}}},
}
RATES = {"dice_ce": 0.1, "dice": 0.2}


def armed(tmp_path, **changes):
    return write(tmp_path, **{"arms": ARMS, "rates": RATES} | changes)


def test_an_arm_is_the_study_with_its_keys_replaced(tmp_path):
    study = load(armed(tmp_path, comparison={"reference_loss": "dice"}))
    plain, four, rate, options = study.variants.values()
    assert list(study.variants) == list(ARMS)
    assert all(arm.arms == {} and arm.variants == {"": arm} for arm in study.variants.values())
    assert plain.model_dump(exclude={"arms"}) == study.model_dump(exclude={"arms"})
    assert (four.training.batch_size, four.training.steps) == (4, plain.training.steps)
    assert (four.seeds, list(four.losses)) == ((2, 3), ["dice_ce", "dice"])
    assert (list(rate.losses), rate.rate("dice"), plain.rate("dice")) == (["dice"], "1.0", "0.2")
    assert options.losses["dice"].options == {"batch": True}
    assert options.losses["dice_ce"] == study.losses["dice_ce"]
    assert study.is_experiment
    assert not plain.is_experiment


def test_a_study_without_arms_is_its_own_only_one(tmp_path):
    study = load(write(tmp_path))
    assert study.variants == {"": study}
    assert not study.is_experiment
    (tmp_path / "other.yaml").write_text("extends: study.yaml\nexperiment: sgd\narms: null\n")
    armed(tmp_path, comparison={"reference_loss": "dice"})
    other = load(tmp_path / "other.yaml")
    assert list(other.variants) == [""]
    assert other.is_experiment


def test_the_external_test_set_decides(tmp_path):
    external = {"source": "phantom", "name": "e", "phantom": {"seed": 1}}
    changes = {"external": external, "splits": {"train": 0.6, "validation": 0.4, "test": 0}}
    study = load(write(tmp_path, **changes))
    assert (study.test_set, load(write(tmp_path)).test_set) == ("e", "p")
    assert study.external_data().patch_size == study.data().patch_size
    assert study.external_data().dataset == study.external


def test_a_run_that_stands_in_two_arms_has_one_home(tmp_path):
    arms = ARMS | {"again": {"training": {"learning_rate": 0.5}, "seeds": [1]}}
    study = load(armed(tmp_path, arms=arms, comparison={"reference_loss": "dice"}))
    # a rate names its own folder and an arm's seeds are its own, so neither asks for another home
    assert {name: study.home(name, "dice") for name in arms} == {
        "plain": "plain", "four": "four", "rate=1,own": "plain", "options": "options",
        "again": "plain",
    }  # fmt: skip
    # the arm that changes dice leaves the other loss as it is
    assert study.home("options", "dice_ce") == "plain"
    assert load(write(tmp_path)).home("", "dice") == ""


@pytest.mark.parametrize(
    ("arms", "lines"),
    [
        ({"a": {"training": {"step": 3}}}, ["arms.a.training.step: unknown key; did you mean 'st"]),
        ({"a": {"training": {"steps": 0}}}, ["arms.a.training.steps: .*or equal to 1, got 0"]),
        ({"a": {"title": "x"}}, ["arms.a.title: all arms share this key"]),
        ({"a": {"tuning": {}, "arms": {}}}, ["arms.a.arms: all arms", "arms.a.tuning: all arms"]),
        ({"a": {"training": {"signals_every": 3}}}, ["arms.a.training.signals_every: all arms"]),
        ({"a": {"losses": ["dise"]}}, ["arms.a.losses: no dise here, there is dice_ce, dice$"]),
        ({"a": {"losses": ["dice", "focal"]}}, ["arms.a.losses: no focal here"]),
        ({"a": {"losses": ["dice"]}}, ["arms.a.comparison.reference_loss: 'dice_ce' is no label"]),
        ({"a": {"losses": {"dice": {"batsh": 1}}}}, ["arms.a.losses.dice: .*batsh.*batch"]),
        ({"a": {"seeds": [1, 1]}}, ["arms.a.seeds: .* lists a seed twice"]),
        ({"a": 3}, ["arms.a: .*dictionary, got 3"]),
        (["a"], ["arms: .*dictionary, got \\['a'\\]"]),
        ({"../a": {}}, ["arms.*'../a'"]),
        (
            {"a": {"training": {"step": 3, "flip": 1}}, "b": {"seeds": []}},
            [
                "arms.a.training.step: .*'steps'",
                "arms.a.training.flip: .*'flips'",
                "arms.b.seeds: ",
            ],
        ),
    ],
)
def test_a_fault_of_an_arm_is_a_line_that_names_the_arm_and_the_key(tmp_path, arms, lines):
    path = write(tmp_path, arms=arms)
    with pytest.raises(StudyError) as caught:
        load(path)
    told = str(caught.value).splitlines()
    assert len(told) == len(lines)
    for line, wanted in zip(told, lines, strict=True):
        assert re.match(f"{path}: {wanted}", line), line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": {"train": 0.6, "validation": 0.4, "test": 0}}, "splits.test: 0 leaves no test"),
        ({"external": {"source": "phantom", "name": "p"}}, "external.name: 'p' is the name of dat"),
        ({"external": {"source": "folder", "name": "x"}}, "external: .*needs the key 'root'"),
        ({"arms": {"a": {}}, "tuning": {}}, "tuning: rates are found by a study without arms"),
        ({"training": {"momentum": 1}}, "training.momentum: .*less than 1, got 1"),
        ({"training": {"output_bias": "zero"}}, "training.output_bias: .*class_frequencies"),
        ({"training": {"signals_every": -1}}, "training.signals_every: .*equal to 0, got -1"),
        ({"experiment": "x"}, "experiment: .*'mechanism'.*got 'x'"),
    ],
)
def test_faults_of_experiments(tmp_path, changes, message):
    with pytest.raises(StudyError, match=message):
        load(write(tmp_path, **changes))


def cut(tmp_path, **overrides):
    """Losses and seeds of each arm that a shard leaves."""
    study = load(armed(tmp_path, comparison={"reference_loss": "dice"}), overrides)
    return {name: (list(arm.losses), arm.seeds) for name, arm in study.variants.items()}


BOTH = ["dice_ce", "dice"]


def test_a_shard_of_seeds_cuts_the_seeds_of_arms_as_well(tmp_path):
    # as Snakemake passes --config 'seeds=[1]'
    assert cut(tmp_path, seeds=["1"]) == {
        "plain": (BOTH, (1,)), "rate=1,own": (["dice"], (1,)), "options": (BOTH, (1,)),
    }  # fmt: skip
    assert cut(tmp_path, seeds=[3, 1])["four"] == (BOTH, (3,))


def test_a_shard_of_losses_cuts_those_of_arms_and_keeps_a_reference(tmp_path):
    shard = {"losses": ["dice_ce"]}
    assert cut(tmp_path, **shard) == {
        "plain": (["dice_ce"], (1, 2, 3)), "four": (["dice_ce"], (2, 3)),
        "options": (["dice_ce"], (1, 2, 3)),
    }  # fmt: skip
    path = armed(tmp_path, comparison={"reference_loss": "dice"})
    study = load(path, shard)
    assert study.comparison.reference_loss == "dice_ce"
    assert {arm.comparison.reference_loss for arm in study.variants.values()} == {"dice_ce"}
    assert load(path, {"losses": ["dice"]}).comparison.reference_loss == "dice"
    misspelt = armed(tmp_path, comparison={"reference_loss": "dyce"})
    with pytest.raises(StudyError, match="'dyce' is no label"):
        load(misspelt, shard)


def test_an_arm_of_few_losses_keeps_a_reference_in_a_shard(tmp_path):
    arms = {"all": {}, "two": {"losses": ["dice_ce", "dice"]}}
    losses = {"dice_ce": {}, "dice": {}, "focal": {}}
    path = write(tmp_path, losses=losses, arms=arms)
    study = load(path, {"losses": ["focal", "dice"]})
    assert {n: arm.comparison.reference_loss for n, arm in study.variants.items()} == {
        "all": "focal", "two": "dice",
    }  # fmt: skip


def test_a_shard_of_arms_keeps_their_order_on_the_command_line(tmp_path):
    assert list(cut(tmp_path, arms=["rate=1,own", "plain"])) == ["rate=1,own", "plain"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"arms": ["x"]}, "arms: no x here, there is plain, four, rate=1,own, options"),
        ({"losses": ["dice", "x"]}, "losses: no x here, there is dice_ce, dice$"),
        ({"arms": ["four"], "seeds": ["1"]}, "arms: none of them has these losses and seeds"),
        ({"arms": ["rate=1,own"], "losses": ["dice_ce"]}, "arms: none of them has these losses"),
    ],
)
def test_a_shard_of_nothing_is_refused(tmp_path, overrides, message):
    with pytest.raises(StudyError, match=message):
        cut(tmp_path, **overrides)
    with pytest.raises(StudyError, match="arms: no four here, there is none"):
        load(write(tmp_path), {"arms": ["four"]})


def test_a_shard_leaves_what_it_was_given_alone(tmp_path):
    overrides = {"arms": ["four"], "losses": ["dice"], "seeds": ["2"]}
    before = copy.deepcopy(overrides)
    assert cut(tmp_path, **overrides) == {"four": (["dice"], (2,))}
    assert overrides == before


@pytest.mark.parametrize(
    "overrides", [{}, {"seeds": ["2"]}, {"losses": ["dice"]}, {"arms": ["options", "four"]}]
)
def test_a_study_with_arms_and_each_shard_of_it_read_back_as_themselves(tmp_path, overrides):
    study = load(armed(tmp_path, comparison={"reference_loss": "dice"}), overrides)
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(study.as_yaml())
    again = load(resolved)
    assert again == study
    assert again.variants == study.variants
    assert load(resolved, overrides) == study


def test_losses_named_by_words_can_be_chosen_from(tmp_path):
    path = write(tmp_path, losses=["loss_odyssey"], arms={"a": {"losses": ["dice", "dice_ce"]}})
    study = load(path, {"losses": ["dice", "focal"]})
    assert list(study.losses) == ["dice", "focal"]
    assert list(study.variants["a"].losses) == ["dice"]


def test_an_arm_finds_a_loss_and_rates_beside_the_study(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\nclass Mine(torch.nn.CrossEntropyLoss):\n    pass\n"
    )
    (tmp_path / "rates.csv").write_text("loss,learning_rate\ndice,0.5\ndice_ce,0.25\nmine,1\n")
    arm = {"losses": {"mine": {"name": "mine.py:Mine"}}, "rates": "rates.csv"}
    study = load(write(tmp_path, arms={"a": arm}))
    elsewhere = tmp_path / "results" / "config.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(study.as_yaml())
    for found in (study, load(elsewhere)):
        assert found.variants["a"].rate("dice") == "0.5"
        assert found.variants["a"].losses["mine"].name.endswith("mine.py:Mine")


def test_volumes_of_the_training_set_are_a_word(tmp_path):
    losses = {"dice_ce": {}, "g": {"name": "generalized_dice", "volumes": "training_set"}}
    assert load(write(tmp_path, losses=losses)).losses["g"].options["volumes"] == "training_set"
    losses["g"]["volumes"] = "trainingset"
    with pytest.raises(StudyError, match=r"losses\.g: volumes"):
        load(write(tmp_path, losses=losses))
