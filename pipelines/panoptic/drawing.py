"""Pictures of what the panoptic method sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipelines.panoptic.supervision import Classes, boxes_of
from stages.labels import rle
from stages.labels.coco import Entry, is_thing
from stages.labels.drawing import category_colour, draw_box, faded, heatmap, overlay_categories, overlay_masks
from stages.labels.maps import upsample_cells
from stages.labels.panels import Panels
from stages.runtime import layout
from stages.runtime.files import read_npz
from stages.segmentation.labels import IGNORE, index_table, read_indices

_UNDECIDED = 1 << 20  # no category id is as large
_HEAT_MAPS = 2


class Painter:
    """Draws the panels of one image after the other.

    Args:
        folders: where ``cues``, ``stuff`` and ``rounds`` lie.
        classes, categories: of the data set.
        groups: image id -> annotations of the training images.
        labels: split -> image id -> finished labels.
        detections: image id -> detected boxes of validation images.
    """

    def __init__(self, folders: Mapping[str, Path], classes: Classes, categories: Sequence[Entry],
                 groups: Mapping[int, Sequence[Entry]], labels: Mapping[str, Mapping[int, Sequence[Entry]]],
                 detections: Mapping[int, Sequence[Entry]]) -> None:
        self.folders, self.classes, self.groups = folders, classes, groups
        self.labels, self.detections = labels, detections
        self.names = {category["id"]: category["name"] for category in categories}
        self.things = {category["id"] for category in categories if is_thing(category)}
        self.rounds = sorted((path for path in folders["rounds"].iterdir() if path.name.isdigit()),
                             key=lambda path: int(path.name))

    def panels(self, image: Entry, pixels: np.ndarray) -> Panels:
        """Titles and RGB pictures: cues of boxes and stuff, approximate labels per round, panoptic output."""
        own = self.labels[image["split"]].get(image["id"], ())
        if image["split"] != "train":
            found = self.detections.get(image["id"], ())
            return [(f"{len(found)} detected boxes", self._boxes(pixels, [(item["bbox"], item["category_id"])
                                                                          for item in found])),
                    ("panoptic output", self._output(pixels, own))]
        given = boxes_of(image, self.groups[image["id"]], self.classes)
        sides = np.concatenate([given.xyxy[:, :2], given.xyxy[:, 2:] - given.xyxy[:, :2]], axis=1).tolist()
        marks = [(box, self.classes.category(channel)) for box, channel in zip(sides, given.channels, strict=True)]
        cues = self.folders["cues"]
        return [
            ("GrabCut in the given boxes", self._boxes(self._map(cues / "grabcut", image, pixels), marks)),
            ("the proposal that fits each box", self._boxes(self._map(cues / "proposal", image, pixels), marks)),
            ("where both agree", self._boxes(self._map(cues / "agreement", image, pixels), marks)),
            *self._heat(image, pixels),
            *((f"approximate labels after training {number.name} (grey: undecided)" if int(number.name) else
               "first approximate labels (grey: undecided)", self._map(number, image, pixels))
              for number in self.rounds),
            ("panoptic output", self._output(pixels, own)),
        ]

    def _map(self, folder: Path, image: Entry, pixels: np.ndarray) -> np.ndarray:
        """A label map in colours; what is undecided is grey."""
        labels = read_indices(folder / f"{layout.image_key(image)}.png", (pixels.shape[0], pixels.shape[1]),
                              index_table(self.classes.category_ids))
        table = np.array([0, *self.classes.category_ids, _UNDECIDED], np.int64)
        return overlay_categories(faded(pixels), table[np.where(labels == IGNORE, -1, labels)], ignore=_UNDECIDED)

    def _boxes(self, picture: np.ndarray, boxes: Sequence[tuple[Sequence[float], int]]) -> np.ndarray:
        picture = picture.copy()
        for box, category in boxes:
            draw_box(picture, box, category_colour(category))
        return picture

    def _heat(self, image: Entry, pixels: np.ndarray) -> Panels:
        """Grad-CAM of the first classes of stuff."""
        path = self.folders["stuff"] / f"{layout.image_key(image)}.npz"
        if not path.exists():  # a data set of things alone
            return []
        stored = read_npz(path)
        maps = upsample_cells(stored["maps"][:_HEAT_MAPS], int(stored["stride"]), (pixels.shape[0], pixels.shape[1]))
        return [(f"Grad-CAM of {self.names[self.classes.category(channel)]}", heatmap(values, pixels))
                for values, channel in zip(maps, stored["channels"].tolist(), strict=False)]

    def _output(self, pixels: np.ndarray, labels: Sequence[Entry]) -> np.ndarray:
        """Stuff in the colours of its classes, every thing in a colour of its own."""
        single = [item for item in labels if not item.get("iscrowd", 0)]
        stuff = [item for item in single if item["category_id"] not in self.things]
        things = [item for item in single if item["category_id"] in self.things]
        picture = overlay_masks(pixels, [rle.decode(item["segmentation"]) for item in stuff],
                                [item["category_id"] for item in stuff])
        return overlay_masks(picture, [rle.decode(item["segmentation"]) for item in things])
