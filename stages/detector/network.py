"""Mask R-CNN, or Faster R-CNN, out of torchvision's parts, on any timm backbone, with widths by settings."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.utils.model import freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import roi_align
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from stages.detector.crowds import COVER, crowd_cover, outside_crowds
from stages.detector.settings import DetectorPredictSettings, TorchvisionSettings
from stages.runtime.errors import UserError
from stages.runtime.weights import read_state

Results = dict[str, Tensor] | list[dict[str, Tensor]]
"""Losses in training, otherwise what was found in each image."""


def build(settings: TorchvisionSettings, predict: DetectorPredictSettings, classes: int,
          pretrained: bool = True, masks: bool = True) -> MaskRCNN:
    """A Mask R-CNN for ``classes`` things (background not counted); without ``masks`` a Faster R-CNN.

    In training it takes images (3 x H x W, 0..1) and ``Targets`` with ``boxes`` (N x 4, xyxy), ``labels``
    (1..classes), ``masks`` (N x H x W, uint8) and optionally ``crowd`` (H x W, bool), all at the network's resolution,
    and gives the losses. In evaluation it takes images of any size and gives boxes, labels, scores and masks at
    that size. Without ``masks`` there are none on either side.

    Raises:
        UserError: the backbone does not exist, lacks a level, or its weights do not fit.
    """
    backbone = PyramidBackbone(settings, pretrained)
    anchors = AnchorGenerator(tuple((size,) for size in settings.anchor_sizes),
                              (tuple(settings.aspect_ratios),) * len(settings.anchor_sizes))
    channels = settings.fpn_channels
    rpn = CrowdRPN(
        anchors, SingleRPNHead(channels, anchors.num_anchors_per_location()[0]), fg_iou_thresh=0.7, bg_iou_thresh=0.3,
        batch_size_per_image=settings.rpn_samples, positive_fraction=0.5,
        pre_nms_top_n={"training": 2 * settings.proposals, "testing": settings.proposals},
        post_nms_top_n={"training": settings.proposals, "testing": settings.proposals}, nms_thresh=0.7)

    mask_head = {} if not masks else {
        "mask_roi_pool": AlignedPool(settings.levels, 14, settings.roi_canonical_size),
        "mask_head": MaskRCNNHeads(channels, settings.mask_head_channels, 1, _head_norm(settings)),
        "mask_predictor": SingleMaskPredictor(settings.mask_head_channels[-1], settings.mask_head_channels[-1],
                                              classes + 1)}
    heads = CrowdRoIHeads(
        box_roi_pool=AlignedPool(settings.levels, 7, settings.roi_canonical_size),
        box_head=TwoMLPHead(channels * 7 * 7, settings.box_head_channels),
        box_predictor=SinglePredictor(settings.box_head_channels, classes + 1),
        fg_iou_thresh=0.5, bg_iou_thresh=0.5, batch_size_per_image=settings.roi_samples,
        positive_fraction=settings.roi_positives, bbox_reg_weights=None,
        score_thresh=predict.score_threshold, nms_thresh=predict.nms_threshold,
        detections_per_img=predict.detections_per_image, **mask_head)
    transform = ResizeWhenPredicting(predict.min_side, predict.max_side, list(backbone.mean), list(backbone.std),
                                     size_divisible=max(settings.levels))
    return MaskRCNN(backbone, rpn, heads, transform)


def _head_norm(settings: TorchvisionSettings) -> Callable[[int], nn.Module] | None:
    if settings.head_norm == "none":
        return None
    return lambda channels: nn.GroupNorm(next(groups for groups in (32, 16, 8, 4, 2, 1) if channels % groups == 0),
                                         channels)


class Targets:
    """What each image of a batch holds.

    A class of its own hides it from Fabric, which under mixed precision makes half numbers of every tensor that goes
    into a network: fine for pixels, but half coordinates near 1000 are whole pixels apart.
    """

    def __init__(self, images: list[dict[str, Tensor]]) -> None:
        self.images = images


class MaskRCNN(GeneralizedRCNN):
    """torchvision's two-stage detector with the parts of this module."""

    def forward(self, images: list[Tensor], targets: Targets | None = None) -> Results:
        return super().forward(images, None if targets is None else targets.images)


class PyramidBackbone(nn.Module):
    """timm's feature maps under torchvision's FPN. ``forward``: B x 3 x H x W -> {"0": finest, "1": ..., "pool"}.

    The maps are in single precision under mixed precision too, because anchors and boxes take their type from them.
    """

    def __init__(self, settings: TorchvisionSettings, pretrained: bool) -> None:
        super().__init__()
        self.body, self.mean, self.std = _body(settings, pretrained)
        self.pyramid = FeaturePyramidNetwork(
            self.body.feature_info.channels(), settings.fpn_channels,
            extra_blocks=LastLevelMaxPool() if settings.extra_level else None, norm_layer=_head_norm(settings))
        self.out_channels = settings.fpn_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = OrderedDict((str(index), feature) for index, feature in enumerate(self.body(images)))
        return OrderedDict((name, feature.float()) for name, feature in self.pyramid(maps).items())


