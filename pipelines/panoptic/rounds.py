"""Rounds of refinement: what is trained on the labels of a round gives those of the next one (section 3.4).

A finished round is kept outside the work of the stage, in ``.work/panoptic-rounds/<n>``: ``network`` (what was trained
on the labels of round n) and ``labels`` (those that it gives: of round n + 1). So a restart goes on from the last one,
and a run that asks for one round more trains that one only.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from pipelines.panoptic.box_cues import paint, truth_masks
from pipelines.panoptic.cues import FIRST, close_maps, read_box_cues, write_maps
from pipelines.panoptic.rules import instances_of, next_labels
from pipelines.panoptic.settings import CrfSettings, PanopticInferenceSettings, PanopticSettings
from pipelines.panoptic.supervision import Boxes, Classes, boxes_of, full_labels
from stages.cues.views import read_image
from stages.labels.coco import Entry
from stages.labels.given import is_full
from stages.propagation.label_mean_field import image_kernels, label_mean_field
from stages.runtime import distributed, layout
from stages.runtime.files import write_text
from stages.runtime.seeds import entropy
from stages.runtime.settings import RuntimeSettings
from stages.runtime.together import wait_for_all
from stages.runtime.training import Training, train_stage
from stages.runtime.walk import walk_stage
from stages.runtime.weights import load_weights
from stages.runtime.work import Work, digest_of
from stages.segmentation.inference import cells_to_pixels, infer_cells
from stages.segmentation.network import SegmentationNetwork
from stages.segmentation.training import load_segmentation, segmentation_training

KEPT = layout.WORK / "panoptic-rounds"
LABELS, NETWORK = "labels", "network"


class Relabelled(TypedDict):
    """The labels of one image: ``labels`` (H, W) int16, ``instances`` (H, W) int32, which count the ``boxes``."""

    image: Entry
    labels: np.ndarray
    instances: np.ndarray
    boxes: Boxes


def refine(file: str, params: Path, settings: PanopticSettings, runtime: RuntimeSettings, seed: int, weak: Entry,
           groups: Mapping[int, Sequence[Entry]], classes: Classes, cues: Path, boxes: Path,
           outputs: Mapping[str, Path]) -> None:
    """The whole of the stage: all rounds, one after the other.

    Args:
        file: ``__file__`` of the stage's module.
        params: settings file, for further processes.
        settings: of the method.
        runtime, seed: of the trainings.
        weak: weak annotations of the training images.
        groups: image id -> annotations.
        classes: of the data set.
        cues: folder of the first labels.
        boxes: folder of the boxes' masks.
        outputs: where ``labels`` and ``network`` go: a folder of label maps for each round, and the last network.
    """
    distributed.launch(file, params, runtime.processes)
    chosen = settings.rounds
    inputs = [layout.WEAK["train"], layout.IMAGES, cues, boxes]
    # All that one round depends on; how many there shall be is none of it.
    shared = [seed, runtime.precision, settings.network, chosen.model_dump(mode="json", exclude={"rounds"}),
              *seen(settings)]
    with Work(file, inputs, [shared, chosen.rounds]) as work:
        open_chain(KEPT, digest_of(file, inputs, shared))
        labels = cues / FIRST
        for number in range(chosen.rounds):
            folder = KEPT / str(number)
            wait_for_all()
            if not (folder / NETWORK).exists():
                train_round(file, params, settings, runtime, seed, weak, classes, labels, number)
            wait_for_all()
            if not (folder / LABELS).exists():
                relabel(file, params, settings, runtime, weak, groups, classes, boxes, number)
            wait_for_all()
            labels = folder / LABELS
        if distributed.rank() == 0:
            collect(work, cues / FIRST, chosen.rounds)
            work.publish({LABELS: outputs[LABELS], NETWORK: outputs[NETWORK]})


def seen(settings: PanopticSettings) -> tuple[int, bool, float]:
    """How the semantic network looks at an image: what labels depend on."""
    return settings.inference.max_pixels, settings.inference.flip, settings.inference.scale


def open_chain(folder: Path, digest: str) -> None:
    """Go on with the rounds in a folder, or begin anew if they were made of something else."""
    if distributed.rank() > 0:
        return
    mark = folder / "digest"
    if not mark.exists() or mark.read_text() != digest:
        shutil.rmtree(folder, ignore_errors=True)
        write_text(mark, digest)


def train_round(file: str, params: Path, settings: PanopticSettings, runtime: RuntimeSettings, seed: int, weak: Entry,
                classes: Classes, labels: Path, number: int) -> None:
    """Train the network of a round, from the weights of the one before; leaves ``KEPT/<number>/network``."""
    chosen = settings.rounds
    network = settings.network.model_copy(update={
        "steps": chosen.steps or settings.network.steps,
        "learning_rate": settings.network.learning_rate * chosen.rate_factor ** number})
    before = None if number == 0 or chosen.restart else KEPT / str(number - 1) / NETWORK / "weights.pt"

    def build(device: torch.device) -> Training:
        training = segmentation_training(network, weak["images"], layout.IMAGES, labels, classes.category_ids)
        if before is not None:
            load_weights(before, training.model)
        return training

    print(f"refine: round {number + 1} of {chosen.rounds}", flush=True)
    train_stage(file, params, network, runtime, entropy(seed, "round", number), build,
                inputs=[layout.WEAK["train"], layout.IMAGES, labels, *([before] if before is not None else [])],
                parameters=number, output=KEPT / str(number) / NETWORK, part="train")


def relabel(file: str, params: Path, settings: PanopticSettings, runtime: RuntimeSettings, weak: Entry,
            groups: Mapping[int, Sequence[Entry]], classes: Classes, boxes: Path, number: int) -> None:
    """The labels that the network of a round gives; leaves ``KEPT/<number>/labels``."""
    folder = KEPT / str(number)

    def build(device: torch.device) -> Callable[[str, Entry, Tensor], Relabelled]:
        model, _ = load_segmentation(folder / NETWORK, device)
        return partial(relabel_image, model, device, groups, weak["categories"], classes, boxes, settings, number + 1)

    def write(path: Path, result: Relabelled) -> None:
        write_maps(path.parent, classes=classes, **result)

    def finish(results: Path) -> dict[str, str | Path]:
        close_maps(results, weak["images"], weak["categories"])
        return {}

    walk_stage(file, params, runtime, {"": weak["images"]}, key=layout.image_key, load=read_image, build=build,
               inputs=[layout.WEAK["train"], layout.IMAGES, boxes, folder / NETWORK / "weights.pt"],
               parameters=[settings.rounds.model_dump(mode="json", exclude={"rounds"}), *seen(settings), number],
               output=folder / LABELS, description=f"labels after round {number + 1}", suffix=".png", write=write,
               finish=finish, part="relabel")


def relabel_image(model: SegmentationNetwork, device: torch.device, groups: Mapping[int, Sequence[Entry]],
                  categories: Sequence[Entry], classes: Classes, boxes: Path, settings: PanopticSettings, number: int,
                  name: str, image: Entry, pixels: Tensor) -> Relabelled:
    """The labels of one image that follow a training; those of an image that is labelled in full stay its own.

    Args:
        model: in evaluation mode.
        device: where it is.
        groups: image id -> annotations.
        categories, classes: of the data set.
        boxes: folder of the boxes' masks.
        settings: of the method.
        number: of the labels, from 1 on.
        name: sub-folder of the walk, of no account.
        image: of the weak annotations.
        pixels: (3, H, W) uint8.

    Returns:
        What ``write_maps`` takes.
    """
    annotations = groups[image["id"]]
    given = boxes_of(image, annotations, classes)
    if is_full(image):
        labels, instances = full_labels(image, annotations, categories, classes)
        return {"image": image, "labels": labels, "instances": instances, "boxes": given}
    size = (image["height"], image["width"])
    cues = read_box_cues(boxes, image, len(given))
    things = paint(given, truth_masks(cues, given, size, settings.rounds, annotations), size)
    log_q = semantic_log_probabilities(model, pixels.to(device), classes, settings.inference)
    best, channel = refined_probabilities(log_q, pixels.to(device), settings.rounds.crf).max(0)
    predicted = np.array(classes.used, np.int16)[channel.cpu().numpy()]
    labels = next_labels(predicted, image, given, things, classes, settings.rounds, number, best.cpu().numpy())
    return {"image": image, "labels": labels, "instances": instances_of(labels, given, classes), "boxes": given}


def semantic_log_probabilities(model: SegmentationNetwork, pixels: Tensor, classes: Classes,
                               settings: PanopticInferenceSettings) -> Tensor:
    """(classes.used, H, W) float32: log Q of the classes that a pixel may have, from averaged logits of tiles."""
    cells = infer_cells(model, pixels, max_pixels=settings.max_pixels, flip=settings.flip, scale=settings.scale)
    size = (pixels.shape[-2], pixels.shape[-1])
    return cells_to_pixels(cells[list(classes.used)], model.grid, size, settings.scale).log_softmax(0)


def refined_probabilities(log_q: Tensor, pixels: Tensor, settings: CrfSettings) -> Tensor:
    """Marginals (C, H, W) of the dense CRF on the whole image; with 0 iterations the probabilities themselves."""
    if not settings.iterations:
        return log_q.exp()
    kernels = image_kernels(pixels, gaussian_xy=settings.gaussian_xy, bilateral_xy=settings.bilateral_xy,
                            bilateral_rgb=settings.bilateral_rgb)
    weights = (settings.gaussian_weight, settings.bilateral_weight)
    return label_mean_field(log_q, kernels, weights, settings.iterations).exp()


def collect(work: Work, first: Path, rounds: int) -> None:
    """Copy labels of all rounds, 0 being the cues', and the last network, with the curves of all."""
    for place in (LABELS, NETWORK):
        shutil.rmtree(work.folder / place, ignore_errors=True)
    shutil.copytree(first, work.subfolder(LABELS) / "0")
    for number in range(rounds):
        shutil.copytree(KEPT / str(number) / LABELS, work.subfolder(LABELS) / str(number + 1))
    last = KEPT / str(rounds - 1) / NETWORK
    shutil.copytree(last, work.subfolder(NETWORK), ignore=shutil.ignore_patterns("curves"), dirs_exist_ok=True)
    for number in range(rounds):
        shutil.copytree(KEPT / str(number) / NETWORK / "curves", work.subfolder(NETWORK) / f"curves/round{number + 1}")


