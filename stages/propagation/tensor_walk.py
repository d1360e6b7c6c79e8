"""The random walk of ``random_walk`` for tensors, apart from it so that those who walk arrays need no torch."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.propagation import random_walk as arrays


def random_walk(scores: Tensor, boundary: Tensor, *, radius: float = 5.0, beta: float = 10.0,
                steps: int = 256) -> Tensor:
    """Walk from every score map: ``random_walk.random_walk`` for tensors on one device; no gradient is kept.

    CPU tensors are walked by NumPy and give the same bytes as arrays; others by torch on their device.

    Args, returns, errors: as there, in tensors.
    """
    scores, boundary = scores.detach(), boundary.detach()
    arrays.check(scores, boundary, beta, steps)
    if scores.device.type == "cpu":
        scores = scores if scores.dtype == torch.float64 else scores.float()  # NumPy has no bfloat16
        return torch.from_numpy(arrays.random_walk(scores.numpy(), boundary.double().numpy(), radius=radius, beta=beta,
                                                   steps=steps))
    exact = torch.float32 if boundary.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    return arrays.walk(torch, scores, boundary.to(exact), radius, beta, steps).contiguous()
