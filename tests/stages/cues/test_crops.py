from __future__ import annotations

import numpy as np
import pytest

from stages.cues.crops import (
    box_in_crop,
    cells_in_box,
    cells_of,
    crop_window,
    cut,
    object_box,
    paste,
    points_in_crop,
    sample_cells,
    sample_map,
)


def test_box_of_extreme_points_holds_their_pixels():
    assert object_box({"extreme_points": [[4, 2], [3, 5], [4, 9], [7, 6]]}) == (3, 2, 8, 10)
    assert object_box({"extreme_points": [[3, 5]] * 4}) == (3, 5, 4, 6)
    assert object_box({"bbox": [3, 2, 5, 8]}) == (3, 2, 8, 10)


def test_extreme_points_come_before_a_box_that_disagrees():
    assert object_box({"extreme_points": [[1, 1]] * 4, "bbox": [0, 0, 9, 9]}) == (1, 1, 2, 2)


def test_window_has_its_margins_and_stays_in_the_image():
    assert crop_window((10, 20, 30, 40), (100, 100), (0.5, 0.1, 0.25, 0)) == (0, 18, 35, 40)
    assert crop_window((90, 0, 100, 10), (100, 100), (1, 1, 1, 1)) == (80, 0, 100, 20)
    assert crop_window((0, 0, 100, 100), (100, 100), (0.3,) * 4) == (0, 0, 100, 100)


@pytest.mark.parametrize("box", [(99.5, 99.5, 99.9, 99.9), (-3, -3, -1, -1), (100, 100, 101, 101), (5, 5, 5, 5)])
def test_window_is_never_empty(box):
    x0, y0, x1, y1 = crop_window(box, (100, 100), (0.0,) * 4)
    assert 0 <= x0 < x1 <= 100
    assert 0 <= y0 < y1 <= 100


def test_points_and_boxes_go_through_the_same_geometry():
    """A window of 10 x 20 px brought to 40 px: a pixel becomes 4 wide and 2 high."""
    window = (5, 10, 15, 30)
    np.testing.assert_allclose(points_in_crop([[5, 10], [14, 29]], window, 40), [[1.5, 0.5], [37.5, 38.5]])
    np.testing.assert_allclose(box_in_crop((5, 10, 6, 11), window, 40), [0, 0, 4, 2])
    np.testing.assert_allclose(box_in_crop((0, 0, 100, 100), window, 40), [0, 0, 40, 40])


def test_a_lone_bright_pixel_lies_where_its_point_says():
    image = np.zeros((50, 60, 3), np.uint8)
    image[22, 37] = 255
    window = (20, 10, 50, 40)
    crop = cut(image, window, 90)
    rows, columns = np.nonzero(crop[:, :, 0] > 200)
    np.testing.assert_allclose([columns.mean(), rows.mean()], points_in_crop([[37, 22]], window, 90)[0], atol=0.01)


def test_paste_is_the_way_back():
    image = np.zeros((40, 50), np.float32)
    image[12:25, 18:33] = 1
    window = (10, 5, 42, 37)
    back = paste(cut(image[:, :, None], window, 128), window, image.shape)
    assert ((back >= 0.5) == (image > 0)).all()
    assert paste(np.ones((8, 8)), (0, 0, 3, 2), (5, 5)).sum() == 6


def test_cells_in_box():
    inside = cells_in_box((2, 4, 6, 8), 8, 4)
    assert inside.tolist() == [[False] * 4, [False] * 4, [False, True, True, False], [False, True, True, False]]
    tiny = cells_in_box((3.1, 3.1, 3.2, 3.2), 8, 4)
    assert tiny.sum() == 1
    assert tiny[1, 1]


def test_cells_of_points():
    points = np.array([[0.0, 0.0], [7.0, 7.0], [3.4, 3.6], [-5.0, 99.0]])
    assert cells_of(points, 8, 4).tolist() == [[0, 0], [3, 3], [2, 1], [3, 0]]


def test_sampling_the_same_window_changes_nothing():
    labels = np.random.default_rng(0).integers(-2, 3, (6, 6)).astype(np.int8)
    assert (sample_cells(labels, (3, 4, 33, 64), (3, 4, 33, 64), 6) == labels).all()


def test_sampling_a_part_and_beyond():
    labels = np.arange(16, dtype=np.int8).reshape(4, 4)
    part = sample_cells(labels, (0, 0, 40, 40), (20, 0, 60, 40), 4)
    assert part.tolist() == [[2, 3, -1, -1], [6, 7, -1, -1], [10, 11, -1, -1], [14, 15, -1, -1]]


def test_a_map_that_is_linear_stays_so_in_any_window():
    """Values that are the places themselves: reading them elsewhere gives those places, up to the border's."""
    source, target = (10, 20, 42, 36), (18, 24, 34, 34)
    columns = source[0] + (np.arange(32) + 0.5) * 32 / 32
    values = np.repeat(columns[None], 32, 0)
    found = sample_map(values, source, target, 8)
    np.testing.assert_allclose(found, np.repeat((target[0] + (np.arange(8) + 0.5) * 2)[None], 8, 0), rtol=1e-6)
    beyond = sample_map(values, source, (0, 20, 20, 36), 4)
    assert beyond[0, 0] == columns[0]
