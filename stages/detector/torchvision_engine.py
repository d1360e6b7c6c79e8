"""Mask R-CNN, or Faster R-CNN, by torchvision: installs from PyPI alone, any timm backbone, small enough for two cores.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from stages.detector import network
from stages.detector.data import Detection, Labels
from stages.detector.samples import TrainingSamples
from stages.detector.settings import DetectorPredictSettings, DetectorSettings, DetectorTrainSettings
from stages.runtime import devices, distributed, optimisation, seeds, training
from stages.runtime.settings import RuntimeSettings
from stages.runtime.weights import load_weights, save_weights

Sample = tuple[Tensor, dict[str, Tensor]]
Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


def check(settings: DetectorSettings) -> None:
    """Make the network once, with its weights where they are a file."""
    chosen = settings.torchvision
    network.build(chosen, settings.predict, classes=1, pretrained=chosen.weights != "imagenet")


def train(labels: Labels, settings: DetectorSettings, seed: int, runtime: RuntimeSettings, folder: Path) -> None:
    """Train in ``folder``, going on from its checkpoint, and leave ``model.pth`` and ``curves/`` there."""
    torch.manual_seed(seeds.entropy(seed, "detector weights"))
    model = network.build(settings.torchvision, settings.predict, len(labels.categories), masks=labels.masks)
    schedule = settings.train
    training.fit(
        model, _losses, TrainingSamples(labels, schedule), _optimizer(model, settings),
        epochs=1, batch_size=schedule.batch_size, schedule=lambda done: rate_factor(done, schedule), folder=folder,
        seed=seed, runtime=runtime, description="training the detector", collate=_collate,
        clip_norm=schedule.clip_gradients or None)
    if distributed.rank() == 0:
        save_weights(folder / "model.pth", model.state_dict())


def rate_factor(done: float, settings: DetectorTrainSettings) -> float:
    """Factor on the learning rate when a share ``done`` (0..1) of the steps is done: linear warm-up, then the decay."""
    step = done * settings.steps
    warmup = min(1.0, 0.001 + 0.999 * step / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.decay == "cosine":
        return warmup * optimisation.cosine()(done)
    # Shares are compared with a little slack: (k / steps) * steps may fall short of k.
    return warmup * settings.gamma ** sum(done >= milestone - 1e-9 for milestone in settings.milestones)


def _collate(samples: list[Sample]) -> Batch:
    return [image for image, _ in samples], [target for _, target in samples]


def _losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    images, targets = batch
    return model(images, network.Targets(targets))


def _optimizer(model: nn.Module, settings: DetectorSettings) -> torch.optim.Optimizer:
    """Biases and norms are not decayed: shrinking them regularises nothing."""
    schedule = settings.train
    groups = []
    for backbone in (False, True):  # the curves show the first group's rate
        for decayed in (True, False):
            chosen = [parameter for name, parameter in model.named_parameters()
                      if parameter.requires_grad and name.startswith("backbone.body.") == backbone
                      and (parameter.ndim > 1) == decayed]
            rate = schedule.learning_rate * (settings.torchvision.backbone_factor if backbone else 1.0)
            groups.append({"params": chosen, "lr": rate, "weight_decay": schedule.weight_decay if decayed else 0.0})
    groups = [group for group in groups if group["params"]]
    if settings.torchvision.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=schedule.learning_rate)
    return torch.optim.SGD(groups, lr=schedule.learning_rate, momentum=schedule.momentum)


def load(weights: Path, settings: DetectorSettings, classes: int, predict: DetectorPredictSettings,
         runtime: RuntimeSettings, masks: bool = True) -> Predictor:
    """The trained network, ready to predict."""
    model = network.build(settings.torchvision, predict, classes, pretrained=False, masks=masks)
    load_weights(weights, model)
    return Predictor(model, devices.resolve(runtime.device), predict.mask_threshold)


class Predictor:
    """``predictor(image) -> detections``, see ``engines.Predictor``."""

    def __init__(self, model: nn.Module, device: torch.device, mask_threshold: float) -> None:
        self.model = model.eval().to(device)
        self.device, self.mask_threshold = device, mask_threshold

    @torch.inference_mode()
    def __call__(self, image_hw3: np.ndarray) -> list[Detection]:
        image = torch.from_numpy(np.ascontiguousarray(image_hw3)).permute(2, 0, 1).float().div(255)
        found = self.model([image.to(self.device)])[0]
        masks = [None] * len(found["labels"]) if "masks" not in found else (
            found["masks"][:, 0] > self.mask_threshold).cpu().numpy()  # (N, H, W)
        return [{"label": int(label) - 1, "score": float(score), "box_xyxy": box, "mask": mask}
                for label, score, box, mask in zip(found["labels"].cpu(), found["scores"].cpu(),
                                                   found["boxes"].cpu().numpy(), masks, strict=True)]
