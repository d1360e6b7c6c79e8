"""Geometry of the torchvision engine's network: pooling, mask targets and pasting agree with pixel centres."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from stages.detector.network import AlignedPool, at_corners, paste_masks


def coordinates(stride: int, size: int) -> torch.Tensor:
    """A feature map that holds the image coordinates (y, x) of its cells' centres: 1 x 2 x h x w."""
    centres = (torch.arange(size // stride) + 0.5) * stride
    return torch.stack(torch.meshgrid(centres, centres, indexing="ij"))[None]


def test_pooling_reads_where_the_box_is():
    maps = {str(index): coordinates(stride, 256) for index, stride in enumerate((4, 8, 16))}
    boxes = torch.tensor([[20.0, 30, 60, 90], [10, 10, 200, 210], [40, 50, 130, 150]])
    pooled = AlignedPool((4, 8, 16), 7, 224.0)(maps, [boxes], [(256, 256)])
    centres = torch.stack([(boxes[:, 1] + boxes[:, 3]) / 2, (boxes[:, 0] + boxes[:, 2]) / 2], dim=1)
    torch.testing.assert_close(pooled[:, :, 3, 3], centres)


@pytest.mark.parametrize(("side", "level"), [(10, 0), (111, 0), (112, 1), (223, 1), (224, 2), (2000, 2)])
def test_pooling_takes_the_level_of_the_fpn_paper(side, level):
    maps = {str(index): torch.full((1, 1, 600, 600), float(index)) for index in range(3)}
    pooled = AlignedPool((4, 8, 16), 1, 224.0)(maps, [torch.tensor([[0.0, 0, side, side]])], [(2400, 2400)])
    assert pooled.item() == level


def test_pooling_of_no_boxes_and_of_several_images():
    maps = {"0": torch.stack([torch.zeros(2, 8, 8), torch.ones(2, 8, 8)])}
    pool = AlignedPool((4,), 3, 224.0)
    assert pool(maps, [torch.zeros(0, 4), torch.zeros(0, 4)], [(32, 32)] * 2).shape == (0, 2, 3, 3)
    both = pool(maps, [torch.tensor([[4.0, 4, 20, 20]])] * 2, [(32, 32)] * 2)
    assert both[0].eq(0).all()
    assert both[1].eq(1).all()


@pytest.mark.parametrize("radius", [4.0, 8.0, 14.0])
def test_a_mask_survives_the_way_to_its_target_and_back(radius):
    y, x = torch.meshgrid(torch.arange(60) + 0.5, torch.arange(60) + 0.5, indexing="ij")
    mask = (x - 27.3) ** 2 + (y - 30.8) ** 2 < radius ** 2
    box = torch.tensor([[27.3 - radius, 30.8 - radius, 27.3 + radius, 30.8 + radius]])
    target = project_masks_on_boxes(at_corners(mask[None]), box, torch.tensor([0]), 28)
    again = paste_masks(target[:, None], box, 60, 60)[0, 0] > 0.5
    assert (again & mask).sum() / (again | mask).sum() > 0.97


def test_pasting_at_and_over_the_border():
    whole = torch.ones(1, 1, 28, 28)
    box = torch.tensor([[-3.0, 2, 4, 9]])
    expected = torch.zeros(8, 10)
    expected[2:8, 0:4] = 1
    torch.testing.assert_close((paste_masks(whole, box, 8, 10)[0, 0] > 0.5).float(), expected)
    assert not paste_masks(whole, torch.tensor([[20.0, 20, 30, 30]]), 8, 10).any()
    assert paste_masks(whole[:0], box[:0], 8, 10).shape == (0, 1, 8, 10)
