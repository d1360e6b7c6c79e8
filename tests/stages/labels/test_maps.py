"""Maps between a grid of cells and the image."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stages.labels.maps import shrink_labels, upsample_cells


def by_loop(cells: np.ndarray, stride: int, size: tuple[int, int]) -> np.ndarray:
    """Bilinear values between the cells' centres, which lie on (stride - 1) / 2 + stride * index."""
    found = np.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = (min(max((at - (stride - 1) / 2) / stride, 0), count - 1)
                    for at, count in ((row, cells.shape[0]), (column, cells.shape[1])))
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, cells.shape[0] - 1), min(x0 + 1, cells.shape[1] - 1)
            found[row, column] = (cells[y0, x0] * (1 - y + y0) * (1 - x + x0) + cells[y0, x1] * (1 - y + y0) * (x - x0)
                                  + cells[y1, x0] * (y - y0) * (1 - x + x0) + cells[y1, x1] * (y - y0) * (x - x0))
    return found


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("size", [(1, 1), (5, 13), (16, 24), (17, 9)])
def test_upsampling_by_hand(stride, size):
    shape = (2, -(-size[0] // stride), -(-size[1] // stride))
    maps = np.random.default_rng(stride).random(shape)
    found = upsample_cells(maps, stride, size)
    assert found.shape == (2, *size)
    assert found.dtype == np.float32
    for cells, values in zip(maps, found, strict=True):
        assert np.allclose(values, by_loop(cells, stride, size), atol=1e-3)


def test_upsampling_keeps_constants_range_and_half_precision():
    maps = np.full((1, 3, 5), 0.25, np.float16)
    assert (upsample_cells(maps, 4, (10, 19)) == 0.25).all()
    random = np.random.default_rng(0).random((3, 6, 7)).astype(np.float16)
    found = upsample_cells(random, 4, (23, 25))
    assert found.min() >= random.min()
    assert found.max() <= random.max()


def test_no_maps():
    assert upsample_cells(np.zeros((0, 3, 4)), 4, (12, 16)).shape == (0, 12, 16)


def middle(labels: np.ndarray, stride: int, row: int, column: int) -> int:
    """The commonest label of the pixels whose centres are nearest to a cell's, of equally common ones the largest."""
    height, width = labels.shape
    near = [sorted({min(stride * cell + (stride - 1) // 2, side - 1), min(stride * cell + stride // 2, side - 1)})
            for cell, side in ((row, height), (column, width))]
    counts = Counter(int(labels[y, x]) for y in near[0] for x in near[1])
    return max(label for label, count in counts.items() if count == max(counts.values()))


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5, 8, 20])
def test_shrinking_takes_the_middle(stride):
    for labels in (np.arange(9 * 10, dtype=np.uint8).reshape(9, 10),
                   np.random.default_rng(stride).choice(np.array([0, 1, 255], np.uint8), (24, 37))):
        found = shrink_labels(labels, stride)
        assert found.shape == (-(-labels.shape[0] // stride), -(-labels.shape[1] // stride))
        assert found.dtype == labels.dtype
        assert all(found[cell] == middle(labels, stride, *cell) for cell in np.ndindex(found.shape))


def test_shrinking_by_hand():
    labels = np.array([[7, 7, 7, 7, 7, 7, 7, 7],
                       [7, 2, 2, 7, 7, 0, 3, 7],
                       [7, 2, 5, 7, 7, 3, 0, 7],
                       [7, 7, 7, 7, 7, 7, 7, 7]], np.int64)
    assert shrink_labels(labels, 4).tolist() == [[2, 3]]  # a majority; an object before the background
    assert shrink_labels(np.array([[255, 4], [255, 4]], np.uint8), 2).tolist() == [[255]]  # not sure is not sure


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 8])
def test_shrinking_a_mirrored_map_mirrors_the_cells(stride):
    labels = np.random.default_rng(stride).integers(0, 4, (3 * stride, 5 * stride)).astype(np.uint8)
    for flip in (np.flipud, np.fliplr, np.rot90, np.transpose):
        assert np.array_equal(shrink_labels(flip(labels), stride), flip(shrink_labels(labels, stride)))


def test_shrinking_what_was_enlarged_gives_it_back():
    cells = np.random.default_rng(0).integers(0, 5, (6, 7)).astype(np.uint8)
    for stride in (2, 3, 4):
        large = np.repeat(np.repeat(cells, stride, axis=0), stride, axis=1)
        assert np.array_equal(shrink_labels(large, stride), cells)
        assert np.array_equal(shrink_labels(large[:-1, :-1], stride), cells)  # the last cells hang over the image
