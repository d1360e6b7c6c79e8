"""Any segmentation: the mask that an independent decoder finds, or one sentence."""

from hypothesis import example, given
from hypothesis import strategies as st

from stages.labels import rle
from tests.fuzz import oracles
from tests.fuzz.strategies import small, values

sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))
counts = st.one_of(st.text(st.characters(min_codepoint=46, max_codepoint=113), max_size=8),
                   st.lists(st.integers(0, 20), max_size=12), values)
polygons = st.lists(st.lists(st.floats(-15, 30), max_size=12), max_size=3)


@st.composite
def segmentations(draw):
    height, width = draw(sizes)
    if draw(st.booleans()):
        return draw(st.one_of(polygons, values)), height, width
    runs = draw(st.lists(st.integers(0, 9), min_size=1, max_size=12))
    left = height * width - sum(runs)
    size = draw(st.one_of(st.just([height, width]), st.just([height, width]), values))
    return {"size": size, "counts": draw(st.one_of(st.just([*runs, left]), counts))}, height, width


@small(120)
@given(segmentations())
@example(({"size": [4, 4], "counts": [3, 0, 4, 0, 9]}, 4, 4))
@example(({"size": [4, 4], "counts": [0, 0, 0, 16]}, 4, 4))
@example(([[0, 0, 10**400, 0, 3, 3]], 4, 4))
def test_a_right_mask_or_a_sentence(case):
    segmentation, height, width = case
    try:
        found = rle.from_segmentation(segmentation, height, width)
    except ValueError as error:
        assert str(error)
    else:
        mask = oracles.mask_of(segmentation, height, width)
        assert (rle.decode(found) == mask).all() and rle.problem(found, height, width) is None
        assert (rle.area(found), rle.bbox(found)) == (mask.sum(), oracles.box_of(mask))
        assert (rle.decode(rle.union([found, found])) == mask).all()


@small(120)
@given(segmentations())
def test_what_has_no_problem_is_a_mask(case):
    segmentation, height, width = case
    if rle.problem(segmentation, height, width) is None:
        mask = oracles.mask_of(segmentation, height, width)
        assert (rle.decode(segmentation) == mask).all() and rle.bbox(segmentation) == oracles.box_of(mask)


def test_empty_runs_are_joined():
    # pycocotools ends a union at an empty run, and counts its column into the box.
    found = rle.from_segmentation({"size": [4, 4], "counts": [3, 0, 4, 0, 1, 2, 0, 6]}, 4, 4)
    assert rle.unpack_counts(found["counts"]) == [8, 8]
    assert rle.unpack_counts(rle.from_segmentation({"size": [2, 2], "counts": [0, 0, 0, 4]}, 2, 2)["counts"]) == [0, 4]
    assert rle.joined([0, 0, 120]) == [120]
    packed = {"size": [2, 2], "counts": "1010"}  # 1, 0, 1, then 0 more than the number two places before
    assert rle.unpack_counts(packed["counts"])[1] == 0
    assert "empty run" in rle.problem({"size": [1, 2], "counts": "101"}, 1, 2)
