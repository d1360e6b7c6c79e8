"""Labels of a drawn image by every row of table 1."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipelines.wise.masks import count_error, image_labels, label_details
from pipelines.wise.pseudo_masks import disc
from pipelines.wise.settings import SynthesisSettings, WiseSettings
from stages.labels import rle
from stages.proposals.segments import from_rles
from stages.runtime.errors import UserError
from stages.runtime.files import write_npz

IMAGE = {"id": 7, "width": 12, "height": 10, "file_name": "7.png"}
KEY = "000000000007"


def box(top, left, bottom, right):
    mask = np.zeros((10, 12), bool)
    mask[top:bottom, left:right] = True
    return mask


PROPOSALS = [(box(0, 0, 5, 6), 0.9), (box(0, 0, 5, 5), 0.6), (box(0, 0, 10, 12), 0.95), (box(6, 6, 8, 9), 0.4)]
BLOB, OTHER = box(1, 1, 3, 3), box(6, 7, 7, 9)


def write_proposals(folder, proposals, size=(10, 12)):
    found = from_rles(size, [rle.encode(mask) for mask, _ in proposals], [score for _, score in proposals])
    write_npz(folder / f"{KEY}.npz", **found.arrays())


@pytest.fixture
def folders(tmp_path):
    """Two annotated points, 3 and 5, and a third on the pixel of the first; L-Net finds blobs of the first two."""
    points, proposals, maps = (tmp_path / name for name in ("points", "proposals", "maps"))
    for folder in (points, proposals):
        folder.mkdir()
    (points / f"{KEY}.json").write_text(json.dumps({
        "points": [[2, 2], [7.6, 6], [2, 2]], "category_ids": [3, 5, 5], "weak_ids": [11, 12, 13],
        "scores": [1, 1, 1]}))
    write_proposals(proposals, PROPOSALS)
    groups = np.full((10, 12), -1, np.int16)
    groups[box(0, 0, 4, 5)], groups[box(6, 6, 8, 10)] = 0, 1
    write_npz(maps / f"{KEY}.npz", lnet_yx=np.array([[2, 1], [6, 7]]), lnet_categories=np.array([3, 5]),
              lnet_scores=np.array([0.7, 0.8], np.float32), blobs=(BLOB + 2 * OTHER.astype(int)).astype(np.uint16),
              groups_given=groups, likeness_given=np.array([0.5, 0.25, 0], np.float32), groups_lnet=groups,
              likeness_lnet=np.array([0.5, 0.25], np.float32))
    return {"points": points, "proposals": proposals, "maps": maps}


def labels(folders, source="given", **synthesis):
    rows = image_labels(IMAGE, source=source, settings=WiseSettings(synthesis=SynthesisSettings(**synthesis)),
                        **folders)
    assert [row["image_id"] for row in rows] == [7] * len(rows)
    return rows, [rle.decode(row["segmentation"]) for row in rows]


def test_wise(folders):
    rows, masks = labels(folders)
    assert [row["category_id"] for row in rows] == [3, 5, 5] and [row["weak_id"] for row in rows] == [11, 12, 13]
    # The proposal that fits the group, and not the one of highest objectness; its score is their Dice.
    assert (masks[0] == box(0, 0, 5, 5)).all() and rows[0]["score"] == pytest.approx(2 * 20 / 45)
    # The whole image is the only candidate of the second: the small proposal is below the limit.
    assert masks[1].all() and rows[1]["score"] == pytest.approx(2 * 8 / 128)
    # A point on a pixel that is taken has that pixel.
    assert (masks[2] == box(0, 0, 5, 5)).all() and [row["replaced"] for row in rows] == [1, 1, 1]
    # Where it started from, and how many proposals above the limit hold that.
    assert [row["point"] for row in rows] == [[2, 2], [7.6, 6], [2, 2]]
    assert [row["candidates"] for row in rows] == [3, 1, 3]


def test_objectness_may_have_a_say(folders):
    # Jaccard 20 / 25 at .6, 20 / 30 at .9, 20 / 120 at .95: a little of the objectness makes the second the best.
    for power, expected in ((0, box(0, 0, 5, 5)), (1, box(0, 0, 5, 6)), (60, np.ones((10, 12), bool))):
        rows, masks = labels(folders, objectness=power)
        assert (masks[0] == expected).all(), power
        jaccard = 20 / expected.sum()
        assert rows[0]["score"] == pytest.approx(2 * jaccard / (1 + jaccard))


def test_a_disc_may_have_a_say(folders):
    # The disc of 9 pixels around (2, 2) lies in the first three: Jaccard 20 / 25 x 9 / 25 against 20 / 30 x 9 / 30, and
    # with their objectness .6 x .36 x .8 against .9 x .3 x .67: the disc decides where the objectness is weak.
    for powers, expected in (((1, 0), box(0, 0, 5, 6)), ((1, 1), box(0, 0, 5, 6)), ((1, 2), box(0, 0, 5, 5)),
                             ((0, 1), box(0, 0, 5, 5))):
        rows, masks = labels(folders, objectness=powers[0], disc_power=powers[1], disc_area=9.5 / 120)
        assert (masks[0] == expected).all(), powers
        assert rows[0]["score"] == pytest.approx(2 * 20 / (20 + expected.sum()))


def test_groups_as_they_are_and_proposals_of_one_point_alone(folders):
    rows, masks = labels(folders, replace=False)
    assert (masks[0] == box(0, 0, 4, 5)).all() and (masks[1] == box(6, 6, 8, 10)).all()
    assert masks[2].sum() == 1 and masks[2][2, 2]
    assert [row["score"] for row in rows] == [0.5, 0.25, 0] and not any(row["replaced"] for row in rows)
    _, masks = labels(folders, masks="best_proposal")
    assert masks[0].all() and masks[1].all()
    rows, masks = labels(folders, masks="best_proposal", alone=True)
    assert (masks[0] == box(0, 0, 5, 6)).all() and rows[0]["score"] == pytest.approx(0.9)
    assert masks[1].all()  # none is alone, so the best of all


def test_points_of_l_net(folders):
    rows, masks = labels(folders, "lnet", masks="blobs")
    assert (masks[0] == BLOB).all() and (masks[1] == OTHER).all()
    assert [row["score"] for row in rows] == pytest.approx([0.7, 0.8]) and "weak_id" not in rows[0]
    rows, masks = labels(folders, "lnet")
    assert (masks[0] == box(0, 0, 5, 5)).all() and len(rows) == 2


def test_blobs_of_annotated_points(folders):
    rows, masks = labels(folders, masks="blobs")
    assert (masks[0] == BLOB).all() and rows[0]["score"] == pytest.approx(0.7)
    # The second lies in its blob, too; the third in a blob of another class, so it has its own pixel.
    assert (masks[1] == OTHER).all() and masks[2].sum() == 1 and rows[2]["score"] == 0


def test_discs(folders):
    rows, masks = labels(folders, masks="disc", disc_area=13 / 120, replace=False)
    y, x = np.mgrid[:10, :12]
    for mask, (cy, cx) in zip(masks, ((2, 2), (6, 8), (2, 2)), strict=True):
        assert (mask == ((y - cy) ** 2 + (x - cx) ** 2 <= 13 / np.pi)).all() and mask.sum() == 13
    assert [(row["score"], row["replaced"]) for row in rows] == [(1, 0)] * 3
    # The way from (2, 2) to (6, 8) is the root of 52: a radius of 2.16. The third point, on the first's pixel, is none.
    _, masks = labels(folders, masks="disc", disc_area=1, disc_cap=0.3, replace=False)
    assert [mask.sum() for mask in masks] == [13, 13, 13]
    _, masks = labels(folders, masks="disc", disc_area=1, replace=False)
    assert (masks[1] == ((y - 6) ** 2 + (x - 8) ** 2 <= 120 / np.pi)).all()
    # As a grouped mask it may be replaced: the 18 pixels in 25 of the second proposal make the best Jaccard.
    rows, masks = labels(folders, masks="disc", disc_area=21 / 120)
    assert (masks[0] == box(0, 0, 5, 5)).all() and rows[0]["replaced"] == 1
    assert disc(np.array([[0, 0]]), 0, (3, 3), 1e-6, 0.6).tolist() == [[True, False, False], [False] * 3, [False] * 3]


def test_a_point_that_no_proposal_contains(folders):
    write_proposals(folders["proposals"], [])
    rows, masks = labels(folders)
    assert (masks[0] == box(0, 0, 4, 5)).all() and rows[0]["score"] == 0.5 and rows[0]["replaced"] == 0
    rows, masks = labels(folders, masks="best_proposal")
    assert (masks[0] == BLOB).all() and rows[0]["replaced"] == 0


def test_proposals_of_another_image_size(folders):
    write_proposals(folders["proposals"], [(np.ones((9, 12)), 1)], (9, 12))
    with pytest.raises(UserError, match=r"proposals of an image of 12 x 9 px, image 7 has 12 x 10"):
        labels(folders)


def test_an_image_without_points(folders):
    (folders["points"] / f"{KEY}.json").write_text(json.dumps(
        {"points": [], "category_ids": [], "weak_ids": [], "scores": []}))
    assert labels(folders) == ([], [])


def test_what_is_said_of_the_labels():
    rows = [{"image_id": 1, "replaced": 1, "candidates": 4}, {"image_id": 1, "replaced": 0, "candidates": 0},
            {"image_id": 3, "replaced": 0, "candidates": 2}]
    assert label_details(rows, [{"id": 1}, {"id": 2}, {"id": 3}]) == {"replaced": 33.33, "no_proposal": 1,
                                                                      "no_points": 1}
    assert label_details([], [{"id": 1}]) == {"replaced": 0, "no_proposal": 0, "no_points": 1}


def test_count_error():
    assert count_error([1, 0, 4], [1, 2, 3]) == 1
    assert count_error([], []) == 0
