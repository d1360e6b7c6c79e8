"""COCO panoptic JSON and PNGs as a data set."""

from __future__ import annotations

import json

import numpy as np
import pytest

from stages.labels import rle
from stages.labels.panoptic import png_folder, write_panoptic
from stages.labels.segments import write_segments
from stages.prepare.kinds import needed_paths
from stages.prepare.settings import DatasetSettings
from stages.runtime.errors import UserError

CATEGORIES = [{"id": 4, "name": "cat", "isthing": 1}, {"id": 9, "name": "dog", "isthing": 1},
              {"id": 30, "name": "sky", "isthing": 0}]
MAP = np.zeros((10, 12), int)
MAP[:3], MAP[4:8, 2:6], MAP[4:8, 6:9], MAP[9, :4] = 900, 17, 18, 300
ROWS = [{"id": 17, "category_id": 4}, {"id": 18, "category_id": 4}, {"id": 300, "category_id": 9, "iscrowd": 1},
        {"id": 900, "category_id": 30}]


@pytest.fixture
def root(coco_root):
    """The photographs of ``coco_root`` with two cats, a crowd of dogs, sky and void each."""
    for part in ("train", "val"):
        path = coco_root.root / f"panoptic_{part}.json"
        images = getattr(coco_root, part)["images"]
        write_panoptic(path, images, CATEGORIES, [write_segments(png_folder(path), image, MAP, ROWS)
                                                  for image in images])
    return coco_root.root


def prepare(root, desk, **settings):
    return desk.prepare(kind="panoptic", root=str(root), allow_empty_classes=True, **settings)


def test_segments_are_truth(root, desk):
    truth = prepare(root, desk)
    assert truth["train"]["categories"] == CATEGORIES and truth["train"]["info"] == {"truth": "masks"}
    assert len(truth["train"]["images"]) == 3 and len(truth["val"]["images"]) == 2
    found = [item for item in truth["train"]["annotations"] if item["image_id"] == 12]
    assert [(item["category_id"], item["iscrowd"]) for item in found] == [(4, 0), (4, 0), (9, 1), (30, 0)]
    for item, value in zip(found, (17, 18, 300, 900), strict=True):
        assert (rle.decode(item["segmentation"]) == (MAP == value)).all()
    assert (rle.decode(truth["train"]["images"][0]["void"]) == (MAP == 0)).all()
    assert desk.annotate(kinds=["tags"])["train"]["images"][0]["tags"] == [4, 30]
    assert all(path.exists() for path in needed_paths(DatasetSettings(kind="panoptic", root=str(root))))


def test_classes_and_other_names(root, desk):
    (root / "panoptic_train.json").rename(root / "mine.json")
    (root / "panoptic_train").rename(root / "mine")
    truth = prepare(root, desk, train="mine.json", split=1, classes=["sky"])
    assert {item["category_id"] for item in truth["train"]["annotations"]} == {30}
    assert (rle.decode(truth["train"]["images"][0]["void"]) == (MAP == 0)).all(), "cats and dogs are background then"
    assert len(truth["train"]["images"]) == 2


def edit(root, change):
    content = json.loads((root / "panoptic_train.json").read_text())
    change(content)
    (root / "panoptic_train.json").write_text(json.dumps(content))


CASES = {
    "no PNG": (lambda r: (r / "panoptic_train/000000000012.png").unlink(),
               r"image 12 .*000000000012.png: no such file"),
    "no PNGs": (lambda r: (r / "panoptic_train").rename(r / "elsewhere"), "panoptic_train: no such folder"),
    "no JSON": (lambda r: (r / "panoptic_train.json").unlink(), "panoptic_train.json: no such file"),
    "no annotation": (lambda r: edit(r, lambda content: content["annotations"].pop()), "1 image.* have no annotation"),
    "no category": (lambda r: edit(r, lambda content: content["categories"].pop()), "unknown category_id 30"),
    "other size": (lambda r: edit(r, lambda content: content["images"][0].update(width=13)), "the file has 12 x 10"),
    "other segments": (lambda r: edit(r, lambda content: content["annotations"][0]["segments_info"].pop()),
                       r"ids \[900\] are in the PNG alone"),
    "isthing": (lambda r: edit(r, lambda content: content["categories"][0].pop("isthing")), "isthing must be 0 or 1"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(root, desk, case):
    change, message = CASES[case]
    change(root)
    with pytest.raises(UserError, match=f"(?s){message}"):
        prepare(root, desk)
    assert not (desk.folder / "data").exists()
