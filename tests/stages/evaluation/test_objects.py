import numpy as np
import pytest

from stages.evaluation.matching import match
from stages.evaluation.objects import coverage, coverage_by_size, coverage_of_separated, part_count
from stages.labels import rle
from tests.stages.evaluation.scenes import annotation, square


@pytest.mark.parametrize(("rows", "parts"), [
    ("0000 0000", 0), ("0000 0100", 1), ("1100 0011", 2), ("1100 0110", 1), ("1010 0000 1010", 4), ("111 101 111", 1),
])
def test_part_count_is_four_connected(rows, parts):
    assert part_count(rle.encode(np.array([[int(pixel) for pixel in row] for row in rows.split()]))) == parts


def test_coverage():
    assert coverage(np.array([1.0, 0.5, 0.0, 0.25])) == {"objects": 4, "mean_iou": 0.4375, "recall50": 0.5}
    assert coverage(np.zeros(0)) == {"objects": 0}
    by_class = coverage(np.array([1.0, 0.5, 0.0, 0.25]), np.array([7, 7, 7, 2]))
    assert by_class == {"objects": 4, "mean_iou": 0.4375, "recall50": 0.5, "class_mean_iou": (0.5 + 0.25) / 2}


def test_by_size_and_separated():
    truth = [annotation(1, 1, 1, square(120, 120, 0, 0, 31, 31)), annotation(2, 1, 1, square(120, 120, 0, 0, 32, 32)),
             annotation(3, 2, 1, square(120, 120, 0, 0, 96, 96)),
             annotation(4, 3, 1, square(120, 120, 0, 0, 5, 5) | square(120, 120, 10, 10, 5, 5)),
             annotation(5, 3, 1, square(120, 120, 50, 0, 5, 5) | square(120, 120, 70, 10, 5, 5), iscrowd=1)]
    detections = [annotation(1, 3, 1, square(120, 120, 0, 0, 5, 5)),
                  annotation(2, 2, 1, square(120, 120, 0, 0, 96, 96))]
    matches = match(truth, detections)
    sizes = coverage_by_size(matches, 1024, 9216)
    assert sizes["small"] == {"objects": 2, "mean_iou": 0.25, "class_mean_iou": 0.25, "recall50": 0.5}
    assert sizes["medium"] == {"objects": 1, "mean_iou": 0.0, "class_mean_iou": 0.0, "recall50": 0.0}
    assert sizes["large"] == {"objects": 1, "mean_iou": 1.0, "class_mean_iou": 1.0, "recall50": 1.0}
    assert sizes["medium_and_large"] == {"objects": 2, "mean_iou": 0.5, "class_mean_iou": 0.5, "recall50": 0.5}
    parts = {"objects": 1, "mean_iou": 0.5, "class_mean_iou": 0.5, "recall50": 1.0}
    assert coverage_of_separated(matches, truth, 1024) == {**parts, "medium_and_large": {"objects": 0}}
    assert coverage_of_separated(matches, truth, 50) == {**parts, "medium_and_large": parts}
