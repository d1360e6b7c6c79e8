"""Pictures of BESTIE's intermediates."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from pipelines.bestie.grouping import average_views
from pipelines.bestie.learning import load_refiner
from pipelines.bestie.settings import BestieSettings
from pipelines.bestie.transfer import pseudo_label
from stages.cues.views import to_tensor
from stages.labels import rle
from stages.labels.coco import Entry
from stages.labels.drawing import (
    category_colour,
    draw_point,
    faded,
    flow_colours,
    heatmap,
    overlay_categories,
    overlay_masks,
)
from stages.labels.panels import Panels
from stages.runtime import devices, layout
from stages.runtime.files import read_json, read_npz
from stages.segmentation.labels import IGNORE, category_map, index_table, read_indices


class Painter:
    """Draws the panels of one image after the other.

    Args:
        cues, semantic: folders of the training images' cues and maps.
        refiner: folder of the trained network, which is asked once more for what it sees.
        labels: the finished labels.
        settings: of the method.
        device: where the network runs, a setting (``runtime.device``).
    """

    def __init__(self, cues: Path, semantic: Path, refiner: Path, labels: Path, settings: BestieSettings,
                 device: str) -> None:
        self.cues, self.semantic, self.settings, self.device = cues, semantic, settings, devices.resolve(device)
        self.model, self.category_ids = load_refiner(refiner, settings, self.device)
        self.labels: dict[int, list[Entry]] = defaultdict(list)
        for annotation in read_json(labels)["annotations"]:
            self.labels[annotation["image_id"]].append(annotation)
        moments = refiner / "moments.json"
        self.moments: list[Entry] = read_json(moments)["moments"] if moments.exists() else []

    def panels(self, image: Entry, pixels: np.ndarray) -> Panels:
        """Titles and RGB pictures: cues, semantic map, pseudo instances, heat, offsets, refined labels, labels."""
        key, size = layout.image_key(image), pixels.shape[:2]
        stored = read_npz(self.cues / f"{key}.npz")
        semantic = read_indices(self.semantic / f"{key}.png", size, index_table(self.category_ids))
        probability, heat, offset = average_views(self.model, to_tensor(pixels).to(self.device), (1.0,), False,
                                                  self.settings.inference.max_pixels)
        known = [row for row in stored["cues"].tolist() if row[0] in self.category_ids]
        peaks = self._with_cues(heatmap(stored["attention"].astype(np.float32), pixels)
                                if "attention" in stored else pixels.copy(), known)
        warm = np.where(semantic > 0, heat.amax(0).cpu().numpy(), 0)
        foreground = probability.argmax(0).cpu().numpy() > 0
        return [
            ("instance cues", peaks),
            ("semantic map (grey: undecided)", overlay_categories(
                faded(pixels), category_map(semantic, self.category_ids).astype(np.int64),
                ignore=int(category_map(np.array([[IGNORE]]), self.category_ids)[0, 0]))),
            ("pseudo instances: components with one cue", self._pseudo(pixels, semantic, known)),
            ("centres that the network sees in the semantic map", heatmap(warm, pixels)),
            ("its offsets in what it takes for foreground", flow_colours(offset.cpu().numpy() * foreground)),
            *self._refined(image["id"], pixels),
            ("labels", _overlay(pixels, self.labels[image["id"]])),
        ]

    def _with_cues(self, picture: np.ndarray, cues: list[list[int]]) -> np.ndarray:
        for category, y, x in cues:
            draw_point(picture, (x, y), category_colour(category))
        return picture

    def _pseudo(self, pixels: np.ndarray, semantic: np.ndarray, cues: list[list[int]]) -> np.ndarray:
        """Guided components in full colour, the other candidates outlined."""
        chosen = self.settings.transfer
        rows = np.array([[self.category_ids.index(category), y, x] for category, y, x in cues], np.int64).reshape(-1, 3)
        label = pseudo_label(semantic, range(len(self.category_ids)), rows, smallest=chosen.smallest,
                             centre=chosen.centre, points=self.settings.cues.source == "points")
        numbers = [number for number in np.unique(label.instances) if number]
        picture = faded(pixels)
        outlines, _ = cv2.findContours((label.components > 0).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, (255, 255, 255), 1)
        picture = overlay_masks(picture, [label.instances == number for number in numbers],
                                [self.category_ids[label.centres[number - 1, 0]] for number in numbers])
        return self._with_cues(picture, cues)

    def _refined(self, image_id: int, pixels: np.ndarray) -> Panels:
        """Refined labels at the first, the middle and the last moment of the training that was kept.

        What has drifted shows here: masks that come, go or swallow their neighbours while the training goes on.
        """
        if not any(item["kind"] == "refined" for moment in self.moments for item in moment["annotations"]):
            return []  # the network did not refine
        places = sorted({0, (len(self.moments) - 1) // 2, len(self.moments) - 1})
        found = []
        for moment in (self.moments[place] for place in places):
            own = [annotation for annotation in moment["annotations"]
                   if annotation["image_id"] == image_id and annotation["kind"] == "refined"]
            found.append((f"refined labels after {round(100 * moment['share'])} % of the training",
                          _overlay(pixels, own)))
        return found


def _overlay(pixels: np.ndarray, annotations: list[Entry]) -> np.ndarray:
    return overlay_masks(pixels, [rle.decode(annotation["segmentation"]) for annotation in annotations],
                         list(range(1, len(annotations) + 1)))
