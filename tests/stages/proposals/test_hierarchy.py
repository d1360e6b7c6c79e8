"""The built-in provider on drawn images, and its parts by hand."""

import itertools

import cv2
import numpy as np
import pytest

from stages.labels import rle
from stages.proposals import candidates, ranking, regions, trees
from stages.proposals.hierarchy import Map, describe, hierarchies, propose
from stages.proposals.settings import HierarchySettings

SETTINGS = HierarchySettings()


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def best(proposals, mask):
    return proposals.jaccards(mask).max()


@pytest.fixture(scope="module")
def scene():
    """A bright field with a rectangle, a disc, and a ring-like nest: a square in a square."""
    image = np.full((120, 160, 3), (200, 205, 190), np.uint8)
    image[15:50, 20:70] = (180, 40, 40)
    y, x = np.indices((120, 160))
    disc = (x - 115) ** 2 + (y - 35) ** 2 <= 22 ** 2
    image[disc] = (30, 60, 160)
    image[65:110, 30:90] = (40, 140, 60)
    image[78:96, 48:70] = (240, 220, 40)
    boxes = {"rectangle": np.s_[15:50, 20:70], "outer": np.s_[65:110, 30:90], "inner": np.s_[78:96, 48:70]}
    masks = {"disc": disc}
    for name, window in boxes.items():
        masks[name] = np.zeros((120, 160), bool)
        masks[name][window] = True
    masks["frame"] = masks["outer"] & ~masks["inner"]
    return image, masks


def test_drawn_objects_are_found_exactly(scene):
    image, masks = scene
    proposals = propose(image, 1000, SETTINGS)
    assert {name: best(proposals, mask) for name, mask in masks.items()} == dict.fromkeys(masks, 1.0)


def test_single_objects_come_early(scene):
    image, masks = scene
    proposals = propose(image, 1000, SETTINGS)
    for name in ("rectangle", "disc", "outer"):
        assert proposals.jaccards(masks[name])[:10].max() == 1, name


def test_objects_in_noise():
    rng = np.random.default_rng(0)
    image = np.full((96, 128, 3), 90.0)
    image[20:70, 30:80] = (170, 90, 60)
    image = np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)
    mask = np.zeros((96, 128), bool)
    mask[20:70, 30:80] = True
    assert best(propose(image, 100, SETTINGS), mask) > 0.9


def test_same_bytes_and_limit(scene):
    rng = np.random.default_rng(1)
    image = cv2.GaussianBlur(rng.integers(0, 256, (90, 110, 3), np.uint8), (0, 0), 2)
    first, second, few = propose(image, 300, SETTINGS), propose(image, 300, SETTINGS), propose(image, 7, SETTINGS)
    assert len(first) == 300
    assert first.counts.tobytes() == second.counts.tobytes()
    assert first.scores.tobytes() == second.scores.tobytes()
    assert len(few) == 7
    assert (np.diff(first.scores) < 0).all()
    assert first.scores[0] == 1
    masks = first.masks(range(60))
    assert max(iou(a, b) for a, b in itertools.combinations(masks, 2)) <= SETTINGS.first_iou + 1e-6
    shares = first.areas / (90 * 110)
    assert shares.min() >= SETTINGS.smallest
    assert shares.max() <= SETTINGS.largest


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (3, 5)])
def test_tiny_images(size):
    image = np.random.default_rng(2).integers(0, 256, (*size, 3)).astype(np.uint8)
    proposals = propose(image, 1000, SETTINGS)
    assert 1 <= len(proposals)
    assert proposals.size == size
    assert proposals.areas.min() >= 1


def test_flat_image_is_one_proposal():
    proposals = propose(np.full((40, 50, 3), 128, np.uint8), 1000, SETTINGS)
    assert [rle.area(proposals.rle(0)), len(proposals)] == [2000, 1]


def test_large_images_are_made_smaller_for_the_regions(scene):
    image, masks = scene
    large = cv2.resize(image, (643, 481), interpolation=cv2.INTER_NEAREST)
    proposals = propose(large, 200, HierarchySettings(max_pixels=160 * 120))
    assert proposals.size == (481, 643)
    mask = cv2.resize(masks["disc"].astype(np.uint8), (643, 481), interpolation=cv2.INTER_NEAREST) > 0
    assert best(proposals, mask) > 0.95


