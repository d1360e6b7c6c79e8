"""The LVIS protocol against loops over whole masks, a second evaluation code, and scenes whose answer is plain."""

import pytest

from stages.evaluation.coco_ap import coco_average_precision
from stages.evaluation.lvis_ap import best_of_each_image, federated_average_precision, judged_detections
from tests.stages.evaluation.federated import federated_ap, federated_scene
from tests.stages.evaluation.scenes import annotation, scene

IMAGES = [{"id": 1, "height": 2, "width": 8, "neg_category_ids": [], "not_exhaustive_category_ids": []},
          {"id": 2, "height": 2, "width": 8, "neg_category_ids": [], "not_exhaustive_category_ids": []}]
CLASSES = [{"id": 300, "name": "cat", "frequency": "r"}, {"id": 1203, "name": "dog", "frequency": "f"}]
LEFT, RIGHT = "11110000 11110000", "00001111 00001111"
FALSE_ALARM_FIRST = 0.5  # AP of one object that is found after one false alarm


def image(number, **changes):
    return [item | changes if item["id"] == number else item for item in IMAGES]


def ap(images, truth, detections, **settings):
    return federated_average_precision(images, truth, detections, CLASSES, **settings)


@pytest.mark.parametrize("max_detections", [300, 3])
@pytest.mark.parametrize("scores", [0, 4])
@pytest.mark.parametrize("seed", range(5))
def test_against_brute_force(seed, scores, max_detections):
    images, categories, truth, detections = federated_scene(seed, scores=scores)
    figures, per_class = federated_ap(images, categories, truth, detections, max_detections)
    found = federated_average_precision(images, truth, detections, categories, max_detections)
    assert found.mean == pytest.approx(figures, abs=1e-12)
    assert found.per_class == pytest.approx(per_class, abs=1e-12)


def test_all_sizes_against_brute_force():
    for seed in range(3):
        images, categories, truth, detections = federated_scene(seed)
        found = federated_average_precision(images, truth, detections, categories, medium_from=90, large_from=400).mean
        expected, _ = federated_ap(images, categories, truth, detections, limits=(90, 400))
        assert found == pytest.approx(expected, abs=1e-12)
        assert set(found) == {"AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"}


@pytest.mark.parametrize("seed", range(4))
def test_against_faster_coco_eval(seed):
    """Its LVIS mode takes the best of each class, not of the image, and fails on an image without truth of which no
    detection is judged; so it gets the detections that are left by hand."""
    other = pytest.importorskip("faster_coco_eval")
    images, categories, truth, detections = federated_scene(seed, scores=seed % 2 * 5)
    found = federated_average_precision(images, truth, detections, categories, 10)
    judged = judged_detections(images, truth, best_of_each_image(detections, 10))
    objects, results = other.COCO(), other.COCO()
    for index, rows in ((objects, truth), (results, judged)):
        index.dataset = {"images": images, "categories": categories, "annotations": [dict(row) for row in rows]}
        index.createIndex()
    evaluator = other.COCOeval_faster(objects, results, "segm", lvis_style=True)
    evaluator.params.maxDets = [300]
    evaluator.run()
    theirs = evaluator.stats_as_dict
    names = {"AP": "AP_all", "AP50": "AP_50", "AP75": "AP_75", "APs": "AP_small", "APm": "AP_medium",
             "APl": "AP_large", "APr": "APr", "APc": "APc", "APf": "APf"}
    for name, label in names.items():
        assert found.mean.get(name, -1.0) == pytest.approx(theirs[label], abs=1e-12), name


@pytest.mark.parametrize("seed", range(4))
def test_is_cocos_where_everything_was_looked_for(seed):
    images, categories, truth, detections = scene(seed)
    ids = [item["id"] for item in categories]
    for record in images:
        record |= {"neg_category_ids": ids, "not_exhaustive_category_ids": []}
    categories = [item | {"frequency": "c"} for item in categories]
    coco = coco_average_precision(images, truth, detections, ids)
    lvis = federated_average_precision(images, truth, detections, categories)
    assert lvis.mean["AP"] == lvis.mean["APc"] == coco.mean["AP"]
    assert (lvis.mean["AP50"], lvis.mean["AP75"]) == (coco.mean["AP50"], coco.mean["AP75"])
    assert lvis.mean["APs"] == coco.mean["AP_small"] and lvis.mean.get("APm") == coco.mean.get("AP_medium")
    assert {number: figures["AP"] for number, figures in coco.per_class.items()} == lvis.per_class


