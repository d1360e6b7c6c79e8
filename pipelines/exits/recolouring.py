"""Colours of the student's view (section 4.1: as MAL)."""

from __future__ import annotations

import cv2
import numpy as np

from pipelines.exits.settings import StudentSettings

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def recoloured(view: np.ndarray, generator: np.random.Generator, settings: StudentSettings) -> np.ndarray:
    """A view with other colours, without colours or blurred, each by chance.

    Args:
        view: (H, W, 3) uint8 RGB.
        generator: of the chance.
        settings: how often and how much.

    Returns:
        (H, W, 3) uint8, another array or the same.
    """
    if generator.random() < settings.chance:
        brightness, contrast, saturation = (
            generator.uniform(1 - most, 1 + most)
            for most in (settings.brightness, settings.contrast, settings.saturation))
        view = shifted(view, brightness, contrast, saturation, generator.uniform(-settings.hue, settings.hue))
    if generator.random() < settings.grey:
        values = view.astype(np.float32) @ _GREY
        view = np.rint(values).astype(np.uint8)[..., None].repeat(3, axis=-1)
    if generator.random() < settings.blur:
        view = cv2.GaussianBlur(view, (0, 0), generator.uniform(*settings.blur_width))
    return view


def shifted(view: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """Change brightness, contrast, saturation and hue, in this order; what leaves 0..255 is cut off each time.

    Args:
        view: (H, W, 3) uint8 RGB.
        brightness: factor on all values.
        contrast: factor on their difference from the mean of the greys.
        saturation: factor on their difference from each pixel's grey.
        hue: turns that are added, -0.5 to 0.5.
    """
    values = np.clip(view.astype(np.float32) * np.float32(brightness / 255), 0, 1)
    mean = float((values @ _GREY).mean())
    values = np.clip(mean + (values - mean) * np.float32(contrast), 0, 1)
    grey = (values @ _GREY)[..., None]
    values = np.clip(grey + (values - grey) * np.float32(saturation), 0, 1)
    hsv = cv2.cvtColor(values, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * hue)) % 360
    return np.rint(255 * np.clip(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), 0, 1)).astype(np.uint8)
