import pytest

from stages.evaluation.cost import (
    Counts,
    annotation_cost,
    count_labels,
    reference_key,
    remember_reference,
    retention,
    supervision,
)
from stages.evaluation.settings import AnnotationSeconds

SECONDS = AnnotationSeconds()


@pytest.mark.parametrize(("kinds", "share", "expected", "kind"), [
    (["tags"], 1.0, 20.0, "tags"),
    (["tags", "points"], 1.0, 23.3, "points"),
    (["boxes", "tags"], 1.0, 38.1, "boxes"),
    (["extreme_points"], 1.0, 38.1, "extreme_points"),
    (["masks"], 1.0, 239.7, "masks"),
    (["tags", "masks"], 1.0, 239.7, "masks"),
    (["tags", "masks"], 0.1, 0.9 * 20.0 + 0.1 * 239.7, "tags"),
    (["points", "masks"], 0.0, 23.3, "points"),
])
def test_annotation_cost(kinds, share, expected, kind):
    found = annotation_cost(kinds, share, SECONDS)
    assert found["seconds_per_image"] == pytest.approx(expected, abs=1e-3)
    assert found["kind"] == kind
    assert found["source"]


def test_the_papers_cityscapes_image():
    """App. D: 17.9 boxes and 15 crops of 3.8 tags of stuff take 182.3 s; 1 / 29.6 of 90 minutes."""
    counts = Counts(masked=0.0, boxes=17.9, stuff_tags=15 * 3.8, crops=15)
    found = annotation_cost(["boxes", "tags"], 0.0, SECONDS, counts)
    assert found["seconds_per_image"] == found["counted"]["seconds_per_image"] == pytest.approx(182.3)
    assert 5400 / found["seconds_per_image"] == pytest.approx(29.6, abs=0.05)
    assert "panoptic App. D" in found["source"] and found["kind"] == "boxes and tags of stuff"
    assert found["per_image"] == {"seconds_per_image": 38.1, "kind": "boxes", "source": "BESTIE section 4.3"}
    assert found["counted"]["boxes_per_image"] == 17.9 and found["counted"]["crops_per_image"] == 15
    half = annotation_cost(["boxes", "tags", "masks"], 0.5, AnnotationSeconds(masks=5400.0), counts)
    assert half["seconds_per_image"] == pytest.approx((182.3 + 5400) / 2)
    assert half["per_image"]["seconds_per_image"] == pytest.approx((38.1 + 5400) / 2)


def test_boxes_without_tags_of_stuff_keep_the_average(tmp_path):
    found = annotation_cost(["boxes"], 0.0, SECONDS, Counts(0.0, 2.5, 3.0, 1.0))
    assert found["seconds_per_image"] == 38.1 and "per_image" not in found
    assert found["counted"]["seconds_per_image"] == pytest.approx(17.5)
    assert "counted" not in annotation_cost(["points", "tags"], 0.0, SECONDS, Counts(0.0, 0.0, 3.0, 1.0))
    assert "counted" not in annotation_cost(["boxes", "masks"], 1.0, SECONDS, Counts(1.0, 2.5, 3.0, 1.0))


def test_counting():
    weak = {"categories": [{"id": 1, "name": "cat"}, {"id": 8, "name": "sky", "isthing": 0},
                           {"id": 9, "name": "sea", "isthing": 0}],
            "images": [{"id": 1, "height": 4, "width": 4, "tags": [1, 8], "tag_crops": [
                           {"bbox": [0, 0, 2, 4], "tags": [1, 8, 9]}, {"bbox": [2, 0, 2, 4], "tags": [8]}]},
                       {"id": 2, "height": 4, "width": 4, "tags": [1, 8]},
                       {"id": 3, "height": 4, "width": 4, "tags": [1, 8, 9], "fully_labelled": 1}],
            "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}, {"image_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": 1},
                            {"image_id": 2, "bbox": [0, 0, 1, 1]}, {"image_id": 2, "point": [0, 0]},
                            {"image_id": 3, "bbox": [0, 0, 1, 1]}]}
    counts = count_labels(weak)
    assert counts == Counts(masked=pytest.approx(1 / 3), boxes=1.5, stuff_tags=2.0, crops=1.5)
    assert supervision("auto", {"kinds": ["boxes", "masks"]}, counts) == (["boxes", "masks"], counts.masked)
    assert supervision("tags", {"kinds": ["boxes", "masks"]}, counts) == (["tags"], 1.0)
    assert count_labels({"categories": [], "images": [], "annotations": []}) == Counts(1.0, 0.0, 0.0, 0.0)


def test_retention(tmp_path):
    truth = tmp_path / "val_truth.json"
    truth.write_text("{}")
    key = reference_key(truth, {"detector": {"steps": 10}})
    other = reference_key(truth, {"detector": {"steps": 20}})
    reference = tmp_path / "reference.json"
    full = {"voc": {"AP50": 60.0, "AP75": 0.0}, "coco": {"AP": 40.0, "AP_large": 50.0}, "objects": {}}
    weak = {"voc": {"AP50": 45.0, "AP75": 1.0}, "coco": {"AP": 10.0}}
    assert "no run with method: masks" in retention(reference, key, weak)["reason"]
    remember_reference(reference, other, full)
    found = retention(reference, key, weak)
    assert found["available"] == 0
    assert "none on this data with this detector" in found["reason"]
    remember_reference(reference, key, full)
    assert retention(reference, key, weak) == {"available": 1, "voc": {"AP50": 75.0}, "coco": {"AP": 25.0}}
    assert retention(reference, key, full)["voc"] == {"AP50": 100.0}


def test_retention_of_lvis_ap(tmp_path):
    reference = tmp_path / "reference.json"
    full = {"voc": {}, "coco": {"AP": 40.0}, "lvis": {"AP": 20.0, "APr": 8.0, "APf": 0.0}}
    remember_reference(reference, "key", full)
    found = retention(reference, "key", {"voc": {}, "coco": {"AP": 10.0}, "lvis": {"AP": 15.0, "APr": 2.0, "APf": 1.0}})
    assert found["lvis"] == {"AP": 75.0, "APr": 25.0}
    assert "lvis" not in retention(reference, "key", {"voc": {}, "coco": {"AP": 10.0}})


def test_key_follows_the_truth(tmp_path):
    truth = tmp_path / "val_truth.json"
    truth.write_text("{}")
    before = reference_key(truth, {})
    truth.write_text("{} ")
    assert reference_key(truth, {}) != before
