"""Colours of the student's view, against torchvision's functions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import functional

from pipelines.exits.recolouring import recoloured, shifted
from pipelines.exits.settings import StudentSettings

NEVER = {"chance": 0, "grey": 0, "blur": 0}


@pytest.fixture
def view() -> np.ndarray:
    """(20, 24, 3): smooth colours with some noise."""
    rows, columns = np.mgrid[:20, :24]
    clean = np.stack([10 * columns, 12 * rows, 250 - 5 * rows - 5 * columns], axis=-1)
    return np.clip(clean + np.random.default_rng(0).normal(0, 6, clean.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("factors", [(1.4, 1, 1, 0), (0.6, 1, 1, 0), (1, 1.3, 1, 0), (1, 0.7, 1, 0), (1, 1, 1.2, 0),
                                     (1, 1, 0.0, 0), (1, 1, 1, 0.1), (1, 1, 1, -0.1), (1.2, 0.8, 1.2, 0.05)])
def test_against_torchvision(view, factors):
    wanted = torch.from_numpy(view).permute(2, 0, 1).float() / 255
    for function, factor in zip((functional.adjust_brightness, functional.adjust_contrast,
                                 functional.adjust_saturation, functional.adjust_hue), factors, strict=True):
        wanted = function(wanted, factor)
    found = shifted(view, *factors)
    assert found.dtype == np.uint8
    assert np.abs(found - 255 * wanted.permute(1, 2, 0).numpy()).max() < 1


def test_nothing_happens_where_it_never_does(view):
    for seed in range(5):
        assert (recoloured(view, np.random.default_rng(seed), StudentSettings(**NEVER)) == view).all()
    assert not StudentSettings(**NEVER).differs
    assert StudentSettings().differs


def test_colours_are_lost_and_edges_blurred(view):
    grey = recoloured(view, np.random.default_rng(0), StudentSettings(**{**NEVER, "grey": 1}))
    assert (grey == grey[..., :1]).all()
    assert np.abs(grey[..., 0] - view @ [0.299, 0.587, 0.114]).max() <= 0.51
    blurred = recoloured(view, np.random.default_rng(0), StudentSettings(**{**NEVER, "blur": 1, "blur_width": (2, 2)}))
    assert np.abs(np.diff(blurred.astype(int), axis=1)).sum() < 0.7 * np.abs(np.diff(view.astype(int), axis=1)).sum()
    assert abs(blurred.mean() - view.mean()) < 2


def test_changes_come_as_often_as_they_should_and_no_further(view):
    flat = np.full((4, 4, 3), 100, np.uint8)
    settings = StudentSettings(**{**NEVER, "chance": 0.5})
    values = np.array([recoloured(flat, np.random.default_rng(seed), settings)[0, 0, 0] for seed in range(400)])
    # Of one grey, contrast, saturation and hue change nothing: what is left is the brightness, of 0.6 to 1.4.
    assert 60 <= values.min() < 64 and 136 < values.max() <= 140
    assert 160 < (values != 100).sum() < 240
