"""LVIS: names from addresses, what the protocol needs, and what bad files get."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.prepare.kinds import needed_paths
from stages.prepare.settings import DatasetSettings
from stages.runtime.errors import UserError

FREQUENCIES = {3: "f", 700: "r", 1203: "c"}


class MiniLvis:
    """Five photographs in COCO's two folders; one of the val part lies in train2017. Edit and ``save``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.categories = [{"id": number, "name": f"class_{number}", "synset": f"class.n.{number:02d}",
                            "image_count": 7, "instance_count": 9, "frequency": level}
                           for number, level in FREQUENCIES.items()]
        self.train = self.part(["train2017/11", "train2017/12", "train2017/13"])
        self.val = self.part(["val2017/21", "train2017/22"])
        self.save()

    def part(self, names: list[str]) -> dict:
        images, annotations = [], []
        for index, name in enumerate(names):
            number = int(name[-2:])
            path = self.root / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(number).integers(0, 255, (10, 12, 3), np.uint8)).save(path)
            images.append({"id": number, "coco_url": f"http://images.cocodataset.org/{name}.jpg", "width": 12,
                           "height": 10, "neg_category_ids": [1203] if index else [],
                           "not_exhaustive_category_ids": [700]})
            classes = [3, 700] if index else [3, 700, 1203]
            annotations += [{"id": 100 * number + place, "image_id": number, "category_id": category, "area": 12.0,
                             "bbox": [3 * place, 1, 3, 4], "segmentation": [
                                 [3 * place, 1, 3 * place + 3, 1, 3 * place + 3, 5, 3 * place, 5]]}
                            for place, category in enumerate(classes)]
        return {"images": images, "annotations": annotations, "categories": self.categories}

    def save(self) -> None:
        for part in ("train", "val"):
            (self.root / f"lvis_v1_{part}.json").write_text(json.dumps(getattr(self, part)))


@pytest.fixture
def lvis(tmp_path) -> MiniLvis:
    return MiniLvis(tmp_path / "coco")


def run(lvis, desk, **settings):
    lvis.save()
    return desk.prepare(kind="lvis", root=str(lvis.root), **settings)


def protocol(truth):
    return {image["id"]: (image["neg_category_ids"], image["not_exhaustive_category_ids"]) for image in truth["images"]}


def test_the_truth_carries_what_the_protocol_needs(lvis, desk):
    truth = run(lvis, desk)
    val = truth["val"]
    assert val["info"] == {"truth": "masks"}
    assert protocol(val) == {21: ([], [700]), 22: ([1203], [700])}
    assert protocol(truth["train"]) == {11: ([], [700]), 12: ([1203], [700]), 13: ([1203], [700])}
    assert {item["id"]: item["frequency"] for item in val["categories"]} == FREQUENCIES
    assert all(item["isthing"] == 1 for item in val["categories"])
    assert [item["category_id"] for item in val["annotations"]] == [3, 700, 1203, 3, 700]
    assert all(item["iscrowd"] == 0 and item["area"] == 12 for item in val["annotations"])


def test_images_lie_where_their_addresses_say(lvis, desk):
    truth = run(lvis, desk)
    assert [image["file_name"] for image in truth["val"]["images"]] == ["val2017/21.jpg", "train2017/22.jpg"]
    assert (desk.images / "train2017/22.jpg").samefile(lvis.root / "train2017/22.jpg")


def test_images_and_files_elsewhere(lvis, desk):
    (lvis.root / "photos").mkdir()
    for folder in ("train2017", "val2017"):
        (lvis.root / folder).rename(lvis.root / "photos" / folder)
    for part in ("train", "val"):
        (lvis.root / f"lvis_v1_{part}.json").rename(lvis.root / f"{part}.json")
    truth = desk.prepare(kind="lvis", root=str(lvis.root), train="train.json", val="val.json", train_images="photos")
    assert len(truth["train"]["images"]) == 3


def test_a_file_name_will_do_where_there_is_no_address(lvis, desk):
    image = lvis.train["images"][0]
    image["file_name"] = image.pop("coco_url").partition(".org/")[2]
    assert run(lvis, desk)["train"]["images"][0]["file_name"] == "train2017/11.jpg"


def test_limit(lvis, desk, capfd):
    lvis.train["annotations"] = [item for item in lvis.train["annotations"] if item["category_id"] != 1203]
    truth = run(lvis, desk, limit=1)
    assert protocol(truth["train"]) == {11: ([], [700])} and protocol(truth["val"]) == {21: ([], [700])}
    assert "1 of 3 classes have no training image: class_1203" in capfd.readouterr().err


def test_split(lvis, desk):
    truth = run(lvis, desk, split=1, allow_empty_classes=True)
    whole = {11: ([], [700]), 12: ([1203], [700]), 13: ([1203], [700])}
    assert protocol(truth["train"]) | protocol(truth["val"]) == whole and len(truth["val"]["images"]) == 1


def test_classes_that_are_left_out_leave_the_lists_too(lvis, desk):
    truth = run(lvis, desk, classes=["class_3", "class_1203"])
    assert protocol(truth["val"]) == {21: ([], []), 22: ([1203], [])}
    assert {item["category_id"] for item in truth["val"]["annotations"]} == {3, 1203}
    assert protocol(run(lvis, desk, classes=["class_3"])["val"]) == {21: ([], []), 22: ([], [])}


