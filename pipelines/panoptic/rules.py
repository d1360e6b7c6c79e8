"""The rules by which a prediction, the boxes and the tags become the next approximate truth (section 3.4).

Maps are (H, W) integers: channels of ``Classes``, IGNORE where nothing is decided. The paper has the rule of boxes and
the dense CRF in front of all; the others are those that its published results were obtained with.
"""

from __future__ import annotations

import numpy as np

from pipelines.panoptic.settings import RoundSettings
from pipelines.panoptic.supervision import Boxes, Classes, untagged
from stages.labels.coco import Entry
from stages.segmentation.labels import IGNORE


def next_labels(predicted: np.ndarray, image: Entry, boxes: Boxes, agreement: np.ndarray, classes: Classes,
                settings: RoundSettings, number: int, probability: np.ndarray | None = None) -> np.ndarray:
    """The approximate truth of a round.

    Args:
        predicted: what the network says behind its CRF; for the first labels, those of no network, the cues of stuff.
        image: of the weak annotations, for its tags.
        boxes: of the image.
        agreement: of ``box_cues.paint``: things where the cues of the boxes agree (``truth_masks``).
        classes: of the data set.
        settings: confidence, merged, fill.
        number: of the labels: 0 are those without a network, n are from the network that was trained on n - 1.
        probability: (H, W) of the predicted class; none for the first labels.

    Returns:
        (H, W) int16.
    """
    labels = predicted.astype(np.int16)
    if probability is not None:
        labels[probability < settings.confidence] = IGNORE
    labels[untagged(labels, image, classes)] = IGNORE
    if number <= settings.merged:
        labels = merge(labels, agreement, classes)
    labels = keep_inside_boxes(labels, boxes, classes)
    return fill_boxes(labels, boxes, classes, settings.fill)


def merge(predicted: np.ndarray, agreement: np.ndarray, classes: Classes) -> np.ndarray:
    """Things by the cues of the boxes, stuff by the prediction.

    A pixel that the cues give to a thing keeps it, whatever is predicted; any other pixel takes predicted stuff, and is
    ignored where a thing is predicted.
    """
    things = classes.thing_table()
    merged = np.where((predicted != IGNORE) & things[predicted], IGNORE, predicted).astype(np.int16)
    return np.where(agreement > 0, agreement, merged).astype(np.int16)


def keep_inside_boxes(labels: np.ndarray, boxes: Boxes, classes: Classes) -> np.ndarray:
    """Things outside all boxes of their class, crowds included, are ignored; where the background is the only stuff,
    they become background (section 3.4), and so does what is undecided outside all boxes: nothing else can be there."""
    size = (labels.shape[0], labels.shape[1])
    kept, everything = labels.copy(), np.zeros(size, bool)
    for channel in classes.things:
        inside = np.zeros(size, bool)
        for index in np.flatnonzero(boxes.channels == channel):
            inside |= boxes.mask(index, size)
        kept[(labels == channel) & ~inside] = classes.stuff[0] if classes.background else IGNORE
        everything |= inside
    if classes.background:
        kept[~everything] = 0
    return kept


def fill_boxes(labels: np.ndarray, boxes: Boxes, classes: Classes, share: float) -> np.ndarray:
    """Boxes, from large to small and without crowds, of which their class fills less than ``share``: what is undecided
    or stuff in them becomes the class. Not in the paper.
    """
    filled, size = labels.copy(), (labels.shape[0], labels.shape[1])
    things = classes.thing_table()
    for index in boxes.from_large_to_small() if share else ():
        if boxes.crowd[index]:
            continue
        inside = boxes.mask(index, size)
        channel = boxes.channels[index]
        if (filled[inside] == channel).mean() < share:
            filled[inside & ((filled == IGNORE) | ~things[filled])] = channel
    return filled


def instances_of(labels: np.ndarray, boxes: Boxes, classes: Classes) -> np.ndarray:
    """Which box a thing's pixel belongs to: each box is an instance (section 3.2).

    Returns:
        (H, W) int32: 1 + the box's index where exactly one box of the pixel's class holds it; IGNORE where two do, or
        none but a crowd, and where the label is undecided; 0 where it is stuff.
    """
    size = (labels.shape[0], labels.shape[1])
    things = classes.thing_table()
    instances = np.where((labels == IGNORE) | things[labels], IGNORE, 0).astype(np.int32)
    for channel in np.unique(boxes.channels).tolist():
        held, owner = np.zeros(size, np.int32), np.zeros(size, np.int32)
        for index in np.flatnonzero((boxes.channels == channel) & ~boxes.crowd).tolist():
            inside = boxes.mask(index, size)
            held += inside
            owner[inside] = 1 + index
        instances[(labels == channel) & (held == 1)] = owner[(labels == channel) & (held == 1)]
    return instances


def stuff_labels(maps: np.ndarray, channels: np.ndarray, threshold: float) -> np.ndarray:
    """Localisation maps as one map of stuff: what exceeds the threshold; the smaller area is on top (section 3.3).

    Args:
        maps: (K, H, W), the maximum of each 1.
        channels: (K,) of the maps.
        threshold: share of the maximum.

    Returns:
        (H, W) int16, IGNORE where no map says anything. Of equal areas the later one is on top.
    """
    chosen = maps > threshold
    labels = np.full(maps.shape[1:], IGNORE, np.int16)
    for place in np.argsort(-chosen.sum((1, 2)), kind="stable"):
        labels[chosen[place]] = channels[place]
    return labels
