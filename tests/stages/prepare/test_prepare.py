"""The stage on COCO data and on the rendered scenes: what is handled."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from stages.labels import rle
from stages.prepare import chunks, prepare
from stages.runtime.errors import UserError


def coco(coco_root, **settings):
    return {"kind": "coco", "root": str(coco_root.root), **settings}


def test_truth_and_images(coco_root, desk):
    truth = desk.prepare(**coco(coco_root))
    train = truth["train"]
    assert [image["id"] for image in train["images"]] == [11, 12, 13]
    assert [item["id"] for item in train["annotations"]] == [1, 2, 3, 4, 5, 6]
    assert train["categories"] == [{"id": 4, "name": "cat", "isthing": 1}, {"id": 9, "name": "dog", "isthing": 1}]
    assert train["info"] == {"truth": "masks"}
    first = train["annotations"][0]
    assert first["bbox"] == [2, 1, 4, 3] and first["area"] == 12 and first["input"] == {"id": 110, "bbox": [2, 1, 4, 3]}
    assert rle.decode(first["segmentation"])[1:4, 2:6].all()
    assert len(COCO("data/dataset/val_truth.json").anns) == 4
    linked, original = desk.images / "11.png", coco_root.root / "images/11.png"
    assert linked.samefile(original)
    assert sorted(path.name for path in Path("data/dataset").iterdir()) == ["images", "train_truth.json",
                                                                           "val_truth.json"]
    assert not [path for path in Path(".work").iterdir() if path.is_dir()]


def test_copies_where_links_fail(coco_root, desk, monkeypatch):
    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    desk.prepare(**coco(coco_root))
    copy, original = desk.images / "11.png", coco_root.root / "images/11.png"
    assert not copy.samefile(original) and copy.read_bytes() == original.read_bytes()


def test_copies_where_asked_for(coco_root, desk):
    desk.prepare(**coco(coco_root, copy_images=True))
    assert not (desk.images / "11.png").samefile(coco_root.root / "images/11.png")


def test_all_forms_of_masks_and_crowds(coco_root, desk):
    mask = np.zeros((10, 12), bool)
    mask[3, 4:9] = mask[9, 11] = True
    flat = mask.flatten(order="F").astype(int)
    runs = [*np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]).tolist()]
    one = coco_root.train["annotations"]
    one[0]["segmentation"] = {"size": [10, 12], "counts": runs}
    one[1] = {**one[1], "segmentation": rle.encode(mask), "iscrowd": 1}
    one[2]["segmentation"] = [[0, 0, 2, 0, 2, 2, 0, 2], [8, 7, 12, 7, 12, 10, 8, 10], [1, 1, 2, 2]]
    one.append({"id": 999, "image_id": 13, "category_id": 4, "iscrowd": 1, "bbox": [1, 1, 3, 2]})
    coco_root.save()
    rows = desk.prepare(**coco(coco_root))["train"]["annotations"]
    assert (rle.decode(rows[0]["segmentation"]) == mask).all() and rows[0]["bbox"] == [4, 3, 8, 7]
    assert rows[1]["iscrowd"] == 1 and rows[1]["area"] == 6
    assert rows[2]["area"] == 4 + 12
    crowd = rows[-1]  # without a mask it covers its box
    assert (crowd["iscrowd"], crowd["bbox"], crowd["area"]) == (1, [1, 1, 3, 2], 6)


def test_image_without_objects_and_one_of_another_size(coco_root, desk):
    coco_root.write("deep/er/large.jpg", np.zeros((700, 530, 3), np.uint8))
    coco_root.train["images"].append({"id": 1, "file_name": "deep/er/large.jpg"})
    coco_root.save()
    train = desk.prepare(**coco(coco_root))["train"]
    assert train["images"][0] == {"id": 1, "file_name": "deep/er/large.jpg", "width": 530, "height": 700}
    assert (desk.images / "deep/er/large.jpg").is_file()


def test_one_pixel_object_and_objects_larger_than_512(coco_root, desk):
    coco_root.write("large.png", np.zeros((600, 800, 3), np.uint8))
    coco_root.train["images"].append({"id": 1, "file_name": "large.png", "width": 800, "height": 600})
    coco_root.train["annotations"] += [
        {"id": 1, "image_id": 1, "category_id": 4, "segmentation": [[0, 0, 800, 0, 800, 600, 0, 600]]},
        {"id": 2, "image_id": 1, "category_id": 4, "segmentation": [[799, 599, 800, 599, 800, 600, 799, 600]]}]
    coco_root.save()
    rows = desk.prepare(**coco(coco_root))["train"]["annotations"]
    assert [(row["area"], row["bbox"]) for row in rows[:2]] == [(480000, [0, 0, 800, 600]), (1, [799, 599, 1, 1])]


def test_sub_pixel_slop_is_cut(coco_root, desk):
    coco_root.train["annotations"][0]["bbox"] = [-0.4, 0, 12.9, 10.2]
    coco_root.save()
    rows = desk.prepare(**coco(coco_root))["train"]["annotations"]
    assert rows[0]["input"]["bbox"] == pytest.approx([0, 0, 12, 10])


def test_official_layout(coco_root, desk):
    root = coco_root.root
    (root / "annotations").mkdir()
    for part in ("train", "val"):
        (root / f"instances_{part}.json").rename(root / f"annotations/instances_{part}2017.json")
        (root / f"{part}2017").mkdir()
    for number, part in ((11, "train"), (12, "train"), (13, "train"), (21, "val"), (22, "val")):
        (root / f"images/{number}.png").rename(root / f"{part}2017/{number}.png")
    truth = desk.prepare(kind="coco", root=str(root), train="annotations/instances_train2017.json",
                         val="annotations/instances_val2017.json", train_images="train2017", val_images="val2017")
    assert len(truth["val"]["images"]) == 2 and (desk.images / "22.png").is_file()


def test_same_names_in_two_folders(coco_root, desk):
    root = coco_root.root
    (root / "other").mkdir()
    (root / "images/21.png").rename(root / "other/11.png")
    (root / "images/22.png").rename(root / "other/22.png")
    coco_root.val["images"][0]["file_name"] = "11.png"
    coco_root.save()
    truth = desk.prepare(**coco(coco_root, val_images="other"))
    assert [image["file_name"] for image in truth["val"]["images"]] == ["val/11.png", "val/22.png"]
    assert (desk.images / "val/11.png").samefile(root / "other/11.png")
    assert (desk.images / "train/11.png").samefile(root / "images/11.png")


def test_limit_split_and_classes(coco_root, desk, capfd):
    truth = desk.prepare(**coco(coco_root, limit=1))
    assert [[image["id"] for image in truth[part]["images"]] for part in ("train", "val")] == [[11], [21]]
    one, again = (desk.prepare(**coco(coco_root, split=0.3, seed=5)) for _ in range(2))
    assert one == again
    ids = {part: {image["id"] for image in one[part]["images"]} for part in one}
    assert len(ids["val"]) == 1 and ids["train"] | ids["val"] == {11, 12, 13} and not ids["train"] & ids["val"]
    assert len(desk.prepare(**coco(coco_root, split=2))["val"]["images"]) == 2
    truth = desk.prepare(**coco(coco_root, classes=["dog"]))
    assert [category["name"] for category in truth["train"]["categories"]] == ["dog"]
    assert {item["category_id"] for item in truth["train"]["annotations"]} == {9}
    assert "train: 3 images, 3 objects, 0 crowds" in capfd.readouterr().err


def test_train_in_several_parts(coco_root, desk):
    """As COCO 2014: images of one more folder, which val's images lie in too."""
    more = copy.deepcopy(coco_root.val)
    for number, image in enumerate(more["images"]):
        image |= {"id": 31 + number, "file_name": f"{31 + number}.png"}
        coco_root.write(image["file_name"], np.full((10, 12, 3), 7 * number, np.uint8))
        for item in more["annotations"]:
            if item["image_id"] == 21 + number:
                item["image_id"] = 31 + number
        (coco_root.root / "other").mkdir(exist_ok=True)
        (coco_root.root / "images" / image["file_name"]).rename(coco_root.root / "other" / image["file_name"])
    path = coco_root.root / "more.json"
    path.write_text(json.dumps(more))
    part = {"file": "more.json", "images": "other"}
    truth = desk.prepare(**coco(coco_root, train_more=[part]))
    assert [image["id"] for image in truth["train"]["images"]] == [11, 12, 13, 31, 32]
    assert [image["id"] for image in truth["val"]["images"]] == [21, 22]
    assert len(truth["train"]["annotations"]) == 10 and (desk.images / "31.png").is_file()
    with pytest.raises(UserError, match=r"other/31.png and .*other/31.png have the id 31"):
        desk.prepare(**coco(coco_root, train_more=[part, part]))
    with pytest.raises(UserError, match=r"elsewhere: no such image folder; set dataset.train_more"):
        desk.prepare(**coco(coco_root, train_more=[{**part, "images": "elsewhere"}]))
    more["categories"][0] = {"id": 5, "name": "cat"}
    for item in more["annotations"]:
        item["category_id"] += item["category_id"] == 4
    path.write_text(json.dumps(more))
    with pytest.raises(UserError, match=r"more.json: category 5 \('cat'\) has another id or name"):
        desk.prepare(**coco(coco_root, train_more=[part]))


