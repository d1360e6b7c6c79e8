"""The random walk against a dense float64 walk, and what must hold for any walk."""

import numpy as np
import pytest
import torch
from scipy.stats import binom

from stages.propagation import tensor_walk
from stages.propagation.random_walk import TOLERANCE, build_stencil, chebyshev_weights, random_walk, walk
from tests.stages.propagation.reference import dense_transition, dense_walk


def example(height, width, maps=3, seed=0):
    """Blobs of scores and a boundary with a sharp line, weak noise, and some saturated pixels."""
    rng = np.random.default_rng(seed)
    scores = rng.random((maps, height, width)) ** 4
    boundary = 0.3 * rng.random((height, width))
    boundary[:, width // 2] = 0.9
    boundary[rng.random((height, width)) < 0.1] = 1.0
    return scores, boundary


def relative_error(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 16, 101, 256])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_walk_equals_the_dense_walk(steps, dtype):
    scores, boundary = example(11, 13)
    walked = random_walk(scores.astype(dtype), boundary.astype(dtype), steps=steps)
    assert walked.dtype == dtype
    assert walked.shape == scores.shape
    assert walked.flags.c_contiguous
    limit = 5e-6 if dtype == np.float32 else 1e-7
    assert relative_error(walked, dense_walk(scores, boundary, 5, 10, steps)) < limit


@pytest.mark.parametrize(("radius", "beta"), [(1, 10), (1.5, 1), (2, 10), (3.3, 2.5), (10, 10), (100, 10)])
def test_other_radii_and_powers(radius, beta):
    scores, boundary = example(7, 9)
    walked = random_walk(scores, boundary, radius=radius, beta=beta, steps=50)
    assert relative_error(walked, dense_walk(scores, boundary, radius, beta, 50)) < 1e-7


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 12), (12, 1), (2, 2), (3, 20)])
def test_small_and_narrow_images(shape):
    scores, boundary = example(*shape)
    boundary[:] = 0.2
    assert relative_error(random_walk(scores, boundary), dense_walk(scores, boundary, 5, 10, 256)) < 1e-7


def test_single_pixels_far_from_everything():
    """The result is much smaller than the start here, so that absolute errors weigh most."""
    _, boundary = example(24, 24)
    boundary = np.minimum(boundary, 0.9)
    scores = np.zeros((3, 24, 24))
    scores[0, 0, 0] = scores[1, 12, 3] = scores[2, 5, 12] = 1
    walked = random_walk(scores.astype(np.float32), boundary)
    expected = dense_walk(scores, boundary, 5, 10, 256)
    assert max(relative_error(walked[c], expected[c]) for c in range(3)) < 2e-5


def test_constant_map_stays_constant_to_the_bit():
    walked = random_walk(np.full((2, 9, 14), 0.7, np.float32), np.zeros((9, 14), np.float32))
    assert np.array_equal(walked, np.full_like(walked, walked[0, 0, 0]))
    assert abs(walked[0, 0, 0] - 0.7) < 1e-6


def test_without_a_boundary_row_sums_are_numbers_of_neighbours():
    stencil = build_stencil(np.zeros((20, 20)), 5, 10, np.float64, np)
    height, width, padded = stencil.shape
    sums = 1 / stencil.inverse_sums.reshape(height, padded)[:, :width]
    assert sums[10, 10] == pytest.approx(69)
    assert sums[0, 0] == pytest.approx(22)  # a quarter disc with both axes


def test_all_boundary_keeps_nothing():
    assert not random_walk(np.ones((2, 5, 6), np.float32), np.ones((5, 6), np.float32)).any()


def test_boundary_separates():
    boundary = np.zeros((10, 11))
    boundary[:, 5] = 1
    scores = np.zeros((1, 10, 11))
    scores[0, :, :5] = 1
    walked = random_walk(scores, boundary)[0]
    assert np.allclose(walked[:, :5], 1)
    assert not walked[:, 5:].any()


def test_what_is_conserved_and_what_cannot_grow():
    scores, boundary = example(12, 10)
    transition = dense_transition(boundary, 5, 10)
    sums = 1 / np.diag(transition)  # S_ii, as a pixel's affinity to itself is 1
    start = scores * (1 - boundary)
    walked = random_walk(scores, boundary)
    assert np.allclose((walked.reshape(3, -1) * sums).sum(1), (start.reshape(3, -1) * sums).sum(1))
    assert walked.max() <= start.max() * (1 + 1e-7)
    assert walked.min() >= start.min() - 1e-7


def test_linear_in_the_scores_and_maps_do_not_mix():
    scores, boundary = example(8, 8)
    together = random_walk(scores, boundary)
    for index in range(len(scores)):
        assert np.array_equal(random_walk(scores[index : index + 1], boundary)[0], together[index])
    assert np.allclose(random_walk(-2 * scores, boundary), -2 * together)


def test_flipped_image_gives_the_flipped_walk():
    scores, boundary = example(9, 8)
    walked = random_walk(scores, boundary)
    for flip in (lambda a: a[..., ::-1], lambda a: a[..., ::-1, :], lambda a: a.swapaxes(-1, -2)):
        assert np.allclose(random_walk(flip(scores), flip(boundary)), flip(walked), rtol=1e-10, atol=1e-12)


def test_inputs_are_left_alone():
    scores, boundary = example(6, 6)
    copies = scores.copy(), boundary.copy()
    random_walk(scores, boundary)
    assert np.array_equal(scores, copies[0])
    assert np.array_equal(boundary, copies[1])


@pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5), (2, 4, 0)])
def test_nothing_to_walk(shape):
    walked = random_walk(np.zeros(shape, np.float32), np.zeros(shape[1:], np.float32))
    assert walked.shape == shape


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.int64])
def test_other_dtypes_are_walked_in_float32(dtype):
    scores = (np.arange(24).reshape(1, 4, 6) % 5).astype(dtype)
    boundary = np.full((4, 6), 0.25)
    walked = random_walk(scores, boundary)
    assert walked.dtype == np.float32
    assert relative_error(walked, dense_walk(scores.astype(float), boundary, 5, 10, 256)) < 5e-6


def test_tensors_on_the_cpu_give_the_same_bytes_and_no_graph():
    scores, boundary = (array.astype(np.float32) for array in example(9, 10))
    tensor = tensor_walk.random_walk(torch.from_numpy(scores).requires_grad_(),
                                     torch.from_numpy(boundary).requires_grad_())
    assert isinstance(tensor, torch.Tensor)
    assert not tensor.requires_grad
    assert np.array_equal(tensor.numpy(), random_walk(scores, boundary))


def test_low_precision_tensors():
    scores, boundary = (torch.from_numpy(array).bfloat16() for array in example(9, 10))
    walked = tensor_walk.random_walk(scores, boundary)
    assert walked.dtype == torch.float32
    expected = dense_walk(scores.double().numpy(), boundary.double().numpy(), 5, 10, 256)
    assert relative_error(walked.numpy(), expected) < 5e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_path_that_other_devices_take(dtype):
    scores, boundary = example(9, 10)
    walked = walk(torch, torch.from_numpy(scores).to(dtype), torch.from_numpy(boundary), 5, 10, 256)
    assert walked.dtype == dtype
    limit = 5e-6 if dtype == torch.float32 else 1e-7
    assert relative_error(walked.numpy(), dense_walk(scores, boundary, 5, 10, 256)) < limit


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu():
    scores, boundary = (torch.from_numpy(array).float() for array in example(30, 40))
    walked = tensor_walk.random_walk(scores.to("cuda"), boundary.to("cuda"))
    assert walked.device.type == "cuda"
    assert walked.is_contiguous()
    assert relative_error(walked.cpu().numpy(), tensor_walk.random_walk(scores, boundary).numpy()) < 1e-5


@pytest.mark.parametrize(
    ("scores", "boundary", "settings", "message"),
    [
        (np.zeros((4, 5)), np.zeros((4, 5)), {}, "scores must be"),
        (np.zeros((1, 4, 5)), np.zeros((5, 4)), {}, "scores must be"),
        (np.zeros((1, 4, 5)), np.full((4, 5), 1.5), {}, "boundary"),
        (np.zeros((1, 4, 5)), np.full((4, 5), np.nan), {}, "boundary"),
        (np.zeros((1, 4, 5)), np.zeros((4, 5)), {"steps": -1}, "steps"),
        (np.zeros((1, 4, 5)), np.zeros((4, 5)), {"steps": 2.5}, "steps"),
        (np.zeros((1, 4, 5)), np.zeros((4, 5)), {"beta": 0}, "beta"),
        (np.zeros((1, 4, 5)), np.zeros((4, 5)), {"radius": 0}, "radius"),
    ],
)
def test_refused(scores, boundary, settings, message):
    with pytest.raises(ValueError, match=message):
        random_walk(scores, boundary, **settings)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 7, 64, 255, 256, 1000, 100_000])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-8])
def test_chebyshev_weights_are_the_folded_binomial_with_its_tail_cut_off(steps, tolerance):
    weights = chebyshev_weights(steps, tolerance)
    degree = len(weights) - 1
    ends = np.arange(degree + 1)
    exact = np.where((ends + steps) % 2 == 0, binom.pmf((ends + steps) / 2, steps, 0.5), 0) * np.where(ends > 0, 2, 1)
    assert weights.sum() == pytest.approx(1, abs=1e-14)
    assert (weights >= 0).all()
    assert np.abs(weights - exact).sum() <= tolerance * 1.001 + 1e-9
    assert degree <= min(steps, np.sqrt(2 * steps * np.log(2 / tolerance)) + 1)
    # The tail beyond the degree is small enough, and one term less would not do.
    assert 2 * binom.sf((steps + degree) // 2, steps, 0.5) <= tolerance * (1 + 1e-4)
    if degree >= 2:
        assert 2 * binom.sf((steps + degree - 2) // 2, steps, 0.5) > tolerance * (1 - 1e-4)


@pytest.mark.parametrize("steps", [1, 2, 31, 256])
def test_chebyshev_error_on_the_whole_interval(steps):
    x = np.linspace(-1, 1, 4001)
    expansion = np.polynomial.chebyshev.chebval(x, chebyshev_weights(steps))
    assert np.abs(expansion - x**steps).max() <= 2 * TOLERANCE
    assert abs(np.polynomial.chebyshev.chebval(1.0, chebyshev_weights(steps)) - 1) < 1e-14


def test_degree_for_the_steps_of_the_paper():
    assert len(chebyshev_weights(256)) - 1 == 90


def test_bound_in_the_norm_of_the_row_sums():
    scores, boundary = example(12, 12)
    sums = 1 / np.diag(dense_transition(boundary, 5, 10)).reshape(12, 12)

    def norm(maps):
        return np.sqrt((maps**2 * sums).sum((1, 2)))

    error = norm(random_walk(scores, boundary) - dense_walk(scores, boundary, 5, 10, 256))
    assert (error <= 2 * TOLERANCE * norm(scores * (1 - boundary))).all()
