"""Which device a setting means, and what is set with it."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from stages.runtime import devices


@pytest.fixture
def _as_before():
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(("gpu", "wanted"), [(True, "high"), (False, "highest")])
def test_products_take_tensor_cores_on_cuda_alone(_as_before, gpu, wanted):
    torch.set_float32_matmul_precision("highest")
    with mock.patch.object(torch.cuda, "is_available", return_value=gpu), \
            mock.patch.object(torch.cuda, "current_device", return_value=0):
        assert devices.resolve("auto").type == ("cuda" if gpu else "cpu")
    assert torch.get_float32_matmul_precision() == wanted
