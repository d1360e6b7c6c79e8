"""Refined labels from the network's own output, at every step (section 3.5; listing 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.bestie.centres import find_centres, nearest_centre, number_over_batch
from pipelines.bestie.settings import RefinementSettings
from pipelines.bestie.targets import Targets, gaussian_maps


@dataclass(frozen=True)
class Pixels:
    """P pixels of a batch: image, row, column and class index from 0, (P,) int64 each."""

    image: Tensor
    y: Tensor
    x: Tensor
    category: Tensor


@dataclass(frozen=True)
class Grouped:
    """Pixels by instance: ``instance`` (P,) is an index into the centres ``y``, ``x`` and weights ``score``, (n,) each.

    An instance without a pixel is none.
    """

    pixels: Pixels
    instance: Tensor
    y: Tensor
    x: Tensor
    score: Tensor


@torch.no_grad()
def refined_targets(heat: Tensor, offset: Tensor, logits: Tensor, semantic: Tensor, components: Tensor,
                    settings: RefinementSettings, sigma: float) -> Targets:
    """Guidance by the network's own instances inside the given semantic map.

    In every component the pixels go to the nearest of its centres by their offsets (eq. 1). Components without a
    centre, and those with more than ``settings.most``, guide nothing.

    Args:
        heat: (B, C, H, W), network output.
        offset: (B, 2, H, W) as (dy, dx) [px], network output.
        logits: (B, C + 1, H, W) of background and classes, network output.
        semantic: (B, H, W) the given map: 0 background, 1.. classes, IGNORE (-1) undecided.
        components: (B, H, W) numbers of its components, from 1 in each image; each of one class.
        settings: see ``RefinementSettings``.
        sigma: of the Gaussians [px].

    Returns:
        Targets whose weights are those of eq. 2.
    """
    return _targets(refined_instances(heat, offset, logits, semantic, components, settings), heat.shape, sigma)


@torch.no_grad()
def refined_instances(heat: Tensor, offset: Tensor, logits: Tensor, semantic: Tensor, components: Tensor,
                      settings: RefinementSettings) -> Grouped:
    """The instances behind ``refined_targets``, whose arguments it takes."""
    heat, offset = heat.float(), offset.float()
    probability = logits.float().softmax(1)
    numbers, count = number_over_batch(components)
    category = (semantic.long() - 1).clamp(0, heat.shape[1] - 1)
    centres = find_centres(heat, offset, probability, category, numbers, settings.centres)
    counts = torch.bincount(centres.component, minlength=count + 1)
    usable = (counts > 0) & (counts <= settings.most)
    kept = usable[centres.component]
    component, y, x, score = (values[kept] for values in (centres.component, centres.y, centres.x, centres.score))

    pixels = _pixels(usable[numbers], category)
    group = numbers[pixels.image, pixels.y, pixels.x]
    shift = offset[pixels.image, :, pixels.y, pixels.x]
    instance = nearest_centre(pixels.y + shift[:, 0], pixels.x + shift[:, 1], group, component, y, x, count + 1)
    if settings.weight == "heat_class":
        likely = probability[pixels.image, pixels.category + 1, pixels.y, pixels.x]
        score = score * _mean(likely, instance, len(score))
    y, x = mask_centres(pixels, instance, y, x, settings.centre)
    return Grouped(pixels, instance, y, x, score)


@torch.no_grad()
def point_targets(offset: Tensor, semantic: Tensor, points: Tensor, classes: int, sigma: float) -> Targets:
    """The same where the objects' points are known (section 4.3): the foreground of a class is shared by its points.

    Pixels go to the point of their class that their offset points nearest to, across components, with weight 1;
    offsets aim at it, and Gaussians stand at all points.

    Args:
        offset: (B, 2, H, W) as (dy, dx) [px], network output.
        semantic: (B, H, W) the given map: 0 background, 1.. classes, IGNORE (-1) undecided.
        points: (B, n, 3) int64 rows (class index, y, x); rows of -1 fill up.
        classes: how many.
        sigma: of the Gaussians [px].
    """
    count, height, width = semantic.shape
    targets = _targets(point_instances(offset, semantic, points, classes), torch.Size((count, classes, height, width)),
                       sigma)
    flat = points.flatten(0, 1)
    image = torch.arange(count, device=points.device).repeat_interleave(points.shape[1])
    heat = gaussian_maps(image, flat[:, 0], flat[:, 1], flat[:, 2], (count, classes, height, width), sigma)
    return Targets(heat, targets.offset, targets.centre_weight, targets.offset_weight)


@torch.no_grad()
def point_instances(offset: Tensor, semantic: Tensor, points: Tensor, classes: int) -> Grouped:
    """The instances behind ``point_targets``, whose arguments it takes."""
    offset = offset.float()
    image = torch.arange(len(points), device=points.device).repeat_interleave(points.shape[1])
    category, y, x = points.flatten(0, 1).unbind(1)
    given = category >= 0
    image, category, y, x = image[given], category[given], y[given], x[given]
    owner = image * classes + category
    order = owner.argsort(stable=True)
    image, category, y, x, owner = (values[order] for values in (image, category, y, x, owner))
    shared = torch.zeros(len(points), classes + 1, dtype=torch.bool, device=points.device)
    shared[image, category + 1] = True
    known = semantic.long().clamp(min=0)
    pixels = _pixels(shared.gather(1, known.flatten(1)).view_as(known), (known - 1).clamp(min=0))
    shift = offset[pixels.image, :, pixels.y, pixels.x]
    instance = nearest_centre(pixels.y + shift[:, 0], pixels.x + shift[:, 1], pixels.image * classes + pixels.category,
                              owner, y, x, len(points) * classes)
    return Grouped(pixels, instance, y, x, torch.ones_like(y, dtype=torch.float32))


def mask_centres(pixels: Pixels, instance: Tensor, y: Tensor, x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Centres (n,), (n,) of masks: the centroid rounded down, the mask's pixel nearest to it, or as they were found.

    Args:
        pixels: in reading order.
        instance: (P,) index of the mask that a pixel belongs to.
        y, x: (n,) centres as they were found; they stay where a mask is empty.
        kind: "centroid", "nearest" or "found".
    """
    if kind == "found" or len(y) == 0:
        return y, x
    zeros = torch.zeros_like(y)
    area = zeros.index_add(0, instance, torch.ones_like(instance))
    sum_y, sum_x = zeros.index_add(0, instance, pixels.y), zeros.index_add(0, instance, pixels.x)
    there = area > 0
    if kind == "centroid":
        divisor = area.clamp(min=1)
        return torch.where(there, sum_y // divisor, y), torch.where(there, sum_x // divisor, x)
    # Exact: whole numbers over the area squared.
    size = area[instance]
    distance = (pixels.y * size - sum_y[instance]) ** 2 + (pixels.x * size - sum_x[instance]) ** 2
    least = torch.full_like(y, torch.iinfo(torch.int64).max).scatter_reduce(0, instance, distance, "amin")
    place = torch.arange(len(instance), device=instance.device)
    place = torch.where(distance == least[instance], place, len(instance))
    first = torch.full_like(y, len(instance)).scatter_reduce(0, instance, place, "amin")
    first = first.clamp(max=len(instance) - 1)
    return torch.where(there, pixels.y[first], y), torch.where(there, pixels.x[first], x)


def _pixels(chosen: Tensor, category: Tensor) -> Pixels:
    image, y, x = chosen.nonzero(as_tuple=True)
    return Pixels(image, y, x, category[image, y, x])


def _mean(values: Tensor, instance: Tensor, count: int) -> Tensor:
    """(count,) means of (P,) values by instance, in double precision; 0 for an instance without pixels."""
    area = torch.bincount(instance, minlength=count)
    sums = torch.zeros(count, dtype=torch.float64, device=values.device).index_add_(0, instance, values.double())
    return (sums / area.clamp(min=1)).float()


def _targets(found: Grouped, shape: torch.Size, sigma: float) -> Targets:
    """Guidance by instances."""
    count, classes, height, width = shape
    pixels, instance, y, x, score = found.pixels, found.instance, found.y, found.x, found.score
    # Which image and class an instance has, any of its pixels can say; one without pixels is none.
    image, category = torch.zeros_like(y), torch.full_like(y, -1)
    image[instance], category[instance] = pixels.image, pixels.category
    heat = gaussian_maps(image, category, y, x, (count, classes, height, width), sigma)
    offset = torch.zeros(count, 2, height, width, device=score.device)
    aim = torch.stack([y[instance] - pixels.y, x[instance] - pixels.x], dim=1)
    offset[pixels.image, :, pixels.y, pixels.x] = aim.float()
    weight = torch.zeros(count, height, width, device=score.device)
    weight[pixels.image, pixels.y, pixels.x] = score[instance]
    return Targets(heat, offset, weight, weight)
