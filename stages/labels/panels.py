"""The pictures that a method wants shown in the report: a folder of JPEGs and ``panels.json``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from stages.labels.coco import Entry, read_coco
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.files import atomic_path, write_json
from stages.runtime.progress import progress
from stages.runtime.work import Work

Panels = list[tuple[str, np.ndarray]]
"""Titles and (H, W, 3) uint8 RGB pictures."""


def gallery_stage(file: str, method: str, draw: Callable[[Entry, np.ndarray], Panels], *, inputs: Sequence[Path],
                  parameters: object, images: int, validation_images: int = 0) -> None:
    """The whole of a stage that draws what a method saw: ``data/<method>/gallery/``.

    Args:
        file: ``__file__`` of the stage's module.
        method: name of the method.
        draw: the panels of an image, from its COCO entry, which also has its ``split``, and its pixels (H, W, 3).
        inputs: files and folders that ``draw`` reads.
        parameters: settings that it depends on.
        images: how many training images are shown, the first ones.
        validation_images: how many validation images, by methods that label these, too (pseudo_labels_val.json).
    """
    counts = {split: count for split, count in (("train", images), ("val", validation_images)) if count}
    entries = [{**image, "split": split} for split, count in counts.items()
               for image in read_coco(layout.WEAK[split])["images"][:count]]
    with Work(file, [*inputs, layout.IMAGES, *(layout.WEAK[split] for split in counts)],
              [parameters, images, validation_images]) as work:
        write_panels(work.subfolder("gallery"),
                     ((image, draw(image, read_rgb(layout.IMAGES / image["file_name"])))
                      for image in progress(entries, len(entries), "gallery", most=sum(counts.values()))))
        work.publish({"gallery": layout.method_data(method) / "gallery"})


def write_panels(folder: Path, entries: Iterable[tuple[Entry, Panels]]) -> None:
    """Write the panels of some images.

    Args:
        folder: exists.
        entries: COCO image (of train, unless its ``split`` says otherwise) and its panels, in the order of the report.
    """
    rows = []
    for image, panels in entries:
        split = image.get("split", "train")
        for number, (title, picture) in enumerate(panels):
            # Ids may repeat from one split to the other.
            name = f"{'' if split == 'train' else f'{split}_'}{layout.image_key(image)}_{number}.jpg"
            with atomic_path(folder / name) as temporary:
                cv2.imwrite(str(temporary), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
            rows.append({"image_id": image["id"], "split": split, "title": title, "picture": name})
    write_json(folder / "panels.json", rows, indent=1)
