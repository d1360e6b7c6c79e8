"""Where the crops that are tagged lie."""

from __future__ import annotations

import numpy as np
import pytest

from stages.labels.tag_crops import TagCrop, crop_grid, tag_crops, to_json


def test_cityscapes_as_the_paper_has_them():
    windows = crop_grid((1024, 2048), rows=3, columns=5, height=400, width=500)
    assert [left for left, *_ in windows[:5]] == [0, 387, 774, 1161, 1548]
    assert [top for _, top, *_ in windows[::5]] == [0, 312, 624]
    assert windows[-1] == (1548, 624, 2048, 1024)


def test_the_grid_of_the_embedded_data_set():
    windows = crop_grid((128, 160), rows=3, columns=5, height=50, width=39)
    assert windows[0] == (0, 0, 39, 50) and windows[-1] == (121, 78, 160, 128) and len(windows) == 15


@pytest.mark.parametrize(("size", "grid"), [
    ((128, 160), (3, 5, 50, 39)), ((37, 41), (2, 3, 19, 14)), ((7, 5), (3, 5, 400, 500)), ((1, 1), (4, 4, 2, 2)),
    ((100, 101), (3, 4, None, None)), ((100, 101), (1, 1, None, None)), ((10, 10), (1, 3, 10, 4)),
])
def test_crops_cover_the_image_and_lie_in_it(size, grid):
    covered = np.zeros(size, int)
    windows = crop_grid(size, *grid)
    for left, top, right, bottom in windows:
        assert 0 <= left < right <= size[1] and 0 <= top < bottom <= size[0]
        covered[top:bottom, left:right] += 1
    assert covered.min() >= 1 and len(windows) == grid[0] * grid[1]
    assert len({(right - left, bottom - top) for left, top, right, bottom in windows}) == 1
    assert windows[0][:2] == (0, 0) and windows[-1][2:] == size[::-1]


def test_crops_that_leave_a_part_uncovered_are_refused():
    with pytest.raises(ValueError, match="3 crops of 33 px do not cover an image that is 100 px high"):
        crop_grid((100, 100), 3, 3, 33, 34)


def test_what_a_file_holds_is_what_comes_back():
    crops = [TagCrop((0, 0, 5, 4), [3]), TagCrop((2, 0, 7, 4), [])]
    image = {"width": 7, "height": 4, "tags": [3, 9], "tag_crops": [to_json(crop) for crop in crops]}
    assert tag_crops(image) == crops
    del image["tag_crops"]
    assert tag_crops(image) == [TagCrop((0, 0, 7, 4), [3, 9])], "the whole image with its tags"
