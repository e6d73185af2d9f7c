"""What a job asks of a scheduler: it covers what was measured, and grows with what costs."""

import json
import math
import struct
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch

from workflow import needs
from workflow.data.choices import Choices
from workflow.needs import run
from workflow.study import Network, Splits, load
from workflow.training import network as networks

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "results" / "reference" / "default"
STUDY = load(ROOT / "config" / "default.yaml")
SETTINGS = STUDY.run_settings("dice_ce")


def prepared(cases=120, shape=(48, 56, 48), channels=1, external=0, file_shape=None):
    """Cases of 4 mm, of one shape; ``file_shape`` where the arrays have another grid."""
    extent = {"median": [4.0 * length for length in shape]}
    each = {"shape": shape, "file_shape": file_shape or shape}
    return SimpleNamespace(
        name="own",
        channels=("T1",) * channels,
        classes=("background", "a", "b", "c"),
        cases=[SimpleNamespace(dataset="own", **each)] * cases
        + [SimpleNamespace(dataset="other", **each)] * external,
        fingerprint={"spacing": {"median": [4.0, 4.0, 4.0]}, "extent": extent},
        choices=Choices(spacing=None, crop="none", normalisation=("mri",) * channels),
        patch_voxels=32**3,
    )


def asked(data=None, **changed):
    """Needs of a run of the default study with other keys, by their section."""
    sections = {
        section: getattr(SETTINGS, section).model_copy(update=keys)
        for section, keys in changed.items()
    }
    settings = SETTINGS.model_copy(update=sections)
    return run.of_run(settings, Splits(), data or prepared())


def test_the_runs_of_the_default_study_had_enough_and_not_much_less():
    runs = pd.read_csv(REFERENCE / "tables" / "runs.csv").dropna(subset="peak_memory_mib")
    assert len(runs) > 60
    peak, longest = runs["peak_memory_mib"].max() * 2**20 / 1e6, runs["seconds"].max()
    need = asked()
    assert peak < need.mem_mb < 2 * peak
    assert longest < 60 * need.minutes < 20 * longest


# peak resident MiB of runs of this network on a phantom of 48 x 56 x 48 voxels, four steps each
@pytest.mark.parametrize(
    ("batch_size", "length", "measured"), [(2, 32, 544), (8, 32, 600), (16, 48, 1077)]
)
def test_memory_covers_measured_runs_of_other_batches_and_patches(batch_size, length, measured):
    need = asked(
        prepared(cases=8), training={"batch_size": batch_size, "patch_size": (length,) * 3}
    )
    assert measured * 2**20 / 1e6 < need.mem_mb < 2 * measured * 2**20 / 1e6


def test_memory_covers_a_measured_run_of_another_network():
    wide = Network(channels=(16, 32, 64, 128), num_res_units=2, norm="instance").model_dump()
    need = asked(
        prepared(cases=8), network=wide, training={"batch_size": 4, "patch_size": (48, 48, 48)}
    )
    assert 766 * 2**20 / 1e6 < need.mem_mb < 2 * 766 * 2**20 / 1e6


def test_memory_grows_with_patch_batch_network_window_and_volume():
    base = asked(training={"batch_size": 8, "patch_size": (64, 64, 64)})
    for more in (
        asked(training={"batch_size": 16, "patch_size": (64, 64, 64)}),
        asked(training={"batch_size": 8, "patch_size": (96, 64, 64)}),
        asked(
            training={"batch_size": 8, "patch_size": (64, 64, 64)},
            network={"channels": (16, 32, 64, 128)},
        ),
        asked(prepared(shape=(512, 512, 400))),
        asked(evaluation={"window": (160, 160, 160)}),
    ):
        assert more.mem_mb > base.mem_mb


def test_minutes_grow_with_steps_patch_batch_network_and_cases():
    base = asked()
    for more in (
        asked(training={"steps": 8000}),
        asked(training={"patch_size": (64, 64, 64)}),
        asked(training={"batch_size": 8}),
        asked(training={"validate_every": 1}),
        asked(network={"channels": (32, 64, 128, 256)}),
        asked(prepared(cases=1200)),
        asked(prepared(external=1200)),
    ):
        assert more.minutes > base.minutes


def test_sizes_that_are_chosen_from_the_data_are_asked_for_as_if_they_were_written():
    written = {"training": {"patch_size": (32, 32, 32)}, "network": {"strides": (2, 2, 2)}}
    cube = prepared(shape=(64, 64, 64))
    auto = asked(cube, training={"patch_size": "auto"}, network={"strides": "auto"})
    assert auto == asked(cube, **written)


def test_files_larger_than_the_arrays_are_scored_on_their_own_grid():
    small = prepared(shape=(64, 64, 64), file_shape=(512, 512, 200))
    assert asked(small).mem_mb > asked(prepared(shape=(64, 64, 64))).mem_mb
    assert asked(small).minutes > asked(prepared(shape=(64, 64, 64))).minutes


def test_the_number_of_cases_costs_no_memory():
    assert asked(prepared(cases=2000)).mem_mb == asked(prepared(cases=20)).mem_mb


