"""What bad COCO data get: a sentence with file, id and remedy, and nothing in place."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.labels import rle
from stages.runtime.errors import UserError


def first(data):
    return data.train["annotations"][0]


def image(data):
    return data.train["images"][0]


def cut_file(data):
    path = data.write("11.png", np.random.default_rng(0).integers(0, 255, (10, 12, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-100])


def link_outside(data):
    path = data.root / "images/11.png"
    path.rename(data.root.parent / "secret.png")
    path.symlink_to(data.root.parent / "secret.png")


def outside(name):
    def change(data):
        data.write("../out.png", np.zeros((10, 12, 3), np.uint8))
        image(data)["file_name"] = name.format(root=data.root)

    return change


def same_file_twice(data):
    data.train["images"].append({"id": 50, "file_name": "./11.png", "width": 12, "height": 10})


CASES = {
    "missing image": (lambda d: (d.root / "images/11.png").unlink(),
                      [r"instances_train\.json", r"image 11 \(11\.png\): no such file: .*11\.png"]),
    "no image": (lambda d: (d.root / "images/11.png").write_text("x"), [r"image 11 .* not an image"]),
    "damaged image": (cut_file, [r"image 11 \(11\.png\): .*damaged", "replace the file"]),
    "folder as image": (lambda d: image(d).update(file_name="."), [r"image 11 \(\.\): no such file"]),
    "other size": (lambda d: image(d).update(width=10, height=12),
                   [r"image 11 .* the file has 12 x 10 pixels, width and height say 10 x 12"]),
    "parent folder": (outside("../out.png"), [r"image 11 .*'\.\./out\.png' leaves the image folder"]),
    "hidden parent": (outside("x/../../out.png"), ["leaves the image folder"]),
    "absolute": (outside("{root}/images/12.png"), ["image 11 .* leaves the image folder"]),
    "link": (link_outside, [r"image 11 .*'11\.png' is a link that leaves the image folder"]),
    "null byte": (lambda d: image(d).update(file_name="a\0.png"), ["leaves the image folder"]),
    "same file twice": (same_file_twice, [r"image 50 \(\./11\.png\): the same file as image 11 \(11\.png\)"]),
    "same name twice": (lambda d: image(d).update(file_name="12.png"),
                        [r"instances_train\.json", r"image 12: has the file_name '12\.png' of image 11"]),
    "duplicate image id": (lambda d: image(d).update(id=12), ["image id 12: appears twice"]),
    "duplicate annotation id": (lambda d: first(d).update(id=111), ["annotation id 111: appears twice"]),
    "unknown image": (lambda d: first(d).update(image_id=5), ["annotation 110: unknown image_id 5"]),
    "unknown category": (lambda d: first(d).update(category_id=5),
                         [r"annotation 110 \(image 11\): unknown category_id 5"]),
    "box outside": (lambda d: first(d).update(bbox=[5, 5, 20, 2]),
                    [r"image 11 \(11\.png\): annotation 110: bbox \[5, 5, 20, 2\] lies outside the image of 12 x 10"]),
    "point outside": (lambda d: first(d).update(point=[30, 2]), [r"annotation 110: point \[30, 2\] lies outside"]),
    "not extreme": (lambda d: first(d).update(extreme_points=[[3, 3], [2, 2], [3, 1], [5, 2]]),
                    ["annotation 110: extreme_points .* not extreme: top, bottom"]),
    "empty mask": (lambda d: first(d).update(segmentation=[[1, 1, 2, 2, 3, 3]]),
                   ["image 11 .*annotation 110: its mask holds no pixel", "empty_masks: drop"]),
    "mask beside the image": (lambda d: first(d).update(segmentation=[[15, 15, 20, 15, 20, 20]]), ["holds no pixel"]),
    "polygon": (lambda d: first(d).update(segmentation=[[1, 2, 3, 4, 5]]), ["annotation 110: a polygon has an odd"]),
    "rle size": (lambda d: first(d).update(segmentation={"size": [12, 10], "counts": [120]}),
                 [r"annotation 110: RLE size \[12, 10\] is not the image's \[height, width\] = \[10, 12\]"]),
    "rle runs": (lambda d: first(d).update(segmentation={"size": [10, 12], "counts": [7]}), ["cover 7 pixels"]),
    "polygon far outside": (lambda d: first(d).update(segmentation=[[0, 0, 1e9, 0, 1e9, 1e9]]),
                            [r"annotation 110: a polygon has the corner \(1e\+09, 0\), far outside the image of 12 x"]),
    "rle with endless number": (lambda d: first(d).update(segmentation={"size": [10, 12], "counts": "P" * 30 + "0"}),
                                ["annotation 110: RLE counts hold a number of more than 7 characters"]),
    "segmentation {}": (lambda d: first(d).update(segmentation={}), ["annotation 110: RLE size None"]),
    "segmentation false": (lambda d: first(d).update(segmentation=False), ["neither polygons nor an RLE"]),
    "half a character": (lambda d: image(d).update(file_name="\ud800.png"), [r"image 11: the file_name .* half of a"]),
    "half a class": (lambda d: d.categories[0].update(name="a\udfff"), [r"category 4: the name .* half of a char"]),
    "name of unfinished files": (lambda d: [
        d.write(".weakmask-1.png", np.zeros((10, 12, 3), np.uint8)), image(d).update(file_name=".weakmask-1.png")],
        ["image 11 .*names that begin with .weakmask- are those of unfinished files"]),
    "name that grows too long": (lambda d: [
        Image.new("L", (12, 10)).save(d.root / "images" / ("a" * 253 + ".p"), format="PNG"),
        image(d).update(file_name="a" * 253 + ".p")], ["image 11 .*converted to PNG it needs a longer name"]),
    "long name": (lambda d: image(d).update(file_name="a" * 300 + ".png"), ["image 11 .*name too long"]),
    "category id": (lambda d: [d.categories[0].update(id=70_000),
                               [a.update(category_id=70_000) for part in (d.train, d.val) for a in part["annotations"]
                                if a["category_id"] == 4]],
                    [r"category 70000 \('cat'\) does not fit into semantic label pictures", "from 1 to 65534"]),
    "thing and stuff": (lambda d: d.val.update(categories=[{**d.categories[0], "isthing": 0}, d.categories[1]]),
                        [r"instances_val\.json: category 4 \('cat'\) has isthing 0, in the training file 1"]),
    "polygon of endless numbers": (lambda d: first(d).update(segmentation=[[0, 0, 10**400, 0, 5, 5]]),
                                   ["annotation 110: a polygon is not a list of numbers"]),
    "box of endless numbers": (lambda d: first(d).update(bbox=[0, 0, 10**400, 3]),
                               ["annotation 110: bbox: four numbers"]),
    "id beyond 64 bits": (lambda d: image(d).update(id=2**63),
                          ["image number 1: an object with a whole number .* 2.63"]),
    "value of 5,000 characters": (lambda d: first(d).update(category_id="x" * 5000), ["category_id 'x{79}$"]),
    "segmentation": (lambda d: first(d).update(segmentation="x"), ["neither polygons nor an RLE"]),
    "no images": (lambda d: d.train.update(images=[], annotations=[]),
                  [r"instances_train\.json: no usable image for train"]),
    "no val images": (lambda d: d.val.update(images=[], annotations=[]),
                      [r"instances_val\.json: no usable image for val"]),
    "class without images": (
        lambda d: d.train.update(annotations=[a for a in d.train["annotations"] if a["category_id"] == 9]),
        [r"instances_train\.json: 1 of 2 classes have no training image: cat", r"dataset\.classes: \[dog\]",
         "allow_empty_classes: true"]),
    "only crowds": (lambda d: [a.update(iscrowd=1) for a in d.train["annotations"]],
                    ["no training image shows any of the classes"]),
    "no categories": (lambda d: d.train.pop("categories"), ["not COCO JSON", "categories: a list was expected"]),
    "other categories in val": (lambda d: d.val.update(categories=[{"id": 4, "name": "dog"}, {"id": 9, "name": "cat"}]),
                                [r"instances_val\.json: category 4 \('dog'\) has another id or name"]),
}


@pytest.mark.parametrize("case", CASES)
def test_coco(coco_root, desk, case):
    change, messages = CASES[case]
    change(coco_root)
    coco_root.save()
    with pytest.raises(UserError) as error:
        desk.prepare(kind="coco", root=str(coco_root.root))
    for message in messages:
        assert error.match(message)
    assert not Path("data").exists()


def test_images_of_too_many_pixels(coco_root, desk):
    Image.new("1", (4000, 4000)).save(coco_root.root / "images/11.png")
    image(coco_root).update(width=4000, height=4000)
    coco_root.save()
    with pytest.raises(UserError, match=r"image 11 .*: 4000 x 4000 pixels, more than dataset\.max_pixels, 1e\+06"):
        desk.prepare(kind="coco", root=str(coco_root.root), max_pixels=1e6)


def test_formats_whose_decoders_refuse_late(coco_root, desk):
    # A BLP texture with an encoding that Pillow knows of and does not read.
    header = struct.pack("<4sIbbbbII", b"BLP2", 1, 9, 0, 0, 0, 12, 10)
    (coco_root.root / "images/11.png").write_bytes(header + b"\0" * 2000)
    coco_root.save()
    with pytest.raises(UserError, match=r"image 11 \(11\.png\): .*11\.png"):
        desk.prepare(kind="coco", root=str(coco_root.root))


@pytest.mark.parametrize(("content", "message"), [("", "not valid JSON .line 1"), ("[1]", "not COCO JSON"),
                                                  ('{"images": 1}', "images: a list was expected, found 1")])
def test_not_json(coco_root, desk, content, message):
    (coco_root.root / "instances_val.json").write_text(content)
    with pytest.raises(UserError, match=message) as error:
        desk.prepare(kind="coco", root=str(coco_root.root))
    assert error.match(r"instances_val\.json")


@pytest.mark.parametrize(("settings", "message"), [
    ({"root": "nowhere"}, r"dataset\.root: nowhere is not a folder"),
    ({"train_images": "none"}, r"none: no such image folder; set dataset\.train_images"),
    ({"train": "none.json"}, r"none\.json: no such file"),
    ({"val_images": "none"}, r"none: no such image folder; set dataset\.val_images"),
    ({"classes": ["cat", "dgo"]}, "dataset.classes: 'dgo' is not a class .* did you mean 'dog'.*cat, dog"),
    ({"split": 3}, r"dataset\.split: 3 takes 3 of the 3 images of .*instances_train\.json"),
])
def test_settings_that_do_not_fit(coco_root, desk, settings, message):
    with pytest.raises(UserError, match=message):
        desk.prepare(**{"kind": "coco", "root": str(coco_root.root), **settings})


def test_several_problems_in_one_message(coco_root, desk):
    for number in range(30):
        coco_root.train["images"].append({"id": 100 + number, "file_name": f"none{number}.png"})
    coco_root.save()
    with pytest.raises(UserError) as error:
        desk.prepare(kind="coco", root=str(coco_root.root))
    assert "30 problem(s)" in str(error.value) and "... and 20 more" in str(error.value)


def test_old_data_stay_when_the_new_are_bad(coco_root, desk):
    desk.prepare(kind="coco", root=str(coco_root.root))
    before = Path("data/dataset/train_truth.json").read_bytes()
    first(coco_root)["segmentation"] = "x"
    coco_root.save()
    with pytest.raises(UserError):
        desk.prepare(kind="coco", root=str(coco_root.root))
    assert Path("data/dataset/train_truth.json").read_bytes() == before


def test_empty_runs_do_not_cut_a_mask(coco_root, desk):
    # 12 columns of 10: two columns, split in two by an empty run of the background.
    first(coco_root).update(segmentation={"size": [10, 12], "counts": [10, 5, 0, 15, 90]}, bbox=[1, 0, 2, 10])
    coco_root.save()
    row = desk.prepare(kind="coco", root=str(coco_root.root))["train"]["annotations"][0]
    assert row["area"] == 20 and row["bbox"] == [1, 0, 2, 10]
    assert rle.unpack_counts(row["segmentation"]["counts"]) == [10, 20, 90]


@pytest.mark.parametrize("content", [b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 30000 +X 30000\n" + b"\2" * 5000,
                                     b"PF\n30000 30000\n-1.0\n" + b"\0" * 5000])
def test_formats_that_tell_their_size_too_late(coco_root, desk, content):
    (coco_root.root / "images/11.png").write_bytes(content)
    coco_root.save()
    with pytest.raises(UserError, match=r"image 11 \(11\.png\): .*11\.png: (not an image|30000 x 30000 pixels, more)"):
        desk.prepare(kind="coco", root=str(coco_root.root))
