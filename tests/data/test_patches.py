from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch

from workflow.data import prepare
from workflow.data.patches import PatchSampler
from workflow.data.prepare import foreground

SHAPE = (20, 24, 18)


def volumes(count: int = 3, shape: tuple[int, ...] = SHAPE) -> tuple[list, list]:
    """Images whose voxels say where they are; a large class 1 and a single voxel of class 2."""
    images, labels = [], []
    for number in range(count):
        place = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        label = np.zeros(shape, dtype=np.uint8)
        label[4:10, 4:10, 4:10] = 1
        label[shape[0] - 3, shape[1] - 3, shape[2] - 3] = 2
        images.append(np.stack([place, 1e5 + place]) + 1e6 * number)
        labels.append(label)
    return images, labels


def sampler(data: tuple[list, list] | None = None, **changes: Any) -> PatchSampler:
    images, labels = data or volumes()
    options = {
        "patch_size": (8, 8, 8),
        "batch_size": 2,
        "foreground_share": 0.5,
        "flips": True,
        "intensity": 0.1,
        "order_seed": 0,
        "augmentation_seed": 0,
    }
    marked = [foreground(label) for label in labels]
    return PatchSampler(images, labels, marked, **{**options, **changes})


def take(source: PatchSampler, count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(itertools.islice(source, count))


def test_batches_have_the_promised_shape_and_type() -> None:
    images, labels = next(sampler(batch_size=3, patch_size=(8, 10, 6)))
    assert images.shape == (3, 2, 8, 10, 6)
    assert images.dtype == torch.float32
    assert labels.shape == (3, 8, 10, 6)
    assert labels.dtype == torch.int64
    assert images.is_contiguous()
    assert labels.is_contiguous()


def test_one_seed_gives_the_same_patches_whatever_torch_and_numpy_drew() -> None:
    first, second = sampler(), sampler()
    for _ in range(20):
        torch.rand(3)
        np.random.rand(3)
        a, b = next(first), next(second)
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
    assert first.sha256 == second.sha256


@pytest.mark.parametrize(
    "change",
    [
        {"order_seed": 1},
        {"augmentation_seed": 1},
        {"flips": False},
        {"intensity": 0.2},
        {"foreground_share": 0.9},
        {"patch_size": (8, 8, 6)},
    ],
)
def test_the_digest_tells_other_choices_apart(change: dict[str, Any]) -> None:
    ours, other = sampler(), sampler(**change)
    assert ours.sha256 == other.sha256
    take(ours, 10), take(other, 10)
    assert ours.sha256 != other.sha256


def test_augmentation_moves_no_patch_and_no_patch_moves_augmentation() -> None:
    def places(**changes: Any) -> list[float]:
        """Of each patch the least of its positions, which mirroring does not change."""
        options = {"intensity": 0.0, "batch_size": 1, "foreground_share": 1.0}
        batches = take(sampler(**{**options, **changes}), 30)
        return [image[0, 0].min().item() for image, _ in batches]

    assert places() == places(flips=False) == places(augmentation_seed=5) != places(order_seed=5)

    def jitter(**changes: Any) -> list[float]:
        """The channels differ by 1e5, times their own factors."""
        batches = take(sampler(volumes(1), batch_size=1, **changes), 30)
        return [(image[0, 0].max() - image[0, 0].min()).item() for image, _ in batches]

    same = {"patch_size": SHAPE}  # one place only
    assert jitter(**same) == jitter(**same, order_seed=5) != jitter(**same, augmentation_seed=5)


def test_the_digest_covers_every_step() -> None:
    source = sampler()
    seen = {source.sha256}
    for _ in range(10):
        next(source)
        seen.add(source.sha256)
    assert len(seen) == 11


def test_a_restored_sampler_goes_on_where_the_other_stopped() -> None:
    whole, first = sampler(), sampler()
    take(whole, 5), take(first, 5)
    resumed = sampler(order_seed=99, augmentation_seed=99)
    resumed.restore(json.loads(json.dumps(first.state())))
    for (a, x), (b, y) in zip(take(whole, 5), take(resumed, 5), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(x, y)
    assert whole.sha256 == resumed.sha256


def test_image_and_label_are_cut_and_flipped_alike() -> None:
    images, labels = volumes(1)
    images = [np.stack([labels[0], labels[0]]).astype(np.float32)]
    source = sampler((images, labels), intensity=0.0, foreground_share=1.0)
    for image, label in take(source, 30):
        assert torch.equal(image[:, 0].long(), label)


def test_flips_mirror_each_axis_half_of_the_time() -> None:
    source = sampler(volumes(1), intensity=0.0, batch_size=1)
    backwards = np.zeros(3)
    for image, _ in take(source, 400):
        place = image[0, 0]
        backwards += [
            float(place.select(axis, 0).mean() > place.select(axis, -1).mean()) for axis in range(3)
        ]
    assert (np.abs(backwards / 400 - 0.5) < 0.1).all()
    for image, _ in take(sampler(volumes(1), intensity=0.0, flips=False), 20):
        assert (torch.diff(image[:, 0], dim=-1) == 1).all()


def test_foreground_share_is_the_share_of_patches_around_foreground() -> None:
    # Class 2 is one corner voxel: a patch of 3 holds it only if it was centred on it.
    source = sampler(patch_size=(3, 3, 3), foreground_share=0.6, flips=False, batch_size=10)
    labels = torch.cat([label for _, label in take(source, 300)])
    around = labels[:, 1, 1, 1]
    share = (around > 0).float().mean()
    by_chance = 0.4 * 217 / np.prod([length - 2 for length in SHAPE])
    assert share == pytest.approx(0.6 + by_chance, abs=0.03)
    # Classes first, voxels second: the single voxel is centred as often as the 216.
    assert (around == 2).float().mean() == pytest.approx(0.3, abs=0.03)


def test_without_foreground_places_are_uniform() -> None:
    images, labels = volumes(1)
    blank = [np.zeros_like(labels[0])]
    source = sampler((images, blank), foreground_share=1.0, flips=False, intensity=0.0)
    starts = torch.cat([image[:, 0, 0, 0, 0] for image, _ in take(source, 1500)]).long().numpy()
    corners = np.stack(np.unravel_index(starts, SHAPE))
    assert corners.min() == 0
    for axis, length in enumerate(SHAPE):
        share = np.bincount(corners[axis], minlength=length - 7) / len(starts)
        assert len(share) == length - 7
        assert share.max() / share.min() < 1.8


def test_jitter_is_a_scale_and_a_shift_of_each_channel() -> None:
    images = [np.stack([np.zeros(SHAPE), np.ones(SHAPE)]).astype(np.float32)]
    source = sampler((images, volumes(1)[1]), intensity=0.1)
    drawn = torch.cat([image.flatten(2) for image, _ in take(source, 200)])
    assert (drawn == drawn[..., :1]).all()
    assert drawn[:, 0].abs().max() <= 0.1
    assert (drawn[:, 1] - 1).abs().max() <= 0.2 + 1e-6
    assert drawn[:, 0].std() > 0.03


def test_jitter_multiplies_then_adds_in_single_precision() -> None:
    drawn = np.random.default_rng(0)
    batches = zip(take(sampler(), 5), take(sampler(intensity=0.0), 5), strict=True)
    for (changed, _), (plain, _) in batches:
        for image, before in zip(changed.numpy(), plain.numpy(), strict=True):
            drawn.random(3)
            change = 0.1 * drawn.uniform(-1, 1, size=(2, 2)) + [[1], [0]]
            scale, shift = change.astype(np.float32)[..., None, None, None]
            assert np.array_equal(image, before * scale + shift)


def test_batches_are_on_the_device_and_the_order_does_not_depend_on_it() -> None:
    # "meta" knows no numbers: nothing of the host may be mixed in once a batch has left it
    here, there = sampler(volumes(1, (5, 5, 5))), sampler(volumes(1, (5, 5, 5)), device="meta")
    for batch, other in zip(take(here, 5), take(there, 5), strict=True):
        for one, two in zip(batch, other, strict=True):
            assert (one.device.type, two.device.type) == ("cpu", "meta")
            assert (one.shape, one.dtype) == (two.shape, two.dtype)
    assert here.sha256 == there.sha256


def test_small_volumes_are_padded_with_minimum_and_background() -> None:
    images, labels = volumes(1, (20, 12, 7))
    images[0][1] -= 5e5
    source = sampler(
        (images, labels), patch_size=(8, 12, 12), flips=False, intensity=0.0, foreground_share=1.0
    )
    for image, label in take(source, 10):
        # 12 - 7 = 5 voxels of padding along z: 2 before, 3 behind.
        assert (label[..., :2] == 0).all()
        assert (label[..., 9:] == 0).all()
        assert (label[..., 2:9] > 0).any()
        for channel in range(2):
            minimum = float(images[0][channel].min())
            assert (image[:, channel, ..., :2] == minimum).all()
            assert (image[:, channel, ..., 9:] == minimum).all()
            assert (torch.diff(image[:, channel, ..., 2:9], dim=-1) == 1).all()


def test_flipped_padding_stays_outside_the_volume() -> None:
    images, labels = volumes(1, (5, 5, 5))
    labels[0][:] = 1
    for image, label in take(sampler((images, labels), intensity=0.0), 20):
        assert (label.sum(dim=(1, 2, 3)) == 125).all()
        assert (image[:, 0][label == 0] == 0).all()


def test_remembered_voxels_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "KEPT", 10)
    (voxels, single) = foreground(volumes(1)[1][0])
    assert len(voxels) == 10
    assert len(single) == 1
    assert voxels.dtype == np.uint32


def test_misfitting_arrays_are_refused() -> None:
    images, labels = volumes(2)
    with pytest.raises(ValueError, match="2 images, 1 labels"):
        sampler((images, labels[:1]))
    with pytest.raises(ValueError, match=r"case \d: image"):
        next(sampler((images, [label[:-1] for label in labels])))
