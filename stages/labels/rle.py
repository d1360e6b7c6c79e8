"""Run-length encoded masks, COCO's way: column-major runs, first the background's, packed into a string.

An RLE here is always ``{"size": [height, width], "counts": str}``, which JSON can hold as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from stages.runtime.files import is_finite

RLE = dict[str, Any]

LARGEST_IMAGE = 2**31 - 1  # pixels: pycocotools counts them in 32 bits
GROUPS = 7  # of five bits, as many as 32 bits take; pycocotools shifts longer ones out of its memory


def encode(mask_hw: np.ndarray) -> RLE:
    """Encode one mask (H, W); every value but 0 belongs to it."""
    if mask_hw.ndim != 2:
        raise ValueError(f"a mask of shape (H, W) was expected, found {mask_hw.shape}")
    return _as_text(coco_mask.encode(np.asfortranarray(mask_hw != 0, dtype=np.uint8)))


def decode(rle: RLE) -> np.ndarray:
    """Decode into a bool mask (H, W)."""
    return np.ascontiguousarray(coco_mask.decode(dict(rle))).astype(bool)


def area(rle: RLE) -> int:
    """Number of pixels."""
    return int(coco_mask.area(dict(rle)))


def union(masks: Sequence[RLE]) -> RLE:
    """All pixels that any of some masks of one image holds."""
    return _as_text(coco_mask.merge([dict(mask) for mask in masks]))


def bbox(rle: RLE) -> list[int]:
    """Smallest box [x, y, width, height] around the mask, in whole pixels; [0, 0, 0, 0] for an empty mask."""
    return [int(value) for value in coco_mask.toBbox(dict(rle))]


def from_box(box_xywh: Sequence[float], height: int, width: int) -> RLE:
    """The pixels of a box [x, y, width, height] in an image of ``height`` x ``width`` pixels.

    Raises:
        ValueError: a box of no number, or too far outside.
    """
    x, y, w, h = box_xywh
    return from_segmentation([[x, y, x + w, y, x + w, y + h, x, y + h]], height, width)


def from_segmentation(segmentation: object, height: int, width: int) -> RLE:
    """COCO's ``segmentation`` in any of its three forms -> RLE of an image of ``height`` x ``width`` pixels.

    Polygons (several are the parts of one object) are cut at the image's border; those of fewer than three corners
    enclose nothing and are left out, as Detectron2 does. A polygon list may so give an empty mask.

    Raises:
        ValueError: what is wrong with the segmentation, as the end of a sentence.
    """
    if isinstance(segmentation, Mapping):
        return _from_runs(segmentation, height, width)
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        raise ValueError("segmentation is neither polygons nor an RLE")
    polygons = [_checked_polygon(polygon) for polygon in segmentation]
    polygons = [polygon for polygon in polygons if len(polygon) >= 6]
    for polygon in polygons:
        _check_corners(polygon, height, width)
    if not polygons:
        return encode(np.zeros((height, width), np.uint8))
    return _as_text(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))


def problem(segmentation: object, height: int, width: int) -> str | None:
    """What is wrong with a compressed RLE of an image of ``height`` x ``width`` pixels, or None.

    pycocotools reads and writes beyond its memory, or never ends, where the runs do not fill the image. It is asked of
    every mask that is read from a file, so it is done by array: some 15 us a mask.
    """
    if not isinstance(segmentation, Mapping) or not isinstance(segmentation.get("counts"), str):
        return "the segmentation is not a compressed RLE"
    size, counts = segmentation.get("size"), segmentation["counts"]
    if not _is_size(size, height, width):
        return f"RLE size {size} is not the image's [height, width] = [{height}, {width}]"
    if height * width > LARGEST_IMAGE:
        return f"an image of {height} x {width} pixels is too large for an RLE"
    try:
        codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    except UnicodeEncodeError:
        return "RLE counts hold characters that an RLE has not"
    if codes.size == 0:
        return f"RLE counts cover 0 pixels, the image has {height} x {width} = {height * width}"
    if codes.min() < 0 or codes.max() > 63:
        return "RLE counts hold characters that an RLE has not"
    last = np.flatnonzero(codes & 32 == 0)
    if not last.size or last[-1] != codes.size - 1:
        return "RLE counts end within a number"
    starts = np.concatenate([[0], last[:-1] + 1])
    if int((last - starts).max()) >= GROUPS:
        return f"RLE counts hold a number of more than {GROUPS} characters"
    place = np.arange(codes.size) - np.repeat(starts, last - starts + 1)
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    values -= np.where(codes[last] & 16, 1 << (5 * (last - starts + 1)), 0)
    # From the fourth number on each is the difference to the one two places before.
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    if runs.min() < 0:
        return "RLE counts hold a run below 0"
    if runs[1:].size and runs[1:].min() == 0:
        return "RLE counts hold an empty run after the first, which no writer of masks leaves"
    if int(runs.sum()) != height * width:
        return f"RLE counts cover {int(runs.sum())} pixels, the image has {height} x {width} = {height * width}"
    return None


def unpack_counts(counts: str) -> list[int]:
    """The run lengths that a compressed ``counts`` string holds.

    Each number is written in groups of five bits, lowest first, sign-extended, bit 6 marking that more follow,
    in characters from ``0`` on; from the fourth number on it is the difference to the number two places before.

    Raises:
        ValueError: the string holds other characters or ends within a number.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        if shift == 5 * GROUPS:
            raise ValueError(f"RLE counts hold a number of more than {GROUPS} characters")
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"RLE counts hold the character {character!r}")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("RLE counts end within a number")
    return runs


