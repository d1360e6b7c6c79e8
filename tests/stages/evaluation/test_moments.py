"""True and false positives among labels of some moments, on hand-drawn masks."""

from __future__ import annotations

import numpy as np
import pytest

from stages.evaluation.moments import count_moments, measure_moments
from stages.labels import rle
from stages.runtime.errors import UserError
from stages.runtime.files import write_json


def _mask(left: int, right: int) -> dict:
    mask = np.zeros((8, 12), bool)
    mask[2:6, left:right] = True
    return rle.encode(mask)


def _object(number: int, left: int, right: int, category: int = 1, image: int = 1, iscrowd: int = 0) -> dict:
    return {"id": number, "image_id": image, "category_id": category, "segmentation": _mask(left, right),
            "area": 4 * (right - left), "iscrowd": iscrowd, "bbox": [left, 2, right - left, 4]}


def _label(left: int, right: int, kind: str = "refined", category: int = 1, image: int = 1) -> dict:
    return {"image_id": image, "category_id": category, "segmentation": _mask(left, right), "score": 0.5, "kind": kind}


TRUTH = [_object(1, 0, 4), _object(2, 6, 10), _object(3, 0, 4, category=2, image=2)]


def _row(*labels: dict, truth: list[dict] | None = None) -> dict:
    row, = count_moments([{"share": 0.25, "annotations": list(labels)}], TRUTH if truth is None else truth)
    return row


def test_true_and_false_ones():
    row = _row(_label(0, 4), _label(6, 8), _label(4, 6))  # IoU 1, exactly .5, 0
    assert row == {"training": 25.0, "pseudo_true": 0, "pseudo_false": 0, "refined_true": 2, "refined_false": 1}


def test_one_per_object():
    row = _row(_label(0, 4), _label(0, 3))
    assert (row["refined_true"], row["refined_false"]) == (1, 1)


def test_class_and_image_have_to_agree():
    row = _row(_label(0, 4, category=2), _label(0, 4, image=2), _label(0, 4, category=2, image=2))
    assert (row["refined_true"], row["refined_false"]) == (1, 2)


def test_a_label_over_two_objects_is_none_of_them():
    row = _row(_label(0, 10))
    assert (row["refined_true"], row["refined_false"]) == (0, 1)


def test_labels_in_crowds_do_not_count():
    row = _row(_label(0, 4), _label(6, 8), truth=[_object(1, 0, 4), _object(2, 5, 12, iscrowd=1)])
    assert (row["refined_true"], row["refined_false"]) == (1, 0)


def test_kinds_stand_beside_each_other_in_every_row():
    first, last = count_moments([
        {"share": 0.5, "annotations": [_label(0, 4, kind="pseudo")]},
        {"share": 1.0, "annotations": [_label(0, 4, kind="pseudo"), _label(6, 10)]}], TRUTH)
    assert first == {"training": 50.0, "pseudo_true": 1, "pseudo_false": 0, "refined_true": 0, "refined_false": 0}
    assert last == {"training": 100.0, "pseudo_true": 1, "pseudo_false": 0, "refined_true": 1, "refined_false": 0}


def test_nothing_at_all():
    assert count_moments([], TRUTH) == []
    assert _row() == {"training": 25.0, "pseudo_true": 0, "pseudo_false": 0, "refined_true": 0, "refined_false": 0}


def test_files(tmp_path):
    truth, path = tmp_path / "truth.json", tmp_path / "moments.json"
    images = [{"id": number, "file_name": f"{number}.png", "width": 12, "height": 8} for number in (1, 2)]
    write_json(truth, {"images": images, "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
                       "annotations": TRUTH})
    assert measure_moments(path, truth) == []
    write_json(path, {"images": [1], "moments": [{"share": 1.0, "annotations": [_label(0, 4)]}]})
    row, = measure_moments(path, truth)
    assert (row["training"], row["refined_true"], row["refined_false"]) == (100.0, 1, 0)
    write_json(path, {"images": [1], "moments": [{"share": 1.0, "annotations": [_label(0, 4, image=9)]}]})
    with pytest.raises(UserError, match=r"moments.json: does not fit[^\n]*\n.*image_id 9 is not in"):
        measure_moments(path, truth)
    write_json(path, [])
    with pytest.raises(UserError, match="moments.json: \"images\" and \"moments\" were expected"):
        measure_moments(path, truth)