def _body(settings: TorchvisionSettings, pretrained: bool) -> tuple[Any, tuple[float, ...], tuple[float, ...]]:
    """timm's network with the wanted levels, and the mean and deviation that its images are normalised with."""
    arguments = dict(settings.backbone_arguments)
    download = pretrained and settings.weights == "imagenet"
    key = "detector.torchvision.backbone"
    try:
        whole: Any = timm.create_model(settings.backbone, pretrained=False, features_only=True, **arguments)
        strides = whole.feature_info.reduction()
        for name, wanted in (("levels", settings.levels), ("frozen_stride", (settings.frozen_stride or strides[0],))):
            missing = [stride for stride in wanted if stride not in strides]
            if missing:
                raise UserError(f"detector.torchvision.{name}: {settings.backbone} has no stride {missing[0]}; "
                                f"it has {', '.join(map(str, strides))}")
        body = timm.create_model(settings.backbone, pretrained=download, features_only=True,
                                 out_indices=tuple(strides.index(level) for level in settings.levels), **arguments)
    except (RuntimeError, TypeError, AttributeError, AssertionError, OSError) as error:
        hint = "; where its weights cannot be downloaded give a file or 'none' as detector.torchvision.weights"
        raise UserError(f"{key}: timm cannot make {settings.backbone!r} with {arguments or 'no arguments'} "
                        f"({str(error).splitlines()[0]}){hint * download}") from None
    if pretrained and settings.weights not in ("imagenet", "none"):
        load_backbone(body, Path(settings.weights))
    if settings.frozen_stride:
        freeze_until(body, whole.feature_info.module_name()[strides.index(settings.frozen_stride)])
    if settings.batch_norm == "frozen":
        body = freeze_batch_norm_2d(body)
    config = getattr(body, "pretrained_cfg", None) or getattr(body, "default_cfg", {})
    return body, tuple(config.get("mean", (0.485, 0.456, 0.406))), tuple(config.get("std", (0.229, 0.224, 0.225)))


def freeze_until(body: nn.Module, module: str) -> None:
    """Keep the weights of all layers up to and including ``module`` (timm's feature extractors join names by "_")."""
    parameters = list(body.named_parameters())
    inside = [index for index, (name, _) in enumerate(parameters)
              if name.startswith((f"{module}.", f"{module.replace('.', '_')}."))]
    for _, parameter in parameters[:max(inside, default=-1) + 1]:
        parameter.requires_grad_(False)


def load_backbone(body: nn.Module, path: Path) -> None:
    """Load a state dict into ``body``; heads in the file that it lacks are left out, a missing layer is an error.

    Raises:
        UserError: no such file, not a state dict, or layers missing or of another shape.
    """
    key = "detector.torchvision.weights"
    if not path.is_file():
        raise UserError(f"{key}: no such file: {path}; give a file, 'imagenet' or 'none'")
    try:
        state = read_state(path)
    except UserError as error:
        raise UserError(f"{key}: {error}") from None
    own = body.state_dict()
    # timm's feature extractors may flatten "layer1.0" and the like to "layer1_0".
    found = {name: state.get(name, state.get(_unflattened(name))) for name in own}
    fits = {name: tensor is not None and tensor.shape == own[name].shape for name, tensor in found.items()}
    wrong = [name for name, fit in fits.items() if not fit and not name.endswith("num_batches_tracked")]
    if wrong:
        raise UserError(f"{key}: {path} does not fit the backbone: {len(wrong)} of {len(own)} layers are missing or of "
                        f"another shape, {wrong[0]!r} first")
    body.load_state_dict({name: found[name] if fits[name] else own[name] for name in own})


def _unflattened(name: str) -> str:
    first, _, rest = name.partition(".")
    return ".".join([first.replace("_", "."), rest])


class SingleRPNHead(RPNHead):
    """torchvision's, in single precision at its end under mixed precision, too: decoding gives the boxes the type of
    what moves them, and half coordinates near 1000 are whole pixels apart."""

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, moves = super().forward(maps)
        return [one.float() for one in objectness], [one.float() for one in moves]


class SinglePredictor(FastRCNNPredictor):
    """As ``SingleRPNHead``, of the boxes."""

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits, moves = super().forward(features)
        return logits.float(), moves.float()


class SingleMaskPredictor(MaskRCNNPredictor):
    """As ``SingleRPNHead``, of the masks, whose type is that of the places where they are read."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).float()


class AlignedPool(nn.Module):
    """RoIAlign over an FPN, each box from the level that its size asks for (FPN equation 1).

    torchvision's own pooling reads the features half a cell off, and guesses the strides from the first batch's sizes.
    """

    def __init__(self, strides: tuple[int, ...], size: int, canonical_size: float) -> None:
        super().__init__()
        self.strides, self.size, self.canonical_size = strides, size, canonical_size

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Maps {"0": B x C x h x w, ...} and B x (N_b x 4) boxes, xyxy -> (sum of N_b) x C x size x size."""
        rois = torch.cat([torch.cat([torch.full_like(of_image[:, :1], index), of_image], dim=1)
                          for index, of_image in enumerate(boxes)])
        side = ((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2])).clamp(min=0).sqrt()
        # A box of the canonical size belongs to stride 16, one of half that to stride 8, and so on.
        stride = 16.0 * 2.0 ** torch.floor(torch.log2(side / self.canonical_size + 1e-6))
        level = torch.bucketize(stride, torch.tensor(self.strides[1:], dtype=stride.dtype, device=stride.device),
                                right=True)
        pooled = maps["0"].new_zeros(len(rois), maps["0"].shape[1], self.size, self.size)
        for index, step in enumerate(self.strides):
            chosen = torch.where(level == index)[0]
            found = roi_align(maps[str(index)], rois[chosen], self.size, 1.0 / step, sampling_ratio=2, aligned=True)
            pooled = pooled.index_copy(0, chosen, found)
        return pooled


