"""COCO JSON: checking what comes in, and the single writer of instance labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from stages.labels import rle as rle_codec
from stages.runtime.errors import UserError, summarise
from stages.runtime.files import is_finite, read_json, write_json

Entry = dict[str, Any]
"""A JSON object: an image, annotation or category, or the whole of a file."""

LABELS = ("bbox", "point", "extreme_points")
"""Keys of the labels of an object that are no mask."""
SLOP = 2.0
"""How far a label may lie outside its image [px]: COCO's own boxes do so by fractions of a pixel."""


def read_coco(path: str | Path) -> Entry:
    """Read a COCO JSON of this project's contract and check its structure and its masks.

    Raises:
        UserError: missing, not JSON or not COCO, or masks that are no RLE of their image; up to ten problems in one
            message.
    """
    content = read_json(path)
    validate_coco(content, path)
    if "weak" in content:  # what a truth file without truth lists in the place of its annotations
        validate_coco({**content, "annotations": content["weak"]}, path)
    images = images_by_id(content)
    problems = [] if isinstance(content.get("info", {}), dict) else ["info: an object was expected"]
    for image in images.values():
        wrong = rle_codec.problem(image["void"], image["height"], image["width"]) if "void" in image else None
        if wrong is not None:
            problems.append(f"image {image['id']}, void: {wrong}")
    for annotation in [*content["annotations"], *content.get("weak", [])]:
        image = images[annotation["image_id"]]
        problems += [f"annotation {annotation['id']} (image {image['id']}): {wrong}"
                     for wrong in _contract_problems(annotation, image["height"], image["width"])]
    if problems:
        raise UserError(summarise(problems, f"{path}: {len(problems)} damaged mask(s) or numbers; delete the file and "
                                            f"run `dvc repro` again:"))
    return content


def _contract_problems(annotation: Entry, height: int, width: int) -> list[str]:
    """What no stage of this project writes."""
    problems = [f"{key}: a number was expected, found {annotation[key]!r:.80}" for key in ("score", "area")
                if key in annotation and not is_finite(annotation[key])]
    if annotation.get("segmentation") is not None:
        wrong = rle_codec.problem(annotation["segmentation"], height, width)
        problems += [] if wrong is None else [wrong]
    if not isinstance(annotation.get("input", {}), dict):
        return [*problems, "input: an object was expected"]
    for labels in (annotation, annotation.get("input", {})):
        problems += label_problems({key: labels[key] for key in LABELS if key in labels}, width, height)
    return problems


