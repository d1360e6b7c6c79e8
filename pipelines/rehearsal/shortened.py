"""A preset's settings with shorter trainings: what a rehearsal changes, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace

from pydantic import BaseModel

from pipelines.check import weights_of
from pipelines.networks import detector_out_of_reach, out_of_reach
from pipelines.settings import methods_run
from pipelines.workspace import Tree
from stages.detector.settings import DetectorTrainSettings
from stages.runtime.settings import TrainingSettings

STEPS = 3
"""Of each training: the first has the start of it in its time, and the last the end."""
ROUNDS = 2
"""Most rounds of refinement: the second begins where the first ended, and further ones are like it."""
STILL = 1e-30
"""Rate of a detector of Detectron2 without its weights, whose batch norm, being frozen, is then none: the values of a
hundred layers grow until one step of a real rate leaves no numbers."""


@dataclass(frozen=True)
class Planned:
    """One training as the preset has it.

    Attributes:
        key: of its settings in params.yaml.
        steps_key: of its number of steps.
        steps: how many; 0 = ``epochs`` passes over the samples.
        epochs: see ``steps``.
        batch: samples of a step.
        rounds: of the preset for each of the rehearsal, of a stage that trains in rounds.
    """

    key: str
    steps_key: str
    steps: int
    epochs: int
    batch: int
    rounds: float = 1.0

    def full_steps(self, samples: float) -> float:
        """Of the whole training, or that of one round, on so many samples."""
        return self.steps or self.epochs * max(1.0, samples // self.batch)


def trainings(settings: SimpleNamespace) -> list[Planned]:
    """All trainings of the methods that will run and of the detector, those that some option leaves out included."""
    found: list[Planned] = []
    for section in [*methods_run(settings), "detector"]:
        found += _below(getattr(settings, section, None), section)
    return [_in_rounds(plan, settings) if plan.key == "panoptic.network" else plan for plan in found]


def _in_rounds(plan: Planned, settings: SimpleNamespace) -> Planned:
    """The training of panoptic's network, which its rounds count."""
    rounds = settings.panoptic.rounds
    plan = replace(plan, rounds=max(1.0, rounds.rounds / ROUNDS))
    return replace(plan, steps_key="panoptic.rounds.steps", steps=rounds.steps) if rounds.steps else plan


def _below(value: object, key: str) -> Iterator[Planned]:
    if isinstance(value, DetectorTrainSettings):
        yield Planned(key, f"{key}.steps", value.steps, 0, value.batch_size)
    elif isinstance(value, TrainingSettings) and (value.epochs or value.steps):
        yield Planned(key, f"{key}.steps", value.steps, value.epochs, value.batch_size)
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _below(getattr(value, name), f"{key}.{name}")


def shortened(settings: SimpleNamespace, images: int, most: Mapping[str, int], weights: Iterable[str],
              device: str) -> Tree:
    """What a rehearsal changes in a preset, by dotted path: limits, numbers of steps and rounds, and only where it must
    batch sizes, weights, the rate of a detector without them, and the precision.

    Args:
        settings: of the preset.
        images: the most that are taken of train, and of val.
        most: key of a training -> largest batch.
        weights: keys of the networks whose ``weights`` cannot be had.
        device: kind of device that it runs on.
    """
    changes: Tree = {"dataset.limit": images}
    for plan in trainings(settings):
        changes[plan.steps_key] = STEPS
        if plan.batch > most[plan.key]:
            changes[f"{plan.key}.batch_size"] = most[plan.key]
        if plan.rounds > 1:
            rounds = settings.panoptic.rounds
            changes["panoptic.rounds.rounds"] = ROUNDS
            # Those in which predicted things count stay the last ones.
            changes["panoptic.rounds.merged"] = max(0, rounds.merged - rounds.rounds + ROUNDS)
    if "bestie" in methods_run(settings) and settings.bestie.network.moments > 1:
        changes["bestie.network.moments"] = 1  # at the last step; they take longer than a step
    for key in weights:
        changes[f"{key}.weights"] = "none"
        if key.endswith(".detectron2"):
            changes[f"{key.removesuffix('.detectron2')}.train.learning_rate"] = STILL
    # Fabric has it on GPUs alone; bfloat16 is everywhere.
    if device == "cpu" and settings.runtime.precision == "16-mixed":
        changes["runtime.precision"] = "32-true"
    return changes


def missing_weights(settings: SimpleNamespace, offline: bool = False) -> list[str]:
    """Keys of the networks whose ``weights: imagenet`` cannot be had here; ``offline``: of all that say so."""
    if not offline:
        return sorted({*out_of_reach(settings), *detector_out_of_reach(settings)})
    sections = [*methods_run(settings), "detector"]
    return sorted(key.removesuffix(".weights") for section in sections
                  for key, value in weights_of(getattr(settings, section, None), section) if value == "imagenet")
