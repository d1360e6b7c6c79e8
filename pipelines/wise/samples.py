"""What WISE learns from: whole images, their points, and pairs of pixels, drawn anew at every step (section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypedDict

import cv2
import numpy as np
import torch
from torch import Tensor

from pipelines.wise.blobs import Points, make_points, pixels_at
from pipelines.wise.given import Located, background, candidates_of, read_points
from pipelines.wise.pseudo_masks import Candidates, draw_pairs, draw_proposal
from pipelines.wise.settings import CueSettings, NetworkSettings
from stages.cues.views import to_tensor, view_size
from stages.labels import rle as rle_codec
from stages.labels.coco import Entry
from stages.labels.images import read_rgb
from stages.proposals.segments import Proposals, read_proposals
from stages.runtime import layout

_KEPT = 1000
"""Images of which candidates and background are kept in memory, some 100 KB each with 1000 proposals."""


class Sample(TypedDict):
    """A view: ``image`` (3, H, W) uint8, its points, and ``pairs``, tensors by the names of ``pseudo_masks.Pairs``."""

    image: Tensor
    points: Points
    pairs: dict[str, Tensor]


@dataclass(frozen=True)
class _Known:
    """What is the same at every step: points, proposals (packed), which of them are candidates, and the background."""

    located: Located
    proposals: Proposals
    candidates: Candidates
    free: np.ndarray


class PointedImages:
    """Whole images with points and pairs.

    Args:
        images: COCO images.
        points: folder of their points.
        proposals: folder of their proposals.
        classes: category id -> class of the network, from 1 on.
        cues: what proposals are candidates, and where the background is.
        settings: which pairs are drawn, flip and cap.
    """

    def __init__(self, images: Sequence[Entry], points: Path, proposals: Path, classes: dict[int, int],
                 cues: CueSettings, settings: NetworkSettings) -> None:
        self.images, self.points, self.proposals = list(images), points, proposals
        self.classes, self.cues, self.settings = classes, cues, settings
        self._kept: dict[int, _Known] = {}

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int, generator: np.random.Generator) -> Sample:
        """A view of an image."""
        image = self.images[index]
        size = (image["height"], image["width"])
        shown = view_size(size, 1.0, self.settings.max_pixels)
        flip = self.settings.flip and bool(generator.random() < 0.5)
        known = self._known(index)
        moved = _moved(known.located.xy[:, ::-1], size, shown, flip)
        points = make_points(moved, np.array([self.classes[number] for number in known.located.category_ids.tolist()],
                                             np.int64), shown)
        pixels = pixels_at(moved, shown)  # of all: two annotations may have one pixel
        masks = []
        for number, (row, column) in enumerate(pixels.tolist()):
            chosen = draw_proposal(known.candidates, number, generator, self.settings.alone, self.settings.sharpness)
            mask = np.zeros(shown, bool) if chosen is None else \
                _shown(rle_codec.decode(known.proposals.rle(chosen)), shown, flip)
            mask[row, column] = True  # without a candidate the point itself is its mask
            masks.append(mask)
        free = _shown(known.free, shown, flip)
        free[pixels[:, 0], pixels[:, 1]] = False
        drawing = self.settings
        pairs = draw_pairs(pixels, masks, free, generator, scheme=drawing.pairs,
                           pixels=drawing.pixels, mean=drawing.mean, hard=drawing.hard,
                           hard_below=drawing.hard_below)
        rgb = _shown(read_rgb(layout.IMAGES / image["file_name"]), shown, flip)
        return {"image": to_tensor(rgb), "points": points,
                "pairs": {field.name: torch.from_numpy(getattr(pairs, field.name)) for field in fields(pairs)}}

    def _known(self, index: int) -> _Known:
        """What no step changes, worked out once for the first images that are asked for."""
        if index in self._kept:
            return self._kept[index]
        image = self.images[index]
        located, proposals = read_points(self.points, image), read_proposals(self.proposals, image)
        yx = located.pixels((image["height"], image["width"]))
        candidates = candidates_of(proposals, yx, self.cues)
        free = background(proposals, candidates, yx, self.cues)
        known = _Known(located, replace(proposals), candidates, free)  # a copy forgets the unpacked run lengths
        if len(self._kept) < _KEPT:
            self._kept[index] = known
        return known


def as_list(samples: list[Sample]) -> list[Sample]:
    """Images of different sizes are no tensor: a batch is a list."""
    return samples


def _moved(yx: np.ndarray, size: tuple[int, int], shown: tuple[int, int], flip: bool) -> np.ndarray:
    """Positions in the view: points move as coordinates, so that none is lost."""
    moved = (yx + 0.5) * np.array(shown) / np.array(size) - 0.5
    if flip:
        moved[:, 1] = shown[1] - 1 - moved[:, 1]
    return moved


def _shown(values: np.ndarray, shown: tuple[int, int], flip: bool) -> np.ndarray:
    """An image (H, W, 3), by area, or a mask (H, W) bool, by the nearest pixel, as the view has it."""
    if values.shape[:2] != shown:
        mask = values.dtype == bool
        values = cv2.resize(values.astype(np.uint8), shown[::-1],
                            interpolation=cv2.INTER_NEAREST_EXACT if mask else cv2.INTER_AREA)
        values = values.astype(bool) if mask else values
    return np.ascontiguousarray(values[:, ::-1]) if flip else values.copy()
