"""Crowd regions are no negatives, in either engine's terms."""

from __future__ import annotations

import torch

from stages.detector.crowds import crowd_cover, outside_crowds


def crowd_4x6() -> torch.Tensor:
    crowd = torch.zeros(4, 6, dtype=torch.bool)
    crowd[1:3, 2:6] = True
    return crowd


def test_cover_by_counting():
    boxes = torch.tensor([[2, 1, 6, 3], [0, 0, 6, 4], [0, 0, 2, 4], [2, 0, 4, 2], [-5, -5, 20, 20]]).float()
    expected = [1.0, 8 / 24, 0.0, 0.5, 8 / 24]
    torch.testing.assert_close(crowd_cover(crowd_4x6(), boxes), torch.tensor(expected))


def test_boxes_without_a_pixel_have_no_cover():
    boxes = torch.tensor([[3, 2, 3, 2], [10, 10, 12, 12], [-4, -4, -1, -1]]).float()
    assert crowd_cover(crowd_4x6(), boxes).tolist() == [0, 0, 0]
    assert crowd_cover(crowd_4x6(), torch.zeros(0, 4)).shape == (0,)


def test_proposals_in_a_crowd_go_unless_they_are_on_an_object():
    objects = torch.tensor([[2, 1, 6, 3]]).float()
    proposals = torch.tensor([[2, 1, 6, 3], [3, 1, 4, 3], [0, 0, 2, 2]]).float()
    assert outside_crowds(crowd_4x6(), proposals, objects).tolist() == [True, False, True]


def test_without_objects_or_crowds_all_proposals_stay():
    proposals = torch.tensor([[3, 1, 4, 3], [0, 0, 2, 2]]).float()
    assert outside_crowds(crowd_4x6(), proposals, torch.zeros(0, 4)).all()
    assert outside_crowds(torch.zeros(4, 6, dtype=torch.bool), proposals, proposals).all()
