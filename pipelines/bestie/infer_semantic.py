"""Semantic maps of the training images: the segmentation network's predictions, or the given maps (section 3.3).

Reads data/annotations/train_weak.json (images, tags), data/dataset/images and models/bestie/segmenter, or the folder
`bestie.maps.folder`; writes data/bestie/semantic, one PNG per image: category ids, 0 background, 255 undecided. Images
that are labelled in full have their given masks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.bestie.settings import BestieSettings
from pipelines.bestie.train_segmenter import SEGMENTER
from stages.labels.coco import Entry, category_indices
from stages.labels.given import given_map, given_rows
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings, load_settings
from stages.runtime.stage import run_stage
from stages.segmentation.labels import category_map, id_map, index_table, read_indices, write_semantic_png

SEMANTIC = layout.method_data("bestie") / "semantic"


def given_maps(folder: Path, category_ids: list[int]) -> Callable[[str, Entry, None], dict[str, np.ndarray]]:
    """What takes an image's map from a folder, checked."""
    table = index_table(category_ids)

    def infer(name: str, image: Entry, loaded: None) -> dict[str, np.ndarray]:
        path = folder / f"{layout.image_key(image)}.png"
        return {"semantic": category_map(read_indices(path, (image["height"], image["width"]), table), category_ids)}

    return infer


def with_given(infer: Callable[[str, Entry, Any], dict[str, np.ndarray]], weak: Entry
               ) -> Callable[[str, Entry, Any], dict[str, np.ndarray]]:
    """``infer``, but for the images that are labelled in full: theirs are drawn from what was given."""
    given, categories = given_rows(weak), weak["categories"]
    category_ids = sorted(category_indices(categories, things_only=True))

    def chosen(name: str, image: Entry, loaded: Any) -> dict[str, np.ndarray]:
        if image["id"] not in given:
            return infer(name, image, loaded)
        return {"semantic": id_map(given_map(image, given[image["id"]], categories), category_ids)}

    return chosen


def write(path: Path, result: dict[str, np.ndarray]) -> None:
    """One image's PNG."""
    write_semantic_png(path, result["semantic"])


def main(params: Path) -> None:
    """One image after the other."""
    from stages.runtime.walk import walk_stage
    from stages.segmentation.training import semantic_inference

    settings = load_settings(params, runtime=RuntimeSettings, bestie=BestieSettings)
    chosen = settings.bestie.maps
    weak, folder = read_json(layout.WEAK["train"]), Path(chosen.folder)
    walk = partial(walk_stage, __file__, params, settings.runtime, {"": weak["images"]}, key=layout.image_key,
                   output=SEMANTIC, description="semantic maps", suffix=".png", write=write)
    if chosen.source == "folder":
        category_ids = sorted(category_indices(weak["categories"], things_only=True))
        walk(load=lambda image: None, build=lambda device: with_given(given_maps(folder, category_ids), weak),
             inputs=[layout.WEAK["train"], folder], parameters="folder")
    else:
        build = semantic_inference(SEGMENTER, chosen.inference)
        walk(load=lambda image: read_rgb(layout.IMAGES / image["file_name"]),
             build=lambda device: with_given(build(device), weak),
             inputs=[layout.WEAK["train"], layout.IMAGES, SEGMENTER / "weights.pt"], parameters=chosen.inference)


if __name__ == "__main__":
    run_stage(main, __doc__)
