"""Refined labels of BESTIE for a batch of crops, without a loop over instances, against a plain loop over them.

Beside them the forward and backward pass that they are made in: ``step_seconds`` of the paper's HRNet-W48 on a batch
of the same size, and the labels' ``share`` of it in percent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from benchmarks.measure import measure, row
from pipelines.bestie.centres import lattice_points
from pipelines.bestie.network import BestieNetwork
from pipelines.bestie.refined import refined_targets
from pipelines.bestie.settings import NetworkSettings, RefinementSettings

ABOUT_SECONDS = 180
SETTINGS: dict[str, Any] = {"batch": 8, "side": 416, "classes": 20, "sigma": 6.0, "threads": 1,
                            "step_batch": 2}
SEED = 0
INSTANCES = [1, 5, 20]  # in a crop, at most five in a component


def rows() -> dict[str, dict[str, float]]:
    """Rows ``<batch>x<side>x<side>_<instances of a crop>``; ``size`` is the pixels of the batch.

    With ``_cuda`` the same on the first GPU, where there is one; the reference stays on the CPU. The step is measured
    on ``step_batch`` crops, since eight need more memory than many a machine has, and taken as many times.
    """
    batch, side = SETTINGS["batch"], SETTINGS["side"]
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    times = batch / SETTINGS["step_batch"]
    steps = {device: times * measure("benchmarks.refined_labels:training_step", 2, batch=SETTINGS["step_batch"],
                                     side=side, device=device).seconds for device in devices}
    table = {}
    for instances in INSTANCES:
        arguments = {"batch": batch, "side": side, "instances": instances}
        reference = measure("benchmarks.refined_labels:plain", 3, **arguments)
        for device in devices:
            ours = measure("benchmarks.refined_labels:vectorised", 5, device=device, **arguments)
            name = f"{batch}x{side}x{side}_{instances}" + ("" if device == "cpu" else f"_{device}")
            table[name] = {**row(batch * side * side, ours, reference), "step_seconds": steps[device],
                           "share": 100 * ours.seconds / steps[device]}
    return table


def inputs(batch: int, side: int, instances: int) -> dict[str, np.ndarray]:
    """What the network says of discs that touch in groups of up to five, and the semantic map that is given.

    The outputs are those of a trained network with some noise: some instances share a centre, some find none.
    """
    rng = np.random.default_rng(SEED)
    classes, sigma = SETTINGS["classes"], SETTINGS["sigma"]
    y, x = np.mgrid[:side, :side].astype(np.float32)
    heat = 0.02 * rng.standard_normal((batch, classes, side, side), np.float32)
    offset = np.zeros((batch, 2, side, side), np.float32)
    semantic, components = np.zeros((2, batch, side, side), np.uint8)
    groups = [min(5, instances - first) for first in range(0, instances, 5)]
    pitch, radius = side / 5, side / 10 + 1
    for image in range(batch):
        for number, members in enumerate(groups):
            category = int(rng.integers(classes))
            for member in range(members):
                centre = np.rint([(number + 0.5) * pitch * 5 / max(len(groups), 5), (member + 0.5) * pitch])
                inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius ** 2
                inside &= components[image] == 0
                semantic[image][inside], components[image][inside] = category + 1, number + 1
                offset[image][:, inside] = np.stack([centre[0] - y, centre[1] - x])[:, inside]
                peak = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * sigma ** 2))
                heat[image, category] += rng.choice([0.9, 0.6, 0.1]) * peak
    offset += 0.2 * rng.standard_normal(offset.shape, np.float32)
    logits = rng.standard_normal((batch, classes + 1, side, side), np.float32)
    return {"heat": heat, "offset": offset, "logits": logits, "semantic": semantic,
            "components": components.astype(np.int32)}


def vectorised(batch: int, side: int, instances: int, device: str = "cpu") -> Callable[[], np.ndarray]:
    """All targets of the batch in one array (B, 4, H, W): heat summed over the classes, offset, weight."""
    torch.set_num_threads(SETTINGS["threads"])
    case = {name: torch.from_numpy(value).to(device) for name, value in inputs(batch, side, instances).items()}
    small = {name: value[:1, ..., :8, :8] for name, value in case.items()}
    refined_targets(**small, settings=RefinementSettings(), sigma=SETTINGS["sigma"])  # loads what torch loads late

    def generate() -> np.ndarray:
        found = refined_targets(**case, settings=RefinementSettings(), sigma=SETTINGS["sigma"])
        heat, weight = found.centre.sum(1, keepdim=True), found.offset_weight[:, None]
        return torch.cat([heat, found.offset, weight], dim=1).cpu().numpy()

    return generate


def training_step(batch: int, side: int, device: str) -> Callable[[], np.ndarray]:
    """Forward and backward pass of the paper's network, without targets and without the optimizer."""
    torch.set_num_threads(SETTINGS["threads"])
    torch.manual_seed(SEED)
    chosen = NetworkSettings()
    chosen = chosen.model_copy(update={"backbone": chosen.backbone.model_copy(update={"weights": "none"})})
    network = BestieNetwork(chosen, SETTINGS["classes"]).to(device)
    images = torch.randn(batch, 3, side, side, device=device)

    def step() -> np.ndarray:
        outputs = network(images)
        total = sum(output.square().mean() for output in outputs)
        total.backward()
        return total.detach().cpu().numpy()[None]

    return step


