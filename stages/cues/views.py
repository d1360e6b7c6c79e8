"""Whole images as tensors, at the size at which a network looks at them."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stages.labels.coco import Entry
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.walk import walk_stage


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 to (3, H, W) uint8."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def read_tensor(path: Path) -> Tensor:
    """An image file as (3, H, W) uint8 RGB."""
    return to_tensor(read_rgb(path))


def read_image(image: Entry) -> Tensor:
    """An image of the data set, from its COCO entry, as (3, H, W) uint8 RGB."""
    return read_tensor(layout.IMAGES / image["file_name"])


def image_size(image: Entry) -> tuple[int, int]:
    """(height, width) of an image of the data set, from its COCO entry [px]."""
    return int(image["height"]), int(image["width"])


walk_images = partial(walk_stage, key=layout.image_key, load=read_image)
"""``runtime.walk.walk_stage`` over COCO images that a network sees whole, as (3, H, W) uint8."""


def view_size(size: tuple[int, int], scale: float = 1.0, max_pixels: float = math.inf) -> tuple[int, int]:
    """Size (height, width) of an image's view at a scale, or at the largest one that leaves it ``max_pixels``."""
    height, width = (max(1, round(side * scale)) for side in size)
    if height * width > max_pixels:
        scale = math.sqrt(max_pixels / (size[0] * size[1]))
        height, width = (max(1, math.floor(side * scale)) for side in size)
    return height, width


def view(image: Tensor, size: tuple[int, int]) -> Tensor:
    """A (3, H, W) uint8 image, or several (B, 3, H, W), at another size (height, width), as float in 0..1, without
    aliasing."""
    values = image.float() / 255
    before = values.shape[-2] * values.shape[-1]
    if size == tuple(values.shape[-2:]):
        return values
    images = values if values.ndim == 4 else values[None]
    shown = functional.interpolate(images, size=size, mode="bilinear", antialias=size[0] * size[1] < before)
    return shown if values.ndim == 4 else shown[0]
