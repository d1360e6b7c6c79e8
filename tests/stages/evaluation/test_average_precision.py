import numpy as np
import pytest

from stages.evaluation.average_precision import (
    average_precision,
    tag_average_precision,
    voc_average_precision,
    voc_hits,
)
from stages.evaluation.coco_ap import coco_average_precision
from stages.evaluation.matching import match
from tests.stages.evaluation.scenes import annotation, scene, square


@pytest.mark.parametrize(("hits", "objects", "expected"), [
    ([1, 1], 2, 1.0),
    ([0, 0, 0], 4, 0.0),
    ([], 3, 0.0),
    ([1, 0, 1], 2, 0.5 * 1 + 0.5 * 2 / 3),
    ([0, 1], 1, 0.5),
    # Precision is raised to the highest one at any larger recall: 1/2, 2/3, 3/4 all count as 3/4.
    ([0, 1, 1, 1], 4, 0.75 * 0.75),
    ([1], 4, 0.25),
])
def test_by_hand(hits, objects, expected):
    assert average_precision(np.array(hits, bool), objects) == pytest.approx(expected)


def test_recall_points_by_hand():
    # Recall 0.5 at precision 1, recall 1 at 2/3: of 11 points six (0 to .5) have precision 1, five 2/3.
    assert average_precision(np.array([True, False, True]), 2, 11) == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert average_precision(np.array([True]), 2, 11) == pytest.approx(6 / 11)


def test_nothing_to_find_is_nan():
    assert np.isnan(average_precision(np.array([True]), 0))


def test_duplicates_are_false_alarms():
    truth = [annotation(1, 1, 1, "1100 1100")]
    detections = [annotation(1, 1, 1, "1100 1100", score=0.5), annotation(2, 1, 1, "1100 1110", score=0.9)]
    hits, objects = voc_hits(match(truth, detections), 1, 0.5)
    assert hits.tolist() == [True, False]
    assert objects == 1


def test_a_taken_object_is_not_swapped_for_another():
    """The detection belongs to the object that it overlaps most, even if another would do (pycocotools would swap)."""
    truth = [annotation(1, 1, 1, "11110000"), annotation(2, 1, 1, "00001111")]
    detections = [annotation(1, 1, 1, "11110000", score=0.9), annotation(2, 1, 1, "01111100", score=0.8)]
    matches = match(truth, detections)
    assert voc_hits(matches, 1, 0.25)[0].tolist() == [True, False]


def test_threshold_is_inclusive():
    matches = match([annotation(1, 1, 1, "1111")], [annotation(1, 1, 1, "1100")])
    assert voc_hits(matches, 1, 0.5)[0].tolist() == [True]
    assert voc_hits(matches, 1, 0.51)[0].tolist() == [False]


def test_crowd_detections_do_not_count():
    truth = [annotation(1, 1, 1, "1111 1111 0000 0000", iscrowd=1), annotation(2, 1, 1, "0000 0000 1111 1111")]
    detections = [annotation(1, 1, 1, "1100 0000 0000 0000", score=0.9),
                  annotation(2, 1, 1, "0000 0000 1111 1111", score=0.8),
                  annotation(3, 1, 1, "0100 0100 0100 0100", score=0.7)]
    # The third one is half in the crowd: with threshold .5 that is enough, with .7 it is a false alarm.
    assert voc_hits(match(truth, detections), 1, 0.5) == (pytest.approx([True]), 1)
    assert voc_hits(match(truth, detections), 1, 0.7)[0].tolist() == [True, False]


def test_classes_without_truth_are_absent():
    matches = match([annotation(1, 1, 1, "1")], [annotation(1, 1, 2, "1")])
    assert voc_average_precision(matches, [1, 2, 3], 0.5) == {1: 0.0}


