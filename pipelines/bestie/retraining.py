"""Iterative training (section 4.5, table 5): a new network on the labels that a trained one makes of its images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.bestie.labelling import network_instances
from pipelines.bestie.learning import load_refiner, refiner_training
from pipelines.bestie.settings import BestieSettings
from stages.cues.views import read_image
from stages.labels.coco import Entry
from stages.runtime import layout
from stages.runtime.settings import RuntimeSettings
from stages.runtime.training import train_network
from stages.runtime.walk import walk


def retrain_once(folder: Path, trained: Path, semantic: Path, cues: Path, train: Entry, settings: BestieSettings,
                 runtime: RuntimeSettings, seed: int, *, name: tuple[str, ...], description: str) -> Path:
    """One iteration inside a work folder: labels of all training images, then a training on them from the start.

    Only the labels differ from the training before: initial weights, the order of the images and their random views
    depend on the seed and on ``name`` alone, and guidance, refined labels, losses and schedule are the same.

    Args:
        folder: of the iteration; what it holds of an interrupted run is not done again.
        trained: folder of the network that makes the labels.
        semantic, cues: folders of the training images' maps and cues.
        train: weak annotations of the training images.
        settings: of the method.
        runtime: device, precision, processes.
        seed: of the whole run.
        name: by which the first network's initial weights were drawn.
        description: of the progress bars.

    Returns:
        The folder of the new network.
    """
    labels = folder / "labels"
    walk(labels, runtime, {"": train["images"]}, key=layout.image_key, load=read_image,
         build=lambda device: mask_inference(trained, cues, train, settings, device),
         description=f"{description}: labels")
    train_network(folder, settings.network, runtime, seed,
                  lambda device: refiner_training(semantic, cues, settings, labels), name=name,
                  description=f"{description}: training")
    return folder / "result"


def mask_inference(trained: Path, cues: Path, train: Entry, settings: BestieSettings, device: torch.device
                   ) -> Callable[[str, Entry, Tensor], dict[str, np.ndarray]]:
    """What gives the instance masks of one training image, for a walk over images.

    Args:
        trained: folder of the trained network.
        cues: folder of the training images' cues; read where they are annotated points.
        train: weak annotations of the training images.
        settings: of the method.
        device: where it runs.

    Returns:
        A function of anything, a COCO image and its pixels (3, H, W) uint8, which gives what ``GivenMasks`` holds:
        ``masks`` (H, W) uint16, ``categories`` (m,) int64 category ids and ``points`` (m,) int64.
    """
    model, category_ids = load_refiner(trained, settings, device)
    find = network_instances(model, category_ids, cues, train, settings)

    def infer(_: str, image: Entry, pixels: Tensor) -> dict[str, np.ndarray]:
        found = find("train", image, pixels)
        kept = found.scores >= settings.retraining.threshold
        table = np.append(0, np.where(kept, np.cumsum(kept), 0)).astype(np.uint16)
        return {"masks": table[found.labels], "categories": np.array(category_ids, np.int64)[found.categories[kept]],
                "points": found.points[kept]}

    return infer
