"""Many masks at once, against pycocotools one by one."""

import numpy as np
import pytest

from stages.labels import rle
from stages.proposals import runs
from stages.proposals.segments import Proposals, dice, from_rles, from_sets, read_proposals
from stages.runtime.errors import UserError
from stages.runtime.files import write_npz


def random_masks(size, count, seed=0):
    rng = np.random.default_rng(seed)
    masks = [rng.random(size) < share for share in rng.random(count)]
    masks += [np.zeros(size, bool), np.ones(size, bool), np.eye(*size, dtype=bool), ~np.eye(*size, dtype=bool)]
    blob = np.zeros(size, bool)
    blob[size[0] // 4:, size[1] // 3:] = True
    return [*masks, blob]


def stored(masks):
    return from_rles(masks[0].shape, [rle.encode(mask) for mask in masks], np.linspace(1, 0.1, len(masks)))


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (13, 17), (300, 500)])
def test_packed_as_pycocotools_packs(size):
    masks = random_masks(size, 6 if size[0] < 100 else 2)
    proposals = stored(masks)
    lengths, ends = runs.unpack(proposals.counts, proposals.ends)
    start = 0
    for mask, end in zip(masks, ends, strict=True):
        assert lengths[start:end].tolist() == rle.unpack_counts(rle.encode(mask)["counts"])
        start = end
    text, text_ends = runs.pack(lengths, ends)
    assert np.array_equal(text, proposals.counts)
    assert np.array_equal(text_ends, proposals.ends)


def test_nothing_to_pack():
    none = np.zeros(0, np.int64)
    assert [len(item) for item in (*runs.pack(none, none), *runs.unpack(none.astype(np.uint8), none))] == [0] * 4


def test_sets_of_regions():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 9, (21, 14))
    members = rng.random((12, 9)) < 0.4
    members[0], members[1] = True, False
    proposals = from_sets(labels, members, np.linspace(1, 0, 12))
    for index, row in enumerate(members):
        assert proposals.rle(index) == rle.encode(row[labels])


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (13, 17), (60, 45)])
def test_questions_equal_brute_force(size):
    masks = np.stack(random_masks(size, 7, seed=3))
    proposals = stored(list(masks))
    other = np.random.default_rng(4).random(size) < 0.5
    assert np.array_equal(proposals.masks(range(len(masks))), masks)
    assert proposals.areas.tolist() == masks.sum((1, 2)).tolist()
    assert proposals.intersections(other).tolist() == (masks & other).sum((1, 2)).tolist()
    union = np.maximum((masks | other).sum((1, 2)), 1)
    assert np.allclose(proposals.jaccards(other), (masks & other).sum((1, 2)) / union)
    boxes = [rle.bbox(rle.encode(mask)) for mask in masks]
    assert proposals.boxes.tolist() == [[x, y, x + w, y + h] for x, y, w, h in boxes]
    points = [(x, y) for x in range(size[1]) for y in range(size[0])]
    inside = proposals.containing(points)
    assert np.array_equal(inside, np.array([[mask[y, x] for x, y in points] for mask in masks]))


def test_points_between_pixels_and_outside():
    mask = np.zeros((4, 5), bool)
    mask[0, 0] = mask[2, 3] = mask[3, 4] = True
    proposals = stored([mask])
    points = [(3.4, 1.6), (3.6, 2), (-0.5, -0.5), (-3, 0), (99, 99), (2.5, 2.4)]
    assert proposals.containing(points).tolist() == [[True, False, True, True, True, True]]
    assert proposals.containing(np.zeros((0, 2))).shape == (1, 0)


@pytest.mark.parametrize("box", [[2, 1, 9, 7], [0, 0, 17, 13], [-4, 3, 30, 5], [2.3, 1.2, 9.8, 6.6], [5, 5, 5, 5]])
def test_boxes_equal_brute_force(box):
    masks = np.stack(random_masks((13, 17), 6, seed=5))
    proposals = stored(list(masks))
    y, x = np.indices((13, 17)) + 0.5
    filled = (x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])
    expected = (masks & filled).sum((1, 2)) / np.maximum((masks | filled).sum((1, 2)), 1)
    assert np.allclose(proposals.box_jaccards(box), expected)
    x0, y0, x1, y1 = np.clip(box, 0, [17, 13, 17, 13])
    for found, (a0, b0, a1, b1) in zip(proposals.box_jaccards(box, filled=False), proposals.boxes, strict=True):
        both = max(0, min(a1, x1) - max(a0, x0)) * max(0, min(b1, y1) - max(b0, y0))
        union = (a1 - a0) * (b1 - b0) + (x1 - x0) * (y1 - y0) - both
        assert found == pytest.approx(both / union if union else 0)


def test_best_proposal():
    masks = random_masks((13, 17), 6, seed=6)
    proposals = stored([*masks, masks[2]])  # the same mask again, with a lower score
    assert proposals.best(masks[2]) == (2, 1.0)
    index, value = proposals.best(masks[2], among=[5, 0, 3])
    overlaps = [(masks[2] & masks[i]).sum() / (masks[2] | masks[i]).sum() for i in (0, 3, 5)]
    assert (index, value) == ((0, 3, 5)[int(np.argmax(overlaps))], pytest.approx(max(overlaps)))
    assert proposals.best(masks[2], among=[]) is None


def test_file_and_back(tmp_path):
    proposals = stored(random_masks((13, 17), 3))
    image = {"id": 7, "width": 17, "height": 13}
    write_npz(tmp_path / "000000000007.npz", **proposals.arrays())
    found = read_proposals(tmp_path, image)
    assert [found.rle(index) for index in range(len(found))] == [proposals.rle(index) for index in range(len(found))]
    assert np.array_equal(found.scores, proposals.scores)
    assert found.size == (13, 17)
    with pytest.raises(UserError, match="17 x 13 px, image 7 has 13 x 17"):
        read_proposals(tmp_path, {"id": 7, "width": 13, "height": 17})
    with pytest.raises(UserError, match="no such file"):
        read_proposals(tmp_path, {**image, "id": 8})
    write_npz(tmp_path / "000000000009.npz", scores=np.zeros(2))
    with pytest.raises(UserError, match="counts, ends, size"):
        read_proposals(tmp_path, {**image, "id": 9})


def test_no_proposals():
    none = from_rles((4, 6), [], [])
    assert isinstance(none, Proposals)
    assert len(none) == 0
    assert none.containing([(1, 1)]).shape == (0, 1)
    assert none.jaccards(np.ones((4, 6), bool)).shape == none.areas.shape == (0,)
    assert none.box_jaccards([0, 0, 3, 3]).shape == none.box_jaccards([0, 0, 3, 3], filled=False).shape == (0,)
    assert none.masks([]).shape == (0, 4, 6)
    assert none.best(np.ones((4, 6), bool)) is None


def test_scores_descend():
    masks = random_masks((5, 6), 3)[:3]
    proposals = from_rles((5, 6), [rle.encode(mask) for mask in masks], [0.2, 0.9, 0.2])
    assert proposals.scores.tolist() == pytest.approx([0.9, 0.2, 0.2])
    assert [np.array_equal(proposals.mask(i), masks[j]) for i, j in enumerate((1, 0, 2))] == [True] * 3


def test_dice_of_a_jaccard_similarity():
    rng = np.random.default_rng(0)
    mask, other = rng.random((2, 7, 9)) < 0.5
    jaccard = (mask & other).sum() / (mask | other).sum()
    assert dice(jaccard) == pytest.approx(2 * (mask & other).sum() / (mask.sum() + other.sum()))
