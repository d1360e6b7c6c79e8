"""Instance cues of one image: peaks of its attention maps, or its annotated points (sections 3.3 and 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipelines.bestie.classifier import attention_maps
from pipelines.bestie.learning import load_peak_classifier
from pipelines.bestie.settings import BestieSettings
from stages.cues.peaks import find_peaks
from stages.labels.coco import Entry

# Attention maps are kept for the report at this share of the image's size [px].
STRIDE = 4

Cues = dict[str, np.ndarray]


def peak_cues(classifier: Path, settings: BestieSettings, device: torch.device
              ) -> Callable[[str, Entry, Tensor | None], Cues]:
    """What finds the peaks of one image with ``tags``, for a walk over images."""
    model, category_ids = load_peak_classifier(classifier, settings.classifier, device)
    chosen = settings.cues

    def infer(folder: str, image: Entry, pixels: Tensor | None) -> Cues:
        assert pixels is not None
        classes = [index for index, category in enumerate(category_ids) if category in image["tags"]]
        maps = attention_maps(model, pixels.to(device), classes, chosen.side, chosen.flip)
        cues, scores = [], []
        for index, values in zip(classes, maps.cpu().numpy(), strict=True):
            peaks, heights = find_peaks(values, window=chosen.window, threshold=chosen.threshold,
                                        smoothing=chosen.smoothing, most=chosen.most)
            cues += [(category_ids[index], *peak) for peak in peaks.tolist()]
            scores += heights.tolist()
        size = [-(-side // STRIDE) for side in maps.shape[1:]]
        small = functional.interpolate(maps[None], size, mode="area")[0] if len(maps) else maps.new_zeros(0, *size)
        return {"cues": np.array(cues, np.int64).reshape(-1, 3), "scores": np.array(scores, np.float32),
                "attention": small.amax(0).cpu().numpy().astype(np.float16) if len(small) else
                np.zeros(size, np.float16)}

    return infer


def point_cues(annotations: Sequence[Entry], size: tuple[int, int], category_ids: Sequence[int]) -> Cues:
    """The points of an image's objects, in the pixels that they lie in.

    Args:
        annotations: of the image; those without ``point`` or of other categories count for nothing.
        size: (H, W) of the image; what lies outside by a fraction of a pixel is moved to its border.
        category_ids: of the things.
    """
    found = [(annotation["category_id"], annotation["point"]) for annotation in annotations
             if "point" in annotation and annotation["category_id"] in category_ids]
    cues = [(category, *(min(max(int(np.floor(value + 0.5)), 0), side - 1)
                         for value, side in zip((y, x), size, strict=True))) for category, (x, y) in found]
    return {"cues": np.array(cues, np.int64).reshape(-1, 3), "scores": np.ones(len(cues), np.float32)}
