"""Confident areas and synthesized labels on hand-made maps; the labels of full supervision."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage

from pipelines.irnet.masks import cells_at, image_labels, instance_labels
from pipelines.irnet.relations import confident_areas
from pipelines.irnet.settings import RelationSettings, SynthesisSettings
from pipelines.masks import take_masks
from stages.labels import rle
from stages.propagation.settings import DenseCrfSettings
from stages.runtime import layout
from stages.runtime.errors import UserError

PLAIN = RelationSettings(crf=DenseCrfSettings(iterations=0))


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


# --- confident areas ----------------------------------------------------------------------------------------------


def test_confident_areas_by_hand():
    cams = np.array([[[1.0, 0.31, 0.3, 0.05], [0.04, 0.0, 0.2, 0.6]],
                     [[0.0, 0.4, 0.1, 0.06], [0.0, 0.051, 0.2, 0.5]]])
    # Larger than 0.3 is foreground, not larger than 0.05 background.
    assert confident_areas(grey(2, 4), cams, PLAIN).tolist() == [[1, 2, 255, 255], [0, 255, 255, 1]]


def test_confident_areas_by_loop():
    cams = np.random.default_rng(0).random((3, 9, 7)) ** 3
    found = confident_areas(grey(9, 7), cams, PLAIN)
    assert found.dtype == np.uint8
    for y, x in np.ndindex(9, 7):
        best = int(cams[:, y, x].argmax())
        value = cams[best, y, x]
        assert found[y, x] == (best + 1 if value > 0.3 else 0 if value <= 0.05 else 255)


def test_images_without_classes_are_background():
    assert (confident_areas(grey(4, 5), np.zeros((0, 4, 5)), PLAIN) == 0).all()


def test_zero_maps_are_background():
    for settings in (PLAIN, RelationSettings()):
        assert (confident_areas(grey(8, 9), np.zeros((2, 8, 9)), settings) == 0).all()


@pytest.mark.parametrize("classes", [1, 3])
def test_dense_crf_pulls_areas_to_the_edges(classes):
    pytest.importorskip("pydensecrf")
    # A bright square on dark; the attention is a blob of another shape and sticks out of it.
    image = np.full((48, 64, 3), 30, np.uint8)
    image[12:36, 20:44] = 220
    truth = image[..., 0] > 100
    rows, columns = np.mgrid[:48, :64]
    blob = np.exp(-((rows - 22) ** 2 + (columns - 30) ** 2) / 120.0)
    cams = np.zeros((classes, 48, 64))
    cams[-1] = blob
    plain = confident_areas(image, cams, PLAIN)
    refined = confident_areas(image, cams, RelationSettings())
    assert set(np.unique(refined)) <= {0, classes, 255}

    def overlap(labels):
        found = labels == classes
        return (found & truth).sum() / (found | truth).sum()

    assert overlap(refined) > max(0.9, overlap(plain))
    # No confident background inside the object where attention says otherwise, and background stays confident.
    assert ((refined == 0) & truth).sum() == 0
    assert ((refined == 0) & ~truth).sum() > 0.7 * (~truth).sum()


# --- labels -------------------------------------------------------------------------------------------------------


def two_squares(peak: float = 0.5) -> np.ndarray:
    """One class, two squares: (1, 20, 30) with values 1 and ``peak``."""
    scores = np.zeros((1, 20, 30))
    scores[0, 2:10, 2:10] = 1.0
    scores[0, 5:12, 18:30] = peak  # at the border
    return scores


def settings(**changes) -> SynthesisSettings:
    return SynthesisSettings(**{"fragment": 0.01, **changes})


def test_components_are_instances():
    found = instance_labels(two_squares(), np.array([7]), settings(instances="components"))
    shown = [(category, int(mask.sum()), round(score, 3)) for category, mask, score in found]
    assert shown == [(7, 64, 1.0), (7, 84, 0.5)]
    masks = [mask for _, mask, _ in found]
    assert all(mask.dtype == bool and mask.shape == (20, 30) for mask in masks)
    assert masks[1][5:12, 18:30].all()


def test_maps_are_instances_even_in_several_parts():
    found = instance_labels(two_squares(), np.array([7]), settings())
    assert len(found) == 1
    category, mask, score = found[0]
    assert (category, int(mask.sum()), round(score, 3)) == (7, 148, 1.0)
    assert ndimage.label(mask)[1] == 2


@pytest.mark.parametrize(("peak", "normalise", "count"), [(0.25, "image", 2), (0.249, "image", 1), (0.1, "image", 1)])
def test_threshold(peak, normalise, count):
    found = instance_labels(two_squares(peak), np.array([7]), settings(instances="components", normalise=normalise))
    assert len(found) == count


def test_normalisation_by_instance_keeps_weak_ones():
    scores = np.concatenate([two_squares(0.0), 0.1 * two_squares(1.0)[:, :, ::-1]])
    scores[1, 2:10, 2:10] = 0
    by_image = instance_labels(scores, np.array([7, 8]), settings())
    by_instance = instance_labels(scores, np.array([7, 8]), settings(normalise="instance"))
    assert [category for category, _, _ in by_image] == [7]
    assert [category for category, _, _ in by_instance] == [7, 8]


def test_masks_never_overlap():
    scores = np.random.default_rng(0).random((6, 25, 31))
    classes = np.array([1, 1, 2, 3, 3, 3])
    for instances in ("components", "displacement"):
        for normalise in ("image", "instance"):
            found = instance_labels(scores, classes, settings(instances=instances, normalise=normalise, threshold=0.9))
            assert sum(mask.astype(int) for _, mask, _ in found).max() <= 1
            for category, mask, score in found:
                own = scores[classes == category]
                assert mask.any()
                assert score <= 1
                assert (own.max(0)[mask] >= scores.max(0)[mask] - 1e-12).all() or normalise == "instance"


def test_fragments_score_nothing_or_go():
    scores = two_squares()
    scores[0, 15, 0:5] = 0.9  # 5 of 600 px: below 1 %
    scores[0, 18, 20:26] = 0.8  # 6 px: 1 % is no fragment
    found = instance_labels(scores, np.array([7]), settings(instances="components"))
    shown = [(int(mask.sum()), round(score, 3)) for _, mask, score in found]
    assert shown == [(64, 1.0), (84, 0.5), (5, 0.0), (6, 0.8)]
    kept = instance_labels(scores, np.array([7]), settings(instances="components", drop_fragments=True))
    assert [int(mask.sum()) for _, mask, _ in kept] == [64, 84, 6]


def test_instances_are_split_where_they_are_not_connected():
    scores = two_squares()[:1]
    scores[0, 8, 10:14] = scores[0, 9, 14:18] = 0.6  # two bars that share a corner
    areas = {}
    for name, changes in {"whole": {}, "eight": {"split": True}, "four": {"split": True, "connectivity": 4}}.items():
        found = instance_labels(scores, np.array([7]), settings(fragment=0, **changes))
        areas[name] = sorted(int(mask.sum()) for _, mask, _ in found)
    connected = ndimage.label(scores[0] / scores[0].max() >= 0.25, np.ones((3, 3)))[1]
    assert areas["whole"] == [sum(areas["four"])]
    assert len(areas["eight"]) == connected
    assert len(areas["four"]) == connected + 1
    assert sum(areas["eight"]) == sum(areas["four"])


def test_one_pixel():
    scores = np.zeros((1, 20, 30))
    scores[0, 19, 29] = 0.4
    for kind in ("components", "displacement"):
        (category, mask, score), = instance_labels(scores, np.array([3]), settings(instances=kind))
        assert (category, int(mask.sum()), score) == (3, 1, 0.0)
        assert mask[19, 29]
        (_, _, score), = instance_labels(scores, np.array([3]), settings(instances=kind, fragment=0))
        assert score == pytest.approx(0.4, abs=1e-4)


def test_scores_are_those_before_the_normalisation_and_ties_go_by_area():
    weak = instance_labels(0.5 * two_squares(), np.array([7]), settings(instances="components"))
    assert [round(score, 3) for _, _, score in weak] == [0.5, 0.25]
    small, large = instance_labels(two_squares(1.0), np.array([7]), settings(instances="components"))
    assert small[1].sum() < large[1].sum()
    assert small[2] < large[2] < small[2] + 1e-3


def test_nothing():
    for kind in ("components", "displacement"):
        assert instance_labels(np.zeros((0, 5, 6)), np.zeros(0, int), settings(instances=kind)) == []
        assert instance_labels(np.zeros((2, 5, 6)), np.array([1, 2]), settings(instances=kind)) == []


# --- the rows of table 1: which scores, which instances --------------------------------------------------------


def split_stripe() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """One class (7) whose attention is a stripe over two instances; the walk has carried it into another row."""
    cams, semantic = np.zeros((1, 4, 6)), np.zeros((1, 4, 6))
    cams[0, 1], semantic[0, 2] = 1, 1
    instances = np.repeat([[0, 0, 0, 1, 1, 1]], 4, axis=0)
    pairs = np.array([[0, 0], [0, 1]])
    return cams, {"classes": np.array([7]), "semantic": semantic, "instances": instances, "pairs": pairs,
                  "scores": np.stack([semantic[0] * (instances == index) for index in (0, 1)])}


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize(("scores", "row"), [("cam", 1), ("propagated", 2)])
@pytest.mark.parametrize("instances", ["components", "displacement"])
def test_scores_and_instances_are_chosen_apart(scores, row, instances, stride):
    cams, walked = split_stripe()
    found, semantic = image_labels(cams, walked, stride, (4 * stride, 6 * stride),
                                   settings(scores=scores, instances=instances, threshold=0.6))
    assert semantic.shape == (4 * stride, 6 * stride)
    assert {int(value) for value in np.unique(semantic)} == {0, 7}
    centre = row * stride + stride // 2
    assert (semantic[centre] == 7).all()
    assert (semantic[:(row - 1) * stride] == 0).all()
    assert len(found) == (1 if instances == "components" else 2)
    for category, mask, _ in found:
        assert category == 7
        assert mask[centre].any()
        assert not mask[:(row - 1) * stride].any()
        assert not mask[(row + 2) * stride:].any()
    if instances == "displacement":
        left, right = found[0][1], found[1][1]
        assert not left[:, 3 * stride:].any()
        assert not right[:, :3 * stride].any()
        if scores == "cam":  # attention that reaches a border stays whole there
            assert np.array_equal(left | right, semantic == 7)


def test_cells_at():
    cells = np.array([[0, 1], [2, 3]])
    assert cells_at(cells, 2, (3, 4)).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3]]
    assert cells_at(cells, 1, (2, 2)).tolist() == cells.tolist()


# --- full supervision ---------------------------------------------------------------------------------------------


def truth(kind: str = "masks") -> dict:
    big, hole = np.zeros((6, 8), bool), np.zeros((6, 8), bool)
    big[1:4, 1:5] = True
    hole[0:5, 4:8] = True
    hole[2, 6] = False
    rows = [(1, 5, big, 0), (1, 5, hole, 1), (1, 11, ~big, 0), (2, 9, hole, 0)]
    return {"info": {"truth": kind, "reason": "the input holds boxes only"},
            "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6},
                       {"id": 2, "file_name": "b.png", "width": 8, "height": 6}],
            "annotations": [{"id": number, "image_id": image, "category_id": category, "segmentation": rle.encode(mask),
                             "area": int(mask.sum()), "bbox": [0, 0, 8, 6], "iscrowd": crowd}
                            for number, (image, category, mask, crowd) in enumerate(rows, start=1)],
            "categories": [{"id": 5, "name": "cat", "isthing": 1}, {"id": 9, "name": "dog", "isthing": 1},
                           {"id": 11, "name": "sky", "isthing": 0}]}


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    layout.DATASET.mkdir(parents=True)
    return tmp_path


def test_take_masks(workspace):
    layout.TRUTH["train"].write_text(json.dumps(truth()))
    take_masks.main(workspace / "params.yaml")
    labels = json.loads(layout.pseudo_labels("masks").read_text())
    assert [image["id"] for image in labels["images"]] == [1, 2]
    assert [(row["image_id"], row["category_id"], row["iscrowd"], row["score"]) for row in labels["annotations"]] \
        == [(1, 5, 0, 1.0), (1, 5, 1, 1.0), (2, 9, 0, 1.0)]
    assert [row["id"] for row in labels["annotations"]] == [1, 2, 3]
    assert labels["categories"] == truth()["categories"]
    assert labels["annotations"][2]["bbox"] == [4, 0, 4, 5]
    assert labels["annotations"][2]["area"] == 19
    assert rle.decode(labels["annotations"][2]["segmentation"]).sum() == 19
    assert json.loads((layout.method_data("masks") / "gallery" / "panels.json").read_text()) == []


def test_take_masks_refuses_data_without_masks(workspace):
    layout.TRUTH["train"].write_text(json.dumps({**truth("none"), "annotations": []}))
    with pytest.raises(UserError, match="the input holds boxes only"):
        take_masks.main(workspace / "params.yaml")
    assert not layout.method_data("masks").exists()
