"""COCO panoptic files: every pixel belongs to one segment, an instance of a thing or all of a class of stuff.

A JSON (``images``, ``categories`` with ``isthing``, ``annotations``) lies beside a folder of its name with one PNG per
image: panoptic.json and panoptic/. A pixel's segment id is R + 256 G + 65536 B, 0 is void; an annotation lists its
image's ``segments_info``: ``id``, ``category_id``, ``area``, ``bbox`` [x, y, width, height] and ``iscrowd``.
Predictions carry ``score`` too, or several by name in ``scores``, by which AP may rank them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from stages.labels.coco import Entry, image_entries, is_thing
from stages.runtime import layout
from stages.runtime.errors import UserError, summarise
from stages.runtime.files import atomic_path, read_json, write_json

VOID = 0
"""Segment id of pixels that belong to no segment."""
MOST_IDS = 256 ** 3
"""Ids are below this: three bytes."""


def encode_ids(segments: np.ndarray) -> np.ndarray:
    """Segment ids (H, W), 0 .. 256 ** 3 - 1, as RGB (H, W, 3) uint8.

    Raises:
        ValueError: ids that three bytes do not hold.
    """
    if segments.ndim != 2 or segments.min(initial=0) < 0 or segments.max(initial=0) >= MOST_IDS:
        raise ValueError(f"segment ids (H, W) from 0 to {MOST_IDS - 1} were expected, found shape {segments.shape}, "
                         f"{segments.min(initial=0)} to {segments.max(initial=0)}")
    ids = segments.astype(np.uint32)
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)


def decode_ids(rgb: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) uint8 as segment ids (H, W) int32."""
    red, green, blue = (rgb[..., channel].astype(np.int32) for channel in range(3))
    return red + 256 * green + 65536 * blue


def segments_info(segments: np.ndarray, rows: Sequence[Entry]) -> list[Entry]:
    """The ``segments_info`` of one image; segments without a pixel are left out.

    Args:
        segments: (H, W) int, ids of ``rows`` or :data:`VOID`.
        rows: ``id``, ``category_id`` and, as they like, ``iscrowd`` (default 0), ``score``, ``scores`` and others.

    Returns:
        The rows in order of their ids, with area and box of their pixels.

    Raises:
        ValueError: an id twice, 0, or in the map and not among the rows; a score that is no number.
    """
    known = {row["id"]: row for row in rows}
    present, compact, areas = _compact(segments)
    if len(known) != len(rows) or VOID in known or not {*present.tolist()} <= {VOID, *known}:
        raise ValueError(f"segments {present.tolist()[:10]} and rows {sorted(known)[:10]} do not fit each other")
    info = []
    for place, (number, area) in enumerate(zip(present.tolist(), areas.tolist(), strict=True)):
        if number == VOID:
            continue
        row = known[number]
        scores = {**row.get("scores", {}), **({"score": row["score"]} if "score" in row else {})}
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in scores.values()):
            raise ValueError(f"segment {number}: scores {scores}")
        columns, lines = (np.flatnonzero((compact == place).any(axis=axis)) for axis in (0, 1))
        box = [int(columns[0]), int(lines[0]), int(columns[-1] - columns[0]) + 1, int(lines[-1] - lines[0]) + 1]
        info.append({**row, "id": int(number), "area": int(area), "bbox": box, "iscrowd": int(row.get("iscrowd", 0))})
    return info


def write_segments(folder: Path, image: Entry, segments: np.ndarray, rows: Sequence[Entry]) -> Entry:
    """Write one image's PNG and give its annotation, for :func:`write_panoptic`.

    Args:
        folder: of the PNGs.
        image: COCO image.
        segments, rows: as for :func:`segments_info`.

    Raises:
        ValueError: as there, or a map of another size than the image.
    """
    if segments.shape != (image["height"], image["width"]):
        raise ValueError(f"image {image['id']}: segments of {segments.shape}, the image is "
                         f"{(image['height'], image['width'])}")
    info = segments_info(segments, rows)
    name = f"{layout.image_key(image)}.png"
    with atomic_path(folder / name) as temporary:
        if not cv2.imwrite(str(temporary), encode_ids(segments)[..., ::-1]):
            raise OSError(f"{folder / name}: OpenCV could not write the PNG")
    return {"image_id": image["id"], "file_name": name, "segments_info": info}


def write_panoptic(path: Path, images: Iterable[Entry], categories: Sequence[Entry], annotations: Iterable[Entry],
                   info: Entry | None = None) -> None:
    """Write the JSON of a panoptic file.

    Args:
        path: its PNGs lie in the folder of this name without ``.json``.
        images: COCO images.
        categories: the input's, with ``isthing``.
        annotations: of :func:`write_segments`, one per image.
        info: the file's ``info``.

    Raises:
        ValueError: what no reader should ever see: a defect of the stage that made it.
    """
    content: Entry = {"info": dict(info or {}), "images": image_entries(images),
               "categories": [{**category, "isthing": int(is_thing(category))} for category in categories],
               "annotations": sorted(annotations, key=lambda annotation: annotation["image_id"])}
    problems = _problems(content)
    stuff = {category["id"] for category in content["categories"] if not category["isthing"]}
    for annotation in content["annotations"]:
        shown = [segment["category_id"] for segment in annotation["segments_info"] if segment["category_id"] in stuff]
        if len(shown) != len(set(shown)):
            problems.append(f"image {annotation['image_id']}: two segments of one class of stuff")
    if problems:
        raise ValueError(summarise(problems, f"{path}: not COCO panoptic:"))
    write_json(path, content)


