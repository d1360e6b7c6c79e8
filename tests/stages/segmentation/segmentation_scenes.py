"""Small networks and a toy data set for the tests of stages/segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stages.segmentation.labels import category_map, write_semantic_png
from stages.segmentation.settings import SegmentationSettings

NARROW = {"name": "resnet10t", "weights": "none", "arguments": {"channels": [8, 8, 16, 16], "stem_width": 8}}


def settings(architecture: str = "pspnet", stride: int = 8, backbone: dict[str, Any] | None = None,
             **changes: Any) -> SegmentationSettings:
    return SegmentationSettings(**{"architecture": architecture, "decoder_channels": 16,
                                   "backbone": {**NARROW, "stride": stride, **(backbone or {})}, **changes})


def toy_data(folder: Path, category_ids: list[int], count: int = 12, size: tuple[int, int] = (48, 64)
             ) -> list[dict[str, Any]]:
    """Bright rectangles on noise, their colour is their class; a margin is undecided. Writes images/ and labels/."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    images = []
    for number in range(1, count + 1):
        pixels = generator.integers(60, 100, (*size, 3), dtype=np.uint8)
        indices = np.zeros(size, np.int16)
        for index in range(1, len(category_ids) + 1):
            y, x = (int(generator.integers(0, side - 20)) for side in size)
            pixels[y:y + 20, x:x + 20] = 0
            pixels[y:y + 20, x:x + 20, index % 3] = 230
            indices[y:y + 20, x:x + 20] = index
        indices[:, :3] = -1
        name = f"{number}.png"
        cv2.imwrite(str(folder / "images" / name), pixels[..., ::-1])
        write_semantic_png(folder / "labels" / f"{number:012d}.png", category_map(indices, category_ids))
        images.append({"id": number, "file_name": name, "height": size[0], "width": size[1],
                       "tags": sorted({category_ids[index - 1] for index in np.unique(indices) if index > 0})})
    return images
