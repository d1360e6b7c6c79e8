"""Training, saving and loading of the multi-label classifier, whichever method asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stages.cues.augment import AugmentSettings, random_view
from stages.cues.backbone import Backbone, BackboneSettings
from stages.cues.classifier import Classifier
from stages.labels.images import read_rgb
from stages.runtime.errors import UserError
from stages.runtime.files import atomic_path, read_json, write_json


class TaggedImages:
    """Random views of images with their tags as a multi-hot vector."""

    def __init__(self, folder: Path, images: Sequence[dict[str, Any]], category_ids: Sequence[int],
                 augment: AugmentSettings) -> None:
        self.folder, self.augment = folder, augment
        self.images = list(images)
        self.targets = multi_hot(self.images, category_ids)

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int, generator: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, crop, crop) uint8 and ``target`` (classes,) float."""
        image = read_rgb(self.folder / self.images[index]["file_name"])
        view, _, _ = random_view(image, None, generator, self.augment)
        return {"image": to_tensor(view), "target": torch.from_numpy(self.targets[index])}


def multi_hot(images: Sequence[dict[str, Any]], category_ids: Sequence[int]) -> np.ndarray:
    """(images, classes) float32: 1 where an image's tags hold the class."""
    return np.array([[category in image["tags"] for category in category_ids] for image in images],
                    np.float32).reshape(len(images), len(category_ids))


def to_tensor(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 to (3, H, W) uint8."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def tag_losses(model: torch.nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Binary cross-entropy over the classes."""
    return {"classification": functional.binary_cross_entropy_with_logits(model(batch["image"]), batch["target"])}


@torch.no_grad()
def probabilities(model: Classifier, folder: Path, images: Sequence[dict[str, Any]],
                  long_side: int | None = None) -> np.ndarray:
    """(images, classes): the classifier's probabilities on whole images, one at a time.

    ``long_side`` is the length [px] to which the longer side is brought, so that objects are as large as in training.
    """
    model.eval()
    device = next(model.parameters()).device
    rows = []
    for image in images:
        pixels = to_tensor(read_rgb(folder / image["file_name"]))[None].to(device)
        if long_side is not None:
            factor = long_side / max(pixels.shape[-2:])
            size = [max(1, round(side * factor)) for side in pixels.shape[-2:]]
            pixels = functional.interpolate(pixels.float() / 255, size=size, mode="bilinear", antialias=True)
        rows.append(model(pixels).sigmoid()[0].cpu().numpy())
    return np.array(rows, np.float32).reshape(len(images), model.head.out_channels)


def mean_average_precision(scores: np.ndarray, targets: np.ndarray) -> dict[int, float]:
    """Average precision of each class that occurs: the mean precision at the ranks of its images.

    Args:
        scores: (images, classes).
        targets: (images, classes), 0 or 1.

    Returns:
        Class index -> average precision in 0..1. Equal scores keep the images' order.
    """
    found = {}
    for index in range(targets.shape[1]):
        if not targets[:, index].any():
            continue
        hits = targets[np.argsort(-scores[:, index], kind="stable"), index]
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        found[index] = float((precision * hits).sum() / hits.sum())
    return found


def save_classifier(folder: Path, model: Classifier, category_ids: Sequence[int]) -> None:
    """Write ``weights.pt`` and ``classifier.json`` (backbone settings and category ids) into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "weights.pt") as temporary:
        torch.save({name: value.cpu() for name, value in model.state_dict().items()}, temporary)
    write_json(folder / "classifier.json", {"backbone": model.backbone.settings.model_dump(mode="json"),
                                            "scale": model.scale, "category_ids": list(category_ids)}, indent=2)


def load_classifier(folder: Path, device: torch.device) -> tuple[Classifier, list[int]]:
    """Read what ``save_classifier`` wrote; the model comes in evaluation mode, with the category id of each class."""
    described = read_json(folder / "classifier.json")
    settings = BackboneSettings(**{**described["backbone"], "weights": "none"})
    model = Classifier(settings, len(described["category_ids"]), scale=described["scale"])
    state = torch.load(folder / "weights.pt", map_location="cpu", weights_only=True)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{folder / 'weights.pt'}: does not fit the classifier ({str(error).splitlines()[0]}); "
                        f"delete {folder} and run `dvc repro` again") from None
    return model.to(device).eval(), described["category_ids"]


def classifier_backbone(folder: Path, device: torch.device) -> Backbone:
    """The trained classifier's backbone alone."""
    return load_classifier(folder, device)[0].backbone
