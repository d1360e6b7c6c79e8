"""Classes as channels, boxes once each, tags of crops, and images that are labelled in full."""

from __future__ import annotations

import numpy as np
import pytest
from panoptic_scenes import (
    CAT,
    CATEGORIES,
    CLASSES,
    DOG,
    GRASS,
    SKY,
    THINGS_ONLY,
    annotation,
    boxes,
    drawn,
    image_entry,
)

from pipelines.panoptic.supervision import boxes_of, classes_of, full_labels, tag_channels, untagged
from stages.runtime.errors import UserError


def test_channels_go_by_the_ids():
    assert CLASSES.category_ids == (2, 5, 7, 9)
    assert (CLASSES.things, CLASSES.stuff, CLASSES.used) == ((CAT, DOG), (SKY, GRASS), (1, 2, 3, 4))
    assert not CLASSES.background and THINGS_ONLY.background
    assert (THINGS_ONLY.things, THINGS_ONLY.stuff, THINGS_ONLY.used) == ((1, 2), (0,), (0, 1, 2))
    assert [CLASSES.channel(number) for number in (2, 5, 7, 9)] == [CAT, SKY, DOG, GRASS]
    assert [CLASSES.category(channel) for channel in range(5)] == [0, 2, 5, 7, 9]
    assert CLASSES.thing_table().tolist() == [False, True, False, True, False]
    assert tag_channels([9, 7, 1234], CLASSES) == {GRASS, DOG}
    assert tag_channels([7], THINGS_ONLY) == {0, 2}


def test_stuff_alone_is_refused():
    with pytest.raises(UserError, match="no category is a thing"):
        classes_of([{"id": 1, "name": "sky", "isthing": 0}])


def test_equal_boxes_count_once():
    rows = [annotation(1, 2, [0, 0, 3, 2]), annotation(2, 2, [0, 0, 3, 2]), annotation(3, 7, [0, 0, 3, 2]),
            annotation(4, 2, [0, 0, 3, 2], crowd=1), annotation(5, 9)]
    found = boxes_of(image_entry(4, 4), rows, CLASSES)
    assert found.ids.tolist() == [1, 3, 4]
    assert found.channels.tolist() == [CAT, DOG, CAT]
    assert found.crowd.tolist() == [False, False, True]
    assert found.xyxy.tolist() == [[0, 0, 3, 2]] * 3
    full = boxes_of(image_entry(4, 4, fully_labelled=1), rows, CLASSES)
    assert full.ids.tolist() == [1, 2, 3, 4], "masks tell equal boxes apart"
    assert len(boxes_of(image_entry(4, 4), [], CLASSES)) == 0


def test_an_object_without_a_box_is_said():
    with pytest.raises(UserError, match=r"image 1 \(1.png\), annotation 8: without a box.*\[boxes, tags\]"):
        boxes_of(image_entry(4, 4), [annotation(8, 2)], CLASSES)


def test_large_boxes_come_first_and_of_equal_ones_the_first():
    found = boxes((0, 0, 2, 2, CAT), (0, 0, 3, 3, CAT), (1, 1, 3, 3, DOG))
    assert found.areas().tolist() == [4, 9, 4]
    assert found.from_large_to_small() == [1, 0, 2]


def test_the_whole_image_and_one_pixel_are_boxes():
    found = boxes((0, 0, 6, 5, CAT), (3.2, 4.1, 3.6, 4.3, DOG))
    assert found.mask(0, (5, 6)).all()
    assert np.argwhere(found.mask(1, (5, 6))).tolist() == [[4, 3]]


def test_a_class_needs_the_tag_of_every_crop_that_shows_the_pixel():
    image = image_entry(2, 6, [5], tag_crops=[{"bbox": [0, 0, 4, 2], "tags": [5, 9]},
                                              {"bbox": [2, 0, 3, 2], "tags": [9]}])
    labels = drawn("222222", ".44.22")
    # Column 5 is in no crop: the image's own tags hold.
    assert untagged(labels, image, CLASSES).tolist() == [[False, False, True, True, True, False],
                                                         [False, False, False, False, True, False]]


def test_without_crops_the_tags_of_the_image_hold():
    labels = drawn("22441", "....1")
    assert untagged(labels, image_entry(2, 5, [5, 2]), CLASSES).tolist() == [[False, False, True, True, False],
                                                                             [False] * 5]
    assert untagged(drawn("0012"), image_entry(1, 4, [2]), THINGS_ONLY).tolist() == [[False, False, False, True]], (
        "the background needs no tag")


def test_images_that_are_labelled_in_full():
    cat, other, crowd, sky = np.zeros((4, 2, 5), bool)
    cat[:, :2] = other[0, 1] = crowd[1, 3] = True
    sky[0] = True
    rows = [annotation(1, 2, [0, 0, 2, 2], cat), annotation(2, 2, [1, 0, 1, 1], other),
            annotation(3, 7, [3, 1, 1, 1], crowd, crowd=1), annotation(4, 5, mask=sky)]
    image = image_entry(2, 5, fully_labelled=1)
    labels, instances = full_labels(image, rows, CATEGORIES, CLASSES)
    assert np.array_equal(labels, drawn("11222", "11.3."))
    assert instances.tolist() == [[1, 2, 0, 0, 0], [1, 1, -1, -1, -1]], "the smaller on top, crowds are no instance"
    things = [item for item in CATEGORIES if item["isthing"]]
    labels, instances = full_labels(image, rows[:3], things, THINGS_ONLY)
    assert np.array_equal(labels, drawn("11000", "11020"))
    assert instances.tolist() == [[1, 2, 0, 0, 0], [1, 1, 0, -1, 0]]
