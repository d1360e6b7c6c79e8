"""COCO panoptic files: every pixel belongs to one segment, an instance of a thing or all of a class of stuff. This
module has their JSON, ``segments`` their pictures.

A JSON (``images``, ``categories`` with ``isthing``, ``annotations``) lies beside a folder of its name with one PNG per
image: panoptic.json and panoptic/. A pixel's segment id is R + 256 G + 65536 B, 0 is void; an annotation lists its
image's ``segments_info``: ``id``, ``category_id``, ``area``, ``bbox`` [x, y, width, height] and ``iscrowd``.
Predictions carry ``score`` too, or several by name in ``scores``, by which AP may rank them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stages.labels.coco import Entry, check_lists, image_entries, is_id, is_text, is_thing
from stages.runtime.errors import UserError, summarise
from stages.runtime.files import is_finite, read_json, write_json

VOID = 0
"""Segment id of pixels that belong to no segment."""
MOST_IDS = 256 ** 3
"""Ids are below this: three bytes."""


def write_panoptic(path: Path, images: Iterable[Entry], categories: Sequence[Entry], annotations: Iterable[Entry],
                   info: Entry | None = None) -> None:
    """Write the JSON of a panoptic file.

    Args:
        path: its PNGs lie in the folder of this name without ``.json``.
        images: COCO images.
        categories: the input's, with ``isthing``.
        annotations: of ``segments.write_segments``, one per image.
        info: the file's ``info``.

    Raises:
        ValueError: what no reader should ever see: a defect of the stage that made it.
    """
    content: Entry = {
        "info": dict(info or {}), "images": image_entries(images),
        "categories": [{**category, "isthing": int(is_thing(category))} for category in categories],
        "annotations": sorted(annotations, key=lambda annotation: annotation["image_id"])}
    problems = _problems(content)
    stuff = {category["id"] for category in content["categories"] if not category["isthing"]}
    for annotation in content["annotations"]:
        shown = [segment["category_id"] for segment in annotation["segments_info"] if segment["category_id"] in stuff]
        if len(shown) != len(set(shown)):
            problems.append(f"image {annotation['image_id']}: two segments of one class of stuff")
    if problems:
        raise ValueError(summarise(problems, f"{path}: not COCO panoptic:"))
    write_json(path, content)


def read_panoptic(path: Path) -> Entry:
    """Read the JSON of a panoptic file and check its structure; no PNG is opened.

    Raises:
        UserError: missing, not JSON or not COCO panoptic; up to ten problems in one message.
    """
    content = read_json(path)
    problems = _problems(content)
    if problems:
        raise UserError(summarise(problems, f"{path}: {len(problems)} problem(s); COCO panoptic JSON was expected:"))
    return content


def png_folder(path: Path) -> Path:
    """The folder of the PNGs of a panoptic JSON: its name without ``.json``."""
    return path.with_suffix("")


def _problems(content: object) -> list[str]:
    """What is wrong with the content of a panoptic JSON."""
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list)
                                                for key in ("images", "annotations", "categories")):
        return ["an object with the lists images, annotations and categories was expected"]
    problems: list[str] = []
    images, categories = check_lists(content, problems)
    problems += [f"category {number}: isthing must be 0 or 1, and there is none"
                 for number, category in categories.items() if "isthing" not in category]
    seen: set[object] = set()
    for annotation in content["annotations"]:
        number = annotation.get("image_id") if isinstance(annotation, dict) else None
        if not is_id(number) or number not in images or number in seen:
            problems.append(f"annotation of image {number!r:.80}: no such image, or a second annotation of it")
            continue
        seen.add(number)
        problems += _annotation_problems(annotation, categories)
    return problems


def _annotation_problems(annotation: Entry, categories: Mapping[int, Entry]) -> list[str]:
    where, name, info = f"image {annotation['image_id']}", annotation.get("file_name"), annotation.get("segments_info")
    if not isinstance(name, str) or not is_text(name) or Path(name).is_absolute() or ".." in Path(name).parts:
        return [f"{where}: file_name must name a PNG below the folder, found {name!r:.80}"]
    if not isinstance(info, list) or not all(isinstance(segment, dict) for segment in info):
        return [f"{where}: segments_info must be a list of objects"]
    problems = []
    for segment in info:
        number = segment.get("id")
        if not is_id(number) or not 0 < number < MOST_IDS:
            problems.append(f"{where}: segment ids are whole numbers from 1 to {MOST_IDS - 1}, found {number!r:.80}")
            continue
        category = segment.get("category_id")
        if not is_id(category) or category not in categories:
            problems.append(f"{where}: segment {number}: unknown category_id {category!r:.80}")
        if segment.get("iscrowd", 0) not in (0, 1):
            problems.append(f"{where}: segment {number}: iscrowd must be 0 or 1, found {segment['iscrowd']!r:.80}")
        scores = segment.get("scores", {})
        if not isinstance(scores, dict) or not all(map(is_finite, [segment.get("score", 0), *scores.values()])):
            problems.append(f"{where}: segment {number}: score and scores must be numbers")
    if not problems and len({segment["id"] for segment in info}) != len(info):
        problems.append(f"{where}: a segment id appears twice")
    return problems
