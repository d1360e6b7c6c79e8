"""IRNet's training: its network, samples, losses, what its displacements have learnt, and their mean, which goes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
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
from stages.runtime.training import Training, total_steps
from stages.runtime.walk import ahead

MEASURED = 500
"""Images whose displacements are compared with a field of zeros, at most: all pairs of cells of each are looked at."""
DEAD = 0.98
"""Share of the error of zeros above which an axis has learnt nothing: those seen dead had 0.99 and more, those that
lived 0.85 and less."""


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
    warmup = Warmup(chosen.background_warmup * total_steps(chosen, len(samples)))

    def losses(network: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        displacement, boundary = network(batch["image"])
        terms = relation_losses(displacement, boundary, batch["labels"], chosen.radius, chosen.axes)
        # The branches share nothing but the frozen backbone, so a factor on the displacement losses is the same as a
        # factor on the gradient which that branch receives (section 6.1).
        share = 0.5 if chosen.halved else 1.0
        terms["displacement_background"] = terms["displacement_background"] * warmup()
        return {name: term * share * (chosen.displacement_factor if name.startswith("displacement") else 1.0)
                for name, term in terms.items()}

    errors: list[np.ndarray] = []

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
        (dy, dx), zeros = np.mean(errors, axis=0).tolist()
        for warning in dead_axes((dy, dx), zeros):
            print(f"warning: {warning}", file=sys.stderr, flush=True)
        write_json(folder / "metrics.json", {
            "displacement_error": dy + dx, "displacement_error_dy": dy, "displacement_error_dx": dx,
            "displacement_error_of_zeros": sum(zeros)}, indent=2)

    return Training(model, losses, samples, extra_state={"warmup": warmup}, after_step=warmup.tick,
                    finish=measure_and_subtract_mean, state=lambda: trained_state(model, chosen))


def dead_axes(errors: Sequence[float], zeros: Sequence[float]) -> list[str]:
    """What to say of the axes (dy, dx) whose error [cells] is that of a field of zeros: instances are not told apart
    along them."""
    return [f"the displacement field has learnt nothing along {axis}: it misses by {error:.2f} cells, zeros by "
            f"{nothing:.2f}; see irnet.network.separate_axes and irnet.network.background_warmup"
            for axis, error, nothing in zip("yx", errors, zeros, strict=True) if nothing > 0 and error > DEAD * nothing]


class Warmup(nn.Module):
    """A factor that grows evenly from 0 to 1 over the first steps of a training.

    It counts on the training's device, so that no step waits for the host, and a checkpoint holds its count.

    Args:
        steps: until it is 1; 0: it is 1 from the start.
    """

    done: Tensor

    def __init__(self, steps: float) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("done", torch.zeros(()))

    def forward(self) -> Tensor:
        """The factor, ()."""
        return (self.done / self.steps).clamp(max=1) if self.steps > 0 else torch.ones_like(self.done)

    def tick(self, steps: int) -> None:
        """Called after every step with the number of steps done."""
        self.done.fill_(steps)
