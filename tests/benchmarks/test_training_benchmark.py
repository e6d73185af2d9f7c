"""Our training and MONAI's are measured alike, on whatever device."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from benchmarks import training as command
from tests.tiny_study import TINY, TRAINING
from workflow.study import Study
from workflow.training import network as networks

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def study():
    training = TRAINING | {
        "steps": 2 * command.CHUNK, "validate_every": command.CHUNK, "patch_size": [8, 8, 8],
        "accelerator": "cpu",
    }  # fmt: skip
    return Study.model_validate(TINY | {"training": training})


@pytest.fixture(scope="module")
def data(study, tmp_path_factory):
    return command.write_data(study, tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_both_ways_begin_and_compute_alike(study, data, monkeypatch, precision):
    monkeypatch.setattr(networks, "precision", lambda device: precision)
    begins = set()
    for way in command.WAYS.values():
        rival = way(study.run_settings("dice_ce"), data, 1e-3)
        network = getattr(rival, "trainer", rival).network
        begins.add(networks.weights_sha256(network))
        given = set()
        network.model[0].conv.register_forward_hook(
            lambda layer, _, out, given=given: given.add((layer.training, out.dtype))
        )
        rival.steps(1)
        assert 0 <= rival.validate() <= 1
        assert given == {(True, precision), (False, precision)}
    assert len(begins) == 1


def test_a_race_has_a_row_for_each_round_and_a_curve_for_each_way(study, data):
    rounds, curves, trained = command.race(study.run_settings("dice_ce"), data, 1e-3)
    assert set(rounds) == {"peak", *command.WAYS}
    assert (rounds > 0).all().all()
    assert len(rounds) == 2
    steps = curves.groupby("way")["step"].apply(list)
    assert steps.to_dict() == {way: [command.CHUNK, 2 * command.CHUNK] for way in command.WAYS}
    untrained = command.Ours(study.run_settings("dice_ce"), data, 1e-3).trainer.network
    digests = {networks.weights_sha256(network) for network in (trained, untrained)}
    assert len(digests) == 2


def test_a_run_is_measured_in_parts(study, data):
    """By a real job, so that the command it calls and the parts it times are those of the day."""
    trained = command.Ours(study.run_settings("dice_ce"), data, 1e-3).trainer.network
    parts = command.overhead(study, data, 0.001, trained)
    assert list(parts["steps"]) == [study.training.steps, command.LONG]
    assert (parts["training"] == 0.001 * parts["steps"]).all()
    assert (parts[["start_and_end", "validation", "evaluation"]] > 0).all().all()


def test_the_clock_of_a_gpu_is_read_when_it_has_done_its_work(monkeypatch):
    told = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: told.append(device))
    monkeypatch.setattr(command.time, "perf_counter", lambda: told.append("read") or 7.0)
    assert command.clock(CUDA)() == 7.0
    assert told == [CUDA, "read"]
    assert command.clock(CPU) is command.time.process_time


class Way:
    """Holds 3 MiB, itself in a ring, and 4 MiB more while it validates."""

    held = peak = 0

    def __init__(self, *_):
        self.ring = self
        Way.held += 3 * 2**20
        weakref.finalize(self, Way.gone)

    @staticmethod
    def gone():
        Way.held -= 3 * 2**20

    def steps(self, count):
        Way.peak = max(Way.peak, Way.held)

    def validate(self):
        Way.peak = max(Way.peak, Way.held + 4 * 2**20)


def test_peak_memory_is_that_of_one_way_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: Way.held)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: Way.peak)
    monkeypatch.setattr(
        torch.cuda, "reset_peak_memory_stats", lambda: setattr(Way, "peak", Way.held)
    )
    gc.collect()
    gc.disable()  # nothing but the measurement may free what an earlier way held
    try:
        Way.peak = 2**40
        assert [command.peak_memory(Way, None, None, 0.0) for _ in range(2)] == [7, 7]
    finally:
        gc.enable()
