"""EXITS as on a GPU: nothing is left on the CPU, going forward or backward."""

from __future__ import annotations

import pytest
import torch

from pipelines.exits.losses import projection_loss
from pipelines.exits.network import Generator
from pipelines.exits.prediction import refine, walk_prediction, whole_prediction
from pipelines.exits.retrieval import retrieve_points
from pipelines.exits.settings import (
    CrfSettings,
    GeneratorSettings,
    GuidedInferenceSettings,
    PropagationSettings,
    WindowCrfSettings,
)
from pipelines.exits.training import GeneratorLosses
from stages.runtime.ema import Teacher
from tests.mixed_precision import assert_near
from tests.pretended_gpu import pretended_gpu

PYRAMID = {"kind": "pyramid", "name": "resnet10t", "weights": "none", "stride": 8, "width": 16, "position": True,
           "arguments": {"channels": [8, 8, 16, 16], "stem_width": 8}}
VIT = {"kind": "vit", "name": "vit_tiny_patch16_224", "weights": "none", "stride": 8,
       "arguments": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "class_token": False}}
BOTH = pytest.mark.parametrize("encoder", [PYRAMID, VIT], ids=["pyramid", "vit"])


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    inside = torch.zeros(2, 8, 8)
    inside[:, 2:7, 1:6] = 1
    labels = torch.full((2, 4, 4), -2, dtype=torch.int8)
    labels[:, 1:3, 1:3] = torch.tensor([[2, 1], [0, -1]], dtype=torch.int8)
    labels[1, 1:3, 1:3] = torch.tensor([[2, 0], [0, 0]], dtype=torch.int8)
    likely = torch.randn(2, 4, 4, generator=generator)
    return {"image": torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=generator),
            "box": torch.tensor([[4.0, 4.0, 28.0, 20.0], [8.0, 0.0, 32.0, 32.0]]), "inside": inside, "labels": labels,
            "likely": likely, "scores": likely}


def generator(encoder, **crf) -> tuple[Generator, GeneratorSettings]:
    torch.manual_seed(0)
    settings = GeneratorSettings(encoder=encoder, crf_rise=0, crf_start=0.0, mil_rise=0, crf=WindowCrfSettings(**crf))
    return Generator(settings.encoder, 32, 4, guided=encoder is PYRAMID), settings


@BOTH
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("radius", [0, 1])
def test_a_training_step(encoder, mixed, radius):
    student, settings = generator(encoder, radius=radius)
    teacher = Teacher(student, 0.9)
    with pretended_gpu() as gpu:
        student, teacher, given = gpu.take(student).train(), teacher.to("cuda"), gpu.take(batch())
        assert not teacher.steps.is_cuda  # a count is the host's
        losses = GeneratorLosses(teacher, settings, 100, score_share=0.5)
        with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
            terms = losses(student, given)
            warm_up = projection_loss(student(given["image"], given["box"], None), given["inside"]).mean()
        assert set(terms) == {"point", "mil", "crf"} and all(term.is_cuda for term in terms.values())
        torch.stack([*(term.float() for term in terms.values()), warm_up]).sum().backward()
        assert all(value.grad is None or value.grad.is_cuda for value in student.parameters())
        gpu.waits.clear()
        teacher.follow(student)
        assert not gpu.waits and int(teacher.steps) == 1


@BOTH
def test_the_losses_wait_for_the_crf_alone(encoder):
    student, settings = generator(encoder, radius=0)
    teacher = Teacher(student, 0.9)
    with pretended_gpu() as gpu:
        student, teacher, given = gpu.take(student).train(), teacher.to("cuda"), gpu.take(batch())
        for weight, wanted in ((0.0, 0), (0.5, 40)):
            losses = GeneratorLosses(teacher, settings.model_copy(update={"crf_weight": weight}), 100)
            losses(student, given)
            gpu.waits.clear()
            torch.stack(list(losses(student, given).values())).sum().backward()
            assert gpu.waits.total() <= wanted, gpu.waits


def propagation(encoder) -> PropagationSettings:
    return PropagationSettings(cells=4, layer=1, foreground=0.1, background=-0.1,
                               **({"colour": 0.2, "locality": 0.3} if encoder is PYRAMID else {}))


@BOTH
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_similarity_and_masks_in_mixed_precision(encoder, layer):
    model, given = generator(encoder)[0].eval(), batch()
    settings = propagation(encoder).model_copy(update={"layer": layer})
    if encoder is VIT:  # untrained attention is the same everywhere, and no walk makes a difference
        for block in model.encoder.body.blocks:
            block.attn.qkv.weight.data.mul_(50)

    def infer():
        similarity = model.similarity(given["image"], given["box"], settings)
        labels, difference = retrieve_points(similarity, given["labels"], settings)
        masks = whole_prediction(model, given["image"], given["box"], given["scores"], flip=True,
                                 guided=GuidedInferenceSettings(without=0.5, masks=0.2))
        crf = CrfSettings(iterations=2, radius=1)
        return similarity, difference, masks, refine(masks, given["image"], given["box"].numpy(), crf)

    assert_near(infer, 0.1)


@BOTH
@pytest.mark.parametrize("mixed", [False, True])
def test_retrieval_and_prediction(encoder, mixed):
    model = generator(encoder)[0].eval()
    with pretended_gpu() as gpu, torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=mixed):
        model, given = gpu.take(model), gpu.take(batch())
        settings = propagation(encoder)
        for hops in (3, 0):
            similarity = model.similarity(given["image"], given["box"], settings)
            labels, difference = retrieve_points(similarity, given["labels"],
                                                 settings.model_copy(update={"hops": hops}))
            assert labels.is_cuda and difference.is_cuda and difference.dtype == torch.float32
        masks = whole_prediction(model, given["image"], given["box"], given["scores"],
                                 flip=True, guided=GuidedInferenceSettings(without=0.5, masks=0.2))
        assert masks.is_cuda and masks.dtype == torch.float32
        assert walk_prediction(given["scores"], 8, 0.1).is_cuda
        for radius in (0, 1):
            crf = CrfSettings(iterations=2, radius=radius, binary=True)
            assert refine(masks, given["image"], batch()["box"].numpy(), crf).is_cuda
