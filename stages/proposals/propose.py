"""Give every image of train and val its segment proposals, class-agnostic, built in or from a file.

Reads data/dataset/images and the lists of images in data/annotations, nothing of their labels; for `provider: file` the
COCO results that `proposals.source` names. Writes data/proposals: one .npz per image (see `segments.py`: masks as
COCO's run lengths, scores), and provider.json: `provider`, `trained_on_masks`, `tuned_on_masks`
(a few weights were chosen with masks, of photographs that no table reports), and counts. docs/proposals.md
has the formats.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Container, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from stages.labels.coco import Entry, read_coco
from stages.labels.images import read_rgb
from stages.proposals import from_file, hierarchy
from stages.proposals.hierarchy import Map
from stages.proposals.provider import RECORD
from stages.proposals.settings import ProposalSettings
from stages.runtime import layout
from stages.runtime.errors import UserError, summarise
from stages.runtime.files import read_npz, write_json
from stages.runtime.parallel import map_images
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.runtime.work import Work

PROPOSALS = Path("data/proposals")
PROVIDER = PROPOSALS / RECORD
COUNTS = ("duplicate", "empty", "left_out")
"""Entries of a file that are not among an image's proposals, by reason."""


def main(params: Path) -> None:
    """Every image on its own, on all workers."""
    settings = load_settings(params, proposals=ProposalSettings, runtime=RuntimeSettings)
    chosen: ProposalSettings = settings.proposals
    images, lacking = all_images(), dict[str, int]()
    if chosen.provider == "file":
        sources = from_file.files(Path(chosen.source))
    else:
        sources = [layout.IMAGES, *chosen.maps.folders().values()]
        lacking = without_maps(images, chosen)
    with Work(__file__, [*layout.WEAK.values(), *sources], chosen) as work:
        folder = work.subfolder("proposals")
        other = 0
        if chosen.provider == "file":
            places, other = from_file.find_entries(sources, {image["id"] for image in images})
            check_missing(images, places, chosen)
            with_places = [{**image, "places": places.get(image["id"], [])} for image in images]
            map_images(partial(of_file, limit=chosen.limit), with_places, folder, settings.runtime, "proposals")
        else:
            map_images(partial(of_hierarchy, settings=chosen), images, folder, settings.runtime, "proposals")
        record = {**provider_record(chosen), "images": len(images), **lacking, **counts_of(folder, images, other)}
        print(f"propose: {record}", file=sys.stderr)
        write_json(folder / PROVIDER.name, record, indent=2)
        work.publish({"proposals": PROPOSALS})


def all_images() -> list[Entry]:
    """The images of train and val, each once, by id."""
    return sorted({image["id"]: image for path in layout.WEAK.values() for image in read_coco(path)["images"]}.values(),
                  key=lambda image: image["id"])


def provider_record(settings: ProposalSettings) -> dict[str, str | bool]:
    """Where the proposals come from and what masks were used for: for every metric file."""
    if settings.provider == "file" and settings.file is not None:
        trained = settings.file.trained_on_masks
        return {"provider": settings.file.name, "trained_on_masks": trained,
                "tuned_on_masks": trained or settings.file.tuned_on_masks}
    # The weights of the ranking: see RankSettings.
    return {"provider": "hierarchy", "trained_on_masks": False, "tuned_on_masks": True}


def check_missing(images: list[Entry], places: Container[int], settings: ProposalSettings) -> None:
    """Raise a UserError where images have no entry, unless the settings allow it."""
    assert settings.file is not None
    missing = [image for image in images if image["id"] not in places]
    if missing and settings.file.missing == "error":
        lines = [f"image {image['id']} ({image['file_name']})" for image in missing]
        raise UserError(summarise(lines, f"{settings.source}: {len(missing)} of {len(images)} images have no "
                                         f"proposals; add them, or set proposals.file.missing: none"))


def without_maps(images: Sequence[Entry], settings: ProposalSettings) -> dict[str, int]:
    """How many images have no map in each of the folders of maps, as ``without_<kind>``.

    Raises:
        UserError: a folder that holds a map of none of them.
    """
    found: dict[str, int] = {}
    for kind, folder in settings.maps.folders().items():
        missing = [image for image in images if not (folder / f"{layout.image_key(image)}.npz").is_file()]
        if len(missing) == len(images):
            raise UserError(f"proposals.maps.{kind}: {folder} holds no map of any image; one .npz per image was "
                            f"expected, named by its id in twelve digits as {layout.image_key(images[0])}.npz")
        found[f"without_{kind}"] = len(missing)
    return found


def of_hierarchy(image: Entry, settings: ProposalSettings) -> dict[str, np.ndarray]:
    """The arrays of one image's file, by the built-in provider."""
    maps = [read_map(path, kind) for kind, folder in settings.maps.folders().items()
            if (path := folder / f"{layout.image_key(image)}.npz").is_file()]
    pixels = read_rgb(layout.IMAGES / image["file_name"])
    return hierarchy.propose(pixels, settings.limit, settings.hierarchy, maps).arrays()


def read_map(path: Path, kind: str) -> Map:
    """One image's map, "features" or "boundary".

    Raises:
        UserError: the file lacks the array of that name, or the array has another shape, or holds what is no number.
    """
    stored = read_npz(path)
    if kind not in stored:
        raise UserError(f"{path}: holds no array {kind!r} (it holds {', '.join(sorted(stored))}); correct "
                        f"proposals.maps.{kind}")
    values = stored[kind]
    if values.ndim != (2 if kind == "boundary" else 3) or not values.size or not np.isfinite(values).all():
        shape = "(h, w)" if kind == "boundary" else "(C, h, w)"
        raise UserError(f"{path}: {kind} has shape {values.shape}, finite numbers of shape {shape} were expected; "
                        f"correct proposals.maps.{kind}")
    return Map(values, kind)


def of_file(image: Entry, limit: int) -> dict[str, np.ndarray]:
    """The arrays of one image's file, from its ``places`` in COCO results, and ``counts_left`` of what was left out."""
    found, counts = from_file.read_image(image, image["places"], limit)
    return {**found.arrays(), "counts_left": np.array([counts[name] for name in COUNTS], np.int64)}


def counts_of(folder: Path, images: list[Entry], other: int) -> dict[str, int]:
    """Numbers of proposals, of images without any, and of entries that were left out, over all files."""
    total: Counter[str] = Counter()
    for image in images:
        stored = read_npz(folder / f"{layout.image_key(image)}.npz")
        total["proposals"] += len(stored["scores"])
        total["without_proposals"] += not len(stored["scores"])
        total.update(dict(zip(COUNTS, stored.get("counts_left", np.zeros(3)).tolist(), strict=True)))
    return {**{name: int(total[name]) for name in ("proposals", "without_proposals", *COUNTS)}, "other_images": other}


if __name__ == "__main__":
    run_stage(main, __doc__)
