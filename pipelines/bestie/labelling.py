"""Instances of one image, and as annotations: what the trained network is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.bestie.grouping import Instances, average_views, group_instances, group_to_points
from pipelines.bestie.learning import image_classes, load_refiner
from pipelines.bestie.network import BestieNetwork
from pipelines.bestie.settings import BestieSettings
from pipelines.bestie.simple_labels import SOURCES
from stages.labels import rle
from stages.labels.coco import Entry
from stages.runtime import layout
from stages.runtime.files import read_npz
from stages.segmentation.labels import index_table, read_indices


def simple_inference(semantic: Path, cues: Path, settings: BestieSettings, category_ids: Sequence[int]
                     ) -> Callable[[Entry], list[Entry]]:
    """What gives the annotations of one training image without a network, after ``synthesis.source``.

    Args:
        semantic, cues: folders of the training images' maps and cues.
        settings: of the method.
        category_ids: of the classes 1, 2, ...
    """
    make, table = SOURCES[settings.synthesis.source], index_table(category_ids)

    def infer(image: Entry) -> list[Entry]:
        key = layout.image_key(image)
        known = read_indices(semantic / f"{key}.png", (image["height"], image["width"]), table)
        rows = read_npz(cues / f"{key}.npz")["cues"].reshape(-1, 3).astype(np.int64)
        rows[:, 0] = [category_ids.index(category) for category in rows[:, 0].tolist()]
        labels = make(known, rows, settings.inference.smallest)
        return [{"category_id": category_ids[category], "segmentation": rle.encode(labels == number), "score": 1.0}
                for number, category in enumerate(rows[:, 0].tolist(), start=1) if (labels == number).any()]

    return infer


def network_instances(model: BestieNetwork, category_ids: Sequence[int], cues: Path, train: Entry,
                      settings: BestieSettings, semantic: Path | None = None
                      ) -> Callable[[str, Entry, Tensor], Instances]:
    """What finds the instances of one image, for a walk over images.

    Args:
        model: in evaluation mode.
        category_ids: of its classes.
        cues: folder of the training images' cues; read where they are annotated points.
        train: weak annotations of the training images.
        settings: of the method.
        semantic: folder of the training images' maps, if their foreground is to be that of the maps.

    Returns:
        A function of the split, a COCO image and its pixels (3, H, W) uint8. Training images have instances of their
        tags' classes, or of their points, only.
    """
    tags, table = image_classes(train, list(category_ids)), index_table(category_ids)
    points = settings.cues.source == "points"
    chosen = settings.inference
    flip = points if chosen.flip is None else chosen.flip
    device = next(model.parameters()).device

    def infer(split: str, image: Entry, pixels: Tensor) -> Instances:
        probability, heat, offset = average_views(model, pixels.to(device), chosen.scales, flip, chosen.max_pixels,
                                                  chosen.flip_offset)
        known = None
        if split == "train" and semantic is not None:
            known = read_indices(semantic / f"{layout.image_key(image)}.png", (image["height"], image["width"]), table)
        if split == "train" and points:
            rows = read_npz(cues / f"{layout.image_key(image)}.npz")["cues"].reshape(-1, 3).astype(np.int64)
            rows[:, 0] = [category_ids.index(category) for category in rows[:, 0].tolist()]
            return group_to_points(probability, offset, rows, known, chosen)
        classes = [category_ids.index(category) for category in tags[image["id"]]] if split == "train" else None
        return group_instances(probability, heat, offset, chosen, classes, known)

    return infer


def instance_inference(refiner: Path, semantic: Path, cues: Path, train: Entry, settings: BestieSettings,
                       device: torch.device) -> Callable[[str, Entry, Tensor], list[Entry]]:
    """What gives the annotations of one image, for a walk over images.

    Args:
        refiner: folder of the trained network.
        semantic: folder of the training images' maps; read where labels are made without the network, or of them.
        cues: folder of their cues; read there, and where they are annotated points.
        train: weak annotations of the training images.
        settings: of the method.
        device: where it runs.

    Returns:
        A function of the split, a COCO image and its pixels (3, H, W) uint8, which gives ``category_id``,
        ``segmentation`` and ``score`` of its instances.
    """
    model, category_ids = load_refiner(refiner, settings, device)
    find = network_instances(model, category_ids, cues, train, settings,
                             semantic if settings.synthesis.foreground == "map" else None)
    simple = None if settings.synthesis.source == "network" else simple_inference(semantic, cues, settings,
                                                                                  category_ids)

    def infer(split: str, image: Entry, pixels: Tensor) -> list[Entry]:
        if simple is not None and split == "train":
            return simple(image)
        found = find(split, image, pixels)
        return [{"category_id": category_ids[category], "segmentation": rle.encode(found.labels == number),
                 "score": round(float(score), 6)}
                for number, (category, score) in enumerate(zip(found.categories.tolist(), found.scores, strict=True),
                                                           start=1)]

    return infer
