"""COCO instance JSON: any file that pycocotools reads, with masks or with weak labels only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from stages.labels import rle as rle_codec
from stages.labels.coco import LABELS, Entry, annotations_by_image, clip_labels, label_problems, validate_coco
from stages.prepare.settings import DatasetSettings
from stages.prepare.sources import Source, SourceImage
from stages.runtime.errors import UserError
from stages.runtime.files import read_json

_KEPT = ("id", "category_id", "iscrowd", "segmentation", *LABELS)


def parts(dataset: DatasetSettings) -> dict[str, tuple[Path, Path]]:
    """part -> (JSON file, image folder)."""
    return part_paths(dataset, "instances_train.json", "instances_val.json", "images")


def part_paths(dataset: DatasetSettings, train: str, val: str, images: str) -> dict[str, tuple[Path, Path]]:
    """part -> (JSON file, image folder), with these names below the root where the settings give none."""
    root = Path(dataset.root)
    train_images = dataset.train_images or images
    found = {"train": (root / (dataset.train or train), root / train_images)}
    if dataset.split is None:
        found["val"] = (root / (dataset.val or val), root / (dataset.val_images or train_images))
    return found


def needed_paths(dataset: DatasetSettings) -> list[Path]:
    """Root, JSON files and image folders."""
    return [Path(dataset.root), *(path for part in [*parts(dataset).values(), *more_parts(dataset)] for path in part)]


def more_parts(dataset: DatasetSettings) -> list[tuple[Path, Path]]:
    """(JSON file, image folder) of the further parts of train."""
    return [(Path(dataset.root) / part.file, Path(dataset.root) / part.images) for part in dataset.train_more]


def read(dataset: DatasetSettings) -> Source:
    """Read and check the JSON files; further parts of train are joined to it.

    Raises:
        UserError: a missing file or folder, JSON that is not COCO, or an image id that two parts of train share.
    """
    named = {f"train_more {number}": part for number, part in enumerate(more_parts(dataset), start=1)}
    source = read_parts({**parts(dataset), **named}, read_image)
    train = [image for part in ("train", *named) for image in source.parts[part]]
    owners: dict[int, SourceImage] = {}
    for image in train:
        if image.id in owners:
            raise UserError(f"dataset.train_more: {image.path} and {owners[image.id].path} have the id {image.id}; "
                            f"the parts of train need ids of their own")
        owners[image.id] = image
    kept = [part for part in source.parts if part not in named]
    return Source(source.categories, {part: train if part == "train" else source.parts[part] for part in kept},
                  {part: source.origin[part] for part in kept}, source.files)


def read_parts(found: Mapping[str, tuple[Path, Path]], make_image: Callable[..., SourceImage],
               adapt: Callable[[object, Path], None] | None = None) -> Source:
    """Read the JSON files of a data set whose format is COCO's or builds on it.

    Args:
        found: part -> (JSON file, image folder).
        make_image: as :func:`read_image`.
        adapt: checks a file's content and makes it COCO, in place.
    """
    images: dict[str, list[SourceImage]] = {}
    categories: dict[int, Entry] = {}
    for part, (file, folder) in found.items():
        if not folder.is_dir():
            key = "train_more" if part.startswith("train_more") else f"{part}_images"
            raise UserError(f"{folder}: no such image folder; set dataset.{key} (relative to dataset.root)")
        content = read_json(file)
        if adapt is not None:
            adapt(content, file)
        validate_coco(content, file, sizes=False)
        add_categories(categories, content["categories"], file)
        groups = annotations_by_image(content)
        images[part] = [make_image(image, groups[image["id"]], folder) for image in content["images"]]
    files = [file for file, _ in found.values()]
    origin = {part: file for part, (file, _) in found.items()}
    return Source([categories[key] for key in sorted(categories)], images, origin, files)


def add_categories(categories: dict[int, Entry], new: list[Entry], file: Path) -> None:
    """Join the categories of train and val; one id must not mean two things."""
    names = {category["name"]: category["id"] for category in categories.values()}
    for category in new:
        number, name = category["id"], category["name"]
        if categories.get(number, category)["name"] != name or names.get(name, number) != number:
            raise UserError(f"{file}: category {number} ({name!r}) has another id or name than in the training file; "
                            f"train and val need the same ids and names")
        isthing = category.get("isthing", 1)
        if categories.get(number, {"isthing": isthing})["isthing"] != isthing:
            raise UserError(f"{file}: category {number} ({name!r}) has isthing {isthing}, in the training file "
                            f"{1 - isthing}; a class is a thing or stuff in both")
        categories.setdefault(number, {**category, "isthing": isthing})


def read_image(image: Entry, annotations: list[Entry], folder: Path) -> SourceImage:
    """An image of the JSON with its annotations, of which only what this project uses is kept."""
    objects = tuple({key: annotation[key] for key in _KEPT if annotation.get(key) is not None}
                    for annotation in annotations)
    return SourceImage(image["id"], image["file_name"], str(folder), image.get("width"), image.get("height"),
                       tuple(sorted(set(image["tags"]))) if "tags" in image else None, objects,
                       tuple({"bbox": crop["bbox"], "tags": sorted(set(crop["tags"]))} for crop in image["tag_crops"])
                       if "tag_crops" in image else None)


def read_object(annotation: Entry, width: int, height: int, drop_empty: bool) -> tuple[Entry | None, list[str]]:
    """One annotation -> (object, problems).

    The object has ``category_id``, ``iscrowd``, ``segmentation`` (RLE, or None where the input has no mask) and
    ``input``: the input's annotation id and the weak labels that it carries, cut at the image's border. It is None
    where there is nothing to keep: empty masks that are to be dropped, crowds without any region.
    """
    where = f"annotation {annotation['id']}"
    crowd = annotation.get("iscrowd", 0)
    labels = {key: annotation[key] for key in LABELS if key in annotation}
    try:
        mask = _mask(annotation, crowd, width, height)
    except ValueError as error:
        return None, [f"{where}: {error}"]
    if mask is not None:
        if rle_codec.area(mask) == 0:
            problem = f"{where}: its mask holds no pixel; correct or remove it, or set dataset.empty_masks: drop"
            return None, [] if drop_empty else [problem]
        if _is_flat(labels.get("bbox")):  # COCO has boxes of no height beside real masks
            del labels["bbox"]
    problems = [f"{where}: {problem}" for problem in label_problems(labels, width, height)]
    if problems or (crowd and mask is None):
        return None, problems
    return {"category_id": annotation["category_id"], "iscrowd": crowd, "segmentation": mask,
            "input": {"id": annotation["id"], **clip_labels(labels, width, height)}}, []


def _mask(annotation: Entry, crowd: int, width: int, height: int) -> rle_codec.RLE | None:
    """The mask of an annotation; a crowd without a mask covers its box, so that what lies there is ignored."""
    segmentation = annotation.get("segmentation")
    if segmentation is not None and segmentation != []:  # COCO writes an empty list where there is no mask
        return rle_codec.from_segmentation(segmentation, height, width)
    if not crowd or label_problems({"bbox": annotation.get("bbox")}, width, height):
        return None
    return rle_codec.from_box(annotation["bbox"], height, width)


def _is_flat(box: object) -> bool:
    return (isinstance(box, list) and len(box) == 4 and all(isinstance(value, (int, float)) for value in box)
            and (box[2] <= 0 or box[3] <= 0))
