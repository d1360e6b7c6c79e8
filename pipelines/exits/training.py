"""What the two networks of EXITS are trained on, and by which losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.exits.losses import dice, overall_loss, projection_loss
from pipelines.exits.network import Generator
from pipelines.exits.samples import PointLabels, RandomCrops
from pipelines.exits.settings import (
    CropSettings,
    ExtractorSettings,
    GeneratorSettings,
    GuidedSettings,
    NetworkSettings,
)
from pipelines.exits.targets import refined, with_scores
from stages.cues.objects import Image
from stages.runtime.ema import Teacher
from stages.runtime.training import Training, total_steps

Objects = Sequence[tuple[Image, int]]


def _network(crops: CropSettings, settings: ExtractorSettings | GeneratorSettings, guided: bool = False) -> Generator:
    return Generator(settings.encoder, crops.side, settings.mask_stride, guided)


def _groups(model: Generator, settings: NetworkSettings) -> list[dict[str, object]]:
    return model.groups(settings.learning_rate * settings.batch_size, settings.encoder_factor)


def extractor_training(objects: Objects, crops: CropSettings, settings: ExtractorSettings) -> Training:
    """The similarity extractor's warm-up with the MIL loss (section 3.2.1, eq. 1)."""
    model = _network(crops, settings)

    def losses(network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"mil": projection_loss(network(batch["image"], batch["box"]), batch["inside"]).mean()}

    return Training(model, losses, RandomCrops(objects, crops.side, crops.random, model.mask_cells),
                    groups=_groups(model, settings))


class GeneratorLosses:
    """Point, MIL and CRF losses of the generator (eq. 6 to 10).

    Args:
        teacher: the moving average of the network, which knows how many steps are done.
        settings: weights and the like.
        steps: of the whole training.
        score_share: of the propagation scores in what the CRF refines, where the batch has them.
    """

    def __init__(self, teacher: Teacher, settings: GeneratorSettings, steps: int, score_share: float = 0.0) -> None:
        self.teacher, self.settings, self.score_share = teacher, settings, score_share
        self.crf_rise = settings.crf_rise or settings.crf_start * steps

    def __call__(self, network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The three weighted terms, scalars; ``batch`` as ``RandomCrops`` gives it."""
        settings, inside = self.settings, batch["inside"]
        masks = network(batch["image"], batch["box"], batch.get("scores"))
        labels = batch.get("labels", torch.zeros_like(inside, dtype=torch.int8))
        point, mil = overall_loss(masks, labels, inside, settings.mil_weight)
        terms = {"point": settings.point_weight * point,
                 "mil": settings.point_weight * self._risen(settings.mil_rise) * mil}
        if settings.crf_weight > 0:
            crf = dice(masks, self.target(masks.detach(), batch)).mean()
            terms["crf"] = settings.crf_weight * self._risen(self.crf_rise) * crf
        return terms

    def _risen(self, steps: float) -> float:
        """Share of its weight that a loss has by now which rises linearly over so many steps."""
        return min(1.0, int(self.teacher.steps) / max(steps, 1)) if steps > 0 else 1.0

    @torch.no_grad()
    def target(self, masks: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """(B, m, m): CRF of the mean of the network's masks (B, m, m) and the teacher's (eq. 9).

        The teacher sees the plain view, whose colours are also those that the CRF compares.
        """
        plain = batch.get("plain", batch["image"])
        average = (masks + self.teacher(plain, batch["box"], batch.get("scores"))) / 2
        if self.score_share > 0 and "likely" in batch:
            average = with_scores(average, batch["likely"], self.score_share)
        return refined(average, plain, batch["inside"], self.settings.crf)


def generator_training(objects: Objects, crops: CropSettings, settings: GeneratorSettings, guided: GuidedSettings,
                       folder: Path, inward: float) -> Training:
    """The generator and its teacher (section 3.2.3).

    Args:
        objects: crops are taken of.
        crops, settings: of the crops and of the training; ``points: none`` trains by MIL and CRF losses alone.
        guided: what the network gets of the propagation scores.
        folder: of the retrieved points.
        inward: delta, as a share of the crop's side.
    """
    points = None if settings.points == "none" else PointLabels(
        folder, inward, settings.dropout, settings.points == "retrieved", guided.enabled, guided.training.hidden)
    student = _network(crops, settings, guided.shown)
    teacher = Teacher(student, settings.ema)
    losses = GeneratorLosses(teacher, settings, total_steps(settings, len(objects)), guided.training.target)
    return Training(
        student, losses, RandomCrops(objects, crops.side, crops.random, student.mask_cells, points, plain=True),
        groups=_groups(student, settings), extra_state={"teacher": teacher},
        after_step=lambda step: teacher.follow(student),
        state=lambda: {"student": student.state_dict(), "teacher": teacher.network.state_dict()})
