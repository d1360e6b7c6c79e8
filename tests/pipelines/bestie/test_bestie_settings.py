"""Defaults are the paper's values, and impossible ones are refused."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from pipelines.bestie import costs
from pipelines.bestie.centres import lattice_points
from pipelines.bestie.settings import BestieSettings, CentreSettings, CueSettings
from stages.runtime.machine import Machine
from stages.runtime.settings import Settings


def test_the_papers_values():
    settings = BestieSettings()
    classifier, network = settings.classifier, settings.network
    assert (classifier.backbone.name, classifier.attention, classifier.alpha) == ("vgg16", (6,), 0.7)
    assert (classifier.epochs, classifier.batch_size, classifier.learning_rate, classifier.schedule) == (
        15, 5, 0.001, "thirds")
    assert settings.cues.threshold == 0.5 and settings.transfer.sigma == 6
    assert (network.backbone.name, network.epochs, network.batch_size, network.learning_rate) == (
        "hrnet_w48", 70, 32, 5e-5)
    assert (network.optimizer, network.schedule, network.augment.crop) == ("adam", "polynomial", 416)
    assert (network.centre_weight, network.offset_weight, network.semantic_weight) == (200, 0.01, 1)
    centres = network.refinement.centres
    assert (centres.offset, lattice_points(centres.offset), centres.tolerance) == (2.5, 21, 3)
    assert network.guidance and network.refinement.enabled and centres.clustering


@pytest.mark.parametrize(("model", "name"), [(CueSettings, "window"), (CueSettings, "smoothing"),
                                             (CentreSettings, "window")])
def test_windows_have_a_middle(model, name):
    with pytest.raises(ValidationError, match="an odd number"):
        model(**{name: 4})


def test_what_a_retraining_costs():
    """As much as the first training and its labels, and nothing of what comes before."""

    def seconds(iterations, **changes):
        settings = BestieSettings(retraining={"iterations": iterations}, **changes)
        return costs.estimate(settings, 100, 500 * 375, Machine("cpu", 2))[0]

    assert BestieSettings().retraining.iterations == 0, "the method as published"
    alone = {"cues": {"source": "points"}, "maps": {"source": "folder"}, "inference": {"flip": False}}
    assert seconds(2, **alone) == pytest.approx(3 * seconds(0, **alone))
    assert seconds(1) - seconds(0) == pytest.approx(seconds(0, **alone))
    assert seconds(0, **alone) == pytest.approx(100 * 40e-6 * (70 * 416 ** 2 + 500 * 375 / 3))


def test_every_setting_says_where_its_default_comes_from():
    source = re.compile(r"paper|sec\.|app\.|eq\.|fig\.|listing|table|published code|Panoptic-DeepLab|see ", re.I)

    def check(model: type[Settings]) -> None:
        for name, field in model.model_fields.items():
            assert source.search(field.description or ""), f"{model.__name__}.{name}"
            if isinstance(field.annotation, type) and issubclass(field.annotation, Settings) and \
                    field.annotation.__module__ == "pipelines.bestie.settings":
                check(field.annotation)

    check(BestieSettings)
