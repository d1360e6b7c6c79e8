"""Centres of instances in heat maps and offset fields, and pixels to their nearest centre (eq. 1).

All on the device, for a whole batch, without a loop over images, components or instances: what belongs to a component
is found by its number in a map, and sums, maxima and counts are scattered by it. Components are numbered over the
whole batch, from 1; 0 is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipelines.bestie.settings import CentreSettings

# Pixels are compared with this many centres at a time.
_BLOCK = 8


@dataclass(frozen=True)
class Centres:
    """M centres sorted by component; within one those of the heat map first, each kind in reading order.

    Attributes:
        component: (M,) numbers of the components, from 1.
        y, x: (M,) int64.
        score: (M,) heat of a maximum, class probability of a clustered centre.
        clustered: (M,) bool.
    """

    component: Tensor
    y: Tensor
    x: Tensor
    score: Tensor
    clustered: Tensor


def number_over_batch(components: Tensor) -> tuple[Tensor, int]:
    """(B, H, W) numbers from 1 in each image to numbers of the whole batch, int64, and how many there may be."""
    most = int(components.max()) if components.numel() else 0
    first = torch.arange(len(components), device=components.device).view(-1, 1, 1) * most
    return torch.where(components > 0, components + first, 0), most * len(components)


def find_centres(heat: Tensor, offset: Tensor, probability: Tensor, category: Tensor, components: Tensor,
                 settings: CentreSettings) -> Centres:
    """Maxima of the heat inside each component, and clustered centres (section 3.5; appendix: center clustering).

    Args:
        heat: (B, C, H, W) class-wise.
        offset: (B, 2, H, W) as (dy, dx) [px].
        probability: (B, C + 1, H, W) of background and classes; read only at clustered centres.
        category: (B, H, W) int64, class index from 0 of every pixel in a component; anything in 0..C - 1 elsewhere.
        components: (B, H, W) int64 numbered over the batch; each has one class.
        settings: see ``CentreSettings``.
    """
    own = heat.gather(1, category[:, None])[:, 0]  # (B, H, W): the heat of each pixel's class
    at = window_maxima(own, components, settings.window, settings.threshold)
    image, y, x = _unravel(at, own.shape)
    component, score = components.flatten()[at], own.flatten()[at]
    clustered = torch.zeros_like(at, dtype=torch.bool)
    if settings.clustering:
        member, cluster_y, cluster_x = offset_clusters(offset, components, settings.offset, settings.tolerance)
        cluster_image = member // own[0].numel()
        cluster_component, cluster_class = components.flatten()[member], category.flatten()[member]
        # A cluster's mean may lie beside its component, where another class stands.
        warm = heat[cluster_image, cluster_class, cluster_y, cluster_x] > settings.heat
        squares = (cluster_y[:, None] - y) ** 2 + (cluster_x[:, None] - x) ** 2
        near = (cluster_component[:, None] == component) & (squares <= settings.merge ** 2)
        kept = warm & ~near.any(1)
        component = torch.cat([component, cluster_component[kept]])
        y, x = torch.cat([y, cluster_y[kept]]), torch.cat([x, cluster_x[kept]])
        likely = probability[cluster_image, cluster_class + 1, cluster_y, cluster_x][kept]
        score, clustered = torch.cat([score, likely]), torch.cat([clustered, torch.ones_like(kept[kept])])
    order = component.argsort(stable=True)
    return Centres(component[order], y[order], x[order], score[order], clustered[order])


def window_maxima(values: Tensor, groups: Tensor, window: int, threshold: float) -> Tensor:
    """Pixels above the threshold that no pixel of their group within the window exceeds.

    Of equal values the first in reading order counts, so that a plateau has one maximum and not as many as pixels.

    Args:
        values: (B, H, W).
        groups: (B, H, W) int, 0 = none.
        window: side of the square window [px], odd.
        threshold: a maximum is higher.

    Returns:
        (M,) indices into the flattened maps, ascending.
    """
    radius = window // 2
    candidates = ((groups > 0) & (values > threshold)).flatten().nonzero()[:, 0]
    # Small windows first: they leave few candidates for the large one.
    for step in sorted({min(1, radius), min(5, radius), radius}):
        candidates = candidates[_unbeaten(values, groups, candidates, step)]
    return candidates


def _unbeaten(values: Tensor, groups: Tensor, candidates: Tensor, radius: int) -> Tensor:
    """(M,) bool: which candidates are maxima of their group within ``radius`` along both axes."""
    padded = functional.pad(values, (radius,) * 4).flatten()
    owners = functional.pad(groups, (radius,) * 4).flatten()  # 0 beyond the border: no candidate's group
    height, width = values.shape[1] + 2 * radius, values.shape[2] + 2 * radius
    image, y, x = _unravel(candidates, values.shape)
    middle = (image * height + y + radius) * width + x + radius
    steps = torch.arange(-radius, radius + 1, device=values.device)
    around = (steps[:, None] * width + steps).flatten()
    places = middle[:, None] + around  # (M, window squared)
    value, mine = padded[middle][:, None], owners[middle][:, None]
    others = padded[places]
    beaten = (others > value) | ((others == value) & (around < 0))
    return ~(beaten & (owners[places] == mine)).any(1)


def offset_clusters(offset: Tensor, components: Tensor, length: float, tolerance: int) -> tuple[Tensor, Tensor, Tensor]:
    """Centres where the field's short offsets form a cluster of the right area (appendix: center clustering).

    Around a centre the pixels with offsets shorter than ``length`` are the lattice points within that distance: 21 at
    2.5. Clusters are 4-connected and lie inside one component.

    Args:
        offset: (B, 2, H, W) as (dy, dx) [px].
        components: (B, H, W) int64 numbered over the batch.
        length: see above [px].
        tolerance: by less than this may the area differ [px].

    Returns:
        For each cluster its first pixel as an index into the flattened maps, ascending, and the mean of its pixels
        rounded down: y, x.
    """
    height, width = components.shape[1:]
    wanted = lattice_points(length)
    short = (components > 0) & (offset.square().sum(1) < length * length)
    pixels = short.flatten().nonzero()[:, 0]
    count = len(pixels)
    here = torch.arange(count, device=pixels.device)
    # links[m]: the places in ``pixels`` of the four neighbours, or m itself where there is none.
    place = torch.full((len(components), height + 2, width + 2), -1, device=pixels.device)
    image, y, x = _unravel(pixels, components.shape)
    place[image, y + 1, x + 1] = here
    links = torch.stack([place[image, y + 1 + dy, x + 1 + dx] for dy, dx in ((-1, 0), (0, -1), (0, 1), (1, 0))], dim=1)
    owner = components.flatten()[pixels]
    linked = (links >= 0) & (owner[links.clamp(min=0)] == owner[:, None])
    links = torch.where(linked, links, here[:, None])
    # The lowest place spreads; a cluster of n pixels is done after n - 1 steps, and larger ones do not count.
    label = here
    for _ in range(wanted + tolerance - 2):
        label = torch.minimum(label, label[links].amin(1)) if count else label
        label = label[label]
    area = torch.zeros_like(here).index_add_(0, label, torch.ones_like(here))
    # Parts of a cluster that is too large for the steps above touch another label.
    touching = (label[links] != label[:, None]).any(1).long()
    part = torch.zeros_like(here).index_add_(0, label, touching) > 0
    first = ((label == here) & ~part & ((area - wanted).abs() < tolerance)).nonzero()[:, 0]
    means = [torch.zeros_like(here).index_add_(0, label, axis)[first] // area[first] for axis in (y, x)]
    return pixels[first], means[0], means[1]


def lattice_points(length: float) -> int:
    """How many points with whole coordinates are nearer than ``length`` to the origin: 21 at 2.5."""
    reach = range(-int(length) - 1, int(length) + 2)
    return sum(y * y + x * x < length * length for y in reach for x in reach)


def nearest_centre(target_y: Tensor, target_x: Tensor, group: Tensor, centre_group: Tensor, centre_y: Tensor,
                   centre_x: Tensor, groups: int) -> Tensor:
    """Eq. 1: the centre of its group that each pixel's offset points nearest to.

    Args:
        target_y, target_x: (P,) where the pixels' offsets point: pixel plus offset.
        group: (P,) in 0..groups - 1.
        centre_group: (M,) ascending.
        centre_y, centre_x: (M,).
        groups: how many.

    Returns:
        (P,) index of a centre, the first of equally near ones; -1 where the group has none.
    """
    counts = torch.bincount(centre_group, minlength=groups)
    most = int(counts.max()) if len(centre_group) else 0
    starts = counts.cumsum(0) - counts
    best = torch.full_like(target_y, torch.inf)
    found = torch.full_like(group, -1)
    for block in range(0, most, _BLOCK):
        rank = torch.arange(block, min(block + _BLOCK, most), device=group.device)
        index = starts[group][:, None] + rank  # (P, block)
        there = rank < counts[group][:, None]
        index = index.clamp(max=len(centre_group) - 1)
        squares = (centre_y[index] - target_y[:, None]) ** 2 + (centre_x[index] - target_x[:, None]) ** 2
        squares, place = squares.masked_fill(~there, torch.inf).min(1)
        closer = squares < best
        best = torch.where(closer, squares, best)
        found = torch.where(closer, index.gather(1, place[:, None])[:, 0], found)
    return found


def _unravel(at: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """Image, row and column of indices into flattened (B, H, W) maps."""
    area, width = shape[1] * shape[2], shape[2]
    return at // area, at % area // width, at % width
