"""The embedded data set: small rendered scenes with exact instance masks, from a seed.

Five thing classes stand, lie or float before sky and ground. Each class has one part of its own (dotted core, jewel,
striped cap, eye, pinwheel hub) that covers a small share of the object; the rest of the body takes its colour and its
texture from a pool that all classes share. A classifier therefore looks at the parts, so that thresholded class
attention maps cover parts of objects and merge touching neighbours of a class, as they do on photographs.

Measured over the 300 default images of one seed: 3.5 things of 2.1 classes per image; a class is in 37 to 44 % of the
images, sky in 85 %, ground in 93 %; longest sides 21, 37, 61 px (5, 50, 95 %); 45 % of the things touch one of their
class; 10 % are in several 4-connected parts (``python -m pytest -s -k intended tests/stages/prepare/test_shapes.py``
prints these for its own seed). The 64-bin RGB histograms of two classes overlap by 64 to 77 %, of a class and the
background by 42 to 59 %. Six 3 x 3 convolutions (stride 8, 24 to 96 channels) and global average pooling, trained from
scratch on 240 images for 40 epochs, reach a mAP over the thing classes of 0.95 on the 60 others; thresholded maps of
that network reach a mIoU of 0.54.

This module decides what is where; ``shapes_drawing`` puts it into pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from stages.runtime.seeds import generator
from stages.runtime.settings import Settings

THINGS = ("disc", "ring", "bottle", "fish", "star")
SKY, GROUND = 11, 12
CATEGORIES: list[dict[str, Any]] = [
    *({"id": number, "name": name, "isthing": 1} for number, name in enumerate(THINGS, 1)),
    {"id": SKY, "name": "sky", "isthing": 0},
    {"id": GROUND, "name": "ground", "isthing": 0},
]
_CATEGORY = {category["name"]: category["id"] for category in CATEGORIES}
_COUNTS = (0.10, 0.17, 0.20, 0.19, 0.15, 0.11, 0.08)  # share of images with 1, 2, ... 7 objects planned
_CLASSES = (0.18, 0.36, 0.32, 0.14)  # share of images with 1, 2, 3, 4 different thing classes planned


class ShapesSettings(Settings):
    """How many scenes, how large, and how hard."""

    train: int = Field(240, ge=1, description="training images [images] (not in the paper)")
    val: int = Field(60, ge=1, description="validation images [images] (not in the paper)")
    width: int = Field(160, ge=32, description="image width [px] (not in the paper)")
    height: int = Field(128, ge=32, description="image height [px] (not in the paper)")
    max_objects: int = Field(7, ge=1, le=40, description="most objects in an image [objects] (not in the paper)")
    smallest: float = Field(
        0.16, gt=0, le=1, description="longest side of the smallest object [share of the shorter image side] "
        "(not in the paper)")
    largest: float = Field(
        0.54, gt=0, le=1, description="longest side of the largest object [share of the shorter image side] "
        "(not in the paper)")
    touching: float = Field(
        0.6, ge=0, le=1, description="probability that a further object of a class is put against the previous one "
        "(not in the paper)")
    occluders: float = Field(
        0.2, ge=0, le=1, description="probability that a pole, which belongs to the ground, is put across an object "
        "(not in the paper)")
    contrast: float = Field(
        0.8, ge=0, le=1, description="share of the objects whose colour is chosen to differ from what is behind them "
        "(not in the paper)")
    noise: float = Field(
        0.022, ge=0, le=0.5, description="standard deviation of the sensor noise [share of full scale] "
        "(not in the paper)")
    min_pixels: int = Field(
        25, ge=1, description="an object that would show less is left out of the scene [px] (not in the paper)")

    @model_validator(mode="after")
    def _sizes_in_order(self) -> ShapesSettings:
        if self.smallest > self.largest:
            raise ValueError(f"smallest ({self.smallest}) is larger than largest ({self.largest})")
        return self


@dataclass(frozen=True, eq=False)
class Instance:
    """One region of the truth.

    Attributes:
        category_id: id in ``CATEGORIES``.
        mask: height x width bool, the visible pixels.
    """

    category_id: int
    mask: np.ndarray


@dataclass(frozen=True)
class Item:
    """One thing or pole of a scene, in pixels of the image; ``size`` is half the longest side."""

    kind: str  # one of THINGS, or "pole"
    x: float
    y: float
    size: float
    angle: float  # radians
    flip: bool
    depth: float  # what is larger is drawn later, in front
    seed: int  # of this item's outline, colours and texture
    family: int  # objects of a class in one image often share their look


@dataclass(frozen=True)
class Scene:
    """What an image shows. ``horizon`` is a row: 0 or less means no sky, the height or more means no ground."""

    horizon: float
    light: float  # direction that the light comes from, radians, y down
    seed: int
    items: tuple[Item, ...]  # from the back to the front


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _tilt(kind: str, rng: np.random.Generator) -> float:
    """Bottles stand, fish swim level, the others lie as they like."""
    spread = {"bottle": 0.22, "fish": 0.3}.get(kind)
    return float(rng.normal(0, spread) if spread else rng.uniform(-math.pi, math.pi))


def _counts(rng: np.random.Generator, settings: ShapesSettings) -> list[int]:
    """Objects per class, for the classes of one image."""
    shares = np.array([*_COUNTS, *([0.06] * 40)][: settings.max_objects])
    total = 1 + int(rng.choice(len(shares), p=shares / shares.sum()))
    classes = min(total, 1 + int(rng.choice(len(_CLASSES), p=_CLASSES)))
    counts = [1] * classes
    for _ in range(total - classes):
        counts[int(rng.integers(classes))] += 1
    return counts


def _free_place(size: float, horizon: float, placed: list[Item], rng: np.random.Generator,
                settings: ShapesSettings) -> tuple[float, float]:
    """The emptiest of a few random places; large objects tend to be low in the image, that is, near."""
    width, height = settings.width, settings.height
    top = min(max(0.12 * height, horizon - 0.15 * height), 0.35 * height)
    nearness = size / (0.5 * settings.largest * min(width, height))
    best, best_room = (width / 2, height / 2), -math.inf
    for _ in range(6):
        x = float(rng.uniform(0.06, 0.94)) * width
        y = top + (0.96 * height - top) * float(0.35 * nearness + 0.65 * rng.uniform()) - 0.3 * size
        room = min((math.hypot(x - item.x, y - item.y) - item.size - size for item in placed), default=0.0)
        if room > best_room:
            best, best_room = (x, y), room
    return best


def _beside(previous: Item, size: float, rng: np.random.Generator, settings: ShapesSettings) -> tuple[float, float]:
    """A place where an object of this size touches or overlaps the previous one."""
    reach = {"bottle": 0.5, "fish": 0.72, "star": 0.8}.get(previous.kind, 0.95)
    distance = (previous.size + size) * reach * float(rng.uniform(0.62, 1.0))
    direction = float(rng.normal(0, 0.5)) + (math.pi if rng.uniform() < 0.5 else 0.0)
    if previous.kind == "fish":  # above each other, since their long side is level
        direction += math.pi / 2 * float(rng.uniform() < 0.5)
    x, y = previous.x + distance * math.cos(direction), previous.y + distance * math.sin(direction)
    return (float(np.clip(x, 0.05 * settings.width, 0.95 * settings.width)),
            float(np.clip(y, 0.12 * settings.height, 0.93 * settings.height)))


def _pole(target: Item, rng: np.random.Generator) -> Item:
    """A pole across ``target``, just before it."""
    x = target.x + float(rng.uniform(-0.3, 0.3)) * target.size
    reach = target.size * float(rng.uniform(1.4, 2.6))
    # Across the short side: a bottle is cut by a level bar, everything else by an upright one.
    angle = float(rng.normal(0, 0.18)) + (math.pi / 2 if target.kind == "bottle" and rng.uniform() < 0.7 else 0.0)
    return Item("pole", x, target.y + float(rng.uniform(-0.2, 0.2)) * target.size, reach, angle,
                False, target.depth + 1e-3, _seed(rng), 0)


def plan(rng: np.random.Generator, settings: ShapesSettings) -> Scene:
    """Decide on one scene."""
    height, side = settings.height, min(settings.width, settings.height)
    view = rng.uniform()  # from above, from below, or level: sky and ground are not in every image
    horizon = -1.0 if view < 0.18 else height + 1.0 if view > 0.9 else height * float(rng.uniform(0.18, 0.6))
    counts = _counts(rng, settings)
    names = rng.permutation(THINGS)[: len(counts)]
    low = max(0.5 * settings.smallest * side, 4.0)
    high = max(0.5 * settings.largest * side * (1.0 if sum(counts) < 5 else 0.8), low)
    items: list[Item] = []
    for family, (kind, count) in enumerate(zip(names, counts, strict=True)):
        typical = float(rng.uniform(low ** 0.5, high ** 0.5)) ** 2
        previous: Item | None = None
        for _ in range(count):
            size = float(np.clip(typical * rng.uniform(0.8, 1.25), low, high))
            if previous is not None and rng.uniform() < settings.touching:
                x, y = _beside(previous, size, rng, settings)
            else:
                x, y = _free_place(size, horizon, items, rng, settings)
            depth = (y + 0.7 * size) / height + float(rng.normal(0, 0.06))
            previous = Item(str(kind), x, y, size, _tilt(str(kind), rng), bool(rng.uniform() < 0.5), depth,
                            _seed(rng), family)
            items.append(previous)
    if horizon < height and rng.uniform() < settings.occluders:
        wide = [item for item in items if item.size > 8] or items
        items.append(_pole(wide[int(rng.integers(len(wide)))], rng))
    items.sort(key=lambda item: item.depth)
    return Scene(horizon, float(rng.uniform(-0.85, -0.15)) * math.pi, _seed(rng), tuple(items))


def render(index: int, seed: int, settings: ShapesSettings) -> tuple[np.ndarray, list[Instance]]:
    """Render image ``index`` of the data set of ``seed``; nothing else has a say in the result.

    Returns:
        The image, height x width x 3 uint8 RGB, and its regions: things from the back to the front, then sky, then
        ground. The masks are disjoint and cover the image; no thing shows fewer than ``settings.min_pixels``.
    """
    from stages.prepare import shapes_drawing as drawing

    rng = generator(seed, "shapes", index)
    while True:
        scene = plan(rng, settings)
        scene, labels = drawing.settle(scene, settings.height, settings.width, settings.min_pixels)
        if any(item.kind != "pole" for item in scene.items):
            break
    image = drawing.paint(scene, settings)
    instances = [Instance(_CATEGORY[item.kind], labels == drawing.FIRST + number)
                 for number, item in enumerate(scene.items) if item.kind != "pole"]
    stuff = [Instance(category, labels == label)
             for category, label in ((SKY, drawing.SKY_LABEL), (GROUND, drawing.GROUND_LABEL))]
    return image, instances + [region for region in stuff if region.mask.any()]
