"""The commands that need no study, or no more of it than tables."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml

import losses
from losses import contract
from tests.synthetic_experiment import raw_tables
from workflow.__main__ import main
from workflow.comparison import experiment
from workflow.study import load


def test_the_list_names_every_loss_and_the_twin_of_a_published_one(capsys):
    assert main(["losses"]) == 0
    listed = capsys.readouterr().out
    for name in losses.available():
        assert name in listed
    line = next(row for row in listed.splitlines() if row.startswith("published_combo "))
    assert line.endswith("-> combo")


@pytest.mark.parametrize("name", losses.available())
def test_every_card_prints(capsys, name):
    assert main(["losses", name]) == 0
    card = capsys.readouterr().out
    assert card.startswith(name)
    for row in ("formula", "source", "absent class", "options"):
        assert f"\n{row}" in card


def test_an_unknown_loss_is_told_the_nearest_name_without_a_traceback(capsys):
    assert main(["losses", "dyce"]) == 1
    assert "dice" in capsys.readouterr().err


def listed(capsys, *arguments):
    assert main(["losses", *arguments]) == 0
    return [line.split()[0] for line in capsys.readouterr().out.splitlines()]


def test_the_list_is_filtered_by_what_the_cards_say(capsys):
    region = listed(capsys, "--family", "region")
    assert region == [n for n in losses.available() if losses.card(n).family == "region"]
    assert set(listed(capsys, "--collection", "loss_odyssey")) == set(
        losses.collections["loss_odyssey"]
    )
    assert set(listed(capsys, "--published")) == set(losses.collections["seeds_as_published"])
    corrected = listed(capsys, "--corrected", "--family", "region")
    assert "generalized_dice" in corrected
    assert "historic_generalized_dice_liviaets" not in corrected
    assert "log_cosh_dice" not in corrected


def test_the_list_is_sorted_by_any_field_of_a_card(capsys):
    assert listed(capsys, "--sort", "name") == losses.available()
    families = [losses.card(name).family for name in listed(capsys, "--sort", "family")]
    assert families == sorted(families)
    assert families != [losses.card(name).family for name in losses.available()]


def test_a_number_of_a_card_is_sorted_by_and_shown_unknown_ones_last(capsys, monkeypatch):
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Measured(losses.Card):
        scale: float | None = None

    card, scales = losses.card, {"dice": 10.0, "jaccard": 2.5}
    monkeypatch.setattr(losses, "Card", Measured)
    monkeypatch.setattr(
        losses, "card", lambda name: Measured(**vars(card(name)), scale=scales.get(name))
    )
    assert main(["losses", "--family", "region", "--sort", "scale"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["jaccard", "2.5"], ["dice", "10"]]
    assert len(lines) > 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--family", "regional"], "--family regional: there is as published, boundary"),
        (["--collection", "mine"], "--collection mine: there is loss_odyssey"),
        (["--sort", "colour"], "--sort colour: there is title, family"),
        (["dice", "jaccard"], "losses dice jaccard: expected one name, or check LOSS"),
        (["check"], "losses check: expected a loss"),
        (["check", "dice", "--skip", "order"], "--skip order: there is scalar, finite"),
        (["check", "dice", "--option", "batch"], "--option batch: expected KEY=VALUE"),
    ],
)
def test_a_wrong_argument_of_losses_is_told_what_there_is(arguments, words):
    with pytest.raises(SystemExit, match=re.escape(words)):
        main(["losses", *arguments])


OWN = Path(__file__).parent / "losses" / "own_losses.py"


def test_a_users_loss_is_checked_one_line_a_check(capsys):
    assert main(["losses", "check", f"{OWN}:Sharp", "--option", "power=15e-1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].split()[-1] for line in lines] == list(contract.CHECKS)
    assert "ok              finite: " in "\n".join(lines)


def test_a_check_that_fails_is_exit_status_1_unless_it_is_skipped(capsys):
    assert main(["losses", "check", f"{OWN}:InPlace"]) == 1
    assert "FAILS           unchanged_input: the loss changes" in capsys.readouterr().out
    skipped = ["--skip", "unchanged_input", "--skip", "half_precision"]
    assert main(["losses", "check", f"{OWN}:InPlace", *skipped]) == 0
    assert "not applicable  unchanged_input: skipped, as asked" in capsys.readouterr().out


def test_a_loss_of_the_catalogue_is_checked_with_its_exceptions(capsys):
    assert main(["losses", "check", "nacl", "--option", "alpha=0.2"]) == 0
    assert "not applicable  voxel_order: it looks at neighbours" in capsys.readouterr().out


def test_a_loss_that_cannot_be_built_is_one_line(capsys):
    assert main(["losses", "check", f"{OWN}:Sharp", "--option", "gamma=1"]) == 1
    assert "has no option 'gamma'" in capsys.readouterr().err


def test_the_schema_is_json(capsys):
    assert main(["schema"]) == 0
    assert "training" in json.loads(capsys.readouterr().out)["properties"]


def test_a_study_that_is_not_there_is_one_line(caplog):
    assert main(["check", "nowhere.yaml"]) == 1
    assert "nowhere.yaml: no such study file" in caplog.text
    assert "Traceback" not in caplog.text


EXPERIMENT = {
    "dataset": {"source": "phantom", "name": "p"},
    "training": {"steps": 100},
    "seeds": [1, 2],
    "losses": {"dice_ce": {}, "dice": {}},
    "arms": {"a": {}, "b": {"training": {"batch_size": 1}}},
}


@pytest.fixture
def shards(tmp_path):
    """A study and the folders of its two shards, as `collect` leaves them."""
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT, sort_keys=False))
    for seed in EXPERIMENT["seeds"]:
        part = load(path, {"seeds": [seed]})
        folder = tmp_path / f"shard-{seed}"
        experiment.write(raw_tables(part, lambda *_: 0.5), folder / "tables", ".csv.gz")
        (folder / "config.yaml").write_text(part.as_yaml())
    return tmp_path


def merge(folder, *names):
    places = [str(folder / name) for name in names]
    return main(["merge", str(folder / "study.yaml"), *places, "--out", str(folder / "whole")])


def test_shards_are_merged_analysed_and_told_in_one_command(shards):
    assert merge(shards, "shard-1", "shard-2") == 0
    whole = shards / "whole"
    assert load(whole / "config.yaml") == load(shards / "study.yaml")
    summary = (whole / "tables" / "answers" / "summary.csv").read_text().splitlines()
    assert len(summary) == 1 + 2 * 2
    page = (whole / "report.html").read_text()
    assert "None of 8 runs failed or diverged." in page
    # each step again by hand, from what lies there
    for command, made in (("analyse", "tables/answers/summary.csv"), ("tell", "report.html")):
        (whole / made).unlink()
        assert main([command, str(whole / "config.yaml")]) == 0
        assert (whole / made).is_file()
    assert (whole / "tables" / "answers" / "summary.csv").read_text().splitlines() == summary


def test_what_no_shard_holds_is_told(shards, caplog):
    assert merge(shards, "shard-2") == 0
    assert "arm a: 2 of 4 runs are in no shard" in caplog.text
    page = (shards / "whole" / "report.html").read_text()
    assert "4 of 8 runs planned are not in these tables." in page


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["shard-1", "shard-1"], "seed 1: this run stands in two shards (4 such)"),
        (["shard-3"], "shard-3/config.yaml: no such study file"),
        (["empty"], "empty/tables: no arms.csv.gz, dataset.csv.gz, runs.csv.gz, cases.csv.gz here"),
        (["other", "shard-2"], "other: arm 'b': training.steps was 100, the study has 200"),
    ],
)
def test_shards_that_do_not_fit_are_refused_in_words(shards, caplog, names, words):
    (shards / "shard-1" / "config.yaml").rename(shards / "one.yaml")
    for name in ("empty", "shard-1"):
        (shards / name).mkdir(exist_ok=True)
        (shards / name / "config.yaml").write_text((shards / "one.yaml").read_text())
    if "other" in names:
        (shards / "shard-1").rename(shards / "other")
        study = EXPERIMENT | {"training": {"steps": 200}}
        (shards / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    assert merge(shards, *names) == 1
    assert words in caplog.text
    assert "Traceback" not in caplog.text
    assert not (shards / "whole").exists()


def test_a_report_before_its_answers_is_told_what_is_missing(shards, caplog):
    assert main(["tell", str(shards / "shard-1" / "config.yaml")]) == 1
    assert "no answers" in caplog.text
    assert "Traceback" not in caplog.text


def test_check_counts_the_runs_of_arms_and_splits_each(tmp_path, caplog, monkeypatch):
    tiny = {"subjects": 6, "shape": [16, 16, 16], "spacing": 10.0}
    study = EXPERIMENT | {
        "dataset": {"source": "phantom", "name": "p", "phantom": tiny},
        "external": {"source": "phantom", "name": "e", "phantom": tiny | {"seed": 1}},
        "splits": {"train": 0.5, "validation": 0.5, "test": 0},
        "training": {"patch_size": [16, 16, 16]},
    }
    study["arms"] = {"a": {}, "b": {"seeds": [1]}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO", logger="rareclass")
    assert main(["check", "study.yaml"]) == 0
    assert "2 arms, 6 runs" in caplog.text
    for arm in ("a", "b"):
        assert f"{arm}: subjects: 6 external, 3 train, 3 validation" in caplog.text
    assert caplog.text.count("6 cases, classes") == 2
    assert main(["check", "study.yaml", "--set", 'arms=["c"]']) == 1
    assert "arms: no c here, there is a, b" in caplog.text
