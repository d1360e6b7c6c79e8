"""The panoptic output of an image: no pixel twice, empty labels dropped, scores of both kinds, files of both kinds."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from panoptic_scenes import CAT, CATEGORIES, CLASSES, DOG, GRASS, SKY, THINGS_ONLY, boxes, image_entry

from pipelines.panoptic.instance_head import InstanceHead
from pipelines.panoptic.labelling import cue_rows, detected, panoptic_rows
from pipelines.panoptic.panoptic_files import paint_segments, undecided_share, write_split
from pipelines.panoptic.settings import PanopticInferenceSettings
from stages.cues.backbone import Grid
from stages.labels import rle
from stages.labels.panoptic import read_panoptic
from stages.labels.segments import read_segments
from stages.runtime.files import write_npz

HEIGHT, WIDTH = 12, 20


class Known(torch.nn.Module):
    """A semantic network that says what its image's red value is: the channel times 50."""

    grid = Grid(1, 0)

    def __init__(self, channels: int, sure: float = 8.0) -> None:
        super().__init__()
        self.channels, self.sure = channels, sure

    def cells(self, images):
        found = torch.round(images[:, 0] * 255 / 50).long()
        return self.sure * torch.nn.functional.one_hot(found, self.channels).permute(0, 3, 1, 2).float()


class Network(torch.nn.Module):
    def __init__(self, channels: int = 5, steps: int = 0) -> None:
        super().__init__()
        self.semantic, self.head = Known(channels), InstanceHead(steps=steps)


def picture(channels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.repeat(50 * channels[None], 3, axis=0).astype(np.uint8))


def scene() -> np.ndarray:
    """Sky over grass, two cats side by side, of one colour."""
    channels = np.full((HEIGHT, WIDTH), GRASS)
    channels[:4] = SKY
    channels[5:10, 2:16] = CAT
    return channels


def rows_of(channels, given, scores=None, stuff=CLASSES.stuff, network=None, settings=None, classes=CLASSES):
    with torch.no_grad():
        return panoptic_rows(network or Network(), picture(channels), given,
                             np.ones(len(given)) if scores is None else np.array(scores), stuff, classes,
                             settings or PanopticInferenceSettings())


def test_boxes_part_what_the_semantic_network_sees():
    given = boxes((2, 5, 9, 10, CAT), (9, 5, 16, 10, CAT), (0, 0, 5, 4, DOG))
    rows = rows_of(scene(), given, [0.9, 0.6, 0.99])
    assert [(row["category_id"], row["box"], row["scores"]["detection"]) for row in rows] == [
        (2, 0, 0.9), (2, 1, 0.6), (5, -1, 1.0), (9, -1, 1.0)], "the dog has no pixel: the label is dropped"
    masks = [rle.decode(row["segmentation"]) for row in rows]
    assert (sum(mask.astype(int) for mask in masks) == 1).all(), "every pixel is explained, and once"
    assert masks[0][5:10, 2:9].all() and masks[0].sum() == 35 and masks[1].sum() == 35
    sure = np.exp(8) / (np.exp(8) + 3)
    assert all(row["scores"]["confidence"] == pytest.approx(sure, abs=1e-5) for row in rows)


def test_the_global_term_finds_what_a_box_leaves_out():
    """Eq. 4: a box that is too small still gets all of its class, where nothing else claims it."""
    rows = rows_of(scene(), boxes((4, 6, 8, 8, CAT)))
    cat = next(row for row in rows if row["category_id"] == 2)
    assert rle.area(cat["segmentation"]) == 70


def test_things_stay_in_given_boxes():
    given, settings = boxes((4, 6, 8, 8, CAT)), PanopticInferenceSettings(boxed=True)
    with torch.no_grad():
        rows = panoptic_rows(Network(), picture(scene()), given, np.ones(1), CLASSES.stuff, CLASSES, settings,
                             given=True)
    cat = next(row for row in rows if row["category_id"] == 2)
    assert rle.decode(cat["segmentation"])[6:8, 4:8].all() and rle.area(cat["segmentation"]) == 8
    detected_one = next(row for row in rows_of(scene(), given, settings=settings) if row["category_id"] == 2)
    assert rle.area(detected_one["segmentation"]) == 70, "a detection's box is no limit"


def test_no_detection_leaves_stuff_and_no_label_leaves_nothing():
    rows = rows_of(scene(), boxes())
    assert {row["category_id"] for row in rows} == {5, 9}
    assert sum(rle.area(row["segmentation"]) for row in rows) == HEIGHT * WIDTH
    assert rows_of(scene(), boxes(), stuff=()) == []


def test_untagged_stuff_is_none():
    rows = rows_of(scene(), boxes((2, 5, 16, 10, CAT)), stuff=(GRASS,))
    assert {row["category_id"] for row in rows} <= {2, 9}


def test_crowds_become_crowds():
    given = boxes((2, 5, 9, 10, CAT), (9, 5, 16, 10, CAT), crowd=[1])
    rows = rows_of(scene(), given)
    assert [row["iscrowd"] for row in rows] == [0, 1, 0, 0]


