"""The commands that need no study."""

import json

import pytest

import losses
from workflow.__main__ import main


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


def test_the_schema_is_json(capsys):
    assert main(["schema"]) == 0
    assert "training" in json.loads(capsys.readouterr().out)["properties"]


def test_a_study_that_is_not_there_is_one_line(caplog):
    assert main(["check", "nowhere.yaml"]) == 1
    assert "nowhere.yaml: no such study file" in caplog.text
    assert "Traceback" not in caplog.text
