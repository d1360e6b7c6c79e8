"""Random views: labels move with the pixels, and the same generator gives the same view."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from stages.cues.augment import AugmentSettings, random_view


def settings(**changes) -> AugmentSettings:
    return AugmentSettings(**{"crop": 48, "long_side": None, "scale": (1.0, 1.0), **changes})


def painted(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A label map of blocks, and an image that shows each label as a grey value: 10 times the label."""
    rows, columns = np.mgrid[:height, :width]
    labels = (1 + (rows // 11 * 5 + columns // 13) % 23).astype(np.uint8)
    return np.repeat(10 * labels[..., None], 3, axis=2), labels


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(48, 48), (30, 40), (100, 120), (20, 200), (1, 1), (47, 49)])
def test_labels_move_with_pixels(size, flip):
    image, labels = painted(*size)
    for seed in range(8):
        view, cut, inside = random_view(image, labels, np.random.default_rng(seed), settings(flip=flip))
        assert view.shape == (48, 48, 3)
        assert view.dtype == np.uint8
        assert cut.shape == inside.shape == (48, 48)
        assert inside.sum() == min(size[0], 48) * min(size[1], 48)
        assert (view[inside] == 10 * cut[inside][:, None]).all()
        assert (cut[~inside] == 255).all()
        assert (view[~inside] == (124, 116, 104)).all()


@pytest.mark.parametrize(("scale", "margin"), [((0.5, 0.5), 3), ((2.0, 2.0), 7), ((0.6, 2.5), 7)])
def test_labels_move_with_scaled_pixels(scale, margin):
    image, labels = painted(60, 90)
    window, compared = np.ones((margin, margin)), 0
    for seed in range(6):
        view, cut, inside = random_view(image, labels, np.random.default_rng(seed), settings(scale=scale))
        # Away from the blocks' borders both interpolations must show the same block.
        chosen = inside & (cv2.dilate(cut, window) == cv2.erode(cut, window))
        chosen[:3] = chosen[-3:] = chosen[:, :3] = chosen[:, -3:] = False  # what is beyond the cut is not known
        compared += chosen.sum()
        assert (view[chosen][:, 0] == 10 * cut[chosen]).all()
    assert compared > 500


def test_the_generator_decides():
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    options = settings(scale=(0.5, 1.5), jitter=0.4)
    first = random_view(image, None, np.random.default_rng(3), options)
    second = random_view(image, None, np.random.default_rng(3), options)
    assert first[1] is None
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[2], second[2])
    views = {random_view(image, None, np.random.default_rng(seed), options)[0].tobytes() for seed in range(10)}
    assert len(views) == 10


def test_labels_change_nothing_in_the_picture():
    image, labels = painted(70, 90)
    options = settings(scale=(0.5, 1.5), jitter=0.4)
    with_labels = random_view(image, labels, np.random.default_rng(3), options)
    without = random_view(image, None, np.random.default_rng(3), options)
    assert np.array_equal(with_labels[0], without[0])


def test_half_of_the_views_are_mirrored():
    image, _ = painted(48, 48)
    mirrored = [np.array_equal(random_view(image, None, np.random.default_rng(seed), settings())[0], image[:, ::-1])
                for seed in range(200)]
    straight = [np.array_equal(random_view(image, None, np.random.default_rng(seed), settings(flip=False))[0], image)
                for seed in range(5)]
    assert 70 < sum(mirrored) < 130
    assert all(straight)


def test_small_images_lie_anywhere_and_large_ones_are_cut_anywhere():
    image = np.full((20, 100, 3), 7, np.uint8)
    image[:, :, 1] = np.arange(100)
    tops, lefts = set(), set()
    for seed in range(400):
        view, _, inside = random_view(image, None, np.random.default_rng(seed), settings(flip=False))
        rows, columns = np.nonzero(inside)
        assert (rows.min(), rows.max() - rows.min(), columns.min(), columns.max()) == (rows.min(), 19, 0, 47)
        tops.add(int(rows.min()))
        lefts.add(int(view[rows.min(), 0, 1]))
    assert tops == set(range(29))
    assert lefts == set(range(53))


@pytest.mark.parametrize("size", [(60, 90), (90, 60)])
def test_long_side_is_in_its_range(size):
    image, labels = np.zeros((*size, 3), np.uint8), np.ones(size, np.uint8)
    sides = set()
    for seed in range(200):
        _, cut, inside = random_view(image, labels, np.random.default_rng(seed),
                                     settings(crop=64, long_side=(20, 30)))
        rows, columns = np.nonzero(inside)
        height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
        assert (cut == 1).sum() == height * width
        assert abs(height * size[1] - width * size[0]) <= 0.5 * max(size) + 1e-6
        sides.add(max(height, width))
    assert sides == set(range(20, 31))


def test_jitter_is_bounded_and_optional():
    image = np.full((48, 48, 3), 100, np.uint8)
    for seed in range(20):
        view, _, _ = random_view(image, None, np.random.default_rng(seed), settings(jitter=0.2))
        # A grey image has neither contrast nor saturation: only its brightness may change.
        assert np.ptp(view) == 0
        assert 79 <= view[0, 0, 0] <= 120


@pytest.mark.parametrize("wrong", [{"long_side": (30, 20)}, {"scale": (0.0, 1.0)}, {"scale": (2.0, 1.0)},
                                   {"crop": 8}, {"jitter": 1.5}])
def test_impossible_settings(wrong):
    with pytest.raises(ValidationError):
        settings(**wrong)
