"""Random crops of objects, as both networks of EXITS are trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.exits.losses import drop_points
from pipelines.exits.recolouring import recoloured
from pipelines.exits.retrieval import initial_labels
from pipelines.exits.settings import RandomCropSettings
from stages.cues.augment import jitter
from stages.cues.crops import (
    Window,
    box_in_crop,
    cells_in_box,
    crop_window,
    cut,
    object_box,
    sample_cells,
    sample_map,
)
from stages.cues.objects import Image, Pictures
from stages.labels.coco import Entry
from stages.labels.points import PSEUDO_FOREGROUND, UNLABELLED
from stages.runtime.files import read_npz


@dataclass(frozen=True)
class PointLabels:
    """Where the points of the crops come from, and how many of them are seen.

    Attributes:
        folder: of the retrieved points.
        inward: delta, by which given points move into the object, as a share of the crop's side.
        dropout: share of the retrieved points that an epoch leaves out.
        retrieved: whether retrieved points are labels, or only those that are given.
        scores: whether the samples hold propagation scores, too; there are none without retrieved points.
        hidden: share of the samples whose shown scores are 0.
    """

    folder: Path
    inward: float
    dropout: float = 0.0
    retrieved: bool = True
    scores: bool = False
    hidden: float = 0.0


class RandomCrops:
    """Crops with random margins, mirrored and recoloured by chance, with box and, where there are any, point labels.

    Args:
        objects: (image, index of the object) of each sample.
        side: of the crops [px].
        settings: of the randomness.
        mask_cells: side of the masks [mask px].
        points: if the samples are to have points.
        plain: whether the samples hold the teacher's view, too, where it differs from the student's.
    """

    def __init__(self, objects: Sequence[tuple[Image, int]], side: int, settings: RandomCropSettings, mask_cells: int,
                 points: PointLabels | None = None, plain: bool = False) -> None:
        self.objects, self.side, self.settings, self.mask_cells = objects, side, settings, mask_cells
        self.points = points
        self.plain = plain and settings.student.differs
        self.pictures = Pictures()

    def __len__(self) -> int:
        return len(self.objects)

    def sample(self, index: int, generator: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, side, side) uint8, ``box`` (4,) xyxy in its pixels, ``inside`` (m, m) float; where they are
        asked for ``plain`` (3, side, side) uint8, the teacher's view, ``labels`` (N, N) int8, the propagation scores
        ``likely`` (N, N), and ``scores``, those that are shown."""
        image, which = self.objects[index]
        item = image.objects[which]
        window = crop_window(object_box(item), image.size, random_margins(self.settings, generator))
        view = cut(self.pictures[image.entry["file_name"]], window, self.side)
        box = box_in_crop(object_box(item), window, self.side)
        maps = {} if self.points is None else self._maps(self.points, image, which, window, box)
        if self.settings.flip and generator.random() < 0.5:
            view = view[:, ::-1]
            box = np.array([self.side - box[2], box[1], self.side - box[0], box[3]])
            maps = {name: values[:, ::-1] for name, values in maps.items()}
        if self.settings.jitter > 0:
            view = jitter(view, generator, self.settings.jitter)
        shown = view
        if self.settings.student.differs:
            shown = recoloured(np.ascontiguousarray(view), generator, self.settings.student)
        sample = {"image": _tensor(shown), **({"plain": _tensor(view)} if self.plain else {}),
                  "box": torch.from_numpy(box.astype(np.float32)),
                  "inside": torch.from_numpy(cells_in_box(box, self.side, self.mask_cells).astype(np.float32)),
                  **{name: torch.from_numpy(values.copy()) for name, values in maps.items()}}
        if self.points is not None:
            draws = torch.from_numpy(generator.random(tuple(sample["labels"].shape)))
            sample["labels"] = drop_points(sample["labels"], self.points.dropout, draws)
        if self.points is not None and "likely" in sample:
            sample["scores"] = sample["likely"] * float(generator.random() >= self.points.hidden)
        return sample

    def _maps(self, points: PointLabels, image: Image, which: int, window: Window, box: np.ndarray) -> \
            dict[str, np.ndarray]:
        """``labels`` and, where they are asked for, ``likely``, the scores, of a crop."""
        found = read_npz(points.folder / f"{image.key}.npz")
        x0, y0, x1, y1 = (int(value) for value in found["windows"][which])
        labels = point_labels(image.objects[which], found["labels"][which] if points.retrieved else None,
                              (x0, y0, x1, y1), window, box, self.side, found["labels"].shape[-1], points.inward)
        if not (points.scores and points.retrieved):
            return {"labels": labels}
        return {"labels": labels,
                "likely": sample_map(found["scores"][which], (x0, y0, x1, y1), window, labels.shape[-1])}


def random_margins(settings: RandomCropSettings, generator: np.random.Generator) -> np.ndarray:
    """Margins of a crop, left, top, right and bottom [share of the box's side], (4,) float64.

    Where opposite sides share one, the margin of each is u g / 2 and u (1 - g) / 2 with g uniform in 0..1, u / 2 what
    ``settings.margin`` gives; width and height are drawn apart.
    """
    if settings.margins == "each":
        return generator.uniform(*settings.margin, size=4)
    both, share = generator.uniform(*settings.margin, size=2), generator.random(2)
    return np.concatenate([both * share, both * (1 - share)])


def _tensor(view: np.ndarray) -> Tensor:
    """(side, side, 3) to (3, side, side)."""
    return torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))


def point_labels(item: Entry, retrieved: np.ndarray | None, source: Window, window: Window, box: np.ndarray, side: int,
                 cells: int, inward: float) -> np.ndarray:
    """Labels of a crop: the given points drawn from the annotation, the retrieved ones carried into it.

    A given point is a single cell: read from another crop it would be missed, or become several.

    Args:
        item: annotation.
        retrieved: (N, N) labels that were found in another crop, if any count.
        source, window: of that crop and of this one.
        box: (4,) xyxy in this crop's pixels.
        side: of this crop [px].
        cells: N.
        inward: delta as a share of ``side``.

    Returns:
        (N, N) int8 with the values of ``stages.labels.points``.
    """
    labels = initial_labels(item, box, window, side, cells, inward)
    if retrieved is None:
        return labels
    carried = sample_cells(retrieved, source, window, cells, outside=UNLABELLED)
    return np.where((labels == UNLABELLED) & (np.abs(carried) == PSEUDO_FOREGROUND), carried, labels)
