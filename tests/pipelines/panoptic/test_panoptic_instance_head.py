"""The instance CRF's unaries against eq. 2 to 4 written pixel by pixel, and the head that learns four scalars."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from pipelines.panoptic.instance_head import (
    IMPOSSIBLE,
    Detections,
    InstanceHead,
    instance_unaries,
    join,
    keep_in_boxes,
    stuff_detections,
)
from stages.propagation.label_mean_field import image_kernels, label_mean_field

CLASSES, HEIGHT, WIDTH = 4, 6, 9


def detections(*items):
    """From (box, class, score)."""
    boxes, classes, scores = zip(*items, strict=True) if items else ((), (), ())
    return Detections(torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4), torch.tensor(classes, dtype=torch.int64),
                      torch.tensor(scores, dtype=torch.float64))


SOME = detections(([1, 1, 4, 4], 2, 0.9), ([3, 0, 9, 6], 2, 0.5), ([0, 0, 9, 6], 0, 1.0))


def semantics(classes=CLASSES, height=HEIGHT, width=WIDTH, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(classes, height, width, generator=generator, dtype=torch.float64).log_softmax(0)


def picture(height=HEIGHT, width=WIDTH):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 255


def by_pixel(q, items, w1, w2):
    """log(w1 psi_Box + w2 psi_Global) of eq. 2 to 4."""
    unary = np.zeros((len(items.boxes), *q.shape[1:]))
    for k, (box, label, score) in enumerate(zip(*(field.tolist() for field in items), strict=True)):
        for y, x in np.ndindex(*q.shape[1:]):
            in_box = box[0] <= x + 0.5 < box[2] and box[1] <= y + 0.5 < box[3]
            psi_box = score * q[label, y, x] if in_box else 0
            unary[k, y, x] = np.log(w1 * psi_box + w2 * q[label, y, x])
    return unary


@pytest.mark.parametrize("items", [
    SOME,
    detections(([2, 3, 3, 4], 1, 1.0)),  # a single pixel
    detections(([-5, -5, 2, 3], 1, 0.7), ([7, 4, 30, 30], 1, 0.7)),  # over the border
    detections(([-5, -5, 0, 0], 3, 0.7), ([20, 0, 30, 6], 3, 0.7), ([0, 6, 9, 8], 3, 0.7)),  # outside
    detections(([2.5, 1.5, 4.5, 3.5], 1, 0.3), ([2.51, 1.51, 4.51, 3.51], 1, 0.3)),  # pixel centres on the edges
    detections(([3, 3, 3, 3], 1, 1.0), ([5, 5, 4, 4], 1, 1.0)),  # of no size
    detections(([1, 1, 5, 5], 2, 0.0)),
])
def test_unaries_pixel_by_pixel(items):
    log_q = semantics()
    found = instance_unaries(log_q, items, 0.8, 1.7)
    assert found.dtype == torch.float64
    assert np.abs(found.numpy() - by_pixel(log_q.exp().numpy(), items, 0.8, 1.7)).max() < 1e-12


def test_things_are_kept_in_their_boxes():
    """By pixel: what no box of its class holds is impossible; stuff and what a box holds stay."""
    q = semantics()
    items = detections(([1, 1, 4, 4], 2, 0.9), ([3, 0, 9, 6], 1, 0.5), ([0, 0, 9, 6], 0, 1.0))
    found = keep_in_boxes(q, items, [1, 2, 3])
    for y, x in np.ndindex(HEIGHT, WIDTH):
        held = [0] + ([2] if 1 <= x < 4 and 1 <= y < 4 else []) + ([1] if x >= 3 else [])
        assert found[held, y, x].equal(q[held, y, x])
        assert (found[[channel for channel in range(CLASSES) if channel not in held], y, x] == IMPOSSIBLE).all()


def test_unaries_by_hand():
    log_q = torch.tensor([[[0.5, 0.25]], [[0.5, 0.75]]]).log()
    found = instance_unaries(log_q, detections(([0, 0, 1, 1], 1, 0.5), ([0, 0, 2, 1], 0, 1.0)), 1.0, 1.0).exp()
    assert torch.allclose(found, torch.tensor([[[0.75, 0.75]], [[1.0, 0.5]]]))


def test_only_the_ratio_of_the_weights_matters():
    log_q = semantics()
    difference = instance_unaries(log_q, SOME, 3.0, 6.0) - instance_unaries(log_q, SOME, 0.5, 1.0)
    assert torch.allclose(difference, torch.full_like(difference, np.log(6)))


def test_improbable_classes_stay_finite():
    log_q = torch.tensor([[[-1e4]], [[0.0]]], requires_grad=True)
    found = instance_unaries(log_q, detections(([0, 0, 1, 1], 0, 1.0)), 1.0, 1.0)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.equal(log_q.grad, torch.tensor([[[1.0]], [[0.0]]]))


def test_gradient_of_the_unaries():
    weights = torch.tensor([0.8, 1.7], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda q, w: instance_unaries(q, SOME, *w), (semantics(3, 3, 5).requires_grad_(), weights))


def test_stuff_is_everywhere_with_score_one():
    log_q = semantics()
    stuff = stuff_detections([0, 3], log_q)
    assert stuff.classes.tolist() == [0, 3]
    assert torch.allclose(instance_unaries(log_q, stuff, 0.5, 1.5), log_q[[0, 3]] + np.log(2))
    both = join(SOME, stuff)
    assert both.classes.tolist() == [2, 2, 0, 0, 3]
    assert torch.equal(both.boxes[3], torch.tensor([0.0, 0, WIDTH, HEIGHT], dtype=torch.float64))
    assert torch.equal(instance_unaries(log_q, both, 1.0, 1.0)[:3], instance_unaries(log_q, SOME, 1.0, 1.0))
    assert len(stuff_detections([], log_q).boxes) == 0


@pytest.mark.parametrize(("log_q", "items", "message"), [
    (semantics()[0], SOME, "log_q must be"),
    (semantics().long(), SOME, "log_q must be"),
    (semantics()[:2], SOME, "classes must lie"),
    (semantics(), SOME._replace(classes=torch.tensor([-1, 0, 0])), "classes must lie"),
    (semantics(), SOME._replace(scores=torch.ones(2)), "detections must be"),
    (semantics(), SOME._replace(boxes=torch.ones(3, 5)), "detections must be"),
])
def test_unaries_refused(log_q, items, message):
    with pytest.raises(ValueError, match=message):
        instance_unaries(log_q, items, 1.0, 1.0)


def test_head_is_unaries_and_mean_field():
    head = InstanceHead(box_weight=0.5, global_weight=2, gaussian_weight=1, bilateral_weight=2, gaussian_xy=2.0,
                        bilateral_xy=6.0, bilateral_rgb=40.0, steps=2, normalisation="rows")
    log_q, image = semantics().float(), picture().float()
    kernels = image_kernels(image, gaussian_xy=2.0, bilateral_xy=6.0, bilateral_rgb=40.0, normalisation="rows")
    expected = label_mean_field(instance_unaries(log_q, SOME, 0.5, 2.0), kernels, [1.0, 2.0], 2)
    assert torch.allclose(head(log_q, image, SOME), expected, rtol=0, atol=1e-5)
    assert head.scalars() == pytest.approx({"box_weight": 0.5, "global_weight": 2.0, "gaussian_weight": 1.0,
                                            "bilateral_weight": 2.0})


def test_published_scalars():
    assert list(InstanceHead().scalars().values()) == [1, 1, 3, 4]
    assert sum(parameter.numel() for parameter in InstanceHead().parameters()) == 4


def test_gradient_of_the_head_by_finite_differences():
    head = InstanceHead(gaussian_xy=2.0, bilateral_xy=6.0, bilateral_rgb=40.0).double()
    image = picture(3, 4)

    def run(log_q, unary, pairwise):
        parameters = {"log_unary_weights": unary, "pairwise_weights": pairwise}
        return torch.func.functional_call(head, parameters, (log_q, image, SOME))

    assert gradcheck(run, (semantics(3, 3, 4).requires_grad_(), *head.parameters()), fast_mode=True)


def test_all_four_scalars_learn():
    head = InstanceHead()
    log_q = semantics().requires_grad_()
    (-head(log_q, picture(), SOME)[0].mean()).backward()
    for parameter in head.parameters():
        assert (parameter.grad != 0).all()
    assert (log_q.grad[0] != 0).any()
    assert (log_q.grad[1] == 0).all(), "a class that no detection has"


def test_weights_stay_positive():
    """After a step that would have made one of w1 and w2 itself negative, and the unaries undefined."""
    head = InstanceHead()
    (-head(semantics(), picture(), SOME)[0, 1:4, 1:4].mean()).backward()
    weights = head.log_unary_weights.detach()
    gradient = head.log_unary_weights.grad
    weights -= 2 / gradient.abs().max() * gradient  # from 1 a change of 2: one grows, the other falls
    assert weights.min() < -1
    assert min(head.scalars().values()) > 0
    assert torch.isfinite(head(semantics(), picture(), SOME)).all()


def test_equal_detections_share():
    """Boxes, classes and scores alike: nothing can tell them apart."""
    items = detections(([1, 1, 5, 5], 2, 0.5), ([1, 1, 5, 5], 2, 0.5), ([0, 0, 9, 6], 0, 1.0))
    found = InstanceHead()(semantics(), picture(), items)
    assert torch.equal(found[0], found[1])
    assert torch.allclose(found.exp().sum(0), torch.ones(HEIGHT, WIDTH, dtype=torch.float64))


def test_a_box_pulls_its_pixels():
    log_q = torch.full((2, HEIGHT, WIDTH), 0.5).log()
    items = detections(([0, 0, 4, 6], 1, 1.0), ([4, 0, 9, 6], 1, 1.0))
    found = InstanceHead(gaussian_weight=0.5, bilateral_weight=0.5)(log_q, torch.full((3, HEIGHT, WIDTH), 128.0), items)
    assert torch.equal(found.argmax(0), (torch.arange(WIDTH) >= 4).long().expand(HEIGHT, WIDTH))


def test_no_detections():
    log_q = semantics().requires_grad_()
    assert InstanceHead()(log_q, picture(), detections()).shape == (0, HEIGHT, WIDTH)
    found = InstanceHead()(log_q, picture(), join(detections(), stuff_detections([1], log_q)))
    assert torch.equal(found, torch.zeros(1, HEIGHT, WIDTH, dtype=torch.float64)), "one label has marginal 1"


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_smallest_images(size):
    found = InstanceHead()(semantics(4, *size), picture(*size), SOME)
    assert found.shape == (3, *size)
    assert torch.allclose(found.exp().sum(0), torch.ones(size, dtype=torch.float64))


def test_mixed_precision_and_devices():
    head, log_q, image = InstanceHead(), semantics().float(), picture().to(torch.uint8)
    expected = head(log_q, image, SOME)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(log_q, image, SOME), expected)
    with torch.device("meta"):  # whatever is made without a device lies there and can meet no number
        labels = join(SOME, stuff_detections([1], log_q))
        assert torch.equal(head(log_q, image, labels)[:, 0, 0], head(log_q, image, labels)[:, 0, 0])
    assert head(log_q.half(), image, SOME).dtype == torch.float32


@pytest.mark.parametrize("weights", [{"box_weight": 0.0}, {"global_weight": -1.0}])
def test_head_refused(weights):
    with pytest.raises(ValueError, match="must be positive"):
        InstanceHead(**weights)
