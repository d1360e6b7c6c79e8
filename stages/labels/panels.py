"""The pictures that a method wants shown in the report: a folder of JPEGs and ``panels.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stages.labels.coco import Entry
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.files import atomic_path, read_json, write_json
from stages.runtime.progress import progress
from stages.runtime.work import Work

Panels = list[tuple[str, np.ndarray]]
"""Titles and (H, W, 3) uint8 RGB pictures."""


def gallery_stage(file: str, method: str, draw: Callable[[str, Entry, np.ndarray], Panels], *, inputs: Sequence[Path],
                  parameters: Any, images: int, validation_images: int = 0) -> None:
    """The whole of a stage that draws what a method saw: ``data/<method>/gallery/``.

    Args:
        file: ``__file__`` of the stage's module.
        method: name of the method.
        draw: the panels of an image, from its split ("train" or "val"), its COCO entry and its pixels (H, W, 3).
        inputs: files and folders that ``draw`` reads.
        parameters: settings that it depends on.
        images: how many training images are shown, the first ones.
        validation_images: how many validation images; for methods that label them, too (pseudo_labels_val.json).
    """
    counts = {split: count for split, count in (("train", images), ("val", validation_images)) if count}
    entries = [(split, image) for split, count in counts.items()
               for image in read_json(layout.WEAK[split])["images"][:count]]

    def drawn() -> Iterator[tuple[str, Entry, Panels]]:
        for split, image in progress(entries, len(entries), "gallery"):
            yield split, image, draw(split, image, read_rgb(layout.IMAGES / image["file_name"]))

    with Work(file, [*inputs, layout.IMAGES, *(layout.WEAK[split] for split in counts)],
              [parameters, images, validation_images]) as work:
        write_panels(work.subfolder("gallery"), drawn())
        work.publish({"gallery": layout.method_data(method) / "gallery"})


def write_panels(folder: Path, entries: Iterable[tuple[str, Entry, Panels]]) -> None:
    """Write the panels of some images.

    Args:
        folder: exists.
        entries: split, COCO image and panels of each image, in the order of the report.
    """
    rows = []
    for split, image, panels in entries:
        for number, (title, picture) in enumerate(panels):
            name = f"{split}_{layout.image_key(image)}_{number}.jpg"  # ids may repeat from one split to the other
            with atomic_path(folder / name) as temporary:
                cv2.imwrite(str(temporary), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
            rows.append({"image_id": image["id"], "split": split, "title": title, "picture": name})
    write_json(folder / "panels.json", rows, indent=1)
