"""From outputs to instances: hand-drawn images, and random ones against plain loops."""

from __future__ import annotations

import numpy as np
import plain_refined as plain
import pytest
import torch
from scipy import ndimage
from torch import nn

from pipelines.bestie.grouping import average_views, group_instances, group_to_points
from pipelines.bestie.network import Outputs
from pipelines.bestie.settings import CentreSettings, InferenceSettings
from stages.segmentation.labels import IGNORE


def settings(whole=True, smallest=1, **centres):
    return InferenceSettings(smallest=smallest, whole=whole, centres=CentreSettings(
        **{"window": 5, "threshold": 0.1, "offset": 1.5, "tolerance": 3, "merge": 4.0, **centres}))


def scene():
    """Two objects of class 0 that touch, one of class 1: probabilities, heat, offsets of a network that is right."""
    probability = torch.full((3, 12, 24), 0.05)
    probability[0] = 0.9
    heat, offset = torch.zeros(2, 12, 24), torch.zeros(2, 12, 24)
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(24.0), indexing="ij")
    for category, columns, centre, value in ((0, slice(1, 7), (5, 3), 0.9), (0, slice(7, 13), (5, 9), 0.6),
                                             (1, slice(15, 22), (5, 18), 0.8)):
        box = (slice(3, 9), columns)
        probability[0][box], probability[category + 1][box] = 0.15, 0.8
        heat[category][centre] = value
        offset[0][box], offset[1][box] = centre[0] - y[box], centre[1] - x[box]
    return probability, heat, offset


def test_hand_drawn():
    found = group_instances(*scene(), settings())
    assert found.labels[4, [0, 1, 6, 7, 12, 13, 15, 21, 22]].tolist() == [0, 1, 1, 2, 2, 0, 3, 3, 0]
    assert found.categories.tolist() == [0, 0, 1]
    assert found.scores == pytest.approx([0.9 * 0.8, 0.6 * 0.8, 0.8 * 0.8])
    assert found.labels.dtype == np.int32


def test_only_the_tagged_classes():
    probability, heat, offset = scene()
    found = group_instances(probability, heat, offset, settings(), classes=[1])
    assert found.categories.tolist() == [1] and not found.labels[:, :14].any()
    # Where another class was the best, the best of background and tagged classes counts.
    probability[:, 0, 0] = torch.tensor([0.1, 0.7, 0.2])
    assert group_instances(probability, heat, offset, settings(), classes=[1]).labels[0, 0] > 0
    nothing = group_instances(probability, heat, offset, settings(), classes=[])
    assert not nothing.labels.any() and len(nothing.scores) == len(nothing.categories) == 0


def test_a_component_without_a_centre_is_one_instance():
    probability, heat, offset = scene()
    heat[1].zero_()
    heat[1, 3, 15] = 0.07
    offset[:, :, 14:] = 20
    found = group_instances(probability, heat, offset, settings())
    assert found.categories.tolist() == [0, 0, 1]
    assert found.scores[2] == pytest.approx(0.07 * 0.8)
    assert len(group_instances(probability, heat, offset, settings(whole=False)).scores) == 2
    heat[1] = -3.0
    assert group_instances(probability, heat, offset, settings()).scores[2] == 0


def test_clustered_centres_count_with_their_probability():
    probability, heat, offset = scene()
    heat[0].zero_()
    heat[0, 5, [3, 9]] = 0.06  # too cold for a maximum
    found = group_instances(probability, heat, offset, settings())
    assert found.labels[4, [1, 6, 7, 12]].tolist() == [1, 1, 2, 2]
    assert found.scores[:2] == pytest.approx([0.64, 0.64])
    found = group_instances(probability, heat, offset, settings(clustering=False))
    assert found.labels[4, [1, 6, 7, 12]].tolist() == [2, 2, 2, 2], "the whole component comes last"


def test_small_components_and_empty_images():
    probability, heat, offset = scene()
    assert group_instances(probability, heat, offset, settings(smallest=43)).categories.tolist() == [0, 0]
    background = torch.zeros(3, 5, 6)
    background[0] = 1
    found = group_instances(background, torch.ones(2, 5, 6), torch.zeros(2, 5, 6), settings())
    assert not found.labels.any() and found.scores.shape == (0,)
    one = group_instances(torch.tensor([0.0, 1.0]).view(2, 1, 1), torch.full((1, 1, 1), 0.5), torch.zeros(2, 1, 1),
                          settings())
    assert one.labels.tolist() == [[1]] and one.scores.tolist() == [0.5]


