"""Masks of objects by a trained generator (section 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipelines.exits.network import load_generator
from pipelines.exits.settings import ExitsSettings, InferenceSettings
from pipelines.exits.targets import refined, with_scores
from stages.cues.crops import cells_in_box
from stages.cues.objects import Crops, Image
from stages.propagation.settings import MeanFieldSettings
from stages.runtime.files import read_npz


class Guided(Protocol):
    """A network that gives masks (B, m, m) of crops, boxes and, where it is ``guided``, scores."""

    guided: bool

    def __call__(self, images: Tensor, boxes: Tensor, scores: Tensor | None = None, /) -> Tensor: ...


def predict(network: Guided, crops: Tensor, boxes: Tensor, scores: Tensor | None = None, flip: bool = False) -> Tensor:
    """Probabilities of a batch of crops.

    Args:
        network: a generator, on the tensors' device.
        crops: (B, 3, side, side) uint8.
        boxes: (B, 4) xyxy in the crops' pixels.
        scores: (B, N, N) propagation scores, for a guided network.
        flip: average with the mirrored crops.

    Returns:
        (B, m, m).
    """
    masks = network(crops, boxes, scores)
    if not flip:
        return masks
    side = crops.shape[-1]
    mirrored = torch.stack([side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]], dim=1)
    other = network(crops.flip(-1), mirrored, None if scores is None else scores.flip(-1))
    return (masks + other.flip(-1)) / 2


def whole_prediction(network: Guided, crops: Tensor, boxes: Tensor, scores: Tensor | None,
                     settings: InferenceSettings) -> Tensor:
    """What a network and the propagation scores say together.

    Args:
        network, crops, boxes: as for ``predict``.
        scores: (B, N, N) propagation scores, or none.
        settings: the shares of the predictions with and without the scores, and of the scores themselves.

    Returns:
        (B, m, m) probabilities.
    """
    if scores is None or not network.guided or settings.unguided == 1:
        masks = predict(network, crops, boxes, None, settings.flip)
    else:
        masks = (1 - settings.unguided) * predict(network, crops, boxes, scores, settings.flip)
        if settings.unguided > 0:
            masks = masks + settings.unguided * predict(network, crops, boxes, None, settings.flip)
    if scores is not None and settings.scores > 0:
        masks = with_scores(masks, scores, settings.scores)
    return masks


def refine(masks: Tensor, crops: Tensor, boxes: np.ndarray, settings: MeanFieldSettings) -> Tensor:
    """Mean-field of probabilities (B, m, m) at the resolution of their crops (B, 3, side, side): (B, side, side)."""
    side = crops.shape[-1]
    inside = torch.from_numpy(np.stack([cells_in_box(box, side, side) for box in boxes])).to(masks)
    large = functional.interpolate(masks[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
    return refined(large.clamp(0.02, 0.98), crops, inside, settings)


def mask_inference(weights: Path, points: Path, settings: ExitsSettings, device: torch.device) -> \
        Callable[[str, Image, Crops], dict[str, np.ndarray]]:
    """A function of the split, an image and its crops, which gives ``probabilities`` (K, m, m) uint8 and ``windows``.

    Args:
        weights: of the generator.
        points: folder of the propagation scores, by split.
        settings: of its network, the crops and the inference.
        device: where it runs.
    """
    chosen = settings.generator
    network = load_generator(weights, chosen.encoder, settings.crops.side, chosen.mask_stride, device,
                             settings.inference.network)

    def infer(split: str, image: Image, loaded: Crops) -> dict[str, np.ndarray]:
        views, boxes, windows = loaded
        # Box-only and extreme points alone are rows of the ablation: nothing of the walk gets into them.
        retrieved = chosen.points == "retrieved"
        scores = read_npz(points / split / f"{image.key}.npz")["scores"] if retrieved else None
        return {"probabilities": image_masks(network, views, boxes, scores, settings.inference, network.mask_cells,
                                             device),
                "windows": np.array(windows, np.int32).reshape(-1, 4)}

    return infer


def image_masks(network: Guided, crops: np.ndarray, boxes: np.ndarray, scores: np.ndarray | None,
                settings: InferenceSettings, cells: int, device: torch.device) -> np.ndarray:
    """Masks of all objects of one image.

    Args:
        network: a generator on ``device``.
        crops: (K, side, side, 3) uint8.
        boxes: (K, 4) float32 xyxy in the crops' pixels.
        scores: (K, N, N) propagation scores, or none.
        settings: of the inference.
        cells: side of the network's masks.
        device: where it runs.

    Returns:
        (K, m, m) uint8 probabilities in 1/255; m is ``cells``, or the crops' side where the CRF refines them.
    """
    side = crops.shape[1] if settings.crf.iterations else cells
    found = np.zeros((len(crops), side, side), np.uint8)
    for start in range(0, len(crops), settings.batch_size):
        part = slice(start, start + settings.batch_size)
        pixels = torch.from_numpy(crops[part].transpose(0, 3, 1, 2).copy()).to(device)
        guide = None if scores is None else torch.from_numpy(scores[part]).float().to(device)
        masks = whole_prediction(network, pixels, torch.from_numpy(boxes[part]).to(device), guide, settings)
        if settings.crf.iterations:
            masks = refine(masks, pixels, boxes[part], settings.crf)
        found[part] = np.rint(255 * masks.cpu().numpy())
    return found
