"""Sizes of views, and images at these sizes."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from stages.cues.views import read_tensor, to_tensor, view, view_size


@pytest.mark.parametrize(("size", "scale", "cap", "wanted"), [
    ((100, 200), 1.0, math.inf, (100, 200)),
    ((100, 200), 0.5, math.inf, (50, 100)),
    ((101, 203), 1.5, math.inf, (152, 304)),
    ((100, 200), 2.0, 20000, (100, 200)),
    ((100, 200), 1.0, 5000, (50, 100)),
    ((3, 1000), 1.0, 1000, (1, 577)),
    ((1, 1), 0.1, 1, (1, 1)),
])
def test_view_size(size, scale, cap, wanted):
    assert view_size(size, scale, cap) == wanted


def test_a_capped_view_is_the_largest_that_fits():
    generator = np.random.default_rng(0)
    for _ in range(300):
        size = tuple(int(value) for value in generator.integers(20, 900, 2))
        scale, cap = float(generator.uniform(0.3, 3)), float(generator.uniform(1000, 500000))
        height, width = view_size(size, scale, cap)
        assert height * width <= cap
        if height * width < round(size[0] * scale) * round(size[1] * scale):  # it was capped
            assert (height + 1) * (width + 1) > cap
            assert height / size[0] == pytest.approx(width / size[1], abs=1 / min(size))


def test_view():
    image = torch.arange(3 * 6 * 8, dtype=torch.uint8).reshape(3, 6, 8)
    assert torch.equal(view(image, (6, 8)), image.float() / 255)
    half = view(image, (3, 4))
    assert half.shape == (3, 3, 4)
    assert torch.allclose(half.mean(dim=(1, 2)), image.float().mean(dim=(1, 2)) / 255, atol=0.01)
    flat = view(torch.full((3, 5, 5), 51, dtype=torch.uint8), (11, 7))
    assert flat.shape == (3, 11, 7)
    assert torch.allclose(flat, torch.full((3, 11, 7), 0.2))


def test_pixels_arrive_as_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((4, 5, 3), (0, 0, 255), np.uint8))
    image = read_tensor(tmp_path / "red.png")
    assert image.shape == (3, 4, 5)
    assert image.dtype == torch.uint8
    assert image[0].min() == 255
    assert image[1:].max() == 0
    assert torch.equal(image, to_tensor(np.full((4, 5, 3), (255, 0, 0), np.uint8)))