@pytest.mark.parametrize("whole", [True, False])
def test_random_images_by_loop(whole):
    rng = np.random.default_rng(0)
    for _ in range(6):
        size, classes = (22, 27), 3
        logits = 3 * ndimage.gaussian_filter(rng.standard_normal((classes + 1, *size)), (0, 3, 3))
        probability = torch.from_numpy(logits * 8).softmax(0).float()
        heat = torch.from_numpy(ndimage.gaussian_filter(rng.standard_normal((classes, *size)), (0, 2, 2))).float() * 3
        offset = torch.from_numpy(2 * ndimage.gaussian_filter(rng.standard_normal((2, *size)), (0, 1, 1))).float()
        chosen = settings(whole, smallest=3, window=7)
        found = group_instances(probability, heat, offset, chosen)
        best = probability.argmax(0).numpy()
        wanted, lone = [], []
        for category in range(classes):
            labels, count = ndimage.label(best == category + 1, np.ones((3, 3)))
            for number in range(1, count + 1):
                mask = labels == number
                if mask.sum() < 3:
                    continue
                own = heat[category].numpy()
                centres = plain.maxima(own, mask, 7, 0.1)
                scores = [own[centre] for centre in centres]
                for centre in plain.clusters(offset.numpy(), mask, 1.5, 3):
                    if own[centre] > 0.05 and all(np.hypot(centre[0] - y, centre[1] - x) > 4
                                                  for y, x in centres[:len(scores)]):
                        centres.append(centre)
                pixels = [(int(y), int(x)) for y, x in np.argwhere(mask)]
                inside = {pixel: float(probability[category + 1][pixel]) for pixel in pixels}
                if not centres:
                    lone.append((category, pixels, max(0.0, own[mask].max()) * np.mean(list(inside.values()))))
                for index, _ in enumerate(centres):
                    mine = [pixel for pixel in pixels if plain.nearest(pixel, offset.numpy(), centres) == index]
                    if mine:
                        mean = np.mean([inside[pixel] for pixel in mine])
                        wanted.append((category, mine, mean * (scores[index] if index < len(scores) else mean)))
        wanted += lone if whole else []
        assert found.categories.tolist() == [category for category, _, _ in wanted]
        for number, (_, pixels, score) in enumerate(wanted, start=1):
            assert [tuple(pixel) for pixel in np.argwhere(found.labels == number)] == pixels
            assert found.scores[number - 1] == pytest.approx(min(score, 1), rel=1e-5)


def test_points_share_the_foreground_of_their_class():
    probability, _, offset = scene()
    points = np.array([[1, 4, 17], [0, 5, 9], [0, 4, 3], [1, 0, 0]])
    found = group_to_points(probability, offset, points)
    assert found.categories.tolist() == [0, 0, 1], "the point that no pixel goes to has no instance"
    assert found.labels[4, [1, 6, 7, 12, 15]].tolist() == [2, 2, 1, 1, 3]
    assert found.scores == pytest.approx([0.8, 0.8, 0.8])
    alone = group_to_points(probability, offset, points[:1])
    assert alone.categories.tolist() == [1] and not alone.labels[:, :14].any()
    none = group_to_points(probability, offset, np.zeros((0, 3)))
    assert not none.labels.any() and none.scores.shape == (0,)


def test_offsets_are_followed_as_far_as_their_points_bear_them_out():
    """Two touching objects of a class; the offsets of the right one lead 8 columns too far everywhere."""
    probability = torch.zeros(2, 6, 20)
    probability[1] = 1.0
    points = np.array([[0, 3, 4], [0, 3, 13]])
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(20.0), indexing="ij")
    left = columns < 6
    wanted = torch.where(left, 1, 2).numpy()
    right = torch.stack([3 - rows, torch.where(left, 4 - columns, 13 - columns)])
    wrong = right - torch.stack([0 * rows, torch.where(left, 0, 8)])
    labels = lambda offset, **given: group_to_points(  # noqa: E731
        probability, offset, points, settings=InferenceSettings(**given)).labels
    split = labels(0 * right)
    assert np.array_equal(split, torch.where(columns <= 8, 1, 2).numpy()), "the nearest point"
    assert np.array_equal(labels(right), wanted) and (labels(wrong) == 1).all()
    # 1 / (1 + (e / (trust d))^2) by hand: of a point's error e = 8 with the next point d = 9 columns away.
    for trust in (0.1, 0.5, 2.0, 100.0):
        assert np.array_equal(labels(right, trust=trust), wanted), "points that bear them out"
        share = 1 / (1 + (8 / (trust * 9)) ** 2)
        nearer = torch.where(columns <= 8, 1.0, share)  # of the point that is nearest to the pixel
        followed = columns + nearer * wrong[1]
        by_hand = torch.where((followed - 4).abs() <= (followed - 13).abs(), 1, 2).numpy()
        assert np.array_equal(labels(wrong, trust=trust), by_hand)
    assert np.array_equal(labels(wrong, trust=0.1)[:, 9:], split[:, 9:])


