"""The dense CRF against a brute-force mean field in float64."""

import numpy as np
import pytest

from stages.propagation import dense_crf as module
from stages.propagation.dense_crf import crf_labels, crf_labels_by, dense_crf
from stages.propagation.settings import DenseCrfSettings
from stages.runtime.errors import UserError


def example(height=8, width=8, labels=3, seed=0):
    """An image in two colours with noise, and noisy probabilities that prefer one label on its right half."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 40, (height, width, 3)).astype(np.uint8)
    image[:, width // 2 :] += 150
    probabilities = rng.random((labels, height, width)) + 0.2
    probabilities[-1, :, width // 2 :] += 1
    return image, probabilities / probabilities.sum(0)


def mean_field(image, probabilities, iterations, gaussian, bilateral):
    """Every pair written out; gaussian (sxy, compat), bilateral (sxy, srgb, compat)."""
    labels, height, width = probabilities.shape
    rows, columns = np.mgrid[:height, :width]
    position = np.stack([columns.ravel(), rows.ravel()], axis=1)
    colour = image.reshape(-1, 3).astype(float)
    terms = [
        (gaussian[1], position / gaussian[0]),
        (bilateral[2], np.concatenate([position / bilateral[0], colour / bilateral[1]], axis=1)),
    ]
    energy = -np.log(probabilities).reshape(labels, -1)
    marginals = probabilities.reshape(labels, -1)
    coupling = np.zeros((height * width, height * width))
    for compat, features in terms:
        kernel = np.exp(-((features[:, None] - features[None]) ** 2).sum(-1) / 2)
        root = np.sqrt(kernel.sum(1))
        coupling += compat * kernel / root[:, None] / root[None]
    for _ in range(iterations):
        exponent = marginals @ coupling - energy
        marginals = np.exp(exponent - exponent.max(0))
        marginals /= marginals.sum(0)
    return marginals.reshape(probabilities.shape)


@pytest.mark.parametrize("shape", [(8, 8), (12, 10), (5, 9)])
@pytest.mark.parametrize(
    ("iterations", "gaussian", "bilateral", "largest", "mean"),
    [
        (0, (3, 3), (80, 13, 10), 1e-5, 1e-6),
        (1, (3, 3), (80, 13, 0), 0.02, 0.005),
        (1, (3, 3), (80, 13, 10), 0.06, 0.01),
        (5, (3, 1), (80, 60, 1), 0.02, 0.005),
        (5, (3, 0), (10, 30, 2), 0.04, 0.005),
    ],
)
def test_marginals_against_brute_force(shape, iterations, gaussian, bilateral, largest, mean):
    image, probabilities = example(*shape)
    found = dense_crf(
        image,
        probabilities,
        iterations=iterations,
        gaussian_sxy=gaussian[0],
        gaussian_compat=gaussian[1],
        bilateral_sxy=bilateral[0],
        bilateral_srgb=bilateral[1],
        bilateral_compat=bilateral[2],
    )
    difference = np.abs(found - mean_field(image, probabilities, iterations, gaussian, bilateral))
    assert difference.max() < largest
    assert difference.mean() < mean
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    assert np.allclose(found.sum(0), 1, atol=1e-5)


def test_labels_follow_the_colours():
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, 9:] = 200
    labels = np.zeros((16, 16), int)
    labels[:, 7:] = 1  # two columns too early
    labels[3, 3] = 1
    refined = crf_labels(image, labels, 2)
    assert refined.dtype == np.int64
    assert np.array_equal(refined, np.broadcast_to(np.arange(16) >= 9, (16, 16)).astype(int))


def test_unknown_pixels_take_the_label_of_their_colour():
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, 8:] = 200
    labels = np.full((16, 16), -1)
    labels[2:14, 1:3] = 1
    labels[2:14, 13:15] = 2
    refined = crf_labels(image, labels, 3)
    assert np.array_equal(refined, np.where(np.arange(16) < 8, 1, 2)[None].repeat(16, 0))


def test_non_contiguous_read_only_arrays_and_same_bytes():
    image, probabilities = example(9, 7)
    expected = dense_crf(image, probabilities)
    strided = np.asfortranarray(image[::-1])[::-1]
    strided.flags.writeable = False
    moved = np.moveaxis(np.ascontiguousarray(np.moveaxis(probabilities, 0, -1)), -1, 0)
    assert not strided.flags.c_contiguous
    assert not moved.flags.c_contiguous
    assert np.array_equal(dense_crf(strided, moved), expected)


def test_inputs_are_left_alone():
    image, probabilities = example()
    copies = image.copy(), probabilities.copy()
    dense_crf(image, probabilities)
    assert np.array_equal(image, copies[0])
    assert np.array_equal(probabilities, copies[1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (2, 2)])
def test_tiny_images(shape):
    image, probabilities = example(*shape)
    found = dense_crf(image, probabilities)
    assert found.shape == (3, *shape)
    assert np.isfinite(found).all()


def test_one_label_and_empty_images():
    assert (dense_crf(np.zeros((4, 5, 3), np.uint8), np.full((1, 4, 5), 0.3)) == 1).all()
    assert (crf_labels(np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), int), 1) == 0).all()
    assert dense_crf(np.zeros((0, 5, 3), np.uint8), np.zeros((2, 0, 5))).shape == (2, 0, 5)
    assert crf_labels(np.zeros((0, 5, 3), np.uint8), np.zeros((0, 5), int), 2).shape == (0, 5)


def test_zero_probabilities_are_finite():
    image, probabilities = example()
    probabilities[0] = 0
    found = dense_crf(image, probabilities)
    assert np.isfinite(found).all()
    assert found[0].max() < 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((4, 4, 3))}, "uint8"),
        ({"image": np.zeros((4, 4), np.uint8)}, "uint8"),
        ({"probabilities": np.ones((2, 4, 5))}, "probabilities must be"),
        ({"probabilities": np.ones((0, 4, 4))}, "probabilities must be"),
        ({"probabilities": np.full((2, 4, 4), np.nan)}, "finite"),
        ({"probabilities": np.full((2, 4, 4), -0.1)}, "negative"),
        ({"bilateral_srgb": 0}, "widths"),
        ({"iterations": -1}, "iterations"),
    ],
)
def test_refused(change, message):
    arguments = {"image": np.zeros((4, 4, 3), np.uint8), "probabilities": np.ones((2, 4, 4)), **change}
    with pytest.raises(ValueError, match=message):
        dense_crf(**arguments)


@pytest.mark.parametrize(
    ("labels", "n_labels", "gt_prob", "message"),
    [
        (np.zeros((4, 4)), 2, 0.7, "integers"),
        (np.full((4, 4), 2), 2, 0.7, "labels must lie"),
        (np.full((4, 4), -2), 2, 0.7, "labels must lie"),
        (np.zeros((4, 4), int), 0, 0.7, "at least one label"),
        (np.zeros((4, 4), int), 2, 0.5, "gt_prob"),
        (np.zeros((4, 4), int), 2, 1.0, "gt_prob"),
    ],
)
def test_refused_labels(labels, n_labels, gt_prob, message):
    with pytest.raises(ValueError, match=message):
        crf_labels(np.zeros((4, 4, 3), np.uint8), labels, n_labels, gt_prob)


def test_settings_reach_the_crf(monkeypatch):
    image, _ = example()
    labels = np.random.default_rng(0).integers(-1, 3, image.shape[:2])
    settings = DenseCrfSettings(iterations=3, confidence=0.6, gaussian_xy=2.0, gaussian_weight=1.0, bilateral_xy=9.0,
                                bilateral_rgb=20.0, bilateral_weight=4.0)
    given = {"iterations": 3, "gaussian_sxy": 2.0, "gaussian_compat": 1.0, "bilateral_sxy": 9.0,
             "bilateral_srgb": 20.0, "bilateral_compat": 4.0}
    assert np.array_equal(crf_labels_by(settings, image, labels, 3), crf_labels(image, labels, 3, 0.6, **given))
    assert np.array_equal(crf_labels_by(DenseCrfSettings(iterations=0), image, labels, 3), labels)
    monkeypatch.setattr(module, "crf_labels", lambda *given, **named: (*given[2:], named))
    assert crf_labels_by(settings, image, labels, 3) == (3, 0.6, given)


def test_missing_package_is_a_sentence_with_the_command(monkeypatch):
    monkeypatch.setattr(module, "MISSING", "No module named 'pydensecrf'")
    image, probabilities = example()
    with pytest.raises(UserError, match="CYTHON_FORCE_REGEN=1 pip install --no-build-isolation pydensecrf"):
        dense_crf(image, probabilities)
