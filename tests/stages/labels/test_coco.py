"""COCO JSON in and out."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from stages.labels import coco, rle
from stages.runtime.errors import UserError

IMAGES = [{"id": 7, "file_name": "a.jpg", "width": 4, "height": 4},
          {"id": 3, "file_name": "sub/b.jpg", "width": 6, "height": 5}]
CATEGORIES = [{"id": 18, "name": "dog", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}]
CORNER = np.array([[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], np.uint8)


def content():
    return {"images": [dict(image) for image in IMAGES], "categories": [dict(item) for item in CATEGORIES],
            "annotations": [{"id": 1, "image_id": 7, "category_id": 18, "bbox": [0, 0, 2, 2], "iscrowd": 0}]}


def test_written_instances_load_in_pycocotools(tmp_path):
    path = tmp_path / "labels.json"
    coco.write_instances(path, IMAGES, CATEGORIES, [
        {"image_id": 7, "category_id": 18, "segmentation": CORNER, "score": np.float32(0.5), "id": 99, "area": 1,
         "bbox": [9, 9, 9, 9]},
        {"image_id": np.int64(3), "category_id": 18, "segmentation": rle.encode(np.ones((5, 6))), "iscrowd": 1},
        {"image_id": 7, "category_id": 2, "segmentation": CORNER == 0, "note": "kept"},
    ], {"truth": "masks"})
    loaded = COCO(path)
    assert sorted(loaded.anns) == [1, 2, 3]
    crowd, dog, sky = (loaded.anns[number] for number in (1, 2, 3))
    assert (crowd["image_id"], crowd["iscrowd"], crowd["area"], crowd["bbox"]) == (3, 1, 30, [0, 0, 6, 5])
    assert (dog["area"], dog["bbox"], dog["score"], dog["iscrowd"]) == (3, [1, 1, 2, 2], 0.5, 0)
    assert (loaded.annToMask(dog) == CORNER).all()
    assert sky["note"] == "kept" and sky["area"] == 13
    assert coco.read_coco(path)["info"] == {"truth": "masks"}
    assert [image["id"] for image in coco.read_coco(path)["images"]] == [7, 3]


def test_same_labels_same_bytes(tmp_path):
    rows = [{"image_id": 3, "category_id": 18, "segmentation": np.eye(5, 6)},
            {"image_id": 7, "category_id": 18, "segmentation": CORNER}]
    coco.write_instances(tmp_path / "a.json", IMAGES, CATEGORIES, rows)
    coco.write_instances(tmp_path / "b.json", IMAGES, CATEGORIES, iter(rows[::-1]))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_no_objects(tmp_path):
    coco.write_instances(tmp_path / "a.json", IMAGES, CATEGORIES, [])
    assert coco.annotations_by_image(coco.read_coco(tmp_path / "a.json")) == {7: [], 3: []}


@pytest.mark.parametrize(("change", "message"), [
    ({"segmentation": np.zeros((4, 4))}, "empty mask"),
    ({"segmentation": np.ones((5, 4))}, r"mask of \[5, 4\]"),
    ({"image_id": 8}, "unknown image"),
    ({"category_id": 1}, "unknown image or category"),
    ({"score": float("nan")}, "score nan"),
])
def test_writer_refuses(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        coco.write_instances(tmp_path / "a.json", IMAGES, CATEGORIES,
                             [{"image_id": 7, "category_id": 18, "segmentation": CORNER, **change}])
    assert not (tmp_path / "a.json").exists()


def test_writer_refuses_duplicate_images(tmp_path):
    with pytest.raises(ValueError, match="duplicate"):
        coco.write_instances(tmp_path / "a.json", [IMAGES[0], IMAGES[0]], CATEGORIES, [])


def test_image_entries_leave_out_what_gives_labels_away():
    image = {"id": 3, "file_name": "a/b.png", "width": 4, "height": 5}
    assert coco.image_entries([{"tags": [1], **image, "neg_category_ids": []}]) == [image]
    assert coco.image_entries([]) == []


def test_helpers():
    assert coco.category_indices(CATEGORIES) == {2: 0, 18: 1}
    assert coco.category_indices(CATEGORIES, things_only=True) == {18: 0}
    assert coco.is_thing({"id": 1, "name": "x"})
    assert coco.images_by_id(content())[3]["file_name"] == "sub/b.jpg"


def test_correct_content_passes():
    coco.validate_coco(content(), "x.json")


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: c.update(images=None), "images: a list was expected, found nothing"),
    (lambda c: c.pop("categories"), "categories: a list was expected"),
    (lambda c: c["images"].append("a"), "image number 3: an object with a whole number"),
    (lambda c: c["images"].append({"id": "9"}), "image number 3: .* found '9'"),
    (lambda c: c["images"].append({"id": True, "file_name": "c"}), "image number 3"),
    (lambda c: c["images"].append({"id": -1, "file_name": "c"}), "image number 3"),
    (lambda c: c["images"].append(dict(IMAGES[0], file_name="c")), "image id 7: appears twice"),
    (lambda c: c["images"].append(dict(IMAGES[0], id=8)), "image 8: has the file_name 'a.jpg' of image 7"),
    (lambda c: c["images"][0].pop("file_name"), "image 7: a file_name was expected"),
    (lambda c: c["images"][0].update(width=0), "image 7: width must be a whole number from 1"),
    (lambda c: c["images"][0].pop("height"), "image 7: height must be"),
    (lambda c: c["images"][0].update(tags=[5]), "image 7: unknown category 5 in its tags"),
    (lambda c: c["images"][0].update(tags=["dog"]), "image 7: unknown category 'dog'"),
    (lambda c: c["images"][0].update(tags="dog"), "image 7: tags must be a list"),
    (lambda c: c["categories"].append(CATEGORIES[0]), "category id 18: appears twice"),
    (lambda c: c["categories"].append({"id": 5, "name": "dog"}), "category 5: has the name 'dog' of category 18"),
    (lambda c: c["categories"].append({"id": 5}), "category 5: a name was expected"),
    (lambda c: c["categories"][0].update(isthing="yes"), "category 18: isthing must be 0 or 1"),
    (lambda c: c["annotations"].append(c["annotations"][0]), "annotation id 1: appears twice"),
    (lambda c: c["annotations"][0].update(image_id=99), "annotation 1: unknown image_id 99"),
    (lambda c: c["annotations"][0].update(category_id=99), r"annotation 1 \(image 7\): unknown category_id 99"),
    (lambda c: c["annotations"][0].update(category_id=[1]), r"unknown category_id \[1\]"),
    (lambda c: c["annotations"][0].update(iscrowd=2), "iscrowd must be 0 or 1"),
])
def test_not_coco(tmp_path, change, message):
    wrong = content()
    change(wrong)
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=message) as error:
        coco.read_coco(path)
    assert "wrong.json" in str(error.value)


@pytest.mark.parametrize(("change", "message"), [
    (lambda c: c.update(info=None), "info: an object was expected"),
    (lambda c: c["images"][0].update(void={"size": [1, 1], "counts": "1"}), "image 7, void: RLE size"),
    (lambda c: c["annotations"][0].update(score="x"), "score: a number was expected, found 'x'"),
    (lambda c: c["annotations"][0].update(area=10**400), "area: a number was expected"),
    (lambda c: c["annotations"][0].update(bbox=[1]), "bbox: four numbers"),
    (lambda c: c["annotations"][0].update(input=3), "input: an object was expected"),
    (lambda c: c["annotations"][0].update(input={"point": ["x", 1]}), "point: two numbers"),
    (lambda c: c.update(weak=[{"id": 1, "image_id": 99, "category_id": 18}]), "annotation 1: unknown image_id 99"),
    (lambda c: c.update(weak=3), "annotations: a list was expected"),
    (lambda c: c.update(weak=[{"id": 1, "image_id": 7, "category_id": 18, "segmentation": {"size": [1]}}]),
     "compressed"),
])
def test_contract(tmp_path, change, message):
    wrong = content()
    coco.write_instances(tmp_path / "a.json", wrong["images"], wrong["categories"], [])
    wrong = json.loads((tmp_path / "a.json").read_text()) | {"annotations": content()["annotations"]}
    for row in wrong["annotations"]:
        row.pop("segmentation", None)
    change(wrong)
    (tmp_path / "a.json").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=f"(?s)a.json.*{message}"):
        coco.read_coco(tmp_path / "a.json")


@pytest.mark.parametrize("wrong", [[], "text", None, 3])
def test_not_an_object(wrong):
    with pytest.raises(UserError, match="not COCO JSON"):
        coco.validate_coco(wrong, "x.json")


def test_many_problems_are_counted():
    wrong = content()
    wrong["annotations"] = [{"id": number, "image_id": 99, "category_id": 18} for number in range(25)]
    with pytest.raises(UserError) as error:
        coco.validate_coco(wrong, "x.json")
    lines = str(error.value).splitlines()
    assert "25 problem(s)" in lines[0] and len(lines) == 12 and lines[-1].strip() == "... and 15 more"


@pytest.mark.parametrize("labels", [
    {"bbox": [0, 0, 10, 8]}, {"bbox": [-0.6, -1.5, 3, 4]}, {"bbox": [5.5, 2, 5.9, 6.2]}, {"point": [0, 0]},
    {"point": [-0.5, 7.5]}, {"point": [9, 7]}, {"extreme_points": [[3, 1], [0, 4], [3, 6], [8, 2]]},
    {"extreme_points": [[3, 1]] * 4},
])
def test_labels_in_the_image(labels):
    assert coco.label_problems(labels, 10, 8) == []
    clipped = coco.clip_labels(labels, 10, 8)
    if "bbox" in labels:
        x, y, w, h = clipped["bbox"]
        assert x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= 10 and y + h <= 8
    if "point" in labels:
        assert 0 <= clipped["point"][0] <= 9 and 0 <= clipped["point"][1] <= 7


@pytest.mark.parametrize(("labels", "message"), [
    ({"bbox": [0, 0, 10]}, "four numbers"), ({"bbox": "x"}, "four numbers"),
    ({"bbox": [0, 0, 1, None]}, "four numbers"),
    ({"bbox": [0, 0, 0, 3]}, "empty"), ({"bbox": [-3, 0, 5, 3]}, "outside the image of 10 x 8"),
    ({"bbox": [0, 0, 13, 3]}, "outside"), ({"bbox": [11, 0, 0.5, 3]}, "outside"),
    ({"bbox": [-1.5, 0, 1, 3]}, "outside"),
    ({"point": [1]}, "two numbers"), ({"point": [13, 2]}, "outside"), ({"point": [2, -4]}, "outside"),
    ({"point": [float("nan"), 1]}, "two numbers"),
    ({"extreme_points": [[1, 1]]}, "four points"), ({"extreme_points": [[1, 1], [1, 1], [1, 1], [99, 1]]}, "right"),
    ({"extreme_points": [[3, 6], [0, 4], [3, 1], [8, 2]]}, "not extreme: top, bottom"),
    ({"extreme_points": [[3, 1], [8, 4], [3, 6], [0, 2]]}, "not extreme: left, right"),
])
def test_labels_outside(labels, message):
    problems = coco.label_problems(labels, 10, 8)
    assert len(problems) == 1 and message in problems[0]