def test_the_background_is_no_segment():
    channels = np.zeros((HEIGHT, WIDTH), int)
    channels[5:10, 2:9] = 1
    rows = rows_of(channels, boxes((2, 5, 9, 10, 1)), stuff=THINGS_ONLY.stuff, network=Network(3), classes=THINGS_ONLY)
    assert [row["category_id"] for row in rows] == [2] and rle.area(rows[0]["segmentation"]) == 35


def test_tiles_change_nothing_for_a_network_that_looks_at_pixels():
    channels = np.kron(scene(), np.ones((16, 16), int))  # 192 x 320
    given = boxes((32, 80, 144, 160, CAT), (144, 80, 256, 160, CAT))
    whole, tiled = (rows_of(channels, given, settings=PanopticInferenceSettings(max_pixels=cap))
                    for cap in (10**6, 4096))
    assert [row["segmentation"] for row in whole] == [row["segmentation"] for row in tiled]


def test_the_best_detections():
    results = [{"bbox": [1, 2, 3, 4], "score": 0.5, "category_id": 7}, {"bbox": [0, 0, 9, 9], "score": 0.8,
                                                                       "category_id": 2}]
    found, scores = detected(results, CLASSES, 5)
    assert found.xyxy.tolist() == [[0, 0, 9, 9], [1, 2, 4, 6]] and found.channels.tolist() == [CAT, DOG]
    assert scores.tolist() == [0.8, 0.5] and not found.crowd.any()
    assert len(detected(results, CLASSES, 1)[0]) == 1 and len(detected([], CLASSES, 1)[0]) == 0


def test_labels_of_the_cues_alone(tmp_path):
    cut, chosen = np.zeros((2, 2, HEIGHT, WIDTH), bool)
    cut[0, 2:4, 2:6] = chosen[0, 2:6, 2:4] = chosen[1, 8:, 8:] = True
    write_npz(tmp_path / "000000000001.npz", grabcut=np.packbits(cut, axis=2), proposal=np.packbits(chosen, axis=2),
              overlap=np.zeros(2, np.float32), width=np.array(WIDTH))
    given, image = boxes((2, 2, 6, 6, CAT), (8, 8, 20, 12, DOG)), image_entry(HEIGHT, WIDTH)
    areas = {source: [(row["box"], rle.area(row["segmentation"])) for row in cue_rows(
        tmp_path, image, [], given, CLASSES, source)] for source in ("box", "grabcut", "proposal", "agreement")}
    assert areas == {"box": [(0, 16), (1, 48)], "grabcut": [(0, 8)], "proposal": [(0, 8), (1, 48)],
                     "agreement": [(0, 4)]}


def test_files_hold_what_the_labels_say(tmp_path):
    image = image_entry(HEIGHT, WIDTH)
    empty = {**image, "id": 2, "file_name": "2.png"}
    rows = [{"image_id": 1, "score": row["scores"]["detection"], **row} for row in rows_of(
        scene(), boxes((2, 5, 9, 10, CAT), (9, 5, 16, 10, CAT), crowd=[1]), [0.9, 1.0])]
    write_split(tmp_path / "panoptic_val.json", [image, empty], CATEGORIES, rows, tmp_path / "semantic", False)
    content = read_panoptic(tmp_path / "panoptic_val.json")
    first, second = content["annotations"]
    assert [(part["category_id"], part["iscrowd"], part["score"]) for part in first["segments_info"]] == [
        (2, 0, 0.9), (2, 1, 1.0), (5, 0, 1.0), (9, 0, 1.0)]
    assert set(first["segments_info"][0]["scores"]) == {"detection", "confidence"}
    segments = read_segments(tmp_path / "panoptic_val" / first["file_name"], (HEIGHT, WIDTH), first["segments_info"])
    for number, row in enumerate(rows, start=1):
        assert np.array_equal(segments == number, rle.decode(row["segmentation"]))
    assert second["segments_info"] == []
    semantic = cv2.imread(str(tmp_path / "semantic/000000000001.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(semantic, np.array([0, 2, 5, 7, 9])[scene()])
    assert (cv2.imread(str(tmp_path / "semantic/000000000002.png"), cv2.IMREAD_UNCHANGED) == 255).all()
    assert undecided_share(tmp_path / "semantic", [image, empty], CLASSES.category_ids) == 0.5
    json.loads((tmp_path / "panoptic_val.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def test_parts_of_one_class_of_stuff_become_one_segment(tmp_path):
    left, right = np.zeros((2, 3, 4), bool)
    left[:, 0] = right[:, 3] = True
    rows = [{"image_id": 1, "category_id": category, "segmentation": rle.encode(mask), "score": 1.0}
            for category, mask in ((5, left), (2, left & False | (np.arange(4) == 1)), (5, right))]
    write_split(tmp_path / "panoptic.json", [image_entry(3, 4)], CATEGORIES, rows, None, False)
    info = read_panoptic(tmp_path / "panoptic.json")["annotations"][0]["segments_info"]
    assert [(part["category_id"], part["area"]) for part in info] == [(5, 6), (2, 3)]


def test_where_labels_overlap_the_smaller_is_on_top():
    small, large = np.zeros((2, 3, 4), bool)
    small[1, 1] = large[:2, :2] = True
    rows = [{"segmentation": rle.encode(mask)} for mask in (small, large)]
    assert paint_segments(image_entry(3, 4), rows).tolist() == [[2, 2, 0, 0], [2, 1, 0, 0], [0, 0, 0, 0]]
