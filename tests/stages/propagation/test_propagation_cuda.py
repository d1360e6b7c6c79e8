"""The kernels for tensors as on a GPU: the random walk, mean-field on lattice and window, propagation of points."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.propagation.label_mean_field import image_kernels, label_mean_field
from stages.propagation.mean_field import mean_field
from stages.propagation.points import colour_exponent, converged_scores, propagation_scores, transition_matrix
from stages.propagation.tensor_walk import random_walk
from tests.pretended_gpu import pretended_gpu


def rand(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape)))


def test_the_random_walk_goes_where_its_tensors_are():
    scores, boundary = rand(2, 9, 11), rand(9, 11)
    wanted = random_walk(scores, boundary, radius=3, steps=32)
    with pretended_gpu() as gpu:
        found = random_walk(*gpu.take([scores, boundary]), radius=3, steps=32)
        assert found.is_cuda and gpu.waits == {"number": 2}  # whether the boundary lies in 0..1
        assert np.allclose(found.cpu().numpy(), wanted.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("settings", [{}, {"radius": 3}, {"radius": 4, "dilation": 2}])
def test_mean_field(settings):
    probability, image = rand(2, 12, 10), 255 * rand(2, 3, 12, 10)
    wanted = mean_field(probability, image, iterations=3, **settings)
    with pretended_gpu() as gpu:
        found = mean_field(*gpu.take([probability, image]), iterations=3, **settings)
        fewer = gpu.waits.total()
        assert found.is_cuda and torch.allclose(found.cpu(), wanted)
        gpu.waits.clear()
        mean_field(*gpu.take([probability, image]), iterations=9, **settings)
        assert gpu.waits.total() == fewer <= 20  # the kernels' sizes; a step of the iteration waits for nothing


def test_a_crf_that_learns():
    unary, image, weights = rand(3, 12, 10).log(), 255 * rand(3, 12, 10), torch.tensor([3.0, 4.0])
    with pretended_gpu() as gpu:
        there, weight = gpu.take(unary).requires_grad_(), gpu.take(weights).requires_grad_()
        kernels = image_kernels(gpu.take(image), bilateral_xy=20)
        found = label_mean_field(there, kernels, weight, 2)
        found[0].sum().backward()
        assert found.is_cuda and there.grad.is_cuda and weight.grad.is_cuda


def test_propagation_of_points():
    with pretended_gpu() as gpu:
        exponent = colour_exponent(gpu.take(rand(2, 3, 16, 16)), 4, 0.2)
        transition = transition_matrix(exponent.exp())
        sources = torch.full((2, 2, 16), 1 / 16, device=transition.device)
        assert propagation_scores(transition, sources, 3).is_cuda
        assert converged_scores(transition, sources, 0.25).is_cuda
        gpu.waits.clear()
        transition_matrix(exponent.exp())
        assert not gpu.waits
