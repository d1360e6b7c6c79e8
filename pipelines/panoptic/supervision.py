"""What the weak annotations say: classes and their channels, boxes, and which stuff may be where.

In a network, and in label maps in memory, channel 0 is background, channels 1, 2, ... are the categories by id, and
``IGNORE`` (-1) is undecided. Where the data set has a class of stuff, nothing is background: channel 0 stays unused.
Where it has things only, the background is the one class of stuff (section 3.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stages.cues.simple_masks import box_mask
from stages.labels import rle
from stages.labels.coco import Entry, is_thing
from stages.labels.given import UNDECIDED, given_map, is_full
from stages.labels.tag_crops import tag_crops
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.segmentation.labels import IGNORE


@dataclass(frozen=True)
class Classes:
    """The classes of a data set as channels of the semantic network.

    Attributes:
        category_ids: of channels 1, 2, ...
        things: channels of the things.
        stuff: channels of the stuff, (0,) where the background is the only one.
    """

    category_ids: tuple[int, ...]
    things: tuple[int, ...]
    stuff: tuple[int, ...]

    @property
    def background(self) -> bool:
        """Whether the background is the only stuff."""
        return self.stuff == (0,)

    @property
    def used(self) -> tuple[int, ...]:
        """All channels that a pixel may have, ascending."""
        return tuple(sorted({*self.things, *self.stuff}))

    def thing_table(self) -> np.ndarray:
        """(1 + categories,) bool: which channels are things."""
        table = np.zeros(1 + len(self.category_ids), bool)
        table[list(self.things)] = True
        return table

    def channel(self, category_id: int) -> int:
        """Of a category."""
        return 1 + self.category_ids.index(category_id)

    def category(self, channel: int) -> int:
        """Of a channel; 0 of the background."""
        return self.category_ids[channel - 1] if channel else 0


def classes_of(categories: Iterable[Entry]) -> Classes:
    """The channels of a data set's categories, by their ids.

    Raises:
        UserError: there is no class of things.
    """
    ordered = sorted(categories, key=lambda category: category["id"])
    things = tuple(channel for channel, category in enumerate(ordered, 1) if is_thing(category))
    stuff = tuple(channel for channel, category in enumerate(ordered, 1) if not is_thing(category))
    if not things:
        raise UserError(f"{layout.WEAK['train']}: no category is a thing (isthing: 1); the panoptic method needs boxes "
                        f"of things, for stuff alone there is nothing to tell apart")
    return Classes(tuple(category["id"] for category in ordered), things, stuff or (0,))


class Boxes(NamedTuple):
    """The boxes of an image, each once.

    Attributes:
        xyxy: (N, 4) float64 on pixel edges.
        channels: (N,) int64, things.
        crowd: (N,) bool: of a group of objects, no instance.
        ids: (N,) int64, of the annotations.
    """

    xyxy: np.ndarray
    channels: np.ndarray
    crowd: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def areas(self) -> np.ndarray:
        """(N,) px."""
        return (self.xyxy[:, 2] - self.xyxy[:, 0]) * (self.xyxy[:, 3] - self.xyxy[:, 1])

    def from_large_to_small(self) -> list[int]:
        """Indices; of boxes of one size the first comes first."""
        return np.argsort(-self.areas(), kind="stable").tolist()

    def mask(self, index: int | np.integer, size: tuple[int, int]) -> np.ndarray:
        """(H, W) bool: the pixels of a box, at least one."""
        return box_mask(self.xyxy[index], size)


def boxes_of(image: Entry, annotations: Sequence[Entry], classes: Classes) -> Boxes:
    """The boxes of an image; of equal ones of a class the first counts, unless masks tell them apart.

    Raises:
        UserError: an object of an image that is not labelled in full has no box.
    """
    things = {classes.category(channel) for channel in classes.things}
    found: dict[tuple[object, ...], int] = {}
    for item in annotations:
        if item["category_id"] not in things or ("bbox" not in item and is_full(image)):
            continue
        if "bbox" not in item:
            raise UserError(f"{layout.WEAK['train']}: image {image['id']} ({image['file_name']}), annotation "
                            f"{item['id']}: without a box; annotations.kinds must be [boxes, tags]")
        x, y, width, height = (float(value) for value in item["bbox"])
        key = (x, y, x + width, y + height, classes.channel(item["category_id"]), bool(item.get("iscrowd", 0)),
               item["id"] if is_full(image) else None)
        found.setdefault(key, item["id"])
    rows = list(found)
    return Boxes(np.array([row[:4] for row in rows], np.float64).reshape(-1, 4),
                 np.array([row[4] for row in rows], np.int64), np.array([row[5] for row in rows], bool),
                 np.array(list(found.values()), np.int64))


def tag_channels(tags: Iterable[int], classes: Classes) -> set[int]:
    """Channels that tags name; the background, where it is the stuff, needs no tag."""
    return {classes.channel(tag) for tag in tags if tag in classes.category_ids} | (
        {0} if classes.background else set())


def untagged(labels: np.ndarray, image: Entry, classes: Classes) -> np.ndarray:
    """(H, W) bool: pixels whose label no tag allows: a crop that shows the pixel lacks it.

    Args:
        labels: (H, W) channels or IGNORE, which everything allows.
        image: with ``tag_crops``, or with ``tags`` only, which hold for what no crop shows.
        classes: of the data set.
    """
    wrong = np.zeros(labels.shape, bool)
    seen = np.zeros(labels.shape, bool)

    def check(part: tuple[slice, slice], tags: Iterable[int]) -> np.ndarray:
        return ~np.isin(labels[part], [IGNORE, *tag_channels(tags, classes)])

    for crop in tag_crops(image):
        left, top, right, bottom = crop.xyxy
        part = (slice(top, bottom), slice(left, right))
        wrong[part] |= check(part, crop.tags)
        seen[part] = True
    if not seen.all():
        wrong |= ~seen & check((slice(None), slice(None)), image.get("tags", ()))
    return wrong


def full_labels(image: Entry, annotations: Sequence[Entry], categories: Sequence[Entry], classes: Classes
                ) -> tuple[np.ndarray, np.ndarray]:
    """Label map and instance map of an image that is labelled in full.

    Returns:
        (H, W) int16 channels or IGNORE, and (H, W) int32: 0 no thing, 1 + place among the boxes' ``ids`` sorted as
        ``boxes_of`` gives them, IGNORE in crowds and where the label is undecided.
    """
    named = given_map(image, annotations, categories, stuff=not classes.background)
    table = np.full(max(classes.category_ids) + 2, IGNORE, np.int16)  # UNDECIDED, -1, finds the last entry
    assert UNDECIDED == -1
    table[[0, *classes.category_ids]] = np.arange(1 + len(classes.category_ids))
    labels = table[named]
    if not classes.background:
        labels[labels == 0] = IGNORE
    boxes = boxes_of(image, annotations, classes)
    places = {number: place for place, number in enumerate(boxes.ids.tolist(), start=1)}
    instances = np.where((labels == IGNORE) | classes.thing_table()[labels], IGNORE, 0).astype(np.int32)
    drawn = [item for item in annotations if "segmentation" in item and item["id"] in places]
    for item in sorted(drawn, key=lambda item: (-rle.area(item["segmentation"]), item["id"])):
        mask = rle.decode(item["segmentation"]) & (labels == classes.channel(item["category_id"]))
        instances[mask] = IGNORE if item.get("iscrowd", 0) else places[item["id"]]
    return labels, instances
