"""Label maps that a method keeps on its way, cues and rounds of refinement, for `score` to measure.

Stages that make labels must not read the truth, so they list their maps in data/<method>/maps.json, and `score` alone
compares them. A map is a folder of semantic PNGs, one per training image, named by ``layout.image_key``: category ids,
0 background, 255 undecided (65535 where 255 is a category). A map of instances is a COCO panoptic file beside it. The
last label stage names the list and what it lists in ``measured`` of ``stages.labels.figures.write_figures``, so that
DVC runs `score` again when they change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json


@dataclass(frozen=True)
class LabelMap:
    """One set of maps of the training images.

    Attributes:
        name: how it is called among the figures.
        folder: of semantic PNGs, relative to the list's folder; None where there are instances alone.
        panoptic: JSON of a COCO panoptic file (``stages.labels.panoptic``), relative to the list's folder, or None.
        round: place on the axis of ``metrics/plots/rounds.json``; None for maps that are no round.
    """

    name: str
    folder: str | None = None
    panoptic: str | None = None
    round: int | None = None


def write_map_list(path: Path, maps: Sequence[LabelMap]) -> list[Path]:
    """Write the list.

    Args:
        path: data/<method>/maps.json, or what becomes it.
        maps: in the order in which they are shown.

    Returns:
        What is to be ``measured``: the list, the folders and files that it names.

    Raises:
        ValueError: a name twice, a map of nothing, or a path that leaves the list's folder.
    """
    problem = _problem([asdict(item) for item in maps])
    if problem:
        raise ValueError(f"{path}: {problem}")
    write_json(path, [asdict(item) for item in maps], indent=2)
    named = [name for item in maps for name in (item.folder, item.panoptic) if name is not None]
    pngs = [str(PurePosixPath(item.panoptic).with_suffix("")) for item in maps if item.panoptic is not None]
    return [path, *(path.parent / name for name in [*named, *pngs])]


def read_map_list(path: Path) -> list[LabelMap]:
    """The maps that a method lists; none where there is no list.

    Raises:
        UserError: the file holds something else.
    """
    if not path.exists():
        return []
    content = read_json(path)
    problem = _problem(content)
    if problem:
        raise UserError(f"{path}: {problem}; delete it and run `dvc repro` to make it anew")
    return [LabelMap(**item) for item in content]


def _problem(content: object) -> str | None:
    """What is wrong with the content of a list."""
    if not isinstance(content, list) or not all(isinstance(item, Mapping) for item in content):
        return "a list of label maps was expected"
    names = [item.get("name") for item in content]
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        return f"every label map needs a name of its own, found {names}"
    for item in content:
        known = {"name", "folder", "panoptic", "round"}
        if not set(item) <= known or not isinstance(item.get("round"), (int, type(None))):
            return f"label map {item['name']!r}: {', '.join(sorted(known))} were expected, found {dict(item)}"
        places = [item.get(key) for key in ("folder", "panoptic") if item.get(key) is not None]
        if not places or not all(isinstance(place, str) and _is_below(place) for place in places):
            return f"label map {item['name']!r}: paths below the list's own folder were expected, found {places}"
    return None


def _is_below(place: str) -> bool:
    pure = PurePosixPath(place)
    return bool(pure.parts) and not pure.is_absolute() and ".." not in pure.parts
