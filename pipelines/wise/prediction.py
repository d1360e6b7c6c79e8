"""What the trained network says of an image: L-Net's blobs and points, and pixels grouped around points."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.wise.blobs import blob_points
from pipelines.wise.given import background, candidates_of, read_points
from pipelines.wise.grouping import background_pixels, group
from pipelines.wise.network import WiseNet
from pipelines.wise.settings import WiseSettings
from pipelines.wise.training import thing_classes
from stages.cues.backbone import Grid, grid_of, resample_output
from stages.cues.views import view, view_size, walk_images
from stages.labels.coco import Entry
from stages.proposals.segments import read_proposals
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings
from stages.runtime.weights import load_weights

SOURCES = {"train": ("given",), "val": ("lnet", "given")}
"""Whose points pixels are grouped around: those of `cues`, and on val also L-Net's."""

SHOWN = 4
"""Pixels between those of the pictures for the gallery [px]."""


def infer_all(file: str, params: Path, weights: Path, points: Path, proposals: Path, settings: WiseSettings,
              runtime: RuntimeSettings, output: Path) -> None:
    """The whole of the stage: ``walk_images`` over train and val with what ``inference`` gives.

    Args:
        file: ``__file__`` of the stage's module.
        params: settings file, for further processes.
        weights, points, proposals, settings: see ``inference``.
        runtime: device and processes.
        output: folder of the maps.
    """
    cues = settings.cues
    weak = {split: read_json(path) for split, path in layout.WEAK.items()}
    walk_images(file, params, runtime, {split: content["images"] for split, content in weak.items()},
                build=lambda device: inference(weights, points, proposals, weak["train"]["categories"], settings,
                                               device),
                inputs=[*layout.WEAK.values(), layout.IMAGES, points, proposals, weights],
                parameters=[settings.inference, settings.network, cues.objectness, cues.background, cues.best,
                            cues.least, cues.disc],
                output=output, description="points and groups")


def inference(weights: Path, points: Path, proposals: Path, categories: list[Entry], settings: WiseSettings,
              device: torch.device) -> Callable[[str, Entry, Tensor], dict[str, np.ndarray]]:
    """What gives the maps of one image, for a walk over images.

    Args:
        weights: of the network.
        points: folder with a sub-folder for each split.
        proposals: folder of the proposals.
        categories: of the data set.
        settings: of cues, network and inference.
        device: where it runs.

    Returns:
        A function of the split, a COCO image and its pixels (3, H, W) uint8; for its result see
        ``pipelines.wise.infer_maps``.
    """
    classes = thing_classes(categories)
    numbers = np.array([0, *classes], np.int64)
    untrained = settings.network.backbone.model_copy(update={"weights": "none"})
    model = WiseNet(settings.network.model_copy(update={"backbone": untrained}), len(classes))
    load_weights(weights, model)
    model = model.to(device).eval()

    def infer(split: str, image: Entry, pixels: Tensor) -> dict[str, np.ndarray]:
        size = (image["height"], image["width"])
        location, embeddings = image_maps(model, pixels.to(device), settings.inference.max_pixels)
        found, scores, blobs = blob_points(location.softmax(0).cpu().numpy(), settings.inference.least)
        result = {"lnet_yx": found.yx, "lnet_categories": numbers[found.classes], "lnet_scores": scores,
                  "blobs": blobs.labels.astype(np.uint16),
                  "colours": colours(embeddings[:, ::SHOWN, ::SHOWN]).cpu().numpy()}
        given = read_points(points / split, image).pixels(size)
        some = read_proposals(proposals, image)
        for source in SOURCES[split]:
            yx = found.yx if source == "lnet" else given
            free = background(some, candidates_of(some, yx, settings.cues), yx, settings.cues)
            labels = group(embeddings, yx, background_pixels(embeddings, free,
                                                             settings.inference.background_pixels or len(yx)))
            result[f"groups_{source}"] = labels.cpu().numpy().astype(np.int16)
            result[f"likeness_{source}"] = likeness(embeddings, labels, yx)
        first = given[:1] if len(given) else found.yx[:1]
        result["similarity"] = similarity(embeddings, first)[::SHOWN, ::SHOWN]
        return result

    return infer


def image_maps(model: WiseNet, image: Tensor, max_pixels: float) -> tuple[Tensor, Tensor]:
    """Logits (C + 1, H, W) and embeddings (d, H, W), float32, of an image (3, H, W) uint8, looked at smaller if it is
    larger."""
    size = (int(image.shape[-2]), int(image.shape[-1]))
    shown = view_size(size, 1.0, max_pixels)
    maps = model(view(image, shown)[None])
    # Pixel p of a smaller view is pixel (p + .5) / ratio - .5 of the image; sides are rounded one by one.
    rows, columns = (Grid(model.grid.stride * side / part, (model.grid.origin + 0.5) * side / part - 0.5)
                     for side, part in zip(size, shown, strict=True))
    location, embeddings = (resample_output(each, rows, grid_of(1), size, (columns, grid_of(1)))[0] for each in maps)
    return location, embeddings


def likeness(embeddings: Tensor, labels: Tensor, yx: np.ndarray) -> np.ndarray:
    """(P,) float32: mean similarity (eq. 2) of an object's pixels to its point; 0 for an object without pixels."""
    found = []
    for number, (row, column) in enumerate(yx.tolist()):
        own = embeddings[:, labels == number]
        exponent = (own - embeddings[:, row, column, None]).square().sum(0) / (2 * len(embeddings))
        found.append(float((-exponent).exp().mean()) if own.shape[1] else 0.0)
    return np.array(found, np.float32)


def similarity(embeddings: Tensor, yx: np.ndarray) -> np.ndarray:
    """(H, W) uint8 in 1/255: similarity of every pixel to one, for the gallery; 0 without one."""
    if not len(yx):
        return np.zeros(embeddings.shape[1:], np.uint8)
    row, column = yx[0].tolist()
    exponent = (embeddings - embeddings[:, row, column, None, None]).square().sum(0) / (2 * len(embeddings))
    return (255 * (-exponent).exp()).round().to(torch.uint8).cpu().numpy()


def colours(embeddings: Tensor) -> Tensor:
    """(H, W, 3) uint8: the three directions in which embeddings differ most, each stretched to 0..255."""
    values = embeddings.flatten(1).double()
    values = values - values.mean(1, keepdim=True)
    _, axes = torch.linalg.eigh((values @ values.T).cpu())
    axes = axes[:, -3:].flip(1)
    # An axis has no sign of its own: the largest component is made positive.
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    shown = (axes * signs).T.to(values) @ values  # (3, H * W), fewer with fewer dimensions
    low, high = shown.amin(1, keepdim=True), shown.amax(1, keepdim=True)
    shown = (255 * (shown - low) / (high - low).clamp(min=1e-12)).round().to(torch.uint8)
    shown = torch.cat([shown, shown.new_zeros(3 - len(shown), shown.shape[1])])
    return shown.T.reshape(*embeddings.shape[1:], 3)
