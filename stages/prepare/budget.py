"""How many training images a budget of annotation time affords (``dataset.budget_seconds``; WISE table 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.labels.annotation_cost import affordable, annotation_cost, supervision
from stages.labels.settings import AnnotationSeconds
from stages.prepare.settings import DatasetSettings
from stages.runtime.errors import UserError


@dataclass(frozen=True)
class Budget:
    """What a budget affords.

    Attributes:
        seconds: the budget.
        images: that it pays for.
        seconds_per_image: what one costs.
        kind: the kind of annotation.
    """

    seconds: float
    images: int
    seconds_per_image: float
    kind: str

    def sentence(self, there: int) -> str:
        """What comes of it where there are so many training images."""
        drawn = f"drawn from the {there}" if self.images < there else f"there are only {there}, all are taken"
        return (f"{self.seconds:g} s of annotation are {self.images} images with {self.kind.replace('_', ' ')} "
                f"({self.seconds_per_image:g} s each): {drawn}")


def budget_of(dataset: DatasetSettings, method: str, annotations: Mapping[str, Any],
              evaluate: Mapping[str, Any]) -> Budget | None:
    """What ``dataset.budget_seconds`` affords; None without a budget.

    Args:
        dataset: its section.
        method: full supervision costs masks, whatever is annotated.
        annotations: the section with the kinds of labels.
        evaluate: the section with ``seconds`` and ``supervision``, from which the annotation time of the metrics comes,
            too.

    Raises:
        UserError: it affords no image, or any number of them.
    """
    if dataset.budget_seconds is None:
        return None
    kinds, masked = supervision(method, evaluate.get("supervision", "auto"), annotations)
    cost = annotation_cost(kinds, masked, AnnotationSeconds.model_validate(evaluate.get("seconds") or {}))
    each = cost["seconds_per_image"]
    try:
        images = affordable(dataset.budget_seconds, each)
    except ValueError as error:
        raise UserError(f"dataset.budget_seconds: {error} (evaluate.seconds.{cost['kind']}: {each:g}), so any number "
                        f"could be had; remove the budget, or say what they cost") from None
    if not images:
        raise UserError(f"dataset.budget_seconds: {dataset.budget_seconds:g} s are less than one image with "
                        f"{cost['kind'].replace('_', ' ')}, which takes {each:g} s (evaluate.seconds); give more")
    return Budget(dataset.budget_seconds, images, each, cost["kind"])
