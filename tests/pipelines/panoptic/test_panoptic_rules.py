"""Each rule of the approximate truth on maps that are drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest
from panoptic_scenes import CAT, CLASSES, DOG, GRASS, SKY, THINGS_ONLY, boxes, drawn, image_entry

from pipelines.panoptic.rules import (
    fill_boxes,
    instances_of,
    keep_inside_boxes,
    merge,
    next_labels,
    stuff_labels,
)
from pipelines.panoptic.settings import RoundSettings

GIVEN = boxes((0, 0, 4, 2, CAT), (2, 1, 6, 3, DOG))
ALL = image_entry(3, 6)


def same(found: np.ndarray, *rows: str) -> None:
    assert found.dtype.kind == "i"
    assert np.array_equal(found, drawn(*rows)), found


def test_agreed_things_stay_and_stuff_comes_from_the_prediction():
    agreement = drawn("11..00",
                      "1.33.0",
                      "0033..")
    predicted = drawn("223322",
                      "421133",
                      ".44.11")
    # Row 0: agreed, agreed, disputed and a thing is predicted (twice), outside: stuff. Row 1: agreed, disputed: stuff,
    # agreed whatever is predicted, disputed and a thing, outside and a thing. Row 2: nothing predicted, stuff, agreed.
    same(merge(predicted, agreement, CLASSES),
         "11..22",
         "1233..",
         ".433..")


def test_things_outside_the_boxes_of_their_class_are_ignored():
    labels = drawn("111133",
                   "333311",
                   "111122")
    same(keep_inside_boxes(labels, GIVEN, CLASSES),
         "1111..",
         "..33..",
         "....22")
    with_crowd = boxes((0, 0, 4, 2, CAT), (2, 1, 6, 3, DOG), (0, 2, 2, 3, CAT), crowd=[2])
    assert keep_inside_boxes(labels, with_crowd, CLASSES)[2, 0] == CAT, "a crowd's box is a box too"


def test_they_are_background_where_that_is_the_only_stuff():
    labels = drawn("1111..",
                   "2.22.0",
                   "1111.0")
    # Outside all boxes nothing but background can be; a cat beside its box, but in the dog's, is background too (3.4).
    same(keep_inside_boxes(labels, boxes((0, 0, 4, 2, 1), (2, 1, 6, 3, 2)), THINGS_ONLY),
         "111100",
         "0.22.0",
         "0000.0")


def test_boxes_of_low_fill_are_filled():
    given = boxes((0, 0, 4, 2, CAT), (0, 0, 2, 2, DOG), (4, 0, 6, 3, CAT), crowd=[2])
    labels = drawn("3...2.",
                   "4.11..",
                   "44444.")
    assert np.array_equal(fill_boxes(labels, given, CLASSES, 0.0), labels), "off by default"
    # The cat fills 2 of 8: what is undecided or stuff becomes cat; then the dog fills 1 of 4, but nothing there is
    # undecided or stuff any more. A crowd is never filled.
    same(fill_boxes(labels, given, CLASSES, 0.5),
         "31112.",
         "1111..",
         "44444.")
    assert np.array_equal(fill_boxes(labels, given, CLASSES, 0.25), labels), "a quarter is not less than a quarter"


def test_pixels_in_two_boxes_of_their_class_have_no_instance():
    given = boxes((0, 0, 3, 2, CAT), (2, 0, 6, 2, CAT), (0, 0, 6, 3, DOG), (0, 2, 6, 3, CAT), crowd=[3])
    labels = drawn("111111",
                   "13.211",
                   "131411")
    # A cat in one box, in two, in none but a crowd's; a dog; what is undecided; stuff.
    assert instances_of(labels, given, CLASSES).tolist() == [[1, 1, -1, 2, 2, 2],
                                                             [1, 3, -1, 0, 2, 2],
                                                             [-1, 3, -1, 0, -1, -1]]


def test_smaller_areas_of_stuff_are_on_top():
    maps = np.zeros((3, 2, 4))
    maps[0, :, :] = 0.9
    maps[1, 0, :3] = 0.6
    maps[2, 0, 1] = 1.0
    maps[0, 1, 3] = 0.5
    same(stuff_labels(maps, np.array([SKY, GRASS, DOG]), 0.5),
         "4342",
         "222.")
    same(stuff_labels(np.zeros((0, 1, 2)), np.zeros(0, int), 0.5), "..")


def test_unsure_pixels_and_untagged_classes_are_ignored():
    predicted, agreement = drawn("222244", "224444", "444444"), np.zeros((3, 6), np.int16)
    probability = np.full((3, 6), 0.99)
    probability[0, 1] = 0.98
    settings = RoundSettings()
    found = next_labels(predicted, ALL, boxes(), agreement, CLASSES, settings, 1, probability)
    same(found, "2.2244", "224444", "444444")
    no_sky = image_entry(3, 6, [9])
    same(next_labels(predicted, no_sky, boxes(), agreement, CLASSES, settings, 1, probability),
         "....44", "..4444", "444444")
    # A class has to be tagged in every crop that shows the pixel.
    crops = image_entry(3, 6, tag_crops=[{"bbox": [0, 0, 4, 3], "tags": [5, 9]}, {"bbox": [2, 0, 4, 3], "tags": [9]}])
    same(next_labels(predicted, crops, boxes(), agreement, CLASSES, settings, 1, probability),
         "2...44", "224444", "444444")


@pytest.mark.parametrize(("number", "row"), [(5, "1..224"), (6, "111224")])
def test_predicted_things_count_after_the_merged_rounds(number, row):
    agreement = drawn("1.." + "000")
    predicted = drawn("111224")
    found = next_labels(predicted, image_entry(1, 6), boxes((0, 0, 3, 1, CAT)), agreement, CLASSES, RoundSettings(),
                        number, np.ones((1, 6)))
    same(found, row)


def test_the_first_labels_are_cues_and_nothing_else():
    """No confidence, no CRF: what the cues say, tags and boxes willing."""
    agreement, stuff = drawn("1.00", "..00"), drawn("22.4", "2244")
    given = boxes((0, 0, 2, 2, CAT))
    same(next_labels(stuff, image_entry(2, 4), given, agreement, CLASSES, RoundSettings(), 0), "12.4", "2244")
    same(next_labels(np.full((2, 4), -1), image_entry(2, 4, [2]), given, agreement, THINGS_ONLY, RoundSettings(), 0),
         "1.00", "..00")


def test_images_without_boxes_and_without_stuff():
    nothing = np.full((2, 3), -1, np.int16)
    outside = np.zeros((2, 3), np.int16)
    found = next_labels(nothing, image_entry(2, 3, []), boxes(), outside, CLASSES, RoundSettings(), 0)
    assert (found == -1).all()
    assert (instances_of(found, boxes(), CLASSES) == -1).all()
    found = next_labels(nothing, image_entry(2, 3, []), boxes(), outside, THINGS_ONLY, RoundSettings(), 0)
    assert (found == 0).all() and (instances_of(found, boxes(), THINGS_ONLY) == 0).all()
