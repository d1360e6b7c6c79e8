"""Kernels against their matrices written out in float64, both ways."""

import numpy as np
import pytest
import torch

from stages.propagation import kernels as module
from stages.propagation.kernels import bilateral_kernel, gaussian_kernel, window_kernel, window_offsets
from tests.stages.propagation.reference import dense_kernels

HEIGHT, WIDTH = 6, 9
WIDTHS = {"gaussian_xy": 2.0, "bilateral_xy": 4.0, "bilateral_rgb": 30.0}


def colours(batch=2, height=HEIGHT, width=WIDTH):
    generator = torch.Generator().manual_seed(0)
    return 60 * torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64)


def make(kind, image, normalisation="symmetric"):
    colour = image / WIDTHS["bilateral_rgb"]
    if kind == "gaussian":
        return gaussian_kernel(colour[:, 0], WIDTHS["gaussian_xy"], normalisation)
    if kind == "window":
        offsets = window_offsets(*image.shape[-2:], max(image.shape[-2:]))
        return window_kernel(colour, WIDTHS["bilateral_xy"], offsets, normalisation=normalisation)
    return bilateral_kernel(colour, WIDTHS["bilateral_xy"], normalisation)


def matrix(filtered, image, index):
    """(N, N) of one image of the batch: the responses to each of its pixels, as columns."""
    batch, _, height, width = image.shape
    unit = torch.zeros(batch, height * width, height, width, dtype=image.dtype)
    unit[index] = torch.eye(height * width, dtype=image.dtype).reshape(-1, height, width)
    return filtered(unit)[index].reshape(height * width, -1).T


@pytest.mark.parametrize("normalisation", ["symmetric", "rows"])
@pytest.mark.parametrize("kind", ["gaussian", "window"])
def test_exact_kernels_against_every_pair(kind, normalisation):
    image = colours()
    kernel = make(kind, image, normalisation)
    for index in range(2):
        expected = dense_kernels(image[index].numpy(), **WIDTHS, normalisation=normalisation)[kind == "window"]
        assert np.abs(matrix(kernel.filtered, image, index).numpy() - expected).max() < 1e-14


@pytest.mark.parametrize("normalisation", ["symmetric", "rows"])
def test_lattice_is_about_the_bilateral_kernel(normalisation):
    """On noise, its worst case: measured .17 and .18 of the matrices' norms. Divided by row sums, rows sum to one."""
    image = colours(height=12, width=16)
    kernel = make("bilateral", image, normalisation)
    for index in range(2):
        expected = dense_kernels(image[index].numpy(), **WIDTHS, normalisation=normalisation)[1]
        found = matrix(kernel.filtered, image, index).numpy()
        assert np.linalg.norm(found - expected) < 0.2 * np.linalg.norm(expected)
        assert np.allclose(found.sum(1), 1) == (normalisation == "rows")


@pytest.mark.parametrize("normalisation", ["symmetric", "rows"])
@pytest.mark.parametrize("kind", ["gaussian", "window", "bilateral"])
def test_transposed(kind, normalisation):
    image = colours()
    kernel = make(kind, image, normalisation)
    found = matrix(kernel.transposed, image, 1)
    assert torch.allclose(found, matrix(kernel.filtered, image, 1).T, rtol=0, atol=1e-14)
    exact_and_symmetric = kind != "bilateral" and normalisation == "symmetric"
    assert torch.allclose(found, found.T, rtol=0, atol=1e-14) == exact_and_symmetric


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (7, 30), (30, 30)])
@pytest.mark.parametrize("width", [0.3, 0.5, 20.0])
def test_bands_of_a_gaussian(monkeypatch, size, width):
    values = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = gaussian_kernel(values[:, 0], width).filtered(values)
    monkeypatch.setattr(module, "BAND", 4)
    assert torch.allclose(gaussian_kernel(values[:, 0], width).filtered(values), whole, rtol=0, atol=1e-15)


def test_unknown_normalisation():
    with pytest.raises(ValueError, match="symmetric or rows"):
        gaussian_kernel(torch.zeros(1, 2, 2), 1.0, "columns")  # type: ignore[arg-type]
