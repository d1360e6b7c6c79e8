"""Random changes of colour, as published code draws them (not in the paper)."""

from __future__ import annotations

import cv2
import numpy as np


def shift_hue(image: np.ndarray, turns: float) -> np.ndarray:
    """Turn the hue of a (H, W, 3) uint8 RGB image by a share of a full turn."""
    if turns == 0:
        return image
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + 360 * turns) % 360
    return np.clip(np.rint(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255), 0, 255).astype(np.uint8)


def change_light(image: np.ndarray, shift: float, factor: float) -> np.ndarray:
    """Brightness plus ``shift`` [0..255], and contrast about the image's mean times ``factor``: (H, W, 3) uint8."""
    values = image.astype(np.float32)
    mean = values.mean()
    return np.clip(np.rint((values - mean) * factor + mean + shift), 0, 255).astype(np.uint8)
