"""Weak label files: the chosen labels and nothing else."""

from pathlib import Path

import pytest

from stages.labels import rle
from stages.prepare import weak
from stages.runtime.errors import UserError

KINDS = {"points": "point", "boxes": "bbox", "extreme_points": "extreme_points", "masks": "segmentation"}


@pytest.fixture
def ready(coco_root, desk):
    """Prepared data with one crowd of a third class, and stuff."""
    for part in (coco_root.train, coco_root.val):
        part["categories"] = [*coco_root.categories, {"id": 30, "name": "sky", "isthing": 0}]
    coco_root.train["annotations"] += [
        {"id": 1, "image_id": 12, "category_id": 9, "iscrowd": 1, "segmentation": [[6, 5, 12, 5, 12, 10, 6, 10]]},
        {"id": 2, "image_id": 12, "category_id": 30, "segmentation": [[0, 0, 12, 0, 12, 1, 0, 1]]}]
    coco_root.train["annotations"] = [item for item in coco_root.train["annotations"] if item["id"] != 121]
    coco_root.save()
    return desk.prepare(kind="coco", root=str(coco_root.root))


def test_tags_only(ready, desk):
    labels = desk.annotate(kinds=["tags"])["train"]
    assert [set(image) for image in labels["images"]] == [{"id", "file_name", "width", "height", "tags"}] * 3
    assert [image["tags"] for image in labels["images"]] == [[4, 9], [4, 30], [4, 9]]  # the crowd of 9 gives no tag
    assert labels["annotations"] == [] and labels["categories"] == ready["train"]["categories"]
    assert labels["info"] == {"kinds": ["tags"], "source": "truth"}


@pytest.mark.parametrize("kinds", [["points"], ["boxes"], ["extreme_points"], ["masks"], ["tags", "boxes", "points"],
                                   list(KINDS)])
def test_only_the_chosen_kinds(ready, desk, kinds):
    labels = desk.annotate(kinds=kinds)["train"]
    keys = {"id", "image_id", "category_id", "iscrowd", *(KINDS[kind] for kind in kinds if kind != "tags")}
    assert [item["id"] for item in labels["annotations"]] == [1, 2, 3, 4, 5]  # no crowd, no stuff
    assert all(set(item) == keys and item["iscrowd"] == 0 for item in labels["annotations"])
    # Objects give their classes away; stuff shows in tags alone.
    assert labels["images"][1]["tags"] == ([4, 30] if "tags" in kinds else [4])
    things = [item for item in ready["train"]["annotations"] if item["category_id"] != 30 and not item["iscrowd"]]
    for item, truth in zip(labels["annotations"], things, strict=True):
        mask = rle.decode(truth["segmentation"])
        assert item.get("point", weak.deepest_point(mask)) == weak.deepest_point(mask)
        assert item.get("bbox", truth["bbox"]) == truth["bbox"]
        assert item.get("extreme_points", weak.extreme_points(mask)) == weak.extreme_points(mask)
        assert item.get("segmentation", truth["segmentation"]) == truth["segmentation"]


def test_semi_supervised(ready, desk):
    settings = {"kinds": ["tags", "masks"], "masked_images": 0.4}
    labels = desk.annotate(**settings)
    assert len({item["image_id"] for item in labels["train"]["annotations"]}) == 1
    assert len({item["image_id"] for item in labels["val"]["annotations"]}) == 2
    assert desk.annotate(**settings) == labels
    chosen = {tuple({item["image_id"] for item in desk.annotate(**settings, seed=seed)["train"]["annotations"]})
              for seed in range(8)}
    assert len(chosen) > 1
    with_points = desk.annotate(kinds=["points", "masks"], masked_images=0.4)["train"]["annotations"]
    assert len(with_points) == 5 and sum("segmentation" in item for item in with_points) in (1, 2)


def test_labels_of_the_input(coco_root, desk):
    coco_root.drop("segmentation")
    for part in (coco_root.train, coco_root.val):
        for item in part["annotations"]:
            x, y, w, h = item["bbox"]
            item["point"] = [x + 0.5, y]
            item["extreme_points"] = [[x, y], [x, y], [x + w - 1, y + h - 1], [x + w - 1, y + h - 1]]
    coco_root.train["images"][0]["tags"] = [4]
    coco_root.save()
    desk.prepare(kind="coco", root=str(coco_root.root))
    labels = desk.annotate(kinds=["tags", "points", "boxes", "extreme_points"])["train"]
    assert labels["info"]["source"] == "input" and labels["images"][0]["tags"] == [4, 9]
    assert labels["annotations"][0] == {"id": 1, "image_id": 11, "category_id": 4, "iscrowd": 0, "point": [2.5, 1],
                                        "bbox": [2, 1, 4, 3], "extreme_points": [[2, 1], [2, 1], [5, 3], [5, 3]]}
    with pytest.raises(UserError, match=r"train_truth\.json: annotations.source is truth, but .* has no masks"):
        desk.annotate(kinds=["boxes"], source="truth")
    with pytest.raises(UserError, match="no object of the training images has one"):
        desk.annotate(kinds=["tags", "masks"])


def test_boxes_from_extreme_points(coco_root, desk):
    coco_root.drop("segmentation", "bbox")
    for item in coco_root.train["annotations"] + coco_root.val["annotations"]:
        item["extreme_points"] = [[5, 1], [2, 3], [4, 6], [7, 4]]
    coco_root.save()
    desk.prepare(kind="coco", root=str(coco_root.root))
    assert desk.annotate(kinds=["boxes"])["train"]["annotations"][0]["bbox"] == [2, 1, 6, 6]


def test_missing_labels_are_named(coco_root, desk):
    coco_root.drop("segmentation")
    coco_root.save()
    desk.prepare(kind="coco", root=str(coco_root.root))
    with pytest.raises(UserError) as error:
        desk.annotate(kinds=["boxes", "points", "extreme_points"])
    assert error.match(r"6 problem\(s\)") and error.match(
        r"image 11 \(11\.png\), annotation 110: has no point and no extreme_points; .*annotations\.kinds")
    assert not Path("data/annotations").exists()


def test_own_labels_beside_masks(coco_root, desk):
    for item in coco_root.train["annotations"] + coco_root.val["annotations"]:
        item["point"] = [4, 2]
    coco_root.save()
    desk.prepare(kind="coco", root=str(coco_root.root))
    assert desk.annotate(kinds=["points"], source="input")["train"]["annotations"][1]["point"] == [4, 2]
    assert desk.annotate(kinds=["points"])["train"]["annotations"][1]["point"] != [4, 2]


def test_masks_for_some_objects(coco_root, desk):
    for item in coco_root.train["annotations"]:
        if item["image_id"] != 11:
            del item["segmentation"]
    coco_root.save()
    desk.prepare(kind="coco", root=str(coco_root.root))
    labels = desk.annotate(kinds=["tags", "masks"])
    assert [item["image_id"] for item in labels["train"]["annotations"]] == [11, 11]
    assert all("segmentation" in item for item in labels["train"]["annotations"])
    assert labels["train"]["info"]["source"] == "input" and labels["val"]["info"]["source"] == "truth"


def test_truth_comes_first(desk):
    with pytest.raises(UserError, match=r"train_truth\.json: no such file"):
        desk.annotate(kinds=["tags"])
