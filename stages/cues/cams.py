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
                  stride: int) -> Callable[[str, Entry, Tensor], dict[str, np.ndarray]]:
    """What gives the attention maps of one image, for a walk over images.

    Args:
        classifier: folder of the trained classifier; its categories (things, or things and stuff) are those of the
            maps.
        device: where it runs.
        settings: scales, flip and cap.
        stride: image pixels per cell of the maps.

    Returns:
        A function of the sub-folder (of no account here), a COCO image with ``tags`` and its pixels (3, H, W) uint8,
        which gives ``classes`` (K,) category ids of the tags that the classifier knows, by id, and ``cams`` (K, h, w)
        float16 in 0..1.
    """
    model, category_ids = load_classifier(classifier, device)

    def infer(folder: str, image: Entry, pixels: Tensor) -> dict[str, np.ndarray]:
        classes = [index for index, category in enumerate(category_ids) if category in image["tags"]]
        cams, _ = class_attention_maps(model, pixels.to(device), classes, scales=settings.scales, flip=settings.flip,
                                       grid=grid_of(stride), max_pixels=settings.max_pixels)
        return {"classes": np.array([category_ids[index] for index in classes], np.int64),
                "cams": cams.cpu().numpy().astype(np.float16)}

    return infer


def class_attention_maps(model: Classifier, image: Tensor, classes: Sequence[int], *, scales: Sequence[float],
                         flip: bool, grid: Grid, max_pixels: float = math.inf) -> tuple[Tensor, Tensor]:
    """Attention maps of the classes that an image has, over several scales (IRNet eq. 1).

    The maps of all scales, and of the mirrored image, are brought to one grid and added before they are divided by
    their maximum (scales and flips are not in the paper).

    Args:
        model: in evaluation mode.
        image: (3, H, W) uint8 RGB on the model's device.
        classes: indices of the classes that the image's tags name; the maps of others are zero by definition.
        scales: factors on the image's size.
        flip: also look at the mirrored image.
        grid: where the result's cells lie, e.g. ``grid_of(4)``.
        max_pixels: a view that would have more is taken at the largest scale that fits.

    Returns:
        Maps (len(classes), ceil(H / stride), ceil(W / stride)) in 0..1, float32, the maximum of each 1 (or 0 where
        a class has no attention at all), and the probabilities (classes of the model,) averaged over the views.
    """
    height, width = image.shape[-2:]
    size = (-(-height // int(grid.stride)), -(-width // int(grid.stride)))
    total = torch.zeros(len(classes), *size, device=image.device)
    probabilities = []
    # Scales that the cap makes equal are looked at once and counted as often as they were asked for.
    shown_sizes = Counter(view_size((height, width), scale, max_pixels) for scale in scales)
    for shown, weight in shown_sizes.items():
        scaled = view(image, shown)
        views = torch.stack([scaled, scaled.flip(-1)]) if flip else scaled[None]
        features = model.backbone(views)
        logits = model.scale * model.head(features.mean(dim=(2, 3), keepdim=True)).flatten(1)
        probabilities += weight * [logits.float().sigmoid()]
        attention = functional.relu(model.head(features))[:, list(classes)]
        own = model.backbone.grid
        # Pixel p of the scaled image is pixel (p + .5) / ratio - .5 of the image; sides are rounded one by one.
        rows, columns = (Grid(own.stride / ratio, (own.origin + 0.5) / ratio - 0.5)
                         for ratio in (scaled.shape[-2] / height, scaled.shape[-1] / width))
        total += weight * resample_output(attention[:1], rows, grid, size, (columns, grid))[0]
        if flip:
            # Pixel p of the image is pixel width - 1 - p of its mirror image.
            mirrored = Grid(-grid.stride, width - 1 - grid.origin)
            total += weight * resample_output(attention[1:], rows, grid, size, (columns, mirrored))[0]
    maxima = total.amax(dim=(1, 2), keepdim=True)
    return total / maxima.clamp(min=1e-8), torch.cat(probabilities).mean(0)
