"""Weak label files: the chosen labels and nothing else."""

from pathlib import Path

import pytest

from stages.labels import rle
from stages.prepare import annotate, weak
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
    objects = [item for item in labels["annotations"] if item["category_id"] != 30 and not item["iscrowd"]]
    assert len(objects) == 5 and all(set(item) == keys for item in objects)
    crowds = [item for item in labels["annotations"] if item["iscrowd"]]
    assert [set(item) for item in crowds] == [{"id", "image_id", "category_id", "iscrowd", *(
        KINDS[kind] for kind in kinds if kind in ("boxes", "masks"))}] * bool({"boxes", "masks"} & set(kinds))
    assert all(item.get("bbox", [6, 5, 6, 5]) == [6, 5, 6, 5] and item["category_id"] == 9 for item in crowds)
    stuff = [item for item in labels["annotations"] if item["category_id"] == 30]
    assert [set(item) for item in stuff] == [{"id", "image_id", "category_id", "iscrowd", "segmentation"}] * (
        "masks" in kinds)
    assert [item["id"] for item in labels["annotations"]] == list(range(1, 6 + len(crowds) + len(stuff)))
    # Objects give their classes away; stuff shows in tags alone, or in masks.
    assert labels["images"][1]["tags"] == ([4, 30] if {"tags", "masks"} & set(kinds) else [4])
    assert [image.get("fully_labelled", 0) for image in labels["images"]] == [int("masks" in kinds)] * 3
    things = [item for item in ready["train"]["annotations"] if item["category_id"] != 30 and not item["iscrowd"]]
    for item, truth in zip(objects, things, strict=True):
        mask = rle.decode(truth["segmentation"])
        assert item.get("point", weak.deepest_point(mask)) == weak.deepest_point(mask)
        assert item.get("bbox", truth["bbox"]) == truth["bbox"]
        assert item.get("extreme_points", weak.extreme_points(mask)) == weak.extreme_points(mask)
        assert item.get("segmentation", truth["segmentation"]) == truth["segmentation"]


@pytest.mark.parametrize("chosen", ["longest_run", "extremenet"])
def test_where_extreme_points_lie_is_a_setting(ready, desk, monkeypatch, chosen):
    monkeypatch.setitem(annotate.EXTREME, chosen, lambda mask: [[1, 2]] * 4)
    labels = desk.annotate(kinds=["extreme_points"], extreme_points=chosen)["train"]
    assert [item["extreme_points"] for item in labels["annotations"]] == [[[1, 2]] * 4] * 5


def test_semi_supervised(ready, desk):
    settings = {"kinds": ["tags", "masks"], "masked_images": 0.4}
    labels = desk.annotate(**settings)
    assert len({item["image_id"] for item in labels["train"]["annotations"]}) == 1
    assert sum(image.get("fully_labelled", 0) for image in labels["train"]["images"]) == 1
    assert len({item["image_id"] for item in labels["val"]["annotations"]}) == 2
    assert desk.annotate(**settings) == labels
    chosen = {tuple({item["image_id"] for item in desk.annotate(**settings, seed=seed)["train"]["annotations"]})
              for seed in range(8)}
    assert len(chosen) > 1
    with_points = desk.annotate(kinds=["points", "masks"], masked_images=0.4)["train"]["annotations"]
    assert sum("point" in item for item in with_points) == 5
    assert len({item["image_id"] for item in with_points if "segmentation" in item}) == 1


def test_a_list_of_images_is_labelled_in_full(ready, desk):
    settings = {"kinds": ["tags", "boxes", "masks"], "masked_images": [13, "12.png"]}
    labels = desk.annotate(**settings)["train"]
    assert [image.get("fully_labelled", 0) for image in labels["images"]] == [0, 1, 1]
    masks = {item["category_id"]: rle.decode(item["segmentation"]) for item in labels["annotations"]
             if item["image_id"] == 12 and not item["iscrowd"]}
    assert {*masks} == {4, 30} and masks[30][:1].all() and not masks[30][1:].any()
    assert all(("segmentation" in item) == (item["image_id"] != 11) for item in labels["annotations"])
    assert desk.annotate(kinds=["tags", "masks"], masked_images=[])["train"]["annotations"] == []
    with pytest.raises(UserError, match="annotations.masked_images: '12.pgn' is neither .*; did you mean '12.png'?"):
        desk.annotate(kinds=["masks"], masked_images=["12.pgn"])


def test_tags_of_an_image_without_objects_beside_images_with_masks(coco_root, desk):
    coco_root.train["images"][1]["tags"] = [4]
    coco_root.train["annotations"] = [item for item in coco_root.train["annotations"] if item["image_id"] != 12]
    coco_root.save()
    desk.prepare(kind="coco", root=str(coco_root.root))
    assert [image["tags"] for image in desk.annotate(kinds=["tags"])["train"]["images"]] == [[4, 9], [4], [4, 9]]


