"""The panoptic method as on a GPU: nothing is left on the CPU, going forward or backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.panoptic.classifier import CropClassifier, stuff_maps, tag_loss
from pipelines.panoptic.instances import PanopticNetwork, instance_loss, targets
from pipelines.panoptic.labelling import panoptic_rows
from pipelines.panoptic.rounds import refined_probabilities, semantic_log_probabilities
from pipelines.panoptic.settings import (
    CrfSettings,
    CropClassifierSettings,
    InstanceSettings,
    PanopticInferenceSettings,
)
from stages.labels.tag_crops import TagCrop
from stages.segmentation.network import SegmentationNetwork
from stages.segmentation.settings import FeatureSettings
from tests.mixed_precision import assert_near
from tests.pipelines.panoptic.panoptic_scenes import CAT, CLASSES, DOG, GRASS, SKY, boxes
from tests.pretended_gpu import pretended_gpu

NETWORK = {"decoder_channels": 16, "backbone": {"name": "resnet10t", "weights": "none", "stride": 8, "arguments": {
    "channels": [8, 8, 16, 16], "stem_width": 8}}}


CROPS = [TagCrop((0, 0, 24, 32), (5, 9)), TagCrop((16, 0, 40, 32), (5,))]


def image(height: int = 32, width: int = 40) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def sample(gpu) -> dict:
    labels = np.full((32, 40), SKY, np.int16)
    labels[20:], labels[8:20, 4:16], labels[10:26, 22:36] = GRASS, CAT, DOG
    instances = np.where(labels == CAT, 1, np.where(labels == DOG, 2, 0)).astype(np.int32)
    given = boxes((4, 8, 16, 20, CAT), (22, 10, 36, 26, DOG))
    found, truth = targets(labels, instances, given, given.xyxy, CLASSES)
    return {"image": gpu.take(image()), "labels": gpu.take(list(found)), "truth": gpu.take(list(truth))}


@pytest.mark.parametrize(("end_to_end", "mixed"), [(True, False), (True, True), (False, False)])
def test_a_training_step_of_the_instances(end_to_end, mixed):
    torch.manual_seed(0)
    semantic = SegmentationNetwork(FeatureSettings(**NETWORK), len(CLASSES.category_ids))
    model = PanopticNetwork(semantic, InstanceSettings(end_to_end=end_to_end, head={"bilateral_xy": 20}), CLASSES.used)
    with pretended_gpu() as gpu:
        model = gpu.take(model).train()
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            loss = instance_loss(model, [sample(gpu)])["instances"]
        assert loss.is_cuda
        loss.backward()
        assert all(value.grad.is_cuda for value in model.head.parameters())
        gpu.waits.clear()
        instance_loss(model, [sample(gpu)])
        assert gpu.waits.total() <= 60, gpu.waits  # the lattice's sizes, the matching on the CPU


@pytest.mark.parametrize("mixed", [False, True])
def test_the_classifier_of_crops(mixed):
    torch.manual_seed(0)
    model = CropClassifier(CropClassifierSettings(**NETWORK, decoder_norm="frozen"), len(CLASSES.category_ids))
    with pretended_gpu() as gpu:
        model = gpu.take(model)
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            loss = tag_loss(model, gpu.take({"image": image()[None], "target": torch.ones(1, 4)}))["classification"]
        loss.backward()
        assert all(value.grad.is_cuda for value in model.parameters() if value.grad is not None)
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            maps = stuff_maps(model.eval(), gpu.take(image()), CROPS, CLASSES, 4)
        assert maps["maps"].shape == (2, 8, 10) and maps["maps"].max() > 0


def test_cues_of_stuff_in_mixed_precision():
    torch.manual_seed(0)
    model = CropClassifier(CropClassifierSettings(**NETWORK, decoder_norm="frozen"), len(CLASSES.category_ids)).eval()
    assert_near(lambda: stuff_maps(model, image(), CROPS, CLASSES, 4), 0.05)


@pytest.mark.parametrize("max_pixels", [10_000, 4096])
def test_labels_in_mixed_precision(max_pixels):
    torch.manual_seed(0)
    model = PanopticNetwork(SegmentationNetwork(FeatureSettings(**NETWORK), len(CLASSES.category_ids)),
                            InstanceSettings(head={"bilateral_xy": 20}), CLASSES.used).eval()
    chosen = PanopticInferenceSettings(max_pixels=max_pixels, flip=True)
    given = boxes((4, 8, 16, 20, CAT), (22, 10, 36, 26, DOG))

    def infer():
        log_q = semantic_log_probabilities(model.semantic, image(72, 96), CLASSES, chosen)
        rows = panoptic_rows(model, image(72, 96), given, np.ones(2), CLASSES.stuff, CLASSES, chosen)
        assert rows and all(np.isfinite(list(row["scores"].values())).all() for row in rows)
        return log_q, refined_probabilities(log_q, image(72, 96), CrfSettings(iterations=2, bilateral_xy=20))

    assert_near(infer, 0.05)


@pytest.mark.parametrize("mixed", [False, True])
def test_the_labels_of_a_round(mixed):
    torch.manual_seed(0)
    model = SegmentationNetwork(FeatureSettings(**NETWORK), len(CLASSES.category_ids)).eval()
    with pretended_gpu() as gpu, torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=mixed):
        model, pixels = gpu.take(model), gpu.take(image(72, 96))
        log_q = semantic_log_probabilities(model, pixels, CLASSES, PanopticInferenceSettings(max_pixels=4096,
                                                                                             flip=True))
        found = refined_probabilities(log_q, pixels, CrfSettings(iterations=2, bilateral_xy=20))
        assert found.is_cuda and found.shape == (len(CLASSES.used), 72, 96)
        assert log_q.dtype == found.dtype == torch.float32
