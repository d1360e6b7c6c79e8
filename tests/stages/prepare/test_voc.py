"""A VOCdevkit and an SBD of a few pixels."""

import numpy as np
import pytest
from PIL import Image

from stages.labels import rle
from stages.prepare.kinds import needed_paths
from stages.prepare.settings import DatasetSettings
from stages.prepare.voc import CLASSES
from stages.prepare.writing import save_inst, save_palette
from stages.runtime.errors import UserError

OBJECTS = np.array([[1, 1, 255, 0, 0, 0],
                    [1, 1, 255, 2, 2, 0],
                    [255, 255, 255, 2, 2, 0],
                    [0, 0, 0, 0, 0, 1]], np.uint8)  # object 1 has two parts
CATEGORIES = np.where(OBJECTS == 1, 15, np.where(OBJECTS == 2, 8, OBJECTS)).astype(np.uint8)


@pytest.fixture
def root(tmp_path):
    base = tmp_path / "VOCdevkit"
    voc, sbd = base / "VOC2012", base / "SBD" / "dataset"
    for folder in (voc / "JPEGImages", voc / "SegmentationObject", voc / "SegmentationClass",
                   voc / "ImageSets/Segmentation", sbd / "inst"):
        folder.mkdir(parents=True)
    for name in ("2007_000032", "2007_000033", "2008_000001", "2008_000002", "2008_000003"):
        Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(voc / f"JPEGImages/{name}.jpg")
    for name in ("2007_000032", "2007_000033"):
        save_palette(voc / f"SegmentationObject/{name}.png", OBJECTS)
        save_palette(voc / f"SegmentationClass/{name}.png", CATEGORIES)
    for name in ("2007_000032", "2008_000001", "2008_000002", "2007_000033"):
        save_inst(sbd / f"inst/{name}.mat", (OBJECTS == 1).astype(np.uint8), [20])
    (voc / "ImageSets/Segmentation/train.txt").write_text("2007_000032\n")
    (voc / "ImageSets/Segmentation/val.txt").write_text("2007_000033\n")
    (sbd / "train.txt").write_text("2008_000001\n2007_000032\n")
    (sbd / "val.txt").write_text("2008_000002\n2007_000033\n")
    return base


def prepare(root, desk, **settings):
    return desk.prepare(**{"kind": "voc", "root": str(root), "allow_empty_classes": True, **settings})


def test_train_aug(root, desk):
    truth = prepare(root, desk)
    assert [image["id"] for image in truth["train"]["images"]] == [2007000032, 2008000001, 2008000002]
    assert [image["id"] for image in truth["val"]["images"]] == [2007000033]
    assert [(item["id"], item["name"]) for item in truth["train"]["categories"]] == list(enumerate(CLASSES, 1))
    person, cat, monitor, _ = truth["train"]["annotations"]
    assert (person["category_id"], cat["category_id"], monitor["category_id"]) == (15, 8, 20)
    assert (rle.decode(person["segmentation"]) == (OBJECTS == 1)).all()  # both parts, 255 in none
    assert (rle.decode(cat["segmentation"]) == (OBJECTS == 2)).all()
    assert (rle.decode(monitor["segmentation"]) == (OBJECTS == 1)).all()
    assert all(item["iscrowd"] == 0 for item in truth["train"]["annotations"])
    assert truth["train"]["info"] == {"truth": "masks"}
    # 255 is void; SBD has no such value.
    voids = [image.get("void") for image in truth["train"]["images"]]
    assert (rle.decode(voids[0]) == (OBJECTS == 255)).all() and voids[1:] == [None, None]
    weak = desk.annotate(kinds=["tags", "masks"], masked_images=[2007000032])["train"]["images"]
    assert weak[0]["void"] == voids[0] and "void" not in weak[1]


def test_train_alone_needs_no_sbd(root, desk):
    truth = prepare(root / "VOC2012", desk, train="train", classes=["person", "cat"], allow_empty_classes=False)
    assert len(truth["train"]["images"]) == 1 and len(truth["train"]["annotations"]) == 2
    assert prepare(root, desk, train="train", classes=["cat"])["train"]["annotations"][0]["category_id"] == 8


def test_needed_paths_are_there(root):
    for train in ("train_aug", "train"):
        assert all(path.exists() for path in needed_paths(DatasetSettings(kind="voc", root=str(root), train=train)))


