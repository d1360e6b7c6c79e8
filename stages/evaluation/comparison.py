"""A page that sets rows of an ablation side by side: figures, curves over each other, the same pictures of each.

Unlike the report it is made of several runs, and of files that whoever ran them has kept. It is HTML without scripts,
with a folder of pictures beside it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field

from stages.evaluation import gallery
from stages.evaluation.curves import Line, course, draw
from stages.evaluation.inputs import read_truth
from stages.evaluation.matching import by_image
from stages.evaluation.records import Record
from stages.evaluation.tables import Table
from stages.evaluation.templates import fill
from stages.labels import drawing
from stages.labels.coco import read_coco
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_path, write_text
from stages.runtime.settings import Settings

LOADED_BY_NAME = ("stages/evaluation/comparison.html.j2",)
KINDS = 6
"""Rows that the style tells apart: .k0 to .k5."""
PICTURE_WIDTH = 320


class PlotSettings(Settings):
    """Lines of a file that DVC plots, too."""

    file: str = Field(description="a list of rows below metrics/plots, e.g. moments.json")
    x: str = Field(description="key of the horizontal axis")
    y: list[str] = Field(min_length=1, description="keys of the lines; every one gets a drawing with a line per row")


class ComparisonSettings(Settings):
    """One part of the page."""

    title: str = Field(description="heading")
    rows: list[str] = Field(min_length=2, max_length=KINDS, description="names of the ablation's rows, left to right")
    plots: list[PlotSettings] = Field(default=[], description="lines to draw over each other")
    panels: list[str] = Field(default=[], description=(
        "what to take of the gallery: titles, or how they begin; nothing named = all"))
    images: int = Field(6, ge=0, description="training images of the gallery [images]")


@dataclass(frozen=True)
class Row:
    """What is known of one row.

    Attributes:
        note: what it changes, in words.
        plots: by file below metrics/plots its content, once per seed.
        gallery: a copy of the row's data/<method>/gallery, of one seed; none if there are no pictures.
    """

    note: str = ""
    plots: Mapping[str, Sequence[Sequence[Record]]] = field(default_factory=dict)
    gallery: Path | None = None


@dataclass(frozen=True)
class Part:
    """One part of the page, with what it shows: ``rows`` by name, ``figures`` one line per row."""

    settings: ComparisonSettings
    figures: Table
    rows: Mapping[str, Row]


@dataclass
class Comparison:
    """One image: what all rows share once, the rest as (title, a picture or none per row)."""

    title: str
    shared: list[tuple[str, str]] = field(default_factory=list)
    differing: list[tuple[str, list[str | None]]] = field(default_factory=list)


def write_page(path: Path, method: str, summary: str, parts: Sequence[Part], root: Path) -> None:
    """Write ``<path>`` and its pictures, ``<path without .html>/``.

    Args:
        path: of the page; what it and its folder held before is gone.
        method: name of the method.
        summary: what was run, a sentence.
        parts: the page's parts.
        root: where data/dataset and data/annotations are that all rows share.

    Raises:
        UserError: a damaged gallery or plot.
    """
    pictures = path.with_suffix("")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(pictures) as temporary:
        temporary.mkdir()
        shown = [{"settings": part.settings, "figures": part.figures, "legend": [
            (name, row.note, _kind(place)) for place, (name, row) in enumerate(part.rows.items())],
            "charts": charts(part), "images": _images(part, root, temporary, pictures.name)} for part in parts]
        if pictures.exists():
            shutil.rmtree(pictures)  # a folder cannot take the place of one that holds something
    write_text(path, fill("comparison.html.j2", method=method, summary=summary, parts=shown, kinds=KINDS))


def charts(part: Part) -> list[tuple[str, str]]:
    """(caption, SVG) of every line that some row has: the mean over the seeds, with a band from lowest to highest."""
    found = []
    for plot in part.settings.plots:
        for key in plot.y:
            lines, words = [], []
            for place, (name, row) in enumerate(part.rows.items()):
                own = seed_lines(row.plots.get(plot.file, []), plot.x, key, _kind(place), plot.file)
                lines += own
                words += [f"{name} {course(line.steps, line.values, plot.x)}" for line in own]
            if lines:
                found.append((key.replace("_", " "), draw(lines, f"{key}: {'; '.join(words)}", plot.x)))
    return found


def seed_lines(tables: Sequence[Sequence[Record]], x: str, y: str, kind: str = "", file: str = "") -> list[Line]:
    """The mean of the seeds' lines with their range as a band; one line per seed where the seeds differ in ``x``.

    Args:
        tables: rows of one plot file, once per seed; those without a row are left out.
        x, y: keys of a row.
        kind: CSS class of the lines.
        file: name to be blamed.

    Raises:
        UserError: a row without one of the keys, or with something else than a number there.
    """
    curves = []
    for rows in tables:
        try:
            points = np.array([[float(row[x]), float(row[y])] for row in rows], np.float64).reshape(-1, 2)
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{file}: rows with numbers {x} and {y} were expected") from None
        if len(points):
            curves.append(points)
    if not curves:
        return []
    if any(not np.array_equal(curve[:, 0], curves[0][:, 0]) for curve in curves):
        return [Line(curve[:, 0], curve[:, 1], kind) for curve in curves]
    steps, values = curves[0][:, 0], np.stack([curve[:, 1] for curve in curves])
    if len(curves) == 1:
        return [Line(steps, values[0], kind)]
    return [Line(steps, values.mean(0), kind, values.min(0), values.max(0))]


def _kind(place: int) -> str:
    return f"k{place}"


def _images(part: Part, root: Path, folder: Path, name: str) -> list[Comparison]:
    """The training images that the rows' galleries show; pictures are copied.

    Args:
        folder: where pictures go.
        name: of that folder, as the page knows it.
    """
    panels = {row: _panels(kept.gallery) for row, kept in part.rows.items()}
    ids = list(dict.fromkeys(number for own in panels.values() for number, _ in own))[:part.settings.images]
    if not ids:
        return []
    images = {image["id"]: image for image in read_coco(root / layout.WEAK["train"])["images"]}
    truth = read_truth(root / layout.TRUTH["train"])
    objects = by_image([item for item in truth.annotations if item["category_id"] in truth.things])
    wanted = tuple(part.settings.panels) or ("",)
    titles = dict.fromkeys(title for own in panels.values() for _, title in own if title.startswith(wanted))
    # Of all images or of none: a panel that is the same by chance stays where the others of its kind are.
    shared = {title for title in titles if all(_same([own.get((number, title)) for own in panels.values()])
                                               for number in ids)}
    found = []
    for number in ids:
        image = images[number]
        entry = Comparison(image["file_name"])
        base = drawing.enlarge(read_rgb(root / layout.IMAGES / image["file_name"]), PICTURE_WIDTH)
        given = {"Image": base} | ({} if truth.reason else {"Truth": gallery.draw_masks(base, objects.get(number, []))})
        for title, picture in given.items():
            file = f"{layout.image_key(image)}_{title.lower()}.jpg"
            Image.fromarray(picture).save(folder / file, quality=85, optimize=True)
            entry.shared.append((title, f"{name}/{file}"))
        for title in titles:
            own = [(row, panels[row].get((number, title))) for row in part.rows]
            copies = [f"{name}/{_copy(picture, folder, row)}" if picture else None
                      for row, picture in (own[:1] if title in shared else own)]
            if title not in shared:
                entry.differing.append((title, copies))
            elif copies[0]:
                entry.shared.append((title, copies[0]))
        found.append(entry)
    return found


def _panels(folder: Path | None) -> dict[tuple[int, str], Path]:
    """The pictures of training images in a gallery, by image id and title."""
    return {(panel["image_id"], panel["title"]): folder / panel["picture"] for panel in gallery.read_panels(folder)
            if panel.get("split", "train") == "train"} if folder else {}


def _same(pictures: Sequence[Path | None]) -> bool:
    """Whether all rows have the same picture, or none has one."""
    return len({picture.read_bytes() if picture else None for picture in pictures}) == 1


def _copy(picture: Path, folder: Path, row: str) -> str:
    """Copy a row's picture and give its path below ``folder``."""
    target = folder / row / picture.name
    target.parent.mkdir(exist_ok=True)
    shutil.copyfile(picture, target)
    return f"{row}/{picture.name}"
