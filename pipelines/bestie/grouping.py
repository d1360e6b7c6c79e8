"""From the network's outputs to the instances of one image (section 3.2): inference."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipelines.bestie.centres import find_centres, nearest_centre
from pipelines.bestie.network import BestieNetwork
from pipelines.bestie.settings import InferenceSettings
from pipelines.bestie.transfer import candidate_components, components_of
from stages.cues.views import view, view_size


@dataclass(frozen=True)
class Instances:
    """The instances of one image; no pixel belongs to two.

    Attributes:
        labels: (H, W) int32, 0 or the instance's number, from 1.
        categories: (n,) int64 class indices from 0.
        scores: (n,) float32 in 0..1.
        points: (n,) int64, the row of the point that an instance belongs to; -1 where no points are known.
    """

    labels: np.ndarray
    categories: np.ndarray
    scores: np.ndarray
    points: np.ndarray


@torch.no_grad()
def average_views(model: BestieNetwork, image: Tensor, scales: Sequence[float], flip: bool,
                  max_pixels: float = math.inf, flip_offset: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Class probabilities, heat and offsets of one image, averaged over views (not in the paper; published code).

    Offsets are lengths and directions: those of another scale are divided by it, those of the mirrored image point the
    other way along the rows.

    Args:
        model: in evaluation mode.
        image: (3, H, W) uint8 RGB on the model's device.
        scales: factors on the image's size.
        flip: also look at the mirrored image.
        max_pixels: a view that would have more is taken at the largest scale that fits.
        flip_offset: whether the offsets of the mirrored images count, too.

    Returns:
        Probabilities (C + 1, H, W), heat (C, H, W), offsets (2, H, W) as (dy, dx) [px of the image].
    """
    height, width = image.shape[-2:]
    sums: list[Tensor] = []
    for scale in scales:
        size = view_size((height, width), scale, max_pixels)
        shown = view(image, size)
        outputs = model(torch.stack([shown, shown.flip(-1)]) if flip else shown[None])
        probability, heat, offset = outputs.logits.softmax(1), outputs.heat, outputs.offset[:1]
        if flip:
            probability, heat = ((maps[:1] + maps[1:].flip(-1)) / 2 for maps in (probability, heat))
        if flip and flip_offset:
            offset = (offset + outputs.offset[1:].flip(-1) * offset.new_tensor([1, -1]).view(1, 2, 1, 1)) / 2
        ratio = offset.new_tensor([height / size[0], width / size[1]]).view(1, 2, 1, 1)
        maps = torch.cat([probability, heat, offset * ratio], dim=1)
        if size != (height, width):
            maps = functional.interpolate(maps, (height, width), mode="bilinear", antialias=size[0] > height)
        sums.append(maps[0])
    classes = model.classes
    total = torch.stack(sums).mean(0)
    return total[:classes + 1], total[classes + 1:2 * classes + 1], total[2 * classes + 1:]


@torch.no_grad()
def group_instances(probability: Tensor, heat: Tensor, offset: Tensor, settings: InferenceSettings,
                    classes: Collection[int] | None = None, known: np.ndarray | None = None) -> Instances:
    """Instances by components of the most probable class, centres in them, and offsets (eq. 1).

    A score is the heat at the centre times the mean class probability of the mask. For a clustered centre it is that
    probability squared, and for a whole component without a centre its highest heat, if positive, is taken.

    Args:
        probability: (C + 1, H, W) of background and classes.
        heat: (C, H, W).
        offset: (2, H, W) as (dy, dx) [px].
        settings: see ``InferenceSettings``.
        classes: only these, indices from 0: those of an image's tags; all if none are given.
        known: (H, W) the image's semantic map, which takes the place of the most probable classes: 0 background,
            1.. classes, IGNORE (-1) undecided. Probabilities then count for the scores alone.
    """
    semantic, best = _classes(probability, classes, known)
    components = candidate_components(semantic, range(len(heat)), settings.smallest)
    count = int(components.max(initial=0))
    numbers = torch.from_numpy(components).to(heat.device).long()[None]
    centres = find_centres(heat[None], offset[None], probability[None], (best - 1).clamp(min=0)[None], numbers,
                           settings.centres)
    y, x = (numbers[0] > 0).nonzero(as_tuple=True)
    group = numbers[0, y, x]
    instance = nearest_centre(*_landing(offset, y, x), group, centres.component, centres.y, centres.x, count + 1)
    # Components without a centre follow as whole instances.
    found = len(centres.component)
    instance = torch.where(instance < 0, found + group - 1, instance)
    likely = probability[best[y, x], y, x]
    warmth = heat[best[y, x] - 1, y, x]
    lone = torch.zeros(count, device=heat.device).scatter_reduce(
        0, group - 1, warmth.clamp(min=0).float(), "amax")
    area = torch.bincount(instance, minlength=found + count)
    mean = torch.zeros(found + count, dtype=torch.float64, device=heat.device).index_add_(0, instance, likely.double())
    mean = (mean / area.clamp(min=1)).float()
    sure = torch.cat([torch.where(centres.clustered, mean[:found], centres.score), lone])
    kept = area > 0
    if not settings.whole:
        kept[found:] = False
    return _instances((y, x), instance, best[y, x] - 1, (sure * mean).clamp(0, 1), kept, semantic.shape)


