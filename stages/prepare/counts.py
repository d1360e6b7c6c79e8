"""How many training images a data set lists, for `check`: before `prepare` has read it, and in a second or so."""

from __future__ import annotations

from pathlib import Path

from stages.prepare import coco, kinds, lvis, panoptic
from stages.prepare.settings import DatasetSettings
from stages.runtime.errors import UserError

_CHUNK = 2**24
# By kind: the files and what each image, and nothing else, has in them, so that no JSON of 450 MB must be parsed. Of
# the panoptic format's images and annotations only the images have a height.
_PARTS = {"coco": coco.parts, "lvis": lvis.parts, "panoptic": panoptic.parts}
_KEYS = {"coco": b'"file_name"', "lvis": b'"coco_url"', "panoptic": b'"height"'}


def training_images(dataset: DatasetSettings) -> int:
    """Training images as ``split`` leaves them; ``limit`` and ``budget_seconds`` are not applied.

    Raises:
        UserError: a list that cannot be read; JSON is not looked at closely.
    """
    if dataset.kind == "shapes":
        count = dataset.shapes.train
    elif dataset.kind in _PARTS:
        files = [_PARTS[dataset.kind](dataset)["train"][0]]
        files += [file for file, _ in coco.more_parts(dataset)]
        count = sum(occurrences(file, _KEYS[dataset.kind]) for file in files)
    else:
        count = len(kinds.read(dataset).parts["train"])
    if dataset.split is not None:
        count -= dataset.split if isinstance(dataset.split, int) else round(dataset.split * count)
    return max(count, 0)


def occurrences(file: Path, word: bytes) -> int:
    """How often a file holds a word.

    Raises:
        UserError: it cannot be read.
    """
    count, rest = 0, b""
    try:
        with open(file, "rb") as handle:
            while chunk := handle.read(_CHUNK):
                text = rest + chunk
                count += text.count(word)
                rest = text[max(0, len(text) - len(word) + 1):]  # the start of a word, at most
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from None
    return count
