"""What reaches the network: boxes, masks and labels of hand-made scenes; and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detector_scenes import HEIGHT, WIDTH, square
from pycocotools.coco import COCO

from stages.detector.data import Labels, coco_results, read_labels
from stages.detector.samples import TrainingSamples, region, repeat_factors, scaled_size
from stages.detector.settings import DetectorTrainSettings
from stages.labels import coco
from stages.runtime import layout
from stages.runtime.errors import UserError


def read(tiny, **change):
    settings = tiny.train.model_copy(update=change)
    return TrainingSamples(read_labels(layout.pseudo_labels("irnet"), layout.IMAGES, settings), settings)


def test_things_only_crowds_apart_ids_in_order(dataset, tiny):
    labels = read(tiny).labels
    assert labels.categories == [{"id": 7, "name": "box"}, {"id": 90, "name": "disc"}]
    assert labels.position == {7: 0, 90: 1}
    assert [len(labels.instances[image["id"]]) for image in labels.images] == [2, 2, 2, 0]
    assert [len(labels.crowds[image["id"]]) for image in labels.images] == [1, 0, 0, 0]


def test_empty_images_are_kept_or_left_out(dataset, tiny):
    assert len(read(tiny).labels) == 4
    assert len(read(tiny, keep_empty=False).labels) == 3


def test_an_image_with_a_crowd_alone_teaches_nothing(dataset, tiny):
    content = coco.read_coco(layout.pseudo_labels("irnet"))
    content["annotations"] = [item for item in content["annotations"]
                              if item["image_id"] != 11 or item["iscrowd"]]
    layout.pseudo_labels("irnet").write_text(json.dumps(content))
    assert [image["id"] for image in read(tiny).labels.images] == [12, 13, 14]


def test_labels_of_score_0_are_not_learnt_nor_called_background(dataset, tiny):
    content = coco.read_coco(layout.pseudo_labels("irnet"))
    for item in content["annotations"]:
        if item["category_id"] == 7 or item["image_id"] == 12:
            item["score"] = 0.0
    layout.pseudo_labels("irnet").write_text(json.dumps(content))
    labels = read(tiny).labels
    categories = [item["category_id"] for found in labels.instances.values() for item in found]
    assert categories
    assert set(categories) == {90}
    assert [image["id"] for image in labels.images] == [11, 13, 14], "12 has labels of score 0 alone, 14 has none"


def test_no_instance_at_all_is_refused(dataset, tiny):
    content = coco.read_coco(layout.pseudo_labels("irnet"))
    content["annotations"] = [item for item in content["annotations"] if item["category_id"] == 200]
    layout.pseudo_labels("irnet").write_text(json.dumps(content))
    with pytest.raises(UserError, match="nothing to train a detector on"):
        read(tiny)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_targets_at_the_images_own_size(dataset, tiny, flip):
    image, target = read(tiny, flip=flip).sample(0, np.random.default_rng(0))
    assert image.shape == (3, HEIGHT, WIDTH)
    assert image.min() >= 0
    assert image.max() <= 1
    assert sorted(target["labels"].tolist()) == [1, 2]
    order = target["labels"].argsort()
    boxes, masks = target["boxes"][order], target["masks"][order].bool().numpy()
    expected = np.stack([square(20, 26, 14), square(4, 6, 12)])
    if flip:
        expected = expected[:, :, ::-1]
        assert boxes.tolist() == [[8, 20, 22, 34], [30, 4, 42, 16]]
    else:
        assert boxes.tolist() == [[26, 20, 40, 34], [6, 4, 18, 16]]
    np.testing.assert_array_equal(masks, expected)
    crowd = square(0, 36, 10)
    np.testing.assert_array_equal(target["crowd"].numpy(), crowd[:, ::-1] if flip else crowd)


def test_targets_scale_with_the_image(dataset, tiny):
    image, target = read(tiny, flip=0.0, min_sides=(80,), max_side=200).sample(0, np.random.default_rng(0))
    assert image.shape == (3, 2 * HEIGHT, 2 * WIDTH)
    assert [52, 40, 80, 68] in target["boxes"].tolist()
    assert target["masks"].sum(dim=(1, 2)).sort().values.tolist() == [4 * 144, 4 * 196]


def test_colours_reach_the_network_as_rgb(dataset, tiny):
    # cv2.imwrite in the fixture takes BGR: boxes (60, 60, 200) are red in RGB.
    image, target = read(tiny, flip=0.0).sample(0, np.random.default_rng(0))
    box = image[:, target["masks"][target["labels"] == 1][0].bool()].mean(dim=1)
    np.testing.assert_allclose(box, [200 / 255, 60 / 255, 60 / 255], atol=0.01)


def test_grey_and_empty_images(dataset, tiny):
    samples = read(tiny, flip=0.0)
    grey, _ = samples.sample(1, np.random.default_rng(0))
    assert torch.equal(grey[0], grey[1])
    _, empty = samples.sample(3, np.random.default_rng(0))
    assert empty["boxes"].shape == (0, 4)
    assert empty["masks"].shape == (0, HEIGHT, WIDTH)
    assert "crowd" not in empty


def test_ignore_crowds_off_drops_the_region(dataset, tiny):
    _, target = read(tiny, ignore_crowds=False).sample(0, np.random.default_rng(0))
    assert "crowd" not in target
    assert len(target["boxes"]) == 2


def test_objects_that_vanish_at_the_networks_size_are_left_out(dataset, tiny):
    content = coco.read_coco(layout.pseudo_labels("irnet"))
    pixel = np.zeros((HEIGHT, WIDTH), bool)
    pixel[4, 4] = True  # between the sampling points at two fifths of the size
    entries = [{**item, "segmentation": pixel} if item["category_id"] == 7 else item
               for item in content["annotations"]]
    coco.write_instances(layout.pseudo_labels("irnet"), content["images"], content["categories"], entries)
    _, same = read(tiny, flip=0.0).sample(0, np.random.default_rng(0))
    assert [4, 4, 5, 5] in same["boxes"].tolist()
    _, small = read(tiny, flip=0.0, min_sides=(16,)).sample(0, np.random.default_rng(0))
    assert small["labels"].tolist() == [2]


def test_the_stream_shows_every_image_equally_often(dataset, tiny):
    samples = read(tiny)
    assert len(samples) == tiny.train.steps * tiny.train.batch_size


def labels_of(classes):
    """Images that show these classes, each of them as often as it is listed."""
    groups = {10 + index: [{"category_id": category} for category in shown] for index, shown in enumerate(classes)}
    return Labels([{"id": number} for number in groups], groups, {number: [] for number in groups},
                  [{"id": 7}, {"id": 900}, {"id": 1203}], None)


def test_repeat_factors_by_hand():
    labels = labels_of([[7], [7, 900, 900], [7], [], [7, 1203], [900], [7], [7]])
    # Of eight images six show 7, two 900, one 1203; several objects of one image count once.
    assert repeat_factors(labels, 0.5) == pytest.approx([1, 2 ** 0.5, 1, 1, 2, 2 ** 0.5, 1, 1])
    assert repeat_factors(labels, 1.0) == pytest.approx(
        [(8 / 6) ** 0.5, 2, (8 / 6) ** 0.5, 1, 8 ** 0.5, 2, (8 / 6) ** 0.5, (8 / 6) ** 0.5])
    assert repeat_factors(labels, 1e-3).tolist() == [1] * 8


@pytest.mark.parametrize("steps", [1, 4, 50, 999])
def test_images_come_as_often_as_their_factors_say(steps):
    labels = labels_of([[7], [7, 900], [7], [], [7, 1203], [900], [7], [7]])
    samples = TrainingSamples(labels, DetectorTrainSettings(steps=steps, batch_size=3, repeat_threshold=0.5))
    assert samples.turn == len(samples) == 3 * steps
    counts = np.bincount([samples.place(index) for index in range(len(samples))], minlength=8)
    factors = np.array([1, 2 ** 0.5, 1, 1, 2, 2 ** 0.5, 1, 1])
    assert np.abs(counts - 3 * steps * factors / factors.sum()).max() < 1 and counts.sum() == 3 * steps


def test_without_a_threshold_all_images_come_equally_often():
    samples = TrainingSamples(labels_of([[7], [7, 900], [1203]]), DetectorTrainSettings(steps=4, batch_size=2))
    assert samples.turn == 3 and [samples.place(index) for index in range(8)] == [0, 1, 2, 0, 1, 2, 0, 1]


def test_repeated_samples_are_of_the_repeated_image(dataset, tiny):
    samples = read(tiny, repeat_threshold=1.0, steps=40)
    whole = [samples.place(index) for index in range(80)]
    assert whole == sorted(whole) and set(whole) == {0, 1, 2, 3} and whole.count(0) > whole.count(3)
    _, target = samples.sample(79, np.random.default_rng(0))
    assert target["boxes"].shape == (0, 4)


@pytest.mark.parametrize(("size", "expected"), [
    ((100, 200), (50, 100)), ((200, 100), (100, 50)), ((100, 1000), (10, 100)), ((50, 50), (50, 50)),
])
def test_scaled_size(size, expected):
    assert scaled_size(*size, min_side=50, max_side=100) == expected


def test_region_is_the_union():
    from stages.labels import rle

    parts = [square(0, 0, 3), square(2, 2, 3)]
    np.testing.assert_array_equal(region([rle.encode(part) for part in parts], HEIGHT, WIDTH), parts[0] | parts[1])
    assert not region([], 4, 5).any()


def test_results_carry_the_inputs_ids_and_load_in_pycocotools(dataset):
    detections = [
        {"label": 0, "score": 0.25, "box_xyxy": np.array([26, 20, 40, 34], np.float32), "mask": square(20, 26, 14)},
        {"label": 1, "score": 0.75, "box_xyxy": np.array([6, 4, 18, 16], np.float32), "mask": square(4, 6, 12)},
        {"label": 1, "score": 0.9, "box_xyxy": np.array([0, 0, 1, 1], np.float32), "mask": square(0, 0, 0)},
    ]
    results = coco_results(11, detections, [{"id": 7}, {"id": 90}])
    assert [(item["category_id"], item["score"]) for item in results] == [(90, 0.75), (7, 0.25)]
    assert results[0]["bbox"] == [6, 4, 12, 12]
    truth = COCO(str(layout.TRUTH["val"]))
    loaded = truth.loadRes(json.loads(json.dumps(results)))
    assert loaded.annToMask(loaded.loadAnns([1])[0]).sum() == 144
