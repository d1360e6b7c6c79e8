import numpy as np

from stages.evaluation.matching import match, overlaps
from stages.labels import rle
from tests.stages.evaluation.scenes import annotation, scene


def test_hand_drawn_masks():
    truth = [annotation(7, 1, 3, "1100 1100 0000 0000"), annotation(9, 1, 3, "0000 0000 0011 0011"),
             annotation(11, 1, 4, "0011 0011 0000 0000")]
    detections = [annotation(1, 1, 3, "1110 1110 0000 0000", score=0.9), annotation(2, 1, 4, "0000 0000 0011 0011"),
                  annotation(3, 1, 3, "0000 0000 0001 0000", score=0.2)]
    found = match(truth, detections)
    np.testing.assert_allclose(found.best_iou, [4 / 6, 0, 1 / 4])
    np.testing.assert_array_equal(found.best_truth, [0, -1, 1])
    np.testing.assert_allclose(found.truth_iou, [4 / 6, 1 / 4, 0])
    np.testing.assert_array_equal(found.truth_id, [7, 9, 11])
    np.testing.assert_allclose(found.score, [0.9, 1.0, 0.2])


def test_empty_input():
    for truth, detections in (([], []), ([annotation(1, 1, 1, "1")], []), ([], [annotation(1, 1, 1, "1")])):
        found = match(truth, detections)
        assert len(found.truth_iou) == len(truth)
        assert len(found.best_iou) == len(detections)
        assert not found.truth_iou.any()
        assert not found.best_iou.any()


def test_crowds_are_no_objects():
    truth = [annotation(1, 1, 1, "1111 1111", iscrowd=1)]
    found = match(truth, [annotation(1, 1, 1, "1100 0000"), annotation(2, 1, 2, "1100 0000")])
    assert found.crowds == 1
    assert len(found.truth_id) == 0
    np.testing.assert_allclose(found.crowd_cover, [1, 0])


def test_against_brute_force():
    _, _, truth, detections = scene(0)
    found = match(truth, detections)
    rows = {item["id"]: row for row, item in enumerate(sorted(truth, key=lambda item: item["image_id"]))}
    for item in truth:
        mask = rle.decode(item["segmentation"])
        best = 0.0
        for other in detections:
            if (other["image_id"], other["category_id"]) == (item["image_id"], item["category_id"]):
                shape = rle.decode(other["segmentation"])
                best = max(best, (mask & shape).sum() / (mask | shape).sum())
        assert abs(found.truth_iou[rows[item["id"]]] - best) < 1e-12


def test_overlaps_of_nothing_keep_their_shape():
    assert overlaps([], []).shape == (0, 0)
    assert overlaps([rle.encode(np.ones((2, 2)))], []).shape == (1, 0)
