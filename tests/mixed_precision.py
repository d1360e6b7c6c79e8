"""What an inference gives in mixed precision, beside what it gives in single precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


def assert_near(infer: Callable[[], Any], within: float) -> None:
    """``infer`` gives the same types and shapes under autocast, numbers that are finite, and nearly the same ones.

    Args:
        infer: of a network on the CPU; arrays and tensors in anything nested, none of them of bfloat16.
        within: the relative error (of the L2 norm) of the worst of them; 0 would be a network that was not cast.
    """
    with torch.no_grad():
        single = _arrays(infer())
        with torch.autocast("cpu", torch.bfloat16):
            mixed = _arrays(infer())
            assert torch.is_autocast_enabled("cpu")
    errors = []
    for wanted, found in zip(single, mixed, strict=True):
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        assert np.isfinite(found).all()
        if wanted.dtype.kind == "f":
            wanted, found = wanted.astype(np.float64), found.astype(np.float64)
            errors.append(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
    assert 0 < max(errors) <= within, errors


def _arrays(values: Any) -> list[np.ndarray]:
    return [leaf.numpy() if isinstance(leaf, Tensor) else leaf for leaf in tree_leaves(values)
            if isinstance(leaf, (Tensor, np.ndarray))]