@torch.no_grad()
def group_to_points(probability: Tensor, offset: Tensor, points: np.ndarray, known: np.ndarray | None = None,
                    settings: InferenceSettings | None = None) -> Instances:
    """The same where the objects' points are known (section 4.3): each pixel of a class goes to one of its points.

    A score is the mean class probability of the mask. A point that no pixel goes to has no instance.

    Args:
        probability: (C + 1, H, W) of background and classes; only classes with a point compete.
        offset: (2, H, W) as (dy, dx) [px].
        points: (n, 3) rows (class index, y, x) in pixels of the image.
        known: as in ``group_instances``.
        settings: which pixels a point may have (``reach``, ``smallest``), and how far offsets are followed (``trust``).
    """
    settings = settings or InferenceSettings()
    points = np.asarray(points, np.int64).reshape(-1, 3)
    classes = sorted(set(points[:, 0].tolist()))
    semantic, best = _classes(probability, classes, known)
    # Pixels compete for the points of their group: 0 is nobody's.
    groups = semantic if settings.reach == "class" else candidate_components(semantic, classes, settings.smallest)
    own = points[:, 0] + 1 if settings.reach == "class" else components_of(points, groups, semantic)
    order = np.flatnonzero(own)[np.argsort(own[own > 0], kind="stable")]
    points, count = points[order], int(groups.max(initial=0)) + 1
    at_y, at_x, group = torch.from_numpy(np.stack([*points[:, 1:].T, own[order]])).to(offset.device)
    numbers = torch.from_numpy(groups).to(offset.device).long()
    y, x = (numbers > 0).nonzero(as_tuple=True)
    if settings.trust > 0 and len(points):
        nearest = nearest_centre(y.float(), x.float(), numbers[y, x], group, at_y, at_x, count)
        offset = offset.clone()
        offset[:, y, x] *= _trusted(offset, at_y, at_x, group, settings.trust)[nearest.clamp(min=0)]
    instance = nearest_centre(*_landing(offset, y, x), numbers[y, x], group, at_y, at_x, count)
    y, x, instance = (values[instance >= 0] for values in (y, x, instance))
    area = torch.bincount(instance, minlength=len(points))
    mean = torch.zeros(len(points), dtype=torch.float64, device=offset.device)
    mean.index_add_(0, instance, probability[best[y, x], y, x].double())
    return _instances((y, x), instance, best[y, x] - 1, (mean / area.clamp(min=1)).float(), area > 0, semantic.shape,
                      order)


def _trusted(offset: Tensor, y: Tensor, x: Tensor, group: Tensor, trust: float) -> Tensor:
    """(n,) how far the offsets (2, H, W) around points are followed: see ``InferenceSettings.trust``."""
    apart = torch.hypot((y[:, None] - y).float(), (x[:, None] - x).float())
    rivals = (group[:, None] == group) & ~torch.eye(len(group), dtype=torch.bool, device=group.device)
    distance = apart.masked_fill(~rivals, torch.inf).amin(1).clamp(min=1e-6)
    return 1 / (1 + (torch.hypot(*offset[:, y, x].float()) / (trust * distance)) ** 2)


def _landing(offset: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Where the offsets (2, H, W) of pixels (P,) lead: rows and columns (P,)."""
    shift = offset[:, y, x]
    return y + shift[0], x + shift[1]


def _classes(probability: Tensor, classes: Collection[int] | None, known: np.ndarray | None
             ) -> tuple[np.ndarray, Tensor]:
    """(H, W) most probable, or known, of the background, 0, and the wanted classes, 1..: on the CPU, and on the device.
    """
    if known is not None:
        kept = known > 0 if classes is None else np.isin(known, [index + 1 for index in classes])
        semantic = np.where(kept, known, 0).astype(np.int32)
        return semantic, torch.from_numpy(semantic).long().to(probability.device)
    if classes is not None:
        wanted = torch.zeros(len(probability), dtype=torch.bool, device=probability.device)
        wanted[[0, *(index + 1 for index in classes)]] = True
        probability = probability.masked_fill(~wanted[:, None, None], -1)
    best = probability.argmax(0)
    return best.cpu().numpy().astype(np.int32), best


def _instances(at: tuple[Tensor, Tensor], instance: Tensor, category: Tensor, score: Tensor, kept: Tensor,
               size: tuple[int, ...], points: np.ndarray | None = None) -> Instances:
    """Number the instances that are kept, in their order."""
    number = torch.where(kept, kept.cumsum(0), 0)
    labels = torch.zeros(size, dtype=torch.int64, device=score.device)
    labels[at] = number[instance]
    categories = torch.zeros_like(number)
    categories[instance] = category
    chosen = kept.cpu().numpy()
    return Instances(labels.cpu().numpy().astype(np.int32), categories.cpu().numpy()[chosen],
                     score.cpu().numpy()[chosen], np.full(chosen.sum(), -1) if points is None else points[chosen])
