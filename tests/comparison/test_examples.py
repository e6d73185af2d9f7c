"""Which slices are shown."""

import numpy as np

from workflow.comparison.examples import WINDOW, fullest_slices, grey_levels


def labels(*slices, extent=32):
    array = np.zeros((4, 4, extent), np.uint8)
    for z, value, voxels in slices:
        array[:, :, z].flat[:voxels] = value
    return array


def test_a_rare_class_weighs_as_much_as_a_large_one():
    assert fullest_slices(labels((3, 1, 9), (4, 1, 8), (20, 2, 1))) == [20]


def test_further_slices_keep_a_distance_where_they_can():
    assert fullest_slices(labels((10, 1, 9), (11, 1, 8), (20, 1, 7)), 2) == [10, 20]


def test_a_slice_without_foreground_is_the_last_resort():
    assert fullest_slices(labels((10, 1, 9), (11, 1, 8)), 2) == [10, 11]
    assert fullest_slices(labels((10, 1, 9)), 2) == [10, 16]
    assert fullest_slices(labels(), 1) == [16]


def test_grey_levels_span_the_image_but_for_a_few_voxels():
    image = np.linspace(-1, 3, 1001)
    levels = grey_levels(image)
    assert levels.dtype == np.uint8
    low, high = WINDOW
    assert levels[0] == 0 and levels[-1] == 255
    assert levels[500] == round(255 * (0.5 - low) / (high - low))
    assert (np.diff(levels.astype(int)) >= 0).all()
    assert grey_levels(np.array([np.nan, 0.0, 1.0]))[0] == 0
    assert not grey_levels(np.full(5, np.nan)).any() and not grey_levels(np.zeros(5)).any()