def validate_coco(content: object, path: str | Path, sizes: bool = True) -> None:
    """Check the structure of COCO JSON: lists and ids, and what refers to what. Masks are not decoded.

    Args:
        content: what the file holds.
        path: named in messages.
        sizes: whether every image must carry ``width`` and ``height``.

    Raises:
        UserError: with the first ten problems and the number of the others.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path}: not COCO JSON: an object with images, annotations and categories was expected, "
                        f"found {_kind(content)}")
    problems = [f"{key}: a list was expected, found {_kind(content.get(key))}"
                for key in ("images", "annotations", "categories") if not isinstance(content.get(key), list)]
    if problems:
        raise UserError(summarise(problems, f"{path}: not COCO JSON:"))
    images, categories = check_lists(content, problems, sizes)
    for annotation in _check_ids(content["annotations"], "annotation", problems).values():
        _check_annotation(annotation, images, categories, problems)
    if problems:
        raise UserError(summarise(problems, f"{path}: {len(problems)} problem(s); correct the file:"))


def check_lists(content: Entry, problems: list[str], sizes: bool = True) -> tuple[dict[int, Entry], dict[int, Entry]]:
    """The images and categories of a COCO-like file by their ids; those that are none become problems."""
    categories = _check_ids(content["categories"], "category", problems)
    images = _check_ids(content["images"], "image", problems)
    _check_categories(categories.values(), problems)
    _check_images(images.values(), categories, sizes, problems)
    return images, categories


def label_problems(labels: Entry, width: int, height: int) -> list[str]:
    """What is wrong with the ``point``, ``bbox`` and ``extreme_points`` of one object of a width x height image.

    Pixel centres lie on integers, so a point may have x from -0.5 to width - 0.5, and ``SLOP`` more.
    """
    problems = []
    if "bbox" in labels:
        problems += _box_problems(labels["bbox"], width, height)
    if "point" in labels:
        problems += _point_problems("point", labels["point"], width, height)
    if "extreme_points" in labels:
        problems += _extreme_problems(labels["extreme_points"], width, height)
    return problems


def clip_labels(labels: Entry, width: int, height: int) -> Entry:
    """The object's ``point``, ``bbox`` and ``extreme_points``, with what hangs over the image's border cut off."""
    clipped: Entry = {}
    if "bbox" in labels:
        x, y, w, h = labels["bbox"]
        left, top = max(x, 0), max(y, 0)
        clipped["bbox"] = [left, top, min(x + w, width) - left, min(y + h, height) - top]
    if "point" in labels:
        clipped["point"] = _clip_point(labels["point"], width, height)
    if "extreme_points" in labels:
        clipped["extreme_points"] = [_clip_point(point, width, height) for point in labels["extreme_points"]]
    return clipped


def annotations_by_image(content: Entry) -> dict[int, list[Entry]]:
    """image id -> its annotations in file order; images without any have an empty list."""
    groups: dict[int, list[Entry]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        groups[annotation["image_id"]].append(annotation)
    return groups


def images_by_id(content: Entry) -> dict[int, Entry]:
    """image id -> image."""
    return {image["id"]: image for image in content["images"]}


def image_entries(images: Iterable[Entry]) -> list[Entry]:
    """What an instance file says of its images, and no more: ``id``, ``file_name``, ``width``, ``height``."""
    return [{key: image[key] for key in ("id", "file_name", "width", "height")} for image in images]


def category_indices(categories: Iterable[Entry], things_only: bool = False) -> dict[int, int]:
    """category id -> 0, 1, 2, ... in the order of the ids: networks count classes, files keep the input's ids."""
    ids = sorted(category["id"] for category in categories if not things_only or is_thing(category))
    return {category_id: index for index, category_id in enumerate(ids)}


def is_thing(category: Mapping[str, object]) -> bool:
    """Whether a category has instances (things); COCO instance files do not say so of theirs, so the default is yes."""
    return bool(category.get("isthing", 1))


