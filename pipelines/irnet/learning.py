"""IRNet's training: its network, samples, losses, what its displacements have learnt, and their mean, which goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.irnet.fields import fields, mean_displacement
from pipelines.irnet.losses import displacement_errors, relation_losses
from pipelines.irnet.network import build_irnet, trained_state
from pipelines.irnet.samples import RelatedImages
from pipelines.irnet.settings import IGNORE, IRNetSettings
from stages.cues.views import read_tensor
from stages.labels.coco import category_indices, read_coco
from stages.labels.maps import shrink_labels
from stages.runtime import layout
from stages.runtime.errors import UserError
from stages.runtime.files import write_json
from stages.runtime.training import Training
from stages.runtime.walk import ahead

MEASURED = 500
"""Images whose displacements are compared with a field of zeros, at most: all pairs of cells of each are looked at."""


def irnet_training(relations: Path, classifier: Path, settings: IRNetSettings, device: torch.device) -> Training:
    """IRNet on a trained classifier's frozen backbone, learning from confident areas.

    Args:
        relations: folder of the pseudo class maps.
        classifier: folder of the trained classifier.
        settings: network, training and grid.
        device: where it is trained.

    Raises:
        UserError: no image has a tag of a thing class.
    """
    chosen = settings.network
    weak = read_coco(layout.WEAK["train"])
    things = set(category_indices(weak["categories"], things_only=True))
    images = [image for image in weak["images"] if things & set(image["tags"])]
    if not images:
        raise UserError(f"{layout.WEAK['train']}: no image has a tag of a thing class; IRNet learns from tags, so the "
                        f"annotations need them (annotations.kinds: [tags])")
    model = build_irnet(classifier, settings, device)
    samples = RelatedImages(images, relations, chosen.augment, settings.grid)

    def losses(network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        displacement, boundary = network(batch["image"])
        terms = relation_losses(displacement, boundary, batch["labels"], chosen.radius, chosen.axes)
        # The branches share nothing but the frozen backbone, so a factor on the displacement losses is the same as a
        # factor on the gradient which that branch receives (section 6.1).
        share = 0.5 if chosen.halved else 1.0
        return {name: term * share * (chosen.displacement_factor if name.startswith("displacement") else 1.0)
                for name, term in terms.items()}

    errors: list[tuple[float, float]] = []

    def displacements() -> Iterator[tuple[Tensor, np.ndarray | None]]:
        """D of every training image, and its confident foreground if only that counts."""
        loaded = ahead(images, lambda image: read_tensor(layout.IMAGES / image["file_name"]), "mean displacement",
                       part="train")
        for number, (image, pixels) in enumerate(loaded):
            field, _ = fields(model, pixels.to(device), flip=False, max_pixels=chosen.max_pixels)
            measured = number % -(-len(images) // MEASURED) == 0
            if not measured and chosen.mean_over == "all":
                yield field, None
                continue
            labels = shrink_labels(samples.labels(image), settings.grid)
            if measured:
                errors.append(displacement_errors(field, torch.from_numpy(labels).to(device), chosen.radius))
            yield field, None if chosen.mean_over == "all" else (labels > 0) & (labels != IGNORE)

    def measure_and_subtract_mean(folder: Path) -> None:
        errors.clear()
        model.displacement_mean += mean_displacement(displacements()).to(device)
        trained, zeros = np.mean(errors, axis=0).tolist()
        write_json(folder / "metrics.json", {"displacement_error": trained, "displacement_error_of_zeros": zeros},
                   indent=2)

    return Training(model, losses, samples, finish=measure_and_subtract_mean,
                    state=lambda: trained_state(model, chosen))