def test_classes_without_images_and_limit(coco_root, desk, capfd):
    coco_root.train["annotations"] = [item for item in coco_root.train["annotations"]
                                      if item["category_id"] == 9 or item["image_id"] == 13]
    coco_root.save()
    desk.prepare(**coco(coco_root, limit=2))
    assert "1 of 2 classes have no training image: cat" in capfd.readouterr().err


def test_empty_masks_can_be_dropped(coco_root, desk):
    coco_root.train["annotations"][0] |= {"segmentation": [[1, 1, 2, 1, 3, 1]], "bbox": [1, 1, 2, 0]}
    coco_root.train["annotations"][1]["bbox"] = [0, 6, 5, 0]  # a flat box beside a real mask, as COCO has some
    coco_root.save()
    with pytest.raises(UserError, match="annotation 110: its mask holds no pixel"):
        desk.prepare(**coco(coco_root))
    rows = desk.prepare(**coco(coco_root, empty_masks="drop"))["train"]["annotations"]
    assert len(rows) == 5 and rows[0]["input"] == {"id": 111}


def test_boxes_only(coco_root, desk):
    coco_root.drop("segmentation")
    coco_root.train["annotations"][0]["point"] = [3, 2]
    coco_root.train["images"][0]["tags"] = [9, 4]
    coco_root.save()
    train = desk.prepare(**coco(coco_root))["train"]
    assert train["info"]["truth"] == "none" and "has no masks" in train["info"]["reason"]
    assert train["annotations"] == [] and len(train["weak"]) == 6
    assert train["weak"][0]["input"] == {"id": 110, "bbox": [2, 1, 4, 3], "point": [3, 2]}
    assert train["images"][0]["tags"] == [4, 9]
    COCO("data/dataset/train_truth.json")


