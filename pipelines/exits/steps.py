"""EXITS' training steps at the size that the settings give them, for the count of their memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipelines.exits.losses import dice, overall_loss, projection_loss
from pipelines.exits.network import Generator
from pipelines.exits.settings import ExitsSettings, ExtractorSettings, GeneratorSettings
from stages.runtime.memory import Data, Step, labels, pixels

# Of the CRF's lattice, whose size depends on the crops: see `stages.propagation.mean_field.LATTICE_PIXELS`.
_LATTICE = 2**18 * 600


def steps(settings: ExitsSettings, data: Data) -> list[Step]:
    """The extractor's and the generator's, with its teacher; of the CRF's target only a lattice's share is there."""
    side = settings.crops.side

    def network(chosen: ExtractorSettings | GeneratorSettings, guided: bool = False) -> Generator:
        return Generator(chosen.encoder, side, chosen.mask_stride, guided)

    def batch(model: nn.Module, count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        cells = int(model.mask_cells)  # type: ignore[arg-type]
        return (pixels(count, side, side, device), torch.zeros(count, 4, device=device),
                labels(0, 2, (count, cells, cells), torch.float32, device))

    def warm_up(model: nn.Module, device: torch.device) -> Tensor:
        images, boxes, inside = batch(model, settings.extractor.batch_size, device)
        return projection_loss(model(images, boxes), inside).mean()

    def generate(model: nn.Module, device: torch.device) -> Tensor:
        chosen, cells = settings.generator, settings.propagation.cells
        images, boxes, inside = batch(model, chosen.batch_size, device)
        masks = model(images, boxes)
        points = labels(-2, 3, (len(images), cells, cells), torch.int8, device)
        point, mil = overall_loss(masks, points, inside, chosen.mil_weight)
        with torch.no_grad():
            target = (masks + model(images, boxes)) / 2  # the teacher's look takes what the student's does
        return point + mil + dice(masks, target).mean()

    extractor, generator = settings.extractor, settings.generator
    lattice = generator.crf_weight > 0 and generator.crf.radius == 0
    return [Step("train_extractor", extractor.batch_size, lambda: network(extractor), warm_up, extractor.optimizer,
                 extractor.momentum),
            Step("train_generator", generator.batch_size, lambda: network(generator, settings.guided.shown), generate,
                 generator.optimizer, generator.momentum, copies=1, held=_LATTICE if lattice else 0)]
