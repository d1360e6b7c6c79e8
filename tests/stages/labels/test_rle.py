"""RLE against pycocotools and hand-drawn masks."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from stages.labels import rle

RING = np.array([[1, 1, 1, 0],
                 [1, 0, 1, 0],
                 [1, 1, 1, 0],
                 [0, 0, 0, 1]], bool)


def test_hand_drawn_mask_comes_back():
    packed = rle.encode(RING)
    assert packed["size"] == [4, 4] and isinstance(packed["counts"], str)
    assert (rle.decode(packed) == RING).all()
    assert rle.area(packed) == 9
    assert rle.bbox(packed) == [0, 0, 4, 4]
    # Column-major runs: none of the background first, then the ring's columns.
    assert rle.unpack_counts(packed["counts"]) == [0, 3, 1, 1, 1, 1, 1, 3, 4, 1]


def test_one_pixel():
    mask = np.zeros((8, 6), np.uint8)
    mask[5, 3] = 255
    packed = rle.encode(mask)
    assert rle.bbox(packed) == [3, 5, 1, 1] and rle.area(packed) == 1
    assert rle.decode(packed).sum() == 1


def test_empty_mask():
    packed = rle.encode(np.zeros((4, 4)))
    assert rle.area(packed) == 0 and rle.bbox(packed) == [0, 0, 0, 0]


def test_only_planes_are_masks():
    with pytest.raises(ValueError, match="shape"):
        rle.encode(np.zeros((1, 4, 4)))


@pytest.mark.parametrize("seed", range(20))
def test_unpacked_counts_are_the_runs(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 700, 2)
    mask = rng.random(shape) < rng.random() ** 3
    if seed % 2:
        mask = np.zeros(shape, bool)
        mask[: shape[0] // 2 + 1, shape[1] // 3:] = True
    flat = mask.flatten(order="F").astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    if flat[0]:
        runs = [0, *runs]
    assert rle.unpack_counts(rle.encode(mask)["counts"]) == runs


def test_the_three_forms_of_a_segmentation():
    height, width = 9, 12
    polygon = [2.0, 1.0, 9.0, 1.0, 9.0, 6.0, 2.0, 6.0]
    from_polygon = rle.from_segmentation([polygon], height, width)
    expected = coco_mask.decode(coco_mask.frPyObjects([polygon], height, width))[..., 0].astype(bool)
    assert (rle.decode(from_polygon) == expected).all()
    flat = RING.flatten(order="F").astype(int)
    runs = [0, *np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), 16]).tolist()]
    assert (rle.decode(rle.from_segmentation({"size": [4, 4], "counts": runs}, 4, 4)) == RING).all()
    assert rle.from_segmentation(rle.encode(RING), 4, 4) == rle.encode(RING)
    assert rle.from_segmentation({"size": [4, 4], "counts": rle.encode(RING)["counts"].encode()}, 4, 4) \
        == rle.encode(RING)


def test_several_polygons_are_one_object():
    parts = [[0, 0, 2, 0, 2, 2, 0, 2], [6, 6, 9, 6, 9, 9, 6, 9]]
    assert rle.area(rle.from_segmentation(parts, 10, 10)) == 4 + 9


def test_polygons_are_cut_at_the_border_and_lines_enclose_nothing():
    assert rle.area(rle.from_segmentation([[-5, -5, 3, -5, 3, 3, -5, 3]], 10, 10)) == 9
    assert rle.area(rle.from_segmentation([[1, 1, 5, 5]], 10, 10)) == 0
    assert rle.area(rle.from_segmentation([[1, 1, 5, 5], [0, 0, 2, 0, 2, 2, 0, 2]], 10, 10)) == 4


@pytest.mark.parametrize(("segmentation", "message"), [
    ("text", "neither polygons nor an RLE"),
    (7, "neither polygons nor an RLE"),
    ([7], "not a list of numbers"),
    ([[1, 2, "x", 4, 5, 6]], "not a list of numbers"),
    ([[1, 2, float("nan"), 4, 5, 6]], "not a list of numbers"),
    ([[1, 2, 3, 4, 5, 6, 7]], "odd number"),
    ({"counts": [16]}, r"RLE size None is not the image's \[height, width\] = \[4, 4\]"),
    ({"size": [4, 5], "counts": [20]}, "RLE size"),
    ({"size": [4, 4], "counts": [3, 2]}, "cover 5 pixels, the image has 4 x 4 = 16"),
    ({"size": [4, 4], "counts": [20, -4]}, "neither a string nor a list"),
    ({"size": [4, 4], "counts": None}, "neither a string nor a list"),
    ({"size": [4, 4], "counts": "0"}, "cover 0 pixels"),
    ({"size": [4, 4], "counts": " "}, "character"),
    ({"size": [4, 4], "counts": "P"}, "end within a number"),
    ({"size": [4, 4], "counts": "PPPPPPPPP0"}, "a number of more than 7 characters"),
    ({"size": [4, 4], "counts": [True] * 16}, "neither a string nor a list"),
    ([[0, 0, 1e9, 0, 1e9, 1e9]], r"corner \(1e\+09, 0\), far outside the image of 4 x 4"),
    ([[0, 0, 3, -5, 3, 3]], r"corner \(3, -5\), far outside"),
    ({}, "RLE size None"),
    (False, "neither polygons nor an RLE"),
])
def test_bad_segmentations(segmentation, message):
    with pytest.raises(ValueError, match=message):
        rle.from_segmentation(segmentation, 4, 4)


@pytest.mark.parametrize("seed", range(20))
def test_masks_are_right_and_spoilt_ones_are_not(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 400, 2).tolist()
    mask = rng.random((height, width)) < rng.random() ** 3
    if seed % 2:
        mask = np.zeros((height, width), bool)
        mask[: height // 2 + 1, width // 3:] = True
    packed = rle.encode(mask)
    assert rle.problem(packed, height, width) is None
    assert "is not the image's" in rle.problem(packed, width + 1, height)
    for _ in range(30):
        counts = list(packed["counts"])
        counts[rng.integers(len(counts))] = chr(rng.integers(40, 120))
        spoilt = "".join(counts)
        try:
            runs = rle.unpack_counts(spoilt)
            right = min(runs, default=0) >= 0 and sum(runs) == height * width
        except ValueError:
            right = False
        assert (rle.problem({**packed, "counts": spoilt}, height, width) is None) == right


@pytest.mark.parametrize(("segmentation", "message"), [
    (None, "not a compressed RLE"), ([[1, 2, 3]], "not a compressed RLE"), ({"size": [4, 4]}, "not a compressed RLE"),
    ({"size": [4, 4], "counts": [16]}, "not a compressed RLE"), ({"size": "44", "counts": "`0"}, "RLE size 44"),
    ({"size": [4, 4], "counts": ""}, "cover 0 pixels"), ({"size": [4, 4], "counts": "`"}, "end within"),
    ({"size": [4, 4], "counts": "P" * 20 + "0"}, "more than 7 characters"),
    ({"size": [4, 4], "counts": "é"}, "characters that an RLE has not"),
    ({"size": [4, 4], "counts": "0O"}, "a run below 0"), ({"size": [4, 4], "counts": "4"}, "cover 4 pixels"),
])
def test_what_is_wrong_with_a_mask(segmentation, message):
    assert message in rle.problem(segmentation, 4, 4)


def test_images_too_large_for_pycocotools():
    message = "100000 x 100000 pixels is too large for an RLE"
    assert message in rle.problem({"size": [100_000, 100_000], "counts": "0"}, 100_000, 100_000)
    with pytest.raises(ValueError, match=message):
        rle.from_segmentation({"size": [100_000, 100_000], "counts": [10**10]}, 100_000, 100_000)
