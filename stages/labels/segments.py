"""The pictures of COCO panoptic files: maps of segments as PNGs, and the ``segments_info`` that belongs to them.

``panoptic`` has the JSON. A pixel's segment id is R + 256 G + 65536 B, 0 is void.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from pathlib import Path

import cv2
import numpy as np

from stages.labels import rle
from stages.labels.coco import Entry
from stages.labels.images import label_picture
from stages.labels.panoptic import MOST_IDS, VOID
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_path


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


def join_stuff(rows: Sequence[Entry], stuff: Container[int]) -> list[Entry]:
    """COCO annotations in which each class of stuff is one segment of its image; crowds stay apart.

    ``area`` and ``bbox`` follow the joined mask in rows that have an area.
    """
    joined: dict[object, Entry] = {}
    for number, row in enumerate(rows):
        single = row["category_id"] not in stuff or row.get("iscrowd", 0)
        key = number if single else (row["image_id"], row["category_id"])
        if key in joined:
            mask = rle.union([joined[key]["segmentation"], row["segmentation"]])
            row = {**joined[key], "segmentation": mask,
                   **({"area": rle.area(mask), "bbox": rle.bbox(mask)} if "area" in row else {})}
        joined[key] = row
    return list(joined.values())


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
    """Write one image's PNG and give its annotation, for ``panoptic.write_panoptic``.

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
    with label_picture(path, "no such file; every annotation of a panoptic JSON needs its PNG") as picture:
        if picture.mode != "RGB" or picture.size != (size[1], size[0]):
            raise UserError(f"{path}: an RGB PNG of {size[1]} x {size[0]} pixels was expected, found mode "
                            f"{picture.mode} and {picture.width} x {picture.height} pixels")
        rgb = np.array(picture)
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