def test_points_have_their_own_components_only_if_that_is_asked_for():
    probability, _, offset = scene()
    known = np.zeros(probability.shape[1:], np.int16)
    known[:4, :6], known[:4, 8:14], known[7:, :3] = 1, 1, 1
    points = np.array([[0, 1, 1], [0, 1, 4], [0, 5, 9]])  # two in the first component, one in none
    given = group_to_points(probability, 0 * offset, points, known, InferenceSettings(smallest=1, reach="component"))
    assert given.points.tolist() == [0, 1], "a point outside every component has no instance"
    assert np.array_equal(given.labels > 0, (known == 1) & (np.arange(known.shape[1]) < 6) & (
        np.arange(known.shape[0]) < 4)[:, None]), "a component without a point is nobody's"
    assert set(given.labels[0, :3]) == {1} and set(given.labels[0, 3:6]) == {2}
    every = group_to_points(probability, 0 * offset, points, known)
    assert np.array_equal(every.labels > 0, known == 1) and every.points.tolist() == [0, 1, 2]
    none = group_to_points(probability, offset, np.zeros((0, 3)), known,
                           InferenceSettings(reach="component", trust=0.4))
    assert not none.labels.any()


def test_a_known_map_is_the_foreground():
    """The probabilities say nothing of where a class is; they still score it."""
    probability, heat, offset = scene()
    known = np.zeros(probability.shape[1:], np.int16)
    known[:, :8], known[:, 10:13], known[0] = 1, 2, IGNORE
    points = np.array([[0, 5, 9], [0, 4, 3]])
    found = group_to_points(probability, offset, points, known)
    assert np.array_equal(found.labels > 0, known == 1), "class 2 has no point"
    for number in (1, 2):
        mask = found.labels == number
        assert found.scores[number - 1] == pytest.approx(probability[1].numpy()[mask].mean(), rel=1e-5)
    grouped = group_instances(probability, heat, offset, settings(), [0, 1], known)
    assert np.array_equal(grouped.labels > 0, known > 0)
    assert {int(known[grouped.labels == number].max()) for number in range(1, len(grouped.scores) + 1)} == {1, 2}
    alone = group_instances(probability, heat, offset, settings(), [1], known)
    assert np.array_equal(alone.labels > 0, known == 2)


class Positions(nn.Module):
    """Knows where each pixel of an image of a ramp lies, and points at column 30 of it."""

    classes = 1

    def forward(self, images):
        images = images.float() * (255 if images.max() <= 1 else 1)
        ramp = images[:, :1] / 2  # the column in the image as it was
        scale = images.shape[-1] / 64
        logits = torch.cat([torch.zeros_like(ramp), (ramp - 20) / 10], dim=1)
        offset = torch.cat([torch.full_like(ramp, 2 * scale), (30 - ramp) * scale], dim=1)
        return Outputs(logits, ramp, offset)


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0), (1.0, 1.5, 2.0)])
@pytest.mark.parametrize("flip", [False, True])
def test_views_are_brought_back(scales, flip):
    ramp = (2 * torch.arange(64)).to(torch.uint8).expand(3, 40, 64)
    probability, heat, offset = average_views(Positions(), ramp, scales, flip)
    inner = slice(4, 60)
    columns = torch.arange(64.0)[inner]
    assert probability.shape == (2, 40, 64) and heat.shape == (1, 40, 64) and offset.shape == (2, 40, 64)
    assert torch.allclose(probability.sum(0), torch.ones(40, 64), atol=1e-5)
    assert torch.allclose(heat[0, :, inner], columns.expand(40, -1), atol=0.05)
    assert torch.allclose(offset[1, :, inner], (30 - columns).expand(40, -1), atol=0.05), "never of the mirror image"
    assert torch.allclose(offset[0], torch.full((40, 64), 2.0), atol=0.05)
    # This network's offsets follow what a pixel shows alone: those of the mirror image, turned back, undo its own.
    both = average_views(Positions(), ramp, scales, flip, flip_offset=True)[2]
    mirrored = -(30 - columns) if flip else 30 - columns
    assert torch.allclose(both[1, :, inner], ((30 - columns + mirrored) / 2).expand(40, -1), atol=0.05)
    assert torch.allclose(both[0], offset[0], atol=0.05)