def test_a_class_that_nobody_looked_for_is_no_false_alarm():
    truth = [annotation(1, 1, 300, LEFT)]
    detections = [annotation(1, 2, 300, LEFT, score=0.9), annotation(2, 1, 300, LEFT, score=0.8)]
    assert ap(IMAGES, truth, detections).mean["AP"] == pytest.approx(1.0)
    assert ap(image(2, neg_category_ids=[300]), truth, detections).mean["AP"] == pytest.approx(FALSE_ALARM_FIRST)
    assert ap(image(2, neg_category_ids=[1203]), truth, detections).mean["AP"] == pytest.approx(1.0)


def test_an_incompletely_labelled_class_has_no_false_alarms_but_has_misses():
    truth = [annotation(1, 1, 300, LEFT)]
    detections = [annotation(1, 1, 300, RIGHT, score=0.9), annotation(2, 1, 300, LEFT, score=0.8)]
    assert ap(IMAGES, truth, detections).mean["AP"] == pytest.approx(FALSE_ALARM_FIRST)
    incomplete = image(1, not_exhaustive_category_ids=[300])
    assert ap(incomplete, truth, detections).mean["AP"] == pytest.approx(1.0)
    assert ap(incomplete, truth, detections[:1]).mean["AP"] == 0.0
    duplicate = [*detections[1:], annotation(3, 1, 300, LEFT, score=0.95)]
    assert ap(incomplete, truth, duplicate).mean["AP"] == pytest.approx(1.0)
    # Only in that image, and only that class.
    elsewhere = image(2, not_exhaustive_category_ids=[300])
    assert ap(elsewhere, truth, detections).mean["AP"] == pytest.approx(FALSE_ALARM_FIRST)


def test_detections_count_over_all_classes_of_an_image():
    truth = [annotation(1, 1, 300, LEFT), annotation(2, 2, 300, LEFT)]
    crowd = [annotation(10 + number, 1, 1203, RIGHT, score=0.9) for number in range(300)]
    detections = [annotation(1, 1, 300, LEFT, score=0.5), annotation(2, 2, 300, LEFT, score=0.4)]
    assert ap(IMAGES, truth, detections + crowd[:299]).mean["AP"] == pytest.approx(1.0)
    # The 301st of image 1 is left out although its class has no other detection, and those before it are not judged.
    assert ap(IMAGES, truth, detections + crowd).mean["AP"] == pytest.approx(51 / 101)
    assert ap(IMAGES, truth, detections, max_detections=1).mean["AP"] == pytest.approx(1.0)


def test_of_equal_scores_the_first_stay():
    rows = [annotation(number, 1, 300, LEFT, score=0.5) for number in range(5)] + [annotation(9, 2, 300, LEFT)]
    assert [item["id"] for item in best_of_each_image(rows, 2)] == [0, 1, 9]


def test_means_by_frequency_leave_out_what_has_no_truth():
    truth = [annotation(1, 1, 300, LEFT)]
    found = ap(IMAGES, truth, [annotation(1, 1, 300, LEFT, score=0.5)])
    assert found.mean == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1, "APs": 1, "APr": 1})
    assert found.per_class == pytest.approx({300: 1.0})
    both = ap(IMAGES, [*truth, annotation(2, 1, 1203, RIGHT)], [annotation(1, 1, 300, LEFT, score=0.5)])
    assert both.mean["APf"] == 0.0 and both.mean["APr"] == pytest.approx(1.0) and both.mean["AP"] == pytest.approx(0.5)


def test_sizes():
    truth = [annotation(1, 1, 300, LEFT)]  # 8 pixels
    detections = [annotation(1, 1, 300, LEFT, score=0.5)]
    assert set(ap(IMAGES, truth, detections, medium_from=4, large_from=7).mean) == {"AP", "AP50", "AP75", "APl", "APr"}
    # COCO and LVIS count an object on the limit for both sizes.
    assert {"APm", "APl"} <= set(ap(IMAGES, truth, detections, medium_from=4, large_from=8).mean)


def test_nothing_at_all():
    assert ap(IMAGES, [], []).mean == ap([], [], []).mean == {}
    assert ap(IMAGES, [], [annotation(1, 1, 300, LEFT, score=0.5)]).mean == {}
    assert ap(image(1, not_exhaustive_category_ids=[300]), [annotation(1, 1, 300, LEFT)], []).mean["AP"] == 0.0


def test_input_is_left_alone():
    images, categories, truth, detections = federated_scene(1)
    before = [[dict(item) for item in rows] for rows in (images, truth, detections)]
    federated_average_precision(images, truth, detections, categories)
    assert [images, truth, detections] == before
