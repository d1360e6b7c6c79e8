"""The first approximate truth from the files of the cues, and the maps as they are written and read."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from panoptic_scenes import (
    CAT,
    CATEGORIES,
    CLASSES,
    DOG,
    GRASS,
    SKY,
    THINGS_ONLY,
    annotation,
    boxes,
    drawn,
    image_entry,
)

from pipelines.panoptic.cues import close_maps, cue_maps, read_maps, stuff_of, write_maps
from pipelines.panoptic.settings import PanopticSettings, RoundSettings
from stages.labels.panoptic import read_panoptic
from stages.labels.segments import read_segments
from stages.runtime.errors import UserError
from stages.runtime.files import write_npz

SETTINGS = PanopticSettings()
HEIGHT, WIDTH = 4, 8


@pytest.fixture
def stored(tmp_path):
    """GrabCut and a proposal for a cat at the left and a dog at the right, sky above, grass below."""
    cut, chosen = np.zeros((2, 2, HEIGHT, WIDTH), bool)
    cut[0, 1:3, 0:3] = chosen[0, 1:3, 1:4] = cut[1, 1:3, 6:] = chosen[1, 1:3, 6:] = True
    write_npz(tmp_path / "boxes/000000000001.npz", grabcut=np.packbits(cut, axis=2),
              proposal=np.packbits(chosen, axis=2), overlap=np.zeros(2, np.float32), width=np.array(WIDTH))
    maps = np.zeros((2, HEIGHT, WIDTH), np.float16)
    maps[0, :2], maps[1, 2:] = 1, 0.6
    write_npz(tmp_path / "stuff/000000000001.npz", channels=np.array([SKY, GRASS]), maps=maps, stride=np.array(1))
    return tmp_path


ROWS = [annotation(1, 2, [0, 1, 4, 2]), annotation(2, 7, [5, 1, 3, 2])]


def test_the_first_labels(stored):
    maps, instances = cue_maps(image_entry(HEIGHT, WIDTH), ROWS, CATEGORIES, CLASSES, stored / "boxes",
                               stored / "stuff", SETTINGS)
    assert np.array_equal(maps["agreement"], drawn("........", ".11...33", ".11...33", "........"))
    assert np.array_equal(maps["grabcut"], drawn("........", "111...33", "111...33", "........"))
    assert np.array_equal(maps["box"], drawn("........", "1111.333", "1111.333", "........"))
    assert np.array_equal(maps["stuff"], drawn("22222222", "22222222", "44444444", "44444444"))
    assert np.array_equal(maps["labels"], drawn("22222222", "21122233", "41144433", "44444444"))
    assert instances.tolist() == [[0] * 8, [0, 1, 1, 0, 0, 0, 2, 2], [0, 1, 1, 0, 0, 0, 2, 2], [0] * 8]


def test_the_first_labels_where_the_proposal_counts_alone(stored):
    """The cat's cues share 4 of the box's 8 pixels, the dog's 4 of 6: below 0.6 the cat has its whole proposal."""
    settings = PanopticSettings(rounds=RoundSettings(proposal_below=0.6))
    maps, instances = cue_maps(image_entry(HEIGHT, WIDTH), ROWS, CATEGORIES, CLASSES, stored / "boxes",
                               stored / "stuff", settings)
    assert np.array_equal(maps["agreement"], drawn("........", ".11...33", ".11...33", "........")), "as it was"
    assert np.array_equal(maps["labels"], drawn("22222222", "21112233", "41114433", "44444444"))
    assert instances[1].tolist() == [0, 1, 1, 1, 0, 0, 2, 2]


def test_things_alone(stored):
    things = [item for item in CATEGORIES if item["isthing"]]
    maps, instances = cue_maps(image_entry(HEIGHT, WIDTH), ROWS, things, THINGS_ONLY, stored / "boxes",
                               stored / "nowhere", SETTINGS)
    assert np.array_equal(maps["labels"], drawn("00000000", ".11.0.22", ".11.0.22", "00000000"))
    assert np.array_equal(maps["agreement"], maps["labels"])
    assert instances[1].tolist() == [-1, 1, 1, -1, 0, -1, 2, 2]


def test_stuff_alone_and_nothing_at_all(stored):
    write_npz(stored / "boxes/000000000001.npz", grabcut=np.zeros((0, HEIGHT, 1), np.uint8),
              proposal=np.zeros((0, HEIGHT, 1), np.uint8), overlap=np.zeros(0, np.float32), width=np.array(WIDTH))
    maps, instances = cue_maps(image_entry(HEIGHT, WIDTH), [], CATEGORIES, CLASSES, stored / "boxes", stored / "stuff",
                               SETTINGS)
    assert np.array_equal(maps["labels"], maps["stuff"]) and (instances == 0).all()
    write_npz(stored / "stuff/000000000001.npz", channels=np.zeros(0, np.int64), stride=np.array(1),
              maps=np.zeros((0, HEIGHT, WIDTH), np.float16))
    maps, instances = cue_maps(image_entry(HEIGHT, WIDTH, []), [], CATEGORIES, CLASSES, stored / "boxes",
                               stored / "stuff", SETTINGS)
    assert (maps["labels"] == -1).all() and (instances == -1).all()