def test_some_masks_are_no_truth(coco_root, desk):
    del coco_root.train["annotations"][3]["segmentation"]
    coco_root.save()
    truth = desk.prepare(**coco(coco_root))
    assert truth["train"]["info"]["reason"].endswith("masks for 5 of 6 objects only (annotation 121 has none)")
    assert "segmentation" in truth["train"]["weak"][0] and "segmentation" not in truth["train"]["weak"][3]
    assert truth["val"]["info"] == {"truth": "masks"}


def test_shapes(desk):
    settings = {"kind": "shapes", "shapes": {"train": 20, "val": 3, "width": 64, "height": 48}}
    truth = desk.prepare(**settings)
    assert [len(truth[part]["images"]) for part in ("train", "val")] == [20, 3]
    assert {category["isthing"] for category in truth["train"]["categories"]} == {0, 1}
    entry = truth["val"]["images"][0]
    with Image.open(desk.images / entry["file_name"]) as image:
        assert (image.size, image.mode) == ((64, 48), "RGB") and (entry["width"], entry["height"]) == (64, 48)
    ids = [image["id"] for part in truth.values() for image in part["images"]]
    assert len(set(ids)) == 23
    before = (desk.images / entry["file_name"]).read_bytes()
    again = desk.prepare(**settings | {"shapes": settings["shapes"] | {"train": 25}})
    assert again["val"] == truth["val"] and (desk.images / entry["file_name"]).read_bytes() == before
    assert desk.prepare(**settings, seed=1)["val"]["annotations"] != truth["val"]["annotations"]


def test_work_goes_on_where_it_was(coco_root, desk, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 1)
    calls = []
    make = prepare.make_record

    def stops(task):
        calls.append(task.image.id)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return make(task)

    monkeypatch.setattr(prepare, "make_record", stops)
    with pytest.raises(KeyboardInterrupt):
        desk.prepare(**coco(coco_root))
    assert not Path("data").exists()
    os.utime(coco_root.root / "images/12.png")  # changed meanwhile: done again
    truth = desk.prepare(**coco(coco_root))
    assert calls == [11, 12, 13, 12, 13, 21, 22]
    assert len(truth["train"]["annotations"]) == 6


def test_number_of_workers_changes_nothing(coco_root, desk):
    from stages.prepare.settings import DatasetSettings
    from stages.runtime.settings import RuntimeSettings

    desk.prepare(**coco(coco_root))
    one = Path("data/dataset/train_truth.json").read_bytes()
    prepare.prepare(DatasetSettings(**coco(coco_root)), RuntimeSettings(workers=2))
    assert Path("data/dataset/train_truth.json").read_bytes() == one


@pytest.mark.parametrize("stage", ["prepare", "annotate"])
def test_command(coco_root, desk, stage):
    Path("params.yaml").write_text(json.dumps({
        "dataset": coco(coco_root, limt=3), "annotations": {"kinds": ["tag"]}, "runtime": {"workers": 1}}))
    code = Path(prepare.__file__).parents[2]
    done = subprocess.run([sys.executable, "-m", f"stages.prepare.{stage}"], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(code)})
    expected = {"prepare": "dataset.limt: unknown key; did you mean 'limit'?",
                "annotate": "did you mean 'tags'?"}[stage]
    assert done.returncode == 1 and done.stderr.startswith("error: ") and expected in done.stderr
