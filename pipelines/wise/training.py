"""The joint training of L-Net and E-Net (eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.wise.embedding_loss import embedding_loss
from pipelines.wise.location_loss import TERMS, location_losses
from pipelines.wise.network import WiseNet, at_pixels, enlarge, pad_images
from pipelines.wise.samples import PointedImages, Sample, as_list
from pipelines.wise.settings import NetworkSettings, WiseSettings
from stages.labels.coco import Entry, category_indices
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings
from stages.runtime.training import Training, train_stage


def thing_classes(categories: Sequence[Entry]) -> dict[int, int]:
    """Category id of a thing -> class of the network, from 1 on; 0 is the background."""
    return {number: index + 1 for number, index in category_indices(categories, things_only=True).items()}


def wise_training(points: Path, proposals: Path, settings: WiseSettings) -> Training:
    """Network, samples and losses.

    Args:
        points: folder of the training images' points.
        proposals: folder of their proposals.
        settings: of cues and network.

    Raises:
        UserError: no image has a point.
    """
    weak = read_json(layout.WEAK["train"])
    classes = thing_classes(weak["categories"])
    images = weak["images"]
    if not any(read_json(points / f"{layout.image_key(image)}.json")["points"] for image in images):
        raise UserError(f"{points}: no training image has a point; WISE learns from points (annotations.kinds: "
                        f"[points]) or, with wise.cues.source: peaks, from peaks above wise.cues.peak")
    chosen = settings.network
    model = WiseNet(chosen, len(classes))
    samples = PointedImages(images, points, proposals, classes, settings.cues, chosen)

    def losses(network: nn.Module, batch: list[Sample]) -> dict[str, Tensor]:
        return joint_losses(network, model, batch, chosen)

    def count(step: int) -> None:
        model.step.fill_(step)

    return Training(model, losses, samples, collate=as_list, after_step=count)


def train(file: str, params: Path, points: Path, proposals: Path, settings: WiseSettings, runtime: RuntimeSettings,
          seed: int, output: Path) -> None:
    """The whole of the stage: ``train_stage`` with what ``wise_training`` gives, on the images of train.

    Args:
        file: ``__file__`` of the stage's module.
        params: settings file, for further processes.
        points, proposals, settings: see ``wise_training``.
        runtime: device, precision, processes.
        seed: of weights and samples.
        output: folder of the weights.
    """
    cues = settings.cues
    train_stage(file, params, settings.network, runtime, seed,
                lambda device: wise_training(points, proposals, settings),
                inputs=[layout.IMAGES, layout.WEAK["train"], points, proposals],
                parameters=[cues.objectness, cues.background, cues.best, cues.least, cues.disc], output=output)


def joint_losses(network: nn.Module, model: WiseNet, batch: Sequence[Sample],
                 settings: NetworkSettings) -> dict[str, Tensor]:
    """The terms of eq. 4, averaged over the images of a batch.

    Args:
        network: what is called: ``model``, or what wraps it.
        model: knows grid and step.
        batch: samples.
        settings: balance and warm-up.

    Returns:
        Weighted terms; their sum is L_W.
    """
    sizes = [(sample["image"].shape[-2], sample["image"].shape[-1]) for sample in batch]
    largest = (max(height for height, _ in sizes), max(width for _, width in sizes))
    images = pad_images([sample["image"] for sample in batch], largest, model.backbone.mean)
    locations, embeddings = network(images)
    rise = min(1.0, (int(model.step) + 1) / settings.term_warmup) if settings.term_warmup else 1.0
    weights = dict.fromkeys(TERMS, settings.balance)
    weights |= {name: settings.balance * rise for name in ("split", "false_positive")}
    totals: dict[str, list[Tensor]] = {name: [] for name in (*TERMS, "embedding")}
    for index, (sample, size) in enumerate(zip(batch, sizes, strict=True)):
        terms = location_losses(enlarge(locations[index:index + 1], model.grid, size)[0], sample["points"])
        for name, term in terms.items():
            totals[name].append(weights[name] * term)
        pairs = dict(sample["pairs"])
        values = at_pixels(embeddings[index], model.grid, pairs.pop("yx"))
        totals["embedding"].append((1 - settings.balance) * embedding_loss(values, **pairs))
    return {name: torch.stack(terms).mean() for name, terms in totals.items()}
