"""The files of masks that data sets have: palette PNGs, SBD's inst files, pictures of numbers, for data sets in small.

``voc_masks``, ``kitti_masks`` and ``cityscapes_masks`` read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat


def save_picture(path: Path, values: np.ndarray) -> None:
    """(H, W) numbers of 8 or 16 bits as a grey PNG, or (H, W, 3) uint8 RGB in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def save_palette(path: Path, values: np.ndarray) -> None:
    """(H, W) uint8 as a palette PNG: VOC's SegmentationObject and SegmentationClass."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values).convert("P")
    image.putpalette([channel for value in range(256) for channel in (value, 255 - value, value // 2)])
    image.putdata(values.reshape(-1).tolist())
    image.save(path)


def save_inst(path: Path, values: np.ndarray, categories: Sequence[int], compress: bool = False) -> None:
    """SBD's inst file: (H, W) object numbers from 1 on and the class of each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.zeros((1, 1), dtype=[("Segmentation", object), ("Boundaries", object), ("Categories", object)])
    data[0, 0] = (values, np.zeros((2, 1), object), np.array(categories, np.uint8)[:, None])
    savemat(path, {"GTinst": data}, do_compression=compress)
