"""Masks of given boxes without any training: GrabCut, and the proposal that fits the box best (section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.panoptic.settings import BoxCueSettings, RoundSettings
from pipelines.panoptic.supervision import Boxes
from stages.cues.simple_masks import grabcut
from stages.labels import rle
from stages.labels.coco import Entry
from stages.proposals.segments import Proposals
from stages.segmentation.labels import IGNORE

SOURCES = ("agreement", "grabcut", "proposal", "box")
"""What a box's mask may be: see ``source_masks``."""


def box_cues(pixels: np.ndarray, boxes: Boxes, proposals: Proposals, settings: BoxCueSettings) -> dict[str, np.ndarray]:
    """Both masks of every box of an image that is no crowd; they end at the box.

    The proposal is the one of best IoU with the box, whatever its objectness; of equal ones the better scored.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        boxes: N of the image.
        proposals: of the image.
        settings: of GrabCut and of the choice.

    Returns:
        ``grabcut`` and ``proposal`` (N, H, ceil(W / 8)) uint8, packed along the rows: empty where GrabCut lost the
        object, where no proposal overlaps the box, and of crowds; ``overlap`` (N,) float32, the IoU of the proposal and
        the box; ``width`` () int64.
    """
    size = (pixels.shape[0], pixels.shape[1])
    cut, chosen = (np.zeros((len(boxes), size[0], -(-size[1] // 8)), np.uint8) for _ in range(2))
    overlap = np.zeros(len(boxes), np.float32)
    for index in np.flatnonzero(~boxes.crowd):
        box, inside = boxes.xyxy[index], boxes.mask(index, size)
        found = grabcut(pixels, box, settings.iterations, margin=settings.margin, longest=settings.longest,
                        least=settings.least)
        if found is not None:
            cut[index] = np.packbits(found, axis=1)
        fits = proposals.box_jaccards(box, filled=settings.overlap == "mask")
        if len(fits) and fits.max() > 0:
            best = int(fits.argmax())
            chosen[index] = np.packbits(proposals.mask(best) & inside, axis=1)
            overlap[index] = fits[best]
    return {"grabcut": cut, "proposal": chosen, "overlap": overlap, "width": np.array(size[1], np.int64)}


def source_masks(cues: Mapping[str, np.ndarray], boxes: Boxes, size: tuple[int, int], source: str,
                 annotations: Sequence[Entry] = ()) -> list[np.ndarray | None]:
    """The mask of each box by one of ``SOURCES``: (H, W) bool, None where there is nothing.

    Args:
        cues: of ``box_cues``.
        boxes: of the image, the same.
        size: (H, W).
        source: ``box``: filled; ``grabcut``; ``proposal``; ``agreement``: the pixels of both (section 3.2).
        annotations: of the image: single objects may carry a mask, which counts before all.
    """
    if source == "box":
        together = np.stack([boxes.mask(index, size) for index in range(len(boxes))]) if len(boxes) else np.zeros(
            (0, *size), bool)
    else:
        names = ("grabcut", "proposal") if source == "agreement" else (source,)
        together = np.ones((len(boxes), *size), bool)
        for name in names:
            together &= np.unpackbits(cues[name], axis=2, count=size[1]).astype(bool)
    drawn = {item["id"]: item["segmentation"] for item in annotations if "segmentation" in item}
    for index, number in enumerate(boxes.ids.tolist()):
        if number in drawn:
            together[index] = rle.decode(drawn[number])
    return [mask if mask.any() and not crowd else None for mask, crowd in zip(together, boxes.crowd, strict=True)]


def truth_masks(cues: Mapping[str, np.ndarray], boxes: Boxes, size: tuple[int, int], settings: RoundSettings,
                annotations: Sequence[Entry] = ()) -> list[np.ndarray | None]:
    """What the approximate truth takes of each box: the agreement, and by setting the proposal where little agrees.

    A box that GrabCut and the proposal share too little of has most likely lost its object in GrabCut; ignored, all of
    such boxes are classes that nothing is learnt of. Taking the proposal there is not in the paper.

    Args:
        cues, boxes, size, annotations: of ``source_masks``.
        settings: ``proposal_below``.

    Returns:
        As ``source_masks``.
    """
    agreed = source_masks(cues, boxes, size, "agreement", annotations)
    if not settings.proposal_below:
        return agreed
    instead = source_masks(cues, boxes, size, "proposal", annotations)
    return [both if _share(both, boxes.mask(index, size)) >= settings.proposal_below else alone
            for index, (both, alone) in enumerate(zip(agreed, instead, strict=True))]


def _share(mask: np.ndarray | None, box: np.ndarray) -> float:
    """How much of a box its mask covers."""
    return 0.0 if mask is None else float(mask.sum() / max(box.sum(), 1))


def paint(boxes: Boxes, masks: Sequence[np.ndarray | None], size: tuple[int, int]) -> np.ndarray:
    """Masks of boxes as one map of things; the smaller box is on top.

    Args:
        boxes: N of an image.
        masks: N, (H, W) bool or None.
        size: (H, W).

    Returns:
        (H, W) int16: the channel of a thing where its box's mask says so; IGNORE inside boxes where no mask does,
        which is all of a box that has none, and all of a crowd; 0 outside all boxes.
    """
    labels = np.zeros(size, np.int16)
    order = boxes.from_large_to_small()
    for index in order:
        labels[boxes.mask(index, size)] = IGNORE
    for index in order:
        mask = masks[index]
        if mask is not None and not boxes.crowd[index]:
            labels[mask] = boxes.channels[index]
    return labels
