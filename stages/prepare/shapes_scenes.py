"""What an image of the embedded data set shows (see ``shapes``): which objects, where, how large, before which horizon.

``shapes_drawing`` puts it into pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stages.prepare.settings import ShapesSettings
from stages.prepare.shapes import THINGS

_COUNTS = (0.10, 0.17, 0.20, 0.19, 0.15, 0.11, 0.08)  # share of images with 1, 2, ... 7 objects planned
_CLASSES = (0.18, 0.36, 0.32, 0.14)  # share of images with 1, 2, 3, 4 different thing classes planned


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
