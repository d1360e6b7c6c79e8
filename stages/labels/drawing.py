"""Pictures of labels and of what networks say: overlays, heat maps, displacement fields. RGB uint8 throughout."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

WHITE = (255, 255, 255)
DARK = (20, 20, 24)
IGNORED = (150, 150, 150)
TALLEST = 4
"""Height of a picture over its width, at most."""


def category_colour(category_id: int) -> tuple[int, int, int]:
    """A colour (R, G, B) of 0..255 for a category; neighbouring ids get hues far apart, and -1 (none) black."""
    if category_id < 0:
        return (0, 0, 0)
    # Steps of the golden ratio spread hues evenly for any number of ids; two rings of brightness tell near hues apart.
    hue = (0.58 + 0.6180339887 * category_id) % 1.0
    saturation, value = ((0.75, 0.95), (0.95, 0.72))[category_id // 8 % 2]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def enlarge(image: np.ndarray, width: int) -> np.ndarray:
    """Scale (H, W, 3) to ``width`` pixels, in proportion: smaller by areas, larger by cubics.

    What would be more than TALLEST times as high as wide becomes narrower instead: a strip of 4 x 1600 pixels would
    fill the report, and the memory.
    """
    tallest = TALLEST * width
    width = max(1, min(width, round(tallest * image.shape[1] / image.shape[0])))
    height = max(1, min(tallest, round(image.shape[0] * width / image.shape[1])))
    if (height, width) == image.shape[:2]:
        return image.copy()
    method = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=method))


def enlarge_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale a mask (h, w) to ``size`` (H, W) without inventing values; bool."""
    return cv2.resize(np.asarray(mask, np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST_EXACT) > 0


def faded(image: np.ndarray, colour: float = 0.3) -> np.ndarray:
    """Take most of the colour out of (H, W, 3), so that the colours of labels stand out; ``colour`` 0..1 stays."""
    grey = image.mean(axis=2, keepdims=True)
    return np.rint(colour * image + (1 - colour) * grey).astype(np.uint8)


def overlay_masks(image: np.ndarray, masks: Sequence[np.ndarray] | np.ndarray,
                  category_ids: Sequence[int] | None = None, opacity: float = 0.5) -> np.ndarray:
    """Tint masks and draw their outlines; the first masks end up on top.

    Args:
        image: (H, W, 3) uint8.
        masks: N masks (H, W); there may be none.
        category_ids: N ids that choose the hue; without them every mask has its own.
        opacity: of the tint, 0..1; outlines are solid.

    Returns:
        (H, W, 3) uint8.
    """
    picture = np.array(image)
    categories = list(category_ids) if category_ids is not None else list(range(1, len(masks) + 1))
    thickness = max(1, round(image.shape[1] / 240))
    for mask, category in reversed(list(zip(masks, categories, strict=True))):
        chosen = np.asarray(mask, bool)
        colour = category_colour(category)
        picture[chosen] = np.rint((1 - opacity) * picture[chosen] + opacity * np.array(colour)).astype(np.uint8)
        outlines = cv2.findContours(chosen.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]
        # Dark under coloured: the line shows on any background and parts touching objects of one class.
        cv2.drawContours(picture, outlines, -1, DARK, thickness + 1)
        cv2.drawContours(picture, outlines, -1, tuple(min(255, part + 70) for part in colour), thickness)
    return picture


def overlay_categories(image: np.ndarray, labels: np.ndarray, opacity: float = 0.6, ignore: int = 255) -> np.ndarray:
    """Tint a semantic map (H, W) of category ids onto an image; background stays, ``ignore`` becomes grey."""
    picture = np.array(image)
    for category in np.unique(labels):
        if category == 0:
            continue
        chosen = labels == category
        colour = np.array(IGNORED if category == ignore else category_colour(int(category)))
        picture[chosen] = np.rint((1 - opacity) * picture[chosen] + opacity * colour).astype(np.uint8)
    return picture


def heatmap(values: np.ndarray, image: np.ndarray | None = None, low: float = 0.0, high: float = 1.0,
            opacity: float = 0.65) -> np.ndarray:
    """Colour a map (h, w): dark for ``low``, bright yellow for ``high`` and above; NaN counts as ``low``.

    Args:
        values: (h, w) float.
        image: (H, W, 3) uint8 to lay the colours on; the map is scaled to its size.
        low, high: range of values, e.g. 0 and 1 for a CAM of which the maximum is 1.
        opacity: of the colours on the image, 0..1.

    Returns:
        (h, w, 3) uint8, or (H, W, 3) with an image.
    """
    if high <= low:
        raise ValueError(f"high ({high}) must be above low ({low})")
    scaled = np.clip((np.nan_to_num(np.asarray(values, np.float32), nan=low) - low) / (high - low), 0.0, 1.0)
    if image is not None:
        scaled = cv2.resize(scaled, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap(np.rint(255 * scaled).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    if image is None:
        return np.ascontiguousarray(colours)
    grey = image.mean(axis=2, keepdims=True)
    return np.rint((1 - opacity) * grey + opacity * colours).astype(np.uint8)


def flow_colours(displacement_yx: np.ndarray, longest: float | None = None) -> np.ndarray:
    """Colour a displacement field: hue is the direction, white means no displacement, full colour the longest one.

    Rightwards is red; downwards, leftwards and upwards follow at quarter turns of the colour wheel.

    Args:
        displacement_yx: (2, H, W) float, displacement down and to the right.
        longest: length that gets full colour; by default the field's longest.

    Returns:
        (H, W, 3) uint8.
    """
    down, right = np.nan_to_num(np.asarray(displacement_yx, np.float32))
    length = np.hypot(down, right)
    full = float(longest) if longest is not None else float(length.max(initial=0.0))
    saturation = np.clip(length / full, 0, 1) if full > 0 else np.zeros_like(length)
    hue = np.degrees(np.arctan2(down, right)) % 360.0
    coloured = np.stack([hue, saturation, np.ones_like(hue)], axis=-1).astype(np.float32)
    return np.rint(255 * cv2.cvtColor(coloured, cv2.COLOR_HSV2RGB)).astype(np.uint8)


def draw_point(picture: np.ndarray, point_xy: tuple[float, float], colour: tuple[int, int, int]) -> None:
    """Draw a ringed dot in place; pixel centres lie on integers."""
    radius = max(3, round(picture.shape[1] / 70))
    centre = (round(point_xy[0]), round(point_xy[1]))
    cv2.circle(picture, centre, radius + 2, DARK, -1, cv2.LINE_AA)
    cv2.circle(picture, centre, radius + 1, WHITE, -1, cv2.LINE_AA)
    cv2.circle(picture, centre, radius - 1, colour, -1, cv2.LINE_AA)


def draw_box(picture: np.ndarray, box_xywh: Sequence[float], colour: tuple[int, int, int]) -> None:
    """Draw a box in place, on the outermost pixels that belong to it."""
    x, y, width, height = box_xywh
    corners = (round(x), round(y)), (round(x + width - 1), round(y + height - 1))
    thickness = max(1, round(picture.shape[1] / 160))
    cv2.rectangle(picture, *corners, DARK, thickness + 2)
    cv2.rectangle(picture, *corners, colour, thickness)
