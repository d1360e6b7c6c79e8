"""Pascal VOC 2012 (VOCdevkit) and the Semantic Boundaries Dataset, which labels more of the same photographs.

Objects come from ``SegmentationObject`` (one value per object) with their class from ``SegmentationClass``, or from
SBD's ``inst/*.mat``. The value 255 (the outline around objects, and what the annotators left open) belongs to no object
and is left out: as a crowd region it would excuse no detection anyway, because a detection hardly ever lies within an
outline, and the AP^r of the papers knows no ignored pixels. ``difficult`` is a property of the detection task's boxes;
the masks carry no such mark, so every object with a mask counts, as in the papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.labels import rle as rle_codec
from stages.prepare.settings import DatasetSettings
from stages.prepare.sources import Source, SourceImage
from stages.runtime.errors import UserError

CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
           "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")
CATEGORIES = [{"id": number, "name": name, "isthing": 1} for number, name in enumerate(CLASSES, start=1)]
_VOID = 255


def devkit(dataset: DatasetSettings) -> Path:
    """The folder with JPEGImages: root itself, its VOC2012, or its VOCdevkit/VOC2012."""
    root = Path(dataset.root)
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise UserError(f"{root}: no JPEGImages in it, nor in VOC2012 or VOCdevkit/VOC2012; dataset.root must be the "
                    f"unpacked VOCdevkit of VOC 2012")


def sbd_folder(dataset: DatasetSettings) -> Path:
    """The folder of SBD with inst, train.txt and val.txt."""
    base = Path(dataset.root) / dataset.sbd
    for folder in (base, base / "dataset", base / "benchmark_RELEASE" / "dataset"):
        if (folder / "inst").is_dir():
            return folder
    raise UserError(f"{base}: no folder inst in it, nor in dataset or benchmark_RELEASE/dataset; train_aug needs SBD "
                    f"there (dataset.sbd), or set dataset.train: train")


def needed_paths(dataset: DatasetSettings) -> list[Path]:
    """Lists and folders that the chosen parts need."""
    voc = devkit(dataset)
    lists, augmented = voc / "ImageSets" / "Segmentation", _train(dataset) == "train_aug"
    names = ["train" if augmented else _train(dataset)]
    if dataset.split is None or augmented:
        names.append(dataset.val or "val")
    paths = [voc / "SegmentationObject", voc / "SegmentationClass", *(lists / f"{name}.txt" for name in names)]
    if augmented:
        sbd = sbd_folder(dataset)
        paths += [sbd / "train.txt", sbd / "val.txt"]
    return paths


def read(dataset: DatasetSettings) -> Source:
    """Read the image sets. ``train_aug`` is the usual one: SBD's train and val and VOC's train without VOC's val
    (10 582 images of the full data sets); VOC's own masks are taken where there are any.

    Raises:
        UserError: a missing file or folder.
    """
    voc = devkit(dataset)
    lists = voc / "ImageSets" / "Segmentation"
    names: dict[str, list[str]] = {}
    origin = {"train": lists / f"{_train(dataset)}.txt"}
    files = [path for path in needed_paths(dataset) if path.suffix == ".txt"]
    if _train(dataset) == "train_aug":
        sbd = sbd_folder(dataset)
        origin["train"] = sbd / "train.txt"
        held_out = set(read_list(lists / f"{dataset.val or 'val'}.txt"))
        union = {*read_list(sbd / "train.txt"), *read_list(sbd / "val.txt"), *read_list(lists / "train.txt")}
        names["train"] = sorted(union - held_out)
    else:
        names["train"] = read_list(origin["train"])
    if dataset.split is None:
        origin["val"] = lists / f"{dataset.val or 'val'}.txt"
        names["val"] = read_list(origin["val"])
    ids = image_ids({name for part in names.values() for name in part})
    folder = str(voc / "JPEGImages")
    images = {part: [SourceImage(ids[name], f"{name}.jpg", folder, masks=_mask_files(name, voc, dataset))
                     for name in part_names]
              for part, part_names in names.items()}
    return Source([dict(category) for category in CATEGORIES], images, origin, files)


def read_list(file: Path) -> list[str]:
    """The image names of a list, the first word of each line."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{file}: no such image set") from None
    names = [line.split()[0] for line in lines if line.strip()]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{file}: {twice} is listed twice")
    return names


