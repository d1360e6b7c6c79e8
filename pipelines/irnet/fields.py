"""Displacement field and class boundary map of whole images (section 4.1), and the field's mean (section 4.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.irnet.network import IRNet, load_irnet
from pipelines.irnet.settings import IRNetSettings
from stages.cues.backbone import Grid, resample_output
from stages.cues.views import view, view_size
from stages.labels.coco import Entry


def field_inference(classifier: Path, irnet: Path, device: torch.device, settings: IRNetSettings
                    ) -> Callable[[list[tuple[str, Entry, Tensor]]], list[dict[str, np.ndarray]]]:
    """What gives the fields of images of one size, for a walk over images that looks at several at once.

    Args:
        classifier, irnet: folders of the trained networks.
        device: where it runs.
        settings: network and inference.

    Returns:
        A function of sub-folders and COCO images (of no account here) and pixels (3, H, W) uint8, which gives of each
        ``displacement`` (2, h, w) float16, (dy, dx) in cells, and ``boundary`` (h, w) float16 in 0..1.

    Raises:
        UserError: weights that are missing, or do not fit the settings.
    """
    model = load_irnet(irnet, classifier, settings, device)

    def infer(images: list[tuple[str, Entry, Tensor]]) -> list[dict[str, np.ndarray]]:
        chosen = settings.inference
        found = fields_of_images(model, torch.stack([pixels for _, _, pixels in images]).to(device), chosen.flip,
                                 chosen.max_pixels, chosen.flip_displacement)
        displacements, boundaries = (maps.cpu().numpy().astype(np.float16) for maps in found)
        return [{"displacement": displacement, "boundary": boundary}
                for displacement, boundary in zip(displacements, boundaries, strict=True)]

    return infer


def fields(model: IRNet, pixels: Tensor, flip: bool, max_pixels: float = math.inf, flip_displacement: bool = True
           ) -> tuple[Tensor, Tensor]:
    """:func:`fields_of_images` of a single image, ``pixels`` (3, H, W) uint8: displacement (2, h, w) and boundary
    (h, w)."""
    displacement, boundary = fields_of_images(model, pixels[None], flip, max_pixels, flip_displacement)
    return displacement[0], boundary[0]


def fields_of_images(model: IRNet, images: Tensor, flip: bool, max_pixels: float = math.inf,
                     flip_displacement: bool = True) -> tuple[Tensor, Tensor]:
    """Displacement and boundary of images of one size.

    Args:
        model: IRNet in evaluation mode.
        images: (B, 3, H, W) uint8 RGB on the model's device; it looks at all of them at once.
        flip: average with the mirror images.
        max_pixels: larger images are looked at at the largest scale that fits.
        flip_displacement: with ``flip``, average the displacement, too, and not the boundary alone.

    Returns:
        Displacement (B, 2, h, w), (dy, dx) in cells of the image's grid, and boundary (B, h, w) in 0..1, both on
        ``model.grid``.
    """
    size = (int(images.shape[2]), int(images.shape[3]))
    shown = view_size(size, max_pixels=max_pixels)
    views = images if shown == size else view(images, shown)
    both = _looked_at(model, views)
    # Pixel p of the view is pixel (p + .5) / ratio - .5 of the image; sides are rounded one by one.
    grid, ratios = model.grid, (shown[0] / size[0], shown[1] / size[1])
    rows, columns = (Grid(grid.stride / ratio, (grid.origin + 0.5) / ratio - 0.5) for ratio in ratios)
    cells = tuple(-(-side // int(grid.stride)) for side in size)
    if shown != size:
        both = resample_output(both, rows, grid, (cells[0], cells[1]), (columns, grid))
    if flip:
        mirrored = _looked_at(model, views.flip(-1))
        mirrored = mirrored * torch.tensor([1.0, -1.0, 1.0], device=mirrored.device).view(1, 3, 1, 1)
        # Pixel p of the image is pixel width - 1 - p of its mirror image, whose cells lie elsewhere if they overhang.
        target = Grid(-grid.stride, size[1] - 1 - grid.origin)
        mean = (both + resample_output(mirrored, rows, grid, (cells[0], cells[1]), (columns, target))) / 2
        both = mean if flip_displacement else torch.cat([both[:, :2], mean[:, 2:]], dim=1)
    if shown != size:
        both = both / torch.tensor([*ratios, 1.0], device=both.device).view(1, 3, 1, 1)
    return both[:, :2], both[:, 2]


def _looked_at(model: IRNet, images: Tensor) -> Tensor:
    """(N, 3, h, w) float32: displacement and boundary of images (N, 3, H, W)."""
    displacement, logits = model(images)
    return torch.cat([displacement.float(), logits.float().sigmoid()[:, None]], dim=1)


def mean_displacement(found: Iterable[tuple[Tensor, np.ndarray | None]]) -> Tensor:
    """Mean of D over the cells of many images (section 4.3).

    Args:
        found: displacement (2, h, w) of each image, on any device, and the cells that count (h, w) bool; none: all.

    Returns:
        (2,) float32 on the CPU, (dy, dx) in cells; 0 where no cell counts. The sum is taken in float64, which not
        every device has.
    """
    total, count = torch.zeros(2, dtype=torch.float64), 0
    for field, chosen in found:
        cells = field.cpu().double()
        cells = cells.reshape(2, -1) if chosen is None else cells[:, torch.from_numpy(chosen)]
        total, count = total + cells.sum(1), count + cells.shape[1]
    return (total / max(count, 1)).float()
