"""Groups of pixels by their embeddings (section 3.3): background pixels by k-means, assignment."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stages.runtime.devices import exact_products

_CHUNK = 1 << 18
"""Pixels that are compared at a time, so that memory does not grow with the image."""


@exact_products()
def background_pixels(embeddings: Tensor, background: np.ndarray, count: int, rounds: int = 20) -> np.ndarray:
    """Pixels that stand for the background: for each cluster of a k-means the one nearest to its mean (sec. 3.3).

    The clusters start from the pixel nearest to the mean of all and, one after the other, the pixel farthest from
    those before: nothing is left to chance.

    Args:
        embeddings: (d, H, W).
        background: (H, W) bool.
        count: k, the number of objects.
        rounds: most iterations (not in the paper).

    Returns:
        (at most ``count``, 2) int64, row and column.
    """
    free = np.flatnonzero(background)
    if not len(free) or not count:
        return np.zeros((0, 2), np.int64)
    values = embeddings.flatten(1)[:, torch.from_numpy(free).to(embeddings.device)].T.float()  # (M, d)
    values = values - values.mean(0)  # products of centred vectors lose fewer digits
    centres = _spread(values, min(count, len(free)))
    assigned = _squared(values, centres).argmin(1)
    for _ in range(rounds):
        member = torch.nn.functional.one_hot(assigned, len(centres)).to(values.dtype)
        sizes = member.sum(0)
        centres = torch.where(sizes[:, None] > 0, member.T @ values / sizes[:, None].clamp(min=1), centres)
        before, assigned = assigned, _squared(values, centres).argmin(1)
        if torch.equal(before, assigned):
            break
    distances = _squared(values, centres) + values.square().sum(1)[:, None]
    own = torch.nn.functional.one_hot(assigned, len(centres)).bool()
    nearest = distances.masked_fill(~own, torch.inf).argmin(0)[own.any(0)]
    chosen = np.sort(free[nearest.cpu().numpy()])
    return np.stack([chosen // background.shape[1], chosen % background.shape[1]], 1).astype(np.int64)


def _spread(values: Tensor, count: int) -> Tensor:
    """(count, d): the vector nearest to the origin, then always the one farthest from those that are chosen."""
    chosen = [int(values.square().sum(1).argmin())]
    nearest = (values - values[chosen[0]]).square().sum(1)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (values - values[chosen[-1]]).square().sum(1))
    return values[chosen]


def _squared(values: Tensor, centres: Tensor) -> Tensor:
    """(M, k) squared distances without what all centres share, the length of the vector itself."""
    return centres.square().sum(1) - 2 * values @ centres.T


@exact_products()
def group(embeddings: Tensor, yx: np.ndarray, background_yx: np.ndarray) -> Tensor:
    """Assign every pixel to the point, or to the background pixel, that is most like it (eq. 2).

    Args:
        embeddings: (d, H, W).
        yx: (n, 2) pixels of the objects.
        background_yx: (B, 2) pixels of the background.

    Returns:
        (H, W) int64 on the embeddings' device: the number of an object, or -1 for the background. Of equally similar
        ones the first, objects before the background; with no point all is background.
    """
    height, width = embeddings.shape[1:]
    if not len(yx):
        return torch.full((height, width), -1, device=embeddings.device)
    at = torch.from_numpy(np.concatenate([yx, background_yx])).to(embeddings.device)
    anchors = embeddings[:, at[:, 0], at[:, 1]].T.float()  # (n + B, d)
    middle = anchors.mean(0)
    anchors = anchors - middle
    offsets = 0.5 * anchors.square().sum(1)[:, None]
    nearest = torch.cat([(anchors @ (part.float() - middle[:, None]) - offsets).argmax(0)
                         for part in embeddings.flatten(1).split(_CHUNK, dim=1)])
    return torch.where(nearest < len(yx), nearest, -1).view(height, width)
