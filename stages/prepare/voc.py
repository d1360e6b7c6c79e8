"""Pascal VOC 2012 (VOCdevkit) and the Semantic Boundaries Dataset, which labels more of the same photographs.

``voc_masks`` reads the objects of an image.
"""

from __future__ import annotations

from pathlib import Path

from stages.labels.coco import Entry
from stages.prepare.settings import DatasetSettings
from stages.prepare.sources import Source, SourceImage, check_names, read_lines
from stages.runtime.errors import UserError

CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
           "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")
CATEGORIES: list[Entry] = [{"id": number, "name": name, "isthing": 1} for number, name in enumerate(CLASSES, start=1)]


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
    """Root, lists and folders that the chosen parts need.

    Raises:
        UserError: there is no VOCdevkit in the root, or no SBD where it is needed.
    """
    voc = devkit(dataset)
    lists, augmented = voc / "ImageSets" / "Segmentation", _train(dataset) == "train_aug"
    names = ["train" if augmented else _train(dataset)]
    if dataset.split is None or augmented:
        names.append(dataset.val or "val")
    paths = [Path(dataset.root), voc / "SegmentationObject", voc / "SegmentationClass",
             *(lists / f"{name}.txt" for name in names)]
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
    names = [line.split()[0] for line in read_lines(file, "no such image set") if line.strip()]
    check_names(names, file)
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


def _train(dataset: DatasetSettings) -> str:
    return dataset.train or "train_aug"


def _mask_files(name: str, voc: Path, dataset: DatasetSettings) -> tuple[str, ...]:
    own = voc / "SegmentationObject" / f"{name}.png"
    if own.is_file() or _train(dataset) != "train_aug":
        return str(own), str(voc / "SegmentationClass" / f"{name}.png")
    return (str(sbd_folder(dataset) / "inst" / f"{name}.mat"),)
