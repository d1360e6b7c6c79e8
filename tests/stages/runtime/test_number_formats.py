"""What runtime.precision means for an inference, and where it does not reach."""

from __future__ import annotations

import warnings

import pytest
import torch
from lightning.fabric import Fabric

from stages.runtime.precision import autocast, number_format, unmixed

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
def test_networks_are_cast_as_by_fabric(precision):
    layer, values = torch.nn.Linear(3, 4), torch.rand(2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # float16 becomes bfloat16 on a CPU
        fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    with fabric.autocast():
        wanted = layer(values)
    with autocast(precision, CPU):
        found = layer(values)
    assert found.dtype == wanted.dtype and torch.equal(found, wanted)
    assert (number_format(precision, CPU) or torch.float32) == wanted.dtype
    assert not torch.is_autocast_enabled("cpu")


def test_a_gpu_has_both():
    assert [number_format(name, torch.device("cuda")) for name in ("32-true", "16-mixed", "bf16-mixed")] == [
        None, torch.float16, torch.bfloat16]


def test_what_is_not_mixed():
    values = torch.rand(3, 3)
    product = unmixed()(torch.mm)
    with autocast("bf16-mixed", CPU):
        assert torch.mm(values, values).dtype == torch.bfloat16
        assert product(values, values).dtype == torch.float32
        with unmixed(), unmixed():
            assert torch.mm(values, values).dtype == torch.float32
        with pytest.raises(ZeroDivisionError), unmixed():
            1 // 0  # noqa: B018
        assert torch.mm(values, values).dtype == torch.bfloat16
