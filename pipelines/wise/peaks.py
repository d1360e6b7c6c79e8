"""Points from tags: training and inference of peak response mapping on this project's data (table 1, "PRM")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipelines.wise.settings import PeakSettings, WiseSettings
from stages.cues.classification import multi_hot
from stages.cues.prm import PeakClassifier, image_peaks
from stages.cues.views import read_tensor, view, walk_images
from stages.labels.coco import Entry, category_indices
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json
from stages.runtime.settings import RuntimeSettings
from stages.runtime.training import Training, train_stage
from stages.runtime.weights import load_weights


class SquaredImages:
    """Whole images squeezed to a square, with their tags as a multi-hot vector."""

    def __init__(self, images: Sequence[Entry], category_ids: Sequence[int], settings: PeakSettings) -> None:
        self.images, self.settings = list(images), settings
        self.targets = multi_hot(self.images, category_ids)

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int, generator: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, side, side) uint8 and ``target`` (classes,) float."""
        image = squared(read_tensor(layout.IMAGES / self.images[index]["file_name"]), self.settings.side)
        if self.settings.flip and generator.random() < 0.5:
            image = image.flip(-1)
        return {"image": image.contiguous(), "target": torch.from_numpy(self.targets[index])}


def squared(image: Tensor, side: int) -> Tensor:
    """A (3, H, W) uint8 image squeezed to (3, side, side) uint8."""
    return (255 * view(image, (side, side))).round().to(torch.uint8)


def peak_losses(network: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Soft-margin loss of the mean peak of each class (Zhou et al.)."""
    return {"classification": functional.multilabel_soft_margin_loss(network(batch["image"]), batch["target"])}


def peak_training(settings: PeakSettings) -> Training:
    """The classifier of peak response mapping, from the tags of train.

    Raises:
        UserError: no image has a tag of a thing class.
    """
    weak = read_json(layout.WEAK["train"])
    category_ids = list(category_indices(weak["categories"], things_only=True))
    if not any(set(image["tags"]) & set(category_ids) for image in weak["images"]):
        raise UserError(f"{layout.WEAK['train']}: no image has a tag of a thing class; wise.cues.source: peaks learns "
                        f"from tags (annotations.kinds: [tags])")
    model = PeakClassifier(settings.backbone, len(category_ids), settings.enlarge, settings.window)
    return Training(model, peak_losses, SquaredImages(weak["images"], category_ids, settings))


def train(file: str, params: Path, settings: PeakSettings, runtime: RuntimeSettings, seed: int, output: Path) -> None:
    """The whole of the stage: ``train_stage`` with what ``peak_training`` gives; arguments as there."""
    train_stage(file, params, settings, runtime, seed, lambda device: peak_training(settings),
                inputs=[layout.IMAGES, layout.WEAK["train"]], parameters=[], output=output)


def find_peaks(file: str, params: Path, weights: Path, settings: WiseSettings, runtime: RuntimeSettings,
               output: Path) -> None:
    """The whole of the stage: ``walk_images`` over train and val with what ``peak_inference`` gives.

    Args:
        file: ``__file__`` of the stage's module.
        params: settings file, for further processes.
        weights: of the classifier.
        settings: of cues and peaks.
        runtime: device and processes.
        output: folder of the points.
    """
    weak = {split: read_json(path) for split, path in layout.WEAK.items()}
    least, chosen = settings.cues.peak, settings.peaks
    walk_images(file, params, runtime, {split: content["images"] for split, content in weak.items()},
                build=lambda device: peak_inference(weights, weak["train"]["categories"], chosen, least, device),
                inputs=[*layout.WEAK.values(), layout.IMAGES, weights], parameters=["peaks", least, chosen],
                output=output, description="points", suffix=".json")


def peak_inference(weights: Path, categories: Sequence[Entry], settings: PeakSettings, least: float,
                   device: torch.device) -> Callable[[str, Entry, Tensor], Entry]:
    """What finds the peaks of one image, for a walk over images.

    Args:
        weights: of the classifier.
        categories: of the data set.
        settings: network and side.
        least: response that a peak exceeds.
        device: where it runs.

    Returns:
        A function of the split, a COCO image with its ``tags`` and its pixels (3, H, W) uint8, which gives what
        ``given.read_points`` reads.
    """
    category_ids = list(category_indices(categories, things_only=True))
    untrained = settings.backbone.model_copy(update={"weights": "none"})
    model = PeakClassifier(untrained, len(category_ids), settings.enlarge, settings.window)
    load_weights(weights, model)
    model = model.to(device).eval()

    def infer(split: str, image: Entry, pixels: Tensor) -> Entry:
        classes = [index for index, number in enumerate(category_ids) if number in image["tags"]]
        rows: dict[tuple[int, int, int], float] = {}
        for index, response, visited in image_peaks(model, squared(pixels, settings.side).to(device), classes, least):
            # The point is the pixel that is visited most; peaks of a class that lead to one pixel are one.
            row, column = divmod(int(visited.argmax()), visited.shape[1])
            place = (category_ids[index], row, column)
            rows[place] = max(response, rows.get(place, response))
        ratio_y, ratio_x = (int(side) / settings.side for side in pixels.shape[-2:])
        return {"points": [[(column + 0.5) * ratio_x - 0.5, (row + 0.5) * ratio_y - 0.5]
                           for _, row, column in rows],
                "category_ids": [number for number, _, _ in rows], "weak_ids": [-1] * len(rows),
                "scores": list(rows.values())}

    return infer
