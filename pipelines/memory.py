"""What the training steps of a preset hold in a GPU's memory, and compute: `python -m pipelines.memory voc2012 irnet`.

Counted on fake tensors (`stages.runtime.memory`), in single precision and in bfloat16; no GPU, no data and no weights
are needed, and a minute or two. Without methods: those that are named in METHODS, one after the other.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipelines.bestie import steps as bestie
from pipelines.exits import steps as exits
from pipelines.irnet import steps as irnet
from pipelines.networks import without_weights
from pipelines.panoptic import steps as panoptic
from pipelines.settings import load_params
from pipelines.wise import steps as wise
from stages.detector.memory import detector_step
from stages.runtime.errors import UserError
from stages.runtime.memory import Data, Step, step_memory, step_operations
from stages.runtime.settings import nearest
from stages.runtime.stage import errors_as_lines

STEPS: dict[str, Callable[[Any, Data], list[Step]]] = {
    "irnet": irnet.steps, "bestie": bestie.steps, "exits": exits.steps, "wise": wise.steps, "panoptic": panoptic.steps}
METHODS = tuple(STEPS)
# Numbers of things and stuff, and the size of most images, by kind of data set.
DATA = {"voc": Data(20, 0, 375, 500), "coco": Data(80, 0, 480, 640), "lvis": Data(1203, 0, 480, 640),
        "kitti": Data(2, 0, 375, 1242), "cityscapes": Data(8, 11, 1024, 2048), "panoptic": Data(80, 53, 480, 640)}
PRECISIONS = ("32-true", "bf16-mixed")


def preset_steps(settings: SimpleNamespace, method: str, data: Data) -> list[Step]:
    """All trainings of a method's chain, that of the detector with masks last; from no weights.

    Args:
        settings: a whole params.yaml, of ``load_params``.
        method: one of ``METHODS``.
        data: classes and image size.
    """
    chosen = without_weights(settings.detector)
    return [*STEPS[method](without_weights(getattr(settings, method)), data),
            detector_step("train", chosen.torchvision, chosen.train, chosen.predict, data.things)]


def data_of(settings: SimpleNamespace) -> Data:
    """Classes and image size of the preset's data set.

    Raises:
        UserError: they are not known beforehand.
    """
    kind = settings.dataset.kind
    if kind not in DATA:
        raise UserError(f"dataset.kind: {kind}: classes and size are not known before `prepare` has run; "
                        f"choose a preset of {', '.join(DATA)}")
    return DATA[kind]


def row(step: Step) -> str:
    """Peak and activations [GB] of a step in each precision, and its operations [TFLOP]."""
    figures = []
    for precision in PRECISIONS:
        memory = step_memory(step, precision)
        figures.append(f"{precision}: peak {memory.peak / 1e9:6.2f} GB, activations {memory.activations / 1e9:6.2f} GB")
    return "  ".join([f"{step.name:18s} batch {step.batch:3d}", *figures, f"{step_operations(step) / 1e12:6.2f} TFLOP"])


def main(arguments: Sequence[str]) -> None:
    """Print the table of a preset."""
    if not arguments:
        raise UserError("python -m pipelines.memory PRESET [METHOD ...]: name a preset of pipelines/presets/")
    for method in arguments[1:]:
        if method not in METHODS:
            raise UserError(f"{method}: no training of a method is known{nearest(method, METHODS)} "
                            f"(allowed: {', '.join(METHODS)})")
    settings = load_params(Path(f"pipelines/presets/{arguments[0]}.yaml"))
    for method in arguments[1:] or METHODS:
        print(f"{arguments[0]}, {method}")
        for step in preset_steps(settings, method, data_of(settings)):
            print(f"  {row(step)}", flush=True)


if __name__ == "__main__":
    with errors_as_lines():
        main(sys.argv[1:])
