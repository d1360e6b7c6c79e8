"""Random crops of objects, as both networks of EXITS are trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.exits.losses import drop_points
from pipelines.exits.objects import Image, Pictures, random_window
from pipelines.exits.settings import CropSettings
from stages.cues.augment import jitter
from stages.cues.crops import Window, box_in_crop, cells_in_box, cut, object_box, sample_cells, sample_map
from stages.labels.points import BACKGROUND, PSEUDO_FOREGROUND, UNLABELLED
from stages.runtime.files import read_npz


class RandomCrops:
    """Crops with random margins, mirrored and recoloured by chance, with box and, where there are any, point labels.

    Args:
        objects: (image, index of the object) of each sample.
        settings: of the crops.
        mask_cells: side of the masks [mask px].
        points: folder of the retrieved points, if they are wanted.
        dropout: share of the retrieved points that an epoch leaves out.
        pseudo: whether the retrieved points are labels, or only those that are given.
        hide_scores: share of the samples whose scores are 0.
    """

    def __init__(self, objects: list[tuple[Image, int]], settings: CropSettings, mask_cells: int,
                 points: Path | None = None, dropout: float = 0.0, pseudo: bool = True,
                 hide_scores: float = 0.0) -> None:
        self.objects, self.settings, self.mask_cells = objects, settings, mask_cells
        self.points, self.dropout, self.pseudo, self.hide_scores = points, dropout, pseudo, hide_scores
        self.pictures = Pictures()

    def __len__(self) -> int:
        return len(self.objects)

    def sample(self, index: int, generator: np.random.Generator) -> dict[str, Any]:
        """``image`` (3, side, side) uint8, ``box`` (4,) xyxy in its pixels, ``inside`` (m, m) float and, with points,
        ``labels`` (N, N) int8, the propagation scores ``likely`` (N, N), and ``scores``, those that are shown."""
        image, which = self.objects[index]
        settings, box = self.settings, object_box(image.objects[which])
        window = random_window(image, which, settings, generator)
        view = cut(self.pictures[image.entry["file_name"]], window, settings.side)
        place = box_in_crop(box, window, settings.side)
        labels = scores = None
        if self.points is not None:
            labels, scores = self._labels(image, which, window, place)
        if settings.flip and generator.random() < 0.5:
            view = view[:, ::-1]
            place = np.array([settings.side - place[2], place[1], settings.side - place[0], place[3]])
            labels = None if labels is None else labels[:, ::-1]
            scores = None if scores is None else scores[:, ::-1]
        if settings.jitter > 0:
            view = jitter(view, generator, settings.jitter)
        sample = {"image": torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1))),
                  "box": torch.from_numpy(place.astype(np.float32)),
                  "inside": torch.from_numpy(cells_in_box(place, settings.side, self.mask_cells).astype(np.float32))}
        if labels is not None:
            draws = torch.from_numpy(generator.random(labels.shape))
            sample["labels"] = drop_points(torch.from_numpy(labels.copy()), self.dropout, draws)
        if scores is not None:
            sample["likely"] = torch.from_numpy(scores.copy())
            sample["scores"] = torch.from_numpy(scores * np.float32(generator.random() >= self.hide_scores))
        return sample

    def _labels(self, image: Image, which: int, window: Window, box: np.ndarray) -> \
            tuple[np.ndarray, np.ndarray | None]:
        """Retrieved points and their scores, brought from the crop in which they were found to this one."""
        assert self.points is not None
        found = read_npz(self.points / f"{image.key}.npz")
        cells = found["labels"].shape[-1]
        x0, y0, x1, y1 = (int(value) for value in found["windows"][which])
        labels = sample_cells(found["labels"][which], (x0, y0, x1, y1), window, cells)
        # Where the crop reaches beyond the other one, and wherever the box is not, there is background for certain.
        labels[~cells_in_box(box, self.settings.side, cells)] = BACKGROUND
        if not self.pseudo:
            labels[np.abs(labels) == PSEUDO_FOREGROUND] = UNLABELLED
            return labels, None
        return labels, sample_map(found["scores"][which], (x0, y0, x1, y1), window, cells)
