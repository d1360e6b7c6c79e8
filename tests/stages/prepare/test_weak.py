"""Weak labels of one mask against hand-drawn masks and brute force."""

import numpy as np
import pytest

from stages.prepare import weak

HOOK = np.array([[0, 0, 0, 0],
                 [0, 1, 1, 1],
                 [0, 1, 0, 0],
                 [0, 1, 0, 0]], bool)


def test_hand_drawn():
    assert weak.bounding_box(HOOK) == [1, 1, 3, 3]
    assert weak.deepest_point(HOOK) == [1, 1]
    assert weak.extreme_points(HOOK) == [[2, 1], [1, 2], [1, 3], [3, 1]]


def test_one_pixel():
    mask = np.zeros((9, 7))
    mask[5, 3] = 1
    assert weak.bounding_box(mask) == [3, 5, 1, 1]
    assert weak.deepest_point(mask) == [3, 5]
    assert weak.extreme_points(mask) == weak.middle_extreme_points(mask) == [[3, 5]] * 4


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 6), (8, 0), (8, 6)])
def test_one_pixel_in_a_corner(row, column):
    mask = np.zeros((9, 7), bool)
    mask[row, column] = True
    assert weak.deepest_point(mask) == [column, row]
    assert weak.extreme_points(mask) == [[column, row]] * 4


def test_the_border_of_the_image_is_outside():
    assert weak.deepest_point(np.ones((5, 9), bool)) == [2, 2]
    assert weak.bounding_box(np.ones((5, 9), bool)) == [0, 0, 9, 5]
    assert weak.extreme_points(np.ones((5, 9), bool)) == [[4, 0], [0, 2], [4, 4], [8, 2]]


def test_parts_and_holes():
    mask = np.zeros((20, 30), bool)
    mask[2:5, 2:5] = True
    mask[8:19, 10:25] = True
    mask[12:15, 15:20] = False
    x, y = weak.deepest_point(mask)
    assert mask[y, x] and x >= 10
    assert weak.bounding_box(mask) == [2, 2, 23, 17]
    assert weak.extreme_points(mask) == [[3, 2], [2, 3], [17, 18], [24, 13]]


def test_the_longest_run_of_the_extreme_row_counts():
    mask = np.zeros((3, 12), bool)
    mask[0, [0, 4, 5, 6, 8, 9, 10]] = True
    mask[1] = True
    assert weak.extreme_points(mask)[0] == [5, 0]


def test_extreme_points_after_extremenet_may_lie_beside_the_mask():
    """Two horns of 100 px: the second is a row lower, which is within 2 % of the height."""
    mask = np.zeros((120, 90), bool)
    mask[10:110, 20:25] = mask[11:110, 60:65] = mask[60:65, 20:65] = True
    assert weak.middle_extreme_points(mask)[0] == [(20 + 64) // 2, 10]
    assert not mask[10, 42] and weak.extreme_points(mask)[0] == [22, 10]
    mask[11:13, 60:65] = False  # now it is three rows lower
    assert weak.middle_extreme_points(mask)[0] == [22, 10]


@pytest.mark.parametrize("share", [0.02, 0.1])
@pytest.mark.parametrize("seed", range(20))
def test_extreme_points_after_extremenet_against_counting(seed, share):
    """Pixel by pixel, with whole numbers."""
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 120, 2)) < rng.choice([0.02, 0.2, 0.9])
    mask[rng.integers(mask.shape[0]), rng.integers(mask.shape[1])] = True
    pixels = [(int(y), int(x)) for y, x in np.argwhere(mask)]
    expected = []
    for axis, last in ((0, False), (1, False), (0, True), (1, True)):
        places = [pixel[axis] for pixel in pixels]
        extreme, side = (max if last else min)(places), max(places) - min(places) + 1
        near = [pixel[1 - axis] for pixel in pixels if abs(pixel[axis] - extreme) * 50 <= side * round(50 * share)]
        middle = (min(near) + max(near)) // 2
        expected.append([middle, extreme] if axis == 0 else [extreme, middle])
    assert weak.middle_extreme_points(mask, share) == expected


@pytest.mark.parametrize("function", [weak.bounding_box, weak.deepest_point, weak.extreme_points,
                                      weak.middle_extreme_points])
def test_empty(function):
    with pytest.raises(ValueError, match="empty"):
        function(np.zeros((4, 4), bool))


def brute_point(mask):
    """First pixel in reading order with the largest distance to any pixel outside, the frame around it included."""
    padded = np.pad(mask, 1)
    outside = np.argwhere(~padded)
    best, best_distance = None, -1
    for y, x in np.argwhere(padded):
        distance = ((outside - (y, x)) ** 2).sum(axis=1).min()
        if distance > best_distance:
            best, best_distance = [int(x) - 1, int(y) - 1], distance
    return best


@pytest.mark.parametrize("seed", range(60))
def test_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 24, 2)
    mask = rng.random((height, width)) < rng.choice([0.1, 0.5, 0.9, 0.98])
    mask[rng.integers(height), rng.integers(width)] = True
    assert weak.deepest_point(mask) == brute_point(mask)
    ys, xs = np.nonzero(mask)
    x, y, w, h = weak.bounding_box(mask)
    assert (x, y, x + w - 1, y + h - 1) == (xs.min(), ys.min(), xs.max(), ys.max())
    top, left, bottom, right = weak.extreme_points(mask)
    assert (top[1], left[0], bottom[1], right[0]) == (ys.min(), xs.min(), ys.max(), xs.max())
    assert all(mask[py, px] for px, py in (top, left, bottom, right))
    assert all(isinstance(value, int) for point in (top, left) for value in point)
