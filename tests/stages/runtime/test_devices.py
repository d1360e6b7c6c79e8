"""Which device a setting means, and what is set with it."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pipelines.wise import grouping
from stages.propagation import kernels, points
from stages.runtime import devices


@pytest.fixture
def _as_before():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_kernels_keep_all_digits(_as_before):
    """Where a GPU's products have been made short, those of the walks, the CRF and the k-means are not."""
    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket.__name__ in ("mm", "bmm", "baddbmm", "addmm", "_linalg_solve_ex"):
                found.append(torch.get_float32_matmul_precision())
            return func(*args, **(kwargs or {}))

    torch.manual_seed(0)
    found: list[str] = []
    torch.set_float32_matmul_precision("high")
    maps, features = torch.rand(1, 2, 9, 7), torch.rand(2, 3, 16)
    with Products():
        kernels.gaussian_kernel(maps[0], 2.0).filtered(maps)
        exponent = points.feature_exponent(features, 0.1) + points.colour_exponent(torch.rand(2, 3, 16, 16), 4, 0.2)
        transition = points.transition_matrix(exponent.exp(), 2)
        points.propagation_scores(transition, transition[:, :2], 2)
        points.converged_scores(transition, transition[:, :2], 0.5)
        yx = grouping.background_pixels(maps[0], np.ones((9, 7), bool), 3)
        grouping.group(maps[0], yx[:1], yx[1:])
    assert len(found) > 12 and set(found) == {"highest"}
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.parametrize(("gpu", "wanted"), [(True, "high"), (False, "highest")])
def test_products_take_tensor_cores_on_cuda_alone(_as_before, gpu, wanted):
    torch.set_float32_matmul_precision("highest")
    with mock.patch.object(torch.cuda, "is_available", return_value=gpu), \
            mock.patch.object(torch.cuda, "current_device", return_value=0):
        assert devices.resolve("auto").type == ("cuda" if gpu else "cpu")
    assert torch.get_float32_matmul_precision() == wanted
