import pytest

from stages.labels.annotation_cost import Counts, affordable, annotation_cost, count_labels, supervision
from stages.labels.settings import AnnotationSeconds

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
    assert supervision("panoptic", "auto", {"kinds": ["boxes", "masks"]}, counts) == (["boxes", "masks"], counts.masked)
    assert supervision("panoptic", "tags", {"kinds": ["boxes", "masks"]}, counts) == (["tags"], 1.0)
    assert count_labels({"categories": [], "images": [], "annotations": []}) == Counts(1.0, 0.0, 0.0, 0.0)


def test_what_a_method_was_given():
    annotations = {"kinds": ["tags", "masks"], "masked_images": 0.25}
    assert supervision("irnet", "auto", annotations) == (["tags", "masks"], 0.25)
    assert supervision("irnet", "points", annotations) == (["points"], 1.0)
    assert supervision("masks", "auto", {"kinds": ["tags"]}) == (["masks"], 1.0)
    assert supervision("irnet", "auto", {}) == (["tags"], 1.0)


@pytest.mark.parametrize(("seconds", "images"), [(20.0, 1464), (22.1, 1325), (239.7, 122), (29280, 1), (60000, 0)])
def test_images_that_the_budget_of_table_2_affords(seconds, images):
    """WISE section 4.3.2: 20.0 x 1,464 s."""
    assert affordable(29280, seconds) == images


def test_images_that_cost_nothing():
    with pytest.raises(ValueError, match="an image costs nothing"):
        affordable(100, 0)
