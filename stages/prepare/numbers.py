"""Label pictures whose pixels are numbers: palette indices, classes, 16-bit numbers of objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stages.labels.images import label_picture
from stages.runtime.errors import UserError

_LARGEST = 65535  # a TIFF under the name of a PNG may hold 32 bits, and tables are as long as the largest number


def read_numbers(file: str, modes: Sequence[str], expected: str, size: tuple[int, int]) -> np.ndarray:
    """The numbers of a single-channel PNG.

    Args:
        file: of the PNG.
        modes: Pillow's modes that will do, or beginnings of them.
        expected: the kind of PNG, for the message.
        size: (width, height) of the image that it belongs to, looked at before any pixel is decoded.

    Returns:
        (H, W) int32.

    Raises:
        UserError: a missing or damaged file, another kind of picture, or another size.
    """
    with label_picture(file, "no such file; every image needs its labels") as image:
        check_size(file, (image.height, image.width), *size)
        if not image.mode.startswith(tuple(modes)) or len(image.getbands()) > 1:
            raise UserError(f"{file}: {expected} was expected, found mode {image.mode}")
        values = np.array(image).astype(np.int32)
    if values.min(initial=0) < 0 or values.max(initial=0) > _LARGEST:
        raise UserError(f"{file}: numbers from 0 to {_LARGEST} were expected, found {values.min()} to {values.max()}")
    return values


def check_size(file: str, shape: Sequence[int], width: int, height: int) -> None:
    """Labels of a shape (H, W) must be as large as their image.

    Raises:
        UserError: they are not.
    """
    if tuple(shape) != (height, width):
        found = " x ".join(map(str, shape[::-1])) or "no"
        raise UserError(f"{file}: masks of {found} pixels, the image has {width} x {height}")
