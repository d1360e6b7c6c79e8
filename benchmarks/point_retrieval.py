"""Retrieval of points by vector-matrix products (EXITS) against the plain power of the transition matrix, and masks
for a thousand objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.measure import measure, row

ABOUT_SECONDS = 90
SETTINGS: dict[str, Any] = {"cells": 32, "hops": 3, "sinkhorn": 20, "side": 192, "objects": 1000, "batch": 8,
                            "network": "mobilenetv2_100, width 64"}
SEED = 0


def rows() -> dict[str, dict[str, float]]:
    """``size`` is the number of points of one object, or of objects; seconds are for all of it.

    ``object`` starts from the similarity matrix of one object (both sides balance it the same number of times);
    ``hops`` from the balanced matrix; ``masks_1000`` is the generator with the photographs' network on crops in
    memory, and pasting into images of 640 x 480 px.
    """
    points = SETTINGS["cells"] ** 2
    table = {}
    for name, ours, reference in (("object", "products", "power"), ("hops", "hops_only", "power_only"),
                                  ("converged", "solve", "inverse")):
        table[name] = row(points, measure(f"benchmarks.point_retrieval:{ours}", 5),
                          measure(f"benchmarks.point_retrieval:{reference}", 3))
    table["masks_1000"] = row(SETTINGS["objects"], measure("benchmarks.point_retrieval:masks"), None)
    return table


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Similarity (P, P) float32 of features with a few directions, and weights of two sets (2, P)."""
    rng = np.random.default_rng(SEED)
    points = SETTINGS["cells"] ** 2
    features = rng.standard_normal((points, 8)) + 3 * rng.standard_normal((6, 8))[np.arange(points) * 6 // points]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    sources = np.zeros((2, points))
    sources[0, rng.choice(points, 4, replace=False)] = 1 / 4
    sources[1, :points // 2] = 2 / points
    return np.exp((features @ features.T - 1) / 0.2).astype(np.float32), sources


def _torch() -> tuple[Any, Any]:
    import torch

    return tuple(torch.from_numpy(array)[None].float() for array in inputs())  # type: ignore[return-value]


def products() -> Callable[[], np.ndarray]:
    from stages.propagation.points import propagation_scores, transition_matrix

    similarity, sources = _torch()
    return lambda: propagation_scores(transition_matrix(similarity, SETTINGS["sinkhorn"]), sources,
                                      SETTINGS["hops"])[0].numpy()


def hops_only() -> Callable[[], np.ndarray]:
    from stages.propagation.points import propagation_scores, transition_matrix

    similarity, sources = _torch()
    transition = transition_matrix(similarity, SETTINGS["sinkhorn"])
    return lambda: propagation_scores(transition, sources, SETTINGS["hops"])[0].numpy()


def solve() -> Callable[[], np.ndarray]:
    from stages.propagation.points import converged_scores, transition_matrix

    similarity, sources = _torch()
    transition = transition_matrix(similarity, SETTINGS["sinkhorn"])
    return lambda: converged_scores(transition, sources, 0.25)[0].numpy()


def _balanced(matrix: np.ndarray) -> np.ndarray:
    for _ in range(SETTINGS["sinkhorn"]):
        matrix = matrix / matrix.sum(1, keepdims=True)
        matrix = matrix / matrix.sum(0, keepdims=True)
    return (matrix + matrix.T) / 2


def power() -> Callable[[], np.ndarray]:
    similarity, sources = inputs()
    return lambda: sources @ np.linalg.matrix_power(_balanced(similarity.astype(np.float64)), SETTINGS["hops"])


def power_only() -> Callable[[], np.ndarray]:
    similarity, sources = inputs()
    transition = _balanced(similarity.astype(np.float64))
    return lambda: sources @ np.linalg.matrix_power(transition, SETTINGS["hops"])


def inverse() -> Callable[[], np.ndarray]:
    similarity, sources = inputs()
    transition = _balanced(similarity.astype(np.float64))
    return lambda: sources @ (0.75 * np.linalg.inv(np.eye(len(transition)) - 0.25 * transition))


def masks() -> Callable[[], np.ndarray]:
    """Masks of all objects, from crops: network, pasting, encoding. Gives the areas."""
    import torch

    from pipelines.exits.masks import generated_mask
    from pipelines.exits.network import Generator
    from pipelines.exits.prediction import predict
    from pipelines.exits.settings import EncoderSettings, SynthesisSettings
    from stages.labels import rle

    side, batch, size = SETTINGS["side"], SETTINGS["batch"], (480, 640)
    torch.manual_seed(SEED)
    network = Generator(EncoderSettings(kind="pyramid", name="mobilenetv2_100", weights="none", stride=16, width=64,
                                        position=True), side, 4).eval()
    rng = np.random.default_rng(SEED)
    pixels = rng.integers(0, 256, (batch, side, side, 3)).astype(np.uint8)
    crops = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    inner = np.array([0.19, 0.19, 0.81, 0.81], np.float32) * side
    boxes = torch.from_numpy(np.repeat(inner[None], batch, 0))
    item = {"extreme_points": [[260, 180], [220, 230], [255, 298], [338, 244]]}
    window = (184, 144, 375, 335)
    settings = SynthesisSettings()

    def run() -> np.ndarray:
        areas = []
        for _ in range(SETTINGS["objects"] // batch):
            with torch.no_grad():
                masks = predict(network, crops, boxes).numpy()
            for probability in masks:
                mask, _ = generated_mask(probability, window, item, size, settings)
                areas.append(rle.area(rle.encode(mask)))
        return np.array(areas)

    return run
