"""Label pictures whose pixels are numbers: palette indices, classes, 16-bit numbers of objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from stages.runtime.errors import UserError


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
    try:
        with Image.open(file) as image:
            check_size(file, (image.height, image.width), *size)
            if not image.mode.startswith(tuple(modes)) or image.mode == "LA":
                raise UserError(f"{file}: {expected} was expected, found mode {image.mode}")
            return np.array(image).astype(np.int32)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; every image needs its labels") from None
    except Exception as error:  # Pillow's decoders raise what they like
        raise UserError(f"{file}: cannot be read ({error})") from None


def check_size(file: str, shape: Sequence[int], width: int, height: int) -> None:
    """Labels of a shape (H, W) must be as large as their image.

    Raises:
        UserError: they are not.
    """
    if tuple(shape) != (height, width):
        raise UserError(f"{file}: masks of {shape[1]} x {shape[0]} pixels, the image has {width} x {height}")
