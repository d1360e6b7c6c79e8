"""The best map at every pixel, and connected parts, against plain loops and hand-drawn cases."""

from __future__ import annotations

import numpy as np
import pytest

from stages.labels.components import components_of, label_map


def test_label_map_by_hand():
    scores = np.array([[[0.8, 0.4, 0.1, 0.0]], [[0.2, 0.1, 0.12, 0.0]]])
    labels, normalised = label_map(scores, 0.25)
    assert labels.tolist() == [[0, 0, -1, -1]]
    assert np.allclose(normalised, scores / 0.8)
    labels, normalised = label_map(scores, 0.25, "instance")
    assert labels.tolist() == [[1, 1, 1, -1]]  # 1 and 0.5 in both; the second holds three pixels, the first two
    assert np.allclose(normalised, scores / np.array([0.8, 0.2])[:, None, None])


def test_label_map_of_ties():
    # Equal scores: the map with more pixels above the threshold wins, then the earlier one.
    scores = np.array([[[1.0, 1.0, 0.0, 0.0]], [[1.0, 1.0, 1.0, 0.0]], [[1.0, 1.0, 1.0, 0.0]]])
    assert label_map(scores, 0.25)[0].tolist() == [[1, 1, 1, -1]]


def test_label_map_at_the_threshold():
    scores = np.array([[[1.0, 0.25, 0.2499, 0.0]]])
    assert label_map(scores, 0.25)[0].tolist() == [[0, 0, -1, -1]]  # "less than bottom 25 %" is background
    assert label_map(scores, 0.0)[0].tolist() == [[0, 0, 0, -1]]  # without attention there is no label


def test_label_map_by_percentile():
    scores = np.zeros((1, 1, 10))
    scores[0, 0, :8] = np.arange(1, 9)  # quartile of the positive ones: 2.75
    assert label_map(scores, 0.25, threshold_kind="percentile")[0].tolist() == [[-1, -1, 0, 0, 0, 0, 0, 0, -1, -1]]


@pytest.mark.parametrize("kind", ["score", "percentile"])
@pytest.mark.parametrize("normalise", ["image", "instance"])
def test_label_map_of_nothing(kind, normalise):
    labels, normalised = label_map(np.zeros((0, 3, 4)), 0.25, normalise, kind)
    assert (labels == -1).all()
    assert labels.shape == (3, 4)
    assert len(normalised) == 0
    labels, _ = label_map(np.zeros((2, 3, 4)), 0.25, normalise, kind)
    assert (labels == -1).all()


def test_label_map_by_loop():
    generator = np.random.default_rng(2)
    scores = generator.random((5, 12, 9)) * generator.random((5, 1, 1))
    for normalise in ("image", "instance"):
        labels, normalised = label_map(scores, 0.5, normalise)
        top = scores.max() if normalise == "image" else None
        for y, x in np.ndindex(12, 9):
            column = [scores[p, y, x] / (top if top else scores[p].max()) for p in range(5)]
            assert np.allclose(normalised[:, y, x], column)
            assert labels[y, x] == (int(np.argmax(column)) if max(column) >= 0.5 else -1)


def test_components():
    labels = np.array([[0, 0, -1, 1], [-1, -1, 0, -1], [1, -1, -1, 1], [1, -1, 1, -1]])
    found = components_of(labels, 3)
    assert [label for label, _ in found] == [0, 1, 1, 1]
    assert sum(mask.astype(int) for _, mask in found).tolist() == (labels >= 0).astype(int).tolist()
    assert [int(mask.sum()) for _, mask in found] == [3, 1, 2, 2]
    assert components_of(np.full((3, 3), -1), 2) == []


def test_connectivity():
    labels = np.array([[0, -1, 0], [-1, 0, 0], [1, -1, 1]])
    assert [(label, int(mask.sum())) for label, mask in components_of(labels, 2, 8)] == [(0, 4), (1, 1), (1, 1)]
    assert [(label, int(mask.sum())) for label, mask in components_of(labels, 2, 4)] == [(0, 1), (0, 3), (1, 1), (1, 1)]
    assert len(components_of(labels, 1, 4)) == 2
    with pytest.raises(ValueError, match="4 or 8"):
        components_of(labels, 2, 6)


@pytest.mark.parametrize("connectivity", [4, 8])
def test_components_by_flood_fill(connectivity):
    labels = np.random.default_rng(4).integers(-1, 3, (12, 15))
    near = [(-1, 0), (1, 0), (0, -1), (0, 1)] + ([(-1, -1), (-1, 1), (1, -1), (1, 1)] if connectivity == 8 else [])
    left, wanted = {place for place in np.ndindex(labels.shape) if labels[place] >= 0}, set()
    while left:
        pending, part = [left.pop()], set()
        while pending:
            y, x = pending.pop()
            part.add((y, x))
            for dy, dx in near:
                if (y + dy, x + dx) in left and labels[y + dy, x + dx] == labels[y, x]:
                    left.remove((y + dy, x + dx))
                    pending.append((y + dy, x + dx))
        wanted.add((int(labels[y, x]), frozenset(part)))
    found = components_of(labels, 3, connectivity)
    assert len(found) == len(wanted)
    assert {(label, frozenset(map(tuple, np.argwhere(mask).tolist()))) for label, mask in found} == wanted
