"""Do losses and gradients agree in bfloat16? `python -m pipelines.precision voc2012 irnet`.

One step of each training of a preset, with its own network (from random weights) on two small crops of noise, on the
CPU: the relative difference of the loss, and the cosine between both gradients, over three seeds. The CPU casts about
what a GPU casts. Takes a minute on an idle core.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from pipelines.memory import METHODS, data_of, preset_steps
from pipelines.settings import SECTIONS
from pipelines.workspace import changed
from stages.runtime.errors import UserError
from stages.runtime.memory import Step, mixed
from stages.runtime.settings import read_yaml, validate
from stages.runtime.stage import errors_as_lines

# What makes a step small; of the ViT 64 tokens are left.
SMALL: dict[str, dict[str, object]] = {
    "irnet": {f"irnet.{part}.{key}": value for part in ("classifier", "network")
              for key, value in (("batch_size", 2), ("augment.crop", 128))},
    "bestie": {f"bestie.{part}.{key}": value for part in ("classifier", "maps.segmenter", "network")
               for key, value in (("batch_size", 2), ("augment.crop", 128))},
    "exits": {"exits.crops.side": 128, "exits.propagation.cells": 8, "exits.extractor.batch_size": 2,
              "exits.generator.batch_size": 2},
    "wise": {"wise.network.batch_size": 2, "wise.network.max_pixels": 128 * 128, "wise.peaks.batch_size": 2},
    "panoptic": {"panoptic.network.augment.crop": 129, "panoptic.instances.augment.crop": 129,
                 "panoptic.network.batch_size": 2, "panoptic.instances.batch_size": 2},
}


def agreement(step: Step, seed: int = 0) -> tuple[float, float]:
    """|loss in bfloat16 - loss| / |loss|, and the cosine between both gradients, on the CPU."""
    device, found = torch.device("cpu"), []
    torch.manual_seed(seed)
    network = step.build().train()
    learning = [value for value in network.parameters() if value.requires_grad]
    for precision in ("32-true", "bf16-mixed"):
        torch.manual_seed(seed + 1)
        with mixed(precision, device):
            loss = step.loss(network, device)
        gradients = torch.autograd.grad(loss, learning, allow_unused=True)
        found.append((loss.item(), torch.cat([value.double().flatten() for value in gradients if value is not None])))
    (single, exact), (half, rounded) = found
    return abs(half - single) / abs(single), float(torch.nn.functional.cosine_similarity(exact, rounded, dim=0))


def main(arguments: Sequence[str]) -> None:
    """Print a line for each training but the detectors', whose engines have their own mixed precision."""
    if not arguments or set(arguments[1:]) - set(METHODS):
        raise UserError(f"python -m pipelines.precision PRESET [METHOD ...], of {', '.join(METHODS)}")
    path = Path(f"pipelines/presets/{arguments[0]}.yaml")
    for method in arguments[1:] or METHODS:
        settings = validate(path, changed(read_yaml(path), SMALL[method]), SECTIONS)
        for step in preset_steps(settings, method, data_of(settings)):
            if step.name not in ("train", "train_detector"):
                rows = [agreement(step, seed) for seed in range(3)]
                print(f"{arguments[0]}, {method}, {step.name}: loss differs by at most "
                      f"{max(loss for loss, _ in rows):.1e}, cosine of the gradients at least "
                      f"{min(cosine for _, cosine in rows):.4f}", flush=True)


if __name__ == "__main__":
    with errors_as_lines():
        main(sys.argv[1:])
