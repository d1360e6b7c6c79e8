"""The dense CRF: pydensecrf's lattice against every pair written out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.measure import measure, row

ABOUT_SECONDS = 10
# Terms so weak that mean field has one answer: the error is then that of the lattice, not of a tie broken otherwise.
SETTINGS = {"labels": 3, "iterations": 10, "gaussian": [3, 1], "bilateral": [30, 40, 2]}
SEED = 0
SIZES = [(24, 32), (47, 63)]
LARGE_SIZES = [(94, 125), (375, 500)]


def rows() -> dict[str, dict[str, float]]:
    """Rows by size; the larger sizes have no reference, as it needs memory for all pairs of pixels."""
    table = {}
    for height, width in SIZES + LARGE_SIZES:
        ours = measure("benchmarks.dense_crf:ours", 3, height=height, width=width)
        reference = None
        if (height, width) in SIZES:
            reference = measure("benchmarks.dense_crf:all_pairs", 1, height=height, width=width)
        table[f"{height}x{width}"] = row(height * width, ours, reference)
    return table


def inputs(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, 3) uint8 of two noisy colours and probabilities (3, H, W) that prefer a label in one of them."""
    rng = np.random.default_rng(SEED)
    image = rng.integers(0, 60, (height, width, 3)).astype(np.uint8)
    image[:, width // 2 :] += 150
    probabilities = rng.random((SETTINGS["labels"], height, width)) + 0.2
    probabilities[-1, :, width // 2 :] += 1
    return image, probabilities / probabilities.sum(axis=0)


def ours(height: int, width: int) -> Callable[[], np.ndarray]:
    from stages.propagation.dense_crf import dense_crf

    image, probabilities = inputs(height, width)
    (gaussian_sxy, gaussian_compat), (sxy, srgb, compat) = SETTINGS["gaussian"], SETTINGS["bilateral"]
    dense_crf(image[:1, :1], probabilities[:, :1, :1])  # imports pydensecrf, which is not to be measured
    return lambda: dense_crf(
        image,
        probabilities,
        iterations=SETTINGS["iterations"],
        gaussian_sxy=gaussian_sxy,
        gaussian_compat=gaussian_compat,
        bilateral_sxy=sxy,
        bilateral_srgb=srgb,
        bilateral_compat=compat,
    )


def all_pairs(height: int, width: int) -> Callable[[], np.ndarray]:
    """Mean field in float64 with dense kernels, normalised symmetrically."""
    image, probabilities = inputs(height, width)

    def infer() -> np.ndarray:
        rows_, columns = np.mgrid[:height, :width]
        position = np.stack([rows_.ravel(), columns.ravel()], axis=1).astype(float)
        colour = image.reshape(-1, 3).astype(float)
        (gaussian_sxy, gaussian_compat), (sxy, srgb, compat) = SETTINGS["gaussian"], SETTINGS["bilateral"]
        coupling = _kernel(position / gaussian_sxy, gaussian_compat)
        coupling += _kernel(np.concatenate([position / sxy, colour / srgb], axis=1), compat)
        marginals = probabilities.reshape(len(probabilities), -1)
        energy = -np.log(marginals)
        for _ in range(SETTINGS["iterations"]):
            exponent = marginals @ coupling - energy
            marginals = np.exp(exponent - exponent.max(axis=0))
            marginals /= marginals.sum(axis=0)
        return marginals.reshape(probabilities.shape)

    return infer


def _kernel(features: np.ndarray, compat: float) -> np.ndarray:
    squares = (features**2).sum(axis=1)
    kernel = np.exp(-np.maximum(squares[:, None] + squares[None] - 2 * features @ features.T, 0) / 2)
    root = np.sqrt(kernel.sum(axis=1))
    return compat * kernel / root[:, None] / root[None]
