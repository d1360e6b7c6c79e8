"""Deciding what becomes of each image file: a hard link, or a conversion to plain RGB, upright or as stored."""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from stages.labels.images import Header, read_header, read_rgb
from stages.prepare.sources import SourceImage, path_problem
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_path


@dataclass(frozen=True)
class Placement:
    """Where an image goes: ``name`` relative to the image folder; ``convert`` to PNG; ``upright``: turn it by EXIF."""

    name: str
    convert: bool = False
    upright: bool = False


def inspect(image: SourceImage, max_pixels: float) -> Header | str:
    """The header of an image, or what is wrong with the file; no pixel is decoded."""
    problem = path_problem(image.folder, image.file_name)
    if problem:
        return f"{image.label}: {problem}"
    try:
        header = read_header(image.path, max_pixels)
    except UserError as error:
        return f"{image.label}: {error}"
    return header


def decide_upright(images: Sequence[SourceImage], headers: Sequence[Header]) -> tuple[list[bool], list[str]]:
    """Whether to turn each image as its EXIF orientation asks, and the sizes that fit neither way.

    Labels refer either to the stored pixels (as in COCO) or to what a viewer shows (as most annotation tools do).
    The stated width and height tell which; where they cannot (square images, orientations that keep the size, no
    stated size) the other images of the same file decide, and if they say nothing, the stored pixels count. Images
    that have tags alone are turned: people look at them upright.
    """
    wanted: list[bool | None] = []
    problems = []
    for image, header in zip(images, headers, strict=True):
        stored, shown = (header.width, header.height), header.upright_size
        stated = (image.width or stored[0], image.height or stored[1])
        if header.orientation == 1 or stored == shown or image.width is None or image.height is None:
            turn = None
            fits = stated == stored or image.width is None or image.height is None
        else:
            turn, fits = stated == shown, stated in (stored, shown)
        if not fits:
            problems.append(f"{image.label}: the file has {stored[0]} x {stored[1]} pixels, width and height say "
                            f"{stated[0]} x {stated[1]}; correct them, or give the image that was labelled")
        wanted.append(False if header.orientation == 1 else turn)
    votes = Counter(turn for turn, header in zip(wanted, headers, strict=True)
                    if turn is not None and header.orientation != 1)
    default = votes[True] > votes[False]
    decided = []
    for image, turn in zip(images, wanted, strict=True):
        tags_only = not image.objects and not image.masks and image.width is None
        decided.append(turn if turn is not None else default or tags_only)
    return decided, problems


def place_names(parts: Mapping[str, Sequence[SourceImage]], headers: Mapping[str, Sequence[Header]],
                upright: Mapping[str, Sequence[bool]]) -> tuple[dict[str, list[Placement]], list[str]]:
    """Names in the one image folder for the images of all parts, and the problems.

    Names stay, with their subfolders; converted files end in .png. Where train and val use one name for two different
    files, all names get the part's name as a first folder.
    """
    placed: dict[str, list[Placement]] = {}
    problems: list[str] = []
    for part, images in parts.items():
        kept = {str(PurePosixPath(image.file_name)) for image in images}
        placed[part] = []
        users: dict[str, SourceImage] = {}
        for image, header, turn in zip(images, headers[part], upright[part], strict=True):
            convert = not header.plain or header.orientation != 1
            placement = Placement(_converted(image.file_name, kept) if convert else str(PurePosixPath(image.file_name)),
                                  convert, turn)
            if len(os.fsencode(PurePosixPath(placement.name).name)) > 255:
                problems.append(f"{image.label}: converted to PNG it needs a longer name, which no file system takes; "
                                f"rename it")
            if placement.name in users:
                problems.append(f"{image.label}: the same file as {users[placement.name].label}; every image once")
            users[placement.name] = image
            placed[part].append(placement)
    # One file may be in both parts; but turned in one and not in the other it becomes two pictures.
    owners: dict[str, tuple[Path, bool]] = {}
    clash = False
    for part, images in parts.items():
        for image, placement in zip(images, placed[part], strict=True):
            written = image.path, placement.upright
            clash |= owners.setdefault(placement.name, written) != written
    if clash:
        placed = {part: [Placement(f"{part}/{item.name}", item.convert, item.upright) for item in items]
                  for part, items in placed.items()}
    return placed, problems


def place_image(image: SourceImage, placement: Placement, folder: Path, copy: bool = False) -> tuple[int, int]:
    """Decode the image fully, put it into ``folder``, and give its (width, height) there.

    Raises:
        UserError: the file is damaged.
    """
    pixels = read_rgb(image.path, upright=placement.upright)
    target = folder / placement.name
    if placement.convert:
        write_png(target, pixels)
    else:
        link_or_copy(image.path, target, copy)
    return pixels.shape[1], pixels.shape[0]


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write RGB uint8 (H, W, 3) as PNG."""
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def link_or_copy(source: Path, target: Path, copy: bool = False) -> None:
    """Hard-link ``source`` (what it points to, if it is a symbolic link); copy where links are not possible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if not copy:
        try:
            os.link(os.path.realpath(source), target)
            return
        except OSError as error:  # another file system, or one without hard links, or not our own file
            logging.getLogger(__name__).debug("%s is copied: %s", source, error)
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _converted(file_name: str, taken: set[str]) -> str:
    """photo.jpg -> photo.png, or photo.jpg.png where photo.png is another image of the part."""
    name = PurePosixPath(file_name)
    png = str(name.with_suffix(".png"))
    return f"{name}.png" if png in taken and png != str(name) else png
