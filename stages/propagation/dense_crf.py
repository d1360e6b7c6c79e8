"""Fully connected CRF with Gaussian and bilateral Potts terms, by pydensecrf."""

from __future__ import annotations

import numpy as np

from stages.propagation.settings import DenseCrfSettings
from stages.runtime.errors import UserError

try:
    from pydensecrf import densecrf

    MISSING = ""
except (ImportError, ValueError) as error:  # an optional package; NumPy's changes of its binary form are ValueErrors
    MISSING = str(error) or repr(error)

INSTALL = (
    'pip install "cython<3" "setuptools<81" wheel numpy'
    " && CYTHON_FORCE_REGEN=1 pip install --no-build-isolation pydensecrf"
)
LEAST_PROBABILITY = 1e-8  # what 0 counts as: its energy would be infinite


def dense_crf(
    image: np.ndarray,
    probabilities: np.ndarray,
    *,
    iterations: int = 10,
    gaussian_sxy: float = 3.0,
    gaussian_compat: float = 3.0,
    bilateral_sxy: float = 80.0,
    bilateral_srgb: float = 13.0,
    bilateral_compat: float = 10.0,
) -> np.ndarray:
    """Mean-field marginals of a dense CRF over an image (Kraehenbuehl and Koltun 2011).

    The energy of a labelling is the sum of -log probability over the pixels, and for each pair of pixels with
    different labels ``gaussian_compat * exp(-d^2 / 2 gaussian_sxy^2)`` and ``bilateral_compat *
    exp(-d^2 / 2 bilateral_sxy^2 - c^2 / 2 bilateral_srgb^2)``, d being their distance and c that of their colours, both
    kernels normalised symmetrically by their row sums. pydensecrf filters on a permutohedral lattice, which is an
    approximation: marginals are within a few hundredths of the exact mean field while the terms are weak, and can
    settle elsewhere when strong terms meet a tie. The same input gives the same bytes.

    Args:
        image: (H, W, 3) uint8, RGB; any memory order.
        probabilities: (L, H, W), >= 0; they need not sum to one over L. Values below 1e-8 count as 1e-8.
        iterations: mean-field steps, >= 0; with 0 the normalised probabilities come back.
        gaussian_sxy: width of the Gaussian kernel [pixels].
        gaussian_compat: weight of the Gaussian term; 0 leaves it out.
        bilateral_sxy: spatial width of the bilateral kernel [pixels].
        bilateral_srgb: colour width of the bilateral kernel [8-bit levels].
        bilateral_compat: weight of the bilateral term; 0 leaves it out.
            The defaults are those of pydensecrf's own example.

    Returns:
        (L, H, W) float32, C-contiguous; sums to one over L.

    Raises:
        ValueError: shapes or types that do not fit, values that are negative or not finite, widths not above 0.
        UserError: pydensecrf is not installed; the message has the command.
    """
    _check(image, probabilities, (gaussian_sxy, bilateral_sxy, bilateral_srgb), iterations)
    labels, height, width = probabilities.shape
    if labels == 1 or probabilities.size == 0:  # nothing to decide
        return np.ones(probabilities.shape, np.float32)
    if MISSING:
        raise UserError(f"the dense CRF needs pydensecrf, which cannot be imported ({MISSING}): {INSTALL}")
    model = densecrf.DenseCRF2D(width, height, labels)
    energy = -np.log(np.maximum(probabilities.astype(np.float64), LEAST_PROBABILITY))
    model.setUnaryEnergy(np.ascontiguousarray(energy.reshape(labels, -1), dtype=np.float32))
    if gaussian_compat:
        model.addPairwiseGaussian(sxy=gaussian_sxy, compat=gaussian_compat)
    if bilateral_compat:
        model.addPairwiseBilateral(
            sxy=bilateral_sxy, srgb=bilateral_srgb, rgbim=np.array(image, order="C"), compat=bilateral_compat
        )
    return np.array(model.inference(iterations), dtype=np.float32, order="C").reshape(labels, height, width)


def crf_labels(
    image: np.ndarray, labels: np.ndarray, n_labels: int, gt_prob: float = 0.7, **settings: float
) -> np.ndarray:
    """Refine hard labels by a dense CRF.

    Args:
        image: (H, W, 3) uint8, RGB.
        labels: (H, W) integers in [0, n_labels), or -1 where nothing is known: all labels are equally probable there.
        n_labels: number of labels, >= 1.
        gt_prob: probability of the given label, in (1 / n_labels, 1); the others share the rest evenly.
        settings: keyword arguments of :func:`dense_crf`.

    Returns:
        (H, W) int64 in [0, n_labels): the most probable label of every pixel, also of those that were -1.

    Raises:
        ValueError: a label or a probability outside its range, and what :func:`dense_crf` refuses.
        UserError: pydensecrf is not installed.
    """
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers (H, W), got {labels.dtype} {labels.shape}")
    if n_labels < 1 or (labels.size and not (labels.min() >= -1 and labels.max() < n_labels)):
        raise ValueError(f"labels must lie in [-1, {n_labels}), and there must be at least one label")
    if n_labels > 1 and not 1 / n_labels < gt_prob < 1:
        raise ValueError(f"gt_prob must lie between 1 / n_labels = {1 / n_labels:g} and 1, got {gt_prob}")
    given = labels[None] == np.arange(n_labels)[:, None, None]
    probabilities = np.where(given, gt_prob, (1 - gt_prob) / max(1, n_labels - 1))
    probabilities[:, labels == -1] = 1 / n_labels
    return dense_crf(image, probabilities, **settings).argmax(axis=0)  # type: ignore[arg-type]


def crf_labels_by(settings: DenseCrfSettings, image: np.ndarray, labels: np.ndarray, n_labels: int) -> np.ndarray:
    """:func:`crf_labels` as the settings say; where they say 0 iterations, ``labels`` as they are."""
    if not settings.iterations:
        return labels
    return crf_labels(
        image, labels, n_labels, settings.confidence, iterations=settings.iterations,
        gaussian_sxy=settings.gaussian_xy, gaussian_compat=settings.gaussian_weight,
        bilateral_sxy=settings.bilateral_xy, bilateral_srgb=settings.bilateral_rgb,
        bilateral_compat=settings.bilateral_weight)


def _check(image: np.ndarray, probabilities: np.ndarray, widths: tuple[float, ...], iterations: int) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"the image must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if probabilities.ndim != 3 or probabilities.shape[1:] != image.shape[:2] or len(probabilities) == 0:
        raise ValueError(f"probabilities must be (L, {image.shape[0]}, {image.shape[1]}), got {probabilities.shape}")
    if not np.isfinite(probabilities).all() or (probabilities < 0).any():
        raise ValueError("probabilities must be finite and not negative")
    if min(widths) <= 0:
        raise ValueError(f"the kernels' widths must be positive, got {widths}")
    if iterations < 0:
        raise ValueError(f"iterations must not be negative, got {iterations}")
