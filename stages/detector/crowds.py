"""Regions that are neither object nor background: labelled ``iscrowd`` and left out of the losses.

COCO's evaluation ignores detections by the share of *their own* area that lies in a crowd; the same measure decides
here which anchors and proposals are no negatives. Both engines use it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_iou

# COCO's evaluation excuses a detection that lies in a crowd by its matching threshold; .5 is the lowest.
COVER = 0.5


def crowd_cover(crowd_hw: Tensor, boxes_xyxy: Tensor) -> Tensor:
    """Share of each box that lies in the crowd region.

    Args:
        crowd_hw: H x W, bool or 0/1.
        boxes_xyxy: N x 4, pixel edges (a one-pixel box at column 3 reaches from 3 to 4).

    Returns:
        N values of 0..1; a box without a pixel inside the image has 0.
    """
    height, width = crowd_hw.shape
    integral = torch.zeros(height + 1, width + 1, dtype=torch.int64, device=crowd_hw.device)
    integral[1:, 1:] = crowd_hw.to(torch.int64).cumsum(0).cumsum(1)
    corners = boxes_xyxy.detach().round().to(torch.int64)
    left, right = corners[:, 0].clamp(0, width), corners[:, 2].clamp(0, width)
    top, bottom = corners[:, 1].clamp(0, height), corners[:, 3].clamp(0, height)
    inside = integral[bottom, right] - integral[top, right] - integral[bottom, left] + integral[top, left]
    area = (right - left).clamp(min=0) * (bottom - top).clamp(min=0)
    return torch.where(area > 0, inside / area.clamp(min=1), torch.zeros_like(area, dtype=torch.float32))


def outside_crowds(crowd_hw: Tensor, proposals_xyxy: Tensor, objects_xyxy: Tensor, object_iou: float = 0.5) -> Tensor:
    """Which proposals may be used in the loss: those on an object, and those that no crowd covers.

    Args:
        crowd_hw: H x W region of all crowds.
        proposals_xyxy, objects_xyxy: N x 4 and M x 4 boxes.
        object_iou: box IoU from which a proposal counts as an object's.

    Returns:
        N booleans; all true for an image without objects, which would otherwise be left without any sample.
    """
    if len(objects_xyxy) == 0 or not bool(crowd_hw.any()):
        return torch.ones(len(proposals_xyxy), dtype=torch.bool, device=proposals_xyxy.device)
    on_object = box_iou(proposals_xyxy, objects_xyxy).amax(dim=1) >= object_iou
    return on_object | (crowd_cover(crowd_hw, proposals_xyxy) <= COVER)
