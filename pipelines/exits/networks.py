"""The networks of EXITS' chain, for `check`."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pipelines.exits.network import Generator
from pipelines.exits.settings import ExitsSettings


def build(settings: ExitsSettings, classes: int) -> Iterator[str]:
    """Build one after the other; each one's key in params.yaml comes before it. The masks have no classes."""
    side = settings.crops.side
    yield "exits.extractor"
    extractor = Generator(settings.extractor.encoder, side, settings.extractor.mask_stride)
    yield "exits.propagation"  # the layer, and the points along a side
    extractor.eval().similarity(torch.zeros(1, 3, side, side, dtype=torch.uint8),
                                torch.tensor([[0.0, 0.0, side, side]]), settings.propagation)
    yield "exits.generator"
    Generator(settings.generator.encoder, side, settings.generator.mask_stride, settings.guided.shown)
