"""The panoptic output of one image: what every pixel is part of (section 3.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.panoptic.box_cues import source_masks
from pipelines.panoptic.cues import read_box_cues
from pipelines.panoptic.instance_head import Detections, join, keep_in_boxes, stuff_detections
from pipelines.panoptic.instances import PanopticNetwork, load_instances
from pipelines.panoptic.rounds import semantic_log_probabilities
from pipelines.panoptic.settings import PanopticInferenceSettings, PanopticSettings
from pipelines.panoptic.supervision import Boxes, Classes, boxes_of, tag_channels
from stages.labels import rle
from stages.labels.coco import Entry
from stages.labels.given import is_full

_DIGITS = 6


def panoptic_rows(model: PanopticNetwork, pixels: Tensor, boxes: Boxes, scores: np.ndarray, stuff: Sequence[int],
                  classes: Classes, settings: PanopticInferenceSettings, *, given: bool = False) -> list[Entry]:
    """The segments of an image; no pixel belongs to two.

    Args:
        model: in evaluation mode.
        pixels: (3, H, W) uint8 RGB on the model's device.
        boxes: of things; what goes to a crowd's becomes a crowd.
        scores: (N,) of the boxes.
        stuff: channels of stuff that the image may show; all but the background become segments.
        classes: of the data set.
        settings: of the inference.
        given: the boxes are all that there are, as on training images.

    Returns:
        A row for every label that is the most likely one of some pixel: ``category_id``, ``segmentation``,
        ``iscrowd``, ``box`` (index of the box, -1 of stuff) and ``scores``: ``detection``, 1 for stuff, and
        ``confidence``, the mean over its pixels of its class's probability in the semantic segmentation (table 6).
    """
    place = {channel: number for number, channel in enumerate(classes.used)}
    log_q = semantic_log_probabilities(model.semantic, pixels, classes, settings)
    device = log_q.device
    found = join(Detections(torch.from_numpy(boxes.xyxy).float().to(device),
                            torch.tensor([place[channel] for channel in boxes.channels.tolist()], dtype=torch.int64,
                                         device=device), torch.from_numpy(scores).float().to(device)),
                 stuff_detections([place[channel] for channel in stuff], log_q))
    if not len(found.scores):
        return []
    if given and settings.boxed:
        log_q = keep_in_boxes(log_q, found, [place[channel] for channel in classes.things])
    owner = model.head(log_q, pixels, found).argmax(0)
    rows = []
    for number in torch.unique(owner).tolist():
        mask = owner == number
        channel = classes.used[int(found.classes[number])]
        if channel == 0:
            continue
        confidence = float(log_q[found.classes[number]][mask].exp().mean())
        thing = number < len(boxes)
        rows.append({"category_id": classes.category(channel), "segmentation": rle.encode(mask.cpu().numpy()),
                     "iscrowd": int(thing and bool(boxes.crowd[number])), "box": number if thing else -1,
                     "scores": {"detection": round(float(found.scores[number]), _DIGITS),
                                "confidence": round(confidence, _DIGITS)}})
    return rows


def cue_rows(folder: Path, image: Entry, annotations: Sequence[Entry], boxes: Boxes, classes: Classes, source: str
             ) -> list[Entry]:
    """Labels of the given boxes by the cues alone; masks may overlap, and a box without a mask has no label."""
    size = (image["height"], image["width"])
    masks = source_masks(read_box_cues(folder, image, len(boxes)), boxes, size, source, annotations)
    return [{"category_id": classes.category(channel), "segmentation": rle.encode(mask), "iscrowd": 0, "box": number,
             "scores": {"detection": 1.0, "confidence": 1.0}}
            for number, (mask, channel) in enumerate(zip(masks, boxes.channels.tolist(), strict=True))
            if mask is not None]


def detected(results: Sequence[Entry], classes: Classes, most: int) -> tuple[Boxes, np.ndarray]:
    """COCO results of boxes as boxes and scores, the best scored ones."""
    best = sorted(results, key=lambda item: -item["score"])[:most]
    corners = np.array([item["bbox"] for item in best], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return (Boxes(corners, np.array([classes.channel(item["category_id"]) for item in best], np.int64),
                  np.zeros(len(best), bool), np.arange(len(best), dtype=np.int64)),
            np.array([item["score"] for item in best], np.float64))


def panoptic_inference(folder: Path, boxes: Path, groups: Mapping[int, Sequence[Entry]],
                       detections: Mapping[int, Sequence[Entry]], classes: Classes, settings: PanopticSettings,
                       device: torch.device) -> Callable[[str, Entry, Tensor], list[Entry]]:
    """What gives the segments of one image, for a walk over train and val.

    Args:
        folder: of the trained network.
        boxes: folder of the given boxes' masks, for labels of the cues alone.
        groups: image id -> annotations of the training images, whose boxes are given.
        detections: image id -> COCO results of the box detector on validation images.
        classes: of the data set.
        settings: of the method.
        device: where it runs.

    Returns:
        A function of the split, a COCO image and its pixels (3, H, W) uint8, which gives rows as ``panoptic_rows``
        does; those of train have the ``weak_id`` of their box. An image that is labelled in full gets none.
    """
    model = load_instances(folder, settings.instances, classes, device)
    chosen = settings.inference

    def infer(split: str, image: Entry, pixels: Tensor) -> list[Entry]:
        if split != "train":
            found, scores = detected(detections.get(image["id"], ()), classes, chosen.detections)
            return panoptic_rows(model, pixels.to(device), found, scores, classes.stuff, classes, chosen)
        given = boxes_of(image, groups[image["id"]], classes)
        if is_full(image):
            return []  # the given masks are its labels
        if settings.synthesis.source != "network":
            rows = cue_rows(boxes, image, groups[image["id"]], given, classes, settings.synthesis.source)
        else:
            stuff = [channel for channel in classes.stuff
                     if not chosen.tagged or channel in tag_channels(image["tags"], classes)]
            rows = panoptic_rows(model, pixels.to(device), given, np.ones(len(given)), stuff, classes, chosen,
                                 given=True)
        return [{**row, **({"weak_id": int(given.ids[row["box"]])} if row["box"] >= 0 else {})} for row in rows]

    return infer
