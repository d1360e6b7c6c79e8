"""What the two networks of BESTIE learn from: views of tagged images, and crops with their pseudo labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import default_collate

from pipelines.bestie.colours import change_light, shift_hue
from pipelines.bestie.settings import BestieSettings, PeakClassifierSettings
from pipelines.bestie.transfer import GivenMasks, pseudo_label
from stages.cues.augment import Map, View, random_view
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


@dataclass(frozen=True)
class Known:
    """What is known of an image, or of a crop of it.

    Attributes:
        semantic: (H, W) int16 class indices, 0 background, IGNORE undecided.
        cues: (n, 3) int64 rows (class index from 0, y, x).
        classes: class indices of the image's tags (or points).
        given: instance masks, where they are not made of components and cues.
    """

    semantic: np.ndarray
    cues: np.ndarray
    classes: list[int]
    given: GivenMasks | None = None


class LabelledCrops:
    """Random crops of images with the pseudo labels that semantic knowledge transfer makes of them (section 3.3).

    What is drawn depends on the images alone: with given masks the same crops come with other labels.

    Args:
        images: COCO image entries.
        tags: category ids that each image's tags (or points) name, by its id.
        semantic: folder of the semantic PNGs.
        cues: folder of the cues.
        category_ids: of the classes 1, 2, ...
        settings: of the method.
        given: folder of instance masks that take the place of the transfer's, one .npz per image with the arrays of
            ``GivenMasks``, ``categories`` as category ids (table 5).

    Raises:
        UserError: no images, or semantic maps that are missing.
    """

    def __init__(self, images: Sequence[Entry], tags: Mapping[int, set[int]], semantic: Path, cues: Path,
                 category_ids: Sequence[int], settings: BestieSettings, given: Path | None = None) -> None:
        self.images, self.tags, self.semantic, self.cues = list(images), tags, semantic, cues
        self.given = given
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

    def known(self, image: Entry, size: tuple[int, int]) -> Known:
        """All that is known of an image of a size (H, W)."""
        semantic = read_indices(self._map(image), size, self.table)
        cues = read_npz(self.cues / f"{layout.image_key(image)}.npz")["cues"].reshape(-1, 3)
        classes = sorted(int(self.table[category]) - 1 for category in self.tags[image["id"]])
        cues = np.concatenate([self._indices(cues[:, :1]), cues[:, 1:].astype(np.int64)], axis=1)
        if self.given is None:
            return Known(semantic, cues, classes)
        found = read_npz(self.given / f"{layout.image_key(image)}.npz")
        return Known(semantic, cues, classes,
                     GivenMasks(found["masks"], self._indices(found["categories"]), found["points"]))

    def _indices(self, category_ids: np.ndarray) -> np.ndarray:
        """Class indices from 0 of category ids; below 0 for those that are none."""
        return self.table[np.clip(category_ids, 0, len(self.table) - 1)].astype(np.int64) - 1

    def sample(self, index: int, generator: np.random.Generator) -> dict[str, Tensor]:
        """One crop; see ``labelled``."""
        image = self.images[index]
        pixels = read_rgb(layout.IMAGES / image["file_name"])
        known = self.known(image, pixels.shape[:2])
        network = self.settings.network
        places = np.mgrid[:pixels.shape[0], :pixels.shape[1]].astype(np.float32)
        maps = {"semantic": Map(known.semantic, outside=IGNORE), "places": Map(places, kind="values", outside=np.nan)}
        if known.given is not None:
            maps["masks"] = Map(known.given.masks)
        shown = random_view(pixels, maps, generator, network.augment)
        changed = change_light(shown.image, generator.uniform(-1, 1) * network.brightness,
                               generator.uniform(*network.contrast))
        changed = shift_hue(changed, generator.uniform(-1, 1) * network.hue)
        changed[~shown.inside] = shown.image[~shown.inside]
        return self.labelled(changed, shown.inside, in_view(known, shown))

    def labelled(self, image: np.ndarray, inside: np.ndarray, known: Known) -> dict[str, Tensor]:
        """The sample that a crop makes with what is known of it.

        Args:
            image: (h, w, 3) uint8 RGB.
            inside: (h, w) bool, where the crop shows the image.
            known: of the crop.

        Returns:
            ``image`` (3, h, w) uint8; ``semantic`` (h, w) int16; ``inside`` (h, w) bool; ``components`` and
            ``instances`` (h, w) int32 and ``centres`` (n, 3) int64 as in ``PseudoLabel``.
        """
        chosen = self.settings.transfer
        label = pseudo_label(known.semantic, known.classes, known.cues, smallest=chosen.smallest, centre=chosen.centre,
                             points=self.settings.cues.source == "points", given=known.given)
        return {"image": to_tensor(image), "semantic": torch.from_numpy(known.semantic),
                "inside": torch.from_numpy(inside), "components": torch.from_numpy(label.components),
                "instances": torch.from_numpy(label.instances), "centres": torch.from_numpy(label.centres)}


def in_view(known: Known, shown: View) -> Known:
    """What is known of a view, from what is known of the whole image.

    Args:
        known: of the image; its cues as ``moved`` takes them.
        shown: a view with the maps ``semantic``, ``places``, the image's (y, x) at every pixel, and, where masks are
            given, ``masks``.
    """
    count = len(known.cues)
    numbered = np.concatenate([np.arange(count)[:, None], known.cues[:, 1:]], axis=1)
    found = moved(numbered, shown.maps["places"], shown.inside)
    kept = found[:, 0]
    cues = np.concatenate([known.cues[kept, :1], found[:, 1:]], axis=1)
    if known.given is None:
        return replace(known, semantic=shown.maps["semantic"], cues=cues)
    rows = np.full(count + 1, -1)  # the last entry is that of no cue, -1
    rows[kept] = np.arange(len(kept))
    given = replace(known.given, masks=shown.maps["masks"], points=rows[known.given.points])
    return replace(known, semantic=shown.maps["semantic"], cues=cues, given=given)


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