def test_trees_on_maps():
    """Halves that only a map tells apart are found by the tree on it."""
    rng = np.random.default_rng(3)
    image = np.clip(rng.normal(120, 25, (64, 96, 3)), 0, 255).astype(np.uint8)
    mask = np.zeros((64, 96), bool)
    mask[:, :40] = True
    features = np.stack([mask, ~mask]).astype(np.float16)[:, ::4, ::4]
    edge = np.zeros((64, 96), np.float32)
    edge[:, 39:41] = 1
    found = describe(image, SETTINGS)
    for item in (Map(features, "features"), Map(edge, "boundary")):
        tree = hierarchies(found, [item])[-1]
        members = candidates.node_members(tree, len(found))
        assert max(iou(row[found.labels], mask) for row in members[-40:]) > 0.8, item.kind


@pytest.mark.parametrize(("size", "cells", "shown", "side"), [
    ((10, 13), (3, 4), (10, 13), 4), ((12, 16), (3, 4), (12, 16), 4), ((10, 14), (3, 4), (5, 7), 4),
    ((40, 30), (40, 30), (40, 30), 1), ((11, 13), (3, 13), (11, 13), None), ((3, 5), (6, 10), (3, 5), None)])
def test_where_the_cells_of_a_map_lie(size, cells, shown, side):
    """Squares of whole pixels, the last of which may overhang; otherwise they cover the image evenly."""
    rng = np.random.default_rng(0)
    values = rng.random((2, *cells))
    expected = values
    for axis in (1, 2):
        length, count, wanted = size[axis - 1], cells[axis - 1], shown[axis - 1]
        pixels = (np.arange(wanted) + 0.5) * length / wanted - 0.5  # in the image's coordinates
        own = side or length / count
        centres = (np.arange(count) + 0.5) * own - 0.5
        expected = np.apply_along_axis(lambda line, at, known: np.interp(at, known, line), axis, expected, pixels,
                                       centres)
    found = Map(values, "features").on(size, shown)
    assert found.shape == (2, *shown) and np.allclose(found, expected, atol=1e-6)
    assert np.array_equal(Map(values[0], "boundary").on(size, shown), found[0])


# The parts


@pytest.fixture
def squares():
    """A row of four 4 x 4 squares; the first two are dark, the others light."""
    labels = np.repeat(np.arange(4, dtype=np.int32), 4)[None].repeat(4, 0)
    lab = np.zeros((4, 16, 3), np.float32)
    lab[..., 0] = np.array([20, 25, 80, 90], np.float32)[labels]
    return labels, lab


def test_description_by_hand(squares):
    labels, lab = squares
    found = regions.describe(labels, lab, scales=(0.0,))
    assert found.area.tolist() == [16] * 4
    assert found.border.tolist() == [10, 8, 8, 10]
    assert found.edges.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert found.length.tolist() == [4, 4, 4]
    assert found.contrast.tolist() == pytest.approx([5, 55, 10])
    assert found.colour[:, 0].tolist() == pytest.approx([20, 25, 80, 90])
    assert found.moments[1, :2].tolist() == pytest.approx([16 * 5.5 / 16, 16 * 1.5 / 16])
    assert regions.boundary_means(labels, np.arange(64.0).reshape(4, 16)).tolist() == pytest.approx([27.5, 31.5, 35.5])


def test_trees_merge_the_alike_first(squares):
    labels, lab = squares
    found = regions.describe(labels, lab, scales=(0.0,))
    expected = [[0, 1], [2, 3], [4, 5]]
    assert np.sort(trees.ward(found, found.colour), 1).tolist() == expected
    assert np.sort(trees.by_contrast(found), 1).tolist() == expected
    assert np.sort(trees.by_contrast(found, found.colour), 1).tolist() == expected


def test_wards_tree_equals_our_own_agglomeration():
    """higra's tree against the plain loop with Ward's distance."""
    rng = np.random.default_rng(5)
    lab = cv2.GaussianBlur(rng.normal(50, 60, (40, 50, 3)).astype(np.float32), (0, 0), 2)
    found = regions.describe(regions.oversegment(lab, 60), lab)
    area, means = [*found.area], [*found.colour]

    def merge(a, b, new, others):
        area.append(area[a] + area[b])
        means.append((area[a] * means[a] + area[b] * means[b]) / area[new])

    def distance(node, others):
        return [area[node] * area[o] / (area[node] + area[o]) * ((means[node] - means[o]) ** 2).sum() for o in others]

    plain = trees.agglomerate(len(found), found.edges, merge, distance)
    sets = [{row.tobytes() for row in candidates.node_members(tree, len(found))}
            for tree in (plain, trees.ward(found, found.colour))]
    assert sets[0] == sets[1]


@pytest.mark.parametrize("make", [
    lambda found: trees.ward(found, found.colour), trees.by_contrast, trees.by_likeness])