def _from_runs(segmentation: Mapping[str, object], height: int, width: int) -> RLE:
    """An RLE, compressed or not, checked: pycocotools reads beyond its memory where the runs do not fill the image."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not _is_size(size, height, width):
        raise ValueError(f"RLE size {size} is not the image's [height, width] = [{height}, {width}]")
    if height * width > LARGEST_IMAGE:
        raise ValueError(f"an image of {height} x {width} pixels is too large for an RLE")
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", errors="replace")
    packed = isinstance(counts, str)
    if isinstance(counts, (str, list)) and len(counts) > 2 * GROUPS * (height * width + 1):
        raise ValueError(f"RLE counts are longer than any of an image of {height} x {width} pixels")
    runs = unpack_counts(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(isinstance(run, int) and not isinstance(run, bool) and run >= 0
                                             for run in runs):
        raise ValueError("RLE counts are neither a string nor a list of numbers from 0 on")
    if sum(runs) != height * width:
        raise ValueError(f"RLE counts cover {sum(runs)} pixels, the image has {height} x {width} = {height * width}")
    if packed and 0 not in runs[1:]:
        return {"size": [height, width], "counts": counts}
    return _as_text(coco_mask.frPyObjects({"size": [height, width], "counts": joined(runs)}, height, width))


def joined(runs: Sequence[int]) -> list[int]:
    """The same mask without runs of length 0 but for the first: pycocotools takes such a run for the end of a mask when
    it joins or compares masks, and counts its column into the box."""
    kept = [runs[0]]
    for number, run in enumerate(runs[1:], start=1):
        if run == 0:
            continue
        if (len(kept) - 1) % 2 == number % 2:
            kept[-1] += run
        else:
            kept.append(run)
    return kept


def _is_size(size: object, height: int, width: int) -> bool:
    return isinstance(size, Sequence) and not isinstance(size, str) and list(size) == [height, width] \
        and all(type(side) is int for side in size)


def _checked_polygon(polygon: object) -> list[float]:
    if not isinstance(polygon, Sequence) or isinstance(polygon, str) or not all(map(is_finite, polygon)):
        raise ValueError("a polygon is not a list of numbers [x1, y1, x2, y2, ...]")
    if len(polygon) % 2:
        raise ValueError(f"a polygon has an odd number of coordinates ({len(polygon)})")
    return [float(value) for value in polygon]


def _check_corners(polygon: Sequence[float], height: int, width: int) -> None:
    """Polygons may hang over the border by up to the image's longer side; pycocotools walks along all of each edge."""
    most = max(height, width)
    for x, y in zip(polygon[::2], polygon[1::2], strict=True):
        if not (-most <= x <= width + most and -most <= y <= height + most):
            raise ValueError(f"a polygon has the corner ({x:g}, {y:g}), far outside the image of {width} x {height} "
                             f"pixels")


def _as_text(packed: RLE) -> RLE:
    counts = packed["counts"]
    return {"size": [int(side) for side in packed["size"]],
            "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}
