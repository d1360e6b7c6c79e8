"""LVIS v1: COCO instance JSON of over a thousand classes, in which no image is labelled for all of them.

Each image says which classes were looked for and are not there (``neg_category_ids``) and of which present ones not
every object is labelled (``not_exhaustive_category_ids``); each class says how frequent it is in the training set. The
evaluation protocol needs all three, so the truth files carry them (Gupta et al. 2019, section 2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from stages.labels.coco import Entry, is_id
from stages.prepare import coco
from stages.prepare.settings import DatasetSettings
from stages.prepare.sources import Source, SourceImage
from stages.runtime.errors import UserError, summarise

FREQUENCIES = ("r", "c", "f")
"""Rare (1 to 10 training images), common (11 to 100), frequent."""
_IDS = ("neg_category_ids", "not_exhaustive_category_ids")


def parts(dataset: DatasetSettings) -> dict[str, tuple[Path, Path]]:
    """part -> (JSON file, folder that holds COCO's train2017 and val2017; the root itself unless settings differ)."""
    return coco.part_paths(dataset, "lvis_v1_train.json", "lvis_v1_val.json", ".")


def needed_paths(dataset: DatasetSettings) -> list[Path]:
    """Root, JSON files and image folders."""
    return [Path(dataset.root), *(path for part in parts(dataset).values() for path in part)]


def read(dataset: DatasetSettings) -> Source:
    """Read and check the JSON files.

    Raises:
        UserError: a missing file or folder, JSON that is not COCO, or without what LVIS adds to it.
    """
    return coco.read_parts(parts(dataset), _image, _adapt)


def _image(image: Entry, annotations: list[Entry], folder: Path) -> SourceImage:
    negative, not_exhaustive = (tuple(sorted(set(image[key]))) for key in _IDS)
    return replace(coco.read_image(image, annotations, folder), negative=negative, not_exhaustive=not_exhaustive)


def _adapt(content: object, file: Path) -> None:
    """Name the images as COCO does, and check what LVIS adds. What is no COCO at all is left to ``validate_coco``."""
    known = {category["id"] for category in _entries(content, "categories") if is_id(category.get("id"))}
    problems = [problem for image in _entries(content, "images") for problem in _image_problems(image, known)]
    problems += [f"category {category.get('id')}: frequency must be r, c or f, found {category.get('frequency')!r:.80}"
                 for category in _entries(content, "categories") if category.get("frequency") not in FREQUENCIES]
    if problems:
        raise UserError(summarise(problems, f"{file}: {len(problems)} problem(s) with what LVIS adds to COCO; correct "
                                            f"the file, or set dataset.kind: coco for plain COCO JSON:"))


def _entries(content: object, key: str) -> Iterator[Entry]:
    values = content.get(key) if isinstance(content, dict) else None
    return (value for value in values if isinstance(value, dict)) if isinstance(values, list) else iter(())


def _image_problems(image: Entry, known: set[int]) -> list[str]:
    """What is wrong with one image; it gets its ``file_name``.

    LVIS names an image by its address alone. The last two parts of it are folder and file, and they are needed: images
    of LVIS's val lie in COCO's train2017 too.
    """
    where = f"image {image.get('id')!s:.80}"
    problems = []
    if "coco_url" in image or "file_name" not in image:
        url = image.get("coco_url")
        place = _place(url) if isinstance(url, str) else ()
        if len(place) == 2 and "/" not in place:
            image["file_name"] = "/".join(place)
        else:
            problems.append(f"{where}: coco_url must end in folder and file, as in "
                            f"http://images.cocodataset.org/train2017/000000391895.jpg; found {url!r:.200}")
    for key in _IDS:
        ids = image.get(key)
        if not isinstance(ids, list):
            problems.append(f"{where}: {key} must be a list of category ids, found {ids!r:.80}")
        else:
            problems += [f"{where}: unknown category {item!r:.80} in {key}" for item in ids
                         if not is_id(item) or item not in known]
    return problems


def _place(url: str) -> tuple[str, ...]:
    """Folder and file of an address; nothing where it is none."""
    try:
        return PurePosixPath(urlsplit(url).path).parts[-2:]
    except ValueError:
        return ()
