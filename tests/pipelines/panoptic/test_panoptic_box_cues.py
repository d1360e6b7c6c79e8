"""Masks of boxes: GrabCut and the best proposal, what becomes of boxes of all kinds, and how masks share an image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from panoptic_scenes import CAT, DOG, annotation, boxes, drawn

from pipelines.panoptic.box_cues import box_cues, paint, source_masks, truth_masks
from pipelines.panoptic.settings import BoxCueSettings, RoundSettings
from stages.cues.simple_masks import grabcut, grabcut_mask
from stages.labels import rle
from stages.proposals.segments import from_rles

SIZE = (60, 80)
SETTINGS = BoxCueSettings()


def bright(*places: tuple[int, int, int, int]) -> np.ndarray:
    """Noise with bright rectangles (x0, y0, x1, y1)."""
    image = np.random.default_rng(0).integers(0, 40, (*SIZE, 3)).astype(np.uint8)
    for x0, y0, x1, y1 in places:
        image[y0:y1, x0:x1, 0] += 180
    return image


def proposals(*masks: np.ndarray):
    return from_rles(SIZE, [rle.encode(mask) for mask in masks], [1 - 0.1 * place for place in range(len(masks))])


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def masks_of(cues, given, source):
    return source_masks(cues, given, SIZE, source)


def test_agreement_is_what_both_say():
    found = bright((20, 10, 40, 30))
    given = boxes((18, 8, 44, 34, CAT))
    cues = box_cues(found, given, proposals(rectangle(0, 0, 80, 60), rectangle(22, 8, 46, 34)), SETTINGS)
    cut, = masks_of(cues, given, "grabcut")
    chosen, = masks_of(cues, given, "proposal")
    assert (cut & rectangle(20, 10, 40, 30)).sum() / (cut | rectangle(20, 10, 40, 30)).sum() > 0.95
    assert np.array_equal(chosen, rectangle(22, 8, 44, 34)), "the best IoU, not the best score; and no pixel outside"
    assert cues["overlap"][0] == pytest.approx(22 * 26 / (24 * 26 + 26 * 26 - 22 * 26))
    both, = masks_of(cues, given, "agreement")
    assert np.array_equal(both, cut & chosen)
    filled, = masks_of(cues, given, "box")
    assert np.array_equal(filled, rectangle(18, 8, 44, 34))


def test_the_box_of_a_proposal_may_be_what_fits():
    """A thin diagonal fills little of the box that it spans."""
    thin = np.zeros(SIZE, bool)
    thin[np.arange(10, 30), np.arange(20, 40)] = True
    given = boxes((20, 10, 40, 30, CAT))
    for overlap, wanted in (("mask", rectangle(20, 10, 40, 22)), ("box", thin)):
        cues = box_cues(bright((20, 10, 40, 30)), given, proposals(rectangle(20, 10, 40, 22), thin),
                        BoxCueSettings(overlap=overlap))
        assert np.array_equal(masks_of(cues, given, "proposal")[0], wanted)


@pytest.mark.parametrize("box", [(0, 0, 80, 60), (30, 20, 31, 21), (79.2, 59.1, 80, 60), (0, 0, 2, 1)])
def test_boxes_without_anything_to_learn_from_lose_their_object(box):
    """A box of the whole image has no background, one of a pixel or two no foreground."""
    given = boxes((*box, CAT))
    cues = box_cues(bright((20, 10, 40, 30)), given, proposals(rectangle(0, 0, 80, 60)), SETTINGS)
    assert masks_of(cues, given, "grabcut") == [None]
    assert masks_of(cues, given, "proposal")[0] is not None
    assert masks_of(cues, given, "agreement") == [None]
    labels = paint(given, masks_of(cues, given, "agreement"), SIZE)
    inside = given.mask(0, SIZE)
    assert inside.any() and (labels[inside] == -1).all() and (labels[~inside] == 0).all(), "all of the box is ignored"


def test_grabcut_that_finds_nothing(monkeypatch):
    """GrabCut says background everywhere: it is lost, the caller decides; the baseline takes the box."""
    monkeypatch.setattr(cv2, "grabCut", lambda image, labels, *rest: labels.fill(cv2.GC_PR_BGD))
    image = bright((20, 10, 40, 30))
    assert grabcut(image, (18, 8, 44, 34)) is None
    assert np.array_equal(grabcut_mask(image, (18, 8, 44, 34)), rectangle(18, 8, 44, 34))


def test_no_proposal_touches_the_box():
    given = boxes((18, 8, 44, 34, CAT))
    for known in (proposals(), proposals(rectangle(70, 50, 80, 60))):
        cues = box_cues(bright((20, 10, 40, 30)), given, known, SETTINGS)
        assert masks_of(cues, given, "proposal") == masks_of(cues, given, "agreement") == [None]
        assert cues["overlap"][0] == 0


def test_images_without_boxes_and_crowds():
    cues = box_cues(bright(), boxes(), proposals(rectangle(0, 0, 9, 9)), SETTINGS)
    assert cues["grabcut"].shape == cues["proposal"].shape == (0, 60, 10)
    assert masks_of(cues, boxes(), "agreement") == []
    assert (paint(boxes(), [], SIZE) == 0).all()
    crowd = boxes((18, 8, 44, 34, CAT), crowd=[0])
    cues = box_cues(bright((20, 10, 40, 30)), crowd, proposals(rectangle(18, 8, 44, 34)), SETTINGS)
    for source in ("agreement", "grabcut", "proposal", "box"):
        assert masks_of(cues, crowd, source) == [None]


def test_what_grabcut_looks_at_is_bounded(monkeypatch):
    """Its time goes with the area of the part that it sees: never more than longest x longest px."""
    sizes = []
    real = cv2.grabCut
    monkeypatch.setattr(cv2, "grabCut", lambda image, *rest: (sizes.append(image.shape), real(image, *rest))[1])
    image = np.random.default_rng(0).integers(0, 255, (1500, 2000, 3)).astype(np.uint8)
    for box in ((100, 100, 1900, 1400), (10, 10, 1990, 60), (900, 700, 1000, 800)):
        grabcut(image, box, longest=64)
    assert len(sizes) == 3 and max(max(size[:2]) for size in sizes) == 64


def test_smaller_boxes_are_on_top_and_the_rest_of_all_boxes_is_disputed():
    size = (4, 6)
    given = boxes((1, 0, 3, 2, DOG), (0, 0, 6, 3, CAT), (4, 1, 6, 3, CAT), crowd=[2])
    dog, cat = np.zeros((2, *size), bool)
    dog[0, 1:3] = True
    cat[0:2, 0:4] = True
    assert np.array_equal(paint(given, [dog, cat, None], size), drawn("1331..", "1111..", "......", "000000"))
    assert np.array_equal(paint(given, [None, None, None], size), drawn("......", "......", "......", "000000"))


def test_many_boxes_of_many_classes_on_one_place():
    """Boxes in boxes: every pixel has one label, that of the smallest box whose mask holds it."""
    rows = [(index, index, 40 - index, 40 - index, CAT if index % 2 else DOG) for index in range(18)]
    given = boxes(*rows)
    labels = paint(given, [given.mask(index, (40, 40)) for index in range(18)], (40, 40))
    for index in range(18):
        assert labels[index, 20] == (CAT if index % 2 else DOG)
    assert (labels > 0).all()


def test_a_drawn_mask_counts_before_all_cues():
    given = boxes((18, 8, 44, 34, CAT), (50, 40, 60, 50, DOG))
    cues = box_cues(bright((20, 10, 40, 30)), given, proposals(rectangle(18, 8, 44, 34)), SETTINGS)
    mask = rectangle(25, 15, 30, 20)
    found = source_masks(cues, given, SIZE, "agreement", [annotation(100, 2, mask=mask)])
    assert np.array_equal(found[0], mask) and found[1] is None


@pytest.mark.parametrize(("below", "alone"), [(0.0, False), (0.25, False), (0.26, True)])
def test_the_proposal_alone_where_little_agrees(below, alone):
    """GrabCut keeps a quarter of the box, the proposal all of it: what agrees is a quarter."""
    given = boxes((20, 10, 40, 30, CAT), (50, 40, 60, 50, DOG), crowd=[1])
    cues = {"grabcut": np.packbits(np.stack([rectangle(20, 10, 30, 20), rectangle(50, 40, 60, 50)]), axis=2),
            "proposal": np.packbits(np.stack([rectangle(20, 10, 40, 30), rectangle(50, 40, 60, 50)]), axis=2)}
    found, crowd = truth_masks(cues, given, SIZE, RoundSettings(proposal_below=below))
    assert crowd is None, "a crowd has no mask"
    assert np.array_equal(found, rectangle(20, 10, 40, 30) if alone else rectangle(20, 10, 30, 20))


def test_what_grabcut_lost_is_ignored_or_the_proposal():
    given = boxes((20, 10, 40, 30, CAT), (50, 40, 60, 50, DOG))
    cues = {"grabcut": np.packbits(np.zeros((2, *SIZE), bool), axis=2),
            "proposal": np.packbits(np.stack([rectangle(22, 10, 40, 30), np.zeros(SIZE, bool)]), axis=2)}
    assert truth_masks(cues, given, SIZE, RoundSettings()) == [None, None]
    found = truth_masks(cues, given, SIZE, RoundSettings(proposal_below=0.1))
    assert np.array_equal(found[0], rectangle(22, 10, 40, 30)) and found[1] is None, "no proposal either: ignored"


def test_a_drawn_mask_is_no_cue_that_little_agrees_with():
    given = boxes((20, 10, 40, 30, CAT))
    cues = {name: np.packbits(rectangle(20, 10, 40, 30)[None], axis=2) for name in ("grabcut", "proposal")}
    thin = rectangle(20, 10, 40, 11)
    found, = truth_masks(cues, given, SIZE, RoundSettings(proposal_below=0.5), [annotation(100, 1, mask=thin)])
    assert np.array_equal(found, thin)
