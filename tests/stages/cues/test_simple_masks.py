from __future__ import annotations

import numpy as np

from stages.cues.simple_masks import box_mask, ellipse_mask, grabcut_mask, simple_mask

ITEM = {"extreme_points": [[20, 5], [4, 18], [24, 34], [40, 20]]}


def test_box_holds_the_pixels_whose_centres_it_holds():
    mask = box_mask((1, 2, 4, 3), (5, 6))
    assert mask.sum() == 3
    assert mask[2, 1:4].all()
    assert box_mask((1.6, 2, 4, 3), (5, 6)).sum() == 2
    assert box_mask((1.5, 2.0, 1.6, 2.1), (5, 6)).sum() == 1
    assert box_mask((-5, -5, 50, 50), (5, 6)).all()
    assert box_mask((20, 20, 30, 30), (5, 6)).sum() == 1


def test_ellipse_passes_through_its_points():
    points = [[20, 5], [4, 18], [24, 34], [40, 20]]
    mask = ellipse_mask(points, (50, 60))
    for x, y in points:
        assert mask[y, x]
    rows, columns = np.nonzero(mask)
    assert (columns.min(), columns.max()) == (4, 40)
    assert (rows.min(), rows.max()) == (5, 34)
    assert mask.sum() / (37 * 30) == np.clip(mask.sum() / (37 * 30), 0.74, 0.83)  # pi / 4 = 0.785


def test_ellipse_of_one_pixel():
    assert ellipse_mask([[3, 4]] * 4, (9, 9)).sum() == 1


def test_grabcut_finds_what_differs():
    image = np.random.default_rng(0).integers(0, 40, (60, 60, 3)).astype(np.uint8)
    image[20:40, 25:45, 0] += 180
    mask = grabcut_mask(image, (18, 14, 50, 46))
    truth = np.zeros((60, 60), bool)
    truth[20:40, 25:45] = True
    assert (mask & truth).sum() / (mask | truth).sum() > 0.95


def test_grabcut_keeps_its_seeds_and_repeats_itself():
    image = np.random.default_rng(1).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    points = [[20, 10], [10, 20], [20, 29], [29, 20]]
    mask = grabcut_mask(image, (10, 10, 30, 30), foreground_xy=points)
    assert all(mask[y, x] for x, y in points)
    assert not mask[:10].any()
    assert (mask == grabcut_mask(image, (10, 10, 30, 30), foreground_xy=points)).all()


def test_grabcut_without_background_gives_the_box():
    image = np.zeros((10, 10, 3), np.uint8)
    assert grabcut_mask(image, (0, 0, 10, 10)).all()
    assert grabcut_mask(image, (4, 4, 5, 5)).sum() == 1


def test_what_each_kind_draws():
    pixels = np.zeros((50, 60, 3), np.uint8)
    pixels[10:30, 10:35] = 200
    assert simple_mask("box", pixels, ITEM).sum() == 37 * 30
    assert (simple_mask("ellipse", pixels, ITEM) == ellipse_mask(ITEM["extreme_points"], (50, 60))).all()
    assert (simple_mask("ellipse", pixels, {"bbox": [4, 5, 10, 10]})).sum() == 100
    found = simple_mask("grabcut", pixels, ITEM)
    assert found[10:30, 10:35].mean() > 0.95
    assert found.sum() < 1.1 * 20 * 25
    seeded = simple_mask("grabcut_points", pixels, ITEM)
    assert all(seeded[y, x] for x, y in ITEM["extreme_points"])
    assert not found[34, 24]
