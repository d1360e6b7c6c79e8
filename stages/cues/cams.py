"""Class attention maps of whole images, over scales and flips (IRNet eq. 1)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stages.cues.backbone import Grid, grid_of, resample_output
from stages.cues.classification import load_classifier
from stages.cues.classifier import Classifier
from stages.cues.settings import CamSettings
from stages.cues.views import view, view_size
from stages.labels.coco import Entry


def cam_inference(classifier: Path, device: torch.device, settings: CamSettings,
                  stride: int) -> Callable[[list[tuple[str, Entry, Tensor]]], list[dict[str, np.ndarray]]]:
    """What gives the attention maps of images of one size, for a walk over images that looks at several at once.

    Args:
        classifier: folder of the trained classifier; its categories (things, or things and stuff) are those of the
            maps.
        device: where it runs.
        settings: scales, flip and cap.
        stride: image pixels per cell of the maps.

    Returns:
        A function of sub-folders (of no account here), COCO images with ``tags`` and their pixels (3, H, W) uint8,
        which gives of each ``classes`` (K,) category ids of the tags that the classifier knows, by id, and ``cams``
        (K, h, w) float16 in 0..1.
    """
    model, category_ids = load_classifier(classifier, device)

    def infer(images: list[tuple[str, Entry, Tensor]]) -> list[dict[str, np.ndarray]]:
        classes = [[index for index, category in enumerate(category_ids) if category in image["tags"]]
                   for _, image, _ in images]
        pixels = torch.stack([pixels for _, _, pixels in images]).to(device)
        cams, _ = attention_maps_of_images(model, pixels, classes, scales=settings.scales, flip=settings.flip,
                                           grid=grid_of(stride), max_pixels=settings.max_pixels)
        return [{"classes": np.array([category_ids[index] for index in chosen], np.int64),
                 "cams": maps.cpu().numpy().astype(np.float16)} for chosen, maps in zip(classes, cams, strict=True)]

    return infer


def class_attention_maps(model: Classifier, image: Tensor, classes: Sequence[int], *, scales: Sequence[float],
                         flip: bool, grid: Grid, max_pixels: float = math.inf) -> tuple[Tensor, Tensor]:
    """:func:`attention_maps_of_images` of a single image.

    Args:
        image: (3, H, W) uint8 RGB on the model's device.
        classes: indices of the classes that the image's tags name; the maps of others are zero by definition.

    Returns:
        Maps (len(classes), h, w) and probabilities (classes of the model,).
    """
    maps, probabilities = attention_maps_of_images(model, image[None], [classes], scales=scales, flip=flip, grid=grid,
                                                   max_pixels=max_pixels)
    return maps[0], probabilities[0]


def attention_maps_of_images(model: Classifier, images: Tensor, classes: Sequence[Sequence[int]], *,
                             scales: Sequence[float], flip: bool, grid: Grid,
                             max_pixels: float = math.inf) -> tuple[list[Tensor], Tensor]:
    """Attention maps of the classes that images have, over several scales (IRNet eq. 1).

    The maps of all scales, and of the mirrored image, are brought to one grid and added before they are divided by
    their maximum (scales and flips are not in the paper).

    Args:
        model: in evaluation mode.
        images: (B, 3, H, W) uint8 RGB on the model's device; the network looks at all of them at once.
        classes: of each image, indices of the classes that its tags name.
        scales: factors on the images' size.
        flip: also look at the mirrored images.
        grid: where the result's cells lie, e.g. ``grid_of(4)``.
        max_pixels: a view of an image that would have more is taken at the largest scale that fits.

    Returns:
        Of each image maps (len(classes), ceil(H / stride), ceil(W / stride)) in 0..1, float32, the maximum of each 1
        (or 0 where a class has no attention at all), and probabilities (B, classes of the model) averaged over the
        views.
    """
    height, width = images.shape[-2:]
    size = (-(-height // int(grid.stride)), -(-width // int(grid.stride)))
    totals = [torch.zeros(len(chosen), *size, device=images.device) for chosen in classes]
    probabilities = []
    # Scales that the cap makes equal are looked at once and counted as often as they were asked for.
    shown_sizes = Counter(view_size((height, width), scale, max_pixels) for scale in scales)
    for shown, weight in shown_sizes.items():
        scaled = view(images, shown)
        features = model.backbone(torch.cat([scaled, scaled.flip(-1)]) if flip else scaled)
        logits = model.scale * model.head(features.mean(dim=(2, 3), keepdim=True)).flatten(1)
        probabilities += weight * list(logits.float().sigmoid().split(len(images)))
        attention = functional.relu(model.head(features))
        own = model.backbone.grid
        # Pixel p of the scaled image is pixel (p + .5) / ratio - .5 of the image; sides are rounded one by one.
        rows, columns = (Grid(own.stride / ratio, (own.origin + 0.5) / ratio - 0.5)
                         for ratio in (scaled.shape[-2] / height, scaled.shape[-1] / width))
        # Pixel p of the image is pixel width - 1 - p of its mirror image.
        mirrored = Grid(-grid.stride, width - 1 - grid.origin)
        for view_number, maps in enumerate(attention):
            number, target = view_number % len(images), grid if view_number < len(images) else mirrored
            maps = maps[None, list(classes[number])]
            totals[number] += weight * resample_output(maps, rows, grid, size, (columns, target))[0]
    maxima = [total.amax(dim=(1, 2), keepdim=True) for total in totals]
    return ([total / maximum.clamp(min=1e-8) for total, maximum in zip(totals, maxima, strict=True)],
            torch.stack(probabilities).mean(0))
