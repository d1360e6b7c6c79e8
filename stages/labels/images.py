"""Reading photographs of any kind as plain RGB."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from stages.runtime.errors import UserError

_ORIENTATION = 0x0112  # the EXIF tag: 1 is upright, 2 to 4 keep the size, 5 to 8 swap width and height
_PLAIN_FORMATS = ("JPEG", "MPO", "PNG")


@dataclass(frozen=True)
class Header:
    """What an image file says of itself.

    Attributes:
        width, height: of the stored pixels, before any rotation.
        orientation: EXIF orientation, 1 to 8.
        plain: 8-bit RGB without transparency in a format that every consumer reads alike.
    """

    width: int
    height: int
    orientation: int
    plain: bool

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) after the rotation that EXIF asks for."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(path: str | Path, max_pixels: float = math.inf) -> Header:
    """Read size and kind of an image without decoding it.

    Args:
        path: the file.
        max_pixels: an image of more is refused [px]: a small file can ask for all memory.

    Raises:
        UserError: the file is missing, not an image, or too large.
    """
    try:
        with _open(path) as image:
            _check_pixels(path, image.width, image.height, max_pixels)
            deep, may_be_turned = _scan_png(path) if image.format == "PNG" else (False, True)
            orientation = image.getexif().get(_ORIENTATION, 1) if may_be_turned else 1
            orientation = orientation if orientation in range(1, 9) else 1
            plain = (image.format in _PLAIN_FORMATS and image.mode == "RGB" and "transparency" not in image.info
                     and not deep)
            return Header(image.width, image.height, orientation, plain)
    except _Unknown:
        width, height = _tiff_size(path)
        _check_pixels(path, width, height, max_pixels)
        return Header(width, height, 1, False)
    except UserError:
        raise
    except Exception as error:  # Pillow's readers of rare formats raise what they like
        raise _damaged(path, error) from None


@contextmanager
def label_picture(path: str | Path, missing: str) -> Iterator[Image.Image]:
    """Open a picture whose pixels are numbers; whatever goes wrong with it inside the block becomes a sentence.

    Look at ``size`` and ``mode`` before any pixel: a small file can ask for all memory.

    Args:
        path: the file.
        missing: what to say where there is no such file.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with Image.open(path) as image:
            yield image
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: {missing}") from None
    except Exception as error:  # Pillow's decoders raise what they like
        raise UserError(f"{path}: cannot be read as a PNG ({error})") from None


def read_rgb(path: str | Path, upright: bool = False) -> np.ndarray:
    """Read an image as RGB, uint8, (H, W, 3).

    Grey, palette, CMYK and 16-bit files are converted; transparent pixels are shown on white, as a viewer shows them.

    Args:
        path: the file. What ``prepare`` leaves needs no conversion any more.
        upright: turn the pixels as the EXIF orientation asks; otherwise they come as they are stored.

    Raises:
        UserError: the file is missing, not an image, or damaged.
    """
    try:
        with _open(path) as image:
            try:
                image.load()
                if upright:
                    return _to_rgb(ImageOps.exif_transpose(image), path)
                return _to_rgb(image, path)
            except UserError:
                raise
            except Exception as error:  # Pillow's decoders of rare formats raise what they like
                raise _damaged(path, error) from None
    except _Unknown:
        return _read_with_opencv(path)


class _Unknown(Exception):
    """Pillow does not know the format; OpenCV reads 16-bit colour TIFF."""


def _open(path: str | Path) -> Image.Image:
    Image.MAX_IMAGE_PIXELS = None  # large photographs are wanted, not an attack
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such image file") from None
    except UnidentifiedImageError:
        raise _Unknown from None
    except Exception as error:  # as above
        raise UserError(f"{path}: cannot be opened as an image ({error})") from None


def _check_pixels(path: str | Path, width: int, height: int, most: float) -> None:
    if width * height > most:
        raise UserError(f"{path}: {width} x {height} pixels, more than dataset.max_pixels, {most:g}; make it smaller, "
                        f"or raise the limit if there is memory for it")


def _tiff_size(path: str | Path) -> tuple[int, int]:
    """(width, height) of a TIFF that Pillow has no mode for. Nothing else is left to OpenCV, which decodes all of a
    file before it tells its size."""
    try:
        with open(path, "rb") as file:
            directory = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
            file.seek(directory.next)
            directory.load(file)
            return int(directory[TiffImagePlugin.IMAGEWIDTH]), int(directory[TiffImagePlugin.IMAGELENGTH])
    except Exception:  # as above
        raise UserError(f"{path}: not an image that can be read; replace or remove the file") from None


def _damaged(path: str | Path, error: Exception) -> UserError:
    return UserError(f"{path}: the image is damaged ({error}); replace the file")


def _scan_png(path: str | Path) -> tuple[bool, bool]:
    """(16 bits per channel, may hold an orientation) of a PNG, from its chunks.

    Pillow hides the depth, and decodes the whole file when it is asked for EXIF, which may come last.
    """
    with open(path, "rb") as file:
        start = file.read(25)
        deep, at = start[24] > 8, 8
        while True:
            file.seek(at)
            head = file.read(8)
            if len(head) < 8 or head[4:] == b"IEND":
                return deep, False
            if head[4:] in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"):
                return deep, True
            at += 12 + int.from_bytes(head[:4], "big")


def _to_rgb(image: Image.Image, path: str | Path) -> np.ndarray:
    if image.mode == "F":
        raise UserError(f"{path}: floating-point pixels; save it with 8 or 16 bits per channel")
    if image.mode.startswith("I"):  # 16-bit grey; 32-bit integers are how some files carry it
        grey = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[:, :, None], 3, axis=2)
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return np.array(image.convert("RGB"))


def _read_with_opencv(path: str | Path) -> np.ndarray:
    _tiff_size(path)
    try:
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise UserError(f"{path}: not an image that can be read; replace or remove the file")
    return np.ascontiguousarray(pixels[:, :, ::-1])
