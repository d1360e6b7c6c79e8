"""The networks of IRNet's chain, for `check`."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.irnet.network import IRNet
from pipelines.irnet.settings import IRNetSettings
from stages.cues.backbone import Backbone, grid_of
from stages.cues.classifier import Classifier


def build(settings: IRNetSettings, classes: int) -> Iterator[str]:
    """Build one after the other; each one's key in params.yaml comes before it."""
    yield "irnet.classifier"
    chosen = settings.classifier
    classifier = Classifier(chosen.backbone, classes, chosen.dropout, chosen.logit_scale)
    yield "irnet.network"
    own = settings.network.backbone
    IRNet(classifier.backbone if own is None else Backbone(own), settings.network, grid_of(settings.grid))
