"""Candidates without decoding, the background, drawing in proportion to objectness, pairs of pixels."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.wise.given import candidates_of
from pipelines.wise.pseudo_masks import background_of, draw_pairs, draw_proposal, find_candidates, like_discs
from pipelines.wise.settings import CueSettings, DiscSettings
from stages.labels import rle
from stages.proposals.segments import Proposals, from_rles

SIZE = (12, 16)


def box(top, left, bottom, right, size=SIZE):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


MASKS = [box(0, 0, 6, 6), box(0, 0, 12, 16), box(6, 10, 12, 16), box(2, 2, 4, 4), box(0, 15, 1, 16)]
SCORES = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
POINTS = np.array([[3, 3], [11, 15], [0, 15]])


def proposals_of(masks=MASKS, scores=SCORES) -> Proposals:
    return from_rles(SIZE, [rle.encode(mask) for mask in masks], scores)


def test_candidates():
    found = find_candidates(proposals_of(), POINTS, 0.5)
    # The limit itself is excluded, so the last proposal is no candidate of the third point.
    assert found.allowed.tolist() == [[True, True, False, True, False], [False, True, True, False, False],
                                      [False, True, False, False, False]]
    assert found.alone.tolist() == [[True, False, False, True, False], [False, False, True, False, False],
                                    [False] * 5]
    assert found.best(0).tolist() == [0] and found.best(0, most=9).tolist() == [0, 1, 3]
    assert found.best(2).tolist() == [1] and found.best(2, alone=True).tolist() == []
    nothing = find_candidates(proposals_of([], []), POINTS, 0.5)
    assert nothing.allowed.shape == (3, 0) and nothing.best(0).tolist() == []
    assert find_candidates(proposals_of(), POINTS[:0], 0.5).allowed.shape == (0, 5)


def test_two_points_on_one_pixel_share_their_candidates():
    found = find_candidates(proposals_of(), np.array([[3, 3], [3, 3]]), 0.5)
    assert (found.alone[0] == found.alone[1]).all() and found.alone[0, 0]


def test_background():
    proposals = proposals_of()
    found = find_candidates(proposals, POINTS, 0.5)
    assert not background_of(proposals, found, POINTS, "paper").any()
    best = background_of(proposals, found, POINTS, "best", best=10)
    expected = ~(MASKS[0] | MASKS[2])
    expected[0, 15] = False  # a point
    assert (best == expected).all()
    # Where too little is left, only the best candidate of each point is cut out.
    masks = [box(0, 0, 6, 6), box(0, 0, 12, 15)]
    pair = proposals_of(masks, [0.9, 0.8])
    one = find_candidates(pair, POINTS[:1], 0)
    cut = [background_of(pair, one, POINTS[:1], "best", 10, least) for least in (0.02, 0.1)]
    assert (cut[0] == ~masks[1]).all() and (cut[1] == ~masks[0]).all()
    none = find_candidates(proposals, POINTS[:0], 0.5)
    assert background_of(proposals, none, POINTS[:0], "best").all()
    empty = proposals_of([], [])
    assert background_of(empty, find_candidates(empty, POINTS, 0), POINTS, "paper").sum() == 12 * 16 - 3


def test_drawn_in_proportion_to_objectness():
    found = find_candidates(proposals_of(), POINTS, 0.5)
    draws = [draw_proposal(found, 0, np.random.default_rng(seed)) for seed in range(4000)]
    shares = np.bincount(draws, minlength=5) / len(draws)
    expected = np.array([0.9, 0.8, 0, 0.6, 0]) / 2.3
    assert np.allclose(shares, expected, atol=0.03) and (shares[expected == 0] == 0).all()
    assert draw_proposal(found, 0, np.random.default_rng(7)) == draw_proposal(found, 0, np.random.default_rng(7))
    assert draw_proposal(find_candidates(proposals_of(), POINTS, 0.99), 0, np.random.default_rng(0)) is None
    alone = [draw_proposal(found, 0, np.random.default_rng(seed), alone=True) for seed in range(1000)]
    assert set(alone) == {0, 3} and np.mean(np.array(alone) == 0) == pytest.approx(0.9 / 1.5, abs=0.05)
    assert draw_proposal(found, 2, np.random.default_rng(0), alone=True) == 1  # none is alone
    sharp = [draw_proposal(found, 0, np.random.default_rng(seed), power=4) for seed in range(1000)]
    assert np.mean(np.array(sharp) == 0) == pytest.approx(0.9**4 / (0.9**4 + 0.8**4 + 0.6**4), abs=0.05)
    flat = find_candidates(proposals_of(scores=np.zeros(5)), POINTS, -1)
    assert {draw_proposal(flat, 0, np.random.default_rng(seed)) for seed in range(40)} == {0, 1, 3}


def test_a_disc_may_have_a_say():
    proposals = proposals_of()
    found = find_candidates(proposals, POINTS, 0.5)
    liked = like_discs(found, proposals, POINTS, 3, 50 / 192, 0.15)
    # (3, 3) to (0, 15), the nearest: 0.15 of the way is 1.9, less than the radius of 50 pixels.
    y, x = np.mgrid[:12, :16]
    around = (y - 3) ** 2 + (x - 3) ** 2 <= 0.15**2 * (3**2 + 12**2)
    jaccards = np.array([(mask & around).sum() / (mask | around).sum() for mask in MASKS])
    assert liked.weights[0] == pytest.approx(SCORES * jaccards**3)
    assert (liked.allowed == found.allowed).all() and (liked.alone == found.alone).all()
    assert found.best(0, most=3).tolist() == [0, 1, 3] and liked.best(0, most=3).tolist() == [3, 0, 1]
    draws = np.array([draw_proposal(liked, 0, np.random.default_rng(seed), power=0.5) for seed in range(1000)])
    expected = (SCORES * jaccards**3)[[0, 1, 3]] ** 0.5
    assert np.bincount(draws, minlength=4)[[0, 1, 3]] / 1000 == pytest.approx(expected / expected.sum(), abs=0.05)
    assert like_discs(find_candidates(proposals, POINTS[:0], 0.5), proposals, POINTS[:0], 3, 0.1, 0.6).weights.size == 0
    off = candidates_of(proposals, POINTS, CueSettings(objectness=0.5)).weights
    on = candidates_of(proposals, POINTS, CueSettings(objectness=0.5, disc=DiscSettings(power=1, area=0.1, cap=0)))
    assert (off == SCORES.astype(np.float32)).all() and on.weights[2].argmax() != off[2].argmax()


def pairs_of(scheme, yx=POINTS[:2], masks=(MASKS[0], MASKS[2]), background=None, seed=0, **settings):
    free = ~(MASKS[0] | MASKS[2]) if background is None else background
    settings = {"pixels": 5, "mean": False, "hard": 7, "hard_below": 12, **settings}
    return draw_pairs(np.asarray(yx), masks, free, np.random.default_rng(seed), scheme=scheme, **settings), free


def places(pairs, numbers):
    return [tuple(pairs.yx[number]) for number in numbers]


def test_pairs_of_the_paper():
    pairs, free = pairs_of("paper")
    owner = np.where(MASKS[0], 0, np.where(MASKS[2], 1, 2))
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
            mask = MASKS[0] if tuple(pairs.yx[first]) == (3, 3) else MASKS[2]
            assert mask[tuple(pairs.yx[second])]
        if name == "background":
            assert first in seeds and free[tuple(pairs.yx[second])]
    assert groups == {"own": 10, "others": 2, "background": 10, "seeds": 4}
    assert weights == pytest.approx(dict.fromkeys(groups, 1.0))  # the mean over the objects of means


@pytest.mark.parametrize("scheme", ["paper", "published"])
def test_pixels_inside_the_own_mask_are_no_negatives(scheme):
    around, _ = pairs_of(scheme, masks=(MASKS[1], MASKS[2]), background=np.zeros(SIZE, bool))
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
