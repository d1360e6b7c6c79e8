import json
import math
from pathlib import Path

import numpy as np
import pytest

from stages.evaluation.inputs import Truth
from stages.evaluation.measure import measure
from stages.evaluation.settings import EvaluateSettings, ScoreSettings
from stages.runtime.settings import RuntimeSettings
from tests.stages.evaluation.federated import federated_ap, federated_scene
from tests.stages.evaluation.scenes import annotation, scene, square

ONE = RuntimeSettings(workers=1)


def numbers(value):
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    else:
        yield value


def truth_of(images, categories, annotations) -> Truth:
    return Truth(Path("truth.json"), images, categories, annotations, "")


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


def test_federated_truth_is_measured_by_its_protocol_too():
    images, categories, truth, detections = federated_scene(2)
    truth = [item | {"category_id": item["category_id"] + 1000} for item in truth]
    detections = [item | {"category_id": item["category_id"] + 1000} for item in detections]
    categories = [item | {"id": item["id"] + 1000} for item in categories]  # like LVIS's, above 255
    for image in images:
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            image[key] = [number + 1000 for number in image[key]]
    found = run(images, categories, truth, detections)
    figures, per_class = federated_ap(images, categories, truth, detections)
    assert found["lvis"] == pytest.approx({name: 100 * value for name, value in figures.items()}, abs=5e-4)
    for category in categories:
        expected = per_class.get(category["id"])
        measured = found["classes"].get(category["name"], {}).get("lvis_AP")
        assert measured == (None if expected is None else pytest.approx(100 * expected, abs=5e-4))
    assert found["lvis"]["AP"] > found["coco"]["AP"]  # which takes what is not labelled for background
    json.dumps(found, allow_nan=False)
    few = measure(truth_of(images, categories, truth), detections, ScoreSettings(lvis_max_detections=1), 0.0, ONE)
    assert few["coco"] == found["coco"] and few["lvis"] == pytest.approx(
        {name: 100 * value for name, value in federated_ap(images, categories, truth, detections, 1)[0].items()},
        abs=5e-4)
    images[0].pop("neg_category_ids")
    assert "lvis" not in run(images, categories, truth, detections)


def test_as_many_classes_as_lvis_has():
    categories = [{"id": number, "name": f"class {number}", "isthing": 1, "frequency": "rcf"[number % 3]}
                  for number in range(1, 1204)]
    images = [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 40, "neg_category_ids": [7, 1000],
               "not_exhaustive_category_ids": [255]}]
    masks = {255: square(40, 40, 0, 0, 9, 9), 256: square(40, 40, 10, 0, 9, 9), 1203: square(40, 40, 0, 20, 9, 9)}
    truth = [annotation(number, 1, number, mask) for number, mask in masks.items()]
    found = run(images, categories, truth, truth)
    assert found["lvis"] == {"AP": 100.0, "AP50": 100.0, "AP75": 100.0, "APs": 100.0, "APr": 100.0, "APc": 100.0}
    assert set(found["classes"]) == {"class 255", "class 256", "class 1203"}
    assert found["painted"]["mIoU"] == found["panoptic"]["PQ"] == 100.0


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
