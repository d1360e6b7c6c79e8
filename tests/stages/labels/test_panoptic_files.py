"""COCO panoptic files: what is written is what comes back, and what is wrong is said."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from stages.labels.panoptic import png_folder, read_panoptic, write_panoptic
from stages.labels.segments import decode_ids, encode_ids, read_segments, segments_info, write_segments
from stages.runtime.errors import UserError

CATEGORIES = [{"id": 3, "name": "cat", "isthing": 1}, {"id": 300, "name": "sky", "isthing": 0}]
IMAGES = [{"id": 7, "file_name": "a.jpg", "height": 3, "width": 4, "tags": [3]},
          {"id": 9, "file_name": "b.jpg", "height": 2, "width": 2}]
MAP = np.array([[300, 300, 300, 0], [5, 5, 300, 70000], [5, 5, 0, 70000]])
ROWS = [{"id": 70000, "category_id": 3, "score": 0.25, "scores": {"confidence": 0.5}}, {"id": 300, "category_id": 300},
        {"id": 5, "category_id": 3, "iscrowd": 1}, {"id": 6, "category_id": 3}]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "panoptic.json"
    folder = png_folder(path)
    annotations = [write_segments(folder, IMAGES[1], np.zeros((2, 2), int), []),
                   write_segments(folder, IMAGES[0], MAP, ROWS)]
    write_panoptic(path, IMAGES, CATEGORIES, annotations, {"by": "a test"})
    return path


def test_ids_as_colours():
    assert encode_ids(np.array([[1, 256, 65536, 256 ** 3 - 1]])).tolist() == [
        [[1, 0, 0], [0, 1, 0], [0, 0, 1], [255, 255, 255]]]
    ids = np.random.default_rng(0).integers(0, 256 ** 3, (20, 30))
    assert (decode_ids(encode_ids(ids)) == ids).all()
    for wrong in (np.array([[-1]]), np.array([[256 ** 3]]), np.array([1])):
        with pytest.raises(ValueError, match="segment ids"):
            encode_ids(wrong)


def test_areas_and_boxes_are_those_of_the_map():
    assert segments_info(MAP, ROWS) == [
        {"id": 5, "category_id": 3, "iscrowd": 1, "area": 4, "bbox": [0, 1, 2, 2]},
        {"id": 300, "category_id": 300, "iscrowd": 0, "area": 4, "bbox": [0, 0, 3, 2]},
        {"id": 70000, "category_id": 3, "iscrowd": 0, "area": 2, "bbox": [3, 1, 1, 2], "score": 0.25,
         "scores": {"confidence": 0.5}}]
    for rows in (ROWS[1:], [*ROWS, ROWS[0]], [{"id": 0, "category_id": 3}]):
        with pytest.raises(ValueError, match="do not fit each other"):
            segments_info(MAP, rows)
    with pytest.raises(ValueError, match="segment 70000: scores"):
        segments_info(MAP, [ROWS[0] | {"score": float("nan")}, *ROWS[1:]])


def test_what_is_written_is_read_again(file):
    content = read_panoptic(file)
    assert content["info"] == {"by": "a test"}
    assert content["images"][0] == {"id": 7, "file_name": "a.jpg", "height": 3, "width": 4}
    first, second = content["annotations"]
    assert (first["file_name"], second["segments_info"]) == ("000000000007.png", [])
    assert read_segments(png_folder(file) / first["file_name"], (3, 4), first["segments_info"]).tolist() == [
        [2, 2, 2, 0], [1, 1, 2, 3], [1, 1, 0, 3]]
    assert not read_segments(png_folder(file) / second["file_name"], (2, 2), []).any()


def test_detectron2_reads_it(file, tmp_path):
    coco_panoptic = pytest.importorskip("detectron2.data.datasets.coco_panoptic")
    thing, stuff = {3: 0}, {300: 0}
    meta = {"thing_dataset_id_to_contiguous_id": thing, "stuff_dataset_id_to_contiguous_id": stuff}
    (tmp_path / "000000000007.jpg").touch()  # it asks for the first picture, under the PNG's name
    first, second = coco_panoptic.load_coco_panoptic_json(str(file), str(tmp_path), str(png_folder(file)), meta)
    assert [(item["id"], item["category_id"], item["isthing"]) for item in first["segments_info"]] == [
        (5, 0, True), (300, 0, False), (70000, 0, True)]
    from detectron2.data.detection_utils import read_image

    pixels = read_image(first["pan_seg_file_name"], "RGB").astype(int)
    assert (pixels @ [1, 256, 65536] == MAP).all() and second["segments_info"] == []


def test_defects_are_never_written(tmp_path):
    good = write_segments(tmp_path, IMAGES[0], MAP, ROWS)
    with pytest.raises(ValueError, match="no such image, or a second annotation"):
        write_panoptic(tmp_path / "p.json", IMAGES, CATEGORIES, [good, good])
    with pytest.raises(ValueError, match="unknown category_id 3"):
        write_panoptic(tmp_path / "p.json", IMAGES, CATEGORIES[1:], [good])
    twice = write_segments(tmp_path, IMAGES[0], MAP, [row | {"category_id": 300} for row in ROWS])
    with pytest.raises(ValueError, match="image 7: two segments of one class of stuff"):
        write_panoptic(tmp_path / "p.json", IMAGES, CATEGORIES, [twice])
    with pytest.raises(ValueError, match="the image is"):
        write_segments(tmp_path, IMAGES[1], MAP, ROWS)
    assert not (tmp_path / "p.json").exists()


CASES = {
    "no list": (lambda content: content.pop("annotations"), "images, annotations and categories was expected"),
    "no size": (lambda content: content["images"][0].pop("width"), "image 7: width must be a whole number"),
    "no isthing": (lambda content: content["categories"][0].pop("isthing"), "category 3: isthing must be 0 or 1"),
    "image twice": (lambda content: content["images"].append(content["images"][0]), "image id 7: appears twice"),
    "unknown image": (lambda content: content["annotations"][0].update(image_id=8), "annotation of image 8: no such"),
    "outside": (lambda content: content["annotations"][0].update(file_name="../x.png"), "below the folder"),
    "absolute": (lambda content: content["annotations"][0].update(file_name="/x.png"), "below the folder"),
    "no segments": (lambda content: content["annotations"][0].pop("segments_info"), "must be a list of objects"),
    "id 0": (lambda content: content["annotations"][0]["segments_info"][0].update(id=0), "found 0"),
    "id twice": (lambda content: content["annotations"][0]["segments_info"][0].update(id=300), "appears twice"),
    "image id of another type": (lambda content: content["images"][0].update(id=[7]), r"found '?\[7\]"),
    "category without a name": (lambda content: content["categories"][0].pop("name"), "category 3: a name was"),
    "category of another type": (lambda content: content["annotations"][0]["segments_info"][0].update(
        category_id={}), "unknown category_id {}"),
    "segment of another type": (lambda content: content["annotations"][0]["segments_info"][0].update(id=[1]),
                                r"found \[1\]"),
    "annotation of another type": (lambda content: content["annotations"][0].update(image_id={}), "image {}: no such"),
    "score": (lambda content: content["annotations"][0]["segments_info"][0].update(score="x"), "must be numbers"),
    "crowd": (lambda content: content["annotations"][0]["segments_info"][0].update(iscrowd=2), "iscrowd must be 0 or"),
}


@pytest.mark.parametrize("case", CASES)
def test_json_that_is_wrong(file, case):
    change, message = CASES[case]
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"panoptic.json.*(?s:.*){message}"):
        read_panoptic(file)


def test_pngs_that_are_wrong(file):
    info = read_panoptic(file)["annotations"][0]["segments_info"]
    path = png_folder(file) / "000000000007.png"
    with pytest.raises(UserError, match=r"ids \[70000\] are in the PNG alone, \[\] in the JSON alone"):
        read_segments(path, (3, 4), info[:2])
    with pytest.raises(UserError, match=r"\[8\] in the JSON alone"):
        read_segments(path, (3, 4), [*info, {"id": 8}])
    with pytest.raises(UserError, match="an RGB PNG of 3 x 4 pixels"):
        read_segments(path, (4, 3), info)
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(path)
    with pytest.raises(UserError, match="found mode L"):
        read_segments(path, (3, 4), info)
    path.write_text("x")
    with pytest.raises(UserError, match="cannot be read as a PNG"):
        read_segments(path, (3, 4), info)
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        read_segments(path, (3, 4), info)


def test_pngs_of_too_many_pixels_are_not_decoded(file, monkeypatch):
    info = read_panoptic(file)["annotations"][0]["segments_info"]
    path = png_folder(file) / "000000000007.png"
    Image.new("RGB", (3000, 2000)).save(path)
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    with pytest.raises(UserError, match="an RGB PNG of 4 x 3 pixels was expected, found mode RGB and 3000 x 2000"):
        read_segments(path, (3, 4), info)