def image_ids(names: set[str]) -> dict[str, int]:
    """VOC's names hold year and number: 2007_000032 -> 2007000032; other names are numbered in their order."""
    digits = {name: name.replace("_", "") for name in names}
    if all(text.isdecimal() and text.isascii() and len(text) <= 12 for text in digits.values()):
        numbers = {name: int(text) for name, text in digits.items()}
        if len(set(numbers.values())) == len(numbers):
            return numbers
    return {name: number for number, name in enumerate(sorted(names), start=1)}


def read_objects(files: Sequence[str], width: int, height: int) -> list[dict[str, Any]]:
    """The objects of one image: ``category_id``, ``iscrowd`` and ``segmentation`` (RLE).

    Args:
        files: (SegmentationObject PNG, SegmentationClass PNG), or (SBD inst file,).
        width, height: of the image.

    Raises:
        UserError: a missing or damaged file, masks of another size, an object without a class.
    """
    instances, classes = _read_mat(files[0]) if len(files) == 1 else _read_png(files[0], files[1])
    if instances.shape != (height, width):
        raise UserError(f"{files[0]}: masks of {instances.shape[1]} x {instances.shape[0]} pixels, the image has "
                        f"{width} x {height}")
    objects = []
    for value in np.unique(instances):
        if value in (0, _VOID):
            continue
        category_id = classes.get(int(value), 0)
        if not 1 <= category_id <= len(CLASSES):
            raise UserError(f"{files[-1]}: object {value} has no class from 1 to {len(CLASSES)} (found {category_id})")
        objects.append({"category_id": category_id, "iscrowd": 0, "segmentation": rle_codec.encode(instances == value)})
    return objects


def _train(dataset: DatasetSettings) -> str:
    return dataset.train or "train_aug"


def _mask_files(name: str, voc: Path, dataset: DatasetSettings) -> tuple[str, ...]:
    own = voc / "SegmentationObject" / f"{name}.png"
    if own.is_file() or _train(dataset) != "train_aug":
        return str(own), str(voc / "SegmentationClass" / f"{name}.png")
    return (str(sbd_folder(dataset) / "inst" / f"{name}.mat"),)


def _read_png(instance_file: str, class_file: str) -> tuple[np.ndarray, dict[int, int]]:
    """(H, W) object numbers and object number -> class: the most frequent class among the object's pixels."""
    instances, classes = (_read_indices(file) for file in (instance_file, class_file))
    if instances.shape != classes.shape:
        raise UserError(f"{class_file}: {classes.shape} pixels, the objects have {instances.shape}")
    found = {}
    for value in np.unique(instances):
        inside = classes[(instances == value) & (classes != 0) & (classes != _VOID)]
        found[int(value)] = int(np.bincount(inside).argmax()) if inside.size else 0
    return instances, found


def _read_indices(file: str) -> np.ndarray:
    """Palette indices of a PNG, (H, W)."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            if image.mode not in ("P", "L"):
                raise UserError(f"{file}: a palette PNG was expected, found mode {image.mode}")
            return np.array(image)
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; every image of the list needs its masks") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None


def _read_mat(file: str) -> tuple[np.ndarray, dict[int, int]]:
    """SBD's ``GTinst``: Segmentation holds 1, 2, ... and Categories the class of each."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(file)["GTinst"]
        instances = np.asarray(content["Segmentation"][0, 0])
        categories = np.asarray(content["Categories"][0, 0]).reshape(-1)
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; every image of the list needs its masks") from None
    except (MatReadError, OSError, KeyError, ValueError, IndexError, TypeError, EOFError) as error:
        raise UserError(f"{file}: cannot be read as an SBD inst file ({error})") from None
    return instances, {number: int(category) for number, category in enumerate(categories, start=1)}
