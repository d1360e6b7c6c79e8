"""E-Net's loss against eq. 2 and 3 written out, and its gradient; grouping against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.grouping import plain_grouping
from pipelines.wise.embedding_loss import embedding_loss, exponents, pair_terms
from pipelines.wise.grouping import background_pixels, group

NONE = torch.zeros(0, dtype=torch.long)


def numbers(*values):
    return torch.tensor(values, dtype=torch.long)


def test_equation_2_and_3_written_out():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((6, 9))
    first, second = numbers(0, 0, 1, 2, 3), numbers(4, 5, 6, 7, 8)
    same = torch.tensor([True, False, False, True, False])
    expected = 0.0
    weight = [1.0, 2.0, 0.5, 1.0, 1.0]
    for i, j, alike, factor in zip(first, second, same, weight, strict=True):
        similarity = np.exp(-np.sum((values[:, i] - values[:, j]) ** 2) / (2 * 6))
        expected -= factor * np.log(similarity if alike else 1 - similarity)
    found = embedding_loss(torch.from_numpy(values), first, second, same, torch.tensor(weight), numbers(0, 1, 2, 3),
                           NONE, NONE)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_alike_pixels_cost_nothing_and_equal_different_ones_stay_finite():
    values = torch.ones(64, 2, requires_grad=True)
    for alike, most in ((True, 0), (False, -np.log(-np.expm1(-1e-6)))):
        terms = pair_terms(exponents(values[:, [0]], values[:, [1]]), torch.tensor([alike]))
        assert terms.item() == pytest.approx(most, rel=1e-4)
        gradient, = torch.autograd.grad(terms.sum(), values)
        assert torch.isfinite(gradient).all()
    # Far apart, and still with a gradient that brings them together.
    far = torch.tensor([[0.0, 300.0]], requires_grad=True)
    gradient, = torch.autograd.grad(pair_terms(exponents(far[:, :1], far[:, 1:]), torch.tensor([True])).sum(), far)
    assert gradient[0, 0] < 0 < gradient[0, 1]


def test_hard_background_pixels():
    # One point at 0, one seed at 10; background pixels at 1 (wrong), 9 (right), 4 (wrong).
    values = torch.tensor([[0.0, 10.0, 1.0, 9.0, 4.0]])
    found = embedding_loss(values, NONE, NONE, torch.zeros(0, dtype=torch.bool), torch.zeros(0), numbers(0),
                           numbers(1), numbers(2, 3, 4))
    expected = np.mean([-np.log(1 - np.exp(-1 / 2)), -np.log(1 - np.exp(-16 / 2))])
    assert found.item() == pytest.approx(expected, rel=1e-5)
    # Without any seed every background pixel is nearest to the point; without points nothing is.
    arguments = (values, NONE, NONE, torch.zeros(0, dtype=torch.bool), torch.zeros(0))
    assert embedding_loss(*arguments, numbers(0), NONE, numbers(2, 3)) > 0
    assert embedding_loss(*arguments, NONE, numbers(1), numbers(2, 3)) == 0


def test_gradient_by_finite_differences():
    rng = np.random.default_rng(1)
    values = torch.from_numpy(rng.standard_normal((4, 8))).float().requires_grad_()
    arguments = (numbers(0, 0, 1, 1), numbers(2, 3, 4, 5), torch.tensor([True, False, True, False]),
                 torch.tensor([1.0, 0.5, 0.25, 2.0]), numbers(0, 1), numbers(6), numbers(5, 7))
    gradient, = torch.autograd.grad(embedding_loss(values, *arguments), values)
    for _ in range(8):
        direction = torch.from_numpy(rng.standard_normal((4, 8))).float()
        ahead, behind = (embedding_loss((values + sign * 1e-3 * direction).detach(), *arguments) for sign in (1, -1))
        slope = (gradient * direction).sum().item()
        assert ((ahead - behind) / 2e-3).item() == pytest.approx(slope, abs=2e-3, rel=1e-2)


@pytest.mark.parametrize(("objects", "background"), [(3, 2), (1, 0), (5, 5)])
def test_grouping_equals_loops(objects, background):
    rng = np.random.default_rng(objects)
    embeddings = rng.standard_normal((6, 9, 11)).astype(np.float32) + 40  # far from the origin: digits are lost there
    anchors = rng.permutation(99)[:objects + background]
    yx = np.stack([anchors // 11, anchors % 11], 1)
    found = group(torch.from_numpy(embeddings), yx[:objects], yx[objects:]).numpy()
    assert (found == plain_grouping(embeddings, yx[:objects], yx[objects:])).all()
    assert [found[row, column] for row, column in yx] == [*range(objects), *([-1] * background)]


def test_grouping_in_parts_is_the_same(monkeypatch):
    embeddings = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 9, 11)).astype(np.float32))
    yx = np.array([[0, 0], [8, 10], [4, 4]])
    whole = group(embeddings, yx[:2], yx[2:])
    monkeypatch.setattr("pipelines.wise.grouping._CHUNK", 7)
    assert torch.equal(group(embeddings, yx[:2], yx[2:]), whole)


def test_grouping_without_points_or_with_two_on_one_pixel():
    embeddings = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 5, 5)).astype(np.float32))
    nothing = np.zeros((0, 2), int)
    assert (group(embeddings, nothing, np.array([[1, 1]])) == -1).all()
    assert (group(embeddings, np.array([[1, 1]]), nothing) == 0).all()
    assert (group(embeddings, np.array([[1, 1], [1, 1]]), nothing) == 0).all()


def test_background_pixels_are_those_nearest_to_the_means():
    # Three groups of background, one of them small, and an object that is never chosen.
    embeddings = torch.zeros(2, 4, 6)
    embeddings[0, :, 2:4] = 10
    embeddings[1, 0, 4:] = 10
    embeddings[0, 3, 3] = 13  # an outlier of the second group
    embeddings[:, 1:, 4:] = 99
    background = torch.ones(4, 6, dtype=torch.bool)
    background[1:, 4:] = False
    chosen = background_pixels(embeddings, background.numpy(), 3)
    assert sorted(tuple(embeddings[:, row, column].tolist()) for row, column in chosen) == [(0, 0), (0, 10), (10, 0)]
    assert background_pixels(embeddings, np.zeros((4, 6), bool), 3).shape == (0, 2)
    assert background_pixels(embeddings, background.numpy(), 0).shape == (0, 2)
    two = np.zeros((4, 6), bool)
    two[0, :2] = True
    assert 1 <= len(background_pixels(embeddings, two, 5)) <= 2


def test_background_pixels_equal_plain_k_means():
    rng = np.random.default_rng(4)
    embeddings = rng.standard_normal((3, 8, 10)).astype(np.float32)
    background = rng.random((8, 10)) < 0.7
    chosen = background_pixels(torch.from_numpy(embeddings), background, 4)
    pixels = np.argwhere(background)
    values = np.array([embeddings[:, row, column] for row, column in pixels], np.float64)
    centres = [values[np.argmin(((values - values.mean(0)) ** 2).sum(1))]]
    while len(centres) < 4:
        centres.append(values[np.argmax([min(((value - centre) ** 2).sum() for centre in centres)
                                         for value in values])])
    for _ in range(20):
        of = np.array([np.argmin([((value - centre) ** 2).sum() for centre in centres]) for value in values])
        centres = [values[of == index].mean(0) for index in range(4)]
    of = np.array([np.argmin([((value - centre) ** 2).sum() for centre in centres]) for value in values])
    expected = [pixels[of == index][np.argmin(((values[of == index] - centres[index]) ** 2).sum(1))]
                for index in range(4)]
    assert sorted(map(tuple, chosen)) == sorted(map(tuple, expected))