def test_a_step_is_traced_as_it_is_computed():
    """The bytes are those that autograd keeps of real tensors, counted once each."""
    network = Network(channels=(4, 8), strides=(2,))
    traced = run.step(network, 1, 3, 2, (16, 16, 16))
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    real = networks.build(1, 3, seed=0, **network.model_dump())
    images = torch.zeros(2, 1, 16, 16, 16)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = real(images)
    assert traced.kept == pytest.approx(sum(kept.values()), rel=0.05)
    assert logits.shape == (2, 3, 16, 16, 16)
    # a step of twice the patches is twice the work
    assert run.step(network, 1, 3, 4, (16, 16, 16)).operations == 2 * traced.operations


def test_windows_cover_a_volume():
    assert run._windows((48, 56, 48), (48, 56, 48), 0.25) == 1
    assert run._windows((48, 48, 48), (32, 32, 32), 0.25) == 8
    assert run._windows((16, 100, 16), (32, 32, 32), 0.5) == 6


# peak resident MiB of a preparation in one process, everything `auto`, one case in two resampled
@pytest.mark.parametrize(
    ("shape", "channels", "measured"),
    [
        ((128, 128, 128), 1, 479),
        ((128, 128, 128), 4, 535),
        ((192, 192, 160), 4, 739),
        ((240, 240, 155), 4, 912),
    ],
)  # fmt: skip
def test_memory_covers_measured_preparations(shape, channels, measured):
    voxels = math.prod(shape)
    need = needs.of_preparation([(voxels, channels * voxels)] * 2, threads=1)
    assert measured * 2**20 / 1e6 < need.mem_mb < 2 * measured * 2**20 / 1e6


def test_each_process_of_a_preparation_holds_a_case_and_there_is_one_for_eight():
    images = [(10**7, 10**7)] * 16
    alone = needs.of_preparation(images, threads=1)
    assert needs.of_preparation(images, threads=2).mem_mb == 2 * alone.mem_mb
    assert needs.of_preparation(images, threads=16) == needs.of_preparation(images, threads=2)
    assert needs.of_preparation(images, threads=2).minutes < alone.minutes
    assert needs.of_preparation(images * 10, threads=1).mem_mb == alone.mem_mb
    assert needs.of_preparation(images * 10, threads=1).minutes > alone.minutes


def nifti(path, shape):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), path)


def test_images_are_counted_by_their_headers_and_broken_ones_left_to_the_preparation(tmp_path):
    entries = []
    for name in ("whole", "cut", "claims"):
        nifti(tmp_path / f"imagesTr/{name}.nii", (8, 6, 4, 2))
        nifti(tmp_path / f"labelsTr/{name}.nii", (8, 6, 4))
        entries.append({"image": f"imagesTr/{name}.nii", "label": f"labelsTr/{name}.nii"})
    cut, claims = (tmp_path / f"imagesTr/{name}.nii" for name in ("cut", "claims"))
    cut.write_bytes(cut.read_bytes()[:100])
    header = bytearray(claims.read_bytes())
    header[42:48] = struct.pack("<3h", 32767, 32767, 32767)
    claims.write_bytes(bytes(header))
    content = {"modality": {"0": "a", "1": "b"}, "labels": {"0": "background", "1": "x"}}
    (tmp_path / "dataset.json").write_text(json.dumps(content | {"training": entries}))
    claimed, whole = needs.images(tmp_path)  # by name
    assert whole == (192, 384)
    assert claimed[1] <= 1032 * claims.stat().st_size
    (tmp_path / "dataset.json").write_text("{")
    assert needs.images(tmp_path) == []
    assert needs.of_preparation([], threads=4).mem_mb > 0


def test_tables_ask_for_more_where_there_are_more_runs_cases_and_voxels():
    base = needs.of_comparison(100, prepared())
    for more in (
        needs.of_comparison(2000, prepared()),
        needs.of_comparison(100, prepared(cases=2000)),
        needs.of_comparison(100, prepared(shape=(512, 512, 400))),
    ):
        assert more.mem_mb > base.mem_mb
    assert needs.of_comparison(2000, prepared()).minutes > base.minutes


def test_the_tables_and_the_report_of_a_large_study_have_enough():
    """Measured by benchmarks/large_study.py."""
    measured = pd.read_csv(ROOT / "benchmarks" / "large_study.csv").set_index("part")
    study = measured.loc["tables"]
    asked_for = needs.of_comparison(int(study["runs"]), prepared(cases=int(study["cases"])))
    assert study["peak_mib"] * 2**20 / 1e6 < asked_for.mem_mb < 2 * study["peak_mib"] * 2**20 / 1e6
    assert study["cpu_seconds"] < 60 * asked_for.minutes


def test_what_is_told_asks_for_more_where_more_is_read(tmp_path):
    small, packed, folder = tmp_path / "a.csv", tmp_path / "b.csv.gz", tmp_path / "answers"
    small.write_bytes(bytes(1000))
    packed.write_bytes(bytes(10**8))
    folder.mkdir()
    (folder / "c.csv").write_bytes(bytes(10**8))
    base = needs.of_telling([small])
    inside = needs.of_telling([small, folder])
    assert base.mem_mb < inside.mem_mb < needs.of_telling([packed]).mem_mb
    assert base.minutes < inside.minutes


def test_a_job_of_a_scheduler_holds_two_calls_of_snakemake_besides():
    need = needs.of_telling([])
    assert need.scheduled() == need._replace(mem_mb=need.mem_mb + needs.SCHEDULED)
