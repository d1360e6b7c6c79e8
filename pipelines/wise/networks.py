"""The networks of WISE's chain, for `check`."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.wise.network import WiseNet
from pipelines.wise.settings import WiseSettings
from stages.cues.prm import PeakClassifier


def build(settings: WiseSettings, classes: int) -> Iterator[str]:
    """Build one after the other; each one's key in params.yaml comes before it."""
    if settings.cues.source == "peaks":
        yield "wise.peaks"
        PeakClassifier(settings.peaks.backbone, classes, settings.peaks.enlarge, settings.peaks.window)
    yield "wise.network"
    WiseNet(settings.network, classes)
