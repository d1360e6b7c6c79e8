"""Small valid inputs of every kind, written into a folder: what the cases spoil."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stages.labels import rle
from stages.labels.coco import write_instances
from stages.labels.panoptic import png_folder, write_panoptic
from stages.labels.segments import write_segments
from stages.prepare.cityscapes_scenes import write_cityscapes
from stages.prepare.writing import save_inst, save_palette
from stages.runtime import layout
from stages.runtime.files import write_json
from tests.stages.evaluation.scenes import annotation, scene, square

HEIGHT, WIDTH = 10, 12
CATEGORIES = [{"id": 4, "name": "cat"}, {"id": 9, "name": "dog"}, {"id": 30, "name": "sky", "isthing": 0}]
_PARTS = {"train": (11, 12, 13), "val": (21, 22)}


def photograph(path: Path, seed: int, size: tuple[int, int] = (HEIGHT, WIDTH), **options: Any) -> None:
    """Noise as RGB, in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)


def turned(path: Path, seed: int, orientation: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    """A JPEG with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    photograph(path, seed, size, exif=exif)


def coco(root: Path, masks: bool = True) -> None:
    """Photographs of several formats and two JSON files; polygons, RLEs, crowds, stuff, points, extreme points."""
    for part, numbers in _PARTS.items():
        images, rows = [], []
        for index, number in enumerate(numbers):
            name = f"{number}.{'jpg' if index == 1 else 'png'}"
            if index == 1:
                turned(root / "images" / name, number, 6 if part == "train" else 1)
            else:
                photograph(root / "images" / name, number)
            images.append({"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT})
            x = 2 + index
            disc = np.zeros((HEIGHT, WIDTH), np.uint8)
            disc[5:9, 6:11] = disc[5:8, 1:3] = 1
            runs = {"size": [HEIGHT, WIDTH], "counts": rle.unpack_counts(rle.encode(disc)["counts"])}
            rows += [
                _row(10 * number, number, 4, [[x, 1, x + 4, 1, x + 4, 4, x, 4]], [x, 1, 4, 3]),
                _row(10 * number + 1, number, 9, rle.encode(disc), [1, 5, 10, 4]),
                _row(10 * number + 2, number, 9, runs, [1, 5, 10, 4], iscrowd=1),
                _row(10 * number + 3, number, 30, [[0, 0, WIDTH, 0, WIDTH, 1, 0, 1]], [0, 0, WIDTH, 1])]
        if not masks:
            for row in rows:
                del row["segmentation"]
                left, top, w, h = row["bbox"]
                row["point"] = [left + 1, top + 0.5]
                row["extreme_points"] = [[left, top], [left, top], [left + w - 1, top + h - 1],
                                         [left + w - 1, top + h - 1]]
            images[0]["tags"] = [9]
            rows = [row for row in rows if row["category_id"] != 30]
        content = {"images": images, "annotations": rows, "categories": CATEGORIES[:3 if masks else 2]}
        (root / f"instances_{part}.json").write_text(json.dumps(content))


def _row(number: int, image: int, category: int, mask: Any, box: list[float], **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "iscrowd": 0, "bbox": box,
            "segmentation": mask, **more}


def lvis(root: Path) -> None:
    """As :func:`coco`, with what LVIS adds."""
    coco(root)
    for part in _PARTS:
        path = root / f"instances_{part}.json"
        content = json.loads(path.read_text())
        for image in content["images"]:
            image |= {"neg_category_ids": [30], "not_exhaustive_category_ids": [4],
                      "coco_url": f"http://images.cocodataset.org/images/{image.pop('file_name')}"}
        content["categories"] = [{**category, "frequency": "f"} for category in CATEGORIES[:2]]
        content["annotations"] = [row for row in content["annotations"] if row["category_id"] != 30]
        for image in content["images"]:
            image["neg_category_ids"] = []
        path.unlink()
        (root / f"lvis_v1_{part}.json").write_text(json.dumps(content))


def panoptic(root: Path) -> None:
    """Panoptic JSON and PNGs with two cats, a crowd of dogs, sky and void each."""
    segments = np.zeros((HEIGHT, WIDTH), int)
    segments[:3], segments[4:8, 2:6], segments[4:8, 6:9], segments[9, :4] = 900, 17, 18, 300
    rows = [{"id": 17, "category_id": 4}, {"id": 18, "category_id": 9}, {"id": 300, "category_id": 9, "iscrowd": 1},
            {"id": 900, "category_id": 30}]
    categories = [{**category, "isthing": category.get("isthing", 1)} for category in CATEGORIES]
    for part, numbers in _PARTS.items():
        path, images = root / f"panoptic_{part}.json", []
        for number in numbers:
            photograph(root / "images" / f"{number}.png", number)
            images.append({"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT})
        write_panoptic(path, images, categories,
                       [write_segments(png_folder(path), image, segments, rows) for image in images])


def folder(root: Path) -> None:
    """Images in several formats and a table of tags."""
    rows = ["file_name,tags"]
    for number, suffix in enumerate(("png", "jpg", "bmp", "gif", "tif", "webp", "png", "ppm")):
        name = f"photo {number}.{suffix}" if number == 6 else f"deep/{number}.{suffix}" if number == 3 \
            else f"{number}.{suffix}"
        photograph(root / "images" / name, number)
        rows.append(f'"{name}",cat; dog' if number % 3 == 0 else f"{name},{'dog' if number % 2 else ''}")
    turned(root / "images/8.jpg", 8, 8, (6, 9))
    (root / "labels.csv").write_text("\n".join([*rows, "8.jpg,cat"]) + "\n", encoding="utf-8")


def voc(root: Path) -> None:
    """A VOCdevkit and an SBD."""
    objects = np.array([[1, 1, 255, 0, 0, 0], [1, 1, 255, 2, 2, 0], [255, 255, 255, 2, 2, 0], [0, 0, 0, 0, 0, 1]],
                       np.uint8)
    classes = np.where(objects == 1, 15, np.where(objects == 2, 8, objects)).astype(np.uint8)
    devkit, sbd = root / "VOC2012", root / "SBD"
    names = {"train": ["2007_000032", "2008_000001"], "val": ["2007_000033"]}
    (sbd / "inst").mkdir(parents=True)
    (devkit / "ImageSets/Segmentation").mkdir(parents=True)
    for name in (*names["train"], *names["val"]):
        photograph(devkit / f"JPEGImages/{name}.jpg", len(name), objects.shape)
        if name.startswith("2007"):
            save_palette(devkit / f"SegmentationObject/{name}.png", objects)
            save_palette(devkit / f"SegmentationClass/{name}.png", classes)
        save_inst(sbd / f"inst/{name}.mat", (objects == 1).astype(np.uint8), [20], name.startswith("2008"))
    for part, listed in names.items():
        (devkit / f"ImageSets/Segmentation/{part}.txt").write_text("\n".join(listed[:1]) + "\n")
        (sbd / f"{part}.txt").write_text("\n".join(listed) + "\n")


def kitti(root: Path) -> None:
    """Boxes for train, instance PNGs for val."""
    numbers = np.full((8, 12), 7 * 256, np.uint16)
    numbers[1:3, 1:5], numbers[3:5, 6:9], numbers[0, 9:], numbers[5:8, 0:2] = 6657, 6658, 6656, 6145
    boxes = ("Car 0.00 0 1.5 1.0 1.0 7.0 4.0 1 1 1 1 1 1 0\nPedestrian 0.00 0 1.5 8 2 10.5 7 1 1 1 1 1 1 0\n"
             "DontCare -1 -1 -10 0 0 3 3 -1 -1 -1 -1000 -1000 -1000 -10\n")
    for number in range(3):
        photograph(root / f"training/image_2/00000{number}.png", number, (8, 12))
        table = root / f"training/label_2/00000{number}.txt"
        table.parent.mkdir(exist_ok=True)
        table.write_text(boxes)
    for number in range(2):
        photograph(root / f"semantics/image_2/00000{number}_10.png", number, (8, 12))
        path = root / f"semantics/instance/00000{number}_10.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(numbers).save(path)
    (root / "names.txt").write_text("000002\n000000.png\n")


def cityscapes(root: Path) -> None:
    """Two cities of train and one of val, one small picture each."""
    write_cityscapes(root, 1, (16, 32))


def run(desk: Path) -> None:
    """What the stages before `score` and `evaluate` leave below the working directory."""
    for number, split in enumerate(("train", "val")):
        images, categories, truth, found = scene(number, images=3, size=(20, 24))
        found = [item for item in found if item["area"]]
        categories = [*categories, {"id": 40, "name": "sky", "isthing": 0}]
        truth.append(annotation(len(truth) + 1, images[0]["id"], 40, square(20, 24, 0, 0, 24, 3)))
        for image in images:
            image["file_name"] = f"{split}_{image['id']}.jpg"
            photograph(desk / layout.IMAGES / image["file_name"], image["id"], (20, 24))
        write_json(desk / layout.TRUTH[split], {"info": {"truth": "masks"}, "images": images, "categories": categories,
                                                "annotations": truth})
        weak = [{"id": item["id"], "image_id": item["image_id"], "category_id": item["category_id"], "iscrowd": 0,
                 "bbox": item["bbox"], "point": item["bbox"][:2]} for item in truth[:-1]]
        write_json(desk / layout.WEAK[split], {"images": [image | {"tags": [2, 40]} for image in images],
                                               "categories": categories, "annotations": weak})
        if split == "train":
            write_instances(desk / layout.pseudo_labels("irnet"), images, categories, found)
            panoptic_output(desk / layout.panoptic("irnet"), images, categories, truth)
        else:
            write_json(desk / layout.predictions("irnet"), [
                {key: item[key] for key in ("image_id", "category_id", "segmentation", "bbox", "score")}
                for item in found])
    write_json(desk / layout.method_data("irnet") / "figures.json",
               {"figures": {"mAP": 50.0}, "measured": {}, "details": {"accuracy": 3}})


def panoptic_output(path: Path, images: list[dict[str, Any]], categories: list[dict[str, Any]],
                    truth: list[dict[str, Any]]) -> None:
    """The truth as a method's panoptic output."""
    annotations = []
    for image in images:
        segments, rows = np.zeros((image["height"], image["width"]), int), []
        for item in truth:
            if item["image_id"] == image["id"]:
                segments[rle.decode(item["segmentation"]) & (segments == 0)] = item["id"]
                rows.append({"id": item["id"], "category_id": item["category_id"], "score": 0.5})
        annotations.append(write_segments(png_folder(path), image, segments, rows))
    write_panoptic(path, images, categories, annotations)


def proposals(desk: Path) -> None:
    """Lists of images, and another program's proposals for them."""
    rows = []
    for split, numbers in _PARTS.items():
        images = [{"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT} for number in numbers]
        write_json(desk / layout.WEAK[split], {"images": images, "categories": CATEGORIES, "annotations": []})
        for number in numbers:
            for place in range(4):
                mask = rle.encode(square(HEIGHT, WIDTH, place, place, 3 + place, 4))
                rows.append({"image_id": number, "category_id": 1, "segmentation": mask, "score": 0.1 + 0.2 * place})
            rows.append({"image_id": number, "segmentation": [[1, 1, 6, 1, 6, 6]], "score": 0.45})
    (desk / "results.json").write_text(json.dumps(rows))