def test_empty_classes_are_told(root, desk):
    with pytest.raises(UserError, match="17 of 20 classes have no training image: aeroplane"):
        prepare(root, desk, allow_empty_classes=False)


def no_class(root):
    save_palette(root / "VOC2012/SegmentationClass/2007_000032.png", np.where(OBJECTS == 1, 255, CATEGORIES))


CASES = {
    "no devkit": (lambda r: (r / "VOC2012").rename(r / "VOC2007"), "no JPEGImages in it"),
    "no SBD": (lambda r: (r / "SBD").rename(r / "sbd2"), "train_aug needs SBD there .dataset.sbd., or set"),
    "no list": (lambda r: (r / "VOC2012/ImageSets/Segmentation/val.txt").unlink(), "val.txt: no such image set"),
    "name twice": (lambda r: (r / "VOC2012/ImageSets/Segmentation/val.txt").write_text("2007_000033\n" * 2),
                   "2007_000033 is listed twice"),
    "no masks": (lambda r: (r / "SBD/dataset/inst/2008_000001.mat").unlink(),
                 r"image 2008000001 .*2008_000001\.mat: no such file"),
    "no classes": (lambda r: (r / "VOC2012/SegmentationClass/2007_000032.png").unlink(), "no such file; every image"),
    "no mat": (lambda r: (r / "SBD/dataset/inst/2008_000001.mat").write_text("x" * 200), "cannot be read as an SBD"),
    "no png": (lambda r: (r / "VOC2012/SegmentationObject/2007_000032.png").write_text("x"), "cannot be read"),
    "colour png": (lambda r: Image.new("RGB", (6, 4)).save(r / "VOC2012/SegmentationObject/2007_000032.png"),
                   "a palette PNG was expected, found mode RGB"),
    "other size": (lambda r: save_inst(r / "SBD/dataset/inst/2008_000001.mat", np.ones((5, 5), np.uint8), [1]),
                   "masks of 5 x 5 pixels, the image has 6 x 4"),
    "numbers in a line": (lambda r: save_inst(r / "SBD/dataset/inst/2008_000001.mat", np.array("x"), [1]),
                          "2008_000001.mat: (masks of|cannot be read)"),
    "parts of numbers": (lambda r: save_inst(r / "SBD/dataset/inst/2008_000001.mat", np.full((4, 6), np.nan), [1]),
                         "cannot be read as an SBD inst file .*whole"),
    "HDF5 of MATLAB 7.3": (lambda r: (r / "SBD/dataset/inst/2008_000001.mat").write_bytes(
        b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + b"\0" * 400), "cannot be read as an SBD inst file"),
    "list of bytes": (lambda r: (r / "VOC2012/ImageSets/Segmentation/val.txt").write_bytes(b"2007\xff"),
                      r"val.txt: not a UTF-8 text file .byte 4"),
    "list is a folder": (lambda r: ((r / "VOC2012/ImageSets/Segmentation/val.txt").unlink(),
                                    (r / "VOC2012/ImageSets/Segmentation/val.txt").mkdir()), "val.txt: cannot be read"),
    "long name": (lambda r: (r / "VOC2012/ImageSets/Segmentation/val.txt").write_text("x" * 300),
                  "is no name of an im"),
    "unknown class": (lambda r: save_inst(r / "SBD/dataset/inst/2008_000001.mat", (OBJECTS == 1) * 1, [21]),
                      "object 1 has no class from 1 to 20"),
    "no class": (no_class, "object 1 has no class from 1 to 20"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(root, desk, case):
    change, message = CASES[case]
    change(root)
    with pytest.raises(UserError, match=message):
        prepare(root, desk)
    assert not (desk.folder / "data").exists()


def test_lists_with_a_byte_order_mark(root, desk):
    path = root / "VOC2012/ImageSets/Segmentation/val.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [image["id"] for image in prepare(root, desk)["val"]["images"]] == [2007000033]


def test_names_without_numbers(root, desk):
    voc = root / "VOC2012"
    for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationObject", "png"), ("SegmentationClass", "png")):
        (voc / folder / f"2007_000032.{suffix}").rename(voc / folder / f"street.{suffix}")
    (voc / "ImageSets/Segmentation/train.txt").write_text("street\n")
    truth = prepare(root, desk, train="train")
    assert (truth["val"]["images"][0]["id"], truth["train"]["images"][0]["id"]) == (1, 2)
