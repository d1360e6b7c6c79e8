"""Given boxes in a view, the truth to match, and what learns when."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from panoptic_scenes import CAT, CLASSES, DOG, GRASS, SKY, THINGS_ONLY, boxes, drawn

from pipelines.panoptic.instance_head import Detections
from pipelines.panoptic.instances import PanopticNetwork, instance_loss, moved, targets
from pipelines.panoptic.settings import InstanceSettings
from stages.cues.augment import Map, random_view
from stages.cues.settings import AugmentSettings
from stages.segmentation.network import SegmentationNetwork
from stages.segmentation.settings import FeatureSettings

NARROW = {"name": "resnet10t", "weights": "none", "stride": 8,
          "arguments": {"channels": [8, 8, 16, 16], "stem_width": 8}}
HEAD = {"bilateral_xy": 5, "bilateral_rgb": 20, "gaussian_xy": 1}
PLACE = {channel: number for number, channel in enumerate(CLASSES.used)}


def network(end_to_end: bool) -> PanopticNetwork:
    torch.manual_seed(0)
    semantic = SegmentationNetwork(FeatureSettings(backbone=NARROW, decoder_channels=8), 4)
    return PanopticNetwork(semantic, InstanceSettings(end_to_end=end_to_end, head=HEAD), CLASSES.used)


def test_the_truth_of_a_view():
    given = boxes((0, 0, 3, 3, CAT), (3, 0, 6, 3, CAT), (0, 2, 6, 4, DOG), (9, 9, 12, 12, DOG), (0, 0, 6, 4, DOG),
                  crowd=[4])
    labels = drawn("112114", "1.2114", "332...")
    instances = np.array([[1, 1, 0, 2, -1, 0], [1, -1, 0, 2, 2, 0], [3, 3, 0, -1, -1, -1]])
    found, truth = targets(labels, instances, given, given.xyxy, CLASSES)
    # Three boxes are in the view; the crowd is no label; of stuff, what the view shows.
    assert found.classes.tolist() == [PLACE[CAT], PLACE[CAT], PLACE[DOG], PLACE[SKY], PLACE[GRASS]]
    assert found.scores.tolist() == [1] * 5
    assert found.boxes[:3].tolist() == given.xyxy[:3].tolist() and found.boxes[3].tolist() == [0, 0, 6, 3]
    assert truth.own.tolist() == [0, 1, 2, 3, 4] and truth.classes.tolist() == found.classes.tolist()
    assert truth.segments.tolist() == [[0, 0, 3, 1, -1, 4], [0, -1, 3, 1, 1, 4], [2, 2, 3, -1, -1, -1]]


def test_a_box_without_a_pixel_is_a_label_and_no_segment():
    given = boxes((0, 0, 2, 1, CAT), (2, 0, 4, 1, CAT))
    found, truth = targets(drawn("..11"), np.array([[-1, -1, 2, 2]]), given, given.xyxy, CLASSES)
    assert found.classes.tolist() == [PLACE[CAT]] * 2
    assert truth.own.tolist() == [1] and truth.segments.tolist() == [[-1, -1, 0, 0]]


def test_a_view_of_nothing():
    found, truth = targets(drawn("...."), np.full((1, 4), -1), boxes(), np.zeros((0, 4)), CLASSES)
    assert found.boxes.shape == (0, 4) and truth.own.shape == (0,) and (truth.segments == -1).all()
    found, truth = targets(drawn("0000"), np.zeros((1, 4), int), boxes(), np.zeros((0, 4)), THINGS_ONLY)
    assert found.classes.tolist() == [0] and truth.segments.tolist() == [[0] * 4], "the background has a dummy too"


def test_boxes_move_by_a_share_of_their_sides():
    rows = np.tile([10.0, 20.0, 30.0, 120.0], (2000, 1))
    found = moved(rows, 0.1, np.random.default_rng(0)) - rows
    assert (np.abs(found[:, [0, 2]]) <= 2).all() and (np.abs(found[:, [1, 3]]) <= 10).all()
    assert np.abs(found).max(0) == pytest.approx([2, 10, 2, 10], rel=0.02)
    assert np.abs(found.mean(0)).max() < 0.5
    assert np.array_equal(moved(rows, 0.0, np.random.default_rng(0)), rows)
    assert moved(np.zeros((0, 4)), 0.1, np.random.default_rng(0)).shape == (0, 4)


@pytest.mark.parametrize("crop", [40, 100])
def test_boxes_go_where_their_pixels_go(crop):
    """What a view's geometry does to a box is what the view does to the box's pixels."""
    image, labels = np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80), np.int16)
    labels[10:30, 40:70] = 1
    settings = AugmentSettings(crop=crop, long_side=None, scale=(0.5, 2.0))
    for seed in range(12):
        view = random_view(image, {"labels": Map(labels, outside=0)}, np.random.default_rng(seed), settings)
        x0, y0, x1, y1 = view.geometry.boxes(np.array([[40, 10, 70, 30]]))[0]
        middles = np.arange(crop) + 0.5
        expected = ((middles >= y0) & (middles < y1))[:, None] & ((middles >= x0) & (middles < x1))
        wrong = (expected != (view.maps["labels"] == 1)).sum()
        assert wrong <= 2 * (x1 - x0 + y1 - y0), "at most a rim of one pixel"
        assert wrong < 0.2 * max(1, expected.sum()) or not expected.any()


def sample(labels: Detections, segments: torch.Tensor, classes: torch.Tensor, own: torch.Tensor) -> dict:
    return {"image": torch.randint(0, 256, (3, 16, 24), dtype=torch.uint8), "labels": list(labels),
            "truth": [segments, classes, own]}


def scene() -> dict:
    labels = Detections(torch.tensor([[0., 0, 12, 16], [12, 0, 24, 16], [0, 0, 24, 16]]),
                        torch.tensor([PLACE[CAT], PLACE[CAT], PLACE[SKY]]), torch.ones(3))
    segments = torch.zeros(16, 24, dtype=torch.int64)
    segments[:, 12:], segments[12:] = 1, 2
    return sample(labels, segments, labels.classes, torch.arange(3))


def empty() -> dict:
    nothing = torch.zeros(0, dtype=torch.int64)
    return sample(Detections(torch.zeros(0, 4), nothing, torch.zeros(0)), torch.full((16, 24), -1), nothing, nothing)


def test_piecewise_four_scalars_learn_and_nothing_else():
    model = network(end_to_end=False).train()
    assert not model.semantic.training
    assert {name for name, value in model.named_parameters() if value.requires_grad} == {
        "head.log_unary_weights", "head.pairwise_weights"}
    instance_loss(model, [scene(), empty()])["instances"].backward()
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in model.head.parameters())
    assert model.head.log_unary_weights.grad.abs().sum() > 0
    assert all(value.grad is None for value in model.semantic.parameters())


def test_end_to_end_all_learns_and_batch_statistics_stay():
    model = network(end_to_end=True).train()
    norms = [module for module in model.semantic.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    before = [module.running_mean.clone() for module in norms]
    instance_loss(model, [scene()])["instances"].backward()
    assert all(value.grad is not None for value in model.parameters() if value.requires_grad)
    assert model.semantic.head.weight.grad.abs().sum() > 0
    assert all(torch.equal(module.running_mean, mean) for module, mean in zip(norms, before, strict=True))


@pytest.mark.parametrize("end_to_end", [False, True])
def test_a_batch_without_any_label_is_a_step_of_nothing(end_to_end):
    model = network(end_to_end).train()
    loss = instance_loss(model, [empty(), empty()])["instances"]
    loss.backward()
    assert float(loss) == 0
    assert all(float(value.grad.abs().sum()) == 0 for value in model.head.parameters())


def test_the_loss_does_not_mind_how_instances_are_numbered():
    model = network(end_to_end=False).eval()
    one = scene()
    swapped = dict(one, truth=[torch.tensor([1, 0, 2])[one["truth"][0]], one["truth"][1], torch.tensor([1, 0, 2])])
    assert float(instance_loss(model, [one])["instances"]) == pytest.approx(
        float(instance_loss(model, [swapped])["instances"]), abs=1e-6)


def test_the_batch_is_the_mean_of_its_images():
    model = network(end_to_end=False).eval()
    first, second = scene(), scene()
    apart = [float(instance_loss(model, [one])["instances"]) for one in (first, second)]
    assert float(instance_loss(model, [first, second])["instances"]) == pytest.approx(sum(apart) / 2, abs=1e-5)
