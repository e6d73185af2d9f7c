"""Which slices are shown."""

import numpy as np

from workflow.comparison.examples import fullest_slices


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
