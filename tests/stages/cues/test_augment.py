"""Random views: maps move with the pixels, and the same generator gives the same view."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from stages.cues.augment import Map, random_view
from stages.cues.settings import AugmentSettings


def settings(**changes) -> AugmentSettings:
    return AugmentSettings(**{"crop": 48, "long_side": None, "scale": (1.0, 1.0), **changes})


def painted(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A label map of blocks, and an image that shows each label as a grey value: 10 times the label."""
    rows, columns = np.mgrid[:height, :width]
    labels = (1 + (rows // 11 * 5 + columns // 13) % 23).astype(np.uint8)
    return np.repeat(10 * labels[..., None], 3, axis=2), labels


def marked(labels: np.ndarray) -> dict[str, Map]:
    return {"labels": Map(labels, "labels", 255)}


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(48, 48), (30, 40), (100, 120), (20, 200), (1, 1), (47, 49)])
def test_labels_move_with_pixels(size, flip):
    image, labels = painted(*size)
    for seed in range(8):
        view, maps, inside, _ = random_view(image, marked(labels), np.random.default_rng(seed), settings(flip=flip))
        cut = maps["labels"]
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
        view, maps, inside, _ = random_view(image, marked(labels), np.random.default_rng(seed), settings(scale=scale))
        cut = maps["labels"]
        # Away from the blocks' borders both interpolations must show the same block.
        chosen = inside & (cv2.dilate(cut, window) == cv2.erode(cut, window))
        chosen[:3] = chosen[-3:] = chosen[:, :3] = chosen[:, -3:] = False  # what is beyond the cut is not known
        compared += chosen.sum()
        assert (view[chosen][:, 0] == 10 * cut[chosen]).all()
    assert compared > 500


def test_the_generator_decides():
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    options = settings(scale=(0.5, 1.5), jitter=0.4)
    first = random_view(image, {}, np.random.default_rng(3), options)
    second = random_view(image, {}, np.random.default_rng(3), options)
    assert first.maps == {}
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[2], second[2])
    views = {random_view(image, {}, np.random.default_rng(seed), options)[0].tobytes() for seed in range(10)}
    assert len(views) == 10


def test_labels_change_nothing_in_the_picture():
    image, labels = painted(70, 90)
    options = settings(scale=(0.5, 1.5), jitter=0.4)
    with_labels = random_view(image, marked(labels), np.random.default_rng(3), options)
    without = random_view(image, {}, np.random.default_rng(3), options)
    assert np.array_equal(with_labels[0], without[0])


def test_half_of_the_views_are_mirrored():
    image, _ = painted(48, 48)
    mirrored = [np.array_equal(random_view(image, {}, np.random.default_rng(seed), settings())[0], image[:, ::-1])
                for seed in range(200)]
    straight = [np.array_equal(random_view(image, {}, np.random.default_rng(seed), settings(flip=False))[0], image)
                for seed in range(5)]
    assert 70 < sum(mirrored) < 130
    assert all(straight)


def test_small_images_lie_anywhere_and_large_ones_are_cut_anywhere():
    image = np.full((20, 100, 3), 7, np.uint8)
    image[:, :, 1] = np.arange(100)
    tops, lefts = set(), set()
    for seed in range(400):
        view, _, inside, _ = random_view(image, {}, np.random.default_rng(seed), settings(flip=False))
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
        _, maps, inside, _ = random_view(image, marked(labels), np.random.default_rng(seed),
                                      settings(crop=64, long_side=(20, 30)))
        cut = maps["labels"]
        rows, columns = np.nonzero(inside)
        height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
        assert (cut == 1).sum() == height * width
        assert abs(height * size[1] - width * size[0]) <= 0.5 * max(size) + 1e-6
        sides.add(max(height, width))
    assert sides == set(range(20, 31))


def test_jitter_is_bounded_and_optional():
    image = np.full((48, 48, 3), 100, np.uint8)
    for seed in range(20):
        view, _, _, _ = random_view(image, {}, np.random.default_rng(seed), settings(jitter=0.2))
        # A grey image has neither contrast nor saturation: only its brightness may change.
        assert np.ptp(view) == 0
        assert 79 <= view[0, 0, 0] <= 120


@pytest.mark.parametrize("wrong", [{"long_side": (30, 20)}, {"scale": (0.0, 1.0)}, {"scale": (2.0, 1.0)},
                                   {"crop": 8}, {"jitter": 1.5}])
def test_impossible_settings(wrong):
    with pytest.raises(ValidationError):
        settings(**wrong)


# --- the geometry of any map, pixel by pixel ----------------------------------------------------------------------


def fixed(size: tuple[int, int], scaled: tuple[int, int], crop: int, flip: bool, seed: int):
    """The same draws as ``random_view``'s, by hand: function from a view's pixel to the image's position."""
    generator = np.random.default_rng(seed)
    generator.uniform(0.5, 2.0)
    mirrored = flip and generator.random() < 0.5
    offsets = [int(generator.integers(0, abs(crop - length) + 1)) for length in scaled]

    def place(row: int, column: int) -> tuple[float, float] | None:
        y, x = (value - offset if crop >= length else value + offset
                for value, offset, length in zip((row, column), offsets, scaled, strict=True))
        if not (0 <= y < scaled[0] and 0 <= x < scaled[1]):
            return None
        if mirrored:
            x = scaled[1] - 1 - x
        return (y + 0.5) * size[0] / scaled[0] - 0.5, (x + 0.5) * size[1] / scaled[1] - 0.5

    return place, mirrored


