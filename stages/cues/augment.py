"""Random views of training images; label maps, scores and displacement fields go through the same geometry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np

from stages.cues.settings import AugmentSettings

# The mean colour of ImageNet: what a view shows outside the image.
OUTSIDE = (124, 116, 104)
# Types that OpenCV cannot scale, and what holds their values.
_SCALED_AS = {np.dtype(bool): np.uint8, np.dtype(np.int64): np.int32, np.dtype(np.float16): np.float32}


@dataclass(frozen=True)
class Map:
    """What is known of every pixel of an image, and how it goes through a view's geometry.

    Attributes:
        values: (H, W) or (C, H, W), as high and wide as the image; of vectors (2, H, W), (dy, dx) in pixels.
        kind: "labels" are read from the nearest pixel; "values" bilinearly; "vectors" bilinearly, too, and as they
            are displacements in the view's pixels, they are scaled with it and dx changes its sign under the flip.
        outside: what stands outside the image, e.g. the label that is ignored.
    """

    values: np.ndarray
    kind: Literal["labels", "values", "vectors"] = "labels"
    outside: float = 0


class Geometry(NamedTuple):
    """Where a view shows what: the image is scaled, then mirrored, then shifted [px]."""

    scale_xy: tuple[float, float]
    width: int  # of the scaled image
    flip: bool
    shift_xy: tuple[int, int]

    def boxes(self, xyxy: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) on pixel edges of the image as float64 boxes of the view; they may lie outside it."""
        moved = np.asarray(xyxy, np.float64) * np.tile(self.scale_xy, 2)
        if self.flip:
            moved[:, [0, 2]] = self.width - moved[:, [2, 0]]
        return moved + np.tile(self.shift_xy, 2)


class View(NamedTuple):
    """A view: image (crop, crop, 3) uint8, its maps (..., crop, crop), where it shows the image (crop, crop) bool."""

    image: np.ndarray
    maps: dict[str, np.ndarray]
    inside: np.ndarray
    geometry: Geometry


def random_view(image: np.ndarray, maps: Mapping[str, Map], generator: np.random.Generator,
                settings: AugmentSettings) -> View:
    """A scaled, mirrored and cropped view; what is drawn depends on the image's size, never on the maps.

    Args:
        image: (H, W, 3) uint8 RGB, any size.
        maps: what goes along with the image, by names of the caller's.
        generator: of the randomness.
        settings: see ``AugmentSettings``.

    Returns:
        The view, with the mean colour of ImageNet outside the image; maps keep their type and leading dimensions.

    Raises:
        ValueError: a map that has not the image's size, vectors that are not two, values or vectors of whole numbers.
    """
    height, width = image.shape[:2]
    for name, item in maps.items():
        if item.values.shape[-2:] != (height, width) or (item.kind == "vectors" and item.values.shape[:-2] != (2,)):
            raise ValueError(f"map {name!r} ({item.kind}) has shape {item.values.shape}, the image {image.shape}")
        if item.kind != "labels" and not np.issubdtype(item.values.dtype, np.floating):
            raise ValueError(f"map {name!r} ({item.kind}) has type {item.values.dtype}, a float type was expected")
    if settings.long_side is not None:
        low, high = settings.long_side
        factor = generator.integers(low, high + 1) / max(height, width)
    else:
        factor = generator.uniform(*settings.scale)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if size != (width, height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    flip = settings.flip and bool(generator.random() < 0.5)
    if flip:
        image = image[:, ::-1]
    if settings.jitter > 0:
        image = jitter(image, generator, settings.jitter)

    # A view smaller than the crop lies anywhere in it; a larger one is cut anywhere.
    source, target = [], []
    for length in image.shape[:2]:
        room = settings.crop - length
        offset = int(generator.integers(0, abs(room) + 1))
        count = min(settings.crop, length)
        source.append(slice(0, count) if room >= 0 else slice(offset, offset + count))
        target.append(slice(offset, offset + count) if room >= 0 else slice(0, count))
    view = np.empty((settings.crop, settings.crop, 3), np.uint8)
    view[:] = OUTSIDE
    inside = np.zeros((settings.crop, settings.crop), bool)
    view[target[0], target[1]], inside[target[0], target[1]] = image[source[0], source[1]], True
    cut = {}
    for name, item in maps.items():
        cut[name] = np.full((*item.values.shape[:-2], settings.crop, settings.crop), item.outside, item.values.dtype)
        moved = _resized(item, size)
        if flip:
            moved = _mirrored(moved, item.kind)
        cut[name][..., target[0], target[1]] = moved[..., source[0], source[1]]
    shift = (target[1].start - source[1].start, target[0].start - source[0].start)
    return View(view, cut, inside, Geometry((size[0] / width, size[1] / height), size[0], flip, shift))


def _resized(item: Map, size: tuple[int, int]) -> np.ndarray:
    """A map's values at another size (width, height)."""
    height, width = item.values.shape[-2:]
    if size == (width, height):
        return item.values
    method = cv2.INTER_NEAREST_EXACT if item.kind == "labels" else cv2.INTER_LINEAR
    planes = item.values.reshape(-1, height, width)
    planes = planes.astype(_SCALED_AS.get(planes.dtype, planes.dtype), copy=False)
    resized = np.empty((len(planes), size[1], size[0]), item.values.dtype)
    for plane, result in zip(planes, resized, strict=True):
        result[:] = cv2.resize(plane, size, interpolation=method)
    if item.kind == "vectors":
        resized *= np.array([size[1] / height, size[0] / width], resized.dtype).reshape(2, 1, 1)
    return resized.reshape(*item.values.shape[:-2], size[1], size[0])


def _mirrored(values: np.ndarray, kind: str) -> np.ndarray:
    """A map as the mirror shows it."""
    mirrored = values[..., ::-1]
    return mirrored * np.array([1, -1], values.dtype).reshape(2, 1, 1) if kind == "vectors" else mirrored


def jitter(image: np.ndarray, generator: np.random.Generator, strength: float) -> np.ndarray:
    """Brightness, contrast and saturation, each by a factor in 1 - strength .. 1 + strength."""
    brightness, contrast, saturation = generator.uniform(1 - strength, 1 + strength, size=3)
    values = image.astype(np.float32) * brightness
    values = (values - values.mean()) * contrast + values.mean()
    grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
    values = (values - grey[..., None]) * saturation + grey[..., None]
    return np.clip(values, 0, 255).astype(np.uint8)
