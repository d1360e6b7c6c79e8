"""Semantic knowledge transfer on hand-drawn crops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from plain_targets import centre_maps, offset_field

from pipelines.bestie.transfer import candidate_components, components_of, mask_centre, pseudo_label


def draw(*rows):
    return np.array([[{".": 0, "?": -1}.get(mark, None) if mark in ".?" else int(mark) for mark in row]
                     for row in rows], np.int16)


SCENE = draw(
    "11..222..",
    "11..222..",
    "..1....1.",
    ".....3.1.",
    "3??..3.1.",
)


def test_components_are_8_connected_and_numbered_by_class():
    found = candidate_components(SCENE, [0, 1, 2], 1)
    assert found.tolist() == [
        [1, 1, 0, 0, 3, 3, 3, 0, 0],
        [1, 1, 0, 0, 3, 3, 3, 0, 0],
        [0, 0, 1, 0, 0, 0, 0, 2, 0],
        [0, 0, 0, 0, 0, 4, 0, 2, 0],
        [5, 0, 0, 0, 0, 4, 0, 2, 0]]
    assert found.dtype == np.int32


def test_small_components_and_other_classes_are_left_out():
    assert sorted(np.unique(candidate_components(SCENE, [0, 2], 3))) == [0, 1, 2]
    assert (candidate_components(SCENE, [2], 2) > 0).sum() == 2
    assert not candidate_components(SCENE, [], 1).any()
    assert not candidate_components(SCENE, [5], 1).any()
    assert not candidate_components(np.full((4, 4), -1, np.int16), [0, 1], 1).any()


def test_the_component_of_a_point():
    components = candidate_components(SCENE, [0, 1, 2], 2)
    points = np.array([[0, 2, 2], [1, 1, 5], [2, 3, 5], [2, 1, 5], [0, 0, 2], [2, 4, 0]])
    # Of the last three one lies in another class, one in the background, one in a component that is too small.
    assert components_of(points, components, SCENE).tolist() == [1, 3, 4, 0, 0, 0]
    assert components_of(points[:0], components, SCENE).shape == (0,)


def test_exactly_one_cue_makes_an_instance():
    cues = np.array([[0, 0, 0],  # the first component of class 0
                     [1, 0, 4], [1, 1, 6],  # two in class 1's: no instance
                     [2, 3, 5],
                     [2, 3, 0]])  # beside every candidate
    label = pseudo_label(SCENE, [0, 1, 2], cues, smallest=1)
    assert np.array_equal(label.instances > 0, np.isin(label.components, [1, 4]))
    # Centroids: (4 / 5, 4 / 5) and (3.5, 5), rounded down.
    assert label.centres.tolist() == [[0, 0, 0], [2, 3, 5]]
    assert label.instances[3, 5] == 2


def test_a_cue_of_another_class_does_not_count():
    cues = np.array([[0, 0, 0], [1, 0, 1]])
    label = pseudo_label(SCENE, [0, 1, 2], cues, smallest=1)
    assert label.centres.tolist() == [[0, 0, 0]]
    assert not pseudo_label(SCENE, [0, 1, 2], cues[1:], smallest=1).instances.any()


def test_cues_outside_crop_and_tags_count_for_nothing():
    cues = np.array([[0, -1, 0], [0, 0, 9], [0, 5, 0], [1, 0, 4], [0, 2, 7]])
    label = pseudo_label(SCENE, [0], cues, smallest=1)
    assert label.centres.tolist() == [[0, 3, 7]]
    assert not pseudo_label(SCENE, [0, 1], np.zeros((0, 3)), smallest=1).instances.any()
    assert pseudo_label(SCENE, [], cues, smallest=1).centres.shape == (0, 3)


def test_points_are_centres_everywhere_and_guide_where_they_are_alone():
    points = np.array([[0, 0, 0], [1, 0, 4], [1, 1, 6], [2, 2, 2], [0, 7, 7]])
    label = pseudo_label(SCENE, [0, 1, 2], points, smallest=1, points=True)
    assert label.centres.tolist() == points[:4].tolist()
    assert np.array_equal(label.instances > 0, label.components == 1)
    field = offset_field(label.instances, label.centres)
    assert field[:, 2, 2].tolist() == [-2, -2]
    # Points go on to guide when their order changes.
    label = pseudo_label(SCENE, [0, 1, 2], points[::-1], smallest=1, points=True)
    assert label.instances[0, 0] == 4 and label.centres[3].tolist() == [0, 0, 0]


def test_centres_of_a_ring():
    ring = np.zeros((7, 7), bool)
    ring[1:6, 1:6], ring[2:5, 2:5] = True, False
    assert mask_centre(ring) == (3, 3)
    assert mask_centre(ring, "nearest") == (1, 3)
    label = pseudo_label(ring.astype(np.int16), [0], np.array([[0, 1, 1]]), smallest=1, centre="nearest")
    assert label.centres.tolist() == [[0, 1, 3]]


def test_centroid_is_rounded_down():
    mask = np.zeros((4, 6), bool)
    mask[0, :4] = True
    assert mask_centre(mask) == (0, 1)
    mask[3, 5] = True
    assert mask_centre(mask) == (0, 2)


def test_gaussians():
    maps = centre_maps(np.array([[0, 20, 20], [0, 20, 23], [1, 0, 0]]), 3, (50, 60), 6.0)
    assert maps.shape == (3, 50, 60) and maps.dtype == np.float32
    assert maps[0, 20, 20] == maps[0, 20, 23] == maps[1, 0, 0] == 1
    assert maps[0, 26, 20] == pytest.approx(math.exp(-0.5))
    assert maps[0, 20, 22] == pytest.approx(math.exp(-1 / 72)), "the higher one where they overlap"
    assert maps[0, 39, 1] > 0 and maps[0, 40, 20] == 0 and maps[0, 20, 0] == 0, "cut off beyond 3 sigma + 1 = 19"
    assert maps[1, 19, 19] > 0 and maps[1, 20, 0] == 0
    assert not maps[2].any()
    assert not centre_maps(np.zeros((0, 3)), 2, (4, 4), 6.0).any()


def test_offsets_point_from_pixels_to_centres():
    instances = np.array([[1, 1, 0], [0, 2, 2]], np.int32)
    field = offset_field(instances, np.array([[0, 0, 0], [1, 5, 1]]))
    assert field[0].tolist() == [[0, 0, 0], [0, 4, 4]]
    assert field[1].tolist() == [[0, -1, 0], [0, 0, -1]]
    assert field.dtype == np.float32
    assert not offset_field(np.zeros((2, 3), np.int32), np.zeros((0, 3))).any()
