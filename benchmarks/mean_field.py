"""The two-class mean-field in torch on the CPU: against pydensecrf crop by crop, and a window against all pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.measure import Measurement, measure, row

ABOUT_SECONDS = 60
# Widths in shares of the crop's side, so that a size is the same problem at another resolution.
SETTINGS = {"iterations": 10, "gaussian": [1 / 128, 1], "bilateral": [10 / 128, 8, 4], "window": 8, "threads": 1}
SEED = 0
SIZES = [(1, 512), (8, 512), (8, 128)]  # crops in a batch, side
WINDOW_SIZE = (8, 128)
EXACT_SIZE = (1, 48)


def rows() -> dict[str, dict[str, float]]:
    """Rows ``<batch>x<side>x<side>``; ``size`` is the pixels of the batch, times are for all of it.

    rel_error is that against pydensecrf, whose own lattice is an approximation; in the rows ``_pairs`` it is that
    against every pair in float64. ``_window`` is the sum over a window; it has no reference.
    """
    table = {}
    for batch, side in SIZES:
        ours, reference = _measure("ours", batch, side), _measure("pydensecrf", batch, side)
        table[f"{batch}x{side}x{side}"] = row(batch * side * side, ours, reference)
    batch, side = WINDOW_SIZE
    table[f"{batch}x{side}x{side}_window"] = row(batch * side * side, _measure("window", batch, side), None)
    batch, side = EXACT_SIZE
    exact = _measure("all_pairs", batch, side)
    for name, suffix in (("ours", ""), ("whole_window", "_window")):
        table[f"{batch}x{side}x{side}_pairs{suffix}"] = row(batch * side * side, _measure(name, batch, side), exact)
    return table


def _measure(name: str, batch: int, side: int) -> Measurement:
    return measure(f"benchmarks.mean_field:{name}", 1 if name == "all_pairs" else 5, batch=batch, side=side)


def inputs(batch: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (B, H, W) float32 of blurred blobs, and images (B, 3, H, W) uint8 of shaded blobs with noise.

    The noise has a standard deviation of 6 levels, so that a crop touches about as many lattice points as photographs
    do: some tens of thousands.
    """
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(SEED)
    scale = side / 64
    fields = gaussian_filter(rng.standard_normal((batch, 5, side, side)), (0, 0, 6 * scale, 6 * scale))
    fields /= fields.std(axis=(2, 3), keepdims=True)
    blob = 1 / (1 + np.exp(-40 * fields[:, 0]))  # edges of about a pixel in a small crop
    colours = rng.random((batch, 2, 3, 1, 1)) * 200
    image = colours[:, 0] * (1 - blob[:, None]) + colours[:, 1] * blob[:, None] + 20 * fields[:, 1:4]
    image += 6 * rng.standard_normal(image.shape)
    blurred = gaussian_filter(blob, (0, 2 * scale, 2 * scale)) * 6 - 3 + 0.8 * fields[:, 4]
    probability = 1 / (1 + np.exp(-blurred))
    return probability.astype(np.float32), np.clip(image, 0, 255).astype(np.uint8)


def ours(batch: int, side: int, radius: int | None = None) -> Callable[[], np.ndarray]:
    import torch

    from stages.propagation.mean_field import mean_field

    torch.set_num_threads(SETTINGS["threads"])
    probability, image = (torch.from_numpy(array) for array in inputs(batch, side))
    settings = _settings(side)
    mean_field(probability[:, :2, :2], image[..., :2, :2], radius=radius, **settings)  # loads what torch loads late
    return lambda: mean_field(probability, image, radius=radius, **settings).numpy()


def window(batch: int, side: int) -> Callable[[], np.ndarray]:
    return ours(batch, side, radius=SETTINGS["window"])


def whole_window(batch: int, side: int) -> Callable[[], np.ndarray]:
    return ours(batch, side, radius=side)


def pydensecrf(batch: int, side: int) -> Callable[[], np.ndarray]:
    from stages.propagation.dense_crf import dense_crf

    probability, image = inputs(batch, side)
    images = np.ascontiguousarray(np.moveaxis(image, 1, -1))
    settings = _settings(side)
    names = {"xy": "sxy", "rgb": "srgb", "weight": "compat"}
    theirs: dict[str, Any] = {"iterations": settings.pop("iterations")}
    for key, value in settings.items():
        kernel, name = key.split("_")
        theirs[f"{kernel}_{names[name]}"] = value
    both = np.stack([1 - probability, probability], axis=1)
    dense_crf(images[0, :1, :1], both[0, :, :1, :1])  # imports pydensecrf, which is not to be measured
    return lambda: np.stack([dense_crf(crop, p, **theirs)[1] for crop, p in zip(images, both, strict=True)])


def all_pairs(batch: int, side: int) -> Callable[[], np.ndarray]:
    """Dense kernels in float64 and both labels' marginals."""
    probability, image = inputs(batch, side)
    settings = _settings(side)

    def infer() -> np.ndarray:
        position = np.stack(np.mgrid[:side, :side], axis=-1).reshape(-1, 2).astype(float)
        crops = []
        for crop, p in zip(image, probability.astype(float), strict=True):
            colour = crop.reshape(3, -1).T / settings["bilateral_rgb"]
            coupling = _kernel(position / settings["gaussian_xy"], settings["gaussian_weight"])
            features = np.concatenate([position / settings["bilateral_xy"], colour], axis=1)
            coupling += _kernel(features, settings["bilateral_weight"])
            marginals = np.stack([1 - p, p]).reshape(2, -1)
            energy = -np.log(marginals)
            for _ in range(settings["iterations"]):
                exponent = marginals @ coupling - energy
                marginals = np.exp(exponent - exponent.max(axis=0))
                marginals /= marginals.sum(axis=0)
            crops.append(marginals[1].reshape(p.shape))
        return np.stack(crops)

    return infer


def _kernel(features: np.ndarray, weight: float) -> np.ndarray:
    squares = (features**2).sum(axis=1)
    kernel = np.exp(-np.maximum(squares[:, None] + squares[None] - 2 * features @ features.T, 0) / 2)
    root = np.sqrt(kernel.sum(axis=1))
    return weight * kernel / root[:, None] / root[None]


def _settings(side: int) -> dict[str, Any]:
    (gaussian_xy, gaussian_weight), (xy, rgb, weight) = SETTINGS["gaussian"], SETTINGS["bilateral"]
    return {
        "iterations": SETTINGS["iterations"],
        "gaussian_xy": gaussian_xy * side,
        "gaussian_weight": gaussian_weight,
        "bilateral_xy": xy * side,
        "bilateral_rgb": rgb,
        "bilateral_weight": weight,
    }
