"""Masks from a box or extreme points without any learning: what a method has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from stages.cues.crops import crop_window, object_box, paste, points_in_window
from stages.cues.settings import MaskKind
from stages.labels.coco import Entry


def simple_mask(kind: MaskKind, pixels: np.ndarray, item: Entry) -> np.ndarray:
    """Mask of one object without any learning.

    Args:
        kind: the filled box; the four quarter ellipses through the extreme points; GrabCut from the box; GrabCut with
            the extreme points as seeds. Of a box alone an ellipse is the box, and the seeds are none.
        pixels: (H, W, 3) uint8 RGB.
        item: an annotation with extreme points or a box.

    Returns:
        (H, W) bool.
    """
    size, box = (pixels.shape[0], pixels.shape[1]), object_box(item)
    points = item.get("extreme_points", ())
    if kind == "ellipse" and points:
        mask = ellipse_mask(points, size)
        return mask if mask.any() else box_mask(box, size)
    if kind == "grabcut":
        return grabcut_mask(pixels, box)
    if kind == "grabcut_points":
        # Discs, because a lone pixel is soon cut off; smaller ones in small objects.
        radius = min(6.0, (box[2] - box[0]) / 6, (box[3] - box[1]) / 6)
        return grabcut_mask(pixels, box, foreground_xy=points, radius=radius)
    return box_mask(box, size)


def box_mask(box_xyxy: Sequence[float] | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the pixels whose centre lies inside the box; at least the one under its middle."""
    mask = np.zeros(size, bool)
    sides = []
    for low, high, length in ((box_xyxy[1], box_xyxy[3], size[0]), (box_xyxy[0], box_xyxy[2], size[1])):
        first = min(max(int(np.ceil(low - 0.5)), 0), length - 1)
        last = min(max(int(np.ceil(high - 0.5)), 0), length)
        if last <= first:
            first = min(max(int((low + high) / 2), 0), length - 1)
            last = first + 1
        sides.append(slice(first, last))
    mask[sides[0], sides[1]] = True
    return mask


def ellipse_mask(extreme_points: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the four quarter ellipses through neighbouring extreme points (top, left, bottom, right as [x, y]).

    The centre has the row of the middle of left and right, and the column of the middle of top and bottom; each of the
    four points is the end of a half axis.
    """
    top, left, bottom, right = (np.asarray(point, np.float64) for point in extreme_points)
    centre_x, centre_y = (top[0] + bottom[0]) / 2, (left[1] + right[1]) / 2
    rows, columns = np.mgrid[:size[0], :size[1]].astype(np.float64)
    across = np.where(columns < centre_x, max(centre_x - left[0], 0) + 0.5, max(right[0] - centre_x, 0) + 0.5)
    along = np.where(rows < centre_y, max(centre_y - top[1], 0) + 0.5, max(bottom[1] - centre_y, 0) + 0.5)
    return ((columns - centre_x) / across) ** 2 + ((rows - centre_y) / along) ** 2 <= 1


def grabcut_mask(image: np.ndarray, box_xyxy: Sequence[float] | np.ndarray, iterations: int = 5,
                 foreground_xy: Sequence[Sequence[float]] = (), radius: float = 0.0, margin: float = 0.5,
                 longest: int = 192, least: float = 0.15) -> np.ndarray:
    """``grabcut``, and the box itself where that gives nothing: (H, W) bool."""
    found = grabcut(image, box_xyxy, iterations, foreground_xy, radius, margin, longest, least)
    return box_mask(box_xyxy, image.shape[:2]) if found is None else found


def grabcut(image: np.ndarray, box_xyxy: Sequence[float] | np.ndarray, iterations: int = 5,
            foreground_xy: Sequence[Sequence[float]] = (), radius: float = 0.0, margin: float = 0.5,
            longest: int = 192, least: float = 0.15) -> np.ndarray | None:
    """GrabCut from a box: background outside it for certain, foreground inside as the colours and edges have it.

    Args:
        image: (H, W, 3) uint8 RGB.
        box_xyxy: on pixel edges.
        iterations: of GrabCut.
        foreground_xy: points that are foreground for certain.
        radius: of the discs around them that are, too [px].
        margin: how far around the box the image is looked at [share of the box's side].
        longest: the part that is looked at is made no longer than this [px]; time grows with its area.
        least: GrabCut may lose the object altogether; a smaller share of the box than this counts as lost.

    Returns:
        (H, W) bool; none where GrabCut loses the object, or has no background to learn from: a box of a few pixels, or
        of the whole image.
    """
    size = image.shape[:2]
    box = box_mask(box_xyxy, size)
    x0, y0, x1, y1 = crop_window(box_xyxy, size, (margin,) * 4)
    inside = box[y0:y1, x0:x1]
    if inside.all() or inside.sum() < 4:
        return None
    scale = min(1.0, longest / max(x1 - x0, y1 - y0))
    small = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    part = cv2.resize(image[y0:y1, x0:x1], small, interpolation=cv2.INTER_AREA)
    inside = cv2.resize(inside.astype(np.uint8), small, interpolation=cv2.INTER_NEAREST_EXACT) > 0
    labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    for x, y in points_in_window(foreground_xy, (x0, y0, x1, y1), small):
        centre = (min(max(round(x), 0), small[0] - 1), min(max(round(y), 0), small[1] - 1))
        cv2.circle(labels, centre, max(0, round(radius * scale)), cv2.GC_FGD, -1)
    labels[~inside] = cv2.GC_BGD
    if not (labels != cv2.GC_BGD).any() or not (labels == cv2.GC_BGD).any():
        return None
    cv2.setRNGSeed(0)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(part[:, :, ::-1].copy(), labels, (0, 0, 0, 0), background, foreground, iterations,
                cv2.GC_INIT_WITH_MASK)
    found = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.float32)
    mask = (paste(found, (x0, y0, x1, y1), size) >= 0.5) & box
    return mask if mask.sum() >= max(1, least * box.sum()) else None
