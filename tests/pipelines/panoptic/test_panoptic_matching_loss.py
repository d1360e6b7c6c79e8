"""Matching against all permutations, and the loss against a count pixel by pixel."""

import itertools

import numpy as np
import pytest
import torch

from pipelines.panoptic.matching_loss import Truth, match_segments, matching_loss

IGNORE = -1


def match(predicted, label_classes, segments, classes, own=None):
    arrays = (np.array(array) for array in (predicted, label_classes, segments, classes))
    own = [IGNORE] * len(classes) if own is None else own
    return match_segments(*arrays, np.array(own, np.int64)).tolist()


def iou(predicted, segments, label, segment):
    known = segments != IGNORE
    first, second = (predicted == label) & known, segments == segment
    return (first & second).sum() / max(1, (first | second).sum())


@pytest.mark.parametrize("seed", range(30))
def test_sum_of_ious_is_the_largest_of_all_permutations(seed):
    rng = np.random.default_rng(seed)
    labels, count = rng.integers(1, 6, 2)
    label_classes, classes = rng.integers(0, 2, labels), rng.integers(0, 2, count)
    predicted = rng.integers(0, labels, (8, 9))
    segments = np.where(rng.random((8, 9)) < 0.5, predicted % count, rng.integers(-1, count, (8, 9)))
    table = np.array([[iou(predicted, segments, k, t) * (label_classes[k] == classes[t]) for k in range(labels)]
                      for t in range(count)])
    choices = [*range(labels), *[None] * count]
    best = max(sum(table[t, k] for t, k in enumerate(chosen) if k is not None)
               for chosen in set(itertools.permutations(choices, int(count))))
    partner = match(predicted, label_classes, segments, classes)
    paired = [(t, k) for t, k in enumerate(partner) if k != IGNORE]
    assert len({k for _, k in paired}) == len(paired)
    assert all(table[t, k] > 0 for t, k in paired)
    assert sum(table[t, k] for t, k in paired) == pytest.approx(best)


def test_instances_of_a_class_are_exchanged_but_classes_are_not():
    predicted = [[0, 0, 1, 1, 2, 2]]
    segments = [[1, 1, 0, 0, 2, 2]]
    assert match(predicted, [5, 5, 5], segments, [5, 5, 5], own=[0, 1, 2]) == [1, 0, 2]
    assert match(predicted, [5, 6, 7], segments, [5, 6, 7], own=[0, 1, 2]) == [0, 1, 2]  # no overlap: their own boxes
    assert match(predicted, [5, 6, 7], segments, [5, 6, 8]) == [IGNORE, IGNORE, IGNORE]


def test_ignored_pixels_do_not_count():
    predicted = [[0, 0, 0, 1, 1, 1]]
    # Label 0 has two of segment 0's pixels and label 1 one, but label 0 goes on where nothing is known.
    assert match(predicted, [5, 5], [[0, 0, IGNORE, IGNORE, 0, 0]], [5]) == [0]
    assert match([[0, 0, 0, 0, 0, 1, 1]], [5, 5], [[0, 0, IGNORE, IGNORE, IGNORE, 0, 1]], [5, 5]) == [0, 1]


def test_own_box_where_nothing_overlaps():
    """One label took everything: the other segment goes to the label of its own box, not to any that is free."""
    predicted = np.zeros((1, 8), int)
    segments = [[0, 0, 0, 0, 0, 1, 1, 1]]
    assert match(predicted, [5, 5, 5], segments, [5, 5], own=[0, 2]) == [0, 2]
    assert match(predicted, [5, 5, 5], segments, [5, 5], own=[2, 0]) == [0, IGNORE], "its own label is another's"
    assert match(predicted, [5, 5, 5], segments, [5, 5]) == [0, IGNORE]


def test_own_label_wins_ties():
    predicted = [[0, 0, 1, 1]]
    segments = [[0, 1, 0, 1]]
    assert match(predicted, [5, 5], segments, [5, 5], own=[0, 1]) == [0, 1]
    assert match(predicted, [5, 5], segments, [5, 5], own=[1, 0]) == [1, 0]