def is_text(value: str) -> bool:
    """Whether a text can be written as UTF-8: JSON's escapes can name halves of characters (surrogates)."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def write_instances(path: str | Path, images: Sequence[Entry], categories: Sequence[Entry],
                    annotations: Iterable[Entry], info: Entry | None = None) -> None:
    """Write instance labels: the only writer, so that ids, areas and boxes are right wherever they are read.

    Args:
        path: written atomically.
        images: COCO images (``id, file_name, width, height``, more is kept).
        categories: the input's categories, unchanged.
        annotations: ``image_id``, ``category_id`` and ``segmentation`` (an RLE, or an array (H, W)); ``score``,
            ``iscrowd`` (default 0) and other keys are kept. They are sorted by image, otherwise their order stays.
        info: the file's ``info``.

    Raises:
        ValueError: an annotation that no reader should ever see; that is a defect of the stage that made it.
    """
    known = {image["id"]: image for image in images}
    allowed = {category["id"] for category in categories}
    if len(known) != len(images) or len(allowed) != len(categories):
        raise ValueError(f"{path}: duplicate image or category ids")
    rows = [_instance(annotation, known, allowed) for annotation in annotations]
    rows.sort(key=lambda row: row["image_id"])
    content = {"info": dict(info or {}), "images": [dict(image) for image in images],
               "annotations": [{"id": number, **row} for number, row in enumerate(rows, start=1)],
               "categories": [dict(category) for category in categories]}
    write_json(path, content)


def _instance(annotation: Entry, images: Mapping[int, Entry], categories: set[int]) -> Entry:
    """One annotation with area and box of its mask."""
    image_id, category_id = int(annotation["image_id"]), int(annotation["category_id"])
    where = f"annotation of image {image_id}, category {category_id}"
    if image_id not in images or category_id not in categories:
        raise ValueError(f"{where}: unknown image or category")
    mask = annotation["segmentation"]
    height, width = int(images[image_id]["height"]), int(images[image_id]["width"])
    if isinstance(mask, np.ndarray):
        mask = rle_codec.encode(mask)
    if list(mask["size"]) != [height, width]:
        raise ValueError(f"{where}: mask of {mask['size']}, the image is [{height}, {width}]")
    area = rle_codec.area(mask)
    if area == 0:
        raise ValueError(f"{where}: empty mask")
    row: Entry = {"image_id": image_id, "category_id": category_id,
                  "segmentation": {"size": [height, width], "counts": mask["counts"]},
                  "area": area, "bbox": rle_codec.bbox(mask)}
    if "score" in annotation:
        row["score"] = float(annotation["score"])
        if not math.isfinite(row["score"]):
            raise ValueError(f"{where}: score {row['score']}")
    row["iscrowd"] = int(annotation.get("iscrowd", 0))
    return {**row, **{key: value for key, value in annotation.items() if key not in row and key != "id"}}


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", type(None): "nothing"}
    return names.get(type(value), repr(value))


def is_id(value: object) -> TypeGuard[int]:
    """Whether a value can be an id: a whole number from 0 on."""
    # Arrays hold ids in 64 bits, and files are named by them.
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _check_ids(entries: list[object], name: str, problems: list[str]) -> dict[int, Entry]:
    """id -> entry of the entries that have one of their own; the others become problems."""
    found: dict[int, Entry] = {}
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not is_id(entry.get("id")):
            shown = entry.get("id") if isinstance(entry, dict) else _kind(entry)
            problems.append(f"{name} number {position + 1}: an object with a whole number from 0 on, below 2^63, as "
                            f"id was expected, found {shown!r:.80}")
        elif entry["id"] in found:
            problems.append(f"{name} id {entry['id']}: appears twice; ids must be unique")
        else:
            found[entry["id"]] = entry
    return found


def _check_categories(categories: Iterable[Entry], problems: list[str]) -> None:
    names: dict[str, int] = {}
    for category in categories:
        name = category.get("name")
        if not isinstance(name, str) or not name:
            problems.append(f"category {category['id']}: a name was expected, found {name!r:.80}")
        elif not is_text(name):
            problems.append(f"category {category['id']}: the name {name!r} holds half of a character; UTF-8 has no "
                            f"such text")
        elif name in names:
            problems.append(f"category {category['id']}: has the name {name!r} of category {names[name]}")
        else:
            names[name] = category["id"]
        if category.get("isthing", 1) not in (0, 1):
            problems.append(f"category {category['id']}: isthing must be 0 or 1, found {category['isthing']!r:.80}")


def _check_images(images: Iterable[Entry], categories: Mapping[int, Entry], sizes: bool, problems: list[str]) -> None:
    names: dict[str, int] = {}
    for image in images:
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            problems.append(f"image {image['id']}: a file_name was expected, found {name!r:.80}")
        elif not is_text(name):
            problems.append(f"image {image['id']}: the file_name {name!r} holds half of a character; UTF-8 has no such "
                            f"text")
        elif name in names:
            problems.append(f"image {image['id']}: has the file_name {name!r} of image {names[name]}")
        else:
            names[name] = image["id"]
        for side in ("width", "height"):
            value = image.get(side)
            if (value is not None or sizes) and (not is_id(value) or value == 0):
                problems.append(f"image {image['id']}: {side} must be a whole number from 1 on, found {value!r:.80}")
        tags = image.get("tags", [])
        if not isinstance(tags, list):
            problems.append(f"image {image['id']}: tags must be a list of category ids, found {_kind(tags)}")
            continue
        problems += [f"image {image['id']}: unknown category {tag!r:.80} in its tags" for tag in tags
                     if not is_id(tag) or tag not in categories]
        problems += _crop_problems(image, categories)


def _crop_problems(image: Entry, categories: Mapping[int, Entry]) -> list[str]:
    """What is wrong with the tags per crop of one image (see ``stages.labels.tag_crops``)."""
    crops = image.get("tag_crops", [])
    if not isinstance(crops, list) or not all(isinstance(crop, dict) for crop in crops):
        return [f"image {image['id']}: tag_crops must be a list of objects with bbox and tags"]
    problems = []
    for number, crop in enumerate(crops, start=1):
        tags, box = crop.get("tags"), crop.get("bbox")
        if not isinstance(tags, list) or not all(is_id(tag) and tag in categories for tag in tags):
            problems.append(f"image {image['id']}: tags of crop {number}: a list of category ids was expected, found "
                            f"{tags!r:.80}")
        if not _numbers(box, 4) or box[2] <= 0 or box[3] <= 0:
            problems.append(f"image {image['id']}: crop {number}: a bbox [x, y, width, height] was expected, found "
                            f"{box!r}")
    return problems


def _check_annotation(annotation: Entry, images: Mapping[int, Entry], categories: Mapping[int, Entry],
                      problems: list[str]) -> None:
    where = f"annotation {annotation['id']}"
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    if not is_id(image_id) or image_id not in images:
        problems.append(f"{where}: unknown image_id {image_id!r:.80}")
        return
    if not is_id(category_id) or category_id not in categories:
        problems.append(f"{where} (image {image_id}): unknown category_id {category_id!r:.80}")
    if annotation.get("iscrowd", 0) not in (0, 1):
        problems.append(f"{where} (image {image_id}): iscrowd must be 0 or 1, found {annotation['iscrowd']!r:.80}")


def _numbers(value: object, count: int) -> TypeGuard[list[float]]:
    return isinstance(value, list) and len(value) == count and all(is_finite(item) for item in value)


def _box_problems(box: object, width: int, height: int) -> list[str]:
    if not _numbers(box, 4):
        return [f"bbox: four numbers [x, y, width, height] were expected, found {box!r:.80}"]
    x, y, w, h = box
    if w <= 0 or h <= 0:
        return [f"bbox {box!s:.80} is empty"]
    if min(x, y) < -SLOP or x + w > width + SLOP or y + h > height + SLOP or x >= width or y >= height \
            or x + w <= 0 or y + h <= 0:
        return [f"bbox {box!s:.80} lies outside the image of {width} x {height} pixels"]
    return []


def _point_problems(name: str, point: object, width: int, height: int) -> list[str]:
    if not _numbers(point, 2):
        return [f"{name}: two numbers [x, y] were expected, found {point!r:.80}"]
    x, y = point
    if min(x, y) < -0.5 - SLOP or x > width - 0.5 + SLOP or y > height - 0.5 + SLOP:
        return [f"{name} {point!s:.80} lies outside the image of {width} x {height} pixels"]
    return []


def _extreme_problems(points: object, width: int, height: int) -> list[str]:
    if not isinstance(points, list) or len(points) != 4:
        return [f"extreme_points: four points (top, left, bottom, right) were expected, found {points!r:.80}"]
    problems = [problem for name, point in zip(("top", "left", "bottom", "right"), points, strict=True)
                for problem in _point_problems(f"extreme point {name}", point, width, height)]
    if problems:
        return problems
    top, left, bottom, right = points
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    wrong = [name for name, correct in (("top", top[1] == min(ys)), ("left", left[0] == min(xs)),
                                        ("bottom", bottom[1] == max(ys)), ("right", right[0] == max(xs)))
             if not correct]
    if wrong:
        return [f"extreme_points {points!s:.200} are not extreme: {', '.join(wrong)} (the order is top, left, bottom, "
                f"right, y down)"]
    return []


def _clip_point(point: Sequence[float], width: int, height: int) -> list[float]:
    return [min(max(point[0], 0), width - 1), min(max(point[1], 0), height - 1)]
