"""The two trainings of BESTIE: the classifier with peak attention, and the instance network that refines its labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.bestie.classifier import PeakClassifier
from pipelines.bestie.losses import objective
from pipelines.bestie.moments import Clock, current_labels
from pipelines.bestie.network import BestieNetwork, Outputs
from pipelines.bestie.refined import point_targets, refined_targets
from pipelines.bestie.samples import LabelledCrops, SqueezedImages, collate
from pipelines.bestie.settings import BestieSettings, PeakClassifierSettings
from pipelines.bestie.targets import Targets, pseudo_targets
from stages.cues.classification import measure_classifier, tag_losses
from stages.labels.coco import Entry, annotations_by_image, category_indices
from stages.runtime import distributed, layout
from stages.runtime.errors import UserError
from stages.runtime.files import read_json, write_json
from stages.runtime.optimisation import part_at_rate
from stages.runtime.training import Training, total_steps
from stages.runtime.weights import load_weights


def peak_classifier_training(weak: Mapping[str, Entry], settings: PeakClassifierSettings) -> Training:
    """The classifier of the tags of things; beside its weights it leaves ``classifier.json`` and ``metrics.json``.

    Raises:
        UserError: no image has a tag of a thing class.
    """
    category_ids = sorted(category_indices(weak["train"]["categories"], things_only=True))
    images = weak["train"]["images"]
    if not any(set(image.get("tags", ())) & set(category_ids) for image in images):
        raise UserError(f"{layout.WEAK['train']}: no image has a tag of a thing class; the classifier learns from "
                        f"tags, so the annotations need them (annotations.kinds: [tags])")
    model = PeakClassifier(settings, len(category_ids))
    size = (settings.side, settings.side) if settings.side else settings.augment.long_side

    def finish(folder: Path) -> None:
        write_json(folder / "classifier.json", {"category_ids": category_ids}, indent=2)
        write_json(folder / "metrics.json", measure_classifier(model, weak, category_ids, size), indent=2)

    return Training(model, tag_losses, SqueezedImages(images, category_ids, settings), groups=model.parameter_groups(),
                    finish=finish)


def load_peak_classifier(folder: Path, settings: PeakClassifierSettings, device: torch.device
                         ) -> tuple[PeakClassifier, list[int]]:
    """The trained classifier in evaluation mode, and the category id of each class."""
    category_ids = read_json(folder / "classifier.json")["category_ids"]
    backbone = settings.backbone.model_copy(update={"weights": "none"})
    model = PeakClassifier(settings.model_copy(update={"backbone": backbone}), len(category_ids))
    load_weights(folder / "weights.pt", model)
    return model.to(device).eval(), category_ids


def refiner_training(semantic: Path, cues: Path, settings: BestieSettings, given: Path | None = None) -> Training:
    """The instance network on pseudo labels and on its own refined ones (sections 3.3 to 3.5).

    Args:
        semantic: folder of the semantic PNGs of the training images.
        cues: folder of their cues.
        settings: of the method.
        given: folder of instance masks in the place of the transfer's pseudo instances (table 5).
    """
    chosen = settings.network
    weak = read_json(layout.WEAK["train"])
    category_ids = sorted(category_indices(weak["categories"], things_only=True))
    tags = image_classes(weak, category_ids)
    samples = LabelledCrops([image for image in weak["images"] if tags[image["id"]]], tags, semantic, cues,
                            category_ids, settings, given)
    model = BestieNetwork(chosen, len(category_ids))
    total = total_steps(chosen, len(samples))

    shown = samples.images[:chosen.moment_images]
    clock = Clock(total, chosen.moments if distributed.rank() == 0 else 0,
                  lambda: current_labels(model, samples, shown, category_ids, settings))

    def losses(network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        refine = chosen.refinement.enabled and clock.done >= chosen.refinement.start * total
        outputs: Outputs = network(batch["image"])
        with torch.autocast(outputs.heat.device.type, enabled=False):
            pseudo, refined = guidance(outputs, batch, len(category_ids), settings, refine)
            return objective(outputs.logits, outputs.heat, outputs.offset, batch["semantic"], pseudo, refined, chosen)

    def finish(folder: Path) -> None:
        write_json(folder / "refiner.json", {"category_ids": category_ids}, indent=2)
        write_json(folder / "moments.json", {"images": [image["id"] for image in shown], "moments": clock.kept})

    return Training(model, losses, samples, collate=collate,
                    groups=part_at_rate(model, model.backbone, chosen.learning_rate, chosen.backbone_factor),
                    extra_state={"clock": clock}, after_step=clock.tick, finish=finish)


def guidance(outputs: Outputs, batch: Mapping[str, Tensor], classes: int,
             settings: BestieSettings, refine: bool) -> tuple[Targets, Targets | None]:
    """Pseudo and, if wanted, refined targets of a batch.

    Args:
        outputs: of the network.
        batch: of ``LabelledCrops``.
        classes: how many.
        settings: of the method.
        refine: whether to make refined ones.
    """
    logits, heat, offset = outputs
    sigma, points = settings.transfer.sigma, settings.cues.source == "points"
    pseudo = pseudo_targets(batch["instances"], batch["centres"], classes, sigma,
                            batch["semantic"] > 0 if points else None)
    refined: Targets | None = None
    if refine and points:
        refined = point_targets(offset, batch["semantic"], batch["centres"], classes, sigma)
    elif refine:
        refined = refined_targets(heat, offset, logits, batch["semantic"], batch["components"],
                                  settings.network.refinement, sigma)
    if not settings.network.guidance:
        pseudo = pseudo.unguided(batch["inside"])
        refined = None if refined is None else refined.unguided(batch["inside"])
    return pseudo, refined


def load_refiner(folder: Path, settings: BestieSettings, device: torch.device) -> tuple[BestieNetwork, list[int]]:
    """The trained instance network in evaluation mode, and the category id of each class."""
    category_ids = read_json(folder / "refiner.json")["category_ids"]
    backbone = settings.network.backbone.model_copy(update={"weights": "none"})
    model = BestieNetwork(settings.network.model_copy(update={"backbone": backbone}), len(category_ids))
    load_weights(folder / "weights.pt", model)
    return model.to(device).eval(), category_ids


def image_classes(weak: Entry, category_ids: list[int]) -> dict[int, set[int]]:
    """Image id -> categories that its tags name, or, where it has none, its points."""
    groups = annotations_by_image(weak)
    return {image["id"]: set(category_ids) & (set(image["tags"]) if "tags" in image else {
        annotation["category_id"] for annotation in groups[image["id"]] if "point" in annotation})
        for image in weak["images"]}
