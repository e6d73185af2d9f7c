"""Checkpoints: whole or not used, of this configuration or not used, and never run as code."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from workflow import files
from workflow.training import checkpoint
from workflow.training.checkpoint import NEWEST, PREVIOUS, Checkpoints, alone, fingerprint

CPU = torch.device("cpu")


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path, "a" * 64)


def state(step):
    return {"step": step, "weights": torch.full((3,), float(step)), "best": None}


def test_what_is_loaded_is_what_was_saved(checkpoints):
    generator = np.random.default_rng(1).bit_generator.state
    weights = torch.randn(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d)
    checkpoints.save({"generator": generator, "weights": weights, "curve": [(0, "dice", math.nan)]})
    loaded = checkpoints.load()
    assert loaded["generator"] == generator
    assert torch.equal(loaded["weights"], weights)
    assert loaded["weights"].stride() == weights.stride()
    assert math.isnan(loaded["curve"][0][2])


def test_the_newest_is_loaded_and_the_one_before_it_is_kept(checkpoints):
    assert checkpoints.load() is None
    for step in (1, 2, 3):
        checkpoints.save(state(step))
    assert checkpoints.load()["step"] == 3
    (checkpoints.folder / NEWEST).unlink()
    assert checkpoints.load()["step"] == 2


def test_a_damaged_one_is_removed_and_never_pushes_out_the_good_one(checkpoints):
    for step in (1, 2):
        checkpoints.save(state(step))
    newest = checkpoints.folder / NEWEST
    newest.write_bytes(newest.read_bytes()[:-1])
    assert checkpoints.load()["step"] == 1
    checkpoints.save(state(2))
    assert checkpoints.load()["step"] == 2
    newest.unlink()
    assert checkpoints.load()["step"] == 1


def test_every_byte_counts(checkpoints):
    checkpoints.save({"step": 1})
    path = checkpoints.folder / NEWEST
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        )
        assert checkpoints.load() is None, position


def test_one_of_another_configuration_is_not_used(checkpoints, caplog):
    checkpoints.save(state(1))
    assert Checkpoints(checkpoints.folder, "b" * 64).load() is None
    assert "of another configuration" in caplog.text


def test_no_code_in_a_checkpoint_is_run(checkpoints, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    checkpoints.save({"step": 1, "evil": Evil()})
    with pytest.raises(pickle.UnpicklingError):
        checkpoints.load()
    assert not (tmp_path / "pwned").exists()


def test_a_full_disk_leaves_the_checkpoint_that_is_there(checkpoints, monkeypatch):
    checkpoints.save(state(1))

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*checkpoint\.bin"):
        checkpoints.save(state(2))
    monkeypatch.undo()
    assert checkpoints.load()["step"] == 1
    assert {path.name for path in checkpoints.folder.iterdir()} <= {NEWEST, PREVIOUS}


def test_a_part_is_loaded_under_its_key_and_no_other(checkpoints):
    part = {"rows": [{"dice": math.nan, "tp": 3}], "label": torch.zeros(40, 40, dtype=torch.uint8)}
    assert checkpoints.part("a") is None
    checkpoints.keep("a", part)
    checkpoints.keep("b", {"rows": []})
    found = checkpoints.part("a")
    assert math.isnan(found["rows"][0]["dice"])
    assert found["rows"][0]["tp"] == 3
    assert torch.equal(found["label"], part["label"])
    assert checkpoints.part("c") is None
    assert Checkpoints(checkpoints.folder, "b" * 64).part("a") is None
    path, *_ = checkpoints.folder.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert [checkpoints.part(key) for key in "ab"].count(None) == 1
    checkpoints.retire(keep_newest=True)
    assert list(checkpoints.folder.glob("checkpoint-scores-*"))
    checkpoints.retire(keep_newest=False)
    assert not list(checkpoints.folder.iterdir())


def test_a_run_keeps_its_last_checkpoint_unless_it_failed(checkpoints):
    for step in (1, 2):
        checkpoints.save(state(step))
    checkpoints.retire(keep_newest=True)
    assert [path.name for path in checkpoints.folder.iterdir()] == [NEWEST]
    checkpoints.retire(keep_newest=False)
    assert not list(checkpoints.folder.iterdir())


def test_the_fingerprint_is_of_all_that_a_run_depends_on(study, prepared, splits, monkeypatch):
    settings = study.run_settings("dice_ce")
    first, *others = prepared.cases
    split = splits.set_index("case")["split"]
    trained = next(case for case in prepared.cases if split[case.name] == "train")
    moved = splits.assign(split=splits["split"].replace({"train": "validation"}))
    other_image = replace(
        prepared,
        cases=tuple(
            replace(case, image_sha256="0") if case is trained else case for case in prepared.cases
        ),
    )
    swapped = replace(first, label_sha256=others[0].label_sha256)
    other_label = replace(prepared, cases=(swapped, *others))
    assert split[first.name] != "test"
    renamed = replace(prepared, classes=(*prepared.classes[:-1], "another name"))
    optimiser = study.training.model_copy(update={"weight_decay": 0.5})
    prints = [
        fingerprint(settings, 0.1, 1, prepared, splits, CPU),
        fingerprint(study.run_settings("dice"), 0.1, 1, prepared, splits, CPU),
        fingerprint(
            settings.model_copy(update={"training": optimiser}), 0.1, 1, prepared, splits, CPU
        ),
        fingerprint(settings, 0.2, 1, prepared, splits, CPU),
        fingerprint(settings, 0.1, 2, prepared, splits, CPU),
        fingerprint(settings, 0.1, 1, prepared, moved, CPU),
        fingerprint(settings, 0.1, 1, prepared, splits, torch.device("cuda")),
        fingerprint(settings, 0.1, 1, other_image, splits, CPU),
        fingerprint(settings, 0.1, 1, other_label, splits, CPU),
        fingerprint(settings, 0.1, 1, renamed, splits, CPU),
    ]
    monkeypatch.setattr(torch, "__version__", "0.1")
    prints.append(fingerprint(settings, 0.1, 1, prepared, splits, CPU))
    monkeypatch.undo()
    monkeypatch.setattr(checkpoint, "training_code", lambda: "edited")
    prints.append(fingerprint(settings, 0.1, 1, prepared, splits, CPU))
    monkeypatch.undo()
    monkeypatch.setattr(checkpoint.losses, "sources", lambda name: [checkpoint.__file__])
    prints.append(fingerprint(settings, 0.1, 1, prepared, splits, CPU))
    monkeypatch.undo()
    assert len(set(prints)) == len(prints)
    assert fingerprint(settings, 0.1, 1, prepared, splits, CPU) == prints[0]


def test_two_processes_never_train_one_run_at_a_time(tmp_path, caplog):
    caplog.set_level("INFO")
    entered, waits = threading.Event(), []

    def second():
        with alone(tmp_path) as waited:
            waits.append(waited)
            entered.set()

    thread = threading.Thread(target=second)
    with alone(tmp_path):
        thread.start()
        while "waiting for another process" not in caplog.text:
            time.sleep(0.01)
        assert not entered.is_set()
    thread.join()
    assert entered.is_set()
    assert waits[0] > 0


def test_the_head_of_a_file_says_what_it_is(checkpoints):
    checkpoints.save(state(1))
    head, _, content = (checkpoints.folder / NEWEST).read_bytes().partition(b"\n")
    digest = hashlib.sha256(content).hexdigest()
    assert head.decode() == f"rareclass checkpoint {'a' * 64} {digest}"
