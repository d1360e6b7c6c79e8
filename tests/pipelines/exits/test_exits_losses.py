from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.exits.losses import dice, drop_points, overall_loss, point_loss, projection_loss


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 1 - 2 * (a * b).sum() / ((a**2).sum() + (b**2).sum())


def test_dice_against_its_definition():
    generator = np.random.default_rng(0)
    masks, targets = generator.uniform(0, 1, (3, 5, 7)), generator.integers(0, 2, (3, 5, 7)).astype(float)
    ours = dice(torch.from_numpy(masks), torch.from_numpy(targets))
    np.testing.assert_allclose(ours.numpy(), [_dice(a, b) for a, b in zip(masks, targets, strict=True)], atol=1e-5)


def test_dice_of_nothing_with_nothing_is_no_loss():
    assert dice(torch.zeros(1, 4), torch.zeros(1, 4)).item() == pytest.approx(0, abs=1e-6)


def test_projection_asks_for_one_pixel_per_row_and_column_of_the_box():
    boxes = torch.zeros(2, 6, 6)
    boxes[:, 1:5, 2:6] = 1
    masks = torch.zeros(2, 6, 6)
    masks[0, [1, 2, 3, 4], [2, 3, 4, 5]] = 1  # a diagonal touches every row and column
    masks[1, 1:5, 2:4] = 1  # misses two columns
    found = projection_loss(masks, boxes)
    assert found[0].item() == pytest.approx(0, abs=1e-5)
    assert found[1].item() == pytest.approx(1 - 2 * 2 / (2 + 4), abs=1e-5)


def test_point_loss_sees_labelled_points_only():
    labels = torch.zeros(1, 4, 4, dtype=torch.int8)
    labels[0, 0, 0], labels[0, 1, 1], labels[0, 2, 2], labels[0, 3, 3] = 2, 1, -1, -2
    masks = torch.full((1, 4, 4), 0.7)
    masks[0, [0, 1, 2, 3], [0, 1, 2, 3]] = torch.tensor([0.9, 0.6, 0.3, 0.2])
    expected = _dice(np.array([0.9, 0.6, 0.3, 0.2]), np.array([1.0, 1.0, 0.0, 0.0]))
    assert point_loss(masks, labels).item() == pytest.approx(expected, abs=1e-5)
    masks[0, 0, 1] = 0.1
    assert point_loss(masks, labels).item() == pytest.approx(expected, abs=1e-5)


def test_point_loss_reduces_the_mask_by_area():
    labels = torch.tensor([[[2, -2], [0, 0]]], dtype=torch.int8)
    masks = torch.zeros(1, 4, 4)
    masks[0, :2, :2] = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    expected = _dice(np.array([0.5, 0.0]), np.array([1.0, 0.0]))
    assert point_loss(masks, labels).item() == pytest.approx(expected, abs=1e-5)


def test_mil_steps_in_where_nothing_was_retrieved():
    boxes = torch.zeros(2, 4, 4)
    boxes[:, 1:3, 1:3] = 1
    labels = torch.full((2, 4, 4), -2, dtype=torch.int8)
    labels[:, 1:3, 1:3] = 0
    labels[:, 1, 1] = 2
    labels[1, 2, 2] = -1  # retrieved, if only as background
    masks = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    point, mil = overall_loss(masks, labels, boxes, 10.0)
    assert mil.item() == pytest.approx(10 * projection_loss(masks, boxes)[0].item() / 2)
    assert point.item() == pytest.approx(point_loss(masks, labels).mean().item())


def test_boxes_alone_give_mil_alone():
    masks, boxes = torch.rand(3, 4, 4), torch.ones(3, 4, 4)
    point, mil = overall_loss(masks, torch.zeros(3, 4, 4, dtype=torch.int8), boxes, 2.0)
    assert point.item() == 0
    assert mil.item() == pytest.approx(2 * projection_loss(masks, boxes).mean().item())


def test_dropout_forgets_a_share_of_the_retrieved_points_and_none_of_the_given():
    labels = torch.from_numpy(np.random.default_rng(0).integers(-2, 3, (100, 100)).astype(np.int8))
    draws = torch.rand(100, 100, generator=torch.Generator().manual_seed(1))
    kept = drop_points(labels, 0.9, draws)
    for value in (-2, 0, 2):
        assert (kept[labels == value] == value).all()
    for value in (-1, 1):
        chosen = kept[labels == value]
        assert set(chosen.unique().tolist()) == {0, value}
        assert (chosen == value).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(drop_points(labels, 0.0, draws), labels)


def test_losses_have_gradients_where_they_should():
    masks = torch.full((1, 4, 4), 0.5, requires_grad=True)
    labels = torch.zeros(1, 4, 4, dtype=torch.int8)
    labels[0, 0, 0] = 1
    point_loss(masks, labels).sum().backward()
    assert masks.grad is not None
    assert masks.grad[0, 0, 0] < 0
    assert (masks.grad.flatten()[1:] == 0).all()
