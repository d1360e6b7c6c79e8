"""A KITTI of a few pixels: boxes, instance PNGs, and sequences of MOTS."""

import numpy as np
import pytest

from stages.labels import rle
from stages.prepare.kinds import needed_paths
from stages.prepare.settings import DatasetSettings
from stages.prepare.writing import save_picture as save
from stages.runtime.errors import UserError

BOXES = ("Car 0.00 0 1.5 1.0 1.0 7.0 4.0 1 1 1 1 1 1 0\n"
         "Van 0.00 0 1.5 1.0 1.0 7.0 4.0 1 1 1 1 1 1 0\n\n"
         "Pedestrian 0.00 0 1.5 8 2 10.5 7 1 1 1 1 1 1 0\n"
         "DontCare -1 -1 -10 0 0 3 3 -1 -1 -1 -1000 -1000 -1000 -10\n")
# Cars 1 and 2, a group of cars, a person, a rider, road.
SEMANTICS = np.zeros((8, 12), np.uint16)
SEMANTICS[:] = 7 * 256
SEMANTICS[1:3, 1:5] = 26 * 256 + 1
SEMANTICS[3:5, 6:9] = 26 * 256 + 2
SEMANTICS[0, 9:] = 26 * 256
SEMANTICS[5:8, 0:2] = 24 * 256 + 1
SEMANTICS[5:8, 10:] = 25 * 256 + 1
TRACKS = np.zeros((8, 12), np.uint16)
TRACKS[1:3, 1:5] = 1007
TRACKS[3:6, 6:8] = 2000
TRACKS[7, :] = 10000


def photograph(path):
    save(path, np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8))


@pytest.fixture
def root(tmp_path):
    """The object benchmark's boxes for train, the semantics benchmark's masks for val."""
    base = tmp_path / "kitti"
    for number in range(3):
        photograph(base / f"training/image_2/00000{number}.png")
        (base / "training/label_2").mkdir(exist_ok=True)
        (base / f"training/label_2/00000{number}.txt").write_text(BOXES)
    for number in range(2):
        photograph(base / f"semantics/image_2/00000{number}_10.png")
        save(base / f"semantics/instance/00000{number}_10.png", SEMANTICS)
    return base


@pytest.fixture
def mots(tmp_path):
    base = tmp_path / "mots"
    for sequence in ("0000", "0002"):
        for frame in range(2):
            photograph(base / f"training/image_02/{sequence}/00000{frame}.png")
            save(base / f"instances/{sequence}/00000{frame}.png", TRACKS)
    return base


def prepare(root, desk, **settings):
    return desk.prepare(**{"kind": "kitti", "root": str(root), "val_images": "semantics/image_2", **settings})


def test_boxes_for_train_and_masks_for_val(root, desk):
    truth = prepare(root, desk)
    assert [category["name"] for category in truth["train"]["categories"]] == ["car", "person"]
    assert truth["train"]["info"]["truth"] == "none" and len(truth["train"]["images"]) == 3
    assert truth["val"]["info"] == {"truth": "masks"}
    ids = [image["id"] for part in truth.values() for image in part["images"]]
    assert len(set(ids)) == 5
    objects = [item for item in truth["val"]["annotations"] if item["image_id"] == truth["val"]["images"][0]["id"]]
    assert [(item["category_id"], item["iscrowd"]) for item in objects] == [(2, 0), (1, 1), (1, 0), (1, 0)]
    for item, value in zip(objects, (24 * 256 + 1, 26 * 256, 26 * 256 + 1, 26 * 256 + 2), strict=True):
        assert (rle.decode(item["segmentation"]) == (SEMANTICS == value)).all()


def test_points_are_the_middles_of_boxes(root, desk):
    prepare(root, desk)
    weak = desk.annotate(kinds=["points", "boxes"])
    car, person = weak["train"]["annotations"][:2]
    assert (car["category_id"], car["point"], car["bbox"]) == (1, [4, 2.5], [1, 1, 6, 3])
    assert (person["category_id"], person["point"]) == (2, [9.25, 4.5])
    assert weak["train"]["info"]["source"] == "input" and weak["val"]["info"]["source"] == "truth"
    # Crowds keep class and box, and nothing else.
    crowds = [item for item in weak["val"]["annotations"] if item["iscrowd"]]
    assert [(item["category_id"], item["bbox"], "point" in item) for item in crowds] == [(1, [9, 0, 3, 1], False)] * 2
    assert len(weak["val"]["annotations"]) == 2 * 4