def test_nodes_are_connected_regions(make):
    rng = np.random.default_rng(6)
    lab = cv2.GaussianBlur(rng.normal(50, 60, (30, 40, 3)).astype(np.float32), (0, 0), 2)
    found = regions.describe(regions.oversegment(lab, 50), lab)
    tree = make(found)
    members = candidates.node_members(tree, len(found))
    assert members[-1].all()
    for row in members:
        assert cv2.connectedComponents(row[found.labels].astype(np.uint8), connectivity=4)[0] == 2
    for wanted in (1, 2, 7, len(found)):
        parts = members[candidates.cut(tree, len(found), wanted)]
        assert len(parts) == wanted
        assert (parts.sum(0) == 1).all()


def test_pairs_and_triplets_by_hand():
    touch = np.zeros((4, 4), bool)
    for a, b in ((0, 1), (1, 2), (2, 3)):
        touch[a, b] = touch[b, a] = True
    assert candidates.pairs(touch).tolist() == [[0, 1], [1, 2], [2, 3]]
    assert candidates.triplets(touch).tolist() == [[0, 1, 2], [1, 2, 3]]
    none = np.zeros((1, 1), bool)
    assert candidates.pairs(none).shape == (0, 2)
    assert candidates.triplets(none).shape == (0, 3)


def test_cues_by_brute_force():
    rng = np.random.default_rng(7)
    lab = cv2.GaussianBlur(rng.normal(50, 60, (24, 30, 3)).astype(np.float32), (0, 0), 2)
    found = regions.describe(regions.oversegment(lab, 25), lab)
    members, _ = candidates.candidates(hierarchies(found), found.edges, found.area, (5,), (5,), 0.01, 0.9)
    values = ranking.cues(members, found)
    median = np.median(np.repeat(found.contrast, found.length.astype(int)))
    for index in rng.choice(len(members), 20, replace=False):
        row = members[index]
        mask = row[found.labels]
        crossing = [e for e, (a, b) in enumerate(found.edges) if row[a] != row[b]]
        within = [e for e, (a, b) in enumerate(found.edges) if row[a] and row[b]]
        padded = np.pad(mask, 1)
        perimeter = sum((padded[1:-1, 1:-1] & ~np.roll(padded, shift, axis)[1:-1, 1:-1])[
            tuple([slice(None)] * 2)].sum() for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)))
        length = found.length[crossing].sum()
        # The image's border counts once for a corner pixel; the brute force above counts both of its sides.
        ring = np.ones(mask.shape, bool)
        ring[1:-1, 1:-1] = False
        corners = mask[[0, 0, -1, -1], [0, -1, 0, -1]].sum()
        assert length + (mask & ring).sum() == perimeter - corners
        mean = (found.contrast * found.length)[crossing].sum()
        assert values["boundary"][index] == pytest.approx(np.log((mean + 1) / (length + 1) + 0.1), rel=1e-5)
        inner = (found.contrast * found.length)[within].sum()
        assert values["inside"][index] == pytest.approx(
            np.log((inner + 1) / (found.length[within].sum() + 1) + 0.1), rel=1e-4, abs=1e-4)
        weak = sum(found.length[e] for e in crossing if found.contrast[e] < median)
        assert values["weak"][index] == pytest.approx(weak / max(length, 1), abs=1e-5)
        y, x = np.nonzero(mask)
        spread = np.cov(np.stack([x, y]), bias=True) + np.eye(2) / 12
        assert values["ellipse"][index] == pytest.approx(
            min(mask.sum() / (4 * np.pi * np.sqrt(np.linalg.det(spread))), 1.2), rel=1e-6)
        assert values["off_centre"][index] == pytest.approx(np.hypot(x.mean() - 14.5, y.mean() - 11.5) / 30)
        assert values["size"][index] == pytest.approx((np.log(mask.mean()) + 0.5) ** 2)


def test_suppression_equals_the_plain_loop():
    rng = np.random.default_rng(8)
    members, area = rng.random((300, 20)) < 0.5, rng.integers(1, 50, 20).astype(float)
    members[~members.any(1), 0] = True
    order = rng.permutation(300)
    steps = [(20, 0.5), (90, 0.7)]

    def overlap(a, b):
        return (members[a] & members[b]) @ area / ((members[a] | members[b]) @ area)

    kept = []
    for number, threshold in steps:
        for row in order:
            if len(kept) < number and row not in kept and all(overlap(row, other) <= threshold for other in kept):
                kept.append(row)
    for block in (1, 7, 256):
        assert ranking.suppress(members, area, order, steps, block).tolist() == kept
