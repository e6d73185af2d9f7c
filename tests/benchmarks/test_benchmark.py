"""The benchmark compares like with like, and measures what it says."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import torch

import losses
from benchmarks import figure
from benchmarks import losses as command
from benchmarks.measure import MemoryMeter, busiest, seconds, softmax_step, step
from benchmarks.pairs import KORNIA, MONAI
from benchmarks.patches import Patch, lesions

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.fixture(scope="module")
def patches():
    return {classes: lesions(32, classes) for classes in (2, 4)}


@pytest.mark.parametrize("pair", MONAI + KORNIA, ids=lambda pair: f"{pair.library} {pair.label}")
def test_a_pair_has_one_value_or_says_why_not(pair, patches):
    patch = patches[pair.classes]
    ours = float(pair.ours()(patch.logits, patch.labels))
    theirs = pair.factor * float(pair.make()(patch.logits, patch.labels.unsqueeze(1)))
    same = ours == pytest.approx(theirs, rel=2e-4)
    assert same is not bool(pair.differs), (ours, theirs)


def test_the_patches_are_imbalanced_nested_and_of_every_class():
    labels = lesions(64).labels
    share = [float((labels == label).float().mean()) for label in range(4)]
    assert share[0] > 0.95
    assert share[1] > share[2] > share[3] > 0.001
    assert all((image == label).any() for image in labels for label in range(4))
    assert torch.equal(labels, lesions(64).labels)


def test_a_moved_patch_is_another_one_with_the_same_voxels():
    patch = lesions(24)
    moved = patch.moved(1)
    assert not torch.equal(moved.labels, patch.labels)
    assert torch.equal(moved.labels.flatten().sort().values, patch.labels.flatten().sort().values)
    assert torch.equal(moved.moved(-1).logits, patch.logits)


def test_a_step_is_the_gradient_on_the_logits():
    patch = lesions(24)
    run = step(losses.create("cross_entropy"))
    share = torch.nn.functional.one_hot(patch.labels, 4).movedim(-1, 1)
    expected = (patch.logits.softmax(1) - share) / patch.labels.numel()
    torch.testing.assert_close(run(patch), expected)


def test_the_floor_is_softmax_forward_and_backward():
    patch = lesions(24)
    upstream = torch.randn_like(patch.logits)
    p = patch.logits.softmax(1)
    expected = p * (upstream - (p * upstream).sum(1, keepdim=True))
    torch.testing.assert_close(softmax_step(upstream)(patch), expected)


def test_the_steps_of_a_round_see_one_patch_and_every_round_another():
    seen = {"a": [], "b": []}
    runs = [lambda patch, key=key: seen[key].append(patch) for key in seen]
    small = Patch(torch.zeros(1, 2, 64), torch.arange(64)[None])
    times = seconds(runs, small, budget=0.0)
    assert times.shape == (3, 2)
    assert (times >= 0).all()
    first = [int(patch.labels[0, 0]) for patch in seen["a"]]
    assert len(set(first)) == len(first) == 4  # one to warm up
    assert all(a is b for a, b in zip(seen["a"], seen["b"], strict=True))
    seen["a"].clear()
    seconds(runs, small, budget=0.0, same_patch=True)
    assert all(patch is small for patch in seen["a"])


def test_the_busiest_operator_is_the_one_that_works():
    matrix = torch.randn(256, 256)
    name, share = busiest(lambda _: [matrix @ matrix for _ in range(20)], lesions(24))
    assert name == "mm"
    assert 0.5 < share <= 1


def torch_arrays(count):
    return (lambda _: torch.ones(count) * 2), lesions(16)


def numpy_arrays(count):
    return (lambda _: (np.ones(count), np.ones(count))), lesions(16)


@needs_linux
def test_memory_is_what_is_held_at_once_of_torch_and_numpy():
    with MemoryMeter() as meter:
        assert meter.mebibytes(torch_arrays, 2**22) == pytest.approx(32, abs=1)
        assert meter.mebibytes(numpy_arrays, 2**21) == pytest.approx(32, abs=1)


def rows(**changed):
    """A made-up table: two losses and Hausdorff beside MONAI, with one and two threads."""
    table = [
        {
            "size": 64, "threads": threads, "loss": loss, "same_labels": same, "library": "MONAI",
            "ratio": ratio, "ratio_low": 0.9 * ratio, "ratio_high": 1.1 * ratio,
            "memory_ratio": 0.5, "floor_ratio": 2.0, "peer_floor_ratio": 3.0,
        }
        for threads in (1, 2)
        for loss, same, ratio in (
            ("dice", False, 0.7), ("focal", False, 0.4), ("hausdorff_dt", False, 0.45),
            ("hausdorff_dt", True, 0.1),
        )
    ]  # fmt: skip
    return pd.DataFrame(table).assign(**changed)


def test_targets_are_told_reached_or_missed():
    assert all(line.endswith(": reached") for line in command.targets(rows()))
    missed = [line for line in command.targets(rows(ratio=1.2)) if line.endswith(": missed")]
    assert len(missed) == 2 * 5  # all but memory
    assert len(command.targets(rows())) == 2 * 6


def test_the_figure_says_what_the_table_holds():
    table = rows()
    said = figure.message(table, 64)
    assert "takes 0.45 of the time and 0.50 of the memory of MONAI's (medians)" in said
    assert "none of 3 is slower" in said
    drawn = figure.draw(table)
    names = [label.get_text() for label in drawn.axes[0].get_yticklabels()]
    assert sorted(names) == [
        "Dice  (MONAI)",
        "Focal  (MONAI)",
        "Hausdorff DT  (MONAI)",
        "Hausdorff DT, maps known  (MONAI)",
    ]


def test_the_committed_table_holds_every_loss_and_every_pair():
    table = pd.read_csv(command.TABLE)
    alone = table[table["library"].isna()]
    assert sorted(alone["loss"]) == losses.available()
    for library, pairs in (("MONAI", MONAI), ("kornia", KORNIA)):
        measured = table[(table["library"] == library) & (table["size"] == command.SIZE)]
        for threads, found in measured.groupby("threads"):
            assert sorted(zip(found["loss"], found["same_labels"], strict=True)) == sorted(
                (pair.loss, pair.same_patch) for pair in pairs
            ), threads
