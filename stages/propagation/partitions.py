"""Several partitions of one image into labels, each refined by a dense CRF."""

from __future__ import annotations

import math

import numpy as np
import torch

from stages.propagation.dense_crf import crf_labels_by
from stages.propagation.kernels import Kernel
from stages.propagation.label_mean_field import image_kernels
from stages.propagation.settings import DenseCrfSettings


def refine_partitions(settings: DenseCrfSettings, image: np.ndarray, partitions: np.ndarray, n_labels: int
                      ) -> np.ndarray:
    """The most probable labels after mean-field steps from hard labels, each partition on its own.

    Args:
        settings: of the CRF, and by what it is computed; with 0 iterations the partitions come back as they are.
        image: (H, W, 3) uint8 RGB.
        partitions: (S, H, W) integers in [0, n_labels).
        n_labels: number of labels, >= 1.

    Returns:
        (S, H, W) int64. The same input gives the same bytes on the same machine.

    Raises:
        ValueError: shapes or types that do not fit, labels outside their range, a confidence that the other labels'
            share would exceed.
        UserError: pydensecrf is asked for and not installed.
    """
    _check(settings, image, partitions, n_labels)
    if not settings.iterations or n_labels == 1 or partitions.size == 0:
        return partitions.astype(np.int64)
    if settings.engine == "pydensecrf":
        return np.stack([crf_labels_by(settings, image, partition, n_labels) for partition in partitions])
    return _on_one_lattice(settings, image, partitions, n_labels)


@torch.no_grad()
def _on_one_lattice(settings: DenseCrfSettings, image: np.ndarray, partitions: np.ndarray, n_labels: int
                    ) -> np.ndarray:
    """What ``crf_labels`` gives for each partition, on the same kind of lattice, which is built once for all of them.

    As a pixel's marginals sum to one, label 0 needs no filtering: its messages are those of ones, minus all others'.
    """
    kernels = image_kernels(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1),
                            gaussian_xy=settings.gaussian_xy, bilateral_xy=settings.bilateral_xy,
                            bilateral_rgb=settings.bilateral_rgb)
    weighted = [(weight, kernel) for weight, kernel in zip(
        (settings.gaussian_weight, settings.bilateral_weight), kernels, strict=True) if weight]
    total = _filtered(torch.ones(1, 1, *image.shape[:2]), weighted)  # (1, 1, H, W)
    # Logits relative to label 0: those of a pixel's own label lead by this margin.
    margin = math.log(settings.confidence) - math.log((1 - settings.confidence) / (n_labels - 1))
    given = torch.from_numpy(np.ascontiguousarray(partitions))[:, None]  # (S, 1, H, W)
    labels = torch.arange(1, n_labels)[:, None, None]
    unary = margin * ((given == labels).float() - (given == 0).float())  # (S, L - 1, H, W)
    logits = unary
    for _ in range(settings.iterations):
        logits = unary + _messages(logits, weighted)
        logits -= total
    best, label = logits.max(1)
    return torch.where(best > 0, label + 1, 0).numpy()


def _messages(logits: torch.Tensor, weighted: list[tuple[float, Kernel]]) -> torch.Tensor:
    """What the labels 1, 2, ... hear, beyond what label 0 hears of them: (S, L - 1, H, W)."""
    highest = logits.amax(1, keepdim=True).clamp_(min=0)
    marginals = (logits - highest).exp_()
    marginals /= marginals.sum(1, keepdim=True).add_(highest.neg_().exp_())
    heard = _filtered(marginals.flatten(0, 1)[None], weighted).view_as(logits)
    return heard + heard.sum(1, keepdim=True)


def _filtered(maps: torch.Tensor, weighted: list[tuple[float, Kernel]]) -> torch.Tensor:
    """The weighted sum of all kernels' filters of maps (1, L, H, W)."""
    total = torch.zeros_like(maps)
    for weight, kernel in weighted:
        total.add_(kernel.filtered(maps), alpha=weight)
    return total


def _check(settings: DenseCrfSettings, image: np.ndarray, partitions: np.ndarray, n_labels: int) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"the image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if partitions.ndim != 3 or partitions.shape[1:] != image.shape[:2]:
        raise ValueError(f"partitions must be (S, {image.shape[0]}, {image.shape[1]}), got {partitions.shape}")
    if not np.issubdtype(partitions.dtype, np.integer):
        raise ValueError(f"partitions must be integers, got {partitions.dtype}")
    if n_labels < 1 or (partitions.size and not (partitions.min() >= 0 and partitions.max() < n_labels)):
        raise ValueError(f"labels must lie in [0, {n_labels}), and there must be at least one label")
    if n_labels > 1 and not settings.confidence > 1 / n_labels:
        raise ValueError(f"the confidence must exceed 1 / n_labels = {1 / n_labels:g}, got {settings.confidence}")
