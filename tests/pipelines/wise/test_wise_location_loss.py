"""L-Net's four terms on hand-drawn 8 x 8 cases, their gradients by finite differences, and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.lcfcn import loops, ours
from pipelines.wise import location_loss
from pipelines.wise.blobs import blob_points, dividing_lines, find_blobs, make_points, split_weights
from pipelines.wise.location_loss import location_losses

# 1 and 2 are classes; the two right parts of 1 touch at a corner and are one blob.
DRAWN = np.array([[0, 0, 0, 0, 0, 0, 0, 0],
                  [0, 1, 1, 1, 0, 0, 0, 0],
                  [0, 1, 1, 1, 0, 0, 2, 2],
                  [0, 0, 0, 0, 0, 0, 2, 2],
                  [0, 0, 0, 0, 0, 0, 0, 0],
                  [1, 1, 1, 1, 1, 0, 0, 0],
                  [0, 0, 0, 0, 0, 1, 1, 0],
                  [0, 0, 0, 0, 0, 1, 1, 0]])
HIGH, LOW = 0.8, 0.1


def logits_of(drawn: np.ndarray, channels: int = 3) -> torch.Tensor:
    """Log-probabilities: HIGH for the drawn class of a pixel, the rest shared evenly; doubles as logits."""
    values = np.full((channels, *drawn.shape), (1 - HIGH) / (channels - 1))
    np.put_along_axis(values, drawn[None], HIGH, 0)
    return torch.from_numpy(np.log(values)).float()


def points_at(*entries, size=(8, 8)):
    """Of (class, row, column)."""
    table = np.array(entries, int).reshape(-1, 3)
    return make_points(table[:, 1:], table[:, 0], size)


def terms(drawn: np.ndarray, *entries, channels: int = 3) -> dict[str, float]:
    found = location_losses(logits_of(drawn, channels), points_at(*entries))
    return {name: float(value) for name, value in found.items()}


def test_blobs_join_at_corners_and_never_across_classes():
    blobs = find_blobs(DRAWN)
    assert blobs.classes.tolist() == [0, 1, 2, 1]
    assert blobs.labels[5, 0] == blobs.labels[7, 6] == 3
    assert (find_blobs(np.array([[1, 2]])).labels == [[1, 2]]).all()
    assert find_blobs(np.zeros((8, 8), int)).classes.tolist() == [0]


def test_image_term_asks_for_every_class_once():
    # Present: background, 1 and 2, each with a pixel of probability HIGH.
    assert terms(DRAWN, (1, 1, 1), (2, 2, 6))["image"] == pytest.approx(-3 * np.log(HIGH), rel=1e-6)
    # Class 2 has no point: its best pixel should not be there.
    assert terms(DRAWN, (1, 1, 1))["image"] == pytest.approx(-2 * np.log(HIGH) - np.log(1 - HIGH), rel=1e-6)
    # No points at all.
    assert terms(DRAWN)["image"] == pytest.approx(-np.log(HIGH) - 2 * np.log(1 - HIGH), rel=1e-6)
    # Three points of a class count as one.
    assert terms(DRAWN, (1, 1, 1), (1, 2, 2), (1, 5, 0), (2, 2, 6))["image"] == pytest.approx(-3 * np.log(HIGH))


def test_image_term_of_a_sure_and_wrong_network_is_finite_and_has_a_gradient():
    logits = torch.zeros(2, 8, 8)
    logits[1, 3, 3] = 60
    logits.requires_grad_()
    loss = location_losses(logits, points_at())["image"]
    gradient, = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(60 + np.log(2), rel=1e-5)  # class 1 at its peak, background elsewhere
    assert gradient[1, 3, 3] == pytest.approx(1, rel=1e-5)


def test_point_term():
    assert terms(DRAWN, (1, 1, 1), (2, 2, 6))["point"] == pytest.approx(-2 * np.log(HIGH))
    # On background, and of a class that is not predicted there: at the border.
    assert terms(DRAWN, (1, 0, 0), (2, 7, 7))["point"] == pytest.approx(-2 * np.log(LOW))
    assert terms(DRAWN)["point"] == 0
    # The same pixel twice is one point; of two classes it is two.
    assert terms(DRAWN, (1, 1, 1), (1, 1, 1))["point"] == pytest.approx(-np.log(HIGH))
    assert terms(DRAWN, (1, 1, 1), (2, 1, 1))["point"] == pytest.approx(-np.log(HIGH) - np.log(LOW))


def test_false_positive_term_is_a_mean_per_lost_blob():
    inside = -np.log(LOW)
    assert terms(DRAWN, (1, 1, 1), (2, 2, 6), (1, 7, 5))["false_positive"] == 0
    assert terms(DRAWN, (1, 1, 1), (2, 2, 6))["false_positive"] == pytest.approx(inside)
    assert terms(DRAWN)["false_positive"] == pytest.approx(3 * inside)
    # A point of another class, or one beside the blob, does not make it right.
    assert terms(DRAWN, (2, 1, 1), (1, 2, 6), (1, 4, 4))["false_positive"] == pytest.approx(3 * inside)
    assert terms(np.zeros((8, 8), int), (1, 1, 1))["false_positive"] == 0


def test_split_term_between_two_points_of_a_blob():
    drawn = np.zeros((8, 8), int)
    drawn[2:6, :] = 1
    # The probability is the same everywhere in the blob: the line lies halfway between the points, columns 3 and 4.
    assert dividing_lines(np.where(drawn == 1, HIGH, LOW).astype(np.float32), np.array([[3, 1], [3, 6]])).nonzero()[
        1].tolist() == [3, 4] * 8
    found = terms(drawn, (1, 3, 1), (1, 3, 6), channels=2)["split"]
    # Local: weight 2, all 8 pixels of the line within the blob. Global: weight 1, all 16 pixels of the image's line.
    inside, outside = -np.log(1 - HIGH), -np.log(HIGH)
    assert found == pytest.approx(2 * inside + (8 * inside + 8 * outside) / 16, rel=1e-5)


def test_split_term_is_global_alone_where_every_blob_has_one_point():
    drawn = np.zeros((8, 8), int)
    drawn[3:5, 1:3] = 1
    drawn[3:5, 5:7] = 2
    found = terms(drawn, (1, 3, 2), (2, 3, 5))["split"]
    assert found == pytest.approx(-np.log(HIGH), rel=1e-5)  # the line runs through background only
    assert terms(drawn, (1, 3, 2))["split"] == 0
    assert terms(drawn, (1, 3, 2), (1, 3, 2))["split"] == 0  # one seed
    assert terms(drawn, (1, 3, 2), (2, 3, 2))["split"] == 0  # one seed of two classes
    assert terms(drawn)["split"] == 0


def test_a_point_of_another_class_splits_no_blob():
    drawn = np.zeros((8, 8), int)
    drawn[2:6, :] = 1
    one_class = terms(drawn, (1, 3, 1), (1, 3, 6))["split"]
    two_classes = terms(drawn, (1, 3, 1), (2, 3, 6))["split"]
    assert one_class == pytest.approx(two_classes + 2 * -np.log(LOW), rel=1e-5)


def test_the_line_follows_the_gap():
    probability = np.full((9, 9), 0.9, np.float32)
    probability[:, 6] = 0.2  # a gap, nearer to the second point
    lines = dividing_lines(probability, np.array([[4, 0], [4, 8]]))
    assert set(lines.nonzero()[1].tolist()) <= {5, 6, 7} and lines[:, 6].all()


CASES = {"split": ((1, 1, 1), (1, 2, 3), (2, 2, 6), (1, 5, 0), (1, 7, 6)), "none": (),
         "wrong": ((2, 1, 1), (1, 4, 4)), "border": ((1, 0, 0), (1, 7, 7), (2, 0, 7))}


@pytest.mark.parametrize("name", ["image", "point", "split", "false_positive"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_by_finite_differences(name, case, monkeypatch):
    """Blobs and lines are constants of the loss: lines on level ground move by chance with the smallest step."""
    generator = torch.Generator().manual_seed(3)
    logits = (logits_of(DRAWN) + 0.1 * torch.rand(3, 8, 8, generator=generator)).requires_grad_()
    points = points_at(*CASES[case])
    lines: list[np.ndarray] = []

    def first_lines(*arguments):
        lines.append(split_weights(*arguments))
        return lines[0]

    monkeypatch.setattr(location_loss, "split_weights", first_lines)
    value = location_losses(logits, points)[name]
    gradient = torch.autograd.grad(value, logits)[0] if value.requires_grad else torch.zeros_like(logits)
    for _ in range(12):
        direction = torch.randn(3, 8, 8, generator=generator)
        step = 2e-3 * direction
        ahead, behind = (location_losses(logits.detach() + sign * step, points)[name] for sign in (1, -1))
        assert float((ahead - behind) / 4e-3) == pytest.approx(float((gradient * direction).sum()), abs=2e-2, rel=2e-2)
    assert not CASES[case] or case == "wrong" or name == "false_positive" or gradient.abs().sum() > 0


@pytest.mark.parametrize("name", ["trained", "early"])
def test_equals_loops_over_pixels(name):
    size = {"height": 31, "width": 40, "classes": 4, "points": 6}
    found, expected = ours(name, **size)(), loops(name, **size)()
    assert (expected[:4] > 0).all()
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_points_are_pixels_of_the_image():
    points = make_points(np.array([[-3.0, 2.4], [9.6, 99], [9.4, 98]]), np.array([2, 1, 1]), (10, 12))
    assert points.yx.tolist() == [[0, 2], [9, 11]]
    assert points.classes.tolist() == [2, 1]


def test_blob_points_are_the_most_probable_pixels():
    probabilities = logits_of(DRAWN).exp().numpy()
    probabilities[1, 2, 3] = 0.85
    probabilities[2, 3, 7] = 0.9
    points, scores, blobs = blob_points(probabilities)
    assert points.yx.tolist() == [[2, 3], [3, 7], [5, 0]]  # of equal pixels the first
    assert points.classes.tolist() == [1, 2, 1]
    assert np.allclose(scores, [0.85, 0.9, HIGH])
    assert (blobs.labels == find_blobs(DRAWN).labels).all()
    kept, scores, blobs = blob_points(probabilities, least=0.86)
    assert kept.yx.tolist() == [[3, 7]] and blobs.classes.tolist() == [0, 2]
    assert ((blobs.labels == 1) == (DRAWN == 2)).all() and (blobs.labels < 2).all()
    nothing, scores, blobs = blob_points(logits_of(np.zeros((8, 8), int)).exp().numpy())
    assert nothing.yx.shape == (0, 2) and scores.shape == (0,) and not blobs.labels.any()
