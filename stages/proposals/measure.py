"""How well proposals cover true objects: the built-in provider beside two plain groupings, on a folder of photographs.

    python -m stages.proposals.measure ROOT [--split val] [--images N] [--rows hierarchy] [--output proposals.json]

ROOT holds instances_<split>.json (COCO) and images/. Objects of at least 1024 pixels count, crowds do not. The figures
are the average best overlap (ABO: the mean over the objects of the largest IoU with a proposal) and the recall at an
IoU of .5 and .7, in percent, for the 10, 100 and 1000 best proposals of each image. No stage imports this module: it
reads the truth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from stages.labels import rle
from stages.labels.coco import Entry, annotations_by_image, validate_coco
from stages.labels.images import read_rgb
from stages.proposals.baselines import felzenszwalb_only, selective_search_style
from stages.proposals.hierarchy import propose
from stages.proposals.segments import Proposals, read_proposals
from stages.proposals.settings import HierarchySettings
from stages.runtime.files import read_json, write_json
from stages.runtime.parallel import one_thread
from stages.runtime.progress import progress
from stages.runtime.stage import errors_as_lines

NUMBERS = (10, 100, 1000)
SMALLEST = 1024
"""Pixels from which an object counts (32 x 32)."""
SEED = 0


def true_masks(image: Entry, annotations: Iterable[Entry], smallest: int = SMALLEST) -> list[rle.RLE]:
    """RLEs of an image's objects: no crowds, and none below ``smallest`` pixels."""
    masks = [rle.from_segmentation(item["segmentation"], image["height"], image["width"]) for item in annotations
             if not item.get("iscrowd", 0)]
    return [mask for mask in masks if rle.area(mask) >= smallest]


def best_overlaps(proposals: Proposals, truth: Sequence[rle.RLE], numbers: Sequence[int] = NUMBERS) -> np.ndarray:
    """(T, len(numbers)): the largest IoU of each true mask with the first so many proposals; 0 where there are none."""
    if not len(truth) or not len(proposals):
        return np.zeros((len(truth), len(numbers)))
    found = [proposals.rle(index) for index in range(min(len(proposals), max(numbers)))]
    ious = coco_mask.iou(found, list(truth), [0] * len(truth))
    return np.stack([ious[:number].max(0) for number in numbers], 1)


def summary(overlaps: np.ndarray, numbers: Sequence[int] = NUMBERS) -> dict[str, float]:
    """``abo_<number>``, ``recall50_<number>`` and ``recall70_<number>`` in percent, and the number of ``objects``."""
    figures: dict[str, float] = {"objects": len(overlaps)}
    for column, number in enumerate(numbers if len(overlaps) else ()):
        best = overlaps[:, column]
        figures |= {f"abo_{number}": 100 * float(best.mean()), f"recall50_{number}": 100 * float((best >= 0.5).mean()),
                    f"recall70_{number}": 100 * float((best >= 0.7).mean())}
    return figures


def measure_folder(folder: Path, truth: Entry, numbers: Sequence[int] = NUMBERS) -> dict[str, float]:
    """The figures of stored proposals against COCO truth.

    Args:
        folder: of the proposals.
        truth: COCO instances; every image needs a file.
        numbers: of the best proposals.
    """
    groups = annotations_by_image(truth)
    found = [best_overlaps(read_proposals(folder, image), true_masks(image, groups[image["id"]]), numbers)
             for image in truth["images"]]
    return summary(np.concatenate(found) if found else np.zeros((0, len(numbers))), numbers)


PROVIDERS: dict[str, Callable[[np.ndarray], Proposals]] = {
    "hierarchy": lambda image: propose(image, max(NUMBERS), HierarchySettings()),
    "felzenszwalb": lambda image: felzenszwalb_only(image, max(NUMBERS)),
    "selective_search_style": lambda image: selective_search_style(image, max(NUMBERS), SEED),
}


def compare(root: Path, split: str, images: int | None = None, names: Sequence[str] = tuple(PROVIDERS)) -> \
        dict[str, dict[str, float]]:
    """Row -> figures of the named providers, with ``proposals`` and ``seconds`` per image (processor time)."""
    path = root / f"instances_{split}.json"
    truth = read_json(path)
    validate_coco(truth, path)  # of the data set, whose masks may be polygons: `true_masks` checks them
    groups = annotations_by_image(truth)
    chosen = truth["images"][:images]
    overlaps: dict[str, list[np.ndarray]] = {name: [] for name in names}
    counts, seconds = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0)
    with one_thread():
        for image in progress(chosen, len(chosen), "proposals"):
            masks = true_masks(image, groups[image["id"]])
            pixels = read_rgb(root / "images" / image["file_name"])
            for name in names:
                start = time.process_time()
                found = PROVIDERS[name](pixels)
                seconds[name] += time.process_time() - start
                counts[name] += len(found)
                overlaps[name].append(best_overlaps(found, masks))
    return {name: {**summary(np.concatenate(overlaps[name])), "proposals": counts[name] / len(chosen),
                   "seconds": seconds[name] / len(chosen)} for name in names}


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """The rows as text: ABO / recall .5 / recall .7."""
    lines = [f"{'':24}" + "".join(f"{number:>22}" for number in NUMBERS) + f"{'proposals':>11}{'s / image':>11}"]
    for name, figures in rows.items():
        cells = [" / ".join(f"{figures.get(f'{kind}_{number}', float('nan')):.1f}"
                            for kind in ("abo", "recall50", "recall70")) for number in NUMBERS]
        lines.append(f"{name:24}" + "".join(f"{cell:>22}" for cell in cells)
                     + f"{figures['proposals']:11.0f}{figures['seconds']:11.2f}")
    return "\n".join(lines)


def command() -> None:
    """Print the table and write it as JSON where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m stages.proposals.measure", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--split", default="val")
    parser.add_argument("--images", type=int, help="the first so many only")
    parser.add_argument("--rows", nargs="+", choices=list(PROVIDERS), default=list(PROVIDERS))
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with errors_as_lines():
        rows = compare(arguments.root, arguments.split, arguments.images, arguments.rows)
    objects = rows[arguments.rows[0]]["objects"]
    print(f"{objects:.0f} objects of at least {SMALLEST} px; ABO / recall at IoU .5 / .7 [%]\n{table(rows)}")
    if arguments.output:
        write_json(arguments.output, rows, indent=2)


if __name__ == "__main__":
    command()