def test_an_image_that_is_labelled_in_full_needs_no_cue(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[1:3, 2:4] = True
    rows = [annotation(1, 2, [2, 1, 2, 2], mask), annotation(2, 5, mask=~mask)]
    maps, instances = cue_maps(image_entry(HEIGHT, WIDTH, fully_labelled=1), rows, CATEGORIES, CLASSES, tmp_path,
                               tmp_path, SETTINGS)
    assert np.array_equal(maps["labels"], np.where(mask, CAT, SKY)) and np.array_equal(instances, mask.astype(int))


def test_cells_are_brought_to_the_pixels(stored):
    maps = np.zeros((1, 2, 3), np.float16)
    maps[0, :, 0] = 1
    write_npz(stored / "stuff/000000000001.npz", channels=np.array([GRASS]), maps=maps, stride=np.array(4))
    labels = stuff_of(image_entry(7, 10), CLASSES, stored / "stuff", 0.5)
    assert labels.shape == (7, 10)
    assert (labels[:, :4] == GRASS).all() and (labels[:, 4:] == -1).all(), "the border lies between the cells' middles"


def test_masks_of_other_boxes_are_refused(stored):
    with pytest.raises(UserError, match="masks of 2 boxes, image 1 has 1"):
        cue_maps(image_entry(HEIGHT, WIDTH), ROWS[:1], CATEGORIES, CLASSES, stored / "boxes", stored / "stuff",
                 SETTINGS)


GIVEN = boxes((0, 0, 2, 2, CAT), (1, 1, 4, 2, DOG))


@pytest.mark.parametrize(("classes", "labels"), [(CLASSES, drawn("12.4", "1333")),
                                                 (THINGS_ONLY, drawn("10.0", "1222"))])
def test_maps_come_back_as_they_were(tmp_path, classes, labels):
    instances = np.array([[1, 0, -1, 0], [1, 2, -1, 2]], np.int32)
    image = image_entry(2, 4)
    write_maps(tmp_path, image, labels, instances, boxes(*(
        (*box, classes.things[place]) for place, box in enumerate(GIVEN.xyxy))), classes)
    close_maps(tmp_path, [image], CATEGORIES)
    close_maps(tmp_path, [image], CATEGORIES)  # after a kill
    found = read_maps(tmp_path, image, classes)
    assert np.array_equal(found[0], labels) and np.array_equal(found[1], instances)
    semantic = cv2.imread(str(tmp_path / "000000000001.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(semantic, np.array([*(classes.category(channel) for channel in range(5)[:len(
        classes.category_ids) + 1]), 255])[labels])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000000001.png", "panoptic", "panoptic.json"]


def test_the_instances_are_coco_panoptic(tmp_path):
    image, labels = image_entry(2, 4), drawn("12.4", "1333")
    write_maps(tmp_path, image, labels, np.array([[1, 0, -1, 0], [1, 2, -1, 2]]), GIVEN, CLASSES)
    close_maps(tmp_path, [image], CATEGORIES)
    annotation, = read_panoptic(tmp_path / "panoptic.json")["annotations"]
    info = annotation["segments_info"]
    segments = read_segments(tmp_path / "panoptic" / annotation["file_name"], (2, 4), info)
    named = np.array([0, *(part["category_id"] for part in info)])[segments]
    assert named.tolist() == [[2, 5, 0, 9], [2, 7, 0, 7]], "what is undecided, and a thing of no instance, is void"
    assert [part["category_id"] for part in info] == [2, 7, 5, 9]


def test_bad_maps_are_said(tmp_path):
    image = image_entry(2, 4)
    write_maps(tmp_path, image, drawn("1122", "1122"), np.zeros((2, 4), np.int32), boxes(), CLASSES)
    with pytest.raises(UserError, match="4 x 3 pixels"):
        read_maps(tmp_path, image_entry(3, 4), CLASSES)
    cv2.imwrite(str(tmp_path / "000000000001.png"), np.full((2, 4), 77, np.uint8))
    with pytest.raises(UserError, match=r"the values \[77\] are no category ids"):
        read_maps(tmp_path, image, CLASSES)
    write_maps(tmp_path, image, drawn("1122", "1122"), np.zeros((2, 4), np.int32), boxes(), CLASSES)
    (tmp_path / "panoptic/000000000001.png").unlink()
    with pytest.raises(UserError, match="panoptic/000000000001.png: an RGB PNG"):
        read_maps(tmp_path, image, CLASSES)


def test_dog_and_cat_are_told_apart_where_their_boxes_meet(stored):
    """Boxes of two classes over each other: the smaller on top, the rest of both disputed and open to stuff."""
    rows = [annotation(1, 2, [0, 0, 8, 4]), annotation(2, 7, [5, 1, 3, 2])]
    maps, instances = cue_maps(image_entry(HEIGHT, WIDTH), rows, CATEGORIES, CLASSES, stored / "boxes",
                               stored / "stuff", SETTINGS)
    assert (maps["labels"][1:3, 6:] == DOG).all() and (instances[1:3, 6:] == 2).all()
    assert (maps["labels"][1:3, 1:3] == CAT).all() and (maps["labels"][0] == SKY).all()