def read_panoptic(path: Path) -> Entry:
    """Read the JSON of a panoptic file and check its structure; no PNG is opened.

    Raises:
        UserError: missing, not JSON or not COCO panoptic; up to ten problems in one message.
    """
    content = read_json(path)
    problems = _problems(content)
    if problems:
        raise UserError(summarise(problems, f"{path}: {len(problems)} problem(s); COCO panoptic JSON was expected:"))
    return content


def png_folder(path: Path) -> Path:
    """The folder of the PNGs of a panoptic JSON: its name without ``.json``."""
    return path.with_suffix("")


def read_segments(path: Path, size: tuple[int, int], info: Sequence[Entry]) -> np.ndarray:
    """Read one PNG.

    Args:
        path: of the PNG.
        size: (H, W) of its image.
        info: the ``segments_info`` that belong to it.

    Returns:
        (H, W) int32, 0 where void, else 1 + place in ``info``.

    Raises:
        UserError: missing, damaged, not RGB, of another size, or with other segments than ``info``.
    """
    try:
        with Image.open(path) as picture:
            mode, rgb = picture.mode, np.array(picture)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; every annotation of a panoptic JSON needs its PNG") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as a PNG ({error})") from None
    if mode != "RGB" or rgb.shape[:2] != tuple(size):
        raise UserError(f"{path}: an RGB PNG of {size[1]} x {size[0]} pixels was expected, found mode {mode} and an "
                        f"array of shape {rgb.shape}")
    present, compact, _ = _compact(decode_ids(rgb))
    places = {segment["id"]: place for place, segment in enumerate(info, start=1)}
    unknown = [number for number in present.tolist() if number != VOID and number not in places]
    missing = sorted({*places} - {*present.tolist()})
    if unknown or missing:
        raise UserError(f"{path}: the PNG and its segments_info differ: ids {unknown[:5]} are in the PNG alone, "
                        f"{missing[:5]} in the JSON alone")
    return np.array([places.get(number, 0) for number in present.tolist()], np.int32)[compact]


def _compact(segments: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ids that occur (K,), for each pixel (H, W) the place of its id among them, and their areas (K,)."""
    present, inverse, areas = np.unique(segments, return_inverse=True, return_counts=True)
    return present, inverse.reshape(segments.shape), areas


def _problems(content: object) -> list[str]:
    """What is wrong with the content of a panoptic JSON."""
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list)
                                                for key in ("images", "annotations", "categories")):
        return ["an object with the lists images, annotations and categories was expected"]
    problems = []
    images = {image.get("id"): image for image in content["images"] if isinstance(image, dict)}
    categories = {category.get("id"): category for category in content["categories"] if isinstance(category, dict)}
    if len(images) != len(content["images"]) or len(categories) != len(content["categories"]):
        problems.append("images and categories need ids of their own")
    problems += [f"image {number}: file_name, width and height are needed" for number, image in images.items()
                 if not isinstance(image.get("file_name"), str) or not _is_size(image.get("width"))
                 or not _is_size(image.get("height"))]
    problems += [f"category {number}: isthing must be 0 or 1, found {category.get('isthing')!r}"
                 for number, category in categories.items() if category.get("isthing") not in (0, 1)]
    seen: set[object] = set()
    for annotation in content["annotations"]:
        number = annotation.get("image_id") if isinstance(annotation, dict) else None
        if number not in images or number in seen:
            problems.append(f"annotation of image {number!r}: no such image, or a second annotation of it")
            continue
        seen.add(number)
        problems += _annotation_problems(annotation, categories)
    return problems


def _annotation_problems(annotation: Entry, categories: Mapping[object, Entry]) -> list[str]:
    where, name, info = f"image {annotation['image_id']}", annotation.get("file_name"), annotation.get("segments_info")
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
        return [f"{where}: file_name must name a PNG below the folder, found {name!r}"]
    if not isinstance(info, list) or not all(isinstance(segment, dict) for segment in info):
        return [f"{where}: segments_info must be a list of objects"]
    problems = []
    for segment in info:
        number = segment.get("id")
        if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < MOST_IDS:
            problems.append(f"{where}: segment ids are whole numbers from 1 to {MOST_IDS - 1}, found {number!r}")
        if segment.get("category_id") not in categories:
            problems.append(f"{where}: segment {number}: unknown category_id {segment.get('category_id')!r}")
        if segment.get("iscrowd", 0) not in (0, 1):
            problems.append(f"{where}: segment {number}: iscrowd must be 0 or 1, found {segment['iscrowd']!r}")
    if len({segment.get("id") for segment in info}) != len(info):
        problems.append(f"{where}: a segment id appears twice")
    return problems


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
