"""Label pictures whose pixels are numbers: palette indices, classes, 16-bit numbers of objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from stages.runtime.errors import UserError


def read_numbers(file: str, modes: Sequence[str], expected: str) -> np.ndarray:
    """The numbers of a single-channel PNG.

    Args:
        file: of the PNG.
        modes: Pillow's modes that will do, or beginnings of them.
        expected: the kind of PNG, for the message.

    Returns:
        (H, W) int32.

    Raises:
        UserError: a missing or damaged file, or another kind of picture.
    """
    try:
        with Image.open(file) as image:
            if not image.mode.startswith(tuple(modes)) or image.mode == "LA":
                raise UserError(f"{file}: {expected} was expected, found mode {image.mode}")
            return np.array(image).astype(np.int32)
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; every image needs its labels") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None


def check_size(file: str, numbers: np.ndarray, width: int, height: int) -> None:
    """Labels must be as large as their image.

    Raises:
        UserError: they are not.
    """
    if numbers.shape != (height, width):
        raise UserError(f"{file}: masks of {numbers.shape[1]} x {numbers.shape[0]} pixels, the image has "
                        f"{width} x {height}")
