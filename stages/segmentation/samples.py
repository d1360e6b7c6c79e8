"""Training samples: random views of images with their semantic labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stages.cues.augment import Map, random_view
from stages.cues.settings import AugmentSettings
from stages.cues.views import to_tensor
from stages.labels.coco import Entry
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.errors import UserError, summarise
from stages.segmentation.labels import IGNORE, index_table, read_indices


class LabelledImages:
    """Random views of images with their class indices.

    Args:
        images: COCO image entries.
        pictures: folder of the images.
        labels: folder of the semantic PNGs, named by ``layout.image_key``.
        category_ids: of the classes 1, 2, ...
        augment: how views are drawn; what lies outside an image is ignored.

    Raises:
        UserError: no images at all, or label maps that are missing.
    """

    def __init__(self, images: Sequence[Entry], pictures: Path, labels: Path, category_ids: Sequence[int],
                 augment: AugmentSettings) -> None:
        self.images, self.pictures, self.labels, self.augment = list(images), pictures, labels, augment
        self.table = index_table(category_ids)
        if not self.images:
            raise UserError(f"{labels}: there is no image to train a segmentation network on")
        missing = [f"image {image['id']}: {self.label_path(image)}" for image in self.images
                   if not self.label_path(image).exists()]
        if missing:
            raise UserError(summarise(missing, f"{labels}: {len(missing)} of {len(self.images)} label maps are missing "
                                               f"(one PNG per image, named by its id in twelve digits):"))

    def label_path(self, image: Entry) -> Path:
        """Of an image's semantic PNG."""
        return self.labels / f"{layout.image_key(image)}.png"

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int, generator: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, crop, crop) uint8 and ``labels`` (crop, crop) int16, class indices or IGNORE."""
        image = self.images[index]
        pixels = read_rgb(self.pictures / image["file_name"])
        labels = read_indices(self.label_path(image), pixels.shape[:2], self.table)
        view = random_view(pixels, {"labels": Map(labels, outside=IGNORE)}, generator, self.augment)
        return {"image": to_tensor(view.image), "labels": torch.from_numpy(view.maps["labels"])}
