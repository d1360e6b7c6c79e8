"""A Cityscapes of a few small pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stages.labels import rle
from stages.prepare.cityscapes import CATEGORIES
from stages.prepare.cityscapes_scenes import coarsened, numbers, write_cityscapes
from stages.prepare.kinds import needed_paths
from stages.prepare.settings import DatasetSettings
from stages.prepare.writing import save_picture as save
from stages.runtime.errors import UserError

AACHEN = "aachen/aachen_000000_000019"
ALL = {"allow_empty_classes": True}


@pytest.fixture
def root(tmp_path):
    return write_cityscapes(tmp_path / "cityscapes")


def prepare(root, desk, **settings):
    return desk.prepare(**{"kind": "cityscapes", "root": str(root), **ALL, **settings})


def objects_of(truth, image):
    return [item for item in truth["annotations"] if item["image_id"] == image["id"]]


def test_the_nineteen_classes():
    assert len(CATEGORIES) == 19 and sum(category["isthing"] for category in CATEGORIES) == 8


def test_fine_labels(root, desk):
    truth = prepare(root, desk)
    assert [image["file_name"] for image in truth["train"]["images"]] == [
        f"train/{city}/{city}_00000{frame}_000019_leftImg8bit.png" for city in ("aachen", "bochum") for frame in (0, 1)]
    assert len(truth["val"]["images"]) == 2 and truth["train"]["info"] == {"truth": "masks"}
    ids = [image["id"] for part in truth.values() for image in part["images"]]
    assert len(set(ids)) == 6
    image = truth["train"]["images"][0]
    assert "coarse" not in image
    fine = numbers((64, 128), 600)
    found = objects_of(truth["train"], image)
    things = [(item["category_id"], item["iscrowd"]) for item in found if item["category_id"] >= 24]
    assert things == [(26, 1), (24, 0), (25, 0), (26, 0), (26, 0), (33, 0)], "the group of cars is a crowd"
    for item, value in zip(found[:6], (26, 24000, 25000, 26000, 26001, 33000), strict=True):
        assert (rle.decode(item["segmentation"]) == (fine == value)).all()
    stuff = {item["category_id"]: item for item in found if item["category_id"] < 24}
    assert {*stuff} == {7, 8, 11, 21, 23}
    for category, item in stuff.items():
        assert (rle.decode(item["segmentation"]) == (fine == category)).all()
    void = rle.decode(image["void"])
    assert (void == np.isin(fine, (1, 9))).all()
    covered = np.sum([rle.decode(item["segmentation"]) for item in found], axis=0) + void
    assert (covered == 1).all(), "every pixel is labelled once, or void"


def test_coarse_labels_beside_fine_ones(root, desk):
    truth = prepare(root, desk, train="train + train_extra")["train"]
    assert [image.get("coarse", 0) for image in truth["images"]] == [0, 0, 0, 0, 1, 1]
    extra = truth["images"][-1]
    assert extra["file_name"].startswith("train_extra/augsburg/")
    coarse = coarsened(numbers((64, 128), 801))
    assert (rle.decode(extra["void"]) == np.isin(coarse, (0, 1, 9))).all()
    weak = desk.annotate(kinds=["tags", "boxes"])["train"]["images"]
    assert [image.get("coarse", 0) for image in weak] == [0, 0, 0, 0, 1, 1]
    same = prepare(root, desk, train="train_coarse")["train"]
    assert len(same["images"]) == 4 and all(image["coarse"] for image in same["images"])


def test_boxes_and_tags_of_crops(root, desk):
    prepare(root, desk)
    crops = {"columns": 5, "rows": 3, "width": 31, "height": 25}
    weak = desk.annotate(kinds=["boxes", "tags", "masks"], masked_images=0.5, tag_crops=crops)["train"]
    fine = numbers((64, 128), 600)
    image = weak["images"][0]
    assert len(image["tag_crops"]) == 15
    for crop in image["tag_crops"]:
        x, y, w, h = crop["bbox"]
        shown = np.unique(fine[y:y + h, x:x + w].astype(int))
        labels = {int(value if value < 1000 else value // 1000) for value in shown}
        assert crop["tags"] == sorted(labels - {1, 9})
    assert image["tags"] == [7, 8, 11, 21, 23, 24, 25, 26, 33]
    assert sum(image.get("fully_labelled", 0) for image in weak["images"]) == 2
    assert ["void" in image for image in weak["images"]] == ["fully_labelled" in image for image in weak["images"]]
    boxes = [item for item in weak["annotations"] if item["image_id"] == image["id"] and "bbox" in item]
    assert [(item["category_id"], item["iscrowd"]) for item in boxes] == [
        (26, 1), (24, 0), (25, 0), (26, 0), (26, 0), (33, 0)]


def test_no_more_classes_than_wanted(root, desk):
    truth = prepare(root, desk, classes=["car", "road"], allow_empty_classes=False)["train"]
    assert {item["category_id"] for item in truth["annotations"]} == {7, 26}


def test_needed_paths(root):
    settings = DatasetSettings(kind="cityscapes", root=str(root), train="train+train_extra")
    paths = needed_paths(settings)
    assert all(path.exists() for path in paths)
    assert {path.relative_to(root).as_posix() for path in paths[1:]} == {
        "leftImg8bit/train", "gtFine/train", "leftImg8bit/train_extra", "gtCoarse/train_extra", "leftImg8bit/val",
        "gtFine/val"}


def fine(root, frame=0):
    return root / f"gtFine/train/aachen/aachen_00000{frame}_000019_gtFine_instanceIds.png"


def photograph(root):
    return root / f"leftImg8bit/train/{AACHEN}_leftImg8bit.png"


CASES = {
    "no labels": (lambda r: fine(r).unlink(), {}, f"{AACHEN}_gtFine_instanceIds.png: no such file; .*leftImg8bit.png "
                                                  f"needs its labels"),
    "no image": (lambda r: photograph(r).unlink(), {}, f"{AACHEN}_leftImg8bit.png: no such file; .* labels it"),
    "several": (lambda r: (fine(r).unlink(), fine(r, 1).unlink()), {},
                r"(?s)2 file\(s\) of the set train are missing.*aachen_000000.*aachen_000001"),
    "no folder": (lambda r: (r / "gtFine/val").rename(r / "gtFine/other"), {},
                  "gtFine/val: no such folder; dataset.root must hold leftImg8bit/val and gtFine/val"),
    "unknown set": (lambda r: None, {"train": "trian"}, "dataset.train: no image set 'trian'; did you mean 'train'?"),
    "same images": (lambda r: None, {"train": "train+train_coarse"}, "train\\+train_coarse has the same images twice"),
    "damaged": (lambda r: fine(r).write_text("x"), {}, "instanceIds.png: cannot be read"),
    "colour": (lambda r: save(fine(r), np.zeros((64, 128, 3), np.uint8)), {},
               "16-bit numbers was expected, found mode"),
    "other size": (lambda r: save(fine(r), np.zeros((60, 128), np.uint16)), {},
                   "masks of 128 x 60 pixels, the image has 128 x 64"),
    "unknown class": (lambda r: save(fine(r), np.full((64, 128), 40_000, np.uint16)), {},
                      r"the numbers \[40000\] belong to no class of Cityscapes"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(root, desk, case):
    change, settings, message = CASES[case]
    change(root)
    with pytest.raises(UserError, match=message):
        prepare(root, desk, **settings)
    assert not (desk.folder / "data").exists()


def test_an_image_of_void_alone(root, desk):
    save(fine(root), np.full((64, 128), 9003, np.uint16))  # object 3 of class 9, parking
    truth = prepare(root, desk)["train"]
    assert objects_of(truth, truth["images"][0]) == []
    assert rle.decode(truth["images"][0]["void"]).all()


def test_pictures_are_linked_not_copied(root, desk):
    prepare(root, desk)
    target = desk.images / f"train/{AACHEN}_leftImg8bit.png"
    assert target.samefile(photograph(root)) and Image.open(target).size == (128, 64)