def paste_masks(masks_n: Tensor, boxes_xyxy: Tensor, height: int, width: int) -> Tensor:
    """Put the mask head's output into the image: the probability at each pixel's centre.

    Args:
        masks_n: N x 1 x M x M, probabilities over the whole box.
        boxes_xyxy: N x 4, pixel edges in the image.

    Returns:
        N x 1 x height x width; 0 outside the boxes. One mask at a time, because N images' worth of samples may not fit.
    """
    pasted = masks_n.new_zeros(len(masks_n), 1, height, width)
    for mask, box, target in zip(masks_n, boxes_xyxy, pasted, strict=True):
        left, top, right, bottom = box.tolist()
        x_from, x_to = max(0, math.floor(left)), min(width, math.ceil(right))
        y_from, y_to = max(0, math.floor(top)), min(height, math.ceil(bottom))
        if x_to <= x_from or y_to <= y_from:
            continue
        # grid_sample's coordinates: -1 and 1 are the outer edges of the first and the last cell.
        x = (torch.arange(x_from, x_to, device=box.device) + 0.5 - left) / max(right - left, 1e-6) * 2 - 1
        y = (torch.arange(y_from, y_to, device=box.device) + 0.5 - top) / max(bottom - top, 1e-6) * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None].to(mask.dtype)
        target[:, y_from:y_to, x_from:x_to] = F.grid_sample(mask[None], grid, align_corners=False)[0]
    return pasted


class ResizeWhenPredicting(GeneralizedRCNNTransform):
    """In training the images come at the network's size already, together with their masks and crowd regions.

    Masks are pasted at pixel centres; torchvision rounds the box to whole pixels first, which costs small objects much.
    """

    def __init__(self, min_side: int, max_side: int, mean: list[float], std: list[float], size_divisible: int) -> None:
        super().__init__(min_side, max_side, mean, std, size_divisible=size_divisible)

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return (image, target) if self.training else super().resize(image, target)

    def postprocess(self, result: list[dict[str, Tensor]], image_shapes: list[tuple[int, int]],
                    original_image_sizes: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
        if self.training:
            return result
        for found, (high, wide), (height, width) in zip(result, image_shapes, original_image_sizes, strict=True):
            found["boxes"] = found["boxes"] * found["boxes"].new_tensor([width / wide, height / high] * 2)
            if "masks" not in found:
                continue
            found["masks"] = paste_masks(found["masks"], found["boxes"], height, width)
        return result


def at_corners(masks_n: Tensor) -> Tensor:
    """Masks (N x H x W, 0/1) -> their values at the pixels' upper left corners: the mean of the four around.

    torchvision samples mask targets as if pixel (0, 0) had its centre at (0, 0), while boxes count from its corner.
    """
    return F.avg_pool2d(F.pad(masks_n.float(), (1, 0, 1, 0))[:, None], 2, stride=1)[:, 0]


class CrowdRPN(RegionProposalNetwork):
    """RPN whose negatives do not lie in crowd regions."""

    def assign_targets_to_anchors(self, anchors: list[Tensor], targets: list[dict[str, Tensor]],
                                  ) -> tuple[list[Tensor], list[Tensor]]:
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for label, anchor, target in zip(labels, anchors, targets, strict=True):
            if "crowd" in target and len(target["boxes"]):
                label[(label == 0) & (crowd_cover(target["crowd"], anchor) > COVER)] = -1
        return labels, boxes


class CrowdRoIHeads(RoIHeads):
    """Heads whose negative proposals do not lie in crowd regions, and whose mask targets lie where the masks do."""

    def forward(self, features: dict[str, Tensor], proposals: list[Tensor], image_shapes: list[tuple[int, int]],
                targets: list[dict[str, Tensor]] | None = None) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        if targets is not None and self.has_mask():
            targets = [{**target, "masks": at_corners(target["masks"])} for target in targets]
        return super().forward(features, proposals, image_shapes, targets)

    def select_training_samples(self, proposals: list[Tensor], targets: list[dict[str, Tensor]] | None,
                                ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        kept = [proposal if "crowd" not in target
                else proposal[outside_crowds(target["crowd"], proposal, target["boxes"])]
                for proposal, target in zip(proposals, targets or [], strict=True)]
        return super().select_training_samples(kept, targets)
