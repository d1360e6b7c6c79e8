"""Attention spread within the class boundaries, class by class and instance by instance (sections 5.1 and 5.2)."""

from __future__ import annotations

import numpy as np

from pipelines.irnet.displacement import instance_map
from pipelines.irnet.instances import instance_cams
from pipelines.irnet.settings import PropagationSettings
from stages.propagation.random_walk import random_walk


def spread(cams: np.ndarray, displacement_yx: np.ndarray, boundary: np.ndarray,
           settings: PropagationSettings) -> dict[str, np.ndarray]:
    """Instances of one image, and its attention after the random walk.

    Args:
        cams: (K, h, w) in 0..1.
        displacement_yx: (2, h, w) in cells.
        boundary: (h, w) in 0..1.
        settings: of instance map and walk.

    Returns:
        ``semantic`` (K, h, w) float16, each class's attention after the walk; ``instances`` (h, w) int32; ``pairs``
        (P, 2), index of the class and instance; ``scores`` (P, h, w) float16, their attention after the walk (eq. 11
        to 13).
    """
    cams, boundary = cams.astype(np.float32), boundary.astype(np.float32)
    instances = instance_map(displacement_yx, settings.refinements, settings.centroid)
    # An instance no cell of which was a confident seed would only ever be a ghost of its neighbour's attention.
    maps, pairs = instance_cams(cams, instances, settings.seed)
    walked = random_walk(np.concatenate([cams, maps]), boundary, radius=settings.radius, beta=settings.beta,
                         steps=settings.steps)
    walked = np.maximum(walked, 0).astype(np.float16)
    return {"semantic": walked[:len(cams)], "instances": instances, "pairs": pairs, "scores": walked[len(cams):]}
