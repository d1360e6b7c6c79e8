"""Training and inference of a segmentation network in the shape that stages use, whichever method asks for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import torch

from stages.cues.views import to_tensor
from stages.labels.coco import Entry
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json
from stages.runtime.optimisation import part_at_rate
from stages.runtime.training import Training
from stages.runtime.weights import load_weights
from stages.segmentation.inference import infer_semantic, most_likely
from stages.segmentation.labels import category_map
from stages.segmentation.losses import semantic_losses
from stages.segmentation.network import SegmentationNetwork
from stages.segmentation.samples import LabelledImages
from stages.segmentation.settings import FeatureSettings, SegmentationSettings, SemanticInferenceSettings


def segmentation_training(settings: SegmentationSettings, images: Sequence[Entry], pictures: Path, labels: Path,
                          category_ids: Sequence[int]) -> Training:
    """A network and what it is trained on, for ``train_stage``.

    Args:
        settings: of network and training.
        images: COCO image entries.
        pictures: folder of the images.
        labels: folder of their semantic PNGs.
        category_ids: the classes 1, 2, ...; other values in the maps are an error.

    Returns:
        A training whose folder ``load_segmentation`` reads.
    """
    samples = LabelledImages(images, pictures, labels, category_ids, settings.augment)
    model = SegmentationNetwork(settings, len(category_ids))
    return Training(model=model, losses=semantic_losses, samples=samples,
                    groups=part_at_rate(model, model.backbone, settings.learning_rate, settings.backbone_factor),
                    finish=lambda folder: describe(folder, settings, category_ids))


def describe(folder: Path, settings: FeatureSettings, category_ids: Sequence[int]) -> None:
    """Write ``segmentation.json`` beside the weights: what they are the weights of."""
    network = settings.model_dump(mode="json", include=set(FeatureSettings.model_fields))
    network["backbone"]["weights"] = "none"  # they are in weights.pt
    write_json(folder / "segmentation.json", {"network": network, "category_ids": list(category_ids)}, indent=2)


def load_segmentation(folder: Path, device: torch.device) -> tuple[SegmentationNetwork, list[int]]:
    """Read what a training left: the network in evaluation mode, and the category ids of its classes 1, 2, ...

    Raises:
        UserError: missing or damaged files, or weights of another network.
    """
    model, category_ids = described_network(folder)
    load_weights(folder / "weights.pt", model)
    return model.to(device).eval(), category_ids


def described_network(folder: Path) -> tuple[SegmentationNetwork, list[int]]:
    """The network that ``segmentation.json`` describes, without its weights, and the category ids of its classes.

    Raises:
        UserError: the file is missing or damaged.
    """
    described = read_json(folder / "segmentation.json")
    try:
        settings = FeatureSettings(**described["network"])
        category_ids = [int(number) for number in described["category_ids"]]
    except (KeyError, TypeError, ValueError) as error:  # pydantic's errors are ValueErrors
        raise UserError(f"{folder / 'segmentation.json'}: no description of a segmentation network "
                        f"({str(error).splitlines()[0]}); delete {folder} and run `dvc repro` again") from None
    return SegmentationNetwork(settings, len(category_ids)), category_ids


def semantic_inference(folder: Path, settings: SemanticInferenceSettings, restricted: Collection[str] = ("",)
                       ) -> Callable[[torch.device], Callable[[str, Entry, np.ndarray], dict[str, np.ndarray]]]:
    """What ``walk_stage`` builds: a function of one image entry and its pixels (H, W, 3) uint8.

    Args:
        folder: of the trained network.
        settings: scales, tiles and the like.
        restricted: sub-folders of the output whose images may only hold the classes of their ``tags`` (training
            images), where the settings say so.

    Returns:
        build(device) -> infer(sub-folder, image, pixels) -> ``semantic`` (H, W), what ``write_semantic_png`` takes:
        category ids, 0 background, 255 undecided.
    """

    def build(device: torch.device) -> Callable[[str, Entry, np.ndarray], dict[str, np.ndarray]]:
        model, category_ids = load_segmentation(folder, device)

        def infer(name: str, image: Entry, pixels: np.ndarray) -> dict[str, np.ndarray]:
            classes = None
            if settings.restrict and name in restricted:
                classes = tagged_classes(image, category_ids)
            probabilities = infer_semantic(model, to_tensor(pixels).to(device), scales=settings.scales,
                                           flip=settings.flip, max_pixels=settings.max_pixels, classes=classes)
            return {"semantic": category_map(most_likely(probabilities, classes, settings.confidence), category_ids)}

        return infer

    return build


def tagged_classes(image: Entry, category_ids: Sequence[int]) -> list[int]:
    """Channels of background and of the classes that an image's tags name."""
    if "tags" not in image:
        raise UserError(f"image {image['id']}: has no tags, to which its labels shall be restricted; annotate with "
                        f"tags (annotations.kinds), or set restrict: false")
    return [0, *(index for index, category in enumerate(category_ids, 1) if category in image["tags"])]