def test_weak_labels_need_none_of_it(lvis, desk):
    run(lvis, desk)
    labels = desk.annotate(kinds=["tags", "extreme_points"])
    assert set(labels["train"]["images"][0]) == {"id", "file_name", "width", "height", "tags"}
    assert [image["tags"] for image in labels["train"]["images"]] == [[3, 700, 1203], [3, 700], [3, 700]]
    assert set(labels["train"]["annotations"][0]) == {"id", "image_id", "category_id", "iscrowd", "extreme_points"}


def test_plain_coco_carries_no_such_lists(coco_root, desk):
    truth = desk.prepare(kind="coco", root=str(coco_root.root))
    assert set(truth["val"]["images"][0]) == {"id", "file_name", "width", "height"}


def test_default_paths():
    found = [str(path) for path in needed_paths(DatasetSettings(kind="lvis", root="r", train_images="i", split=0.2))]
    assert found == ["r", "r/lvis_v1_train.json", "r/i"]


def image(data):
    return data.val["images"][1]


CASES = {
    "no address": (lambda d: image(d).pop("coco_url"), ["image 22: coco_url must end in folder and .*found None"]),
    "address without folder": (lambda d: image(d).update(coco_url="http://host/a.jpg"),
                               [r"image 22: coco_url must end in folder and file, .*found 'http://host/a.jpg'"]),
    "address is a number": (lambda d: image(d).update(coco_url=5), ["image 22: coco_url must .*found 5"]),
    "address leads out": (lambda d: image(d).update(coco_url="http://host/../22.jpg"),
                          [r"image 22 \(\.\./22\.jpg\): file_name '\.\./22\.jpg' leaves the image folder"]),
    "no such image": (lambda d: image(d).update(coco_url="http://host/val2017/22.jpg"),
                      [r"image 22 \(val2017/22\.jpg\): no such file: .*val2017/22\.jpg"]),
    "no negatives": (lambda d: image(d).pop("neg_category_ids"),
                     ["image 22: neg_category_ids must be a list of category ids, found None", "kind: coco"]),
    "negatives are no list": (lambda d: image(d).update(neg_category_ids=3),
                              ["image 22: neg_category_ids must be a list of category ids, found 3"]),
    "no lists of incomplete classes": (lambda d: image(d).pop("not_exhaustive_category_ids"),
                                       ["image 22: not_exhaustive_category_ids must be a list"]),
    "unknown negative": (lambda d: image(d).update(neg_category_ids=[3, 5]),
                         ["image 22: unknown category 5 in neg_category_ids"]),
    "unknown incomplete class": (lambda d: image(d).update(not_exhaustive_category_ids=[[3]]),
                                 [r"image 22: unknown category \[3\] in not_exhaustive_category_ids"]),
    "no frequency": (lambda d: [item.pop("frequency") for item in d.val["categories"][:1]],
                     ["category 3: frequency must be r, c or f, found None"]),
    "another frequency": (lambda d: d.val["categories"][0].update(frequency="often"),
                          ["category 3: frequency must be r, c or f, found 'often'"]),
    "category id of another type": (lambda d: d.val.update(categories=[{**d.categories[0], "id": [3]}]),
                                    ["with a whole number|unknown category"]),
    "list of lists": (lambda d: d.val["images"][0].update(neg_category_ids=[[3], {}, 3.5]),
                      [r"unknown category \[3\] in neg", "unknown category 3.5"]),
    "address in brackets": (lambda d: d.val["images"][0].update(coco_url="http://[x/val2017/21.jpg"),
                            ["coco_url must end in"]),
    "no images": (lambda d: d.val.pop("images"), ["not COCO JSON", "images: a list was expected"]),
    "image is a number": (lambda d: d.val.update(images=[3]), ["image number 1: an object .* found '3'"]),
    "unknown category": (lambda d: d.val["annotations"][0].update(category_id=5), ["unknown category_id 5"]),
    "empty mask": (lambda d: d.val["annotations"][0].update(segmentation=[[1, 1, 2, 2, 3, 3]]),
                   ["annotation 2100: its mask holds no pixel", "empty_masks: drop"]),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(lvis, desk, case):
    change, messages = CASES[case]
    lvis.train = json.loads(json.dumps(lvis.train))  # categories of its own
    change(lvis)
    with pytest.raises(UserError) as error:
        run(lvis, desk)
    for message in messages:
        assert error.match(message)
    assert "lvis_v1_val.json" in str(error.value)
    assert not Path("data").exists()


def test_a_long_list_of_classes_stays_readable(lvis, desk):
    more = [{"id": 2000 + number, "name": f"other_{number}", "frequency": "r"} for number in range(1200)]
    lvis.train["categories"] = lvis.val["categories"] = [*lvis.categories, *more]
    with pytest.raises(UserError, match=r"1200 of 1203 classes have no training image: other_0, .* and 1160 more\. "):
        run(lvis, desk)
    with pytest.raises(UserError, match="did you mean 'other_7'.* and 1163 more"):
        run(lvis, desk, classes=["othr_7"])
