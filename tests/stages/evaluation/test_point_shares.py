from __future__ import annotations

import numpy as np

from stages.evaluation.points import measure_points
from stages.labels import rle
from stages.runtime.files import write_npz

IMAGE = {"id": 7, "file_name": "a.png", "width": 8, "height": 8}


def _truth(category: int = 1, crowd: int = 0) -> dict:
    """The left half of the box 2..6 x 2..6."""
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:4] = True
    return {"id": 1, "image_id": 7, "category_id": category, "iscrowd": crowd, "segmentation": rle.encode(mask),
            "bbox": [2, 2, 4, 4]}


def _write(folder, labels: list[list[int]], box=(2, 2, 6, 6), category: int = 1) -> None:
    write_npz(folder / "000000000007.npz", labels=np.array([labels], np.int8),
              windows=np.array([[0, 0, 8, 8]], np.int32), boxes=np.array([box], np.float64),
              categories=np.array([category]))


# Cells of 2 px: the object is the two cells in the second column, the box holds the middle four.
LABELS = [[-2, -2, -2, -2], [-2, 2, 1, -2], [-2, 1, -1, -2], [-2, -2, -2, -2]]


def test_shares_of_hand_drawn_points(tmp_path):
    _write(tmp_path, LABELS)
    assert measure_points(tmp_path, [IMAGE], [_truth()]) == {
        "objects": 1, "foreground_precision": 50.0, "foreground_coverage": 50.0, "background_precision": 100.0,
        "background_coverage": 50.0, "given_precision": 100.0, "prior": 50.0}


def test_cells_count_by_half_their_area(tmp_path):
    """At 3 x 3 cells of 2.67 px the object covers no cell by half but the middle one."""
    _write(tmp_path, [[-2, -2, -2], [-2, 1, -2], [-2, -2, -2]])
    found = measure_points(tmp_path, [IMAGE], [_truth()])
    assert found["foreground_precision"] == found["prior"] == 100.0


def test_only_objects_that_were_annotated_count(tmp_path):
    for change in ({"box": (0, 0, 3, 3)}, {"category": 2}):
        _write(tmp_path, LABELS, **change)
        assert measure_points(tmp_path, [IMAGE], [_truth()]) == {"objects": 0}
    _write(tmp_path, LABELS)
    assert measure_points(tmp_path, [IMAGE], [_truth(crowd=1)]) == {"objects": 0}


def test_images_without_a_file(tmp_path):
    assert measure_points(tmp_path, [IMAGE], [_truth()]) == {"objects": 0}
