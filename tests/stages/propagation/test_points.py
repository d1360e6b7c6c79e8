from __future__ import annotations

import numpy as np
import pytest
import torch

from stages.propagation.points import (
    cielab,
    colour_exponent,
    converged_scores,
    distance_exponent,
    feature_exponent,
    propagation_scores,
    retrieve,
    score_difference,
    seed_rows,
    sinkhorn,
    transition_matrix,
)


def _similarity(batch: int = 2, points: int = 40, seed: int = 0) -> torch.Tensor:
    values = np.random.default_rng(seed).uniform(0.05, 1.0, (batch, points, points))
    return torch.from_numpy(values)


def _balanced(matrix: np.ndarray) -> np.ndarray:
    """Sinkhorn-Knopp as the textbook has it: whole matrices, rows and columns in turn, until nothing changes."""
    for _ in range(1000):
        matrix = matrix / matrix.sum(1, keepdims=True)
        matrix = matrix / matrix.sum(0, keepdims=True)
    return matrix


def test_sinkhorn_is_the_balanced_form_of_the_matrix():
    similarity = _similarity()
    for ours, given in zip(sinkhorn(similarity, 100), similarity.numpy(), strict=True):
        np.testing.assert_allclose(ours.numpy(), _balanced(given), atol=1e-12)


def test_transition_is_symmetric_and_doubly_stochastic():
    transition = transition_matrix(_similarity(), 100)
    assert torch.equal(transition, transition.transpose(1, 2))
    np.testing.assert_allclose(transition.sum(1).numpy(), 1, atol=1e-12)
    np.testing.assert_allclose(transition.sum(2).numpy(), 1, atol=1e-12)


@pytest.mark.parametrize("hops", [0, 1, 2, 3, 7])
def test_scores_are_means_over_rows_of_the_matrix_power(hops):
    transition = transition_matrix(_similarity(batch=1))
    members = torch.zeros(2, 40, dtype=torch.bool)
    members[0, [3, 17, 20]] = True
    members[1, 25:] = True
    scores = propagation_scores(transition, seed_rows(members, torch.float64)[None], hops)[0]
    power = np.linalg.matrix_power(transition[0].numpy(), hops)
    for row, chosen in zip(scores, members, strict=True):
        np.testing.assert_allclose(row.numpy(), power[chosen.numpy()].mean(0), atol=1e-14)


@pytest.mark.parametrize("beta", [0.1, 0.25, 0.9])
def test_converged_scores_are_the_sum_over_all_hops(beta):
    transition = transition_matrix(_similarity(batch=1))
    sources = seed_rows(torch.arange(40)[None] < 4, torch.float64)[None]
    total, weight = torch.zeros_like(sources), 1 - beta
    for hops in range(600):
        total += weight * propagation_scores(transition, sources, hops)
        weight *= beta
    np.testing.assert_allclose(converged_scores(transition, sources, beta).numpy(), total.numpy(), atol=1e-12)


def test_an_empty_set_has_no_weight():
    assert seed_rows(torch.zeros(1, 5, dtype=torch.bool)).sum() == 0


def test_single_precision_is_enough():
    similarity = _similarity(1, 256)
    sources = seed_rows(torch.arange(256)[None] < 9, torch.float64)[None]
    exact = propagation_scores(transition_matrix(similarity), sources, 3)
    ours = propagation_scores(transition_matrix(similarity.float()), sources.float(), 3)
    assert float((ours - exact).norm() / exact.norm()) < 1e-6


def test_thresholds_scale_with_the_number_of_points():
    """The same picture on a grid twice as fine gives the same points: a score of 1 / P counts the same."""
    found = []
    for fine in (1, 2):
        foreground = torch.tensor([[3.0, 1.0, 0.5, 0.2]]).repeat_interleave(fine, 1) / (4 * fine)
        background = torch.tensor([[0.5, 0.5, 0.7, 1.2]]).repeat_interleave(fine, 1) / (4 * fine)
        chosen = torch.tensor([[True, True, True, True]]).repeat_interleave(fine, 1)
        pair = retrieve(score_difference(foreground, background), chosen, 1.024, -0.1024)
        found.append([values[:, ::fine].tolist() for values in pair])
    assert found[0] == found[1] == [[[True, False, False, False]], [[False, False, True, True]]]


def test_only_candidates_are_retrieved():
    nobody = torch.zeros(1, 3, dtype=torch.bool)
    assert not any(values.any() for values in retrieve(torch.tensor([[3.0, 0.0, -3.0]]), nobody, 0.5, -0.5))


def test_walk_stays_within_what_is_connected():
    """Two halves that have nothing in common: what starts in one never gets into the other."""
    similarity = torch.full((1, 6, 6), 1e-12, dtype=torch.float64)
    similarity[:, :3, :3] = similarity[:, 3:, 3:] = 1.0
    sources = seed_rows(torch.arange(6)[None] < 1, torch.float64)[None]
    scores = propagation_scores(transition_matrix(similarity), sources, 5)
    np.testing.assert_allclose(scores[0, 0].numpy(), [1 / 3] * 3 + [0] * 3, atol=1e-9)


def test_features_of_one_direction_are_equal():
    features = torch.tensor([[1.0, 5.0, 0.0], [0.0, 0.0, 2.0]])[None]
    similarity = feature_exponent(features, 0.5)[0].exp()
    expected = np.exp((np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]]) - 1) / 0.5)
    np.testing.assert_allclose(similarity.numpy(), expected, rtol=1e-6)


def test_colours_are_those_of_scikit_image():
    from skimage.color import rgb2lab

    rgb = np.random.default_rng(0).uniform(0, 1, (8, 9, 3))
    ours = cielab(torch.from_numpy(rgb.transpose(2, 0, 1))[None])[0].numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(ours, rgb2lab(rgb), atol=0.02)


def test_colour_similarity_compares_the_means_of_cells():
    from skimage.color import rgb2lab

    image = np.random.default_rng(1).integers(0, 256, (12, 12, 3)).astype(np.uint8)
    means = image.reshape(3, 4, 3, 4, 3).mean((1, 3)) / 255
    colours = rgb2lab(means).reshape(9, 3) / 100
    expected = np.exp(-((colours[:, None] - colours[None]) ** 2).sum(-1) / 0.2**2)
    ours = colour_exponent(torch.from_numpy(image.transpose(2, 0, 1).copy())[None], 3, 0.2)[0].exp()
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-3)


def test_distances_of_cells():
    found = distance_exponent(3, 0.5)
    for one in range(9):
        for other in range(9):
            down, across = one // 3 - other // 3, one % 3 - other % 3
            assert found[one, other].item() == pytest.approx(-(down**2 + across**2) / 9 / 0.25, abs=1e-6)
