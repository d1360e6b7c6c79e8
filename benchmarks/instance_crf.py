"""Panoptic's instance CRF on the CPU, 20 instances and the background: against pydensecrf, and against all pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from benchmarks.mean_field import inputs as crops
from benchmarks.measure import Measurement, measure, row
from pipelines.panoptic.instance_head import Detections, InstanceHead, instance_unaries, join, stuff_detections
from stages.propagation.dense_crf import dense_crf
from stages.propagation.label_mean_field import image_kernels

ABOUT_SECONDS = 60
# Widths in shares of the image's side: those of the published results at 512 px.
SETTINGS: dict[str, Any] = {"instances": 20, "classes": 4, "steps": 3, "gaussian": [3 / 512, 3],
                            "bilateral": [49 / 512, 5, 4], "threads": 1}
SEED = 0
SIDE = 512
EXACT_SIDE = 48


def rows() -> dict[str, dict[str, float]]:
    """``size`` is the pixels. The rows without a suffix are inference, lattice included; ``_training`` is that and the
    backward pass, ``_lattice`` what both need once per image.

    rel_error of marginals is that against pydensecrf, whose lattice is an approximation as ours; in the rows ``_pairs``
    that of marginals and of gradients is against every pair in float64, which is the lattice's own error.
    """
    table = {f"{SIDE}x{SIDE}": row(SIDE**2, _measure("ours", SIDE), _measure("pydensecrf", SIDE)),
             f"{SIDE}x{SIDE}_training": row(SIDE**2, _measure("training", SIDE), None),
             f"{SIDE}x{SIDE}_lattice": row(SIDE**2, _measure("lattice", SIDE), None)}
    for name, reference, suffix in (("ours", "all_pairs", ""), ("training", "all_pairs_training", "_training")):
        table[f"{EXACT_SIDE}x{EXACT_SIDE}_pairs{suffix}"] = row(
            EXACT_SIDE**2, _measure(name, EXACT_SIDE), _measure(reference, EXACT_SIDE, 1))
    return table


def _measure(name: str, side: int, repeats: int = 3) -> Measurement:
    return measure(f"benchmarks.instance_crf:{name}", repeats, side=side)


def inputs(side: int) -> tuple[Tensor, Tensor, Detections]:
    """log Q (5, H, W) of smooth regions, an image (3, H, W) uint8, and detections: random boxes and the background."""
    torch.set_num_threads(SETTINGS["threads"])
    rng = np.random.default_rng(SEED)
    count, classes = SETTINGS["instances"], SETTINGS["classes"]
    fields = gaussian_filter(rng.standard_normal((classes + 1, side, side)), (0, side / 16, side / 16))
    fields *= 2 / fields.std(axis=(1, 2), keepdims=True)
    log_q = torch.from_numpy(fields).float().log_softmax(0)
    centres, sizes = rng.random((count, 2)) * side, side * rng.uniform(0.1, 0.4, (count, 2))
    boxes = torch.from_numpy(np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)).float()
    found = Detections(boxes, torch.from_numpy(rng.integers(1, classes + 1, count)),
                       torch.from_numpy(rng.random(count)).float())
    image = torch.from_numpy(crops(1, side)[1][0])
    return log_q, image, join(found, stuff_detections([0], log_q))


def _head(side: int) -> InstanceHead:
    return InstanceHead(**_settings(side), steps=SETTINGS["steps"])


def _settings(side: int) -> dict[str, float]:
    (gaussian_xy, gaussian_weight), (xy, rgb, weight) = SETTINGS["gaussian"], SETTINGS["bilateral"]
    return {"gaussian_xy": gaussian_xy * side, "gaussian_weight": gaussian_weight, "bilateral_xy": xy * side,
            "bilateral_rgb": rgb, "bilateral_weight": weight}


def ours(side: int) -> Callable[[], np.ndarray]:
    log_q, image, labels = inputs(side)
    head = _head(side)

    @torch.no_grad()
    def infer() -> np.ndarray:
        return head(log_q, image, labels).exp_().numpy()

    return infer


def training(side: int) -> Callable[[], np.ndarray]:
    """The gradient for log Q of the summed log marginals of a checkerboard of labels."""
    log_q, image, labels = inputs(side)
    head, given = _head(side), log_q.requires_grad_()

    def infer() -> np.ndarray:
        given.grad = None
        _objective(head(given, image, labels)).backward()
        return given.grad.numpy()

    return infer


def _objective(log_marginals: Tensor) -> Tensor:
    labels, height, width = log_marginals.shape
    chosen = (torch.arange(height)[:, None] // 8 + torch.arange(width) // 8) % labels
    return log_marginals.gather(0, chosen[None]).sum()


def lattice(side: int) -> Callable[[], np.ndarray]:
    _, image, _ = inputs(side)
    widths = {key: value for key, value in _settings(side).items() if "weight" not in key}
    return lambda: np.array([kernel.size for kernel in image_kernels(image, **widths)])


def pydensecrf(side: int) -> Callable[[], np.ndarray]:
    log_q, image, labels = inputs(side)
    probabilities = instance_unaries(log_q, labels, 1.0, 1.0).exp().numpy()
    picture = np.ascontiguousarray(np.moveaxis(image.numpy(), 0, -1))
    settings = _settings(side)
    return lambda: dense_crf(
        picture, probabilities, iterations=SETTINGS["steps"], gaussian_sxy=settings["gaussian_xy"],
        gaussian_compat=settings["gaussian_weight"], bilateral_sxy=settings["bilateral_xy"],
        bilateral_srgb=settings["bilateral_rgb"], bilateral_compat=settings["bilateral_weight"])


def all_pairs(side: int) -> Callable[[], np.ndarray]:
    return lambda: _all_pairs(*inputs(side), side).exp().numpy()


def all_pairs_training(side: int) -> Callable[[], np.ndarray]:
    def infer() -> np.ndarray:
        log_q, image, labels = inputs(side)
        given = log_q.double().requires_grad_()
        _objective(_all_pairs(given, image, labels, side)).backward()
        return given.grad.numpy()

    return infer


def _all_pairs(log_q: Tensor, image: Tensor, labels: Detections, side: int) -> Tensor:
    """Log marginals with a dense matrix in float64; torch, for its gradient."""
    settings = _settings(side)
    unary = instance_unaries(log_q.double(), labels, 1.0, 1.0).reshape(len(labels.boxes), -1)
    position = np.stack(np.mgrid[:side, :side], axis=-1).reshape(-1, 2)
    colour = image.numpy().reshape(3, -1).T / settings["bilateral_rgb"]
    coupling = torch.zeros(side**2, side**2, dtype=torch.float64)
    for name, features in (("gaussian", position / settings["gaussian_xy"]),
                           ("bilateral", np.concatenate([position / settings["bilateral_xy"], colour], axis=1))):
        kernel = torch.cdist(*[torch.from_numpy(features)] * 2).square_().div_(-2).exp_()
        root = kernel.sum(1).sqrt()
        coupling += settings[f"{name}_weight"] * kernel / root[:, None] / root
    logits = unary
    for _ in range(SETTINGS["steps"]):
        logits = unary + logits.softmax(0) @ coupling
    return logits.log_softmax(0).reshape(-1, side, side)
