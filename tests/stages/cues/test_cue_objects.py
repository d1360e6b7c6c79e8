from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from stages.cues.objects import Image, Pictures, box_area, large_objects, object_crops, read_crops, read_images
from stages.runtime import layout
from stages.runtime.errors import UserError

CATEGORIES = [{"id": 1, "name": "thing", "isthing": 1}, {"id": 2, "name": "stuff", "isthing": 0}]


def _weak(path: Path, annotations: list[dict]) -> Path:
    images = [{"id": number, "file_name": f"{number}.png", "width": 40, "height": 30} for number in (7, 3)]
    rows = [{"id": number, "image_id": 7, "category_id": 1, "iscrowd": 0, **item}
            for number, item in enumerate(annotations, start=1)]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": CATEGORIES}))
    return path


def _image(*objects: dict) -> Image:
    return Image("000000000001", {"id": 1, "file_name": "1.png", "width": 40, "height": 30}, objects)


def test_things_that_are_no_crowds_in_the_order_of_the_file(tmp_path):
    path = _weak(tmp_path / "weak.json", [
        {"bbox": [1, 2, 3, 4]}, {"category_id": 2}, {"bbox": [0, 0, 9, 9], "iscrowd": 1},
        {"extreme_points": [[5, 5]] * 4}])
    images, categories = read_images(path)
    assert [image.key for image in images] == ["000000000007", "000000000003"]
    assert [item["id"] for item in images[0].objects] == [1, 4]
    assert images[1].objects == ()
    assert images[0].size == (30, 40)
    assert categories == CATEGORIES


def test_an_object_without_what_is_needed_is_named(tmp_path):
    path = _weak(tmp_path / "weak.json", [{"point": [1, 2]}])
    with pytest.raises(UserError, match=r"image 7 \(7.png\), annotation 1: neither extreme points nor a box; "
                                        r"annotations.kinds must be \[extreme_points\] or \[boxes\]"):
        read_images(path)
    assert len(read_images(path, needs=["point"])[0][0].objects) == 1
    other = _weak(tmp_path / "other.json", [{"bbox": [1, 2, 3, 4]}])
    with pytest.raises(UserError, match=r"annotation 1: without a point; annotations.kinds must be \[points\]"):
        read_images(other, needs=["point"])


def test_objects_large_enough_to_learn_from():
    image = _image({"bbox": [0, 0, 8, 8]}, {"bbox": [0, 0, 7, 9]}, {"extreme_points": [[3, 3]] * 4})
    assert [box_area(item) for item in image.objects] == [64, 63, 1]
    assert large_objects([image], 64, "a.b") == [(image, 0)]
    with pytest.raises(UserError, match="none of the 3 objects has a box of at least 65 px; lower a.b, or"):
        large_objects([image], 65, "a.b")


def test_crops_of_all_objects_and_of_none():
    pixels = np.zeros((30, 40, 3), np.uint8)
    pixels[10:20, 10:20] = 255
    image = _image({"bbox": [10, 10, 10, 10]}, {"bbox": [30, 20, 10, 10]})
    crops, boxes, windows = object_crops(image, pixels, 32, 0.5)
    assert crops.shape == (2, 32, 32, 3)
    assert windows == [(5, 5, 25, 25), (25, 15, 40, 30)]
    np.testing.assert_allclose(boxes, [[8, 8, 24, 24], [32 / 3, 32 / 3, 32, 32]], rtol=1e-6)
    assert (crops[0, 9:23, 9:23] == 255).all()
    assert crops[0, :7].max() == 0
    crops, boxes, windows = object_crops(_image(), pixels, 32, 0.5)
    assert (crops.shape, boxes.shape, windows) == ((0, 32, 32, 3), (0, 4), [])
    assert read_crops(_image(), 32, 0.5)[0].shape == (0, 32, 32, 3), "no file is needed"


def test_pictures_forget_the_oldest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layout.IMAGES.mkdir(parents=True)
    for number in range(3):
        cv2.imwrite(str(layout.IMAGES / f"{number}.png"), np.full((10, 10, 3), number, np.uint8))
    pictures = Pictures(keep_bytes=600)
    for number in range(2):
        assert (pictures[f"{number}.png"] == number).all()
    first = pictures["0.png"]
    assert pictures["2.png"] is pictures["2.png"]
    assert pictures["0.png"] is first, "used again a moment ago"
    assert set(pictures._kept) == {"2.png", "0.png"}
