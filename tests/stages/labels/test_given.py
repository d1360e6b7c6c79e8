"""Mixes of weak and full labels."""

from __future__ import annotations

import numpy as np
import pytest

from stages.labels import rle
from stages.labels.coco import write_instances
from stages.labels.given import given_map, given_rows, with_given_masks

CATEGORIES = [{"id": 3, "name": "cat", "isthing": 1}, {"id": 8, "name": "dog"}, {"id": 20, "name": "sky", "isthing": 0}]


def mask(rows):
    return rle.encode(np.array([[int(pixel) for pixel in row] for row in rows.split()]))


SKY, CAT, DOGS, DOG = (mask(rows) for rows in ("1111 1111 0000", "0110 0110 0000", "0000 0000 0011", "0000 1000 0000"))


@pytest.fixture
def weak():
    """Image 1 is labelled in full; of the objects of image 2 one has a mask."""
    return {"images": [{"id": 1, "file_name": "1.png", "height": 3, "width": 4, "tags": [3, 20], "fully_labelled": 1},
                       {"id": 2, "file_name": "2.png", "height": 3, "width": 4, "tags": [3]},
                       {"id": 5, "file_name": "5.png", "height": 3, "width": 4, "tags": [], "fully_labelled": 1}],
            "categories": CATEGORIES,
            "annotations": [
                {"id": 11, "image_id": 1, "category_id": 20, "iscrowd": 0, "segmentation": SKY},
                {"id": 12, "image_id": 1, "category_id": 3, "iscrowd": 0, "segmentation": CAT, "bbox": [1, 0, 2, 2]},
                {"id": 13, "image_id": 1, "category_id": 8, "iscrowd": 1, "segmentation": DOGS},
                {"id": 21, "image_id": 2, "category_id": 3, "iscrowd": 0, "bbox": [0, 0, 2, 2]},
                {"id": 22, "image_id": 2, "category_id": 8, "iscrowd": 0, "bbox": [0, 1, 1, 1], "segmentation": DOG}]}


def row(image, category, segmentation, **more):
    return {"image_id": image, "category_id": category, "segmentation": segmentation, "score": 0.5, **more}


def test_masks_stand_where_labels_were_predicted(weak, tmp_path):
    predicted = [row(1, 3, DOG), row(2, 3, SKY, weak_id=21), row(2, 8, SKY, weak_id=22, replaced=1), row(5, 8, SKY)]
    found = with_given_masks(predicted, weak)
    assert found[0] == predicted[1]
    assert found[1] == row(2, 8, DOG, weak_id=22, replaced=1) | {"score": 1.0}
    assert found[2:] == [
        {"image_id": 1, "category_id": 3, "segmentation": CAT, "score": 1.0, "iscrowd": 0, "weak_id": 12},
        {"image_id": 1, "category_id": 8, "segmentation": DOGS, "score": 1.0, "iscrowd": 1, "weak_id": 13}]
    write_instances(tmp_path / "labels.json", weak["images"], CATEGORIES, found)


def test_methods_that_label_stuff_get_it(weak):
    found = with_given_masks([], weak, stuff=True)
    assert [(item["category_id"], item["iscrowd"]) for item in found] == [(20, 0), (3, 0), (8, 1)]


def test_weak_labels_alone_leave_everything_as_it_is(weak):
    for image in weak["images"]:
        image.pop("fully_labelled", None)
    weak["annotations"] = [{key: value for key, value in item.items() if key != "segmentation"}
                           for item in weak["annotations"]]
    rows = [row(2, 3, SKY, weak_id=21), row(1, 3, CAT)]
    assert with_given_masks(rows, weak) == rows
    assert given_rows(weak) == {}


def test_the_rows_of_images_labelled_in_full(weak):
    assert {number: [item["id"] for item in rows] for number, rows in given_rows(weak).items()} == {
        1: [11, 12, 13], 5: []}


def test_semantic_maps(weak):
    image, rows = weak["images"][0], weak["annotations"][:3]
    assert given_map(image, rows, CATEGORIES).tolist() == [[0, 3, 3, 0], [0, 3, 3, 0], [0, 0, 8, 8]]
    assert given_map(image, rows, CATEGORIES, stuff=True).tolist() == [
        [20, 3, 3, 20], [20, 3, 3, 20], [-1, -1, 8, 8]], "what is neither thing nor stuff is void"
    void = {**image, "void": mask("0000 0000 1000")}
    assert given_map(void, rows, CATEGORIES)[2].tolist() == [-1, 0, 8, 8]
    assert given_map(image, rows[1:], CATEGORIES[:2], stuff=True)[2].tolist() == [0, 0, 8, 8], "a data set of things"
    assert (given_map(image, [], CATEGORIES) == 0).all()


def test_the_smaller_of_two_masks_lies_on_top(weak):
    rows = [{"id": number, "category_id": category, "segmentation": mask(rows)}
            for number, category, rows in ((1, 3, "0010 0000 0000"), (2, 8, "0111 0111 0000"))]
    for order in (rows, rows[::-1]):
        assert given_map(weak["images"][0], order, CATEGORIES)[0].tolist() == [0, 8, 3, 8]
