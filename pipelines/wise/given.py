"""What is known of an image before any network looks at it: its points, and what its proposals say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.wise.blobs import pixels_at
from pipelines.wise.pseudo_masks import Candidates, background_of, find_candidates, like_discs
from pipelines.wise.settings import CueSettings
from stages.labels.coco import Entry
from stages.proposals.segments import Proposals
from stages.runtime import layout
from stages.runtime.files import read_json


@dataclass(frozen=True)
class Located:
    """Points of one image.

    Attributes:
        xy: (P, 2) float64, pixel centres on integers.
        category_ids: (P,) int64.
        weak_ids: annotation of each point; -1 for peaks.
        scores: (P,) float64, 1 for annotated points, a peak's response otherwise.
    """

    xy: np.ndarray
    category_ids: np.ndarray
    weak_ids: np.ndarray
    scores: np.ndarray

    def pixels(self, size: tuple[int, int]) -> np.ndarray:
        """(P, 2) int64, row and column of the nearest pixel of an image of (H, W)."""
        return pixels_at(self.xy[:, ::-1], size)


def annotated(objects: Sequence[Entry]) -> Entry:
    """The points of weak annotations, as ``read_points`` reads them."""
    return {"points": [list(map(float, item["point"])) for item in objects],
            "category_ids": [item["category_id"] for item in objects], "weak_ids": [item["id"] for item in objects],
            "scores": [1.0] * len(objects)}


def read_points(folder: Path, image: Entry) -> Located:
    """What `find_points` wrote of an image."""
    content = read_json(folder / f"{layout.image_key(image)}.json")
    return Located(np.array(content["points"], np.float64).reshape(-1, 2),
                   np.array(content["category_ids"], np.int64), np.array(content["weak_ids"], np.int64),
                   np.array(content["scores"], np.float64))


def candidates_of(proposals: Proposals, yx: np.ndarray, settings: CueSettings) -> Candidates:
    """The proposals that may stand for the points (P, 2) in the training."""
    found = find_candidates(proposals, yx, settings.objectness)
    around = settings.disc
    return like_discs(found, proposals, yx, around.power, around.area, around.cap) if around.power else found


def background(proposals: Proposals, candidates: Candidates, yx: np.ndarray, settings: CueSettings) -> np.ndarray:
    """(H, W) bool, where the background is, as the settings say."""
    return background_of(proposals, candidates, yx, settings.background, settings.best, settings.least)