def bilinear(plane: np.ndarray, y: float, x: float) -> float:
    y, x = (min(max(value, 0), side - 1) for value, side in zip((y, x), plane.shape, strict=True))
    y0, x0 = min(int(y), max(plane.shape[0] - 2, 0)), min(int(x), max(plane.shape[1] - 2, 0))
    y1, x1 = min(y0 + 1, plane.shape[0] - 1), min(x0 + 1, plane.shape[1] - 1)
    a, b = y - y0, x - x0
    return float((1 - a) * ((1 - b) * plane[y0, x0] + b * plane[y0, x1])
                 + a * ((1 - b) * plane[y1, x0] + b * plane[y1, x1]))


@pytest.mark.parametrize("size", [(23, 31), (40, 17), (64, 70)])
def test_every_kind_of_map_by_hand(size):
    generator = np.random.default_rng(9)
    scores = generator.random((2, *size)).astype(np.float32)
    field = generator.normal(0, 5, (2, *size)).astype(np.float32)
    labels = generator.integers(0, 200, size).astype(np.int64)
    image = np.zeros((*size, 3), np.uint8)
    options = settings(crop=32, scale=(0.5, 2.0), flip=True)
    mirrored = 0
    for seed in range(12):
        factor = np.random.default_rng(seed).uniform(0.5, 2.0)
        scaled = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
        place, flipped = fixed(size, scaled, 32, True, seed)
        mirrored += flipped
        view = random_view(image, {"scores": Map(scores, "values", -1), "field": Map(field, "vectors"),
                                   "labels": Map(labels, "labels", 255)}, np.random.default_rng(seed), options)
        assert view.maps["scores"].shape == view.maps["field"].shape == (2, 32, 32)
        assert view.maps["labels"].dtype == np.int64
        lengths = (scaled[0] / size[0], scaled[1] / size[1])
        for row, column in np.ndindex(32, 32):
            at = place(row, column)
            assert view.inside[row, column] == (at is not None)
            if at is None:
                assert (view.maps["scores"][:, row, column] == -1).all()
                assert (view.maps["field"][:, row, column] == 0).all()
                assert view.maps["labels"][row, column] == 255
                continue
            wanted = [bilinear(plane, *at) for plane in scores]
            assert view.maps["scores"][:, row, column] == pytest.approx(wanted, abs=1e-4)
            dy, dx = (bilinear(plane, *at) * length for plane, length in zip(field, lengths, strict=True))
            assert view.maps["field"][:, row, column] == pytest.approx((dy, -dx if flipped else dx), abs=1e-3)
            if all(abs(value - round(value)) < 0.49 for value in at):  # else two pixels are as near
                assert view.maps["labels"][row, column] == labels[round(at[0]), round(at[1])]
    assert 0 < mirrored < 12


def test_vectors_still_point_at_the_same_thing():
    # Every pixel of the image points at one pixel; every pixel of a view must point at where that one is shown.
    rows, columns = np.mgrid[:50, :60].astype(np.float32)
    target = (20, 41)
    field = np.stack([target[0] - rows, target[1] - columns])
    ramps = np.stack([rows, columns])
    for seed in range(10):
        view = random_view(np.zeros((50, 60, 3), np.uint8), {"field": Map(field, "vectors"),
                           "places": Map(ramps, "values")}, np.random.default_rng(seed),
                           settings(crop=96, scale=(0.7, 1.6)))
        distance = np.abs(view.maps["places"] - np.array(target).reshape(2, 1, 1)).sum(0)
        hit = np.unravel_index(np.where(view.inside, distance, np.inf).argmin(), distance.shape)
        here = np.stack(np.mgrid[:96, :96])
        inner = cv2.erode(view.inside.astype(np.uint8), np.ones((5, 5))) > 0  # the border's cells are repeated
        found = (here + view.maps["field"])[:, inner]
        assert np.abs(found - np.array(hit).reshape(2, 1)).max() < 1.0


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint16, np.int32, np.int64])
def test_labels_of_any_type(dtype):
    labels = (np.arange(30 * 40).reshape(30, 40) % 2).astype(dtype)
    view = random_view(np.zeros((30, 40, 3), np.uint8), {"a": Map(labels, outside=1)}, np.random.default_rng(0),
                       settings(scale=(1.3, 1.3)))
    assert view.maps["a"].dtype == dtype
    assert set(np.unique(view.maps["a"])) == {0, 1}


@pytest.mark.parametrize("wrong", [Map(np.zeros((4, 5), np.uint8)), Map(np.zeros((3, 8, 9), np.float32), "vectors"),
                                   Map(np.zeros((8, 9), np.float32), "vectors"), Map(np.zeros((8, 9), int), "values")])
def test_maps_that_do_not_fit(wrong):
    with pytest.raises(ValueError, match="map 'mine'"):
        random_view(np.zeros((8, 9, 3), np.uint8), {"mine": wrong}, np.random.default_rng(0), settings())
