"""What IRNet learns from: random views of images with their pseudo class maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.irnet.settings import IGNORE
from stages.cues.augment import Map, random_view
from stages.cues.settings import AugmentSettings
from stages.cues.views import to_tensor
from stages.labels.coco import Entry
from stages.labels.images import read_rgb
from stages.labels.maps import shrink_labels
from stages.runtime import layout
from stages.runtime.files import read_npz


class RelatedImages:
    """Random views of images with their pseudo class maps on the grid.

    Args:
        images: COCO images.
        relations: folder of the pseudo class maps at the images' sizes.
        augment: how views are drawn.
        stride: image pixels per cell of the grid.
    """

    def __init__(self, images: Sequence[Entry], relations: Path, augment: AugmentSettings, stride: int) -> None:
        self.images, self.relations, self.augment, self.stride = images, relations, augment, stride

    def __len__(self) -> int:
        return len(self.images)

    def labels(self, image: Entry) -> np.ndarray:
        """(H, W) uint8: 0 background, 1.. classes, 255 what is not confident."""
        return read_npz(self.relations / f"{layout.image_key(image)}.npz")["labels"]

    def sample(self, index: int, generator: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, crop, crop) uint8 and ``labels`` (crop / stride, crop / stride) uint8."""
        image = self.images[index]
        shown = random_view(read_rgb(layout.IMAGES / image["file_name"]),
                            {"labels": Map(self.labels(image), outside=IGNORE)}, generator, self.augment)
        labels = shrink_labels(shown.maps["labels"], self.stride)
        return {"image": to_tensor(shown.image), "labels": torch.from_numpy(labels)}
