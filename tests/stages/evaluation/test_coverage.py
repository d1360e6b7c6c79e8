"""Coverage against brute force on decoded masks."""

import numpy as np
import pytest

from stages.evaluation.coverage import image_coverage, mean_coverage
from stages.labels import rle


def annotation(image, category, mask, **further):
    return {"image_id": image, "category_id": category, "segmentation": rle.encode(mask), "area": int(mask.sum()),
            **further}


def scene(seed):
    rng = np.random.default_rng(seed)
    truth, detections = [], []
    for image in range(5):
        for items, count in ((truth, rng.integers(0, 5)), (detections, rng.integers(0, 5))):
            for _ in range(count):
                mask = np.zeros((9, 11), bool)
                top, left = rng.integers(0, 7), rng.integers(0, 9)
                mask[top:top + rng.integers(2, 6), left:left + rng.integers(2, 6)] = True
                items.append(annotation(image, int(rng.integers(1, 3)), mask))
    return truth, detections


def brute_force(truth, detections):
    weighted, plain = [], []
    for image in range(5):
        best, areas = [], []
        for item in truth:
            if item["image_id"] != image:
                continue
            mask = rle.decode(item["segmentation"])
            values = [0.0]
            for other in detections:
                if other["image_id"] == image and other["category_id"] == item["category_id"]:
                    guess = rle.decode(other["segmentation"])
                    values.append((mask & guess).sum() / (mask | guess).sum())
            best.append(max(values))
            areas.append(mask.sum())
        if best:
            weighted.append(np.dot(best, areas) / np.sum(areas))
            plain.append(np.mean(best))
    return np.mean(weighted), np.mean(plain), len(plain)


@pytest.mark.parametrize("seed", range(5))
def test_equals_brute_force(seed):
    truth, detections = scene(seed)
    weighted, plain, images = brute_force(truth, detections)
    found = mean_coverage(truth, detections)
    assert found == {"mwcov": pytest.approx(weighted), "mucov": pytest.approx(plain), "images": images}


def test_by_hand():
    # Objects of 30 and 10 px, covered by .5 and 1; the third detection covers the second less.
    iou = np.array([[0.5, 0.0, 0.2], [0.0, 1.0, 0.3]])
    assert image_coverage(iou, np.array([30.0, 10.0])) == (pytest.approx(0.625), pytest.approx(0.75))
    assert image_coverage(np.zeros((2, 0)), np.array([3.0, 1.0])) == (0, 0)


def test_truth_and_detections_are_not_exchanged():
    """Many false detections cost nothing, a missed object does."""
    mask, other = np.zeros((6, 6), bool), np.zeros((6, 6), bool)
    mask[:3], other[3:] = True, True
    truth = [annotation(1, 1, mask), annotation(1, 1, other)]
    assert mean_coverage(truth, truth)["mucov"] == 1
    assert mean_coverage(truth, truth[:1])["mucov"] == 0.5
    assert mean_coverage(truth[:1], truth)["mucov"] == 1


def test_crowds_and_nothing():
    mask = np.ones((4, 4), bool)
    crowd = annotation(1, 1, mask, iscrowd=1)
    assert mean_coverage([], [annotation(1, 1, mask)]) == {"images": 0}
    assert mean_coverage([crowd], []) == {"images": 0}
    assert mean_coverage([crowd, annotation(2, 1, mask)], []) == {"mwcov": 0, "mucov": 0, "images": 1}
