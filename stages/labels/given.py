"""The masks that annotators drew, in mixes of weak and full labels: they become labels as they are.

An image of the weak annotations that is labelled in full has ``fully_labelled: 1``; its annotations carry the masks of
things, crowds and stuff (``stages.prepare.annotate`` writes them). Whatever a method would predict there, these masks
are better. Single objects of other images may carry masks too, where the data set itself is a mix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from stages.labels import rle as rle_codec
from stages.labels.coco import Entry, annotations_by_image, is_thing

FULL = "fully_labelled"
"""Key of an image that is labelled in full."""
UNDECIDED = -1
"""Where a map of :func:`given_map` says nothing."""


def is_full(image: Mapping[str, object]) -> bool:
    """Whether an image of the weak annotations is labelled in full."""
    return bool(image.get(FULL, 0))


def with_given_masks(rows: Iterable[Entry], weak: Entry, stuff: bool = False) -> list[Entry]:
    """A method's labels, with the masks that annotators drew in the place of predicted ones.

    Args:
        rows: labels of training images as ``stages.labels.coco.write_instances`` takes them; ``weak_id`` is the
            annotation that a row labels, where the method labels given objects one by one.
        weak: content of the weak annotations of the training images.
        stuff: whether the labels hold stuff too.

    Returns:
        The rows, in their order, without those of images that are labelled in full; a row whose ``weak_id`` carries a
        mask has that mask and score 1. Then a row for each mask of the images labelled in full: score 1, its
        ``weak_id``, crowds with ``iscrowd: 1``.
    """
    full = {image["id"] for image in weak["images"] if is_full(image)}
    wanted = {category["id"] for category in weak["categories"] if stuff or is_thing(category)}
    masks = [item for item in weak["annotations"] if "segmentation" in item and item["category_id"] in wanted]
    drawn = {item["id"]: item["segmentation"] for item in masks if item["image_id"] not in full}
    kept = [row if row.get("weak_id") not in drawn else {**row, "segmentation": drawn[row["weak_id"]], "score": 1.0}
            for row in rows if row["image_id"] not in full]
    return kept + [{"image_id": item["image_id"], "category_id": item["category_id"],
                    "segmentation": item["segmentation"], "score": 1.0, "iscrowd": item.get("iscrowd", 0),
                    "weak_id": item["id"]} for item in masks if item["image_id"] in full]


def given_rows(weak: Entry) -> dict[int, list[Entry]]:
    """Image id -> annotations, of the images that are labelled in full."""
    groups = annotations_by_image(weak)
    return {image["id"]: groups[image["id"]] for image in weak["images"] if is_full(image)}


def given_map(image: Entry, annotations: Sequence[Entry], categories: Sequence[Entry],
              stuff: bool = False) -> np.ndarray:
    """The semantic map of an image that is labelled in full.

    Args:
        image: of the weak annotations.
        annotations: the image's.
        categories: of the data set.
        stuff: whether the map holds stuff; otherwise all that is no thing is background.

    Returns:
        (H, W) int32 category ids, 0 background, :data:`UNDECIDED` where nobody labelled anything. Things lie on
        stuff, smaller masks on larger ones; crowds show their class.
    """
    things = {category["id"] for category in categories if is_thing(category)}
    everything = stuff and len(things) < len(categories)  # what is no thing has a class of stuff, or is void
    labels = np.full((image["height"], image["width"]), UNDECIDED if everything else 0, np.int32)
    if "void" in image:
        labels[rle_codec.decode(image["void"])] = UNDECIDED
    drawn = [item for item in annotations if "segmentation" in item and (everything or item["category_id"] in things)]
    for item in sorted(drawn, key=lambda item: (item["category_id"] in things, -rle_codec.area(item["segmentation"]),
                                                item["id"])):
        labels[rle_codec.decode(item["segmentation"])] = item["category_id"]
    return labels
