import json
import math

import numpy as np
import pytest

from stages.evaluation.inputs import Truth
from stages.evaluation.measure import measure
from stages.evaluation.settings import EvaluateSettings, ScoreSettings
from stages.runtime.settings import RuntimeSettings
from tests.stages.evaluation.scenes import annotation, scene, square

ONE = RuntimeSettings(workers=1)


def numbers(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    else:
        yield value


def truth_of(images, categories, annotations) -> Truth:
    return Truth("truth.json", images, categories, annotations, "")


def run(images, categories, annotations, labels, **more):
    return measure(truth_of(images, categories, annotations), labels, ScoreSettings(), more.pop("min_score", 0.0), ONE,
                   **more)


def test_truth_as_labels_is_perfect():
    images, categories, truth, _ = scene(0)
    found = run(images, categories, truth, [item | {"score": 0.7} for item in truth])
    for section in ("voc", "coco", "panoptic"):
        assert set(found[section].values()) == {100.0}
    assert found["objects"]["mean_iou"] == found["painted"]["mIoU"] == 100.0
    assert found["objects"]["labels"] == found["objects"]["objects"] == len(truth)
    assert set(found["classes"]) == {"class 0", "class 1", "class 2"}
    json.dumps(found, allow_nan=False)


def test_no_labels():
    images, categories, truth, _ = scene(0)
    found = run(images, categories, truth, [])
    assert found["voc"] == {"AP25": 0.0, "AP50": 0.0, "AP70": 0.0, "AP75": 0.0, "AP_vol": 0.0}
    assert found["coco"]["AP"] == found["panoptic"]["PQ"] == found["objects"]["recall50"] == 0.0
    assert found["objects"]["images_without_labels"] == len(images)


@pytest.mark.parametrize("crowds", [False, True])
def test_all_numbers_are_finite_and_in_range(crowds):
    images, categories, truth, detections = scene(3, crowds=crowds)
    categories = [*categories, {"id": 99, "name": "nowhere", "isthing": 1}]
    found = run(images, categories, truth, detections)
    assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in numbers(found))
    assert "nowhere" not in found["classes"]
    mean = np.mean([figures["AP50"] for figures in found["classes"].values()])
    assert found["voc"]["AP50"] == pytest.approx(mean, abs=2e-3)
    assert sum(figures["objects"] for figures in found["classes"].values()) == found["objects"]["objects"]
    assert sum(figures["objects"] for figures in found["size"].values()) == found["objects"]["objects"]


def test_workers_do_not_change_the_numbers():
    images, categories, truth, detections = scene(4, images=70)
    two = measure(truth_of(images, categories, truth), detections, ScoreSettings(), 0.0, RuntimeSettings(workers=2))
    assert two == run(images, categories, truth, detections)


def test_stuff_is_background_for_things():
    categories = [{"id": 1, "name": "thing", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}]
    images = [{"id": 1, "file_name": "a.jpg", "height": 10, "width": 10}]
    truth = [annotation(1, 1, 1, square(10, 10, 0, 0, 4, 4)), annotation(2, 1, 2, square(10, 10, 0, 5, 10, 5))]
    found = run(images, categories, truth, truth[:1])
    assert found["voc"]["AP50"] == 100.0
    assert found["painted"]["mIoU"] == 100.0
    assert set(found["classes"]) == {"thing"}
    assert found["objects"]["objects"] == 1
    assert "with_stuff" not in found["panoptic"]
    both = run(images, categories, truth, truth)
    assert both["panoptic"]["with_stuff"] == both["panoptic"]["stuff"] == {"PQ": 100.0, "SQ": 100.0, "DQ": 100.0}
    assert both["objects"]["labels"] == 1


def test_undecided_regions_are_no_labels():
    categories = [{"id": 1, "name": "thing", "isthing": 1}]
    images = [{"id": 1, "file_name": "a.jpg", "height": 10, "width": 10}]
    truth = [annotation(1, 1, 1, square(10, 10, 0, 0, 5, 10))]
    undecided = annotation(2, 1, 1, square(10, 10, 0, 0, 5, 4), iscrowd=1)
    label = annotation(1, 1, 1, square(10, 10, 0, 4, 5, 6), score=0.9)
    found = run(images, categories, truth, [label, undecided])
    assert found["objects"]["labels"] == 1
    assert found["objects"]["undecided_regions"] == 1
    assert found["objects"]["mean_iou"] == 60.0
    assert found["painted"] == {"mIoU": 80.0, "undecided_pixels": 20.0, "background_IoU": 100.0}


def test_low_scores_count_in_ap_only():
    images, categories, truth, _ = scene(0)
    labels = [item | {"score": 0.2} for item in truth]
    found = measure(truth_of(images, categories, truth), labels, EvaluateSettings(), 0.5, ONE)
    assert found["voc"]["AP50"] == 100.0
    assert found["panoptic"]["PQ"] == found["objects"]["recall50"] == 0.0


def test_overlaps_go_to_the_better_score():
    """Painted disjoint: the weaker of two copies is hidden and dropped, so it is no false alarm of PQ."""
    categories = [{"id": 1, "name": "thing", "isthing": 1}]
    images = [{"id": 1, "file_name": "a.jpg", "height": 6, "width": 6}]
    truth = [annotation(1, 1, 1, square(6, 6, 0, 0, 3, 3))]
    labels = [annotation(1, 1, 1, square(6, 6, 0, 0, 3, 4), score=0.4), annotation(2, 1, 1, square(6, 6, 0, 0, 3, 3))]
    assert run(images, categories, truth, labels)["panoptic"] == {"PQ": 100.0, "SQ": 100.0, "DQ": 100.0}
