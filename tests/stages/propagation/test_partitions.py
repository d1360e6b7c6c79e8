"""Partitions refined on one lattice: against pydensecrf, and against the mean-field with every label's map."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from stages.propagation import dense_crf
from stages.propagation.label_mean_field import image_kernels, label_mean_field
from stages.propagation.partitions import refine_partitions
from stages.propagation.settings import DenseCrfSettings
from stages.runtime.errors import UserError

MILD = {"confidence": 0.6, "gaussian_weight": 4, "bilateral_xy": 12, "bilateral_rgb": 12, "bilateral_weight": 4}


def scene(labels: int, height: int = 60, width: int = 72, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A photograph-like image (smooth fields and noise) and two noisy partitions, one with more background."""
    rng = np.random.default_rng(seed)
    fields = gaussian_filter(rng.standard_normal((labels, height, width)), (0, 6, 6))
    fields /= fields.std()
    image = 128 + 360 * gaussian_filter(rng.standard_normal((height, width, 3)), (5, 5, 0)) + 15 * fields[0, ..., None]
    image = np.clip(image + 4 * rng.standard_normal(image.shape), 0, 255).astype(np.uint8)
    best, highest = fields[1:].argmax(0) + 1, fields[1:].max(0)
    partitions = np.stack([np.where(highest > threshold, best, 0) for threshold in (0.8, 0.2)])
    return image, np.where(rng.random(partitions.shape) < 0.05, rng.integers(0, labels, partitions.shape), partitions)


@pytest.mark.parametrize("labels", [2, 3, 6])
@pytest.mark.parametrize("changes", [{}, {"gaussian_weight": 0}, {"bilateral_weight": 0}, {"iterations": 1}])
def test_labels_of_the_mean_field_with_every_label(labels, changes):
    image, partitions = scene(labels)
    settings = DenseCrfSettings(**{**MILD, **changes})
    kernels = image_kernels(torch.from_numpy(image).permute(2, 0, 1), gaussian_xy=settings.gaussian_xy,
                            bilateral_xy=settings.bilateral_xy, bilateral_rgb=settings.bilateral_rgb)
    found = refine_partitions(settings, image, partitions, labels)
    assert found.shape == partitions.shape
    assert found.dtype == np.int64
    for partition, refined in zip(partitions, found, strict=True):
        given = torch.from_numpy(partition) == torch.arange(labels)[:, None, None]
        unary = torch.where(given, math.log(0.6), math.log(0.4 / (labels - 1)))
        wanted = label_mean_field(unary, kernels, (settings.gaussian_weight, settings.bilateral_weight),
                                  settings.iterations).argmax(0)
        assert (refined != wanted.numpy()).mean() < 1e-3
        assert (refined != partition).mean() > 5e-3, "the CRF did something"


@pytest.mark.parametrize("labels", [2, 4])
def test_labels_of_pydensecrf(labels):
    pytest.importorskip("pydensecrf")
    image, partitions = scene(labels, 120, 160)
    ours, theirs = (refine_partitions(DenseCrfSettings(**MILD, engine=engine), image, partitions, labels)
                    for engine in ("lattice", "pydensecrf"))
    # Near-ties in noise; on photographs and attention maps 5 of 10,000 pixels differ (benchmarks.irnet_image).
    assert (ours != theirs).mean() < 0.01
    assert (theirs != partitions).mean() > 0.03


def test_same_bytes_and_inputs_left_alone():
    image, partitions = scene(3)
    kept = image.copy(), partitions.copy()
    image.setflags(write=False)
    found = refine_partitions(DenseCrfSettings(**MILD), image[::-1], partitions[:, ::-1], 3)
    assert np.array_equal(found, refine_partitions(DenseCrfSettings(**MILD), image[::-1].copy(),
                                                   partitions[:, ::-1].copy(), 3))
    assert np.array_equal(image, kept[0])
    assert np.array_equal(partitions, kept[1])


def test_nothing_to_decide():
    image, partitions = scene(3)
    assert np.array_equal(refine_partitions(DenseCrfSettings(iterations=0), image, partitions, 3), partitions)
    assert not refine_partitions(DenseCrfSettings(), image, np.zeros_like(partitions), 1).any()
    assert refine_partitions(DenseCrfSettings(), image[:0], partitions[:, :0], 3).shape == (2, 0, 72)
    assert refine_partitions(DenseCrfSettings(), image[:1, :1], partitions[:, :1, :1], 3).shape == (2, 1, 1)


@pytest.mark.parametrize(("change", "message"), [
    ({"image": np.zeros((60, 72), np.uint8)}, "image must be uint8"),
    ({"image": np.zeros((60, 71, 3), np.uint8)}, r"partitions must be \(S, 60, 71\)"),
    ({"partitions": np.zeros((2, 60, 72))}, "must be integers, got float64"),
    ({"partitions": np.full((2, 60, 72), 3)}, r"lie in \[0, 3\)"),
    ({"partitions": np.full((2, 60, 72), -1)}, r"lie in \[0, 3\)"),
])
def test_refused(change, message):
    image, partitions = scene(3)
    arguments = {"image": image, "partitions": partitions, **change}
    with pytest.raises(ValueError, match=message):
        refine_partitions(DenseCrfSettings(), arguments["image"], arguments["partitions"], 3)


def test_missing_package_is_a_sentence_with_the_command(monkeypatch):
    monkeypatch.setattr(dense_crf, "MISSING", "no module")
    image, partitions = scene(3)
    with pytest.raises(UserError, match="pip install"):
        refine_partitions(DenseCrfSettings(engine="pydensecrf"), image, partitions, 3)
    refine_partitions(DenseCrfSettings(), image, partitions, 3)
