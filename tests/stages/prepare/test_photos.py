"""Real photographs, where they are at hand: WEAKMASK_PHOTOS, or shared/data/coco-voc20 beside the clone."""

import os
from pathlib import Path

import pytest

from stages.labels import rle
from stages.prepare import weak

PHOTOS = Path(os.environ.get("WEAKMASK_PHOTOS", Path(__file__).parents[3] / "../shared/data/coco-voc20")).resolve()

pytestmark = pytest.mark.skipif(not (PHOTOS / "instances_train.json").is_file(), reason="no photographs at hand")


def test_counts_and_labels(desk):
    truth = desk.prepare(kind="coco", root=str(PHOTOS))
    counts = {part: (len(content["images"]), sum(not item["iscrowd"] for item in content["annotations"]))
              for part, content in truth.items()}
    assert counts == {"train": (250, 1344), "val": (70, 439)}
    labels = desk.annotate(kinds=["tags", "points", "boxes", "extreme_points"])
    single = {part: [item for item in content["annotations"] if not item["iscrowd"]]
              for part, content in labels.items()}
    assert len(single["train"]) == 1344
    assert len(labels["train"]["annotations"]) == 1366  # crowds keep class and box
    assert sum(15 in image["tags"] for image in labels["train"]["images"]) <= 157  # crowds alone give no tag
    masks = [item for item in truth["val"]["annotations"] if not item["iscrowd"]]
    for item, label in zip(masks, single["val"], strict=True):
        mask = rle.decode(item["segmentation"])
        assert all(mask[y, x] for x, y in [label["point"], *label["extreme_points"]])
        assert label["bbox"] == item["bbox"] == weak.bounding_box(mask)


def test_limit(desk):
    truth = desk.prepare(kind="coco", root=str(PHOTOS), limit=5)
    assert [len(content["images"]) for content in truth.values()] == [5, 5]