def test_more_segments_than_labels():
    assert match([[0, 0, 0, 0]], [5], [[0, 0, 0, 1]], [5, 5], own=[0, 0]) == [0, IGNORE]
    assert match([[0, 0, 0, 0]], [5], [[0, 1, 1, 1]], [5, 5], own=[0, 0]) == [IGNORE, 0]


def test_segments_without_pixels_take_no_label():
    assert match([[0, 0]], [5, 5], [[1, 1]], [5, 5], own=[0, 1]) == [IGNORE, 0]
    assert match([[0, 0]], [5, 5], [[IGNORE, IGNORE]], [5, 5], own=[0, 1]) == [IGNORE, IGNORE]
    assert match([[0, 0]], [5, 5], [[IGNORE, IGNORE]], []) == []


@pytest.mark.parametrize(("predicted", "segments"), [([[0, 2]], [[0, 0]]), ([[0, 1]], [[0, 1]]), ([[0, 1]], [[0, -2]])])
def test_indices_outside_their_range(predicted, segments):
    with pytest.raises(ValueError, match="must lie in"):
        match(predicted, [5, 5], segments, [5])


def marginals(labels=3, height=4, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(labels, height, width, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), logits.log_softmax(0)


def test_loss_pixel_by_pixel():
    logits, log_marginals = marginals()
    generator = torch.Generator().manual_seed(1)
    segments = torch.randint(-1, 3, (4, 5), generator=generator)
    classes, label_classes = torch.tensor([5, 5, 8]), torch.tensor([5, 5, 7])  # nobody has class 8
    own = torch.tensor([0, 1, -1])
    partner = match_segments(log_marginals.argmax(0).numpy(), label_classes.numpy(), segments.numpy(), classes.numpy(),
                             own.numpy())
    assert sorted(partner) == [-1, 0, 1]
    terms = [-log_marginals[partner[segments[y, x]], y, x].item() for y in range(4) for x in range(5)
             if segments[y, x] >= 0 and partner[segments[y, x]] >= 0]
    assert 0 < len(terms) < (segments >= 0).sum()
    loss = matching_loss(log_marginals, label_classes, Truth(segments, classes, own))
    assert loss.item() == pytest.approx(np.mean(terms))
    loss.backward()
    counted = torch.from_numpy(np.isin(segments.numpy(), np.flatnonzero(partner >= 0)))
    assert (logits.grad[:, ~counted] == 0).all()
    assert (logits.grad[:, counted] != 0).all()


def test_loss_does_not_know_the_order_of_instances():
    _, log_marginals = marginals(4)
    segments = torch.arange(20).reshape(4, 5) // 5
    label_classes = classes = torch.tensor([5, 5, 5, 6])
    expected = matching_loss(log_marginals, label_classes, Truth(segments, classes, torch.full((4,), -1)))
    order = torch.tensor([2, 0, 1, 3])
    exchanged = matching_loss(log_marginals, label_classes, Truth(order[segments], classes, torch.full((4,), -1)))
    assert exchanged.item() == pytest.approx(expected.item())


def test_nothing_known():
    for labels in (0, 1, 3):
        logits, log_marginals = marginals(labels)
        truth = Truth(torch.full((4, 5), IGNORE), torch.tensor([5]), torch.tensor([0]))
        loss = matching_loss(log_marginals, torch.full((labels,), 5), truth)
        loss.backward()
        assert loss.item() == 0
        assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_empty_images_and_truth():
    for shape in ((3, 0, 5), (3, 4, 0), (3, 4, 5)):
        nothing = torch.zeros(0, dtype=torch.int64)
        truth = Truth(torch.full(shape[1:], IGNORE), nothing, nothing)
        assert matching_loss(torch.zeros(shape).log_softmax(0), torch.tensor([5, 5, 6]), truth).item() == 0


@pytest.mark.parametrize(("labels", "size"), [(2, (4, 5)), (3, (5, 4))])
def test_sizes_that_do_not_fit(labels, size):
    truth = Truth(torch.zeros(size, dtype=torch.int64), torch.tensor([5]), torch.tensor([0]))
    with pytest.raises(ValueError, match="do not fit"):
        matching_loss(marginals()[1], torch.full((labels,), 5), truth)
