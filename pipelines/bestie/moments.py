"""The labels that the instance network would learn from at some moments of its training (fig. 6).

Training may not see the truth, so it keeps labels, and whoever knows the truth counts the right ones among them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.bestie.network import BestieNetwork
from pipelines.bestie.refined import Grouped, point_instances, refined_instances
from pipelines.bestie.samples import LabelledCrops
from pipelines.bestie.settings import BestieSettings
from stages.cues.views import view_size
from stages.labels import rle
from stages.labels.coco import Entry
from stages.labels.images import read_rgb
from stages.runtime import layout


class Clock(nn.Module):
    """Steps done, and what was kept at some of them; a module, so that a resumed training has both from its checkpoint.

    Args:
        total: steps of the whole training.
        moments: how often something is kept, evenly spread, the last time at the end; 0 = never.
        keep: gives what is to be kept: anything that JSON can hold.
    """

    def __init__(self, total: int, moments: int, keep: Callable[[], Any]) -> None:
        super().__init__()
        self.total, self.done, self.keep = total, 0, keep
        self.due = {-(-total * number // moments) for number in range(1, moments + 1)} if moments else set()
        self.kept: list[dict[str, Any]] = []

    def tick(self, steps: int) -> None:
        """Called after every step with the number of steps done."""
        self.done = steps
        if steps in self.due:
            self.kept.append({"step": steps, "share": round(steps / self.total, 4), "annotations": self.keep()})

    def get_extra_state(self) -> Tensor:
        # Keys in their order: moments.json is to have the same bytes after a kill.
        content = json.dumps({"done": self.done, "kept": self.kept}).encode()
        return torch.frombuffer(bytearray(content), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        content = json.loads(bytes(state.cpu().numpy().tobytes()))
        self.done, self.kept = content["done"], content["kept"]


@torch.no_grad()
def current_labels(model: BestieNetwork, samples: LabelledCrops, images: Sequence[Entry], category_ids: Sequence[int],
                   settings: BestieSettings) -> list[Entry]:
    """Pseudo and, if the network refines, refined labels of whole images, as annotations.

    Args:
        model: left in the mode that it is in.
        samples: what it is trained on.
        images: those that are looked at.
        category_ids: of its classes.
        settings: of the method.

    Returns:
        ``image_id``, ``category_id``, ``segmentation``, ``score`` and ``kind``: pseudo or refined.
    """
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    found: list[Entry] = []
    for image in images:
        pixels = read_rgb(layout.IMAGES / image["file_name"])
        size = (pixels.shape[0], pixels.shape[1])
        if view_size(size, 1.0, settings.inference.max_pixels) != size:
            continue  # too large to be looked at in one piece
        sample = samples.labelled(pixels, np.ones(size, bool), samples.known(image, size))
        instances = sample["instances"].numpy()
        maps = [("pseudo", int(sample["centres"][number - 1, 0]), 1.0, instances == number)
                for number in np.unique(instances) if number]
        if settings.network.refinement.enabled:
            batch = {name: value[None].to(device) for name, value in sample.items()}
            logits, heat, offset = model(batch["image"])
            if settings.cues.source == "points":
                grouped = point_instances(offset, batch["semantic"], batch["centres"], len(category_ids))
            else:
                grouped = refined_instances(heat, offset, logits, batch["semantic"], batch["components"],
                                            settings.network.refinement)
            maps += [("refined", *one) for one in _masks(grouped, size)]
        found += [{"image_id": image["id"], "category_id": category_ids[category], "score": round(score, 6),
                   "kind": kind, "segmentation": rle.encode(mask)} for kind, category, score, mask in maps]
    model.train(training)
    return found


def _masks(grouped: Grouped, size: tuple[int, int]) -> list[tuple[int, float, np.ndarray]]:
    """Class index, weight and mask (H, W) of every instance of one image that has a pixel."""
    labels = torch.full(size, -1, dtype=torch.int64)
    instance = grouped.instance.cpu()
    labels[grouped.pixels.y.cpu(), grouped.pixels.x.cpu()] = instance
    category = torch.zeros(len(grouped.score), dtype=torch.int64)
    category[instance] = grouped.pixels.category.cpu()
    scores, values = grouped.score.cpu(), labels.numpy()
    return [(int(category[number]), float(scores[number]), values == number)
            for number in instance.unique().tolist()]
