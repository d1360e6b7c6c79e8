"""From displacement fields to instances, against plain loops and hand-drawn cases."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.irnet.displacement import instance_map, refine_displacement
from pipelines.irnet.instances import instance_cams, split_maps


def read(field: np.ndarray, y: float, x: float) -> np.ndarray:
    """Bilinear value of (2, h, w) at a position inside the map, one position at a time."""
    height, width = field.shape[1:]
    y0, x0 = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    a, b = y - y0, x - x0
    return (field[:, y0, x0] * (1 - a) * (1 - b) + field[:, y0, x1] * (1 - a) * b
            + field[:, y1, x0] * a * (1 - b) + field[:, y1, x1] * a * b)


def refined_by_loop(field: np.ndarray, iterations: int) -> np.ndarray:
    """Eq. 10 cell by cell, in float64; where a vector points is held inside the map."""
    field = field.astype(np.float64)
    height, width = field.shape[1:]
    result = field.copy()
    for _ in range(iterations):
        previous = result.copy()
        for y, x in np.ndindex(height, width):
            target = np.clip(np.array([y, x]) + previous[:, y, x], 0, [height - 1, width - 1])
            moved = np.clip(target + read(field, *target), 0, [height - 1, width - 1])
            result[:, y, x] = moved - [y, x]
    return result


def centripetal(height: int, width: int, boxes: list[tuple[int, int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (top, left, bottom, right) whose cells point at the box's centre, elsewhere far to the upper left."""
    field = np.full((2, height, width), -30.0, np.float32)
    truth = np.full((height, width), -1)
    for index, (top, left, bottom, right) in enumerate(boxes):
        rows, columns = np.mgrid[top:bottom, left:right]
        field[0, top:bottom, left:right] = (top + bottom - 1) / 2 - rows
        field[1, top:bottom, left:right] = (left + right - 1) / 2 - columns
        truth[top:bottom, left:right] = index
    return field, truth


@pytest.mark.parametrize("size", [(7, 9), (1, 6), (6, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_refinement_by_loop(size, iterations):
    field = np.random.default_rng(0).normal(0, 1.5, (2, *size)).astype(np.float32)
    found = refine_displacement(field, iterations)
    assert found.dtype == np.float32
    assert np.allclose(found, refined_by_loop(field, iterations), atol=1e-4)


def test_refinement_doubles_steps_and_converges():
    # A field that goes half of the way to column 8: 1, 1/2, 1/4 ... of it are left after each step.
    columns = np.arange(17.0, dtype=np.float32)
    field = np.zeros((2, 5, 17), np.float32)
    field[1] = (8 - columns) / 2
    for iterations in (0, 1, 2, 5):
        left = (8 - columns) * 0.5 ** (iterations + 1)
        assert np.allclose(refine_displacement(field, iterations)[1], 8 - columns - left, atol=1e-3)
    assert np.allclose(refine_displacement(field, 100)[1], 8 - columns, atol=5e-3)
    assert np.allclose(refine_displacement(field, 100), refine_displacement(field, 10_000), atol=5e-3)


def test_ideal_fields_stay_as_they_are():
    field, truth = centripetal(20, 40, [(2, 3, 15, 16), (4, 20, 17, 37)])
    refined = refine_displacement(field, 100)
    assert np.allclose(refined[:, truth >= 0], field[:, truth >= 0], atol=1e-3)


@pytest.mark.parametrize("boxes", [
    [(2, 3, 15, 16), (4, 20, 17, 37)],
    [(0, 0, 10, 12), (0, 12, 10, 30)],  # touching, and at the border
    [(0, 0, 20, 40)],
    [(1, 1, 8, 8), (9, 1, 18, 9), (1, 20, 18, 39)],
])
def test_ideal_fields_give_exactly_their_instances(boxes):
    field, truth = centripetal(20, 40, boxes)
    found = instance_map(field, 100, 2.5)
    assert found.dtype == np.int32
    labels = [np.unique(found[truth == index]) for index in range(len(boxes))]
    assert all(len(values) == 1 for values in labels)
    assert sorted(int(values[0]) for values in labels) == list(range(len(boxes)))


def test_weak_fields_need_the_refinement():
    field, truth = centripetal(24, 48, [(2, 2, 22, 23), (2, 25, 22, 46)])
    field[:, truth >= 0] *= 0.4  # vectors that fall short of the centre
    found = instance_map(field, 100, 2.5)
    left, right = found[truth == 0], found[truth == 1]
    assert len(np.unique(left)) == len(np.unique(right)) == 1
    assert left[0] != right[0]


def test_no_candidates_is_one_instance():
    field = np.full((2, 5, 6), 9.0, np.float32)
    assert np.array_equal(instance_map(field, 10, 2.5), np.zeros((5, 6), np.int32))
    assert instance_map(np.zeros((2, 1, 1), np.float16), 10, 2.5).tolist() == [[0]]


def test_diagonal_candidates_are_one_centroid():
    field = np.full((2, 4, 4), 50.0, np.float32)
    field[:, 0, 0] = field[:, 1, 1] = 0
    assert instance_map(field, 0, 2.5).max() == 0
    field[:, 1, 1] = 50
    field[:, 2, 2] = 0
    assert instance_map(field, 0, 2.5).max() == 1


def test_half_precision_and_labels_without_gaps():
    field = np.random.default_rng(1).normal(0, 4, (2, 30, 40)).astype(np.float16)
    found = instance_map(field, 20, 2.5)
    assert found.min() >= 0
    assert np.array_equal(found, instance_map(field.astype(np.float32), 20, 2.5))


def test_instance_cams_are_equation_11():
    cams = np.array([[[1.0, 0.5, 0.2, 0.0]], [[0.0, 0.1, 0.9, 1.0]]], np.float32)
    instances = np.array([[0, 0, 1, 2]])
    maps, pairs = instance_cams(cams, instances, 0.0)
    # Class 0 has no attention in instance 2.
    assert pairs.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]]
    for (c, k), values in zip(pairs, maps, strict=True):
        assert np.array_equal(values, np.where(instances == k, cams[c], 0))
    # Over all instances the maps add up to the class's attention.
    for c in (0, 1):
        assert np.array_equal(maps[pairs[:, 0] == c].sum(0), cams[c])
    _, strong = instance_cams(cams, instances, 0.3)
    assert strong.tolist() == [[0, 0], [1, 1], [1, 2]]


@pytest.mark.parametrize("cams", [np.zeros((0, 3, 4)), np.zeros((2, 3, 4))])
def test_instance_cams_of_nothing(cams):
    maps, pairs = instance_cams(cams, np.zeros((3, 4), np.int32), 0.3)
    assert maps.shape == (0, 3, 4)
    assert maps.dtype == np.float32
    assert pairs.shape == (0, 2)
    assert pairs.dtype == np.int64


def test_maps_split_by_pairs():
    maps = np.arange(1.0, 9.0).reshape(2, 2, 2)
    instances = np.array([[0, 1], [1, 1]])
    found = split_maps(maps, instances, np.array([[1, 1], [0, 0]]))
    assert found.dtype == np.float32
    assert found.tolist() == [[[0, 6], [7, 8]], [[1, 0], [0, 0]]]
    assert split_maps(maps, instances, np.zeros((0, 2), np.int64)).shape == (0, 2, 2)