def test_lists_of_names(root, desk):
    (root / "train.txt").write_text("000002\n\n000000.png\n")
    (root / "val.txt").write_text("000001\n")
    settings = {"train": "train.txt", "val": "val.txt", "val_images": None}
    truth = prepare(root, desk, **settings)
    assert [image["file_name"] for image in truth["train"]["images"]] == ["000000.png", "000002.png"]
    assert [image["file_name"] for image in truth["val"]["images"]] == ["000001.png"]
    dataset = DatasetSettings(kind="kitti", root=str(root), **settings)
    assert all(path.exists() for path in needed_paths(dataset)) and len(needed_paths(dataset)) == 5


def test_val_is_held_out_of_all(root, desk):
    (root / "val.txt").write_text("000001\n")
    truth = prepare(root, desk, val="val.txt", val_images=None)
    assert [image["file_name"] for image in truth["train"]["images"]] == ["000000.png", "000002.png"]


def test_sequences(mots, desk):
    (mots / "val.txt").write_text("0002\n")
    truth = prepare(mots, desk, val="val.txt", val_images=None)
    assert len(truth["train"]["images"]) == len(truth["val"]["images"]) == 2
    objects = [item for item in truth["val"]["annotations"] if item["image_id"] == truth["val"]["images"][0]["id"]]
    assert [(item["category_id"], item["iscrowd"]) for item in objects] == [(1, 0), (2, 0), (1, 1), (2, 1)]
    for item, value in zip(objects, (1007, 2000, 10000, 10000), strict=True):
        assert (rle.decode(item["segmentation"]) == (TRACKS == value)).all()
    split = desk.prepare(kind="kitti", root=str(mots), split=1)
    assert (len(split["train"]["images"]), len(split["val"]["images"])) == (3, 1)


CASES = {
    "no images": (lambda r: (r / "training").rename(r / "testing"), {}, "none of training/image_2"),
    "no val": (lambda r: None, {"val_images": None}, "nothing says which images are for val"),
    "no list": (lambda r: None, {"val": "val.txt"}, "val.txt: no such list"),
    "no folder": (lambda r: None, {"val_images": "semantic"}, "semantic: no such image folder"),
    "listed twice": (lambda r: (r / "train.txt").write_text("000001\n000001\n"), {"train": "train.txt"},
                     "000001 is listed twice"),
    "no labels": (lambda r: ((r / "train.txt").write_text("000001\n"), (r / "training/label_2/000001.txt").unlink()),
                  {"train": "train.txt"}, "neither .*instance/000001.png nor .*label_2/000001.txt is there"),
    "short line": (lambda r: (r / "training/label_2/000001.txt").write_text("Car 0 0 0 1 2\n"), {},
                   r"000001.txt: line 1: a type and at least seven numbers"),
    "no number": (lambda r: (r / "training/label_2/000001.txt").write_text("Car 0 0 0 1 x 2 3\n"), {},
                  r"000001.txt: line 1: a type and at least seven numbers"),
    "line without end": (lambda r: (r / "training/label_2/000001.txt").write_text("x" * 10**6), {}, "found 'x{79}$"),
    "table of bytes": (lambda r: (r / "training/label_2/000001.txt").write_bytes(b"Car \xff"), {},
                       "000001.txt: not a UTF-8 text file .byte 4"),
    "list of bytes": (lambda r: (r / "train.txt").write_bytes(b"\xff"), {"train": "train.txt"}, "not a UTF-8 text"),
    "long name": (lambda r: (r / "train.txt").write_text("x" * 300), {"train": "train.txt"}, "is no name of an image"),
    "colour": (lambda r: photograph(r / "semantics/instance/000001_10.png"), {}, "16-bit PNG was expected, found mode"),
    "damaged": (lambda r: (r / "semantics/instance/000001_10.png").write_text("x"), {}, "cannot be read"),
    "other size": (lambda r: save(r / "semantics/instance/000001_10.png", SEMANTICS[:5]), {},
                   "masks of 12 x 5 pixels, the image has 12 x 8"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(root, desk, case):
    change, settings, message = CASES[case]
    change(root)
    with pytest.raises(UserError, match=message):
        prepare(root, desk, **settings)
    assert not (desk.folder / "data").exists()
