"""What follows from the fingerprint of a data set, and what a study sets itself."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from workflow.data.choices import Choices, Wishes, choose, coarse_axis, geometry, settled
from workflow.data.fingerprint import Facts, facts, fingerprint

AUTO = Wishes("auto", "auto", "auto")
CLASSES, LOOKUP = ("background", "organ"), {0: 0, 4: 1}


def case(
    shape: tuple[int, ...], spacing: tuple[float, ...], box: tuple | None = None, level: float = 0
) -> Facts:
    voxels = math.prod(shape)
    return Facts(
        shape, spacing, box or tuple((0, n) for n in shape), {0: voxels - 10, 4: 10},
        np.arange(401, dtype=np.float32)[None] + level,
    )  # fmt: skip


def printed(*cases: Facts, channel: str = "MRI") -> dict:
    return fingerprint(cases, (channel,), CLASSES, LOOKUP)


def test_facts_of_a_case_are_its_own() -> None:
    image = np.zeros((2, 6, 7, 8), np.float32)
    image[0, 1:4, 2:6, 3:5] = 5
    image[1, 4, 2, 7] = -1
    label = np.zeros((6, 7, 8), np.int32)
    label[1:3, 2:4, 3] = 4
    found = facts(image, label, (1.0, 2.0, 3.0))
    assert found.box == ((1, 5), (2, 6), (3, 8))
    assert found.counts == {0: 6 * 7 * 8 - 4, 4: 4}
    assert found.samples.tolist() == [[5] * 4, [0] * 4]
    assert found.kept == pytest.approx(4 * 4 * 5 / (6 * 7 * 8))


def test_many_annotated_voxels_are_sampled_at_even_ranks() -> None:
    image = np.random.default_rng(0).permutation(8000).reshape(1, 20, 20, 20).astype(np.float32)
    found = facts(image, np.ones((20, 20, 20), np.int32), (1.0, 1.0, 1.0))
    assert found.samples.shape == (1, 400)
    np.testing.assert_allclose(found.samples[0], np.linspace(0, 7999, 400), atol=0.5)


def test_the_fingerprint_sums_up_the_cases() -> None:
    found = printed(
        case((10, 20, 30), (1.0, 1.0, 2.0)),
        case((20, 40, 10), (1.0, 1.0, 6.0), box=((0, 10), (0, 40), (0, 5)), level=100),
        case((30, 30, 20), (2.0, 1.0, 2.0)),
    )
    assert found["cases"] == 3
    assert found["spacing"]["median"] == [1, 1, 2]
    assert found["size"]["maximum"] == [30, 40, 30]
    assert found["extent"]["median"] == [20, 30, 60]
    assert found["extent_cropped"]["minimum"] == [10, 20, 30]
    assert found["kept"] == 1
    (channel,) = found["channels"]
    pooled = np.concatenate([np.arange(401.0) + level for level in (0, 100, 0)])
    assert channel["mean"] == pytest.approx(pooled.mean())
    assert channel["deviation"] == pytest.approx(pooled.std())
    assert [channel["low"], channel["high"]] == pytest.approx(
        list(np.percentile(pooled, (0.5, 99.5)))
    )
    assert found["classes"][1] == {
        "name": "organ", "prevalence": 1.0, "voxel_fraction": 30 / (6000 + 8000 + 18000),
        "median": 40.0, "minimum": 20.0, "maximum": 60.0,
    }  # fmt: skip


def test_a_data_set_without_annotations_has_no_intensities() -> None:
    empty = replace(case((8, 8, 8), (1.0, 1.0, 1.0)), counts={0: 512}, samples=np.empty((1, 0)))
    found = printed(empty, channel="CT")
    assert found["channels"][0]["mean"] is None
    assert found["classes"][1]["median"] is None
    with pytest.raises(ValueError, match="ct needs annotated voxels"):
        choose(found, AUTO)


def test_spacing_is_the_median_unless_slices_are_thick_and_few() -> None:
    cases = [case((100, 100, n), (1.0, 1.0, z)) for n, z in ((10, 4.0), (10, 8.0), (8, 10.0))]
    target = choose(printed(*cases), AUTO).spacing
    assert target == pytest.approx((1, 1, np.percentile([4, 8, 10], 10)))
    many = [case((100, 100, 60), (1.0, 1.0, z)) for z in (4.0, 8.0, 10.0)]
    assert choose(printed(*many), AUTO).spacing == (1, 1, 8)
    fine = [case((100, 100, 10), (1.0, 1.0, z)) for z in (2.0, 2.5, 3.0)]
    assert choose(printed(*fine), AUTO).spacing == (1, 1, 2.5)


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [((1, 1, 3), None), ((1, 1, 3.1), 2), ((5, 1, 1), 0), ((0.2, 1.3, 1.3), None)],
)
def test_one_axis_is_coarse_or_none(spacing: tuple[float, ...], axis: int | None) -> None:
    assert coarse_axis(spacing) == axis


@pytest.mark.parametrize(
    ("channel", "box", "crop", "normalisation"),
    [
        ("MRI", None, "none", "zscore"),
        ("MRI", ((1, 20), (0, 20), (0, 20)), "nonzero", "zscore"),
        ("MRI", ((5, 15), (0, 20), (0, 20)), "nonzero", "zscore_nonzero"),
        ("CT", ((5, 15), (0, 20), (0, 20)), "nonzero", "ct"),
        ("ct", None, "none", "ct"),
    ],
)
def test_normalisation_follows_the_modality_and_the_margin(
    channel: str, box: tuple | None, crop: str, normalisation: str
) -> None:
    found = choose(printed(case((20, 20, 20), (1.0, 1.0, 1.0), box), channel=channel), AUTO)
    assert (found.crop, found.normalisation) == (crop, (normalisation,))
    assert bool(found.intensities) == (normalisation == "ct")


def test_what_the_study_sets_is_not_chosen() -> None:
    found = printed(case((20, 20, 20), (1.0, 1.0, 1.0), ((5, 15), (0, 20), (0, 20))))
    assert choose(found, Wishes((2.0, 2.0, 2.0), "none", "percentiles")) == Choices(
        (2.0, 2.0, 2.0), "none", ("percentiles",)
    )
    assert choose(found, replace(AUTO, spacing="native")).spacing is None
    with pytest.raises(ValueError, match=r"2 words for 1 channels \(MRI\)"):
        choose(found, replace(AUTO, normalisation=("zscore", "ct")))


def test_only_what_is_open_needs_the_fingerprint() -> None:
    assert settled(Wishes(), 2) == Choices(None, "none", ("percentiles", "percentiles"))
    assert settled(AUTO, 1) is None
    assert settled(Wishes(normalisation="ct"), 1) is None
    assert settled(Wishes(normalisation=("zscore",)), 2) is None  # refused with the fingerprint


def sizes(spacing: tuple, size: tuple, **changes: object) -> object:
    options = {"levels": 4, "patch_size": "auto", "strides": "auto", "window": None,
               "patch_voxels": 32**3}  # fmt: skip
    return geometry(spacing, size, **options | changes)


@pytest.mark.parametrize(
    ("spacing", "size", "budget", "patch", "strides"),
    [
        # isotropic: a cube, all axes halved
        ((1, 1, 1), (200, 200, 200), 32**3, (32, 32, 32), [(2, 2, 2)] * 3),
        # what the short axis leaves goes to the others
        ((1, 1, 1), (200, 200, 16), 32**3, (48, 40, 16), [(2, 2, 2), (2, 2, 2), (2, 2, 1)]),
        # thick slices are halved once the others are as coarse
        ((1, 1, 5), (200, 200, 40), 64**3, (112, 104, 22), [(2, 2, 1), (2, 2, 1), (2, 2, 2)]),
        # never larger than the median case
        ((1, 1, 1), (40, 40, 40), 10**9, (40, 40, 40), [(2, 2, 2)] * 3),
    ],
)
def test_patch_and_strides_follow_from_spacing_and_size(
    spacing: tuple, size: tuple, budget: int, patch: tuple, strides: list
) -> None:
    found = sizes(spacing, size, patch_voxels=budget)
    assert list(found.strides) == strides
    assert found.patch_size == patch
    assert found.window == patch


def test_every_chosen_patch_fits_budget_and_strides() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        spacing = tuple(rng.uniform(0.5, 6, 3))
        size = tuple(rng.integers(24, 300, 3))
        budget = int(rng.integers(20**3, 100**3))
        try:
            found = sizes(spacing, size, patch_voxels=budget, levels=3)
        except ValueError as error:
            assert "levels" in str(error)
            continue
        steps = np.prod(found.strides, axis=0)
        assert not np.any(np.array(found.patch_size) % steps)
        assert math.prod(found.patch_size) <= max(budget, math.prod(steps))
        assert all(p < n + step for p, n, step in zip(found.patch_size, size, steps, strict=True))


def test_a_patch_or_strides_of_the_study_stay_and_the_other_follows() -> None:
    found = sizes((1, 1, 5), (200, 200, 20), patch_size=(64, 64, 12), levels=3)
    assert found.patch_size == (64, 64, 12)
    assert found.strides == ((2, 2, 1), (2, 2, 1))
    found = sizes((1, 1, 1), (200, 200, 200), strides=(2, (2, 2, 1)), levels=3)
    assert found.strides == (2, (2, 2, 1))
    assert found.patch_size == (32, 32, 32)


def test_an_odd_axis_of_a_given_patch_is_not_halved() -> None:
    assert sizes((1, 1, 1), (99,) * 3, patch_size=(32, 32, 9), levels=2).strides == ((2, 2, 1),)


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ValueError, match=r"network\.channels: 6 levels, but after 3 halvings"):
        sizes((1, 1, 1), (32, 32, 32), levels=6)
    with pytest.raises(ValueError, match=r"evaluation\.window: \[30, 32, 32\] must be multiples"):
        sizes((1, 1, 1), (99, 99, 99), window=(30, 32, 32))
