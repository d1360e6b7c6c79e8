"""Data sets in small: a few rendered pictures, in the sizes, formats, folders and classes of the real ones.

What is written is what the preset's own section ``dataset`` asks for, so that ``prepare`` reads it as it would read the
real one. The scenes are those of the embedded data set (``stages/prepare/shapes.py``), their objects named by the
classes in turn; streets for Cityscapes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stages.labels import rle
from stages.labels.coco import Entry
from stages.prepare import cityscapes_scenes, coco, kitti, lvis, voc
from stages.prepare.settings import DatasetSettings, ShapesSettings
from stages.prepare.shapes_rendering import render
from stages.prepare.writing import save_inst, save_palette, save_picture
from stages.runtime.errors import UserError

SIZES = {"voc": (375, 500), "coco": (480, 640), "lvis": (480, 640), "kitti": (375, 1242), "cityscapes": (1024, 2048)}
"""(height, width) of most images of a data set [px]."""
VAL_IMAGES = 2
_VOID = 255


@dataclass(frozen=True, eq=False)
class Scene:
    """A rendered picture: (H, W, 3) uint8 RGB, and for each object the position of its class and its (H, W) mask."""

    pixels: np.ndarray
    objects: list[tuple[int, np.ndarray]]


def write(dataset: DatasetSettings, root: Path, images: int) -> None:
    """Write a data set in small.

    Args:
        dataset: the preset's section, with the root as it shall be found; its other paths are kept.
        root: that root, from here; what it holds is removed.
        images: of train; of val there are ``VAL_IMAGES``.

    Raises:
        UserError: a kind that there is no miniature of.
    """
    if dataset.kind == "shapes":  # rendered by `prepare`
        return
    if dataset.kind not in _WRITERS:
        raise UserError(f"dataset.kind: {dataset.kind} has no miniature (there are: {', '.join(_WRITERS)}); give the "
                        f"folder of a data set: ROOT=...")
    for key, place in _places(dataset):
        if not (root / place).resolve().is_relative_to(root.parent.resolve()):
            raise UserError(f"dataset.{key}: {place} leads out of the folder of a miniature, which would be written "
                            f"there; rehearse on the real data: ROOT=...")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    _WRITERS[dataset.kind](dataset, root, images)


def _places(dataset: DatasetSettings) -> list[tuple[str, str]]:
    """Settings that name a place below the root, and the place."""
    named = [(key, getattr(dataset, key)) for key in ("train", "val", "train_images", "val_images", "sbd")]
    named += [(f"train_more[{number}].{key}", getattr(part, key)) for number, part in enumerate(dataset.train_more)
              for key in ("file", "images")]
    return [(key, value) for key, value in named if value is not None]


def coco_categories() -> list[Entry]:
    """COCO's 80 classes with their ids."""
    from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights

    names = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return [{"id": number, "name": name} for number, name in enumerate(names) if name not in ("__background__", "N/A")]


def lvis_categories() -> list[Entry]:
    """LVIS' 1203 classes: by name and frequency where Detectron2 is there, which lists them, else numbered."""
    try:
        from detectron2.data.datasets.lvis_v1_categories import LVIS_CATEGORIES as listed
    except ImportError:
        listed = [{"id": number, "name": f"class {number}", "frequency": "rcf"[number % 3]} for number in
                  range(1, 1204)]
    return [{"id": entry["id"], "name": entry["name"], "frequency": entry["frequency"]} for entry in listed]


def _scene(number: int, kind: str) -> Scene:
    height, width = SIZES[kind]
    pixels, instances = render(number, 0, ShapesSettings(width=width, height=height))
    objects = [(5 * number + item.category_id - 1, item.mask) for item in instances if item.category_id <= 5]
    return Scene(pixels, objects)