def plain(batch: int, side: int, instances: int) -> Callable[[], np.ndarray]:
    """The same in NumPy and SciPy: image by image, component by component, instance by instance."""
    case = inputs(batch, side, instances)

    def generate() -> np.ndarray:
        result = np.zeros((batch, SETTINGS["classes"] + 3, side, side), np.float32)
        for image in range(batch):
            one = {name: value[image] for name, value in case.items()}
            probability = np.exp(one["logits"] - one["logits"].max(0))
            probability /= probability.sum(0)
            for number in range(1, one["components"].max() + 1):
                _component(one, probability, one["components"] == number, result[image])
        return np.concatenate([result[:, :-3].sum(1, keepdims=True), result[:, -3:]], axis=1)

    return generate


def _component(one: dict[str, np.ndarray], probability: np.ndarray, mask: np.ndarray, result: np.ndarray) -> None:
    """Adds one component's instances to ``result`` (C + 3, H, W)."""
    settings = RefinementSettings()
    category = int(one["semantic"][mask][0]) - 1
    own = np.where(mask, one["heat"][category], -np.inf)
    highest = ndimage.maximum_filter(own, settings.centres.window)
    centres = [tuple(at) for at in np.argwhere(mask & (own == highest) & (own > settings.centres.threshold))]
    scores = [own[centre] for centre in centres]
    short = mask & ((one["offset"] ** 2).sum(0) < settings.centres.offset ** 2)
    clusters, count = ndimage.label(short)
    for cluster in range(1, count + 1):
        pixels = np.argwhere(clusters == cluster)
        if abs(len(pixels) - lattice_points(settings.centres.offset)) < settings.centres.tolerance:
            centre = tuple(pixels.sum(0) // len(pixels))
            far = all(np.hypot(centre[0] - y, centre[1] - x) > settings.centres.merge
                      for y, x in centres[:len(scores)])
            if far and one["heat"][category][centre] > settings.centres.heat:
                centres.append(centre)
    scores += [probability[category + 1][centre] for centre in centres[len(scores):]]
    if not 1 <= len(centres) <= settings.most:
        return
    y, x = np.mgrid[:mask.shape[0], :mask.shape[1]].astype(np.float32)
    aims = np.stack([y, x]) + one["offset"]
    distances = np.stack([(aims[0] - np.float32(v)) ** 2 + (aims[1] - np.float32(u)) ** 2 for v, u in centres])
    nearest = distances.argmin(0)
    reach = int(3 * SETTINGS["sigma"] + 1)
    for index, score in enumerate(scores):
        instance = mask & (nearest == index)
        if not instance.any():
            continue
        v, u = np.argwhere(instance).sum(0) // instance.sum()
        gaussian = np.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * SETTINGS["sigma"] ** 2))
        gaussian[(abs(y - v) > reach) | (abs(x - u) > reach)] = 0
        result[category] = np.maximum(result[category], gaussian)
        result[-3:, instance] = np.stack([v - y, u - x, np.full_like(y, score)])[:, instance]
