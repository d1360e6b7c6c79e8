"""The random walk of IRNet: ours, a dense matrix, and SciPy's sparse matrix, each building its affinities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.measure import measure, row
from stages.propagation.pairs import line_maximum, neighbour_offsets, pair_views

ABOUT_SECONDS = 70
SETTINGS = {"radius": 5, "beta": 10, "steps": 256, "maps": 5}
SEED = 0

DENSE_SIZES = [(24, 32), (47, 63)]
SPARSE_SIZES = [(47, 63), (94, 125), (160, 160), (240, 320)]
TARGET_SIZE = (94, 125)  # a quarter of 376 x 500; 0.4 s, 100 MB and an error of 1e-4 are asked for there


def rows() -> dict[str, dict[str, float]]:
    """Rows ``<size>_<reference>``; the error is that of ours against the reference, which computes in float64."""
    table = {}
    for height, width in DENSE_SIZES:
        reference = _measure("dense_squaring", height, width, repeats=1)
        table[f"{height}x{width}_dense"] = row(height * width, _measure("ours", height, width), reference)
    height, width = TARGET_SIZE
    reference = _measure("dense_products", height, width, repeats=1)
    for dtype, suffix in (("float32", ""), ("float64", "_float64")):
        ours = _measure("ours", height, width, dtype=dtype)
        table[f"{height}x{width}_dense_products{suffix}"] = row(height * width, ours, reference)
    for height, width in SPARSE_SIZES:
        reference = _measure("csr_products", height, width, repeats=2)
        table[f"{height}x{width}_csr"] = row(height * width, _measure("ours", height, width), reference)
    return table


def _measure(name: str, height: int, width: int, repeats: int = 7, **arguments: Any) -> Any:
    return measure(f"benchmarks.random_walk:{name}", repeats, height=height, width=width, **arguments)


def inputs(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Blobs of scores (5, H, W) in [0, 1], most of each map 0, and a boundary (H, W) of soft curves; float64."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(SEED)
    scores = gaussian_filter(rng.random((SETTINGS["maps"], height, width)), (0, 5, 5))
    scores -= scores.min(axis=(1, 2), keepdims=True)
    scores /= scores.max(axis=(1, 2), keepdims=True)
    scores[scores < 0.5] = 0
    slope = np.hypot(*np.gradient(gaussian_filter(rng.standard_normal((height, width)), 6)))
    return scores, 1 / (1 + np.exp(7.5 - 3 * slope / slope.std()))


def ours(height: int, width: int, dtype: str = "float32") -> Callable[[], np.ndarray]:
    from stages.propagation.random_walk import random_walk

    scores, boundary = (array.astype(dtype) for array in inputs(height, width))
    settings = {key: SETTINGS[key] for key in ("radius", "beta", "steps")}
    return lambda: random_walk(scores, boundary, **settings)


def dense_squaring(height: int, width: int) -> Callable[[], np.ndarray]:
    """T^256 by eight squarings of a dense float64 matrix, as the equation suggests."""
    scores, boundary = inputs(height, width)

    def walk() -> np.ndarray:
        transition = dense_transition(boundary)
        for _ in range(int(np.log2(SETTINGS["steps"]))):
            transition = transition @ transition
        return (transition @ _start(scores, boundary)).T.reshape(scores.shape)

    return walk


def dense_products(height: int, width: int) -> Callable[[], np.ndarray]:
    """256 products of a dense float64 matrix with the maps: the exact walk where squaring would take minutes."""
    scores, boundary = inputs(height, width)

    def walk() -> np.ndarray:
        transition, walked = dense_transition(boundary), _start(scores, boundary)
        for _ in range(SETTINGS["steps"]):
            walked = transition @ walked
        return walked.T.reshape(scores.shape)

    return walk


def csr_products(height: int, width: int) -> Callable[[], np.ndarray]:
    """256 products of a SciPy CSR float64 matrix with the maps."""
    from scipy import sparse

    scores, boundary = inputs(height, width)

    def walk() -> np.ndarray:
        first, second, values = _pairs(boundary)
        pixels = np.arange(boundary.size)
        entries = np.concatenate([values, values, np.ones(boundary.size)])
        places = np.concatenate([first, second, pixels]), np.concatenate([second, first, pixels])
        powers = sparse.coo_array((entries, places), shape=(boundary.size,) * 2).tocsr()
        transition = sparse.csr_array(powers.multiply(1 / powers.sum(axis=1)[:, None]))
        walked = _start(scores, boundary)
        for _ in range(SETTINGS["steps"]):
            walked = transition @ walked
        return walked.T.reshape(scores.shape)

    return walk


def dense_transition(boundary: np.ndarray) -> np.ndarray:
    """T (eq. 12) with all its zeros."""
    first, second, values = _pairs(boundary)
    transition = np.eye(boundary.size)
    transition[first, second] = values
    transition[second, first] = values
    transition /= transition.sum(axis=1, keepdims=True)
    return transition


def _start(scores: np.ndarray, boundary: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray((scores * (1 - boundary)).reshape(len(scores), -1).T)


def _pairs(boundary: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both pixels' indices and the affinity to the power beta, for every pair within the radius."""
    index = np.arange(boundary.size).reshape(boundary.shape)
    firsts, seconds, values = [], [], []
    for offset in neighbour_offsets(SETTINGS["radius"]).tolist():
        first, second = pair_views(index, offset)
        firsts.append(first.ravel())
        seconds.append(second.ravel())
        values.append(((1 - line_maximum(boundary, offset)) ** SETTINGS["beta"]).ravel())
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(values)
