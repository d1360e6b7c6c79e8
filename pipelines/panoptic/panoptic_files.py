"""From the segments of images to the files that a method leaves: panoptic PNGs and JSON, semantic maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from stages.labels import rle
from stages.labels.coco import Entry, is_thing
from stages.labels.panoptic import png_folder, write_panoptic
from stages.labels.segments import join_stuff, write_segments
from stages.runtime import layout
from stages.segmentation.labels import IGNORE, id_map, index_table, read_indices, write_semantic_png


def paint_segments(image: Entry, rows: Sequence[Entry]) -> np.ndarray:
    """(H, W) int32: 1 + the row that a pixel belongs to, 0 where none does; where masks overlap, the smaller counts."""
    segments = np.zeros((image["height"], image["width"]), np.int32)
    for number in sorted(range(len(rows)), key=lambda number: -rle.area(rows[number]["segmentation"])):
        segments[rle.decode(rows[number]["segmentation"])] = 1 + number
    return segments


def write_split(path: Path, images: Sequence[Entry], categories: Sequence[Entry], rows: Iterable[Entry],
                semantic: Path | None, background: bool) -> None:
    """Write the panoptic JSON of a split with its PNGs, and its semantic maps.

    Args:
        path: of the JSON; the PNGs lie beside it.
        images: of the split.
        categories: of the data set.
        rows: labels: ``image_id``, ``category_id``, ``segmentation``, ``score``, perhaps ``scores`` and ``iscrowd``.
        semantic: folder of the semantic maps, if they are wanted.
        background: whether what belongs to no segment is background; otherwise it is undecided.
    """
    groups: dict[int, list[Entry]] = {image["id"]: [] for image in images}
    for row in rows:
        groups[row["image_id"]].append(row)
    ids = [category["id"] for category in categories]
    stuff = {category["id"] for category in categories if not is_thing(category)}
    annotations = []
    for image in images:
        own = join_stuff(groups[image["id"]], stuff)
        segments = paint_segments(image, own)
        kept = {"category_id", "iscrowd", "score", "scores"}
        annotations.append(write_segments(png_folder(path), image, segments, [
            {"id": number, **{key: value for key, value in row.items() if key in kept}}
            for number, row in enumerate(own, start=1)]))
        if semantic is not None:
            named = np.array([0 if background else IGNORE, *(row["category_id"] for row in own)])[segments]
            write_semantic_png(semantic / f"{layout.image_key(image)}.png", id_map(named, ids))
    write_panoptic(path, images, categories, annotations)


def undecided_share(folder: Path, images: Sequence[Entry], category_ids: Sequence[int]) -> float:
    """Share of the pixels that the label maps of a folder leave open, 0..1."""
    table = index_table(category_ids)
    opened = pixels = 0
    for image in images:
        labels = read_indices(folder / f"{layout.image_key(image)}.png", (image["height"], image["width"]), table)
        opened += int((labels == IGNORE).sum())
        pixels += labels.size
    return opened / max(pixels, 1)
