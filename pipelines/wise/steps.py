"""WISE's training steps at the size that the settings give them, for the count of their memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipelines.wise.network import WiseNet, enlarge
from pipelines.wise.peaks import peak_losses
from pipelines.wise.settings import WiseSettings
from stages.cues.prm import PeakClassifier
from stages.cues.views import view_size
from stages.runtime.memory import Data, Step, labels, pixels


def steps(settings: WiseSettings, data: Data) -> list[Step]:
    """The joint network's and, where points come from peaks, the classifier's.

    Of L-Net's loss the terms that all pixels take part in are there, with weights as blobs and watersheds give them; of
    E-Net's nothing but its maps: it looks at a few hundred pixels.
    """
    network, peaks = settings.network, settings.peaks

    def joint(model: nn.Module, device: torch.device) -> Tensor:
        height, width = view_size((data.height, data.width), 1.0, network.max_pixels)
        location, embedding = model(pixels(network.batch_size, height, width, device))
        total = embedding.float().square().sum() * 0
        for own in location:
            logits = enlarge(own[None], model.grid, (height, width))[0].float()  # type: ignore[arg-type]
            background = logits.logsumexp(0) - logits[0]
            for _ in range(2):  # split and false positive
                total = total + (torch.rand(height, width, device=device) * background).sum()
        return total

    def classified(model: nn.Module, device: torch.device) -> Tensor:
        batch = {"image": pixels(peaks.batch_size, peaks.side, peaks.side, device),
                 "target": labels(0, 2, (peaks.batch_size, data.things), torch.float32, device)}
        return peak_losses(model, batch)["classification"]

    return [*([Step("train_peaks", peaks.batch_size,
                    lambda: PeakClassifier(peaks.backbone, data.things, peaks.enlarge, peaks.window), classified,
                    peaks.optimizer, peaks.momentum)] if settings.cues.source == "peaks" else []),
            Step("train_wise", network.batch_size, lambda: WiseNet(network, data.things), joint, network.optimizer,
                 network.momentum)]
