"""The GPU that is not there finds what a real one would refuse, computes what the CPU does, and counts what waits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.pretended_gpu import Planted, on_gpu, pretended_gpu


class LeftBehind(torch.autograd.Function):
    """The gradient is multiplied by a tensor of the CPU's."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.full((4,), 2.0)


def values() -> torch.Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def test_a_planted_tensor_is_caught_going_forward():
    with pretended_gpu() as gpu:
        model = gpu.take(Planted())
        with pytest.raises(RuntimeError, match=r"mul: tensors on cuda:0 and cpu: .*of which \[\(4,\)\] are on the cpu"):
            model(gpu.take(values()))
        model.table = model.table.to("cuda")
        assert model(gpu.take(values())).device == torch.device("cuda", 0)


def test_a_planted_tensor_is_caught_going_backward():
    with pretended_gpu() as gpu:
        layer = gpu.take(nn.Linear(3, 4))
        with pytest.raises(RuntimeError, match="mul: tensors on cuda:0 and cpu"):
            LeftBehind.apply(layer(gpu.take(values()))).sum().backward()


def test_what_a_gpu_lets_pass():
    """Numbers of the CPU's, its indices, and copies between both; gradients go through copies."""
    with pretended_gpu() as gpu:
        there, here = gpu.take(values()), values()
        assert (there * torch.tensor(2.0)).is_cuda and there[torch.tensor([0, 1])].is_cuda and there[:, [0, 2]].is_cuda
        assert there.new_zeros(2).is_cuda and torch.zeros_like(there).is_cuda and here.to(there).is_cuda
        assert torch.arange(3, device=there.device).is_cuda and not torch.arange(3).is_cuda
        assert not there.cpu().is_cuda and not there.to(here).is_cuda and there.half().is_cuda
        with pytest.raises(RuntimeError, match="index"):
            here[gpu.take(torch.tensor([0, 1]))]
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        leaf = values().requires_grad_()
        (leaf.to("cuda") * there).sum().backward()
        assert not on_gpu(leaf.grad) and torch.equal(leaf.grad, here)


def test_the_numbers_are_those_of_the_cpu():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 1))
    wanted = torch.autograd.grad(model(values()).square().sum(), list(model.parameters()))
    with pretended_gpu() as gpu:
        loss = gpu.take(model)(gpu.take(values())).square().sum()
        found = torch.autograd.grad(loss, list(model.parameters()))
        assert all(one.is_cuda for one in found)
        with torch.autocast("cuda", torch.bfloat16):
            assert model(gpu.take(values())).dtype == torch.bfloat16
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
    assert model(values()).dtype == torch.float32  # the block is over


def test_waits_are_counted():
    with pretended_gpu() as gpu:
        there = gpu.take(values())
        float(there.sum()), there.tolist()
        assert gpu.waits.pop("number") == 2
        there.nonzero(), there[there > 0]
        assert gpu.waits.pop("size") == 2
        torch.tensor([1.0], device=there.device), there.new_tensor([1.0]), values().to(there), there[[0]]
        values().to(there.device, non_blocking=True)
        assert gpu.waits.pop("to gpu") == 4
        there.cpu()
        assert gpu.waits == {"from gpu": 1}
