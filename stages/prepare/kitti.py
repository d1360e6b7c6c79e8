"""KITTI: boxes of the object benchmark, instance PNGs of the semantics benchmark, and MOTS (multi-object tracking and
segmentation). Two classes, cars and persons.

An image has its objects from its instance PNG or, where there is none, from its table of boxes; the point of such an
object is the middle of its box (WISE section 4.5). ``kitti_masks`` reads the PNGs.
"""

from __future__ import annotations

from pathlib import Path

from stages.labels.coco import Entry
from stages.prepare.settings import DatasetSettings
from stages.prepare.sources import Source, SourceImage, check_names, read_lines
from stages.runtime.errors import UserError

CATEGORIES: list[Entry] = [{"id": 1, "name": "car", "isthing": 1}, {"id": 2, "name": "person", "isthing": 1}]
TYPES = {"Car": 1, "Pedestrian": 2, "Person_sitting": 2}
"""Types of the tables of boxes that are objects here; vans, trucks, cyclists, trams and DontCare are not."""
FOLDERS = ("training/image_2", "image_2", "training/image_02", "image_02")
"""Where images lie, unless the settings say otherwise: single images, or (MOTS) one folder per sequence."""


def image_folders(dataset: DatasetSettings) -> dict[str, Path]:
    """part -> image folder.

    Raises:
        UserError: there is none of the usual ones in the root.
    """
    root = Path(dataset.root)
    usual = next((root / folder for folder in FOLDERS if (root / folder).is_dir()), None)
    train = root / dataset.train_images if dataset.train_images else usual
    if train is None:
        raise UserError(f"{root}: none of {', '.join(FOLDERS)} in it; dataset.root must be the unpacked KITTI data, or "
                        f"name the image folder in dataset.train_images")
    found = {"train": train}
    if dataset.split is None:
        found["val"] = root / dataset.val_images if dataset.val_images else train
        if found["val"] == train and dataset.val is None:
            raise UserError(f"{root}: nothing says which images are for val; set dataset.val (a list of names below "
                            f"{train}), dataset.val_images (another folder) or dataset.split")
    return found


def _lists(dataset: DatasetSettings) -> dict[str, Path]:
    names = {"train": dataset.train, "val": dataset.val if dataset.split is None else None}
    return {part: Path(dataset.root) / name for part, name in names.items() if name is not None}


def needed_paths(dataset: DatasetSettings) -> list[Path]:
    """Root, image folders and lists."""
    return [Path(dataset.root), *image_folders(dataset).values(), *_lists(dataset).values()]


def read(dataset: DatasetSettings) -> Source:
    """Find the images and read the tables of boxes.

    Raises:
        UserError: a missing file or folder, an image without labels, or a table that is not KITTI's.
    """
    folders, lists = image_folders(dataset), _lists(dataset)
    chosen = {}
    for part, folder in folders.items():
        if not folder.is_dir():
            raise UserError(f"{folder}: no such image folder; set dataset.{part}_images (relative to dataset.root)")
        chosen[part] = _listed(lists[part], folder) if part in lists else _labelled(folder)
    if "val" in chosen and "train" not in lists and folders["val"] == folders["train"]:
        held_out = set(chosen["val"])
        chosen["train"] = [name for name in chosen["train"] if name not in held_out]
    # One running number over both parts, so that an id means one image.
    numbers = {entry: number for number, entry in enumerate(
        sorted({(str(folders[part]), name) for part, names in chosen.items() for name in names}), start=1)}
    images = {part: [_image(numbers[str(folders[part]), name], folders[part], name) for name in names]
              for part, names in chosen.items()}
    origin = {part: lists.get(part, folder) for part, folder in folders.items()}
    return Source([dict(category) for category in CATEGORIES], images, origin, list(lists.values()))


def mask_file(folder: Path, name: str) -> Path:
    """The instance PNG of an image: in ``instance`` (semantics) or ``instances`` (MOTS) beside the image folder, or
    beside the folder ``training`` that it is in."""
    kind = "instances" if folder.name == "image_02" else "instance"
    beside = folder.parent / kind / f"{name}.png"
    above = folder.parent.parent / kind / f"{name}.png"
    return above if above.is_file() and not beside.is_file() else beside


def box_file(folder: Path, name: str) -> Path:
    """The table of boxes of an image."""
    return folder.parent / "label_2" / f"{name}.txt"


def _listed(file: Path, folder: Path) -> list[str]:
    """The names of a list, one a line; the name of a sequence stands for all its frames."""
    lines = read_lines(file, "no such list of image names")
    check_names([line.strip() for line in lines], file)
    names: list[str] = []
    for line in lines:
        name = line.strip().removesuffix(".png")
        if name and (folder / name).is_dir():
            names += [f"{name}/{path.stem}" for path in sorted((folder / name).glob("*.png"))]
        elif name:
            names.append(name)
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) != len(names) else None
    if twice is not None:
        raise UserError(f"{file}: {twice} is listed twice")
    return names


def _labelled(folder: Path) -> list[str]:
    """The images of a folder, or of its folders, that have labels."""
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in sorted(folder.rglob("*.png"))]
    return [name for name in names if mask_file(folder, name).is_file() or box_file(folder, name).is_file()]


def _image(number: int, folder: Path, name: str) -> SourceImage:
    masks, boxes = mask_file(folder, name), box_file(folder, name)
    if masks.is_file():
        return SourceImage(number, f"{name}.png", str(folder), masks=(str(masks),))
    if not boxes.is_file():
        raise UserError(f"{folder / name}.png: neither {masks} nor {boxes} is there; every image needs its labels")
    return SourceImage(number, f"{name}.png", str(folder), objects=tuple(read_boxes(boxes)))


def read_boxes(file: Path) -> list[Entry]:
    """The objects of a table of boxes: ``bbox`` [x, y, width, height], and ``point``, its middle.

    Raises:
        UserError: a line that is not KITTI's: a type and at least seven numbers, the last four of them left, top,
            right and bottom.
    """
    objects = []
    for number, line in enumerate(read_lines(file, "no such table of boxes"), start=1):
        words = line.split()
        if not words:
            continue
        try:
            left, top, right, bottom = (float(word) for word in words[4:8])
        except ValueError:
            raise UserError(f"{file}: line {number}: a type and at least seven numbers were expected, with left, top, "
                            f"right, bottom as the fourth to seventh; found {line!r}") from None
        if words[0] in TYPES:
            objects.append({"id": number, "category_id": TYPES[words[0]], "iscrowd": 0,
                            "bbox": [left, top, right - left, bottom - top],
                            "point": [(left + right) / 2, (top + bottom) / 2]})
    return objects
