"""Maps between a grid of cells and the image."""

from __future__ import annotations

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


def test_shrinking_takes_the_middle():
    labels = np.arange(9 * 10, dtype=np.uint8).reshape(9, 10)
    assert np.array_equal(shrink_labels(labels, 1), labels)
    for stride in (2, 3, 4, 5, 20):
        found = shrink_labels(labels, stride)
        assert found.shape == (-(-9 // stride), -(-10 // stride))
        assert found.dtype == labels.dtype
        for row, column in np.ndindex(found.shape):
            assert found[row, column] == labels[min(row * stride + stride // 2, 8),
                                                min(column * stride + stride // 2, 9)]


def test_shrinking_what_was_enlarged_gives_it_back():
    cells = np.random.default_rng(0).integers(0, 5, (6, 7)).astype(np.uint8)
    for stride in (2, 3, 4):
        large = np.repeat(np.repeat(cells, stride, axis=0), stride, axis=1)
        assert np.array_equal(shrink_labels(large, stride), cells)
        assert np.array_equal(shrink_labels(large[:-1, :-1], stride), cells)  # the last cells hang over the image
