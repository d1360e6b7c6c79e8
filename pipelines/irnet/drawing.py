"""Pictures of IRNet's intermediates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipelines.irnet.masks import cells_at
from pipelines.irnet.settings import IGNORE
from stages.labels.coco import Entry
from stages.labels.drawing import faded, flow_colours, heatmap, overlay_categories, overlay_masks
from stages.labels.maps import upsample_cells
from stages.labels.panels import Panels
from stages.runtime import layout
from stages.runtime.files import read_npz


def panels(image: Entry, pixels: np.ndarray, *, folders: Mapping[str, Path], stride: int) -> Panels:
    """Titles and RGB pictures of one image: attention, confident areas, displacement, instances, boundary, walk.

    Args:
        image: COCO image.
        pixels: (H, W, 3) uint8 RGB.
        folders: where ``cams``, ``relations``, ``fields`` and ``walked`` lie.
        stride: image pixels per cell.
    """
    key, size = f"{layout.image_key(image)}.npz", (image["height"], image["width"])
    cams, relations, fields, walked = (read_npz(folders[name] / key)
                                       for name in ("cams", "relations", "fields", "walked"))

    def large(maps: np.ndarray) -> np.ndarray:
        return upsample_cells(np.asarray(maps, np.float32), stride, size)

    def strongest(maps: np.ndarray) -> np.ndarray:
        return large(maps).max(0) if len(maps) else np.zeros(size, np.float32)

    labels = relations["labels"].astype(np.int64)
    undecided = labels == IGNORE
    areas = np.where(undecided, -1, np.concatenate([[0], cams["classes"]])[np.where(undecided, 0, labels)])
    walk = strongest(walked["semantic"])
    shown = np.unique(walked["pairs"][:, 1])
    instances = cells_at(walked["instances"], stride, size)
    return [
        ("attention (CAM)", heatmap(strongest(cams["cams"]), pixels)),
        ("confident areas (grey: undecided)", overlay_categories(faded(pixels), areas, ignore=-1)),
        ("displacement field", flow_colours(large(fields["displacement"]))),
        ("instances found in it", overlay_masks(pixels, [instances == index for index in shown],
                                                [int(index) + 1 for index in shown])),
        ("class boundary", heatmap(large(fields["boundary"][None])[0])),
        ("attention after the walk", heatmap(walk / max(float(walk.max()), 1e-6), pixels)),
    ]