def test_one_pixel_object():
    matches = match([annotation(1, 1, 1, "0000 0100")], [annotation(1, 1, 1, "0000 0100")])
    assert voc_average_precision(matches, [1], 0.9) == {1: 1.0}


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_pycocotools_where_the_protocols_do(seed, crowds):
    """Disjoint truth and IoU from .5 on leave no choice of the match; 101 recall points make the curve's area the same.

    A detection that reaches an object which is taken may count for a crowd under it with COCO; here crowds are
    disjoint from objects, so that cannot happen either.
    """
    images, categories, truth, detections = scene(seed, crowds=crowds)
    ids = [item["id"] for item in categories]
    matches = match(truth, detections)
    coco = coco_average_precision(images, truth, detections, ids)
    ours75 = voc_average_precision(matches, ids, 0.75, recall_points=101)
    thresholds = np.linspace(0.5, 0.95, 10)
    ours = [list(voc_average_precision(matches, ids, threshold, recall_points=101).values())
            for threshold in thresholds]
    assert np.mean(list(ours75.values())) == pytest.approx(coco.mean["AP75"], abs=1e-6)
    assert np.mean(ours) == pytest.approx(coco.mean["AP"], abs=1e-6)
    for column, category in enumerate(coco.per_class):
        assert np.mean([row[column] for row in ours]) == pytest.approx(coco.per_class[category]["AP"], abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_area_under_the_curve_is_the_limit_of_many_recall_points(seed):
    _, categories, truth, detections = scene(seed)
    for category in categories:
        hits, objects = voc_hits(match(truth, detections), category["id"], 0.3)
        if objects:
            area = average_precision(hits, objects)
            assert average_precision(hits, objects, 200_001) == pytest.approx(area, abs=1e-4)


def test_coco_figures_of_perfect_and_of_no_detections():
    images, categories, truth, _ = scene(1)
    ids = [item["id"] for item in categories]
    perfect = coco_average_precision(images, truth, [item | {"score": 0.5} for item in truth], ids)
    assert perfect.mean["AP"] == pytest.approx(1.0)
    assert "AP_large" not in perfect.mean
    nothing = coco_average_precision(images, truth, [], ids)
    assert nothing.mean["AP"] == 0.0
    assert coco_average_precision(images, [], [], ids).mean == {}
    assert coco_average_precision([], [], [], ids).mean == {}


def test_coco_figures_of_all_that_is_not_small():
    """Objects of 16, 100 and 400 px with the border at 100: of four masks the small ones neither count nor hurt."""
    image = [{"id": 1, "height": 60, "width": 60}]
    truth = [annotation(1, 1, 1, square(60, 60, 0, 0, 4, 4)), annotation(2, 1, 1, square(60, 60, 20, 0, 10, 10)),
             annotation(3, 1, 1, square(60, 60, 0, 30, 20, 20))]
    false = [annotation(number, 1, 1, square(60, 60, 50, 5 * number, 3, 3), score=0.9) for number in (4, 5)]
    right = annotation(6, 1, 1, square(60, 60, 20, 0, 10, 10), score=0.5)
    found = coco_average_precision(image, truth, [*false, right], [1], medium_from=100, large_from=200).mean
    # The curve of the not small: precision 1 up to a recall of 1/2, at 51 of 101 places.
    assert found["AP50_medium_and_large"] == found["AP_medium_and_large"] == pytest.approx(51 / 101)
    assert found["AP50"] == pytest.approx(34 / 101 / 3)  # of all: the third mask, up to a recall of 1/3
    assert (found["AP_medium"], found["AP_large"]) == (pytest.approx(1), 0)


def test_coco_max_detections():
    truth = [annotation(number, 1, 1, np.eye(8)[number - 1:number]) for number in range(1, 5)]
    detections = [item | {"score": 0.1 * item["id"]} for item in truth]
    images = [{"id": 1, "height": 1, "width": 8}]
    assert coco_average_precision(images, truth, detections, [1], max_detections=2).mean["AR"] == pytest.approx(0.5)


def test_input_is_left_alone():
    images, categories, truth, detections = scene(2)
    before = [dict(item) for item in truth]
    coco_average_precision(images, truth, detections, [item["id"] for item in categories])
    assert truth == before


def test_mask_ap_agrees_with_torchmetrics():
    torch = pytest.importorskip("torch")
    detection = pytest.importorskip("torchmetrics.detection")
    from stages.labels import rle

    images, categories, truth, detections = scene(5, images=6)
    metric = detection.MeanAveragePrecision(iou_type="segm")

    def columns(items: list[dict], image: int, scores: bool) -> dict:
        chosen = [item for item in items if item["image_id"] == image]
        masks = [rle.decode(item["segmentation"]) for item in chosen] or [np.zeros((60, 80), bool)][:0]
        result = {"masks": torch.tensor(np.array(masks).reshape(-1, 60, 80)),
                  "labels": torch.tensor([item["category_id"] for item in chosen], dtype=torch.long)}
        return result | ({"scores": torch.tensor([item["score"] for item in chosen])} if scores else {})

    metric.update([columns(detections, image["id"], True) for image in images],
                  [columns(truth, image["id"], False) for image in images])
    theirs = metric.compute()
    ours = coco_average_precision(images, truth, detections, [item["id"] for item in categories]).mean
    assert ours["AP"] == pytest.approx(float(theirs["map"]), abs=1e-5)
    assert ours["AP50"] == pytest.approx(float(theirs["map_50"]), abs=1e-5)


def test_tag_average_precision_agrees_with_torchmetrics():
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    random = np.random.default_rng(0)
    scores = np.round(random.random((50, 4)), 1)  # rounded: ties
    present = random.random((50, 4)) < 0.3
    present[:, 3] = False
    ours = tag_average_precision(scores, present)
    theirs = functional.multilabel_average_precision(torch.tensor(scores), torch.tensor(present).long(), 4, None)
    np.testing.assert_allclose(ours[:3], theirs.numpy()[:3], atol=1e-6)
    assert np.isnan(ours[3])
