"""Training, measuring, saving and loading of the multi-label classifier, whichever method asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.cues.augment import random_view
from stages.cues.backbone import Backbone
from stages.cues.classifier import Classifier
from stages.cues.settings import AugmentSettings, BackboneSettings, ClassifierSettings, ViewSettings
from stages.cues.views import read_tensor, to_tensor, view, view_size
from stages.labels.coco import Entry, category_indices
from stages.labels.images import read_rgb
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json
from stages.runtime.optimisation import part_at_rate
from stages.runtime.training import Training
from stages.runtime.walk import ahead
from stages.runtime.weights import load_weights


class TaggedImages:
    """Random views of images with their tags as a multi-hot vector."""

    def __init__(self, folder: Path, images: Sequence[Entry], category_ids: Sequence[int],
                 augment: AugmentSettings) -> None:
        self.folder, self.augment = folder, augment
        self.images = list(images)
        self.targets = multi_hot(self.images, category_ids)

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int, generator: np.random.Generator) -> dict[str, Tensor]:
        """``image`` (3, crop, crop) uint8 and ``target`` (classes,) float."""
        image = read_rgb(self.folder / self.images[index]["file_name"])
        shown = random_view(image, {}, generator, self.augment)
        return {"image": to_tensor(shown.image), "target": torch.from_numpy(self.targets[index])}


def multi_hot(images: Sequence[Entry], category_ids: Sequence[int]) -> np.ndarray:
    """(images, classes) float32: 1 where an image's tags hold the class."""
    return np.array([[category in image["tags"] for category in category_ids] for image in images],
                    np.float32).reshape(len(images), len(category_ids))


def tag_losses(model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Binary cross-entropy over the classes."""
    return {"classification": functional.binary_cross_entropy_with_logits(model(batch["image"]), batch["target"])}


@torch.no_grad()
def probabilities(model: Classifier, folder: Path, images: Sequence[Entry], long_side: int | None = None) -> np.ndarray:
    """(images, classes): the classifier's probabilities on whole images, one at a time.

    ``long_side`` is the length [px] to which the longer side is brought, so that objects are as large as in training.
    """
    model.eval()
    device, cap = next(model.parameters()).device, ViewSettings().max_pixels
    rows = []
    for _, pixels in ahead(images, lambda image: read_tensor(folder / image["file_name"]), "probabilities"):
        size = (int(pixels.shape[1]), int(pixels.shape[2]))
        factor = 1.0 if long_side is None else long_side / max(size)
        rows.append(model(view(pixels.to(device), view_size(size, factor, cap))[None]).sigmoid()[0].cpu().numpy())
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


def classifier_training(weak: Mapping[str, Entry], settings: ClassifierSettings, *, things_only: bool,
                        inserted: Mapping[str, nn.Module] | None = None) -> Training:
    """The training of a classifier of tags; beside its weights it leaves ``classifier.json`` and ``metrics.json``.

    Args:
        weak: weak annotations by split; those of "train" are learnt from.
        settings: of network and training.
        things_only: leave stuff classes out.
        inserted: modules behind layers of the backbone, by the layers' names (see ``Classifier.insert_behind``).

    Raises:
        UserError: no image has a tag of such a class.
    """
    train = weak["train"]
    category_ids = sorted(category_indices(train["categories"], things_only=things_only))
    if not any(set(image["tags"]) & set(category_ids) for image in train["images"]):
        raise UserError(f"{layout.WEAK['train']}: no image has a tag of a {'thing ' if things_only else ''}class; the "
                        f"classifier learns from tags, so the annotations need them (annotations.kinds: [tags])")
    model = Classifier(settings.backbone, len(category_ids), settings.dropout, settings.logit_scale)
    for name, module in (inserted or {}).items():
        model.insert_behind(name, module)
    groups = part_at_rate(model, model.backbone, settings.learning_rate, settings.backbone_factor)

    def finish(folder: Path) -> None:
        describe_classifier(folder, model, category_ids)
        write_json(folder / "metrics.json", measure_classifier(model, weak, category_ids, settings.augment.long_side),
                   indent=2)

    return Training(model, tag_losses, TaggedImages(layout.IMAGES, train["images"], category_ids, settings.augment),
                    groups=groups, finish=finish)


def measure_classifier(model: Classifier, weak: Mapping[str, Entry], category_ids: Sequence[int],
                       long_sides: tuple[int, int] | None) -> dict[str, Entry]:
    """Mean average precision in percent on each split, and per class on val; tags are the truth here.

    Images are looked at in the middle of the sizes that training showed (``long_sides``), where it gave a range.
    """
    names = {category["id"]: category["name"] for category in weak["train"]["categories"]}
    long_side = None if long_sides is None else sum(long_sides) // 2
    found: dict[str, Entry] = {}
    for split, content in weak.items():
        scores = probabilities(model, layout.IMAGES, content["images"], long_side)
        classes = mean_average_precision(scores, multi_hot(content["images"], category_ids))
        if not classes:
            found[split] = {"available": 0, "reason": f"no image of {layout.WEAK[split]} has a tag of these classes"}
            continue
        found[split] = {"map": round(100 * sum(classes.values()) / len(classes), 3)}
        if split == "val":
            found[split]["per_class"] = {names[category_ids[index]]: round(100 * value, 3)
                                         for index, value in classes.items()}
    return found


def describe_classifier(folder: Path, model: Classifier, category_ids: Sequence[int]) -> None:
    """Write ``classifier.json`` (backbone settings and category ids), which stands beside ``weights.pt``."""
    write_json(folder / "classifier.json", {"backbone": model.backbone.settings.model_dump(mode="json"),
                                            "scale": model.scale, "category_ids": list(category_ids)}, indent=2)


def load_classifier(folder: Path, device: torch.device,
                    inserted: Mapping[str, nn.Module] | None = None) -> tuple[Classifier, list[int]]:
    """The classifier that a training left in ``folder``, in evaluation mode, and the category id of each class.

    Args:
        folder: of ``weights.pt`` and ``classifier.json``.
        device: where the classifier shall be.
        inserted: as in its training.

    Raises:
        UserError: a file is missing, or the weights do not fit.
    """
    described = read_json(folder / "classifier.json")
    settings = BackboneSettings(**{**described["backbone"], "weights": "none"})
    model = Classifier(settings, len(described["category_ids"]), scale=described["scale"])
    for name, module in (inserted or {}).items():
        model.insert_behind(name, module)
    load_weights(folder / "weights.pt", model)
    return model.to(device).eval(), described["category_ids"]


def classifier_backbone(folder: Path, device: torch.device) -> Backbone:
    """The trained classifier's backbone alone."""
    return load_classifier(folder, device)[0].backbone
