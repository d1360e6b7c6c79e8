"""The pictures of the report: image, weak label, the method's panels, pseudo-label, truth, prediction."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from stages.evaluation.records import Record
from stages.labels import drawing, rle
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json


@dataclass(frozen=True)
class Panel:
    """One picture with its caption; ``source`` is a data URI."""

    title: str
    note: str
    source: str
    width: int
    height: int


@dataclass
class Entry:
    """All panels of one image, and its tags as (name, colour)."""

    title: str
    tags: list[tuple[str, str]] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)


@dataclass(frozen=True)
class Sources:
    """Annotations of one split by image id; a kind that does not exist is empty and gives no panel."""

    weak: Mapping[int, list[Record]] | None
    labels: Mapping[int, list[Record]] | None
    truth: Mapping[int, list[Record]] | None
    predictions: Mapping[int, list[Record]] | None
    names: Mapping[int, str]
    things: frozenset[int]


def choose(images: Sequence[Record], preferred: Sequence[int], count: int) -> list[Record]:
    """At most ``count`` images: first those that have panels, in their order, then others evenly over the rest."""
    by_id = {image["id"]: image for image in images}
    chosen = [by_id[number] for number in dict.fromkeys(preferred) if number in by_id][:count]
    taken = {image["id"] for image in chosen}
    rest = [image for image in images if image["id"] not in taken]
    places = np.linspace(0, max(0, len(rest) - 1), min(count - len(chosen), len(rest))).round().astype(int)
    return chosen + [rest[place] for place in places]


def read_panels(folder: Path) -> list[Record]:
    """The method's panels from ``panels.json``; none if the method shows none.

    They belong to training images unless they carry ``"split": "val"`` (ids may repeat from one split to the other).

    Raises:
        UserError: not a list of ``{image_id, title, picture}``, or a picture outside the folder.
    """
    path = folder / "panels.json"
    if not path.exists():
        return []
    panels = read_json(path)
    if not isinstance(panels, list) or not all(
            isinstance(panel, dict) and isinstance(panel.get("image_id"), int)
            and all(isinstance(panel.get(key), str) for key in ("title", "picture")) for panel in panels):
        raise UserError(f"{path}: a list of objects with image_id, title and picture was expected")
    for panel in panels:
        if not (folder / panel["picture"]).resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path}: picture {panel['picture']!r} lies outside {folder}")
    return panels


def entry(image: Record, sources: Sources, panels: Sequence[Record], folder: Path,
          width: int, min_score: float) -> Entry:
    """Draw everything there is about one image."""
    stored = read_rgb(layout.IMAGES / image["file_name"])
    base = drawing.enlarge(stored, width)
    scale = base.shape[1] / stored.shape[1], base.shape[0] / stored.shape[0]
    result = Entry(image["file_name"], [(sources.names[tag], css(drawing.category_colour(tag)))
                                        for tag in image.get("tags", []) if tag in sources.names])
    result.panels.append(panel("Image", "", base))
    if sources.weak is not None:
        weak = sorted(sources.weak.get(image["id"], []), key=lambda item: item["category_id"] not in sources.things)
        objects = [item for item in weak if item["category_id"] in sources.things and not item.get("iscrowd", 0)]
        result.panels.append(panel("Weak label", count(objects, "object"), draw_weak(base, weak, scale)))
    for item in panels:
        result.panels.append(panel(item["title"], item.get("note", ""), read_rgb(folder / item["picture"]), width))
    if sources.labels is not None:
        found = by_score(sources.labels.get(image["id"], []))
        result.panels.append(panel("Pseudo-label", count(found, "mask"), draw_masks(base, found)))
    if sources.truth is not None:
        found = [item for item in sources.truth.get(image["id"], []) if item["category_id"] in sources.things]
        result.panels.append(panel("Truth", count(found, "object"), draw_masks(base, found)))
    if sources.predictions is not None:
        found = by_score(item for item in sources.predictions.get(image["id"], []) if item["score"] >= min_score)
        result.panels.append(panel("Prediction", f"{count(found, 'mask')} with score from {min_score:g} on",
                                   draw_masks(base, found)))
    return result


def by_score(annotations: Iterable[Record]) -> list[Record]:
    """Best score first; undecided regions last, where everything covers them."""
    return sorted(annotations, key=lambda item: (item.get("iscrowd", 0), -item.get("score", 1.0)))


def count(items: Sequence[Record], noun: str) -> str:
    """``1 mask``, ``2 masks``, ``no mask``."""
    return f"{len(items) or 'no'} {noun}{'s' if len(items) > 1 else ''}"


def draw_masks(base: np.ndarray, annotations: Sequence[Record]) -> np.ndarray:
    """Masks in their classes' colours on the faded image, the first on top; crowds and undecided regions in black."""
    masks = [drawing.enlarge_mask(rle.decode(item["segmentation"]), base.shape[:2]) for item in annotations]
    return drawing.overlay_masks(drawing.faded(base), masks, [-1 if item.get("iscrowd", 0) else item["category_id"]
                                               for item in annotations])


def draw_weak(base: np.ndarray, annotations: Sequence[Record], scale: tuple[float, float]) -> np.ndarray:
    """Masks, boxes, extreme points and points as the annotator gave them."""
    picture = draw_masks(base, [item for item in annotations if "segmentation" in item])
    for item in annotations:
        colour = drawing.category_colour(item["category_id"])
        if "bbox" in item:
            x, y, w, h = item["bbox"]
            drawing.draw_box(picture, [x * scale[0], y * scale[1], w * scale[0], h * scale[1]], colour)
        points = [*item.get("extreme_points", []), *([item["point"]] if "point" in item else [])]
        for x, y in points:
            # Pixel centres lie on integers: the middle of pixel 0 is at 0.5 pixels from the border.
            drawing.draw_point(picture, ((x + 0.5) * scale[0] - 0.5, (y + 0.5) * scale[1] - 0.5), colour)
    return picture


def css(colour: tuple[int, int, int]) -> str:
    """``#rrggbb``."""
    return "#" + "".join(f"{part:02x}" for part in colour)


def panel(title: str, note: str, picture: np.ndarray, width: int | None = None, quality: int = 85) -> Panel:
    """Encode an RGB picture as a JPEG in a data URI, made smaller if wider than ``width``."""
    if width is not None and picture.shape[1] > width:
        picture = drawing.enlarge(picture, width)
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=quality, optimize=True)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Panel(title, note, source, picture.shape[1], picture.shape[0])
