"""Masks of objects by a trained generator (section 3.3), and by what it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipelines.exits.network import load_generator
from pipelines.exits.settings import CrfSettings, ExitsSettings, GuidedInferenceSettings, InferenceSettings
from pipelines.exits.sources import Views
from pipelines.exits.targets import has_scores, refined, score_masks, with_scores
from stages.cues.crops import cells_in_box
from stages.cues.objects import Image
from stages.runtime.files import read_npz

Source = Callable[[Tensor, Tensor, slice], Tensor]
"""Masks (B, m, m) of crops (B, 3, side, side) of an image, with boxes (B, 4), and which of its objects they are."""


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


def whole_prediction(network: Guided, crops: Tensor, boxes: Tensor, scores: Tensor | None, flip: bool = False,
                     guided: GuidedInferenceSettings | None = None) -> Tensor:
    """What a network and, where it is guided, the propagation scores say together.

    Args:
        network, crops, boxes, flip: as for ``predict``.
        scores: (B, N, N) propagation scores, or none.
        guided: the shares of the prediction without the scores, and of the scores themselves; none is 0 of both.

    Returns:
        (B, m, m) probabilities.
    """
    shares = guided or GuidedInferenceSettings()
    if scores is None or not network.guided or shares.without == 1:
        masks = predict(network, crops, boxes, None, flip)
    else:
        masks = (1 - shares.without) * predict(network, crops, boxes, scores, flip)
        if shares.without > 0:
            masks = masks + shares.without * predict(network, crops, boxes, None, flip)
    if scores is not None and shares.masks > 0:
        masks = with_scores(masks, scores, shares.masks)
    return masks


def walk_prediction(scores: Tensor, cells: int, middle: float) -> Tensor:
    """Propagation scores (B, N, N) as masks (B, cells, cells), without a generator; an object without points, of which
    the walk knows nothing, fills its box."""
    return torch.where(has_scores(scores)[:, None, None], score_masks(scores, cells, middle), 1.0)


def refine(masks: Tensor, crops: Tensor, boxes: np.ndarray, settings: CrfSettings) -> Tensor:
    """Mean-field of probabilities (B, m, m) at the resolution of their crops (B, 3, side, side): (B, side, side)."""
    side = crops.shape[-1]
    inside = torch.from_numpy(np.stack([cells_in_box(box, side, side) for box in boxes])).to(masks)
    large = functional.interpolate(masks[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
    return refined(large, crops, inside, settings)


def mask_inference(weights: Path, points: Path, settings: ExitsSettings, device: torch.device) -> \
        Callable[[str, Image, Views], dict[str, np.ndarray]]:
    """A function of the split, an image and its views, which gives ``probabilities`` (K, m, m) uint8 and ``windows``.

    Args:
        weights: of the generator, which is only read where it makes the masks.
        points: folder of the propagation scores, by split.
        settings: of its network, the crops and the inference.
        device: where it runs.
    """
    chosen, inference, guided = settings.generator, settings.inference, settings.guided
    learnt, walks = inference.source == "generator", inference.source == "walk"
    network = load_generator(weights, chosen.encoder, settings.crops.side, chosen.mask_stride, device,
                             inference.network, guided.shown) if learnt else None
    # Box-only and extreme points alone are rows of the ablation: nothing of the walk gets into them.
    shown = learnt and guided.enabled and chosen.points == "retrieved"

    def infer(split: str, image: Image, loaded: Views) -> dict[str, np.ndarray]:
        (crops, boxes, windows), drawn = loaded
        side = settings.crops.side
        cells = side if drawn is not None else side // chosen.mask_stride if network is None else network.mask_cells
        scores = read_npz(points / split / f"{image.key}.npz")["scores"] if shown or walks else None

        def masks(pixels: Tensor, places: Tensor, part: slice) -> Tensor:
            if drawn is not None:
                return torch.from_numpy(drawn[part]).to(device)
            guide = None if scores is None else torch.from_numpy(scores[part]).float().to(device)
            if network is not None:
                return whole_prediction(network, pixels, places, guide, inference.flip, guided.inference)
            assert guide is not None
            return walk_prediction(guide, cells, inference.middle)

        return {"probabilities": image_masks(masks, crops, boxes, inference, cells, device),
                "windows": np.array(windows, np.int32).reshape(-1, 4)}

    return infer


def image_masks(source: Source, crops: np.ndarray, boxes: np.ndarray, settings: InferenceSettings, cells: int,
                device: torch.device) -> np.ndarray:
    """Masks of all objects of one image.

    Args:
        source: makes them, before the CRF, of tensors on ``device``.
        crops: (K, side, side, 3) uint8.
        boxes: (K, 4) float32 xyxy in the crops' pixels.
        settings: of the inference.
        cells: side of the source's masks.
        device: where it runs.

    Returns:
        (K, m, m) uint8 probabilities in 1/255; m is ``cells``, or the crops' side where the CRF refines them.
    """
    side = crops.shape[1] if settings.crf.iterations else cells
    found = np.zeros((len(crops), side, side), np.uint8)
    for start in range(0, len(crops), settings.batch_size):
        part = slice(start, start + settings.batch_size)
        pixels = torch.from_numpy(crops[part].transpose(0, 3, 1, 2).copy()).to(device)
        masks = source(pixels, torch.from_numpy(boxes[part]).to(device), part)
        if settings.crf.iterations:
            masks = refine(masks, pixels, boxes[part], settings.crf)
        found[part] = np.rint(255 * masks.cpu().numpy())
    return found
