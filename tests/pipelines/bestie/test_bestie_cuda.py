"""BESTIE as on a GPU: nothing is left on the CPU, going forward or backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipelines.bestie.classifier import PeakClassifier, attention_maps
from pipelines.bestie.grouping import average_views, group_instances, group_to_points
from pipelines.bestie.learning import guidance
from pipelines.bestie.losses import objective
from pipelines.bestie.network import BestieNetwork
from pipelines.bestie.settings import BestieSettings, PeakClassifierSettings
from stages.cues.classification import tag_losses
from stages.cues.settings import BackboneSettings
from tests.mixed_precision import assert_near
from tests.pretended_gpu import pretended_gpu

ARGUMENTS = {"channels": [8, 8, 16, 24], "stem_width": 8}
NARROW = BackboneSettings(name="resnet10t", weights="none", stride=16, arguments=ARGUMENTS)
HRNET = BackboneSettings(name="hrnet_w18_small", weights="none", stride=32)
CLASSES, SIDE = 2, 32


def settings(source: str, chosen: BackboneSettings = NARROW) -> BestieSettings:
    centres = {"window": 9, "threshold": -1.0, "offset": 2.5, "tolerance": 3, "heat": -1.0, "merge": 1}
    return BestieSettings(cues={"source": source}, transfer={"sigma": 2},
                          network={"backbone": chosen, "semantic_width": 16, "instance_width": 8, "offset_width": 8,
                                   "refinement": {"centres": centres, "most": 100}})


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    components = torch.zeros(2, SIDE, SIDE, dtype=torch.int32)
    components[:, 4:12, 4:12], components[0, 20:28, 18:30] = 1, 2
    semantic = torch.where(components == 2, 2, components).to(torch.int16)
    semantic[:, :2] = -1
    centres = torch.tensor([[[0, 8, 8], [1, 24, 24]], [[0, 8, 8], [-1, -1, -1]]])
    return {"image": torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator),
            "semantic": semantic, "components": components, "instances": components, "centres": centres,
            "inside": torch.ones(2, SIDE, SIDE, dtype=torch.bool)}


@pytest.mark.parametrize(("source", "chosen", "mixed"), [
    ("peaks", NARROW, False), ("peaks", NARROW, True), ("points", NARROW, False), ("peaks", HRNET, True)])
def test_a_training_step(source, chosen, mixed):
    torch.manual_seed(0)
    whole = settings(source, chosen)
    model = BestieNetwork(whole.network, CLASSES).train()
    with pretended_gpu() as gpu:
        model, given = gpu.take(model), gpu.take(batch())
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            outputs = model(given["image"])
            with torch.autocast("cuda", enabled=False):
                pseudo, refined = guidance(outputs, given, CLASSES, whole, True)
                terms = objective(outputs.logits, outputs.heat, outputs.offset, given["semantic"], pseudo, refined,
                                  whole.network)
        assert refined is not None and refined.offset.is_cuda and bool((refined.centre_weight != 0).any())
        torch.stack(list(terms.values())).sum().backward()
        assert all(value.grad.is_cuda for value in model.parameters())


def test_refined_labels_wait_no_more_than_they_must():
    """Sizes that depend on the data: the host waits for each once; as few images or many."""
    whole = settings("peaks")
    torch.manual_seed(0)
    model = BestieNetwork(whole.network, CLASSES).train()
    with pretended_gpu() as gpu, torch.no_grad():
        model, given = gpu.take(model), gpu.take(batch())
        outputs = model(given["image"])
        gpu.waits.clear()
        outputs = model(given["image"])
        assert not gpu.waits
        guidance(outputs, given, CLASSES, whole, True)
        assert gpu.waits.total() <= 60, gpu.waits


@pytest.mark.parametrize("mixed", [False, True])
def test_the_classifier(mixed):
    torch.manual_seed(0)
    model = PeakClassifier(PeakClassifierSettings(backbone=NARROW.model_copy(update={"stride": 8}), width=8), 3).train()
    with pretended_gpu() as gpu:
        model, given = gpu.take(model), gpu.take({"image": batch()["image"], "target": torch.ones(2, 3)})
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            loss = tag_losses(model, given)["classification"]
        loss.backward()
        assert all(value.grad.is_cuda for value in model.parameters() if value.grad is not None)
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            maps = attention_maps(model.eval(), given["image"][0], [0, 2], 24, True)
        assert maps.is_cuda and maps.shape == (2, SIDE, SIDE) and maps.dtype == torch.float32


@pytest.mark.parametrize("mixed", [False, True])
def test_the_instances_of_an_image(mixed):
    torch.manual_seed(0)
    whole = settings("peaks")
    model, chosen = BestieNetwork(whole.network, CLASSES).eval(), whole.inference.model_copy(update={"smallest": 1})
    with pretended_gpu() as gpu, torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=mixed):
        maps = average_views(gpu.take(model), gpu.take(batch()["image"][0]), (0.75, 1.0), True)
        assert all(one.is_cuda and one.dtype == torch.float32 for one in maps)
        assert group_instances(*maps, chosen).labels.shape == (SIDE, SIDE)
        probability, _, offset = maps
        known = batch()["semantic"][0].numpy()
        for update in ({}, {"reach": "component", "trust": 0.4}):
            found = group_to_points(probability, offset * 0, np.array([[0, 5, 5], [0, 9, 10], [1, 24, 24]]), known,
                                    chosen.model_copy(update=update))
            assert found.points.tolist() == [0, 1, 2] and np.array_equal(found.labels > 0, known > 0)


@pytest.mark.parametrize("chosen", [NARROW, HRNET])
def test_an_image_in_mixed_precision(chosen):
    torch.manual_seed(0)
    model = BestieNetwork(settings("peaks", chosen).network, CLASSES).eval()
    assert_near(lambda: average_views(model, batch()["image"][0], (0.75, 1.0), True), 0.05)


@pytest.mark.parametrize("side", [0, 24])
def test_attention_in_mixed_precision(side):
    torch.manual_seed(0)
    model = PeakClassifier(PeakClassifierSettings(backbone=NARROW.model_copy(update={"stride": 8}), width=8), 3).eval()
    assert_near(lambda: attention_maps(model, batch()["image"][0], [0, 2], side, True), 0.05)
