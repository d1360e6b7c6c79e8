"""What the two networks of BESTIE learn from: views of tagged images, and crops with their pseudo labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import default_collate

from pipelines.bestie.colours import change_light, shift_hue
from pipelines.bestie.settings import BestieSettings, PeakClassifierSettings
from pipelines.bestie.transfer import pseudo_label
from stages.cues.augment import Map, random_view
from stages.cues.classification import multi_hot
from stages.cues.views import to_tensor
from stages.labels.coco import Entry
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.errors import UserError, summarise
from stages.runtime.files import read_npz
from stages.segmentation.labels import IGNORE, index_table, read_indices


class SqueezedImages:
    """Random views of images, squeezed to a square, with their tags as a multi-hot vector."""

    def __init__(self, images: Sequence[Entry], category_ids: Sequence[int], settings: PeakClassifierSettings) -> None:
        self.images, self.settings = list(images), settings
        self.targets = multi_hot(self.images, category_ids)

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int, generator: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, crop, crop) uint8 and ``target`` (classes,) float."""
        image = read_rgb(layout.IMAGES / self.images[index]["file_name"])
        side = self.settings.side
        if side:
            image = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
        image = shift_hue(image, generator.uniform(-1, 1) * self.settings.hue)
        shown = random_view(image, {}, generator, self.settings.augment)
        return {"image": to_tensor(shown.image), "target": torch.from_numpy(self.targets[index])}


class LabelledCrops:
    """Random crops of images with the pseudo labels that semantic knowledge transfer makes of them (section 3.3).

    Args:
        images: COCO image entries.
        tags: category ids that each image's tags (or points) name, by its id.
        semantic: folder of the semantic PNGs.
        cues: folder of the cues.
        category_ids: of the classes 1, 2, ...
        settings: of the method.

    Raises:
        UserError: no images, or semantic maps that are missing.
    """

    def __init__(self, images: Sequence[Entry], tags: Mapping[int, set[int]], semantic: Path, cues: Path,
                 category_ids: Sequence[int], settings: BestieSettings) -> None:
        self.images, self.tags, self.semantic, self.cues = list(images), tags, semantic, cues
        self.settings, self.table = settings, index_table(category_ids)
        if not self.images:
            raise UserError(f"{semantic}: there is no image with a tag of a thing class to learn from")
        missing = [f"image {image['id']}: {self._map(image)}" for image in self.images if not self._map(image).exists()]
        if missing:
            raise UserError(summarise(missing, f"{semantic}: {len(missing)} semantic maps are missing (one PNG per "
                                               f"image, named by its id in twelve digits):"))

    def _map(self, image: Entry) -> Path:
        return self.semantic / f"{layout.image_key(image)}.png"

    def __len__(self) -> int:
        return len(self.images)

    def known(self, image: Entry, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Semantic indices (H, W) int16, cues (n, 3) as (class index, y, x), and class indices of an image."""
        semantic = read_indices(self._map(image), size, self.table)
        cues = read_npz(self.cues / f"{layout.image_key(image)}.npz")["cues"].reshape(-1, 3)
        indices = self.table[np.clip(cues[:, :1], 0, len(self.table) - 1)].astype(np.int64) - 1
        classes = sorted(int(self.table[category]) - 1 for category in self.tags[image["id"]])
        return semantic, np.concatenate([indices, cues[:, 1:].astype(np.int64)], axis=1), classes

    def sample(self, index: int, generator: np.random.Generator) -> dict[str, Tensor]:
        """One crop; see ``labelled``."""
        image = self.images[index]
        pixels = read_rgb(layout.IMAGES / image["file_name"])
        semantic, cues, classes = self.known(image, pixels.shape[:2])
        network = self.settings.network
        places = np.mgrid[:pixels.shape[0], :pixels.shape[1]].astype(np.float32)
        shown = random_view(pixels, {"semantic": Map(semantic, outside=IGNORE),
                                     "places": Map(places, kind="values", outside=np.nan)}, generator, network.augment)
        cues = moved(cues, shown.maps["places"], shown.inside)
        changed = change_light(shown.image, generator.uniform(-1, 1) * network.brightness,
                               generator.uniform(*network.contrast))
        changed = shift_hue(changed, generator.uniform(-1, 1) * network.hue)
        changed[~shown.inside] = shown.image[~shown.inside]
        return self.labelled(changed, shown.maps["semantic"], shown.inside, cues, classes)

    def labelled(self, image: np.ndarray, semantic: np.ndarray, inside: np.ndarray, cues: np.ndarray,
                 classes: Sequence[int]) -> dict[str, Tensor]:
        """``image`` (3, h, w) uint8; ``semantic`` (h, w) int16; ``inside`` (h, w) bool, where the crop shows the image;
        ``components`` and ``instances`` (h, w) int32 and ``centres`` (n, 3) int64 as in ``PseudoLabel``."""
        chosen = self.settings.transfer
        label = pseudo_label(semantic, classes, cues, smallest=chosen.smallest, centre=chosen.centre,
                             points=self.settings.cues.source == "points")
        return {"image": to_tensor(image), "semantic": torch.from_numpy(semantic), "inside": torch.from_numpy(inside),
                "components": torch.from_numpy(label.components), "instances": torch.from_numpy(label.instances),
                "centres": torch.from_numpy(label.centres)}


def moved(cues: np.ndarray, places: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Cues of an image in the pixels of its view; those that it does not show are left out.

    Args:
        cues: (n, 3) rows (class index, y, x) in pixels of the image.
        places: (2, h, w) the image's (y, x) at every pixel of the view.
        inside: (h, w) where the view shows the image: a rectangle.
    """
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    found = [cues[:, 0]]
    shown = np.ones(len(cues), bool)
    for axis, line, at in ((1, places[0][rows, columns[0]], rows), (2, places[1][rows[0], columns], columns)):
        distances = np.abs(line[None] - cues[:, axis, None])
        nearest = distances.argmin(1)
        # Half the distance of two pixels of the view, or, enlarged, half a pixel of the image's border.
        spacing = max(float(np.abs(np.diff(line)).max(initial=0.0)), 1.0)
        shown &= distances[np.arange(len(cues)), nearest] <= spacing / 2 + 1e-3
        found.append(at[nearest])
    return np.stack(found, axis=1).astype(np.int64)[shown]


def collate(samples: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """A batch: ``centres`` (B, n, 3), filled up with rows of -1; the rest is stacked."""
    batch = default_collate([{name: value for name, value in sample.items() if name != "centres"}
                             for sample in samples])
    batch["centres"] = pad_sequence([sample["centres"] for sample in samples], batch_first=True, padding_value=-1)
    return batch
