"""The networks of BESTIE's chain, for `check`."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.bestie.classifier import PeakClassifier
from pipelines.bestie.network import BestieNetwork
from pipelines.bestie.settings import BestieSettings
from stages.segmentation.network import SegmentationNetwork


def build(settings: BestieSettings, classes: int) -> Iterator[str]:
    """Build one after the other; each one's key in params.yaml comes before it."""
    if settings.cues.source == "peaks":
        yield "bestie.classifier"
        PeakClassifier(settings.classifier, classes)
    if settings.maps.source == "segmenter":
        yield "bestie.maps.segmenter"
        SegmentationNetwork(settings.maps.segmenter, classes)
    yield "bestie.network"
    BestieNetwork(settings.network, classes)
