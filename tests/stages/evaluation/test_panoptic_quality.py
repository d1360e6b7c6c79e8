import numpy as np
import pytest

from stages.evaluation.panoptic_quality import panoptic_counts, panoptic_quality


def segments(rows: str) -> np.ndarray:
    return np.array([[int(pixel) for pixel in row] for row in rows.split()])


TRUTH = segments("1110 1110 0022 0022")


def quality(truth, categories, predicted, predicted_categories, crowd=(), **more):
    return panoptic_quality(panoptic_counts(
        truth, [{"category_id": item, "iscrowd": int(number in crowd)} for number, item in enumerate(categories, 1)],
        predicted, [{"category_id": item} for item in predicted_categories], **more))


def test_by_hand():
    predicted = segments("1100 1100 0022 0022")
    found = quality(TRUTH, [1, 1], predicted, [1, 1])
    assert found[1] == pytest.approx({"PQ": (4 / 6 + 1) / 2, "SQ": (4 / 6 + 1) / 2, "DQ": 1.0})


def test_wrong_class_is_a_miss_and_a_false_alarm():
    found = quality(TRUTH, [1, 2], TRUTH, [1, 1])
    assert found[1] == pytest.approx({"PQ": 1 / 1.5, "SQ": 1.0, "DQ": 1 / 1.5})
    assert found[2] == {"PQ": 0.0, "SQ": 0.0, "DQ": 0.0}


def test_iou_of_one_half_is_no_match():
    found = quality(segments("11"), [1], segments("10"), [1])
    assert found[1]["PQ"] == 0.0


def test_no_predictions_and_no_truth():
    nothing = np.zeros((4, 4), int)
    assert quality(TRUTH, [1, 1], nothing, [])[1] == {"PQ": 0.0, "SQ": 0.0, "DQ": 0.0}
    assert quality(nothing, [], TRUTH, [1, 1]) == {}
    assert panoptic_counts(nothing, [], nothing, []) == {}


def test_prediction_that_is_fully_hidden_does_not_count():
    assert quality(TRUTH, [1, 1], TRUTH, [1, 1, 1])[1]["PQ"] == 1.0


def test_crowd_is_void_for_its_own_class():
    predicted = segments("1110 1110 0022 0022")
    assert quality(TRUTH, [1, 1], predicted, [1, 1], crowd={2})[1]["DQ"] == 1.0
    # For another class the crowd is no excuse.
    found = panoptic_counts(TRUTH, [{"category_id": 1}, {"category_id": 1, "iscrowd": 1}], predicted,
                            [{"category_id": 1}, {"category_id": 2}])
    assert found[2].tolist() == [0, 0, 1, 0, 0]


def test_unlabelled_pixels_as_void():
    predicted = segments("1111 1111 0022 0022")
    assert quality(TRUTH, [1, 1], predicted, [1, 1])[1]["SQ"] == pytest.approx((6 / 8 + 1) / 2)
    assert quality(TRUTH, [1, 1], predicted, [1, 1], unlabelled_is_void=True)[1]["SQ"] == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_torchmetrics(seed):
    """Background is one more stuff class there, so that unlabelled pixels are not void."""
    torch = pytest.importorskip("torch")
    detection = pytest.importorskip("torchmetrics.detection")
    random = np.random.default_rng(seed)
    metric = detection.PanopticQuality(things={1, 2}, stuffs={9}, return_per_class=True)
    counts: dict = {}
    for _ in range(5):
        truth, truth_categories = boxes(random, 8)
        moved = np.roll(truth, random.integers(0, 3), axis=1)
        predicted = np.where(random.random(truth.shape) < 0.1, 0, moved)
        predicted_categories = [item if random.random() < 0.8 else 3 - item for item in truth_categories]
        metric.update(coloured(torch, predicted, predicted_categories), coloured(torch, truth, truth_categories))
        for category, value in panoptic_counts(truth, [{"category_id": item} for item in truth_categories], predicted,
                                               [{"category_id": item} for item in predicted_categories]).items():
            counts[category] = counts.get(category, 0) + value
    theirs = dict(zip((1, 2, 9), metric.compute().flatten().tolist(), strict=True))
    ours = panoptic_quality(counts)
    for category in (1, 2):
        assert ours[category]["PQ"] == pytest.approx(theirs[category], abs=1e-6)


def boxes(random, count):
    """Disjoint boxes on 40 x 40 pixels, numbered from 1 without gaps, with classes 1 and 2."""
    canvas, number = np.zeros((40, 40), int), 0
    for _ in range(count):
        x, y, w, h = *random.integers(0, 30, 2), *random.integers(4, 14, 2)
        region = canvas[y:y + h, x:x + w]
        if not region.any():
            number += 1
            region[:] = number
    return canvas, random.integers(1, 3, number).tolist()


def coloured(torch, labels, categories):
    """(1, H, W, 2) of category and instance."""
    table = np.array([9, *categories])
    return torch.tensor(np.stack([table[labels], labels], axis=-1)[None])
