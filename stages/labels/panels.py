"""The pictures that a method wants shown in the report: a folder of JPEGs and ``panels.json``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from stages.labels.coco import Entry
from stages.runtime import layout
from stages.runtime.files import atomic_path, write_json


def write_panels(folder: Path, entries: Iterable[tuple[Entry, list[tuple[str, np.ndarray]]]]) -> None:
    """Write the panels of some images.

    Args:
        folder: exists.
        entries: COCO image and its (title, (H, W, 3) uint8 RGB picture) panels, in the order of the report.
    """
    rows = []
    for image, panels in entries:
        for number, (title, picture) in enumerate(panels):
            name = f"{layout.image_key(image)}_{number}.jpg"
            with atomic_path(folder / name) as temporary:
                cv2.imwrite(str(temporary), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
            rows.append({"image_id": image["id"], "title": title, "picture": name})
    write_json(folder / "panels.json", rows, indent=1)
