"""The objects of one image of Pascal VOC 2012 or of the Semantic Boundaries Dataset, from the files of their masks.

Objects come from ``SegmentationObject`` (one value per object) with their class from ``SegmentationClass``, or from
SBD's ``inst/*.mat``. The value 255 (the outline around objects, and what the annotators left open) is void: it belongs
to no object, and mIoU and PQ leave it out. It is no crowd, which would excuse no detection anyway, because a detection
hardly ever lies within an outline, and the AP^r of the papers knows no ignored pixels. SBD has no such value. All other
pixels without an object are background, VOC's only stuff, which is no category. ``difficult`` is a property of the
detection task's boxes; the masks carry no such mark, so every object with a mask counts, as in the papers.
"""

from __future__ import annotations

import numpy as np
from scipy.io import loadmat

from stages.labels import rle as rle_codec
from stages.labels.coco import Entry
from stages.prepare.numbers import check_size, read_numbers
from stages.prepare.sources import SourceImage
from stages.prepare.voc import CLASSES
from stages.runtime.errors import UserError

_VOID = 255


def read_objects(image: SourceImage, width: int, height: int) -> tuple[list[Entry], rle_codec.RLE | None]:
    """The objects of one image: ``category_id``, ``iscrowd`` and ``segmentation`` (RLE), and its void, if it has any.

    Args:
        image: its masks are (SegmentationObject PNG, SegmentationClass PNG), or (SBD inst file,).
        width, height: of the image.

    Raises:
        UserError: a missing or damaged file, masks of another size, an object without a class.
    """
    files = image.masks
    instances, classes = _read_mat(files[0]) if len(files) == 1 else _read_png(files[0], files[1], (width, height))
    check_size(files[0], instances.shape, width, height)
    objects: list[Entry] = []
    for value in np.unique(instances):
        if value in (0, _VOID):
            continue
        category_id = classes.get(int(value), 0)
        if not 1 <= category_id <= len(CLASSES):
            raise UserError(f"{files[-1]}: object {value} has no class from 1 to {len(CLASSES)} (found {category_id})")
        objects.append({"category_id": category_id, "iscrowd": 0, "segmentation": rle_codec.encode(instances == value)})
    void = instances == _VOID
    return objects, rle_codec.encode(void) if len(files) > 1 and void.any() else None


def _read_png(instance_file: str, class_file: str, size: tuple[int, int]) -> tuple[np.ndarray, dict[int, int]]:
    """(H, W) object numbers and object number -> class: the most frequent class among the object's pixels."""
    instances, classes = (read_numbers(file, ("P", "L"), "a palette PNG", size) for file in (instance_file, class_file))
    found = {}
    for value in np.unique(instances):
        inside = classes[(instances == value) & (classes != 0) & (classes != _VOID)]
        found[int(value)] = int(np.bincount(inside).argmax()) if inside.size else 0
    return instances, found


def _read_mat(file: str) -> tuple[np.ndarray, dict[int, int]]:
    """SBD's ``GTinst``: Segmentation holds 1, 2, ... and Categories the class of each."""
    try:
        content = loadmat(file)["GTinst"]
        instances = np.asarray(content["Segmentation"][0, 0])
        categories = np.asarray(content["Categories"][0, 0]).reshape(-1)
        if instances.dtype.kind not in "iub" and not (instances == np.round(instances)).all():
            raise ValueError("Segmentation holds other numbers than whole ones")
        instances = instances.astype(np.int64)
        classes = {number: int(category) for number, category in enumerate(categories, start=1)}
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; every image of the list needs its masks") from None
    except Exception as error:  # SciPy's reader raises what it likes, NotImplementedError for MATLAB 7.3's files too
        raise UserError(f"{file}: cannot be read as an SBD inst file ({error})") from None
    return instances, classes