def _write_voc(dataset: DatasetSettings, root: Path, images: int) -> None:
    """A VOCdevkit, and for train_aug an SBD that has every other training image alone."""
    part = dataset.train or "train_aug"
    augmented, val = part == "train_aug", dataset.val or "val"
    train = [f"2007_{number:06d}" if number % 2 or not augmented else f"2008_{number:06d}"
             for number in range(1, images + 1)]
    held_out = [f"2007_{number:06d}" for number in range(1001, 1001 + VAL_IMAGES)]
    lists = root / "ImageSets/Segmentation"
    own = [name for name in train if name.startswith("2007")]
    _lines(lists / f"{'train' if augmented else part}.txt", own if augmented else train)
    _lines(lists / f"{val}.txt", held_out)
    if augmented:
        sbd = root / dataset.sbd
        shutil.rmtree(sbd, ignore_errors=True)
        _lines(sbd / "train.txt", [name for name in train if name not in own])
        _lines(sbd / "val.txt", held_out)
    for folder in ("SegmentationObject", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate([*train, *held_out]):
        scene = _scene(number, "voc")
        save_picture(root / f"JPEGImages/{name}.jpg", scene.pixels)
        classes = [place % len(voc.CLASSES) + 1 for place, _ in scene.objects]
        values = np.zeros(scene.pixels.shape[:2], np.uint8)
        for index, (_, mask) in enumerate(scene.objects, start=1):
            values[mask] = index
        if name.startswith("2008"):
            save_inst(root / dataset.sbd / f"inst/{name}.mat", values, classes, compress=True)
            continue
        edge = cv2.morphologyEx(values, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        by_class = np.array([0, *classes], np.uint8)[values]
        save_palette(root / f"SegmentationObject/{name}.png", np.where(edge, _VOID, values).astype(np.uint8))
        save_palette(root / f"SegmentationClass/{name}.png", np.where(edge, _VOID, by_class).astype(np.uint8))
    if augmented:
        (root / dataset.sbd / "inst").mkdir(parents=True, exist_ok=True)


def _write_coco(dataset: DatasetSettings, root: Path, images: int) -> None:
    """JSON files and photographs; of several training parts each has its share."""
    places = [*coco.parts(dataset).items()]
    train, more = [place for name, place in places if name == "train"], coco.more_parts(dataset)
    share = max(1, images // (len(more) + 1))
    shares = [max(1, images - share * len(more)), *[share] * len(more)]
    parts = [*zip([*train, *more], shares, strict=True),
             *((place, VAL_IMAGES) for name, place in places if name == "val")]
    number = 1
    for (file, folder), count in parts:
        _write_json(file, _coco_images(folder, number, count, "{:012d}.jpg"), coco_categories(), {})
        number += count


def _write_lvis(dataset: DatasetSettings, root: Path, images: int) -> None:
    """LVIS' JSON; images are found by their addresses, some of val in train2017."""
    number = 1
    categories = lvis_categories()
    for part, (file, folder) in lvis.parts(dataset).items():
        count = images if part == "train" else VAL_IMAGES
        pattern = "train2017/{:012d}.jpg" if part == "train" else "val2017/{:012d}.jpg"
        found = _coco_images(folder, number, count, pattern)
        for image, _ in found:
            image["coco_url"] = f"http://images.cocodataset.org/{image.pop('file_name')}"
            image |= {"neg_category_ids": [categories[-1]["id"]], "not_exhaustive_category_ids": []}
        _write_json(file, found, categories, {"crowds": False})
        number += count


def _coco_images(folder: Path, first: int, count: int, pattern: str) -> list[tuple[Entry, Scene]]:
    found = []
    for number in range(first, first + count):
        scene, name = _scene(number, "coco"), pattern.format(number)
        save_picture(folder / name, scene.pixels)
        height, width = scene.pixels.shape[:2]
        found.append(({"id": number, "file_name": name, "height": height, "width": width}, scene))
    return found


def _write_json(file: Path, found: list[tuple[Entry, Scene]], categories: list[Entry], options: Entry) -> None:
    """COCO instances: polygons, and the last object of the first image, if it has several, as a crowd."""
    rows: list[Entry] = []
    for index, (image, scene) in enumerate(found):
        crowd = len(scene.objects) - 1 if index == 0 and len(scene.objects) > 1 and options.get("crowds", True) else -1
        for place, (number, mask) in enumerate(scene.objects):
            region: Any = _polygons(mask)
            if place == crowd:
                runs = rle.encode(mask)
                region = {"size": runs["size"], "counts": rle.unpack_counts(runs["counts"])}
            left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
            rows.append({"id": 100 * image["id"] + place, "image_id": image["id"], "iscrowd": int(place == crowd),
                         "category_id": categories[number % len(categories)]["id"], "area": float(mask.sum()),
                         "bbox": [left, top, width, height], "segmentation": region})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"images": [image for image, _ in found], "annotations": rows,
                                "categories": categories}))


def _polygons(mask: np.ndarray) -> list[list[int]]:
    """Outer outlines of a mask's parts; thin scraps that have none are left out, unless there is nothing else."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    found = [outline.reshape(-1).tolist() for outline in outlines if len(outline) >= 3]
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return found or [[left, top, left + width, top, left + width, top + height, left, top + height]]


def _write_kitti(dataset: DatasetSettings, root: Path, images: int) -> None:
    """Tables of boxes for train, pictures of instances for val."""
    folders = {"train": root / (dataset.train_images or kitti.FOLDERS[0])}
    if dataset.split is None:
        folders["val"] = root / (dataset.val_images or dataset.train_images or kitti.FOLDERS[0])
    kinds = {category["id"]: kind for kind, category in zip(("Car", "Pedestrian"), kitti.CATEGORIES, strict=True)}
    for part, folder in folders.items():
        first, count = (0, images) if part == "train" else (images, VAL_IMAGES)
        names = [f"{number:06d}" for number in range(first, first + count)]
        listed = dataset.train if part == "train" else dataset.val
        if listed is not None:
            _lines(root / listed, names)
        for number, name in enumerate(names, start=first):
            scene = _scene(number, "kitti")
            save_picture(folder / f"{name}.png", scene.pixels)
            classes = [place % 2 + 1 for place, _ in scene.objects]
            if part == "train":
                boxes = [cv2.boundingRect(mask.astype(np.uint8)) for _, mask in scene.objects]
                _lines(kitti.box_file(folder, name), [
                    f"{kinds[kind]} 0.00 0 1.5 {left}.0 {top}.0 {left + width}.0 {top + height}.0 1 1 1 1 1 1 0"
                    for kind, (left, top, width, height) in zip(classes, boxes, strict=True)])
                continue
            values = np.full(scene.pixels.shape[:2], 7 * 256, np.uint16)
            for index, (kind, (_, mask)) in enumerate(zip(classes, scene.objects, strict=True), start=1):
                values[mask] = {1: 26, 2: 24}[kind] * 256 + index
            save_picture(folder.parent / f"instance/{name}.png", values)


def _write_cityscapes(dataset: DatasetSettings, root: Path, images: int) -> None:
    """Streets of two cities for train, one for val and one for train_extra, in gtFine and gtCoarse."""
    cityscapes_scenes.write_cityscapes(root, max(1, -(-images // 3)), SIZES["cityscapes"])


def _lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


_WRITERS: dict[str, Callable[[DatasetSettings, Path, int], None]] = {
    "voc": _write_voc, "coco": _write_coco, "lvis": _write_lvis, "kitti": _write_kitti,
    "cityscapes": _write_cityscapes}