def test_tags_of_crops(ready, desk):
    settings = {"kinds": ["tags"], "tag_crops": {"columns": 2, "rows": 2, "width": 8, "height": 6}}
    image = desk.annotate(**settings)["train"]["images"][1]
    # A crop of 8 x 6 px of 12 x 10; cat at (3..6, 1..3), crowd of dogs at (6..11, 5..9), sky in row 0.
    assert image["tags"] == [4, 30]
    assert image["tag_crops"] == [
        {"bbox": [0, 0, 8, 6], "tags": [4, 9, 30]}, {"bbox": [4, 0, 8, 6], "tags": [4, 9, 30]},
        {"bbox": [0, 4, 8, 6], "tags": [9]}, {"bbox": [4, 4, 8, 6], "tags": [9]}]
    one = desk.annotate(kinds=["tags"], tag_crops={"columns": 1, "rows": 1, "width": 99, "height": 99})["train"]
    assert one["images"][1]["tag_crops"] == [{"bbox": [0, 0, 12, 10], "tags": [4, 9, 30]}]
    assert "tag_crops" not in desk.annotate(kinds=["tags"])["train"]["images"][0]
    with pytest.raises(UserError, match="image 11 .*annotations.tag_crops: 2 crops of 5 px do not cover an image that "
                                        "is 12 px wide; take more or larger crops"):
        desk.annotate(kinds=["tags"], tag_crops={"columns": 2, "rows": 2, "width": 5, "height": 6})
    assert "tag_crops" not in desk.annotate(kinds=["boxes"], tag_crops={})["train"]["images"][0]


def test_tags_of_crops_that_the_data_set_carries(coco_root, desk):
    coco_root.drop("segmentation")
    crops = [{"bbox": [0, 0, 6, 10], "tags": [9, 4]}, {"bbox": [6, 0, 6, 10], "tags": []}]
    for part in (coco_root.train, coco_root.val):
        for image in part["images"]:
            image["tag_crops"] = crops
    coco_root.train["categories"] = coco_root.val["categories"] = [*coco_root.categories, {"id": 30, "name": "sky",
                                                                                          "isthing": 0}]
    coco_root.train["images"][0]["tag_crops"] = [{"bbox": [0, 0, 12, 10], "tags": [30]}]
    coco_root.save()
    desk.prepare(kind="coco", root=str(coco_root.root))
    images = desk.annotate(kinds=["tags", "boxes"])["train"]["images"]
    assert images[0]["tag_crops"] == [{"bbox": [0, 0, 12, 10], "tags": [30]}] and images[0]["tags"] == [4, 9, 30]
    assert images[1]["tag_crops"][0] == {"bbox": [0, 0, 6, 10], "tags": [4, 9]}
    assert "tag_crops" not in desk.annotate(kinds=["boxes"])["train"]["images"][0]
    desk.prepare(kind="coco", root=str(coco_root.root), classes=["dog", "sky"])
    assert desk.annotate(kinds=["tags"])["train"]["images"][1]["tag_crops"][0]["tags"] == [9]
    coco_root.train["images"][0]["tag_crops"] = [{"bbox": [0, 0, 0, 10], "tags": [31]}]
    coco_root.save()
    with pytest.raises(UserError, match=r"(?s)tags of crop 1: a list of category ids .* found \[31\].*crop 1: a bbox"):
        desk.prepare(kind="coco", root=str(coco_root.root))


def test_tags_of_crops_need_masks_or_crops(coco_root, desk):
    coco_root.drop("segmentation")
    coco_root.save()
    desk.prepare(kind="coco", root=str(coco_root.root))
    with pytest.raises(UserError, match="image 11 .*tags per crop are drawn from masks, and not every object has one"):
        desk.annotate(kinds=["tags"], tag_crops={})


def test_crowds_of_a_data_set_with_boxes_only(coco_root, desk):
    coco_root.drop("segmentation")
    coco_root.train["annotations"].append({"id": 1, "image_id": 12, "category_id": 9, "iscrowd": 1,
                                           "bbox": [6.5, 5, 5, 4.5]})
    coco_root.save()
    desk.prepare(kind="coco", root=str(coco_root.root))
    labels = desk.annotate(kinds=["boxes", "tags"])["train"]["annotations"]
    assert [(item["category_id"], item["bbox"]) for item in labels if item["iscrowd"]] == [(9, [6.5, 5, 5, 4.5])]
    assert not any("segmentation" in item for item in labels)


def test_a_data_set_that_has_masks_for_some_images(coco_root, desk):
    for item in coco_root.train["annotations"]:
        if item["image_id"] != 12:
            del item["segmentation"]
    del coco_root.train["annotations"][5]["bbox"]
    coco_root.train["annotations"] = [item for item in coco_root.train["annotations"] if item["image_id"] != 13]
    coco_root.save()
    desk.prepare(kind="coco", root=str(coco_root.root))
    labels = desk.annotate(kinds=["tags", "masks"])["train"]
    full = [image.get("fully_labelled", 0) for image in labels["images"]]
    assert full == [0, 1, 0], "13 may have objects for all we know"
    assert [item["image_id"] for item in labels["annotations"]] == [12, 12]


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
