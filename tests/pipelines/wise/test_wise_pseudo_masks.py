"""Candidates without decoding, the background, drawing in proportion to objectness, pairs of pixels."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.wise.pseudo_masks import background_of, contains, draw_pairs, draw_proposal, find_candidates
from stages.labels import rle

SIZE = (12, 16)


def box(top, left, bottom, right, size=SIZE):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


MASKS = [box(0, 0, 6, 6), box(0, 0, 12, 16), box(2, 2, 4, 4), box(6, 10, 12, 16), box(0, 15, 1, 16)]
SCORES = np.array([0.9, 0.8, 0.6, 0.7, 0.5])
RLES = [rle.encode(mask) for mask in MASKS]
POINTS = np.array([[3, 3], [11, 15], [0, 15]])


def test_contains_equals_decoded_masks():
    rng = np.random.default_rng(0)
    masks = [rng.random(SIZE) < 0.4 for _ in range(20)] + [np.zeros(SIZE, bool), np.ones(SIZE, bool)]
    yx = np.array([[0, 0], [11, 15], [0, 15], [11, 0], [5, 7], [5, 7]])
    found = contains([rle.encode(mask) for mask in masks], yx, SIZE)
    assert (found == [[mask[row, column] for mask in masks] for row, column in yx]).all()
    assert contains([], yx, SIZE).shape == (6, 0)
    assert contains(RLES, np.zeros((0, 2), int), SIZE).shape == (0, 5)


def test_proposals_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"proposal 1 has the size \[6, 6\], the image has .* \[12, 16\]"):
        contains([RLES[0], rle.encode(np.ones((6, 6)))], POINTS, SIZE)


def test_candidates():
    found = find_candidates(RLES, SCORES, POINTS, SIZE, 0.5)
    # The limit itself is excluded, so the last proposal is no candidate of the third point.
    assert found.allowed.tolist() == [[True, True, True, False, False], [False, True, False, True, False],
                                      [False, True, False, False, False]]
    assert found.alone.tolist() == [[True, False, True, False, False], [False, False, False, True, False],
                                    [False] * 5]
    assert found.best(0).tolist() == [0] and found.best(0, most=9).tolist() == [0, 1, 2]
    assert found.best(2).tolist() == [1] and found.best(2, alone=True).tolist() == []
    nothing = find_candidates([], np.zeros(0), POINTS, SIZE, 0.5)
    assert nothing.allowed.shape == (3, 0) and nothing.best(0).tolist() == []


def test_two_points_on_one_pixel_share_their_candidates():
    found = find_candidates(RLES, SCORES, np.array([[3, 3], [3, 3]]), SIZE, 0.5)
    assert (found.alone[0] == found.alone[1]).all() and found.alone[0, 0]


def test_background():
    found = find_candidates(RLES, SCORES, POINTS, SIZE, 0.5)
    assert not background_of(RLES, found, POINTS, SIZE, "paper").any()
    best = background_of(RLES, found, POINTS, SIZE, "best", best=10)
    expected = ~(MASKS[0] | MASKS[2] | MASKS[3])
    expected[0, 15] = False  # a point
    assert (best == expected).all()
    # Where too little is left, only the best candidate of each point is cut out.
    masks = [box(0, 0, 6, 6), box(0, 0, 12, 15)]
    scores = np.array([0.9, 0.8])
    one = find_candidates([rle.encode(mask) for mask in masks], scores, POINTS[:1], SIZE, 0)
    cut = [background_of([rle.encode(mask) for mask in masks], one, POINTS[:1], SIZE, "best", 10, least)
           for least in (0.02, 0.1)]
    assert (cut[0] == ~masks[1]).all() and (cut[1] == ~masks[0]).all()
    none = find_candidates(RLES, SCORES, POINTS[:0], SIZE, 0.5)
    assert background_of(RLES, none, POINTS[:0], SIZE, "best").all()


def test_drawn_in_proportion_to_objectness():
    found = find_candidates(RLES, SCORES, POINTS, SIZE, 0.5)
    draws = [draw_proposal(found, 0, np.random.default_rng(seed)) for seed in range(4000)]
    shares = np.bincount(draws, minlength=5) / len(draws)
    assert np.allclose(shares[:3], SCORES[:3] / SCORES[:3].sum(), atol=0.03) and not shares[3:].any()
    assert draw_proposal(found, 0, np.random.default_rng(7)) == draw_proposal(found, 0, np.random.default_rng(7))
    assert draw_proposal(find_candidates(RLES, SCORES, POINTS, SIZE, 0.99), 0, np.random.default_rng(0)) is None
    flat = find_candidates(RLES, np.zeros(5), POINTS, SIZE, -1)
    assert {draw_proposal(flat, 0, np.random.default_rng(seed)) for seed in range(40)} == {0, 1, 2}


def pairs_of(scheme, yx=POINTS[:2], masks=(MASKS[0], MASKS[3]), background=None, seed=0, **settings):
    free = ~(MASKS[0] | MASKS[3]) if background is None else background
    settings = {"pixels": 5, "mean": False, "hard": 7, "hard_below": 12, **settings}
    return draw_pairs(np.asarray(yx), masks, free, np.random.default_rng(seed), scheme=scheme, **settings), free


def places(pairs, numbers):
    return [tuple(pairs.yx[number]) for number in numbers]


def test_pairs_of_the_paper():
    pairs, free = pairs_of("paper")
    owner = np.where(MASKS[0], 0, np.where(MASKS[3], 1, 2))
    first, second = places(pairs, pairs.first), places(pairs, pairs.second)
    # Each of 2 points with 5 pixels of 2 masks and of the background.
    assert len(first) == 2 * 3 * 5 and set(first) == {(3, 3), (11, 15)}
    assert all(same == (owner[a] == owner[b]) for a, b, same in zip(first, second, pairs.same, strict=True))
    assert pairs.same.sum() == 10 and (pairs.weight == 1).all()
    assert len(pairs.seeds) == 0 and len(pairs.hard) == 7 and all(free[place] for place in places(pairs, pairs.hard))
    assert places(pairs, pairs.points) == [(3, 3), (11, 15)]
    # k is the number of objects.
    assert len(pairs_of("paper", pixels=0)[0].first) == 2 * 3 * 2
    other, _ = pairs_of("paper", seed=1)
    again, _ = pairs_of("paper")
    assert np.array_equal(pairs.yx, again.yx) and not np.array_equal(pairs.yx, other.yx)


def test_pairs_as_published():
    pairs, free = pairs_of("published", mean=True, hard_below=2)
    assert len(pairs.seeds) == 2 and len(pairs.hard) == 0
    points, seeds = set(pairs.points), set(pairs.seeds)
    groups = {"own": 0, "others": 0, "background": 0, "seeds": 0}
    weights = dict.fromkeys(groups, 0.0)
    for first, second, same, weight in zip(pairs.first, pairs.second, pairs.same, pairs.weight, strict=True):
        name = ("own" if same else "others") if first in points else "background" if same else "seeds"
        groups[name] += 1
        weights[name] += weight
        if name == "own":
            mask = MASKS[0] if tuple(pairs.yx[first]) == (3, 3) else MASKS[3]
            assert mask[tuple(pairs.yx[second])]
        if name == "background":
            assert first in seeds and free[tuple(pairs.yx[second])]
    assert groups == {"own": 10, "others": 2, "background": 10, "seeds": 4}
    assert weights == pytest.approx(dict.fromkeys(groups, 1.0))  # the mean over the objects of means


@pytest.mark.parametrize("scheme", ["paper", "published"])
def test_pixels_inside_the_own_mask_are_no_negatives(scheme):
    around, _ = pairs_of(scheme, masks=(MASKS[1], MASKS[3]), background=np.zeros(SIZE, bool))
    owner = around.points[0]
    assert around.same[around.first == owner].all()  # the first mask holds everything
    assert not around.same[around.first != owner].all() or scheme == "published"


@pytest.mark.parametrize("scheme", ["paper", "published"])
def test_pairs_of_hardly_anything(scheme):
    none, _ = pairs_of(scheme, yx=np.zeros((0, 2), int), masks=())
    assert len(none.first) == 0 and none.yx.shape == (7, 2)
    lone, _ = pairs_of(scheme, yx=POINTS[:1], masks=(box(3, 3, 4, 4),), background=np.zeros(SIZE, bool))
    assert lone.yx.tolist() == [[3, 3]] and lone.same.all() and len(lone.hard) == 0
    twice, _ = pairs_of(scheme, yx=POINTS[[0, 0]], masks=(MASKS[0], MASKS[0]), mean=True)
    assert np.isfinite(twice.weight).all() and twice.same[twice.first == twice.points[0]].sum() >= 5
