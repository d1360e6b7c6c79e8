"""Pixel pairs and lines against brute force."""

import numpy as np
import pytest
import torch

from stages.propagation.affinity import pair_affinity
from stages.propagation.pairs import line_pixels, neighbour_offsets, pair_views
from tests.stages.propagation.reference import line_set


@pytest.mark.parametrize("radius", [0.5, 1, 1.01, 1.5, 2, 3, 4.2, 5, 10])
def test_offsets_are_all_unordered_pairs_strictly_below_the_radius(radius):
    offsets = neighbour_offsets(radius)
    reach = int(radius) + 1
    expected = {
        frozenset([(0, 0), (dy, dx)])
        for dy in range(-reach, reach + 1)
        for dx in range(-reach, reach + 1)
        if 0 < np.hypot(dy, dx) < radius
    }
    found = set()
    for dy, dx in offsets.tolist():
        found.add(frozenset([(0, 0), (dy, dx)]))
        found.add(frozenset([(0, 0), (-dy, -dx)]))
    assert found == expected
    assert len(offsets) * 2 == len(expected)
    assert offsets.shape[1:] == (2,)
    assert np.array_equal(offsets, offsets[np.lexsort((offsets[:, 1], offsets[:, 0]))])


def test_numbers_of_pairs_at_the_radii_of_the_paper():
    assert len(neighbour_offsets(5)) == 34
    assert len(neighbour_offsets(10)) == 152
    assert [0, 5] not in neighbour_offsets(5).tolist()


@pytest.mark.parametrize("radius", [0, -1, float("nan"), float("inf")])
def test_impossible_radius(radius):
    with pytest.raises(ValueError, match="radius"):
        neighbour_offsets(radius)


@pytest.mark.parametrize("offset", [tuple(offset) for offset in neighbour_offsets(10).tolist()])
def test_line_is_the_set_of_nearest_pixels(offset):
    pixels = [tuple(pixel) for pixel in line_pixels(offset).tolist()]
    assert len(set(pixels)) == len(pixels)
    assert set(pixels) == line_set((0, 0), offset)


@pytest.mark.parametrize("offset", [(0, 1), (2, -1), (3, 4), (4, -2), (1, 7)])
def test_line_does_not_depend_on_direction_or_orientation(offset):
    dy, dx = offset
    forth = {tuple(pixel) for pixel in line_pixels(offset).tolist()}
    back = {(dy + y, dx + x) for y, x in line_pixels((-dy, -dx)).tolist()}
    mirrored = {(y, -x) for y, x in line_pixels((dy, -dx)).tolist()}
    transposed = {(y, x) for x, y in line_pixels((dx, dy)).tolist()}
    assert forth == back == mirrored == transposed


def test_drawn_lines():
    assert line_pixels((0, 2)).tolist() == [[0, 0], [0, 1], [0, 2]]
    assert line_pixels((2, 2)).tolist() == [[0, 0], [1, 1], [2, 2]]
    assert line_pixels((1, 2)).tolist() == [[0, 0], [0, 1], [1, 1], [1, 2]]  # halfway both are equally near
    assert line_pixels((1, -3)).tolist() == [[0, 0], [0, -1], [1, -2], [1, -3]]
    assert line_pixels((0, 0)).tolist() == [[0, 0]]


@pytest.mark.parametrize("shape", [(6, 7), (1, 9), (9, 1), (1, 1), (3, 2)])
def test_pair_views_are_all_pairs_of_the_image(shape):
    height, width = shape
    index = np.arange(height * width).reshape(height, width)
    found = set()
    for offset in neighbour_offsets(4).tolist():
        first, second = pair_views(index, offset)
        assert first.shape == second.shape == (max(0, height - offset[0]), max(0, width - abs(offset[1])))
        pairs = {frozenset(pair) for pair in zip(first.ravel().tolist(), second.ravel().tolist(), strict=True)}
        assert not found & pairs
        found |= pairs
    pixels = [(y, x) for y in range(height) for x in range(width)]
    expected = {
        frozenset([a[0] * width + a[1], b[0] * width + b[1]])
        for a in pixels
        for b in pixels
        if a != b and np.hypot(a[0] - b[0], a[1] - b[1]) < 4
    }
    assert found == expected


def test_pair_views_keep_leading_dimensions_and_take_tensors():
    array = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    first, second = pair_views(array, (1, -2))
    assert first.shape == second.shape == (2, 3, 3, 3)
    assert torch.equal(first, array[:, :, :3, 2:])
    assert torch.equal(second, array[:, :, 1:, :3])
    assert first.data_ptr() == array[0, 0, 0, 2:].data_ptr()  # a view, no copy


def test_affinity_against_brute_force():
    rng = np.random.default_rng(0)
    boundary = rng.random((2, 6, 5))
    for dy, dx in neighbour_offsets(4).tolist():
        found = pair_affinity(torch.from_numpy(boundary), (dy, dx)).numpy()
        anchors = [(y, x) for y in range(6) for x in range(5) if 0 <= y + dy < 6 and 0 <= x + dx < 5]
        expected = [[1 - max(image[pixel] for pixel in line_set((y, x), (y + dy, x + dx))) for y, x in anchors]
                    for image in boundary]
        assert found.shape == (2, 6 - dy, 5 - abs(dx))
        assert np.array_equal(found.reshape(2, -1), expected)


def test_affinity_of_an_image_smaller_than_the_radius():
    found = [pair_affinity(torch.zeros(1, 1, 2), offset) for offset in map(tuple, neighbour_offsets(5).tolist())]
    assert sum(item.numel() for item in found) == 1  # the only pair
    assert sum(float(item.sum()) for item in found) == 1
    assert all(pair_affinity(torch.zeros(0, 4, 4), offset).numel() == 0 for offset in ((0, 1), (2, -1)))


def test_gradient():
    generator = torch.Generator().manual_seed(0)
    boundary = torch.rand(2, 4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    for offset in map(tuple, neighbour_offsets(3).tolist()):
        assert torch.autograd.gradcheck(lambda b, offset=offset: pair_affinity(b, offset), (boundary,))


def test_gradient_is_divided_among_equal_pixels():
    boundary = torch.full((1, 4), 0.5, dtype=torch.float64, requires_grad=True)
    pair_affinity(boundary, (0, 3)).sum().backward()
    assert boundary.grad.tolist() == [[-0.25] * 4]


def test_gradient_memory_is_two_maps_per_offset():
    boundary = torch.rand(1, 8, 8, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        pair_affinity(boundary, (3, 4))
    assert len(saved) == 2
