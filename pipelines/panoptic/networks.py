"""The networks of the panoptic chain but for its detector of boxes, which an engine checks, for `check`."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.panoptic.classifier import CropClassifier
from pipelines.panoptic.instances import PanopticNetwork
from pipelines.panoptic.settings import PanopticSettings
from stages.segmentation.network import SegmentationNetwork


def build(settings: PanopticSettings, classes: int) -> Iterator[str]:
    """Build one after the other; each one's key in params.yaml comes before it."""
    yield "panoptic.classifier"
    CropClassifier(settings.classifier, classes)
    yield "panoptic.network"
    semantic = SegmentationNetwork(settings.network, classes)
    yield "panoptic.instances"
    PanopticNetwork(semantic, settings.instances, range(1, classes + 1))
