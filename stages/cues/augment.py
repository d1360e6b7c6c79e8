"""Random views of training images; label maps and scores go through the same geometry."""

from __future__ import annotations

import cv2
import numpy as np

from stages.cues.settings import AugmentSettings


def random_view(image: np.ndarray, labels: np.ndarray | None, generator: np.random.Generator,
                settings: AugmentSettings, ignore: int = 255) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """A scaled, mirrored and cropped view.

    Args:
        image: (H, W, 3) uint8 RGB, any size.
        labels: (H, W) uint8 label map, or none; scaled by nearest neighbour.
        generator: of the randomness.
        settings: see ``AugmentSettings``.
        ignore: label of what lies outside the image.

    Returns:
        The view (crop, crop, 3) uint8, with the mean colour of ImageNet outside the image; the labels (crop, crop);
        and where the view shows the image (crop, crop), bool.
    """
    height, width = image.shape[:2]
    if settings.long_side is not None:
        low, high = settings.long_side
        factor = generator.integers(low, high + 1) / max(height, width)
    else:
        factor = generator.uniform(*settings.scale)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    if size != (width, height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
        labels = None if labels is None else cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    if settings.flip and generator.random() < 0.5:
        image = image[:, ::-1]
        labels = None if labels is None else labels[:, ::-1]
    if settings.jitter > 0:
        image = jitter(image, generator, settings.jitter)

    # A view smaller than the crop lies anywhere in it; a larger one is cut anywhere.
    starts, places = [], []
    for length in image.shape[:2]:
        room = settings.crop - length
        offset = int(generator.integers(0, abs(room) + 1))
        starts.append(0 if room >= 0 else offset)
        places.append(offset if room >= 0 else 0)
    taken = [min(settings.crop, length) for length in image.shape[:2]]
    source = tuple(slice(start, start + count) for start, count in zip(starts, taken, strict=True))
    target = tuple(slice(place, place + count) for place, count in zip(places, taken, strict=True))
    view = np.empty((settings.crop, settings.crop, 3), np.uint8)
    view[:] = (124, 116, 104)
    inside = np.zeros((settings.crop, settings.crop), bool)
    view[target], inside[target] = image[source], True
    cut = None
    if labels is not None:
        cut = np.full((settings.crop, settings.crop), ignore, labels.dtype)
        cut[target] = labels[source]
    return view, cut, inside


def jitter(image: np.ndarray, generator: np.random.Generator, strength: float) -> np.ndarray:
    """Brightness, contrast and saturation, each by a factor in 1 - strength .. 1 + strength."""
    brightness, contrast, saturation = generator.uniform(1 - strength, 1 + strength, size=3)
    values = image.astype(np.float32) * brightness
    values = (values - values.mean()) * contrast + values.mean()
    grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
    values = (values - grey[..., None]) * saturation + grey[..., None]
    return np.clip(values, 0, 255).astype(np.uint8)
